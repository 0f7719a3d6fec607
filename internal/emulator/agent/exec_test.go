//go:build linux || darwin

package agent

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

func commandConfig(t *testing.T, command string, separate bool) Config {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	return Config{
		Document: Document{
			SessionType: frame.NonInteractiveCommands, Command: command, SeparateOutputStream: separate,
		},
		Dir: t.TempDir(),
	}
}

// command plays a session up to its program.
func playCommand(t *testing.T, cfg Config) *client {
	t.Helper()
	c := play(t, cfg)
	c.agree("1.2.650.0")
	return c
}

func TestCommandBuffered(t *testing.T) {
	cfg := commandConfig(t, `sh -c 'echo out; echo err >&2; sleep 0.1; echo "late"; exit 3'`, false)
	c := playCommand(t, cfg)
	tr := c.gather("the output comes at the end", untilState)
	if got := tr.output[frame.Output]; got != "out\nerr\nlate\n" || len(tr.output) != 1 {
		t.Errorf("the command said %v, want stdout and stderr in one and nothing else", tr.output)
	}
	if !slices.Equal(tr.order, []string{"1", "state"}) {
		t.Errorf("the messages were %v, want all output in one and no exit code", tr.order)
	}
	c.wantResult("whatever its exit code", Result{Status: StatusSuccess})
	wantNoFileLeft(t)
}

func wantNoFileLeft(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v %v", left, err)
	}
}

func TestCommandBufferedFileIsPrivate(t *testing.T) {
	dir := t.TempDir()
	cfg := commandConfig(t, "sh -c 'ls -l $TMPDIR/*; echo >"+dir+"/done; sleep 1000'", false)
	c := playCommand(t, cfg)
	waitForFile(t, dir+"/done")
	files, err := filepath.Glob(os.Getenv("TMPDIR") + "/*")
	if err != nil || len(files) != 1 {
		t.Fatalf("the output is in %v %v", files, err)
	}
	info, err := os.Stat(files[0])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the output has mode %v (%v), want 0600", info.Mode(), err)
	}
	c.cancel()
	tr := c.gather("a cancelled command is heard out", untilState)
	if !strings.HasPrefix(tr.output[frame.Output], "-rw-------") {
		t.Errorf("it said %v", tr.output)
	}
	c.wantResult("a cancelled command", Result{Status: StatusSuccess})
	wantNoFileLeft(t)
}

func waitForFile(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", path)
		}
	}
}

func TestCommandBufferedIsSplitInMessages(t *testing.T) {
	c := playCommand(t, commandConfig(t, "head -c 5000 /dev/zero", false))
	tr := c.gather("the output comes", untilState)
	if got := len(tr.output[frame.Output]); got != 5000 || len(tr.order) != 6 {
		t.Errorf("5000 bytes came as %d in %v", got, tr.order)
	}
}

func TestCommandIsSplitWithoutAShell(t *testing.T) {
	for _, tt := range []struct{ command, want string }{
		{`printf '%s|' a "b c" 'd e' f\ g`, "a|b c|d e|f g|"},
		{`echo $HOME * > x`, "$HOME * > x\n"},
		{`echo a # a comment`, "a\n"},
	} {
		c := playCommand(t, commandConfig(t, tt.command, false))
		if tr := c.gather("the output comes", untilState); tr.output[frame.Output] != tt.want {
			t.Errorf("%s said %v, want %q", tt.command, tr.output, tt.want)
		}
	}
}

func TestCommandHasNoTerminalAndNoInput(t *testing.T) {
	c := playCommand(t, commandConfig(t, `sh -c 'cat; tty; (exec 3</dev/tty) 2>/dev/null && echo a terminal; echo $TERM $LANG'`, true))
	tr := c.gather("it ends by itself", untilState)
	if got := tr.output[frame.Output]; !strings.HasPrefix(got, "not a tty\nxterm-256color ") {
		t.Errorf("the command said %v", tr.output)
	}
}

func TestCommandSeparate(t *testing.T) {
	for _, tt := range []struct {
		command string
		want    outputs
	}{
		{`sh -c 'echo out; echo err >&2; exit 3'`, outputs{
			frame.Output: "out\n", frame.StdErr: "err\n", frame.ExitCode: "EXIT_CODE: 3",
		}},
		{`true`, outputs{frame.ExitCode: "EXIT_CODE: 0"}},
		{`sh -c 'kill -9 $$'`, outputs{frame.ExitCode: "EXIT_CODE: -1"}},
		{`printf 'text\303'`, outputs{frame.Output: "text", frame.ExitCode: "EXIT_CODE: 0"}},
		{`head -c 5000 /dev/zero`, outputs{
			frame.Output: strings.Repeat("\x00", 5000), frame.ExitCode: "EXIT_CODE: 0",
		}},
	} {
		c := playCommand(t, commandConfig(t, tt.command, true))
		tr := c.gather(tt.command, untilState)
		if !maps.Equal(tr.output, tt.want) {
			t.Errorf("%s: got %.200v, want %.200v", tt.command, tr.output, tt.want)
		}
		if n := len(tr.order); tr.order[n-2] != "12" {
			t.Errorf("%s: the messages were %v, want the exit code before the state", tt.command, tr.order)
		}
		c.wantResult(tt.command, Result{Status: StatusSuccess})
	}
}

func TestCommandSeparateIsLive(t *testing.T) {
	dir := t.TempDir()
	c := playCommand(t, commandConfig(t, `sh -c 'echo one; until test -e `+dir+`/go; do sleep 0.01; done; echo two'`, true))
	c.gather("output comes while the command runs", untilOutput("one\n"))
	if err := os.WriteFile(dir+"/go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.gather("and on", untilOutput("two\n"))
	c.gather("to the end", untilState)
}

func TestCommandSeparatePrefixes(t *testing.T) {
	dir := t.TempDir()
	cfg := commandConfig(t, `sh -c 'step() { until test -e `+dir+`/$1; do sleep 0.01; done; }
		echo one; step 1; printf two; step 2; printf "three\n"; step 3; echo four; echo err >&2'`, true)
	cfg.Document.StdOutPrefix, cfg.Document.StdErrPrefix = "OUT:", "ERR:\r\n"
	c := playCommand(t, cfg)
	for i, chunk := range []string{"OUT:one\n", "OUT:two", "three\n"} {
		c.gather("a chunk comes", untilOutput(chunk))
		if err := os.WriteFile(fmt.Sprintf("%s/%d", dir, i+1), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tr := c.gather("the rest comes", untilState)
	if tr.output[frame.Output] != "OUT:four\n" || tr.output[frame.StdErr] != "ERR:\r\nerr\n" {
		t.Errorf("a chunk after a line end has its prefix again: %v", tr.output)
	}
}

func TestCommandSeparatePrefixesPerChunk(t *testing.T) {
	cfg := commandConfig(t, `head -c 3000 /dev/zero`, true)
	cfg.Document.StdOutPrefix = "P:"
	c := playCommand(t, cfg)
	tr := c.gather("the output comes", untilState)
	if got := tr.output[frame.Output]; len(got) != 3002 || strings.Count(got, "P:") != 1 || !slices.Contains(tr.order, "12") {
		t.Errorf("%d bytes with %d prefixes came, want 3002 with one, for no chunk ended a line", len(got), strings.Count(got, "P:"))
	}
}

// chunks is a reader that gives one chunk a read.
type chunks []string

func (c *chunks) Read(p []byte) (int, error) {
	if len(*c) == 0 {
		return 0, errNotStarted // any error but the end
	}
	n := copy(p, (*c)[0])
	*c = (*c)[1:]
	return n, nil
}

func TestStreamPutsThePrefixBehindWhatWasHeld(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		s := &session{channel: b.channel}
		in := chunks{"abc\xff\n", "def", "gh\n"}
		if err := s.stream(&in, frame.StdErr, "P:"); err == nil {
			t.Error("an error of the pipe is no error of the stream")
		}
		for _, want := range []string{"P:abc", "\xff\nP:def", "gh\n"} {
			if m := b.want("a chunk comes", frame.StdErr); string(m.Payload) != want {
				t.Errorf("got the chunk %q, want %q", m.Payload, want)
			}
		}
	})
}

func TestCommandPrefixesThatAreNone(t *testing.T) {
	for _, tt := range []struct{ out, err, want string }{
		{"a b", "", "invalid stdoutSeparatorPrefix a b"},
		{strings.Repeat("x", 31), "", "invalid stdoutSeparatorPrefix " + strings.Repeat("x", 31)},
		{"ok", "ä", "invalid stderrSeparatorPrefix ä"},
	} {
		cfg := commandConfig(t, "true", true)
		cfg.Document.StdOutPrefix, cfg.Document.StdErrPrefix = tt.out, tt.err
		playCommand(t, cfg).wantResult("a wrong prefix", Result{StatusFailed, tt.want})
		cfg.Document.SeparateOutputStream = false
		playCommand(t, cfg).wantResult("which is not looked at without separate streams", Result{Status: StatusSuccess})
	}
}

func TestOldAgentIgnoresSeparateStreams(t *testing.T) {
	cfg := commandConfig(t, `sh -c 'echo out; echo err >&2; exit 3'`, true)
	cfg.Version = "3.1.1510.0"
	c := playCommand(t, cfg)
	tr := c.gather("the output comes", untilState)
	if tr.output[frame.Output] != "out\nerr\n" || len(tr.output) != 1 {
		t.Errorf("got %v, want both streams as one and no exit code", tr.output)
	}
}

func TestCommandThatDoesNotStart(t *testing.T) {
	const reason = `exec: "no-such-command": executable file not found in $PATH`
	for _, tt := range []struct {
		separate bool
		want     []string
	}{
		{true, []string{"12", "11", "state"}},
		{false, []string{"11", "state"}},
	} {
		cfg := commandConfig(t, "no-such-command -x", tt.separate)
		cfg.Pace.BeforePrompt = 10 * time.Millisecond
		start := time.Now()
		c := playCommand(t, cfg)
		tr := c.gather("the failure is told", untilState)
		if !slices.Equal(tr.order, tt.want) {
			t.Errorf("separate %t: the messages were %v, want %v", tt.separate, tr.order, tt.want)
		}
		if tr.output[frame.StdErr] != reason || tt.separate && tr.output[frame.ExitCode] != "EXIT_CODE: 1" {
			t.Errorf("separate %t: got %v, want the reason %q", tt.separate, tr.output, reason)
		}
		if time.Since(start) < 10*time.Millisecond {
			t.Error("the reason does not come at once")
		}
		c.wantResult("a command that does not start", Result{Status: StatusFailed})
		wantNoFileLeft(t)
	}
}

func TestCommandThatCannotBeBuilt(t *testing.T) {
	for _, tt := range []struct{ command, why string }{
		{"echo 'unfinished", "EOF found when expecting closing quote"},
		{"# a comment only", "there is no word in it"},
	} {
		c := playCommand(t, commandConfig(t, tt.command, true))
		want := "Unable to start command: Failed to parse commands input: " + tt.why + "\n\n"
		m := c.want("the reason is sent as stderr", frame.StdErr)
		c.ack(m)
		if string(m.Payload) != want {
			t.Errorf("the reason is %q, want %q", m.Payload, want)
		}
		c.wantResult(tt.command, Result{StatusFailed, "\n----------ERROR-------\n" + want})
	}
}

func TestCommandSignals(t *testing.T) {
	for _, tt := range []struct{ input, want string }{
		{"\x03", "INT\n"},
		{"\x1c", "QUIT\n"},
		{"typed ahead\x03 and \x1c more", "INT\n"}, // the first one counts
	} {
		c := playCommand(t, commandConfig(t,
			`sh -c 'trap "echo INT; exit 4" INT; trap "echo QUIT; exit 4" QUIT; echo ready; while :; do sleep 0.01; done'`, true))
		c.gather("the command is ready", untilOutput("ready\n"))
		ignored := c.input(frame.Output, "this is nobody's stdin\n")
		size := c.input(frame.Size, "not even JSON")
		c.gather("input is acknowledged and thrown away", func(tr *transcript) bool { return tr.acked[ignored] && tr.acked[size] })
		c.input(frame.Output, tt.input)
		tr := c.gather("a control character is a signal", untilState)
		if tr.output[frame.Output] != tt.want || tr.output[frame.ExitCode] != "EXIT_CODE: 4" {
			t.Errorf("%q: the command said %v, want %q", tt.input, tr.output, tt.want)
		}
	}
}

func TestCommandKilledBySignal(t *testing.T) {
	c := playCommand(t, commandConfig(t, `sh -c 'echo ready; exec sleep 1000'`, true))
	c.gather("the command is ready", untilOutput("ready\n"))
	c.input(frame.Output, "\x03")
	tr := c.gather("the command ends", untilState)
	if tr.output[frame.ExitCode] != "EXIT_CODE: -1" {
		t.Errorf("a command killed by a signal gives %q", tr.output[frame.ExitCode])
	}
}

func TestSignalWithoutAProcessIsRefused(t *testing.T) {
	c := &command{}
	if err := c.input(frame.Output, []byte("\x03")); err == nil {
		t.Error("a signal for a command that was not started is taken")
	}
	if err := c.input(frame.Output, []byte("x")); err != nil {
		t.Errorf("other input is refused: %v", err)
	}
}

func TestCancelledCommand(t *testing.T) {
	for _, separate := range []bool{true, false} {
		dir := t.TempDir()
		cfg := commandConfig(t, `sh -c 'echo before; sleep 1000 & echo $! > `+dir+`/pid; mv `+dir+`/pid `+dir+`/go; wait'`, separate)
		c := playCommand(t, cfg)
		said := ""
		if separate {
			said = c.gather("live output comes", untilOutput("before\n")).output[frame.Output]
		}
		waitForFile(t, dir+"/go")
		start := time.Now()
		c.cancel()
		tr := c.gather("a cancelled command says goodbye", untilState)
		if _, ok := tr.output[frame.ExitCode]; ok || said+tr.output[frame.Output] != "before\n" {
			t.Errorf("separate %t: it said %v, want its output and no exit code", separate, tr.output)
		}
		c.wantResult("a cancelled command", Result{Status: StatusSuccess})
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("separate %t: the cancellation took %v", separate, took)
		}
		text, err := os.ReadFile(dir + "/go")
		if err != nil {
			t.Fatal(err)
		}
		wantGone(t, between(t, "<"+strings.TrimSpace(string(text))+">"))
	}
}

func TestCommandWithADaemonHoldingItsOutput(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		if os.Getenv("CI") == "true" && runtime.GOOS == "linux" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	c := playCommand(t, commandConfig(t,
		`sh -c 'setsid sh -c "echo \$\$ > `+dir+`/pid; mv `+dir+`/pid `+dir+`/go; exec sleep 30" & echo out'`, true))
	c.gather("the command ends, its output does not", untilOutput("out\n"))
	waitForFile(t, dir+"/go")
	start := time.Now()
	c.cancel()
	c.gather("a cancellation ends the wait for it", untilState)
	c.wantResult("a cancelled command", Result{Status: StatusSuccess})
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the cancellation took %v", took)
	}
	text, err := os.ReadFile(dir + "/go")
	if err != nil {
		t.Fatal(err)
	}
	killProcess(t, between(t, "<"+strings.TrimSpace(string(text))+">"))
}

// TestWhatACommandLeavesIsKilledAtItsEnd and not when its output was told, which may
// be hours later: its number may be another's by then.
func TestWhatACommandLeavesIsKilledAtItsEnd(t *testing.T) {
	dir := t.TempDir()
	c := playCommand(t, commandConfig(t,
		`sh -c 'sleep 1000 & echo "<$!>" > `+dir+`/pid; mv `+dir+`/pid `+dir+`/left; until test -e `+dir+`/go; do sleep 0.01; done; echo out'`, false))
	waitForFile(t, dir+"/left")
	text, err := os.ReadFile(dir + "/left")
	if err != nil {
		t.Fatal(err)
	}
	c.service(frame.PausePublication, "pause_publication")
	c.service("unknown", "taken only after the pause")
	if err := os.WriteFile(dir+"/go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); !gone(between(t, string(text))); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the process is still there")
		}
	}
	c.service(frame.StartPublication, "start_publication")
	if tr := c.gather("the output comes after the pause", untilState); tr.output[frame.Output] != "out\n" {
		t.Errorf("the command said %v", tr.output)
	}
	c.wantResult("after the pause", Result{Status: StatusSuccess})
}

func killProcess(t *testing.T, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Errorf("kill the daemon: %v", err)
	}
}

func TestPauseAbortsASeparateStream(t *testing.T) {
	dir := t.TempDir()
	c := playCommand(t, commandConfig(t,
		`sh -c 'echo one; until test -e `+dir+`/go; do sleep 0.01; done; echo two; exec >&-; until test -e `+dir+`/end; do sleep 0.01; done'`, true))
	c.gather("output comes", untilOutput("one\n"))
	c.service(frame.PausePublication, "pause_publication")
	c.service("unknown", "taken only after the pause")
	for _, name := range []string{"/go", "/end"} {
		if err := os.WriteFile(dir+name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What is read once more in the pause is recorded, then the reading ends.
	c.wantResult("a session paused in the middle", Result{Status: StatusFailed})
}
