package emulator

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// These sessions are played by the real agent of package agent.

func TestShell(t *testing.T) {
	needPTY(t)
	s := startServer(t, Config{})
	g := mustStart(t, s, `{"Target":"local"}`)
	p := connect(t, s, g)
	p.wantPrompt()
	p.send(frame.Size, []byte(`{"cols":91,"rows":33}`))
	p.send(frame.Output, []byte("echo hel''lo; stty size\r"))
	p.wantOutput("hello")
	p.wantOutput("33 91")
	p.until("waiting for all input to be acknowledged", func() bool { return p.acks[0] && p.acks[1] })
	p.send(frame.Output, []byte("exit\r"))
	if closed := p.wantClosed(); closed.Output != "" {
		t.Errorf("a shell that exits ends with %q", closed.Output)
	}
}

// wantPrompt waits for the shell: input that comes earlier is to be sent again,
// which this client does not do.
func (p *peer) wantPrompt() {
	p.t.Helper()
	p.until("waiting for the prompt", func() bool { return p.output.Len() > 0 })
}

func TestInteractiveCommandAndProfile(t *testing.T) {
	needPTY(t)
	s := startServer(t, Config{Documents: []Document{{Name: "Greeting", SessionType: frame.StandardStream,
		Inputs: DocumentInputs{ShellProfile: ShellProfile{Linux: "echo wel''come; exit"}}}}})
	p := connect(t, s, mustStart(t, s, `{"Target":"local","DocumentName":"AWS-StartInteractiveCommand","Parameters":{"command":["echo $((6*7))"]}}`))
	p.wantClosed()
	if got := p.output.String(); got != "42\r\n" {
		t.Errorf("the command printed %q", got)
	}
	p = connect(t, s, mustStart(t, s, `{"Target":"local","DocumentName":"Greeting"}`))
	p.wantOutput("welcome")
	p.wantClosed()
}

func TestNonInteractiveCommand(t *testing.T) {
	needPTY(t) // the commands are those of a system that has one
	s := startServer(t, Config{})
	start := func(separate string) *peer {
		return connect(t, s, mustStart(t, s, `{"Target":"local","DocumentName":"AWS-StartNonInteractiveCommand",`+
			`"Parameters":{"command":["sh -c 'echo out; echo err >&2; exit 7'"],"separateOutputStream":["`+separate+`"]}}`))
	}
	p := start("true")
	p.wantClosed()
	if p.output.String() != "out\n" || p.stderr.String() != "err\n" || p.exit != "EXIT_CODE: 7" {
		t.Errorf("with separate streams the command gave %q, %q and %q", p.output.String(), p.stderr.String(), p.exit)
	}
	p = start("false")
	p.wantClosed()
	if p.output.String() != "out\nerr\n" || p.stderr.Len() > 0 || p.exit != "" {
		t.Errorf("with one stream the command gave %q, %q and %q", p.output.String(), p.stderr.String(), p.exit)
	}
}

// TestCutLosesNothing cuts the socket in mid-stream, again and again. What was on
// the way comes again at the agent's ten messages a second, so there must not be one
// for every line: cat writes many at once.
func TestCutLosesNothing(t *testing.T) {
	needPTY(t)
	s := startServer(t, Config{})
	g := mustStart(t, s, `{"Target":"local","DocumentName":"AWS-StartInteractiveCommand","Parameters":{"command":["seq 5000 | cat; read line; echo got $line"]}}`)
	p := connect(t, s, g)
	for cut := 1; cut <= 3; cut++ {
		p.until("waiting for a place to cut", func() bool { return p.output.Len() > cut*5000 })
		p.conn.Close()
		p.reconnect(s, mustResume(t, s, g))
	}
	p.wantOutput("\r\n5000\r\n")
	p.send(frame.Output, []byte("it all\r"))
	p.wantOutput("got it all")
	p.wantClosed()
	var want bytes.Buffer
	for i := range 5000 {
		fmt.Fprintf(&want, "%d\r\n", i+1)
	}
	want.WriteString("it all\r\ngot it all\r\n")
	if !bytes.Equal(p.output.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes came, not the right %d", p.output.Len(), want.Len())
	}
}

// TestCloseKillsTheShell: no process is left either.
func TestCloseKillsTheShell(t *testing.T) {
	needPTY(t)
	s, err := Start(context.Background(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	p := connect(t, s, mustStart(t, s, `{"Target":"local"}`))
	p.wantPrompt()
	p.send(frame.Output, []byte("echo pid''=$$.\r"))
	p.wantOutput("pid=")
	p.until("waiting for the process id", func() bool { return strings.Contains(following(p.output.String(), "pid="), ".") })
	text, _, _ := strings.Cut(following(p.output.String(), "pid="), ".")
	pid, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("the shell's process id is %q", text)
	}
	done := make(chan error, 1)
	go func() { done <- s.Close() }()
	p.wantClosed()
	p.conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	process, err := os.FindProcess(pid)
	if err == nil && process.Signal(syscall.Signal(0)) == nil {
		t.Errorf("the shell, process %d, is still there", pid)
	}
}

// following is what follows the first occurrence of a separator.
func following(s, separator string) string {
	_, rest, _ := strings.Cut(s, separator)
	return rest
}

// awsCLI finds AWS's own command line.
func awsCLI(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/usr/bin/aws", "aws"} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("the aws command line is not installed")
	}
	t.Skip("the aws command line is not installed")
	return ""
}

func TestAWSCommandLine(t *testing.T) {
	aws := awsCLI(t)
	s := startWith(t, Config{TLS: true, Targets: []Target{{ID: "local"}, {ID: "i-0123456789abcdef0", Name: "web"}}}, echo)
	g := mustStart(t, s, `{"Target":"i-0123456789abcdef0","Reason":"a test"}`)
	run := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		command := exec.CommandContext(ctx, aws, append([]string{"ssm", "--endpoint-url", s.URL(), "--output", "text"}, args...)...)
		command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "AWS_CONFIG_FILE=" + filepath.Join(t.TempDir(), "none")}
		for _, v := range s.Environment() {
			command.Env = append(command.Env, v[0]+"="+v[1])
		}
		out, err := command.CombinedOutput()
		return string(out), err
	}
	tests := []struct {
		args []string
		want string
		fail bool
	}{
		{[]string{"describe-sessions", "--state", "Active", "--query", "Sessions[].[SessionId,Target,Status,Reason]"},
			g.SessionID + "\ti-0123456789abcdef0\tConnecting\ta test\n", false},
		{[]string{"get-connection-status", "--target", "local", "--query", "Status"}, "connected\n", false},
		{[]string{"describe-instance-information", "--filters", "Key=InstanceIds,Values=i-0123456789abcdef0",
			"--query", "InstanceInformationList[].[InstanceId,PingStatus,Name,ResourceType]"},
			"i-0123456789abcdef0\tOnline\tweb\tEC2Instance\n", false},
		{[]string{"terminate-session", "--session-id", g.SessionID, "--query", "SessionId"}, g.SessionID + "\n", false},
		{[]string{"resume-session", "--session-id", "nobody-0"},
			"An error occurred (DoesNotExistException) when calling the ResumeSession operation: Session nobody-0 does not exist.", true},
	}
	for _, test := range tests {
		out, err := run(test.args...)
		if (err != nil) != test.fail || !strings.Contains(out, test.want) {
			t.Errorf("aws ssm %s: %v, %s", strings.Join(test.args, " "), err, out)
		}
	}
}
