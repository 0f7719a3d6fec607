//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// latestMoment is how long after its start a client is ended at the latest.
const latestMoment = 600 * time.Millisecond

// TestAClientMayEndAtAnyMoment ends clients in every way, whatever they are doing:
// each tells how it ended, leaves the terminal as it found it, and no session.
// SOAK=1 does it ten times as often. SEED repeats the moments of a failure.
func TestAClientMayEndAtAnyMoment(t *testing.T) {
	rounds := 20
	if os.Getenv("SOAK") != "" {
		rounds *= 10
	}
	seed := rand.Uint64()
	if given := os.Getenv("SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	const lanes = 4 // each with an emulator, so that the sessions there are its own
	for lane := range lanes {
		t.Run(fmt.Sprint("lane", lane), func(t *testing.T) {
			t.Parallel()
			e := newTestEmulator(t)
			for i := lane; i < rounds; i += lanes {
				r := newRound(i, seed)
				if !t.Run(fmt.Sprint(i, " ", r), func(t *testing.T) { r.play(t, e) }) {
					t.Logf("SEED=%d, round %d: %v", seed, i, r)
				}
			}
		})
	}
}

// round is one end of a client.
type round struct {
	scene  string
	way    string
	moment time.Duration // since the start, or since the scene is set
	// signals are those that are sent, with a gap between two of them.
	signals []syscall.Signal
	gap     time.Duration
}

// The scenes in which a client is ended, and the ways.
const (
	sceneStart = "from the start"
	sceneTyped = "while typing"
	sceneFlood = "in a flood of output"

	bySignal  = "by a signal"
	bySignals = "by two signals"
	byEscape  = "by the escape"
	byHangup  = "by closing the terminal"
)

// newRound is the i-th one. All scenes and ways come by turns, the rest by chance.
func newRound(i int, seed uint64) round {
	scenes := []string{sceneStart, sceneTyped, sceneFlood}
	ways := []string{bySignal, byHangup, bySignals, byEscape}
	signals := []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT}
	random := rand.New(rand.NewPCG(seed, uint64(i)))
	random.Shuffle(len(signals), func(a, b int) { signals[a], signals[b] = signals[b], signals[a] })
	early := random.Float64() // most of what may go wrong is at the beginning
	r := round{
		scene:  scenes[i%len(scenes)],
		way:    ways[i%len(ways)],
		moment: time.Duration(early * early * float64(latestMoment)),
		gap:    time.Duration(random.Int64N(int64(5 * time.Millisecond))),
	}
	switch r.way {
	case bySignal:
		r.signals = signals[:1]
	case bySignals:
		r.signals = signals[:2]
		if random.IntN(2) == 0 {
			r.gap = 0
		}
	}
	return r
}

// String describes the round.
func (r round) String() string {
	said := fmt.Sprintf("%s, %s, after %v", r.scene, r.way, r.moment.Round(time.Microsecond))
	if len(r.signals) > 0 {
		said += fmt.Sprint(" ", r.signals)
	}
	if len(r.signals) > 1 {
		said += fmt.Sprint(" apart ", r.gap)
	}
	return said
}

// statuses are those that are right.
func (r round) statuses() []int {
	switch r.way {
	case byEscape:
		return []int{0}
	case byHangup:
		// Rarely the signal comes late, after a write that failed or an end of
		// the input to which the remote shell has ended.
		return []int{128 + int(syscall.SIGHUP), exitFailed, 0}
	}
	var right []int
	for _, sig := range r.signals { // of two, either may be the first to arrive
		right = append(right, 128+int(sig))
	}
	return right
}

func (r round) play(t *testing.T, e *scriptEmulator) {
	open := openScreen
	if r.way == byHangup {
		open = openHangable
	}
	s := open(t, t.TempDir(), childEnv(e.environment()...), screenCols, screenRows, "ssmsession", "start", exampleTarget)
	defer s.close()
	typist := r.set(s)
	defer typist.stop()
	<-time.After(r.moment) // chance itself: there is nothing to wait for
	r.end(t, s, typist)
	if got := s.status(); !slices.Contains(r.statuses(), got) {
		t.Errorf("the client ended with status %d, want one of %v; it said:\n%s", got, r.statuses(), said(s))
	}
	typist.stop()
	if r.way != byHangup && s.settings() != s.before { // those of a closed one are gone
		t.Errorf("the terminal's settings are not those from before the client; it said:\n%s", said(s))
	}
	wantNoSession(t, e)
}

// said is the end of all that was shown.
func said(s *screen) string {
	shown := s.shown()
	return shown[max(0, len(shown)-1000):]
}

// set sets the scene.
func (r round) set(s *screen) *typist {
	switch r.scene {
	case sceneTyped:
		s.WaitFor(prompt)
		return startTypist(s.master)
	case sceneFlood:
		s.WaitFor(prompt)
		s.Type("while :; do echo wat''er; done\r")
		s.WaitPast("water\r\nwater")
	}
	return nil
}

// end ends the client.
func (r round) end(t *testing.T, s *screen, typist *typist) {
	switch r.way {
	case byEscape:
		typist.stop() // who would type into it
		s.Type("\r~.")
	case byHangup:
		if err := s.master.Close(); err != nil {
			t.Fatalf("cannot close the terminal: %v", err)
		}
	}
	for i, sig := range r.signals {
		if i > 0 && r.gap > 0 {
			<-time.After(r.gap)
		}
		if err := syscall.Kill(s.pid, sig); err != nil && i == 0 {
			t.Errorf("cannot send %v: %v", sig, err)
		}
	}
}

// typist is somebody who types without a pause. A nil one does not.
type typist struct {
	stopped chan struct{}
	once    sync.Once
	done    sync.WaitGroup
}

func startTypist(terminal io.Writer) *typist {
	ty := &typist{stopped: make(chan struct{})}
	ty.done.Go(func() {
		// Few enough keys for a terminal that nobody reads any more to hold.
		const most = 2000
		key := time.NewTicker(time.Millisecond)
		defer key.Stop()
		for i := range most {
			const keys = "echo typed\r"
			if _, err := io.WriteString(terminal, keys[i%len(keys):][:1]); err != nil {
				return // it was closed
			}
			select {
			case <-ty.stopped:
				return
			case <-key.C:
			}
		}
	})
	return ty
}

// stop waits for the last key. It may be called again.
func (ty *typist) stop() {
	if ty == nil {
		return
	}
	ty.once.Do(func() { close(ty.stopped) })
	ty.done.Wait()
}

// openHangable is openScreen for a terminal that can be closed while the program
// runs. The leader of its session dies of that, as a shell does, upon which the
// system tells the program; in between is a shell that tells the status.
func openHangable(t failer, dir string, env []string, cols, rows int, argv ...string) *screen {
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatalf("cannot open a pty: %v", err)
	}
	defer tty.Close()
	s := &screen{t: t, vt: vt.NewEmulator(cols, rows), changed: make(chan struct{})}
	if err := pty.Setsize(tty, winsize(cols, rows)); err != nil {
		t.Fatalf("cannot set the size of the pty: %v", err)
	}
	s.master = closable(t, master)
	report, reported, err := os.Pipe()
	if err != nil {
		t.Fatalf("cannot open a pipe: %v", err)
	}
	defer reported.Close()
	s.report = bufio.NewReader(report)
	const script = `sh -c '
trap : HUP
sh -c '\''echo pid $$ >&3; exec "$@" 3>&-'\'' sh "$@"
echo exit $? >&3
' sh "$@"
:`
	s.leader = exec.Command("sh", append([]string{"-c", script, "sh"}, argv...)...)
	s.leader.Dir, s.leader.Env = dir, env
	s.leader.Stdin, s.leader.Stdout, s.leader.Stderr = tty, tty, tty
	s.leader.ExtraFiles = []*os.File{reported}
	s.leader.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.leader.Start(); err != nil {
		t.Fatalf("cannot start %q on a terminal: %v", argv, err)
	}
	s.tasks.Go(s.show)
	s.tasks.Go(s.answer)
	if _, err := fmt.Fscanf(s.report, "pid %d\n", &s.pid); err != nil {
		t.Fatalf("cannot start %q on a terminal: %v; it shows:\n%s", argv, err, s.text())
	}
	return s
}

// closable gives a file in place of another whose Close does not wait for reads.
func closable(t failer, f *os.File) *os.File {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		t.Fatalf("cannot duplicate %s: %v", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// wantNoSession waits until the emulator has no session.
func wantNoSession(t *testing.T, e *scriptEmulator) {
	t.Helper()
	defer func() { // those after this one are not to suffer for it
		for _, left := range activeSessions(t, e) {
			terminate := &ssm.TerminateSessionInput{SessionId: left.SessionId}
			if _, err := emulatorClient(e).TerminateSession(t.Context(), terminate); err != nil {
				t.Errorf("cannot end the session that is left: %v", err)
			}
		}
	}()
	eventually(t, "the emulator has no session any more", func() bool { return len(activeSessions(t, e)) == 0 })
}

// emulatorClient calls the emulator.
func emulatorClient(e *scriptEmulator) *ssm.Client {
	endpoint := e.exports["AWS_ENDPOINT_URL"]
	return ssm.New(ssm.Options{
		Region:       e.exports["AWS_REGION"],
		BaseEndpoint: &endpoint,
		Credentials: credentials.NewStaticCredentialsProvider(
			e.exports["AWS_ACCESS_KEY_ID"], e.exports["AWS_SECRET_ACCESS_KEY"], ""),
	})
}

// activeSessions are those that the emulator has not ended.
func activeSessions(t *testing.T, e *scriptEmulator) []types.Session {
	t.Helper()
	out, err := emulatorClient(e).DescribeSessions(t.Context(), &ssm.DescribeSessionsInput{State: types.SessionStateActive})
	if err != nil {
		t.Fatal(err)
	}
	return out.Sessions
}

// TestASessionOutlivesAKilledClient documents what no client can help: SIGKILL
// leaves the terminal raw, and the session to the service. That keeps it, for
// somebody to resume, until its idle timeout or until it is terminated.
func TestASessionOutlivesAKilledClient(t *testing.T) {
	t.Parallel()
	e := newTestEmulator(t)
	s := openScreen(t, t.TempDir(), childEnv(e.environment()...), screenCols, screenRows, "ssmsession", "start", exampleTarget)
	t.Cleanup(s.close)
	u := &user{screen: s}
	shell := u.shellPID()
	if err := syscall.Kill(u.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := u.status(); got != 128+int(syscall.SIGKILL) {
		t.Errorf("the client ended with status %d after SIGKILL", got)
	}
	active := activeSessions(t, e)
	if len(active) != 1 {
		t.Fatalf("after SIGKILL of its client the emulator has the sessions %v, want the one", active)
	}
	if err := syscall.Kill(shell, 0); err != nil {
		t.Errorf("after SIGKILL of its client the session's shell is: %v", err)
	}
	if _, err := emulatorClient(e).TerminateSession(t.Context(), &ssm.TerminateSessionInput{SessionId: active[0].SessionId}); err != nil {
		t.Fatal(err)
	}
	wantNoSession(t, e)
	wantGone(t, shell)
}

// TestAStoppedClientGoesOn stops the client from outside, as a debugger or a batch
// system does, and lets somebody else set the terminal meanwhile.
func TestAStoppedClientGoesOn(t *testing.T) {
	t.Parallel()
	needTool(t, "ps")
	u := startLocal(t)
	raw := u.settings()
	file := filepath.Join(t.TempDir(), "file")
	u.Type("until [ -e " + file + " ]; do sleep 0.05; done; echo out''put\r")
	for range 3 {
		if err := syscall.Kill(u.pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the client has stopped", func() bool {
			state, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(u.pid)).Output()
			if err != nil {
				t.Fatalf("cannot look at the client: %v", err)
			}
			return strings.HasPrefix(string(state), "T")
		})
		before := u.before
		if err := term.Restore(int(u.tty.Fd()), &before); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(u.pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the terminal is raw again", func() bool { return u.settings() == raw })
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	u.WaitFor("output")
	u.wantRun("echo in''put")
	u.WaitFor("input")
	u.Type("exit\r")
	u.wantEnd(0)
}

// TestStdinsFlagIsLeftAsFound looks at O_NONBLOCK, which belongs to all who have
// the terminal open.
func TestStdinsFlagIsLeftAsFound(t *testing.T) {
	for name, nonblocking := range map[string]bool{"blocking": false, "non-blocking": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fifo := filepath.Join(t.TempDir(), "fifo")
			if err := unix.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			// The shell does not begin before the flag is set, nor touch it.
			s := openScreen(t, t.TempDir(), childEnv(), screenCols, screenRows,
				"sh", "-c", `read go <"$0"; exec "$@"`, fifo, "ssmsession", "start", "--target", "local")
			t.Cleanup(s.close)
			setNonblocking(s, nonblocking)
			if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil {
				t.Fatal(err)
			}
			u := &user{screen: s}
			u.WaitFor(prompt)
			u.wantRun("true")
			if nonblock(s) != nonblocking {
				t.Errorf("during a session a terminal that was %s is not", name)
			}
			u.Type("exit\r")
			if status := u.status(); status != 0 {
				t.Errorf("the session ended with status %d", status)
			}
			if nonblock(s) != nonblocking {
				t.Errorf("after a session a terminal that was %s is not", name)
			}
			if u.settings() != u.before {
				t.Error("the terminal's settings are not those from before the program")
			}
		})
	}
}

// TestASessionGoesOnWhenItsTerminalBecomesNonBlocking has somebody who shares the
// terminal change the flag, back and forth.
func TestASessionGoesOnWhenItsTerminalBecomesNonBlocking(t *testing.T) {
	t.Parallel()
	u := startLocal(t)
	for i, nonblocking := range []bool{true, false, true} {
		setNonblocking(u.screen, nonblocking)
		u.wantRun("i=0; while [ $i -lt 5000 ]; do echo line $i of a lot; i=$((i+1)); done; echo al''l=$i")
		u.WaitFor("all=5000")
		if got := strings.Count(u.shown(), " of a lot\r\n"); got%5000 != 0 {
			t.Errorf("of 5000 lines there arrived %d", got)
		}
		u.Type(fmt.Sprintf("read word; echo wo''rd=$word\rkeys%d\r", i))
		u.WaitFor(fmt.Sprintf("word=keys%d", i))
		if nonblock(u.screen) != nonblocking {
			t.Errorf("the session has changed the flag, which was %t", nonblocking)
		}
	}
	u.Type("exit\r")
	if status := u.status(); status != 0 {
		t.Errorf("the session ended with status %d", status)
	}
	if !nonblock(u.screen) {
		t.Error("after the session the terminal is not non-blocking any more")
	}
}

// setNonblocking sets the flag of the program's end. The screen's settings must
// not be asked before the flag is: that unsets it, for os.File.Fd does.
func setNonblocking(s *screen, on bool) {
	onTerminal(s, func(fd int) error { return unix.SetNonblock(fd, on) })
}

// nonblock tells whether the flag is set.
func nonblock(s *screen) (on bool) {
	onTerminal(s, func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		on = flags&unix.O_NONBLOCK != 0
		return err
	})
	return on
}

// onTerminal calls fn with the descriptor of the program's end.
func onTerminal(s *screen, fn func(fd int) error) {
	conn, err := s.tty.SyscallConn()
	if err != nil {
		s.t.Fatalf("cannot get at the terminal: %v", err)
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil || inner != nil {
		s.t.Fatalf("cannot get at the terminal: %v, %v", err, inner)
	}
}
