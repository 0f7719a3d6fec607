package emulator

import "strings"

// describeTasksInput is the input of DescribeTasks.
type describeTasksInput struct {
	Cluster *string  `json:"cluster"`
	Tasks   []string `json:"tasks"`
}

// taskDescription is one element of DescribeTasks' answer: of what the model has,
// what clients of ECS Exec look at.
type taskDescription struct {
	TaskARN              string                 `json:"taskArn"`
	ClusterARN           string                 `json:"clusterArn"`
	TaskDefinitionARN    string                 `json:"taskDefinitionArn"`
	Group                string                 `json:"group"`
	LaunchType           string                 `json:"launchType"`
	LastStatus           string                 `json:"lastStatus"`
	DesiredStatus        string                 `json:"desiredStatus"`
	Connectivity         string                 `json:"connectivity"`
	EnableExecuteCommand bool                   `json:"enableExecuteCommand"`
	CreatedAt            timestamp              `json:"createdAt"`
	StartedAt            timestamp              `json:"startedAt"`
	StartedBy            string                 `json:"startedBy,omitempty"`
	Containers           []containerDescription `json:"containers"`
}

// containerDescription is one container of a taskDescription.
type containerDescription struct {
	ContainerARN  string         `json:"containerArn"`
	TaskARN       string         `json:"taskArn"`
	Name          string         `json:"name"`
	RuntimeID     string         `json:"runtimeId"`
	LastStatus    string         `json:"lastStatus"`
	ManagedAgents []managedAgent `json:"managedAgents,omitempty"`
}

// managedAgent is the agent in a container, which ECS Exec talks to.
type managedAgent struct {
	Name       string `json:"name"`
	LastStatus string `json:"lastStatus"`
}

// taskFailure is why a task is not in DescribeTasks' answer.
type taskFailure struct {
	ARN    string `json:"arn"`
	Reason string `json:"reason"`
}

// describeTasks is DescribeTasks. A task that is not there is no error: it is
// listed as missing.
func (s *Server) describeTasks(_ caller, in *describeTasksInput) (any, error) {
	cluster, err := s.cluster(in.Cluster)
	if err != nil {
		return nil, err
	}
	if len(in.Tasks) == 0 {
		return nil, ecsInvalid("Tasks cannot be empty.")
	}
	if len(in.Tasks) > 100 {
		return nil, ecsInvalid("Tasks cannot have more than 100 elements.") // our words
	}
	out := struct {
		Tasks    []taskDescription `json:"tasks"`
		Failures []taskFailure     `json:"failures"`
	}{[]taskDescription{}, []taskFailure{}}
	for _, given := range in.Tasks {
		task, err := s.task(cluster, "taskId", given)
		switch {
		case err != nil:
			return nil, err
		case task != nil:
			out.Tasks = append(out.Tasks, s.describeTask(task))
		case strings.HasPrefix(given, "arn:"):
			out.Failures = append(out.Failures, taskFailure{given, "MISSING"})
		default:
			out.Failures = append(out.Failures, taskFailure{s.ecsARN("task", cluster, given), "MISSING"})
		}
	}
	return out, nil
}

// describeTask tells of a task what the API tells. All of them started with the
// emulator.
func (s *Server) describeTask(t *Task) taskDescription {
	d := taskDescription{
		TaskARN:              s.ecsARN("task", t.Cluster, t.ID),
		ClusterARN:           s.ecsARN("cluster", t.Cluster),
		TaskDefinitionARN:    s.ecsARN("task-definition", t.Family) + ":1",
		Group:                "family:" + t.Family,
		LaunchType:           "FARGATE",
		LastStatus:           "RUNNING",
		DesiredStatus:        "RUNNING",
		Connectivity:         "CONNECTED",
		EnableExecuteCommand: !t.NoExecute,
		CreatedAt:            timestamp(s.started),
		StartedAt:            timestamp(s.started),
	}
	if t.Service != "" {
		d.Group = "service:" + t.Service
		d.StartedBy = startedBy(t)
	}
	for i, c := range t.Containers {
		description := containerDescription{
			ContainerARN: s.containerARN(t, i),
			TaskARN:      d.TaskARN,
			Name:         c.Name,
			RuntimeID:    t.runtimeID(i),
			LastStatus:   "RUNNING",
		}
		if !t.NoExecute {
			status := "RUNNING"
			if c.Offline {
				status = "STOPPED"
			}
			description.ManagedAgents = []managedAgent{{"ExecuteCommandAgent", status}}
		}
		d.Containers = append(d.Containers, description)
	}
	return d
}

// startedBy names the deployment of the service that runs a task.
func startedBy(t *Task) string {
	if t.Service == "" {
		return ""
	}
	return "ecs-svc/" + t.Service
}

// listTasksInput is the input of ListTasks.
type listTasksInput struct {
	Cluster           *string `json:"cluster"`
	ContainerInstance *string `json:"containerInstance"`
	Family            *string `json:"family"`
	NextToken         *string `json:"nextToken"`
	MaxResults        *int    `json:"maxResults"`
	StartedBy         *string `json:"startedBy"`
	ServiceName       *string `json:"serviceName"`
	DesiredStatus     *string `json:"desiredStatus"`
	LaunchType        *string `json:"launchType"`
}

// listTasks is ListTasks, in the order of the configuration.
func (s *Server) listTasks(_ caller, in *listTasksInput) (any, error) {
	cluster, err := s.cluster(in.Cluster)
	if err != nil {
		return nil, err
	}
	if n := orDefault(in.MaxResults, 100); n < 1 || n > 100 {
		return nil, ecsInvalid("maxResults must be between 1 and 100.") // our words
	}
	if in.ServiceName != nil {
		if err := s.checkService(cluster, *in.ServiceName); err != nil {
			return nil, err
		}
	}
	type ranked struct {
		arn  string
		rank int
	}
	var found []ranked
	for i := range s.cfg.Tasks {
		if t := &s.cfg.Tasks[i]; t.Cluster == cluster && in.lists(t) {
			found = append(found, ranked{s.ecsARN("task", cluster, t.ID), i})
		}
	}
	inOrder := func(r ranked) int { return r.rank }
	page, next, err := paginate(found, inOrder, orDefault(in.MaxResults, 100), in.NextToken)
	if err != nil {
		return nil, ecsInvalid("Invalid token.") // our words
	}
	out := struct {
		TaskARNs  []string `json:"taskArns"`
		NextToken string   `json:"nextToken,omitempty"`
	}{[]string{}, next}
	for _, r := range page {
		out.TaskARNs = append(out.TaskARNs, r.arn)
	}
	return out, nil
}

// checkService tells whether a cluster has a service: by its name or ARN.
func (s *Server) checkService(cluster, given string) error {
	for _, t := range s.cfg.Tasks {
		if t.Cluster == cluster && t.Service != "" && t.Service == lastPart(given) {
			return nil
		}
	}
	return errServiceNotFound
}

// lastPart is the name in an ARN; of a name it is all.
func lastPart(arn string) string { return arn[strings.LastIndex(arn, "/")+1:] }

// lists tells whether a task passes all filters. All tasks run, on Fargate.
func (in *listTasksInput) lists(t *Task) bool {
	is := func(filter *string, value string) bool { return filter == nil || *filter == value }
	return is(in.Family, t.Family) && is(in.StartedBy, startedBy(t)) && is(in.DesiredStatus, "RUNNING") &&
		is(in.LaunchType, "FARGATE") && in.ContainerInstance == nil &&
		(in.ServiceName == nil || lastPart(*in.ServiceName) == t.Service)
}
