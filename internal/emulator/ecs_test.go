package emulator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
)

// Ids of the tasks in these tests.
const (
	webTask  = "0123456789abcdef0123456789abcdef"
	jobTask  = "11111111111111111111111111111111"
	oldTask  = "22222222-2222-2222-2222-222222222222"
	goneTask = "ffffffffffffffffffffffffffffffff"
)

// someTasks are two in the default cluster, of which one runs for a service and
// has two containers, and two in another cluster, of which one has no ECS Exec.
func someTasks() []Task {
	return []Task{
		{ID: webTask, Service: "web", Family: "site", Containers: []Container{{Name: "nginx"}, {Name: "php", Offline: true}}},
		{ID: jobTask},
		{Cluster: "c_2", ID: webTask, Containers: []Container{{Name: "one"}}},
		{Cluster: "c_2", ID: oldTask, NoExecute: true},
	}
}

// callECS makes a call that is signed for ECS.
func callECS(t testing.TB, s *Server, action, body string) answer {
	t.Helper()
	return do(t, s, newECSRequest(t, s, action, body, ecsService))
}

func newECSRequest(t testing.TB, s *Server, action, body, service string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.URL()+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113."+action)
	signFor(t, s, r, body, service)
	return r
}

// TestECSErrors is the specification of what bad calls of ECS get: the message is
// in lower case in all of them.
func TestECSErrors(t *testing.T) {
	s := startWith(t, Config{Tasks: someTasks()}, echo)
	tests := []struct {
		name, action, body string
		code, message      string // message: a part of it
	}{
		{"an unknown action", "RunTask", `{}`, "UnknownOperationException", ""},
		{"no JSON", "ListTasks", `{`, "SerializationException", ""},
		{"a member of another type", "ExecuteCommand", `{"interactive":"yes"}`, "SerializationException", ""},
		{"not interactive", "ExecuteCommand", `{"task":"` + jobTask + `","command":"ls","interactive":false}`,
			"InvalidParameterException", "Interactive is the only mode supported currently."},
		{"members as SSM spells them", "ExecuteCommand", `{"Task":"` + jobTask + `","Command":"ls","Interactive":true}`,
			"InvalidParameterException", "Interactive is the only mode"},
		{"no command", "ExecuteCommand", `{"task":"` + jobTask + `","interactive":true}`, "InvalidParameterException", "Command cannot be empty."},
		{"a blank command", "ExecuteCommand", `{"task":"` + jobTask + `","command":" ","interactive":true}`, "InvalidParameterException", "Command cannot be empty."},
		{"no task", "ExecuteCommand", `{"command":"ls","interactive":true}`, "InvalidParameterException", "Task cannot be empty."},
		{"another cluster", "ExecuteCommand", execute("nope", jobTask, "", "ls"), "ClusterNotFoundException", "Cluster not found."},
		{"a cluster of another account", "ExecuteCommand", execute("arn:aws:ecs:us-east-1:999999999999:cluster/default", jobTask, "", "ls"),
			"ClusterNotFoundException", "Cluster not found."},
		{"what is no task id", "ExecuteCommand", execute("", "web", "", "ls"), "InvalidParameterException", "task length should be one of [32,36]"},
		{"another task", "ExecuteCommand", execute("", goneTask, "", "ls"), "InvalidParameterException", "The referenced task was not found."},
		{"a task of another cluster", "ExecuteCommand", execute("c_2", "arn:aws:ecs:us-east-1:111122223333:task/default/"+webTask, "", "ls"),
			"InvalidParameterException", "The referenced task was not found."},
		{"a task without ECS Exec", "ExecuteCommand", execute("c_2", oldTask, "", "ls"), "InvalidParameterException",
			"The execute command failed because execute command was not enabled when the task was run or the execute command agent isn’t running."},
		{"two containers and no name", "ExecuteCommand", execute("", webTask, "", "ls"), "InvalidParameterException", "container name must be specified"},
		{"another container", "ExecuteCommand", execute("", webTask, "redis", "ls"), "InvalidParameterException", "The container redis was not found"},
		{"a container whose agent is not there", "ExecuteCommand", execute("", webTask, "php", "ls"), "TargetNotConnectedException",
			"The execute command failed due to an internal error. Try again later."},
		{"describing nothing", "DescribeTasks", `{"tasks":[]}`, "InvalidParameterException", "Tasks cannot be empty."},
		{"describing 101 tasks", "DescribeTasks", `{"tasks":[` + strings.Repeat(`"x",`, 100) + `"x"]}`, "InvalidParameterException", "100"},
		{"describing what is no task", "DescribeTasks", `{"tasks":["None"]}`, "InvalidParameterException", "taskId length should be one of [32,36]"},
		{"describing in another cluster", "DescribeTasks", `{"cluster":"nope","tasks":["` + jobTask + `"]}`, "ClusterNotFoundException", "Cluster not found."},
		{"listing another cluster", "ListTasks", `{"cluster":"nope"}`, "ClusterNotFoundException", "Cluster not found."},
		{"listing another service", "ListTasks", `{"serviceName":"mail"}`, "ServiceNotFoundException", "Service not found."},
		{"listing a service of another cluster", "ListTasks", `{"cluster":"c_2","serviceName":"web"}`, "ServiceNotFoundException", "Service not found."},
		{"101 a page", "ListTasks", `{"maxResults":101}`, "InvalidParameterException", "maxResults"},
		{"a token of another kind", "ListTasks", `{"nextToken":"!"}`, "InvalidParameterException", "token"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := callECS(t, s, test.action, test.body)
			if a.status != http.StatusBadRequest || a.code() != test.code || !strings.Contains(a.text("message"), test.message) {
				t.Errorf("%s %.80s got %d %s: %v, not 400 %s: …%q…", test.action, test.body, a.status, a.code(), a.members, test.code, test.message)
			}
			if _, has := a.members["Message"]; has {
				t.Errorf("%s has its message in SSM's spelling", test.code)
			}
		})
	}
	if all := s.sessions.all(); len(all) != 0 {
		t.Errorf("refused calls have started %d sessions", len(all))
	}
}

// execute is the input of an ExecuteCommand; what is empty is left out.
func execute(cluster, task, container, command string) string {
	in := map[string]any{"task": task, "command": command, "interactive": true}
	if cluster != "" {
		in["cluster"] = cluster
	}
	if container != "" {
		in["container"] = container
	}
	body, err := json.Marshal(in)
	if err != nil {
		panic(err) // it is strings and a boolean
	}
	return string(body)
}

func TestECSErrorShapes(t *testing.T) {
	tests := []struct {
		err    error
		status int
		body   string
	}{
		{modelled("InvalidParameters", "no"), 400, `{"__type":"InvalidParameters","message":"no"}`},
		{errClusterNotFound, 400, `{"__type":"ClusterNotFoundException","message":"Cluster not found."}`},
		{context.Canceled, 500, `{"__type":"ServerException","message":"Service Unavailable. Please try again later."}`},
	}
	for _, test := range tests {
		e := ecsError(test.err)
		body, err := json.Marshal(e.body())
		if err != nil || string(body) != test.body || e.status != test.status {
			t.Errorf("%v is answered as %d %s, not %d %s", test.err, e.status, body, test.status, test.body)
		}
	}
}

func TestECSCallsAreSignedForECS(t *testing.T) {
	s := startWith(t, Config{}, echo)
	for _, action := range []string{"ListTasks", "RunTask"} {
		a := do(t, s, newECSRequest(t, s, action, `{}`, "ssm"))
		if a.code() != "InvalidSignatureException" || !strings.Contains(a.message(), "correct service: 'ecs'") {
			t.Errorf("%s signed for ssm got %s: %s", action, a.code(), a.message())
		}
	}
}

func TestECSActionsCanBeDenied(t *testing.T) {
	s := startWith(t, Config{Deny: []string{"ExecuteCommand"}}, echo)
	a := callECS(t, s, "ExecuteCommand", execute("", DefaultTaskID, "", "ls"))
	want := "User: arn:aws:iam::111122223333:user/emulator is not authorized to perform: ecs:ExecuteCommand on resource: arn:aws:ecs:us-east-1:111122223333:*"
	if a.code() != "AccessDeniedException" || !strings.HasPrefix(a.text("message"), want) {
		t.Errorf("a denied action got %d %v", a.status, a.members)
	}
	if a := callECS(t, s, "ListTasks", `{}`); a.status != http.StatusOK {
		t.Errorf("an action that is not denied got %d %s", a.status, a.code())
	}
}

// TestECSCallsCanBeThrottled: the faults of calls happen to those of ECS, too.
func TestECSCallsCanBeThrottled(t *testing.T) {
	faults, err := ParseFault("throttle=times:1")
	if err != nil {
		t.Fatal(err)
	}
	s := startWith(t, Config{Faults: []Fault{faults}}, echo)
	if a := callECS(t, s, "ListTasks", `{}`); a.code() != "ThrottlingException" {
		t.Errorf("the first call got %d %v", a.status, a.members)
	}
	if a := callECS(t, s, "ListTasks", `{}`); a.status != http.StatusOK {
		t.Errorf("the second call got %d %v", a.status, a.members)
	}
}

func TestDescribeTasks(t *testing.T) {
	s := startWith(t, Config{Tasks: someTasks()}, echo)
	webARN := "arn:aws:ecs:us-east-1:111122223333:task/default/" + webTask
	a := callECS(t, s, "DescribeTasks", `{"tasks":["`+webARN+`","`+jobTask+`","arn:aws:ecs:us-east-1:111122223333:task/`+webTask+`"]}`)
	if got, want := column(a, "tasks", "taskArn"), []string{webARN, "arn:aws:ecs:us-east-1:111122223333:task/default/" + jobTask, webARN}; !slices.Equal(got, want) {
		t.Fatalf("tasks by ARN, by id and by an ARN of old are %v, not %v (%d %s)", got, want, a.status, a.message())
	}
	task := a.members["tasks"].([]any)[0].(map[string]any)
	for name, want := range map[string]any{
		"clusterArn": "arn:aws:ecs:us-east-1:111122223333:cluster/default", "lastStatus": "RUNNING", "desiredStatus": "RUNNING",
		"taskDefinitionArn": "arn:aws:ecs:us-east-1:111122223333:task-definition/site:1", "group": "service:web", "startedBy": "ecs-svc/web",
		"launchType": "FARGATE", "enableExecuteCommand": true, "connectivity": "CONNECTED",
	} {
		if task[name] != want {
			t.Errorf("%s of a task is %v, not %v", name, task[name], want)
		}
	}
	if at, _ := task["startedAt"].(float64); at <= 0 {
		t.Errorf("a task started at %v, which is no number of seconds", task["startedAt"])
	}
	containers := task["containers"].([]any)
	for i, want := range []struct{ name, runtime, agent string }{
		{"nginx", webTask + "-1234567890", "RUNNING"}, {"php", webTask + "-1234567891", "STOPPED"},
	} {
		c := containers[i].(map[string]any)
		managed := c["managedAgents"].([]any)[0].(map[string]any)
		if c["name"] != want.name || c["runtimeId"] != want.runtime || c["taskArn"] != webARN || c["lastStatus"] != "RUNNING" ||
			managed["name"] != "ExecuteCommandAgent" || managed["lastStatus"] != want.agent {
			t.Errorf("container %d is %v", i, c)
		}
		if arn, _ := c["containerArn"].(string); !strings.HasPrefix(arn, "arn:aws:ecs:us-east-1:111122223333:container/default/"+webTask+"/") {
			t.Errorf("the ARN of container %d is %v", i, c["containerArn"])
		}
	}
}

func TestDescribeTasksThatAreNotThere(t *testing.T) {
	s := startWith(t, Config{Tasks: someTasks()}, echo)
	otherARN := "arn:aws:ecs:us-east-1:111122223333:task/default/" + jobTask
	a := callECS(t, s, "DescribeTasks", `{"cluster":"arn:aws:ecs:us-east-1:111122223333:cluster/c_2","tasks":["`+oldTask+`","`+goneTask+`","`+otherARN+`"]}`)
	if got := column(a, "tasks", "taskArn"); len(got) != 1 || !strings.HasSuffix(got[0], "/c_2/"+oldTask) {
		t.Errorf("of a task and two missing ones came %v (%d %s)", got, a.status, a.message())
	}
	want := []string{"arn:aws:ecs:us-east-1:111122223333:task/c_2/" + goneTask, otherARN}
	if got := column(a, "failures", "arn"); !slices.Equal(got, want) || !slices.Equal(column(a, "failures", "reason"), []string{"MISSING", "MISSING"}) {
		t.Errorf("the failures are %v, not %v", a.members["failures"], want)
	}
	task := a.members["tasks"].([]any)[0].(map[string]any)
	container := task["containers"].([]any)[0].(map[string]any)
	if _, has := container["managedAgents"]; has || task["enableExecuteCommand"] != false {
		t.Errorf("a task without ECS Exec is %v", task)
	}
	if task["group"] != "family:app" || container["runtimeId"] != strings.ReplaceAll(oldTask, "-", "")+"-1234567890" {
		t.Errorf("a task without a service is %v", task)
	}
	// Callers read the elements of both lists, which must be lists for that.
	a = callECS(t, s, "DescribeTasks", `{"tasks":["`+goneTask+`"]}`)
	if tasks, ok := a.members["tasks"].([]any); !ok || len(tasks) != 0 {
		t.Errorf("without any task the list is %v", a.members["tasks"])
	}
}

func TestListTasks(t *testing.T) {
	s := startWith(t, Config{Tasks: someTasks()}, echo)
	tests := []struct{ name, body, want string }{
		{"all of the default cluster", `{}`, "default/" + webTask + " default/" + jobTask},
		{"all of another cluster", `{"cluster":"c_2"}`, "c_2/" + webTask + " c_2/" + oldTask},
		{"by service", `{"serviceName":"web"}`, "default/" + webTask},
		{"by the ARN of a service", `{"serviceName":"arn:aws:ecs:us-east-1:111122223333:service/default/web"}`, "default/" + webTask},
		{"by family", `{"family":"app"}`, "default/" + jobTask},
		{"by another family", `{"family":"mail"}`, ""},
		{"by who started them", `{"startedBy":"ecs-svc/web"}`, "default/" + webTask},
		{"those that run", `{"desiredStatus":"RUNNING","launchType":"FARGATE"}`, "default/" + webTask + " default/" + jobTask},
		{"those that have stopped", `{"desiredStatus":"STOPPED"}`, ""},
		{"those on EC2", `{"launchType":"EC2"}`, ""},
		{"those of a container instance", `{"containerInstance":"x"}`, ""},
	}
	for _, test := range tests {
		a := callECS(t, s, "ListTasks", test.body)
		var want []string
		for short := range strings.FieldsSeq(test.want) {
			want = append(want, "arn:aws:ecs:us-east-1:111122223333:task/"+short)
		}
		if got := taskARNs(t, a); a.status != 200 || !slices.Equal(got, want) {
			t.Errorf("%s: %v, not %v (%d %s)", test.name, got, want, a.status, a.message())
		}
	}
	first := callECS(t, s, "ListTasks", `{"maxResults":1}`)
	second := callECS(t, s, "ListTasks", `{"maxResults":1,"nextToken":"`+first.text("nextToken")+`"}`)
	if got := append(taskARNs(t, first), taskARNs(t, second)...); len(got) != 2 || got[0] == got[1] || second.text("nextToken") != "" {
		t.Errorf("two pages of one have %v", got)
	}
}

func taskARNs(t *testing.T, a answer) []string {
	t.Helper()
	list, ok := a.members["taskArns"].([]any)
	if !ok {
		t.Fatalf("the answer has no list of tasks: %v", a.members)
	}
	var arns []string
	for _, arn := range list {
		arns = append(arns, arn.(string))
	}
	return arns
}

func TestTheDefaultCluster(t *testing.T) {
	for name, tasks := range map[string][]Task{"nothing configured": nil, "tasks elsewhere": {{Cluster: "other"}}} {
		s := startWith(t, Config{Tasks: tasks}, echo)
		a := callECS(t, s, "ListTasks", `{"cluster":"default"}`)
		if got := taskARNs(t, a); len(got) != 1-len(tasks) {
			t.Errorf("with %s the default cluster has %v", name, got)
		}
	}
}

func TestParseTask(t *testing.T) {
	for in, want := range map[string]Task{
		"prod/" + webTask + "/app":     {Cluster: "prod", ID: webTask, Containers: []Container{{Name: "app"}}},
		"prod/" + oldTask + "/app,log": {Cluster: "prod", ID: oldTask, Containers: []Container{{Name: "app"}, {Name: "log"}}},
	} {
		got, err := ParseTask(in)
		if err != nil || got.Cluster != want.Cluster || got.ID != want.ID || !slices.Equal(got.Containers, want.Containers) {
			t.Errorf("%s is read as %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "prod", "prod/x", "prod//app", "/x/app", "prod/x/", "a/b/c/d"} {
		if got, err := ParseTask(in); err == nil {
			t.Errorf("%q is read as %+v", in, got)
		}
	}
}

func TestBadTasks(t *testing.T) {
	for name, test := range map[string]struct {
		tasks []Task
		want  string
	}{
		"a cluster with a blank":       {[]Task{{Cluster: "my cluster"}}, "cluster"},
		"an id that is none":           {[]Task{{ID: "web"}}, "32 hexadecimal digits"},
		"a container without a name":   {[]Task{{Containers: []Container{{}}}}, "container"},
		"two containers of one name":   {[]Task{{Containers: []Container{{Name: "a"}, {Name: "a"}}}}, "two containers"},
		"one task twice":               {[]Task{{}, {}}, "twice"},
		"a task twice, once defaulted": {[]Task{{}, {Cluster: DefaultCluster, ID: DefaultTaskID}}, "twice"},
	} {
		s, err := Start(context.Background(), Config{Tasks: test.tasks})
		if err == nil {
			t.Errorf("%s: the server starts", name)
			s.Close()
		} else if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
	tasks := []Task{{}}
	startWith(t, Config{Tasks: tasks}, echo)
	if tasks[0].ID != "" {
		t.Error("the caller's tasks were changed")
	}
}

// playOf gives an agent that tells its configuration and is done.
func playOf(told chan<- agent.Config) playFunc {
	return func(_ context.Context, cfg agent.Config, _ agent.Leg) agent.Result {
		told <- cfg
		return agent.Result{Status: "Success"}
	}
}

// signFor signs a request as sign does, for another service than Systems Manager.
func signFor(t testing.TB, s *Server, r *http.Request, body, service string) {
	t.Helper()
	hash := sha256.Sum256([]byte(body))
	err := v4.NewSigner().SignHTTP(context.Background(), s.key, r, hex.EncodeToString(hash[:]), service, s.cfg.Region, time.Now())
	if err != nil {
		t.Fatal(err)
	}
}
