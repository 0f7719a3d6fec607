package emulator

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// mustExecute starts a session by ExecuteCommand.
func mustExecute(t testing.TB, s *Server, body string) (grant, answer) {
	t.Helper()
	a := callECS(t, s, "ExecuteCommand", body)
	if a.status != http.StatusOK {
		t.Fatalf("ExecuteCommand %s was refused: %d %s %s", body, a.status, a.code(), a.message())
	}
	session, ok := a.members["session"].(map[string]any)
	if !ok {
		t.Fatalf("the answer has no session: %v", a.members)
	}
	text := func(name string) string { v, _ := session[name].(string); return v }
	return grant{text("sessionId"), text("tokenValue"), text("streamUrl")}, a
}

// cliTarget makes a target of an ExecuteCommand's answer as the AWS CLI does, by a
// DescribeTasks (docs/emulator.md, "ECS").
func cliTarget(t testing.TB, s *Server, a answer) string {
	t.Helper()
	cluster, task := lastPart(a.text("clusterArn")), lastPart(a.text("taskArn"))
	described := callECS(t, s, "DescribeTasks", fmt.Sprintf(`{"cluster":%q,"tasks":[%q]}`, cluster, task))
	tasks, _ := described.members["tasks"].([]any)
	if len(tasks) != 1 {
		t.Fatalf("the task of the answer is described as %v", described.members)
	}
	for _, c := range tasks[0].(map[string]any)["containers"].([]any) {
		if c := c.(map[string]any); c["name"] == a.text("containerName") {
			return fmt.Sprintf("ecs:%s_%s_%s", cluster, task, c["runtimeId"])
		}
	}
	t.Fatalf("the container of the answer is not described: %v", described.members)
	return ""
}

func TestExecuteCommand(t *testing.T) {
	told := make(chan agent.Config, 1)
	s := startWith(t, Config{Tasks: someTasks(), AgentVersion: "3.2.582.0"}, playOf(told))
	g, a := mustExecute(t, s, execute("", "arn:aws:ecs:us-east-1:111122223333:task/default/"+webTask, "nginx", `sh -c "echo {{ command }}"`))
	for name, want := range map[string]any{
		"clusterArn":    "arn:aws:ecs:us-east-1:111122223333:cluster/default",
		"taskArn":       "arn:aws:ecs:us-east-1:111122223333:task/default/" + webTask,
		"containerName": "nginx",
		"interactive":   true,
	} {
		if a.members[name] != want {
			t.Errorf("%s is %v, not %v", name, a.members[name], want)
		}
	}
	if !strings.HasPrefix(a.text("containerArn"), "arn:aws:ecs:us-east-1:111122223333:container/default/"+webTask+"/") {
		t.Errorf("the container's ARN is %q", a.text("containerArn"))
	}
	if !regexp.MustCompile(`^ecs-execute-command-[0-9a-f]{17}$`).MatchString(g.SessionID) {
		t.Errorf("the session id is %q", g.SessionID)
	}
	if want := strings.Replace(s.URL(), "http", "ws", 1) + "/v1/data-channel/" + g.SessionID + "?role=publish_subscribe"; g.StreamURL != want {
		t.Errorf("the stream URL is %q, not %q", g.StreamURL, want)
	}
	connect(t, s, g).wantClosed()
	cfg := <-told
	if !cfg.ContainerMode || cfg.Document.SessionType != frame.InteractiveCommands || cfg.SessionID != g.SessionID ||
		cfg.Document.Command != `sh -c "echo {{ command }}"` || cfg.Version != "3.2.582.0" {
		t.Errorf("the agent is told %+v", cfg)
	}
}

// TestExecuteCommandInOtherWords: a cluster by its ARN, the one container there is.
func TestExecuteCommandInOtherWords(t *testing.T) {
	s := startWith(t, Config{Tasks: someTasks()}, echo)
	for name, test := range map[string]struct{ body, container string }{
		"one container without its name": {execute("", jobTask, "", "ls"), "app"},
		"a cluster by name":              {execute("c_2", webTask, "one", "ls"), "one"},
		"a cluster by ARN":               {execute("arn:aws:ecs:us-east-1:111122223333:cluster/c_2", webTask, "", "ls"), "one"},
	} {
		if _, a := mustExecute(t, s, test.body); a.text("containerName") != test.container {
			t.Errorf("%s: the container is %q, not %q", name, a.text("containerName"), test.container)
		}
	}
}

// TestExecuteCommandIsASession: what ExecuteCommand begins goes on with the calls
// of Systems Manager, under the target that callers make of its answer.
func TestExecuteCommandIsASession(t *testing.T) {
	s := startWith(t, Config{Tasks: someTasks()}, echo)
	g, a := mustExecute(t, s, execute("c_2", webTask, "one", "cat"))
	target := cliTarget(t, s, a)
	if want := "ecs:c_2_" + webTask + "_" + webTask + "-1234567890"; target != want {
		t.Fatalf("the target is %q, not %q", target, want)
	}
	described := call(t, s, "DescribeSessions", `{"State":"Active","Filters":[{"key":"Target","value":"`+target+`"}]}`)
	if got := column(described, "Sessions", "SessionId"); len(got) != 1 || got[0] != g.SessionID {
		t.Errorf("the sessions on %s are %v, not %s", target, got, g.SessionID)
	}
	if got := column(described, "Sessions", "DocumentName"); len(got) != 1 || got[0] != "AmazonECS-ExecuteInteractiveCommand" {
		t.Errorf("the document is %v", got)
	}
	p := connect(t, s, g)
	p.send(frame.Output, []byte("before"))
	p.wantOutput("before")
	p.conn.Close()
	p.reconnect(s, mustResume(t, s, g)) // the end comes over this one
	p.until("opening anew", func() bool { return p.started == 2 })
	if a := call(t, s, "TerminateSession", `{"SessionId":"`+g.SessionID+`"}`); a.status != http.StatusOK {
		t.Errorf("TerminateSession got %d %s", a.status, a.code())
	}
	p.wantClosed()
}

// TestContainersAreTargets: StartSession takes what the AWS CLI would give to the
// plugin as a target.
func TestContainersAreTargets(t *testing.T) {
	told := make(chan agent.Config, 1)
	s := startWith(t, Config{Tasks: someTasks()}, playOf(told))
	target := "ecs:default_" + webTask + "_" + webTask + "-1234567890"
	offline := "ecs:default_" + webTask + "_" + webTask + "-1234567891"
	for target, want := range map[string]string{
		target: "connected", offline: "notconnected",
		"ecs:c_2_" + oldTask + "_" + strings.ReplaceAll(oldTask, "-", "") + "-1234567890": "notconnected", // without ECS Exec
		"ecs:nope": "notconnected",
	} {
		if a := call(t, s, "GetConnectionStatus", `{"Target":"`+target+`"}`); a.text("Status") != want {
			t.Errorf("the status of %s is %v, not %s", target, a.members, want)
		}
	}
	for _, test := range []struct {
		body      string
		container bool
	}{
		{`{"Target":"` + target + `"}`, true},
		{`{"Target":"` + target + `","DocumentName":"AmazonECS-ExecuteInteractiveCommand","Parameters":{"command":["ls"]}}`, true},
		{`{"Target":"local"}`, false},
	} {
		connect(t, s, mustStart(t, s, test.body)).wantClosed()
		if cfg := <-told; cfg.ContainerMode != test.container {
			t.Errorf("with %s the agent is in a container: %v", test.body, cfg.ContainerMode)
		}
	}
	if a := call(t, s, "StartSession", `{"Target":"`+offline+`"}`); a.code() != "TargetNotConnected" {
		t.Errorf("a container whose agent is not there got %d %s", a.status, a.code())
	}
	if got := column(call(t, s, "DescribeInstanceInformation", `{}`), "InstanceInformationList", "InstanceId"); len(got) != 1 {
		t.Errorf("containers are listed as managed nodes: %v", got)
	}
}

// TestExecuteCommandRuns goes from the call to the program and back.
func TestExecuteCommandRuns(t *testing.T) {
	needPTY(t)
	s := startServer(t, Config{})
	g, _ := mustExecute(t, s, execute("", DefaultTaskID, "", `/bin/sh -c 'echo "<$0 $1>"; cat' one "two three"`))
	p := connect(t, s, g)
	p.wantOutput("<one two three>")
	p.send(frame.Output, []byte("hello\n"))
	p.wantOutput("hello\r\nhello\r\n") // the echo, and cat's
	p.send(frame.Output, []byte{4})
	if closed := p.wantClosed(); closed.Output != "" {
		t.Errorf("the session ended with %q", closed.Output)
	}
}

// TestExecuteCommandWithoutAProgram: the container has no such program, as those
// that have no shell.
func TestExecuteCommandWithoutAProgram(t *testing.T) {
	needPTY(t)
	s := startServer(t, Config{})
	g, _ := mustExecute(t, s, execute("", DefaultTaskID, "", "/bin/nosuchshell"))
	closed := connect(t, s, g).wantClosed()
	want := "Unable to start command: Failed to start pty: fork/exec /bin/nosuchshell: no such file or directory"
	if !strings.Contains(closed.Output, want) {
		t.Errorf("the session ended with %q, not …%q…", closed.Output, want)
	}
}
