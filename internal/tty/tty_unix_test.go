//go:build unix

package tty

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// helperRole names the part this test binary plays when a test starts it as a
// process of its own, for what needs a controlling terminal.
const helperRole = "SSMSESSION_TTY_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(helperRole)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := helpers()[role](); err != nil {
		fmt.Println("helper:", err)
		os.Exit(1)
	}
}

// openPty returns both ends of a fresh pty. It is nobody's controlling
// terminal.
func openPty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatalf("cannot open a pty: %v", err)
	}
	t.Cleanup(func() {
		for _, f := range []*os.File{slave, master} {
			if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
				t.Error(err)
			}
		}
	})
	return master, slave
}

// settings returns the terminal's settings in a form that compares.
func settings(t *testing.T, f *os.File) term.State {
	t.Helper()
	var state *term.State
	err := control(f, func(fd int) (err error) {
		state, err = term.GetState(fd)
		return err
	})
	if err != nil {
		t.Fatalf("cannot read the terminal's settings: %v", err)
	}
	return *state
}

func TestRawAndBack(t *testing.T) {
	master, slave := openPty(t)
	before := settings(t, slave)
	restore, err := New(slave, slave).Raw()
	if err != nil {
		t.Fatalf("Raw failed: %v", err)
	}
	if settings(t, slave) == before {
		t.Fatal("Raw changed nothing")
	}
	// The keys that a terminal keeps for itself, and a carriage return.
	keys := "\x03\x1a\x1c\x13\x11\x04\x15\x16\r"
	if _, err := io.WriteString(master, keys); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(keys))
	if _, err := io.ReadFull(slave, got); err != nil || string(got) != keys {
		t.Errorf("of the keys %q there arrived %q, %v", keys, got, err)
	}
	if err := restore(); err != nil {
		t.Fatalf("restore failed: %v", err)
	}
	if settings(t, slave) != before {
		t.Error("the settings after restore are not those from before Raw")
	}
}

func TestRestoreGivesBackUnusualSettings(t *testing.T) {
	_, slave := openPty(t)
	err := control(slave, func(fd int) error {
		_, err := term.MakeRaw(fd) // raw is unusual enough for a shell's terminal
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	before := settings(t, slave)
	restore, err := New(slave, slave).Raw()
	if err != nil {
		t.Fatal(err)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if settings(t, slave) != before {
		t.Error("the settings after restore are not those from before Raw")
	}
}

func TestRestoreActsOnce(t *testing.T) {
	_, slave := openPty(t)
	restore, err := New(slave, slave).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := restore(); err != nil {
				t.Errorf("one of many restores failed: %v", err)
			}
		})
	}
	all.Wait()
	// Whoever uses the terminal next must not lose its settings to a late one.
	if err := control(slave, func(fd int) error { _, err := term.MakeRaw(fd); return err }); err != nil {
		t.Fatal(err)
	}
	theirs := settings(t, slave)
	if err := restore(); err != nil {
		t.Errorf("a late restore failed: %v", err)
	}
	if settings(t, slave) != theirs {
		t.Error("a late restore changed the terminal again")
	}
}

func TestRestoreWhileSomeoneReads(t *testing.T) {
	master, slave := openPty(t)
	before := settings(t, slave)
	restore, err := New(slave, slave).Raw()
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := slave.Read(make([]byte, 1))
		read <- err
	}()
	if err := restore(); err != nil {
		t.Errorf("restore failed: %v", err)
	}
	if settings(t, slave) != before {
		t.Error("the settings after restore are not those from before Raw")
	}
	if _, err := io.WriteString(master, "\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Errorf("the reader was disturbed: %v", err)
	}
}

func TestRestoreOfATerminalThatHasGone(t *testing.T) {
	_, slave := openPty(t)
	restore, err := New(slave, slave).Raw()
	if err != nil {
		t.Fatal(err)
	}
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
	first := restore()
	if first == nil || !strings.HasPrefix(first.Error(), "cannot restore the terminal: ") {
		t.Errorf("restore returns %v, want an error that says what failed", first)
	}
	if again := restore(); again != first {
		t.Errorf("the second restore returns %v, want the first's %v", again, first)
	}
}

func TestTheFilesStayNonBlocking(t *testing.T) {
	_, slave := openPty(t)
	opened, err := os.OpenFile(slave.Name(), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	}()
	term := New(opened, opened)
	restore, err := term.Raw()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := term.Size(); !errors.Is(err, errNoSize) {
		t.Errorf("Size of a fresh pty returns %v, want that it has none", err)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	var flags int
	err = control(opened, func(fd int) (err error) {
		flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		return err
	})
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("the descriptor's flags are %#x, %v: it has been made blocking", flags, err)
	}
}

func TestRawAgainAfterSIGCONT(t *testing.T) {
	_, slave := openPty(t)
	before := settings(t, slave)
	restore, err := New(slave, slave).Raw()
	if err != nil {
		t.Fatal(err)
	}
	raw := settings(t, slave)
	// The shell that ran meanwhile has left its own settings.
	if err := control(slave, func(fd int) error { return term.Restore(fd, &before) }); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(os.Getpid(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the terminal is raw again", func() bool { return settings(t, slave) == raw })
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if settings(t, slave) != before {
		t.Error("the settings after restore are not those from before Raw")
	}
	if err := unix.Kill(os.Getpid(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if settings(t, slave) != before {
		t.Error("SIGCONT after restore made the terminal raw")
	}
}

// eventually waits for a state that no event announces.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after ten seconds it does not hold that %s", what)
		}
	}
}

func TestSize(t *testing.T) {
	_, wide := openPty(t)
	_, narrow := openPty(t)
	_, unset := openPty(t)
	for f, size := range map[*os.File]*pty.Winsize{wide: {Cols: 200, Rows: 50}, narrow: {Cols: 40, Rows: 10}} {
		if err := pty.Setsize(f, size); err != nil {
			t.Fatal(err)
		}
	}
	null := notTerminals(t)["the null device"]
	for _, tt := range []struct {
		name       string
		in, out    *os.File
		cols, rows int
		err        error
	}{
		{"the output's", narrow, wide, 200, 50, nil},
		{"the input's when the output is no terminal", narrow, null, 40, 10, nil},
		{"the output's when the input is no terminal", null, wide, 200, 50, nil},
		{"the input's when the output has none", narrow, unset, 40, 10, nil},
		{"none that nobody set", unset, unset, 0, 0, errNoSize},
		{"none without a terminal", null, null, 0, 0, ErrNotTerminal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cols, rows, err := New(tt.in, tt.out).Size()
			if cols != tt.cols || rows != tt.rows || !errors.Is(err, tt.err) {
				t.Errorf("the size is %d by %d, %v; want %d by %d, %v", cols, rows, err, tt.cols, tt.rows, tt.err)
			}
		})
	}
}

func TestInputAndOutputAreAskedSeparately(t *testing.T) {
	_, slave := openPty(t)
	null := notTerminals(t)["the null device"]
	if term := New(slave, null); !term.InIsTerminal() || term.OutIsTerminal() {
		t.Error("of a terminal for input alone, something else is said")
	}
	if term := New(null, slave); term.InIsTerminal() || !term.OutIsTerminal() {
		t.Error("of a terminal for output alone, something else is said")
	}
}

func TestResizedCoalesces(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	resized := New(nil, nil).Resized(ctx)
	for range 100 {
		if err := unix.Kill(os.Getpid(), unix.SIGWINCH); err != nil {
			t.Fatal(err)
		}
	}
	<-resized
	cancel()
	more := 0
	for range resized {
		more++
	}
	// One may have waited in the channel, one more on its way to it.
	if more > 2 {
		t.Errorf("%d values were kept for one slow reader", more+1)
	}
}

// startHelper starts this binary in the given role with the pty as its
// controlling terminal and standard input, and returns what it says, by line.
func startHelper(t *testing.T, role string, slave *os.File) *bufio.Scanner {
	t.Helper()
	said, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := helper(role)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, out, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatalf("cannot start the helper: %v", err)
	}
	t.Cleanup(func() {
		// Both fail when it has ended by itself, as it should have.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err := said.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	// A helper that was stopped says nothing more.
	if err := said.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return bufio.NewScanner(said)
}

func helper(role string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	// The race detector would have every process wait for a second at its end.
	cmd.Env = append(os.Environ(), helperRole+"="+role, "GORACE=atexit_sleep_ms=0")
	return cmd
}

func wantLine(t *testing.T, lines *bufio.Scanner, want string) {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("the helper ends or hangs where it should say %q: %v", want, lines.Err())
	}
	if lines.Text() != want {
		t.Fatalf("the helper says %q, want %q", lines.Text(), want)
	}
}

func helpers() map[string]func() error {
	return map[string]func() error{
		"resize": helpResize, "background": helpBackground, "hold": helpHold,
		"read": helpRead,
	}
}

func TestResizedFollowsARealTerminal(t *testing.T) {
	master, slave := openPty(t)
	if err := pty.Setsize(master, &pty.Winsize{Cols: 80, Rows: 24}); err != nil {
		t.Fatal(err)
	}
	lines := startHelper(t, "resize", slave)
	wantLine(t, lines, "80 24")
	for _, size := range []pty.Winsize{{Cols: 100, Rows: 30}, {Cols: 10, Rows: 3}} {
		if err := pty.Setsize(master, &size); err != nil {
			t.Fatal(err)
		}
		wantLine(t, lines, fmt.Sprint(size.Cols, " ", size.Rows))
	}
}

// helpResize says the size at the start and after two changes.
func helpResize() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	term := New(os.Stdin, os.Stdout)
	resized := term.Resized(ctx)
	for i := range 3 {
		if i > 0 {
			<-resized
		}
		cols, rows, err := term.Size()
		if err != nil {
			return err
		}
		fmt.Println(cols, rows)
	}
	return nil
}

// A client that was put into the background, or stopped and then killed, must
// end: setting a terminal that is the shell's would stop it, or fail.
func TestRestoreInTheBackgroundLeavesTheTerminalAlone(t *testing.T) {
	_, slave := openPty(t)
	lines := startHelper(t, "background", slave)
	wantLine(t, lines, "restored")
	wantLine(t, lines, "the terminal is as the other left it: true")
}

// helpBackground goes raw, lets another process group have the terminal, sets
// it as that one would, and then does what a client on its way out does.
func helpBackground() (err error) {
	in := os.Stdin
	restore, err := New(in, in).Raw()
	if err != nil {
		return err
	}
	other := helper("hold")
	other.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	hold, err := other.StdinPipe()
	if err != nil {
		return err
	}
	if err := other.Start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hold.Close(), other.Wait()) }()
	var theirs, after *term.State
	err = control(in, func(fd int) (err error) {
		if theirs, err = term.GetState(fd); err != nil {
			return err
		}
		return unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, other.Process.Pid)
	})
	if err != nil {
		return fmt.Errorf("cannot give the terminal away: %w", err)
	}
	if err := unix.Kill(os.Getpid(), unix.SIGCONT); err != nil {
		return err
	}
	if err := restore(); err != nil {
		return err
	}
	fmt.Println("restored")
	err = control(in, func(fd int) (err error) {
		after, err = term.GetState(fd)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Println("the terminal is as the other left it:", *after == *theirs)
	return nil
}

// helpHold stays until its input ends.
func helpHold() error {
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
