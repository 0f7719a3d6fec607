//go:build linux || darwin

package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// shellConfig is a session with a shell whose only prompt is "$ ".
func shellConfig(t *testing.T) Config {
	t.Helper()
	needPTY(t)
	return Config{
		Document: Document{SessionType: frame.StandardStream},
		Shell:    []string{"sh"},
		Env:      []string{"PATH=" + os.Getenv("PATH"), "PS1=$ ", "ENV="},
		Dir:      t.TempDir(),
	}
}

// typed sends a line as a terminal does.
func (c *client) typed(line string) int64 { return c.input(frame.Output, line+"\r") }

func TestShell(t *testing.T) {
	c := play(t, shellConfig(t))
	c.gather("the first message is the prompt, without a handshake", untilOutput("$ "))
	c.typed("echo $((6 * 7))")
	tr := c.gather("a command is acknowledged and its output comes", func(tr *transcript) bool {
		return tr.acked[0] && strings.Contains(tr.output[frame.Output], "42\r\n")
	})
	if !strings.Contains(tr.output[frame.Output], "echo $((6 * 7))\r\n") {
		t.Errorf("the pty does not echo: %v", tr.output)
	}
	c.typed("exit 3")
	tr = c.gather("the end of the shell is told", untilState)
	if last := tr.order[len(tr.order)-1]; last != "state" || len(tr.output) > 1 {
		t.Errorf("the session ended with %v, %v", tr.order, tr.output)
	}
	c.wantResult("whatever the shell's status", Result{Status: StatusSuccess})
}

func TestShellSize(t *testing.T) {
	c := play(t, shellConfig(t))
	c.gather("the prompt comes", untilOutput("$ "))
	c.typed("stty size")
	c.gather("a pty begins without a size", untilOutput("0 0\r\n"))
	sequence := c.input(frame.Size, `{"cols":123,"rows":45}`)
	c.gather("a size is acknowledged", func(tr *transcript) bool { return tr.acked[sequence] })
	c.typed("stty size")
	c.gather("and set", untilOutput("45 123\r\n"))

	flag := c.input(frame.Flag, "\x00\x00\x00\x02")
	c.gather("a flag is acknowledged and ignored", func(tr *transcript) bool { return tr.acked[flag] })
	c.typed("echo still he''re")
	c.gather("for TerminateSession ends no shell", untilOutput("still here"))
}

func TestShellRefusesASizeThatIsNone(t *testing.T) {
	for _, payload := range []string{`{"cols":-1,"rows":24}`, `{"cols":1.5}`, `{`, `"80x24"`} {
		if err := ptyInput(nopTerminal{}, frame.Size, []byte(payload)); err == nil {
			t.Errorf("the size %s was taken", payload)
		}
	}
	c := play(t, shellConfig(t))
	c.gather("the prompt comes", untilOutput("$ "))
	bad := c.input(frame.Size, `{"cols":`)
	c.next = bad // not acknowledged, so the number is free
	good := c.typed("echo o''k")
	c.gather("the next input has the number of the bad size", func(tr *transcript) bool {
		return tr.acked[good] && strings.Contains(tr.output[frame.Output], "ok\r\n")
	})
}

func TestShellEnvironment(t *testing.T) {
	for _, tt := range []struct{ set, want string }{
		{"", "C.UTF-8"}, {"LANG=", "C.UTF-8"}, {"LANG=xx_YY", "xx_YY"},
	} {
		cfg := shellConfig(t)
		if tt.set != "" {
			cfg.Env = append(cfg.Env, tt.set)
		}
		cfg.Document.ShellProfile = `echo "<$TERM $LANG $(pwd)>"; exit`
		c := play(t, cfg)
		tr := c.gather("the profile is typed", untilState)
		dir, err := filepath.EvalSymlinks(cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if want := "<xterm-256color " + tt.want + " " + dir + ">"; !strings.Contains(tr.output[frame.Output], want) {
			t.Errorf("with %q set the shell says %q, want %q", tt.set, tr.output[frame.Output], want)
		}
	}
}

func TestShellWithoutAnEnvironmentHasOurs(t *testing.T) {
	t.Setenv("SSMSESSION_TEST", "inherited")
	cfg := shellConfig(t)
	cfg.Env, cfg.Shell = nil, nil
	cfg.Document.ShellProfile = "echo $SSMSESSION_TEST; exit"
	c := play(t, cfg)
	c.gather("the environment is inherited", untilOutput("inherited"))
}

func TestInteractiveCommand(t *testing.T) {
	cfg := shellConfig(t)
	cfg.Document = Document{SessionType: frame.InteractiveCommands, Command: "test -t 0 && echo on a terminal | tr a-z A-Z; exit 7"}
	c := play(t, cfg)
	tr := c.gather("a command runs in a shell", untilState)
	if got := tr.output[frame.Output]; got != "ON A TERMINAL\r\n" {
		t.Errorf("the command said %q", got)
	}
	c.wantResult("the end of its pty", Result{Status: StatusSuccess})

	cfg.Document.Command = " \n"
	c = play(t, cfg)
	c.wantResult("without a command", Result{StatusFailed, "Commands cannot be empty for session type InteractiveCommands"})
}

func TestShellThatDoesNotStart(t *testing.T) {
	cfg := shellConfig(t)
	cfg.Shell = []string{"/nonexistent/shell"}
	cfg.Pace.BeforePrompt = 10 * time.Millisecond
	c := play(t, cfg)
	start := time.Now()
	c.wantResult("the reason is in the result", Result{StatusFailed, "\n----------ERROR-------\nUnable to start command: " +
		"Failed to start pty: fork/exec /nonexistent/shell: no such file or directory\n\n"})
	if time.Since(start) < 20*time.Millisecond {
		t.Error("which does not come at once")
	}
}

func TestPasteOfAMegabyte(t *testing.T) {
	cfg := shellConfig(t)
	c := play(t, cfg)
	c.gather("the prompt comes", untilOutput("$ "))
	c.typed("cat > f; echo file com''plete")
	c.gather("the command is echoed", untilOutput("cat > f"))

	var text bytes.Buffer
	random := rand.New(rand.NewPCG(1, 2))
	for text.Len() < 1<<20 {
		for range random.IntN(200) {
			text.WriteString("æ€ pasted line ")
		}
		text.WriteByte('\n')
	}
	// The client's window is 256 messages.
	echoed, unacked := 0, 0
	for rest := text.Bytes(); len(rest) > 0; {
		n := min(1024, len(rest))
		c.input(frame.Output, string(rest[:n]))
		rest = rest[n:]
		for unacked++; unacked >= 256; {
			switch m := c.take("the paste is taken"); m.Type {
			case frame.OutputStreamData:
				echoed += len(m.Payload)
				c.ack(m)
			case frame.Acknowledge:
				unacked--
			}
		}
	}
	c.input(frame.Output, "\x04")
	c.gather("the paste has an end", untilOutput("file complete"))
	got, err := os.ReadFile(filepath.Join(cfg.Dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(got) != sha256.Sum256(text.Bytes()) {
		t.Errorf("of %d bytes pasted %d came, or others", text.Len(), len(got))
	}
	if echoed == 0 {
		t.Error("the paste was not echoed")
	}
}

func TestCancelledShellLeavesNoProcess(t *testing.T) {
	c := play(t, shellConfig(t))
	c.gather("the prompt comes", untilOutput("$ "))
	// In the background, with and without job control, deaf to hangups, in the
	// foreground.
	c.typed(`set -m; sleep 1000 & echo "<$!"; set +m; (trap "" HUP; sleep 1001) & echo "$!>"; cat`)
	tr := c.gather("the processes run", untilOutput(">\r\n"))
	_, pids, _ := strings.Cut(tr.output[frame.Output][strings.Index(tr.output[frame.Output], "\r\n"):], "<")
	pids, _, _ = strings.Cut(pids, ">")
	start := time.Now()
	c.cancel()
	c.wantResult("a cancelled session", Result{Status: StatusSuccess})
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the cancellation took %v", took)
	}
	found := 0
	for _, field := range strings.Fields(pids) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			continue
		}
		found++
		wantGone(t, pid)
	}
	if found != 2 {
		t.Errorf("the shell told %d processes in %q", found, tr.output[frame.Output])
	}
}

func TestEndedShellLeavesNoProcess(t *testing.T) {
	c := play(t, shellConfig(t))
	c.gather("the prompt comes", untilOutput("$ "))
	c.typed(`nohup sleep 1000 > /dev/null & echo "<$!>"`)
	tr := c.gather("the process runs", untilOutput(">\r\n"))
	pid := between(t, tr.output[frame.Output])
	c.typed("exit")
	c.gather("the shell ends", untilState)
	c.wantResult("after exit", Result{Status: StatusSuccess})
	wantGone(t, pid)
}

// between reads the number in "<n>", past the command that prints it.
func between(t *testing.T, output string) int {
	t.Helper()
	i := strings.LastIndex(output, "<")
	j := strings.LastIndex(output, ">")
	if i < 0 || j < i {
		t.Fatalf("no <number> in %q", output)
	}
	n, err := strconv.Atoi(output[i+1 : j])
	if err != nil {
		t.Fatalf("no <number> in %q", output)
	}
	return n
}

// wantGone wants that a process is no more, or waits for somebody else's wait.
func wantGone(t *testing.T, pid int) {
	t.Helper()
	if !gone(pid) {
		t.Errorf("process %d is still there", pid)
	}
}

func gone(pid int) bool {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestProgramThatReadsNothing(t *testing.T) {
	c := play(t, shellConfig(t))
	c.gather("the prompt comes", untilOutput("$ "))
	c.typed(`stty -echo; echo rea''dy; while :; do sleep 0.05; echo tick; done`)
	c.gather("the loop runs", untilOutput("ready"))
	// More than any pty buffers.
	for range 400 {
		c.input(frame.Output, strings.Repeat("x", 1023)+"\n")
	}
	tr := c.gather("output goes on while input is stuck", func(tr *transcript) bool {
		return strings.Count(tr.output[frame.Output], "tick") > 5
	})
	if tr.acked[400] {
		t.Error("a program that reads nothing took 400 kB")
	}
	start := time.Now()
	c.cancel()
	c.wantResult("and so does the cancellation", Result{Status: StatusSuccess})
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the cancellation took %v", took)
	}
}

func TestClientThatReadsNothing(t *testing.T) {
	cfg := shellConfig(t)
	cfg.Document = Document{SessionType: frame.InteractiveCommands, Command: "yes"}
	c := play(t, cfg)
	c.want("output comes", frame.Output)
	start := time.Now()
	c.cancel()
	select {
	case got := <-c.results:
		if got.Status != StatusSuccess {
			t.Errorf("the session ended with %+v", got)
		}
	case <-time.After(patience):
		t.Fatal("a client that reads nothing keeps the session from ending")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the cancellation took %v", took)
	}
}

func TestLostLegKillsTheShell(t *testing.T) {
	c := play(t, shellConfig(t))
	c.gather("the prompt comes", untilOutput("$ "))
	c.typed(`echo "<$$>"; cat`)
	tr := c.gather("the shell tells its number", untilOutput(">\r\n"))
	close(c.leg.toAgent)
	c.wantResult("a session without a leg", Result{Status: StatusSuccess})
	wantGone(t, between(t, tr.output[frame.Output]))
}

func TestChannelClosedTowardsAShell(t *testing.T) {
	c := play(t, shellConfig(t))
	c.gather("the prompt comes", untilOutput("$ "))
	c.service(frame.ChannelClosed, `{"MessageType":"channel_closed"}`)
	for {
		select {
		case b := <-c.leg.fromAgent:
			if m := c.parse(b); m.Type == frame.AgentSessionState {
				t.Error("a cancelled shell says goodbye")
			}
			continue
		case got := <-c.results:
			if got != (Result{Status: StatusSuccess}) {
				t.Errorf("the session ended with %+v", got)
			}
		case <-time.After(patience):
			t.Fatal("the session did not end")
		}
		return
	}
}

func TestOutputOfCharacters(t *testing.T) {
	cfg := shellConfig(t)
	// Characters of three bytes in chunks of 1024, and the losses at the end.
	cfg.Document = Document{
		SessionType: frame.InteractiveCommands,
		Command:     `stty raw; i=0; while [ $i -lt 1000 ]; do printf "€€€€"; i=$((i+1)); done; printf 'x\357\277\275yzzz\303'`,
	}
	c := play(t, cfg)
	tr := c.gather("the output comes", untilState)
	want := strings.Repeat("€", 4000) + "x\xefyzzz"
	if got := tr.output[frame.Output]; got != want {
		t.Errorf("got %d bytes ending in %q, want %d ending in %q", len(got), got[max(0, len(got)-12):], len(want), want[len(want)-12:])
	}
}

func TestPaceOfAShell(t *testing.T) {
	cfg := shellConfig(t)
	cfg.Document = Document{SessionType: frame.InteractiveCommands, Command: "head -c 20480 /dev/zero"}
	cfg.Pace = Pace{BeforePrompt: 50 * time.Millisecond, PerMessage: 5 * time.Millisecond}
	start := time.Now()
	c := play(t, cfg)
	m := c.want("output comes", frame.Output)
	if waited := time.Since(start); waited < 50*time.Millisecond {
		t.Errorf("the first output came after %v", waited)
	}
	c.ack(m)
	c.gather("the rest comes", untilState)
	if waited := time.Since(start); waited < 150*time.Millisecond {
		t.Errorf("20 messages at 5 ms, 50 ms late, took %v", waited)
	}
}

func TestPausedShellIsNotRead(t *testing.T) {
	c := play(t, shellConfig(t))
	c.gather("the prompt comes", untilOutput("$ "))
	c.service(frame.PausePublication, "pause_publication")
	// Input ends the pause, so the shell's own clock has to speak.
	c.service(frame.StartPublication, "start_publication")
	c.typed("echo awa''ke")
	c.gather("after the pause output goes on", untilOutput("awake"))
}
