//go:build unix

package events

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helperSpec makes this test binary a program that writes its events there.
const helperSpec = "SSMSESSION_EVENTS_TEST_SPEC"

func TestMain(m *testing.M) {
	spec, ok := os.LookupEnv(helperSpec)
	if !ok {
		os.Exit(m.Run())
	}
	if err := helper(spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// helper writes two events.
func helper(spec string) error {
	w, err := Open(spec)
	if err != nil {
		return err
	}
	w.Emit(numbered(1))
	w.Emit(numbered(2))
	if err := w.Close(); err != nil {
		return err
	}
	_, err = fmt.Println("helper done")
	return err
}

// fifo makes a FIFO.
func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// reader opens a FIFO that has a writer.
func reader(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return f
}

// handed gives a pipe whose writing end has a number as if it was inherited.
func handed(t *testing.T) (r *os.File, n int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	if n, err = unix.Dup(int(w.Fd())); err != nil { // dup clears FD_CLOEXEC
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return r, n
}

func isOpen(n int) bool {
	_, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
	return err == nil
}

func TestAFIFOWithoutAReaderIsOpenedAtOnce(t *testing.T) {
	path := fifo(t)
	w := mustOpen(t, path) // would hang here
	w.Emit(numbered(1))
	r := reader(t, path)
	w.Emit(numbered(2))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, r); len(got) != 2 || got[0].Attempt != 1 || got[1].Attempt != 2 {
		t.Errorf("a reader that comes later gets %v, want both events and the end", got)
	}
}

func TestReadersOfAFIFOMayComeAndGo(t *testing.T) {
	path := fifo(t)
	w := mustOpen(t, path)
	if err := reader(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	w.Emit(numbered(1))
	r := reader(t, path)
	if err := w.Close(); err != nil {
		t.Errorf("Close returns %v, want nil: one reader went, another came", err)
	}
	if got := lines(t, r); len(got) != 1 {
		t.Errorf("the second reader gets %v, want the event", got)
	}
}

func TestAFIFOThatNobodyReadsDelaysTheEndByASecond(t *testing.T) {
	w := mustOpen(t, fifo(t))
	for n := range 4 * queueLength { // far more than a pipe and the queue hold
		w.Emit(Error{Message: strings.Repeat("x", maxText), Code: fmt.Sprint(n)})
	}
	begin := time.Now()
	if err := w.Close(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Close returns %v, want a missed deadline", err)
	}
	if d := time.Since(begin); d < closeGrace || d > 5*closeGrace {
		t.Errorf("Close took %v, want about %v", d, closeGrace)
	}
}

func TestAFIFOThatMayOnlyBeWrittenTo(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	path := fifo(t)
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o200); err != nil {
		t.Fatal(err)
	}
	w := mustOpen(t, path)
	w.Emit(numbered(1))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, r); len(got) != 1 {
		t.Errorf("its reader gets %v, want the event", got)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "nobody reads it") {
		t.Errorf("without a reader it gives %v, want that nobody reads it", err)
	}
}

func TestAnInheritedDescriptor(t *testing.T) {
	for _, form := range []string{"fd:%d", "/dev/fd/%d"} {
		r, n := handed(t)
		w := mustOpen(t, fmt.Sprintf(form, n))
		if flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("the descriptor's flags are %#x (%v), want that children do not get it", flags, err)
		}
		w.Emit(numbered(1))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if isOpen(n) {
			t.Error("the descriptor is open after Close")
		}
		if got := lines(t, r); len(got) != 1 {
			t.Errorf("the reader gets %v, want the event and the end", got)
		}
	}
}

func TestAnInheritedDescriptorInAChild(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), helperSpec+"=fd:3")
	cmd.ExtraFiles = []*os.File{w}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the helper ended with %v: %s", err, out)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, r); len(got) != 2 || string(out) != "helper done\n" {
		t.Errorf("the reader of fd 3 gets %v, and of stdout %q", got, out)
	}
}

// Go's runtime opens descriptors of its own from 3 on: none of them may pass
// for one that was handed over.
func TestADescriptorThatWasNotInherited(t *testing.T) {
	for n := 3; n < 20; n++ {
		if flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			continue // whoever runs the tests handed it to them, and they to the helper
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=fd:%d", helperSpec, n))
		out, err := cmd.CombinedOutput()
		want := fmt.Sprintf("cannot write events: the program was started without a descriptor %d\n", n)
		if err == nil || string(out) != want {
			t.Errorf("the helper ended with %v and says %q, want %q", err, out, want)
		}
	}
}

func TestADescriptorThatCannotBeWrittenTo(t *testing.T) {
	r, n := handed(t)
	defer unix.Close(n)
	reading, err := unix.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(reading)
	want := fmt.Sprintf("cannot write events: descriptor %d is open for reading only", reading)
	if _, err := Open(fmt.Sprintf("fd:%d", reading)); err == nil || err.Error() != want {
		t.Errorf("it gives %v, want %s", err, want)
	}
}

func TestStdoutAndStderrStayOpen(t *testing.T) {
	for spec, n := range map[string]int{"fd:1": 1, "fd:2": 2, "/dev/stdout": 1, "/dev/stderr": 2} {
		if err := mustOpen(t, spec).Close(); err != nil {
			t.Errorf("Close of %s returns %v, want nil", spec, err)
		}
		if !isOpen(n) {
			t.Fatalf("descriptor %d is closed by the Close of %s", n, spec)
		}
	}
}

// The mode is a property of the open file, which others share: a shell's
// terminal would give them EAGAIN.
func TestABlockingDescriptorIsLeftBlocking(t *testing.T) {
	_, n := handed(t)
	other, err := unix.Dup(n)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	w := mustOpen(t, fmt.Sprintf("fd:%d", n))
	w.Emit(numbered(1))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(other), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("the flags are %#x (%v), want no O_NONBLOCK", flags, err)
	}
}

func TestAReaderThatHasGone(t *testing.T) {
	for name, nonBlocking := range map[string]bool{"blocking": false, "non-blocking": true} {
		t.Run(name, func(t *testing.T) {
			r, n := handed(t)
			if err := unix.SetNonblock(n, nonBlocking); err != nil {
				t.Fatal(err)
			}
			w := mustOpen(t, fmt.Sprintf("fd:%d", n))
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			for i := range 3 * queueLength {
				w.Emit(numbered(i))
			}
			want := fmt.Sprintf("cannot write events: write fd:%d: broken pipe", n)
			if err := w.Close(); !errors.Is(err, unix.EPIPE) || err.Error() != want {
				t.Errorf("Close returns %v, want %s", err, want)
			}
		})
	}
}

// An inherited pipe that is full blocks its write for good; the end comes all
// the same, and with the reader's the write's.
func TestAnInheritedPipeThatIsFull(t *testing.T) {
	r, n := handed(t)
	w := mustOpen(t, fmt.Sprintf("fd:%d", n))
	for range queueLength {
		w.Emit(Error{Message: strings.Repeat("x", maxText)})
	}
	if err := w.Close(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Close returns %v, want a missed deadline", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	<-w.done
}
