package emulator

import (
	"slices"
	"strings"
)

// executeCommandInput is the input of ExecuteCommand.
type executeCommandInput struct {
	Cluster     *string `json:"cluster"`
	Container   *string `json:"container"`
	Command     *string `json:"command"`
	Interactive *bool   `json:"interactive"`
	Task        *string `json:"task"`
}

// executeCommandOutput is the answer of ExecuteCommand, which, unlike that of
// StartSession, is in camel case.
type executeCommandOutput struct {
	ClusterARN    string     `json:"clusterArn"`
	ContainerARN  string     `json:"containerArn"`
	ContainerName string     `json:"containerName"`
	Interactive   bool       `json:"interactive"`
	Session       ecsSession `json:"session"`
	TaskARN       string     `json:"taskArn"`
}

// ecsSession is a grant as ECS spells it.
type ecsSession struct {
	SessionID  string `json:"sessionId"`
	StreamURL  string `json:"streamUrl"`
	TokenValue string `json:"tokenValue"` // secret
}

// executeCommand is ExecuteCommand: a session of Systems Manager with a document
// of ECS's own, on the target that the container is.
func (s *Server) executeCommand(c caller, in *executeCommandInput) (any, error) {
	cluster, err := s.cluster(in.Cluster)
	if err != nil {
		return nil, err
	}
	if in.Interactive == nil || !*in.Interactive {
		return nil, errNotInteractive
	}
	if in.Command == nil || strings.TrimSpace(*in.Command) == "" {
		return nil, ecsInvalid("Command cannot be empty.") // our words
	}
	if in.Task == nil {
		return nil, ecsInvalid("Task cannot be empty.") // our words
	}
	task, err := s.task(cluster, "task", *in.Task)
	if err != nil {
		return nil, err
	}
	if task == nil {
		return nil, errTaskNotFound
	}
	if task.NoExecute {
		return nil, errExecuteDisabled
	}
	container, err := task.container(in.Container)
	if err != nil {
		return nil, err
	}
	target := task.target(container)
	if target.Offline {
		return nil, errExecuteInternal
	}
	document, ok := s.documents.find(ecsDocument)
	if !ok {
		panic("emulator: a document that is built in is not there")
	}
	g, err := s.begin(c, sessionRequest{
		id:         "ecs-execute-command" + strings.TrimPrefix(newSessionID(), userName),
		target:     target,
		document:   document,
		parameters: map[string][]string{"command": {*in.Command}},
	})
	if err != nil {
		return nil, err
	}
	return executeCommandOutput{
		ClusterARN:    s.ecsARN("cluster", cluster),
		ContainerARN:  s.containerARN(task, container),
		ContainerName: task.Containers[container].Name,
		Interactive:   true,
		Session:       ecsSession{g.SessionID, g.StreamURL, g.TokenValue},
		TaskARN:       s.ecsARN("task", cluster, task.ID),
	}, nil
}

// container finds a container by its name. Of one container the name need not be
// given.
func (t *Task) container(name *string) (int, error) {
	if name == nil || *name == "" {
		if len(t.Containers) > 1 {
			// Our words, as those below.
			return 0, ecsInvalid("A container name must be specified for tasks with more than one container.")
		}
		return 0, nil
	}
	i := slices.IndexFunc(t.Containers, func(c Container) bool { return c.Name == *name })
	if i < 0 {
		return 0, ecsInvalid("The container %s was not found in the task.", *name)
	}
	return i, nil
}
