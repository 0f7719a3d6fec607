package emulator

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"
)

const (
	// ecsService is what calls of ECS are signed for, and ecsPrefix what is before
	// the action in their X-Amz-Target (the model of ECS, 2014-11-13).
	ecsService = "ecs"
	ecsPrefix  = "AmazonEC2ContainerServiceV20141113."
	// ecsDocument is the session document that ExecuteCommand runs.
	ecsDocument = "AmazonECS-ExecuteInteractiveCommand"
)

// The task that is there without configuration.
const (
	DefaultCluster   = "default"
	DefaultTaskID    = "0123456789abcdef0123456789abcdef"
	DefaultContainer = "app"
)

// Task is a running task of ECS whose containers can be connected to. All of them
// are this machine: what runs in a container runs beside the emulator. The zero
// value of each member is the default.
type Task struct {
	Cluster    string      // name of its cluster; DefaultCluster
	ID         string      // 32 hexadecimal digits, or a UUID; DefaultTaskID
	Containers []Container // one, DefaultContainer
	Family     string      // of its task definition; the name of the first container
	Service    string      // that runs it; none
	NoExecute  bool        // it was run without ECS Exec
}

// Container is a container of a task.
type Container struct {
	Name    string
	Offline bool // its agent is not connected
}

// ParseTask reads CLUSTER/TASK/CONTAINER, where more containers follow commas.
// Whether the names can be is checked by Start.
func ParseTask(s string) (Task, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 || slices.Contains(parts, "") {
		return Task{}, fmt.Errorf("task %q: not CLUSTER/TASK/CONTAINER", s)
	}
	t := Task{Cluster: parts[0], ID: parts[1]}
	for name := range strings.SplitSeq(parts[2], ",") {
		t.Containers = append(t.Containers, Container{Name: name})
	}
	return t, nil
}

// tasksOrDefault fills in what was left zero, in a copy.
func tasksOrDefault(tasks []Task) []Task {
	if len(tasks) == 0 {
		tasks = []Task{{}}
	}
	tasks = slices.Clone(tasks)
	for i := range tasks {
		t := &tasks[i]
		if t.Cluster == "" {
			t.Cluster = DefaultCluster
		}
		if t.ID == "" {
			t.ID = DefaultTaskID
		}
		if len(t.Containers) == 0 {
			t.Containers = []Container{{Name: DefaultContainer}}
		}
		if t.Family == "" {
			t.Family = t.Containers[0].Name
		}
	}
	return tasks
}

// checkTasks tells what is wrong with tasks. The patterns are those of ECS.
func checkTasks(tasks []Task) error {
	name := regexp.MustCompile(`^[a-zA-Z0-9_-]{1,255}$`)
	id := regexp.MustCompile(`^([0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)
	seen := map[string]bool{}
	for _, t := range tasks {
		if !name.MatchString(t.Cluster) {
			return fmt.Errorf("task %s: cluster %q: a name is 1 to 255 of letters, digits, _ and -", t.ID, t.Cluster)
		}
		if !id.MatchString(t.ID) {
			return fmt.Errorf("task %q: an id is 32 hexadecimal digits, or a UUID", t.ID)
		}
		for i, c := range t.Containers {
			if !name.MatchString(c.Name) {
				return fmt.Errorf("task %s: container %q: a name is 1 to 255 of letters, digits, _ and -", t.ID, c.Name)
			}
			if slices.ContainsFunc(t.Containers[:i], func(other Container) bool { return other.Name == c.Name }) {
				return fmt.Errorf("task %s: two containers are named %s", t.ID, c.Name)
			}
		}
		key := t.Cluster + "/" + t.ID
		if seen[key] {
			return fmt.Errorf("task %s is twice in cluster %s", t.ID, t.Cluster)
		}
		seen[key] = true
	}
	return nil
}

// runtimeID names a container of the task to its agent, in the form that Fargate
// has: the task's id and ten digits. It is the same in every run, so that a target
// can be written down.
func (t *Task) runtimeID(container int) string {
	return fmt.Sprintf("%s-%d", strings.ReplaceAll(t.ID, "-", ""), 1234567890+container)
}

// target is a container as Systems Manager knows it (docs/emulator.md, "ECS").
func (t *Task) target(container int) Target {
	return Target{
		ID:        "ecs:" + t.Cluster + "_" + t.ID + "_" + t.runtimeID(container),
		Offline:   t.NoExecute || t.Containers[container].Offline,
		container: true,
	}
}

// containerTarget finds a container by the target that it is.
func (s *Server) containerTarget(id string) (Target, bool) {
	if !strings.HasPrefix(id, "ecs:") {
		return Target{}, false
	}
	for _, t := range s.cfg.Tasks {
		for i := range t.Containers {
			if target := t.target(i); target.ID == id {
				return target, true
			}
		}
	}
	return Target{}, false
}

// ecsARN names a resource of ECS.
func (s *Server) ecsARN(kind string, path ...string) string {
	return "arn:aws:ecs:" + s.cfg.Region + ":" + s.cfg.AccountID + ":" + kind + "/" + strings.Join(path, "/")
}

// containerARN names a container. Its last part is not its runtime id.
func (s *Server) containerARN(t *Task, container int) string {
	return s.ecsARN("container", t.Cluster, t.ID, uuid.NewSHA1(uuid.Nil, []byte(t.runtimeID(container))).String())
}

// ecsOperation makes an action of ECS from its typed form. ECS has its own words
// for each thing that is wrong with an input.
func ecsOperation[In any](call func(caller, *In) (any, error)) operation {
	return operation{service: ecsService, call: func(c caller, body []byte) (any, error) {
		in := new(In)
		if err := decode(body, in); err != nil {
			return nil, err
		}
		out, err := call(c, in)
		if err != nil {
			return nil, ecsError(err)
		}
		return out, nil
	}}
}

// ecsError gives an error as ECS answers it: with a message in lower case, and
// with another code where the fault is the server's.
func ecsError(err error) *apiError {
	e := (*apiError)(nil)
	if !errors.As(err, &e) {
		return &apiError{http.StatusInternalServerError, "ServerException", "message", "Service Unavailable. Please try again later."}
	}
	lower := *e
	lower.member = "message"
	return &lower
}

// The errors of ECS. The texts are the service's but for those of ecsInvalid with
// a comment.
var (
	errClusterNotFound = common("ClusterNotFoundException", "Cluster not found.")
	errServiceNotFound = common("ServiceNotFoundException", "Service not found.")
	errNotInteractive  = ecsInvalid("Interactive is the only mode supported currently.")
	errTaskNotFound    = ecsInvalid("The referenced task was not found.")
	errExecuteDisabled = ecsInvalid("The execute command failed because execute command was not enabled when the task was run " +
		"or the execute command agent isn’t running. Wait and try again or run a new task with execute command enabled and try again.")
	errExecuteInternal = common("TargetNotConnectedException", "The execute command failed due to an internal error. Try again later.")
)

// ecsInvalid says that the caller's input cannot be.
func ecsInvalid(format string, args ...any) *apiError {
	return common("InvalidParameterException", fmt.Sprintf(format, args...))
}

// cluster gives the name of the cluster that an input names: by name or ARN, or
// not at all. The default cluster is there without tasks, too.
func (s *Server) cluster(given *string) (string, error) {
	if given == nil || *given == "" {
		return DefaultCluster, nil
	}
	name := *given
	if strings.HasPrefix(name, "arn:") {
		_, name, _ = strings.Cut(name, ":cluster/")
		if s.ecsARN("cluster", name) != *given {
			return "", errClusterNotFound
		}
	}
	if name != DefaultCluster && !slices.ContainsFunc(s.cfg.Tasks, func(t Task) bool { return t.Cluster == name }) {
		return "", errClusterNotFound
	}
	return name, nil
}

// task finds a task of a cluster by its id or ARN; nil for none. The member is
// what the input calls it in errors. ARNs have the cluster's name in them, or, of
// old, not.
func (s *Server) task(cluster, member, given string) (*Task, error) {
	id := given
	if strings.HasPrefix(given, "arn:") {
		id = given[strings.LastIndex(given, "/")+1:]
		if given != s.ecsARN("task", cluster, id) && given != s.ecsARN("task", id) {
			return nil, nil
		}
	}
	if len(id) != 32 && len(id) != 36 {
		return nil, ecsInvalid("%s length should be one of [32,36]", member)
	}
	i := slices.IndexFunc(s.cfg.Tasks, func(t Task) bool { return t.Cluster == cluster && t.ID == id })
	if i < 0 {
		return nil, nil
	}
	return &s.cfg.Tasks[i], nil
}
