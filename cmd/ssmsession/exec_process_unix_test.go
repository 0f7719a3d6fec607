//go:build unix

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// execForms are the ways to run a command.
func execForms() map[string][]string {
	return map[string][]string{
		"streams":   nil,
		"--binary":  {"--binary"},
		"-i":        {"-i"},
		"--via pty": {"--via", "pty"},
		"--tty":     {"--tty"},
	}
}

// execProcess is an exec in a process of its own.
type execProcess struct {
	t      testing.TB
	cmd    *exec.Cmd
	out    *os.File // the reading end of its stdout
	stderr bytes.Buffer
}

// startExec starts one, which is killed if it outlives the test. Its stdin is the
// null device if in is nil, and its stdout a pipe.
func startExec(t testing.TB, program string, env []string, in io.Reader, args ...string) *execProcess {
	t.Helper()
	out, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	p := &execProcess{t: t, out: out, cmd: exec.Command(program, append([]string{"exec", exampleTarget}, args...)...)}
	p.cmd.Env = env
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = in, stdout, &p.stderr
	p.cmd.WaitDelay = patience
	if err := p.cmd.Start(); err != nil {
		out.Close()
		t.Fatal(err)
	}
	late := time.AfterFunc(10*patience, func() { _ = p.cmd.Process.Kill() }) // or it has ended
	t.Cleanup(func() {
		late.Stop()
		out.Close()
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill() // or it has ended
			_ = p.cmd.Wait()         // nobody asks any more
		}
	})
	return p
}

// code waits for the end and gives the exit code, 128 + n for a death by signal.
func (p *execProcess) code() int {
	err := p.cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		p.t.Errorf("cannot wait for the program: %v", err)
	}
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal())
	}
	return p.cmd.ProcessState.ExitCode()
}

// rest is all of stdout that has not been read.
func (p *execProcess) rest() string {
	b, err := io.ReadAll(p.out)
	if err != nil {
		p.t.Errorf("cannot read its stdout: %v", err)
	}
	return string(b)
}

// stubborn is a command of two processes that no signal but SIGKILL ends. It tells
// their ids on stdout.
const stubborn = `trap "" HUP INT QUIT TERM; sleep 300 & echo "pids $$ $! "; wait; sleep 300`

// pids reads what a stubborn command tells.
func (p *execProcess) pids() []int {
	p.t.Helper()
	line, err := bufio.NewReader(p.out).ReadString('\n')
	m := regexp.MustCompile(`pids (\d+) (\d+) `).FindStringSubmatch(line)
	if m == nil {
		p.t.Fatalf("the command does not tell its processes but %q, %v; stderr: %s", line, err, &p.stderr)
	}
	var ids []int
	for _, s := range m[1:] {
		id, err := strconv.Atoi(s)
		if err != nil {
			p.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// wantAllGone waits until neither these processes are there nor any other that has
// the variable in its environment.
func wantAllGone(t *testing.T, ids []int, variable string) {
	t.Helper()
	begin := time.Now()
	eventually(t, "no process of the command is left", func() bool {
		for _, id := range ids {
			if err := syscall.Kill(id, 0); err != syscall.ESRCH {
				return false
			}
		}
		return len(processesWith(variable)) == 0
	})
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the command's processes outlive exec for %v", took)
	}
}

func TestExecTimeoutLeavesNoProcess(t *testing.T) {
	t.Parallel()
	e := newTestEmulator(t)
	for name, flags := range execForms() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			variable := "EXEC_TEST=" + t.Name()
			// It begins long before its time is over.
			args := append(flags, "--timeout", "4s", "--timeout-grace", "300ms", "--env", variable, "--", "sh", "-c", stubborn)
			p := startExec(t, "ssmsession", childEnv(e.environment()...), nil, args...)
			ids := p.pids()
			if code := p.code(); code != exitLate {
				t.Errorf("the exit code is %d, want %d; stderr: %s", code, exitLate, &p.stderr)
			}
			wantAllGone(t, ids, variable)
		})
	}
}

func TestAKilledExecLeavesNothingOnceItsSessionIsTerminated(t *testing.T) {
	t.Parallel()
	for name, flags := range execForms() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newTestEmulator(t)
			variable := "EXEC_TEST=" + t.Name()
			p := startExec(t, "ssmsession", childEnv(e.environment()...), nil,
				append(flags, "--env", variable, "--", "sh", "-c", stubborn)...)
			ids := p.pids()
			if err := p.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if code := p.code(); code != 128+int(syscall.SIGKILL) {
				t.Errorf("the exit code is %d after SIGKILL", code)
			}
			active := activeSessions(t, e)
			if len(active) != 1 {
				t.Fatalf("after SIGKILL of its client the emulator has the sessions %v, want the one", active)
			}
			terminate := &ssm.TerminateSessionInput{SessionId: active[0].SessionId}
			if _, err := emulatorClient(e).TerminateSession(t.Context(), terminate); err != nil {
				t.Fatal(err)
			}
			wantNoSession(t, e)
			wantAllGone(t, ids, variable)
		})
	}
}

// lineNumbers is what seq gives, without an end.
type lineNumbers struct {
	last int
	rest []byte
}

func (l *lineNumbers) Read(p []byte) (int, error) {
	for len(l.rest) < len(p) {
		l.last++
		l.rest = append(strconv.AppendInt(l.rest, int64(l.last), 10), '\n')
	}
	n := copy(p, l.rest)
	l.rest = append(l.rest[:0], l.rest[n:]...)
	return n, nil
}

// TestOutputWaitsForASlowReader reads 20 MB, or 1 GB with SOAK=1, more slowly than
// they come, and stops for a while in the middle. Nothing is lost, and the client
// does not keep what nobody takes.
func TestOutputWaitsForASlowReader(t *testing.T) {
	t.Parallel()
	megabytes := 20
	if os.Getenv("SOAK") != "" {
		megabytes = 1000
	}
	size := fromEnvironment(t, "SOAK_MB", megabytes) * 1e6
	e := newTestEmulator(t)
	for _, form := range []string{"streams", "--binary", "--via pty"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			flags := execForms()[form]
			little, _ := readSlowly(t, e, flags, 10)
			much, took := readSlowly(t, e, flags, size)
			t.Logf("%d bytes in %v; the client's peak is %d kB, and %d kB without output", size, took.Round(time.Millisecond), much, little)
			if spare := 20 << 10; much > little+spare {
				t.Errorf("with %d bytes of output for a slow reader the client has had %d kB, without %d kB", size, much, little)
			}
		})
	}
}

// readSlowly reads so many bytes of output. It gives the client's peak of memory,
// in kB, or 0 where that is not told.
func readSlowly(t *testing.T, e *scriptEmulator, flags []string, size int) (peak int, took time.Duration) {
	gate := newGate(t)
	// A busy collector, so that it is seen what is kept and not what is not collected yet.
	p := startExec(t, "ssmsession", childEnv(append(e.environment(), "GOGC=10")...), nil,
		append(flags, "--", "sh", "-c", `seq 1000000000 | head -c "$1"; read go <"$2"; exit 3`, "sh", strconv.Itoa(size), gate.name)...)
	begin := time.Now()
	buf, want := make([]byte, 256<<10), make([]byte, 256<<10)
	source := &lineNumbers{}
	tick := time.NewTicker(5 * time.Millisecond) // 50 MB/s at most
	defer tick.Stop()
	for got := 0; got < size; {
		<-tick.C
		n, err := io.ReadFull(p.out, buf[:min(len(buf), size-got)])
		if _, readErr := source.Read(want[:n]); readErr != nil || !bytes.Equal(buf[:n], want[:n]) {
			t.Fatalf("of the %d bytes behind %d only %d are right", n, got, common(buf[:n], want[:n]))
		}
		if err != nil {
			t.Fatalf("after %d bytes of %d: %v; stderr: %s", got+n, size, err, &p.stderr)
		}
		if half := size / 2; got < half && got+n >= half {
			<-time.After(time.Second) // nobody reads: there is nothing to wait for
		}
		got += n
	}
	took = time.Since(begin)
	peak = peakMemory(t, p.cmd.Process.Pid)
	gate.open(t)
	if rest, code := p.rest(), p.code(); rest != "" || code != 3 {
		t.Errorf("behind the output come %q and the exit code %d, want nothing and 3; stderr: %s", rest, code, &p.stderr)
	}
	return peak, took
}

// peakMemory is the most that a process has had in memory, in kB, and 0 where the
// system does not tell.
func peakMemory(t testing.TB, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	m := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(status)
	if err != nil || m == nil {
		t.Fatalf("cannot read how much memory process %d has had: %v", pid, err)
	}
	kB, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kB
}

// gate is a FIFO from which a command reads a line once it is opened.
type gate struct {
	name string
	fifo *os.File
}

func newGate(t testing.TB) *gate {
	t.Helper()
	g := &gate{name: filepath.Join(t.TempDir(), "gate")}
	err := syscall.Mkfifo(g.name, 0o600)
	if err == nil {
		g.fifo, err = os.OpenFile(g.name, os.O_RDWR, 0) // which waits for nobody
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.fifo.Close() })
	return g
}

// open lets the command go, whether it waits yet or not.
func (g *gate) open(t testing.TB) {
	t.Helper()
	if _, err := g.fifo.WriteString("\n"); err != nil {
		t.Error(err)
	}
}

func TestACommandNeedNotTakeItsInput(t *testing.T) {
	t.Parallel()
	e := newTestEmulator(t)
	for _, tt := range []struct {
		name   string
		script string
		out    string
		code   int
	}{
		{"it takes a little", "head -n 1", "y\n", 0},
		{"it takes nothing", "exit 4", "", 4},
		{"it takes nothing and dies", "kill -9 $$", "", 137},
		{"it closes its stdin first", "exec <&-; echo out; exit 5", "out\n", 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in, endless, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			p := startExec(t, "ssmsession", childEnv(e.environment()...), in, "-i", "--", "sh", "-c", tt.script)
			in.Close()
			var writer sync.WaitGroup
			writer.Go(func() {
				defer endless.Close()
				for _, err := endless.Write([]byte("y\n")); err == nil; _, err = endless.Write(bytes.Repeat([]byte("y\n"), 1000)) {
				}
			})
			if out, code := p.rest(), p.code(); out != tt.out || code != tt.code {
				t.Errorf("stdout is %q and the exit code %d, want %q and %d; stderr: %s", out, code, tt.out, tt.code, &p.stderr)
			}
			writer.Wait()
		})
	}
	wantNoSession(t, e)
}

// TestDescriptorsMayBeClosed starts exec without some of its descriptors, as
// daemons do.
func TestDescriptorsMayBeClosed(t *testing.T) {
	t.Parallel()
	e := newTestEmulator(t)
	for _, tt := range []struct {
		name    string
		closing string
		flags   []string
		out     string
		code    int
	}{
		{"stdin, with -i", "<&-", []string{"-i"}, "out\n", 3},
		{"stdin", "<&-", nil, "out\n", 3},
		{"stderr", "2>&-", nil, "out\n", 3},
		{"stdin and stderr, over a pty", "<&- 2>&-", []string{"--via", "pty"}, "out\n", 3},
		{"stdout", ">&-", nil, "", 3},
		{"stdout, with -i", ">&-", []string{"-i"}, "", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			argv := timed(append([]string{"sh", "-c", `"$@" ` + tt.closing, "sh", "ssmsession", "exec", exampleTarget}, tt.flags...))
			cmd := exec.Command(argv[0], append(argv[1:], "--", "sh", "-c", "cat; echo out; echo err >&2; exit 3")...)
			cmd.Env = childEnv(e.environment()...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, _ := cmd.Output() // the status tells
			if code := cmd.ProcessState.ExitCode(); string(out) != tt.out || code != tt.code {
				t.Errorf("stdout is %q and the exit code %d, want %q and %d; stderr: %s", out, code, tt.out, tt.code, &stderr)
			}
		})
	}
}

func TestAReaderMayLeave(t *testing.T) {
	t.Parallel()
	for name, flags := range execForms() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newTestEmulator(t)
			variable := "EXEC_TEST=" + t.Name()
			p := startExec(t, "ssmsession", childEnv(e.environment()...), nil, append(flags, "--env", variable, "--", "yes")...)
			if _, err := io.ReadFull(p.out, make([]byte, 100_000)); err != nil {
				t.Fatalf("cannot read the output: %v; stderr: %s", err, &p.stderr)
			}
			p.out.Close()
			if code := p.code(); code != 128+int(syscall.SIGPIPE) {
				t.Errorf("the exit code is %d, want that of SIGPIPE; stderr: %s", code, &p.stderr)
			}
			if said := strings.TrimSpace(p.stderr.String()); said != "" {
				t.Errorf("stderr says %q, want nothing", said)
			}
			wantNoSession(t, e)
			wantAllGone(t, nil, variable)
		})
	}
}
