//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"golang.org/x/term"
)

// screen is a terminal with a program on it, seen as its user sees it: keys in,
// characters in their places out.
//
// The program is not the leader of the terminal's session, as it is not where
// people use it: settings of a terminal whose leader has ended are gone, and
// could not be looked at any more. The leader is a process of ours that waits
// (roles_unix_test.go).
type screen struct {
	t      failer
	master *os.File // the keys' and the screen's end
	tty    *os.File // the program's end
	before term.State
	pid    int // of the program
	report *bufio.Reader
	leave  *os.File // closed to let the leader go
	leader *exec.Cmd
	tasks  sync.WaitGroup

	mu      sync.Mutex // guards what follows
	vt      *vt.Emulator
	raw     strings.Builder // all that was shown, as it came
	changed chan struct{}   // closed and made anew with each output
	ended   bool            // no output will come any more
}

// failer is a test, or a script of one.
type failer interface {
	Fatalf(format string, args ...any)
}

// Sizes of screens.
const (
	screenCols = 80
	screenRows = 24
)

// openScreen starts a program on a terminal of its own. close must be called.
func openScreen(t failer, dir string, env []string, cols, rows int, argv ...string) *screen {
	s := &screen{t: t, vt: vt.NewEmulator(cols, rows), changed: make(chan struct{})}
	var err error
	if s.master, s.tty, err = pty.Open(); err != nil {
		t.Fatalf("cannot open a pty: %v", err)
	}
	if err := pty.Setsize(s.master, winsize(cols, rows)); err != nil {
		t.Fatalf("cannot set the size of the pty: %v", err)
	}
	s.before = s.settings()
	report, reported, err := os.Pipe()
	if err != nil {
		t.Fatalf("cannot open a pipe: %v", err)
	}
	left, leave, err := os.Pipe()
	if err != nil {
		t.Fatalf("cannot open a pipe: %v", err)
	}
	s.report, s.leave = bufio.NewReader(report), leave
	s.leader = exec.Command("leader", argv...)
	s.leader.Dir, s.leader.Env = dir, env
	s.leader.Stdin, s.leader.Stdout, s.leader.Stderr = s.tty, s.tty, s.tty
	s.leader.ExtraFiles = []*os.File{reported, left}
	s.leader.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.leader.Start(); err != nil {
		t.Fatalf("cannot start %q on a terminal: %v", argv, err)
	}
	reported.Close()
	left.Close()
	s.tasks.Go(s.show)
	s.tasks.Go(s.answer)
	if _, err := fmt.Fscanf(s.report, "pid %d\n", &s.pid); err != nil {
		t.Fatalf("cannot start %q on a terminal: %v; it shows:\n%s", argv, err, s.text())
	}
	return s
}

// close ends whatever still runs on the terminal.
func (s *screen) close() {
	s.leave.Close()
	_ = s.leader.Wait() // its status says nothing
	s.tty.Close()
	s.tasks.Wait()
	s.master.Close()
}

// show draws what the program writes, until nobody has the terminal any more.
func (s *screen) show() {
	buf := make([]byte, 32<<10)
	for {
		n, err := s.master.Read(buf)
		s.mu.Lock()
		s.raw.Write(buf[:n])
		_, _ = s.vt.Write(buf[:n]) // never fails
		s.ended = err != nil
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
		if err != nil {
			// Ends answer. The emulator's own Close is not safe to call here.
			_ = s.vt.InputPipe().(io.Closer).Close() // never fails
			return
		}
	}
}

// answer types what a terminal replies to a program that asks it something.
func (s *screen) answer() {
	_, _ = io.Copy(s.master, s.vt) // ends with the terminal
}

// Type sends keys as they are: "\r" is Enter, "\x03" is Ctrl-C.
func (s *screen) Type(keys string) {
	if _, err := io.WriteString(s.master, keys); err != nil {
		s.t.Fatalf("cannot type %.40q: %v", keys, err)
	}
}

// Resize changes the terminal's size.
func (s *screen) Resize(cols, rows int) {
	s.mu.Lock()
	s.vt.Resize(cols, rows)
	s.mu.Unlock()
	if err := pty.Setsize(s.master, winsize(cols, rows)); err != nil {
		s.t.Fatalf("cannot set the size of the pty: %v", err)
	}
}

func winsize(cols, rows int) *pty.Winsize {
	return &pty.Winsize{Cols: uint16(cols), Rows: uint16(rows)}
}

// WaitFor waits until the screen shows a text.
func (s *screen) WaitFor(text string) {
	s.until(fmt.Sprintf("the screen shows %q", text), func(shown string) bool { return strings.Contains(shown, text) })
}

// WaitPast waits until a text has been shown since the screen was opened, even if
// it has scrolled away since.
func (s *screen) WaitPast(text string) {
	s.until(fmt.Sprintf("%q was shown", text), func(string) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(s.raw.String(), text)
	})
}

// WaitGone waits until the screen does not show a text any more.
func (s *screen) WaitGone(text string) {
	s.until(fmt.Sprintf("the screen shows no %q", text), func(shown string) bool { return !strings.Contains(shown, text) })
}

// WaitMatch waits until the screen shows what the pattern matches, and gives the
// submatches.
func (s *screen) WaitMatch(pattern string) []string {
	re := regexp.MustCompile(pattern)
	var found []string
	s.until("the screen matches "+pattern, func(shown string) bool {
		found = re.FindStringSubmatch(shown)
		return found != nil
	})
	return found
}

// until waits for a state of the screen. It looks whenever there is output.
func (s *screen) until(what string, holds func(shown string) bool) {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		shown, changed, ended := s.vt.String(), s.changed, s.ended
		s.mu.Unlock()
		if holds(shown) {
			return
		}
		if ended {
			s.t.Fatalf("the program ended before it held that %s; it shows:\n%s", what, shown)
		}
		select {
		case <-changed:
		case <-deadline.C:
			s.t.Fatalf("in %v it did not come to hold that %s; the screen shows:\n%s", patience, what, shown)
		}
	}
}

// text is what the screen shows.
func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.vt.String()
}

// settings are the terminal's, in a form that compares.
func (s *screen) settings() term.State {
	state, err := term.GetState(int(s.tty.Fd()))
	if err != nil {
		s.t.Fatalf("cannot read the terminal's settings: %v", err)
	}
	return *state
}

// status waits for the program's end and gives its exit status, -1 for a death
// by signal.
func (s *screen) status() int {
	type answer struct {
		status int
		err    error
	}
	told := make(chan answer, 1)
	s.tasks.Go(func() {
		var a answer
		_, a.err = fmt.Fscanf(s.report, "exit %d\n", &a.status)
		told <- a
	})
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	select {
	case a := <-told:
		if a.err != nil {
			s.t.Fatalf("cannot learn the program's exit status: %v", a.err)
		}
		return a.status
	case <-deadline.C:
		s.t.Fatalf("the program did not end in %v; the screen shows:\n%s", patience, s.text())
		return -1
	}
}

// wantEnd waits for the program's end, which must have an exit status and leave
// the terminal as it found it.
func (s *screen) wantEnd(status int) {
	got := s.status()
	s.settle()
	if got != status {
		s.t.Fatalf("the program ended with status %d, want %d; the screen shows:\n%s", got, status, s.text())
	}
	if s.settings() != s.before {
		s.t.Fatalf("the terminal's settings are not those from before the program")
	}
}

// settle waits until all that the program wrote before its end is shown: what is
// written after it comes after it.
func (s *screen) settle() {
	const title = "\x1b]0;the program has ended\x07" // which takes no place on the screen
	if _, err := io.WriteString(s.tty, title); err != nil {
		s.t.Fatalf("cannot write to the terminal: %v", err)
	}
	s.WaitPast(title)
}

// user is somebody at a shell on a screen.
type user struct {
	*screen
	commands int
}

// startLocal opens a shell on this machine in a session of its own, and waits
// for its prompt.
func startLocal(t *testing.T, more ...string) *user {
	t.Helper()
	s := openScreen(t, t.TempDir(), childEnv(more...), screenCols, screenRows, "ssmsession", "start", "--target", "local")
	t.Cleanup(s.close)
	s.WaitFor(prompt)
	return &user{screen: s}
}

// run types a command and waits for its end; it gives its status. The mark of
// the end is not what was typed, so that the echo does not look like it.
func (u *user) run(command string) string {
	u.commands++
	u.Type(fmt.Sprintf("%s; echo en''d%d:$?\r", command, u.commands))
	return u.WaitMatch(fmt.Sprintf(`(?m)\bend%d:(\d+)`, u.commands))[1]
}

// waitPrompt waits for the prompt after a program that has the screen and the
// keys to itself: what is typed before it has ended may be lost.
func (u *user) waitPrompt() { u.WaitMatch(prompt + `\s*$`) }

// wantRun runs a command that must succeed.
func (u *user) wantRun(command string) {
	if status := u.run(command); status != "0" {
		u.t.Fatalf("%q ended with status %s; the screen shows:\n%s", command, status, u.text())
	}
}
