//go:build unix

package tty

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// inherited opens a file as a process inherits its standard input: blocking
// unless flags say otherwise, and for the Go runtime a file of that kind. With
// it comes the flag's switch, as another process has it that shares the file.
func inherited(t *testing.T, path string, flags int) (f *os.File, setNonblock func(bool)) {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return asInherited(t, fd, path)
}

func asInherited(t *testing.T, fd int, name string) (f *os.File, setNonblock func(bool)) {
	t.Helper()
	theirs, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	f = os.NewFile(uintptr(fd), name)
	t.Cleanup(func() {
		if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
		if err := unix.Close(theirs); err != nil {
			t.Error(err)
		}
	})
	return f, func(on bool) {
		if err := unix.SetNonblock(theirs, on); err != nil {
			t.Error(err)
		}
	}
}

// pipe returns a pipe whose ends are both as inherited.
func pipe(t *testing.T) (r, w *os.File, setNonblockR, setNonblockW func(bool)) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe(fds[:]); err != nil {
		t.Fatal(err)
	}
	r, setNonblockR = asInherited(t, fds[0], "the pipe's output")
	w, setNonblockW = asInherited(t, fds[1], "the pipe's input")
	return r, w, setNonblockR, setNonblockW
}

// rawPty returns a pty without echo and translation, the slave as inherited.
func rawPty(t *testing.T) (master, slave *os.File, setNonblock func(bool)) {
	t.Helper()
	master, opened := openPty(t)
	slave, setNonblock = inherited(t, opened.Name(), unix.O_RDWR)
	if err := control(slave, func(fd int) error { _, err := term.MakeRaw(fd); return err }); err != nil {
		t.Fatal(err)
	}
	// It would keep the pty alive once slave is closed.
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	return master, slave, setNonblock
}

// statusFlags returns what fcntl knows of the open file.
func statusFlags(t *testing.T, f *os.File) int {
	t.Helper()
	var flags int
	err := control(f, func(fd int) (err error) {
		flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		return err
	})
	if err != nil {
		t.Fatalf("cannot read the flags of %s: %v", f.Name(), err)
	}
	return flags
}

func TestReadsSurviveEAGAIN(t *testing.T) {
	master, slave, nonblockSlave := rawPty(t)
	r, w, nonblockR, _ := pipe(t)
	for name, tt := range map[string]struct {
		from, to *os.File
		nonblock func(bool)
	}{"a terminal": {slave, master, nonblockSlave}, "a pipe": {r, w, nonblockR}} {
		t.Run(name, func(t *testing.T) {
			tt.nonblock(true)
			if _, err := tt.from.Read(make([]byte, 1)); !errors.Is(err, unix.EAGAIN) {
				t.Fatalf("a plain read returns %v, want EAGAIN: this test shows nothing", err)
			}
			// Each byte is written once the one before has been read, so that
			// the reader mostly finds nothing.
			const rounds = 500
			read := make(chan byte)
			failed := make(chan error, 1)
			go func() {
				defer close(read)
				in, p := NewReader(tt.from), make([]byte, 10)
				for range rounds {
					n, err := in.Read(p)
					if n != 1 || err != nil {
						failed <- fmt.Errorf("a read gives %d bytes, %w", n, err)
						return
					}
					read <- p[0]
				}
			}()
			for i := range rounds {
				if _, err := tt.to.Write([]byte{byte(i)}); err != nil {
					t.Fatal(err)
				}
				got, ok := <-read
				if !ok {
					t.Fatalf("after %d reads: %v", i, <-failed)
				}
				if got != byte(i) {
					t.Fatalf("read %d gives %d, want %d", i, got, byte(i))
				}
			}
		})
	}
}

func TestWritesSurviveEAGAIN(t *testing.T) {
	master, slave, nonblockSlave := rawPty(t)
	r, w, _, nonblockW := pipe(t)
	for name, tt := range map[string]struct {
		from, to *os.File
		nonblock func(bool)
	}{"a terminal": {master, slave, nonblockSlave}, "a pipe": {r, w, nonblockW}} {
		t.Run(name, func(t *testing.T) {
			tt.nonblock(true)
			text := numbered(1 << 20)
			n, err := tt.to.Write(text)
			if !errors.Is(err, unix.EAGAIN) || n == len(text) {
				t.Fatalf("a plain write of what nobody reads returns %d, %v, want EAGAIN: this test shows nothing", n, err)
			}
			got := make([]byte, len(text))
			read := make(chan error, 1)
			go func() {
				_, err := io.ReadFull(tt.from, got)
				read <- err
			}()
			// More than there is room for, so that it meets EAGAIN.
			if m, err := NewWriter(tt.to).Write(text[n:]); m != len(text)-n || err != nil {
				t.Fatalf("the write returns %d of %d bytes, %v", m, len(text)-n, err)
			}
			if err := <-read; err != nil || !bytes.Equal(got, text) {
				t.Errorf("what arrives is not what was written, %v", err)
			}
		})
	}
}

// numbered returns n bytes of which any that were lost, doubled or swapped
// would show.
func numbered(n int) []byte {
	var text []byte
	for i := 0; len(text) < n; i++ {
		text = fmt.Appendf(text, "%d,", i)
	}
	return text[:n]
}

// A shell, an editor or another client switches the flag while we run.
func TestTheFlagMayChangeAtAnyTime(t *testing.T) {
	master, slave, setNonblock := rawPty(t)
	ctx, cancel := context.WithCancel(context.Background())
	var all, switching sync.WaitGroup
	switching.Go(func() {
		for on := true; ctx.Err() == nil; on = !on {
			setNonblock(on)
			runtime.Gosched()
		}
	})
	text := numbered(64 << 10)
	all.Go(func() {
		if _, err := NewWriter(slave).Write(text); err != nil {
			t.Errorf("a write failed: %v", err)
		}
	})
	all.Go(func() {
		if got := make([]byte, len(text)); readAll(t, NewReader(slave), got) && !bytes.Equal(got, text) {
			t.Error("what is read is not what was typed")
		}
	})
	all.Go(func() {
		if _, err := master.Write(text); err != nil {
			t.Error(err)
		}
	})
	all.Go(func() {
		if got := make([]byte, len(text)); readAll(t, master, got) && !bytes.Equal(got, text) {
			t.Error("what arrives is not what was written")
		}
	})
	all.Wait()
	cancel()
	switching.Wait()
}

func readAll(t *testing.T, r io.Reader, p []byte) bool {
	_, err := io.ReadFull(r, p)
	if err != nil {
		t.Errorf("a read failed: %v", err)
	}
	return err == nil
}

// What others set is theirs: stdin left non-blocking breaks the shell, left
// blocking it breaks whoever relies on the flag.
func TestTheFlagIsLeftAsItWasFound(t *testing.T) {
	_, slave := openPty(t)
	for name, tt := range map[string]struct {
		flags int
		later bool
	}{
		"blocking":                  {0, false},
		"non-blocking at the start": {unix.O_NONBLOCK, false},
		"non-blocking later":        {0, true},
	} {
		t.Run(name, func(t *testing.T) {
			master, pty := openPty(t)
			f, setNonblock := inherited(t, pty.Name(), unix.O_RDWR|tt.flags)
			if tt.later {
				setNonblock(true)
			}
			before := statusFlags(t, f)
			if want := tt.flags != 0 || tt.later; want != (before&unix.O_NONBLOCK != 0) {
				t.Fatalf("the flags are %#x, so this test shows nothing", before)
			}
			same := func(after string, err error) {
				t.Helper()
				if err != nil {
					t.Errorf("%s failed: %v", after, err)
				}
				if got := statusFlags(t, f); got != before {
					t.Errorf("after %s the flags are %#x, want %#x", after, got, before)
				}
			}
			terminal := New(f, f)
			restore, err := terminal.Raw()
			same("Raw", err)
			if _, _, err := terminal.Size(); !errors.Is(err, errNoSize) {
				t.Errorf("the size of a fresh pty: %v", err)
			}
			same("Size", nil)
			_, err = NewWriter(f).Write([]byte("output"))
			same("a write", err)
			_, err = io.WriteString(master, "typed")
			same("typing", err)
			_, err = io.ReadFull(NewReader(f), make([]byte, len("typed")))
			same("a read", err)
			same("restore", restore())
		})
	}
	// Files that Go itself opened are non-blocking and stay so.
	before := statusFlags(t, slave)
	restore, err := New(slave, slave).Raw()
	if err != nil {
		t.Fatal(err)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if got := statusFlags(t, slave); got != before {
		t.Errorf("the flags of a file that Go opened are %#x, want %#x", got, before)
	}
}

func TestATerminalThatHungUpHasNoMoreInput(t *testing.T) {
	for _, nonblocking := range []bool{false, true} {
		t.Run(fmt.Sprintf("non-blocking %t", nonblocking), func(t *testing.T) {
			master, slave, setNonblock := rawPty(t)
			setNonblock(nonblocking)
			in, read := NewReader(slave), make(chan error, 1)
			go func() {
				_, err := in.Read(make([]byte, 1))
				read <- err
			}()
			if err := master.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-read; err != io.EOF {
				t.Errorf("the read that waited while the terminal hung up returns %v, want io.EOF", err)
			}
			if _, err := in.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("a read after the terminal hung up returns %v, want io.EOF", err)
			}
			if _, err := NewWriter(slave).Write([]byte("x")); !errors.Is(err, unix.EIO) {
				t.Errorf("a write after the terminal hung up returns %v, want EIO: the output is lost", err)
			}
		})
	}
}

func TestTheMasterOfAPtyEndsWithItsSlave(t *testing.T) {
	master, slave := openPty(t)
	if _, err := io.WriteString(slave, "last words"); err != nil {
		t.Fatal(err)
	}
	in := NewReader(master)
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(in)
	if string(got) != "last words" || err != nil {
		t.Errorf("the master reads %q, %v; want the last words and the end", got, err)
	}
}

func TestEIOOfAnythingElseIsAnError(t *testing.T) {
	// The first page of a process is never there.
	f, err := os.Open("/proc/self/mem")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("only Linux has a file whose reading fails at will")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := NewReader(f).Read(make([]byte, 1)); !errors.Is(err, unix.EIO) {
		t.Errorf("reading what cannot be read returns %v, want EIO", err)
	}
}

func TestWhatPollRefusesIsSelected(t *testing.T) {
	r, w, _, _ := pipe(t)
	for _, tt := range []struct {
		file  *os.File
		event int16
	}{{w, unix.POLLOUT}, {r, unix.POLLIN}} {
		done := make(chan error, 1)
		go func() {
			done <- control(tt.file, func(fd int) error { return selectReady(fd, tt.event) })
		}()
		if tt.event == unix.POLLIN {
			if _, err := io.WriteString(w, "x"); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			t.Errorf("%s never becomes ready: %v", tt.file.Name(), err)
		}
	}
	if err := selectReady(unix.FD_SETSIZE, unix.POLLIN); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a descriptor beyond what select knows gives %v, want EINVAL", err)
	}
}

// A standard input of every kind, as shells and nohup give it to a program.
func TestStandardInput(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	for redirection, want := range map[string]string{
		`printf 'a\nb' | "$0"`:                `"a\nb" <nil>`,
		`"$0" < /dev/null`:                    `"" <nil>`,
		`"$0" <&-`:                            `"" <nil>`, // the Go runtime opens the null device
		`"$0" 0> /dev/null`:                   `"" not open for reading: read /dev/stdin: bad file descriptor`,
		`printf x > f; "$0" < f; rm f`:        `"x" <nil>`,
		`true | "$0"`:                         `"" <nil>`,
		`"$0" < . `:                           `"" read /dev/stdin: is a directory`,
		`printf z | (exec 3<&0; "$0" <&3)`:    `"z" <nil>`,
		`mkfifo p; printf q > p & "$0" < ./p`: `"q" <nil>`,
	} {
		cmd := helper("read")
		cmd.Path, cmd.Args = shell, []string{"sh", "-c", redirection, os.Args[0]}
		cmd.Dir = t.TempDir()
		said, err := cmd.CombinedOutput()
		if got := strings.TrimSuffix(string(said), "\n"); got != want || err != nil {
			t.Errorf("with %s the program reads %s, %v; want %s", redirection, got, err, want)
		}
	}
}

// helpRead says what its standard input holds.
func helpRead() error {
	got, err := io.ReadAll(NewReader(os.Stdin))
	fmt.Printf("%q %v\n", got, err)
	return nil
}
