//go:build unix

package tty

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestShowOnATerminal draws on a real one.
func TestShowOnATerminal(t *testing.T) {
	master, slave, _ := rawPty(t)
	s := NewStatusLine(NewWriter(slave), func() (int, int, error) { return 40, 6, nil })
	e := newScreen(40, 6)
	writeAll(t, s, "output")
	s.Show(notice)
	copyUntil(t, e, master, "p\x1b8") // of "up"
	if got := e.row(0) + "/" + e.row(5); got != "output/"+notice {
		t.Errorf("the terminal shows %q", got)
	}
	writeAll(t, s, " goes on")
	copyUntil(t, e, master, "goes on")
	if got := e.row(0) + "/" + e.row(5); got != "output goes on/" {
		t.Errorf("after more output the terminal shows %q", got)
	}
}

// copyUntil shows what comes from the terminal until it ends with a text.
func copyUntil(t *testing.T, e screen, master io.Reader, end string) {
	t.Helper()
	var got []byte
	for !bytes.HasSuffix(got, []byte(end)) {
		p := make([]byte, 4096)
		n, err := master.Read(p)
		if err != nil {
			t.Fatalf("cannot read the terminal: %v", err)
		}
		got = append(got, p[:n]...)
	}
	e.print(string(got))
}

// TestShowDoesNotWaitForAFullTerminal stops reading the terminal. A pipe does as
// well, and tells earlier that it is full.
func TestShowDoesNotWaitForAFullTerminal(t *testing.T) {
	for _, kind := range []string{"terminal", "pipe"} {
		t.Run(kind, func(t *testing.T) {
			var far io.Reader
			var near *os.File
			var setNonblock func(bool)
			if kind == "terminal" {
				far, near, setNonblock = rawPty(t)
			} else {
				far, near, _, setNonblock = pipe(t)
			}
			out := NewWriter(near).(*fileWriter)
			s := NewStatusLine(out, func() (int, int, error) { return 40, 6, nil })
			if out.full() {
				t.Fatal("it is full with nothing in it")
			}
			setNonblock(true)
			n := fill(t, near)
			setNonblock(false)
			if !out.full() {
				if runtime.GOOS != "linux" {
					t.Skip("this system does not tell that it is full")
				}
				t.Fatal("it is not full, though it takes nothing")
			}
			s.Show(notice) // would wait for ever
			got := make([]byte, n)
			if _, err := io.ReadFull(far, got); err != nil {
				t.Fatal(err)
			}
			s.Show("short")
			p := make([]byte, 4096)
			m, err := far.Read(p)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(p[:m], []byte("\x1b7")) || bytes.Contains(p[:m], []byte("c")) {
				t.Errorf("once there is room there comes %q, want the second line alone", p[:m])
			}
		})
	}
}

// fill writes until there is no room, and returns how much.
func fill(t *testing.T, f *os.File) int {
	t.Helper()
	total := 0
	for size := 1024; ; {
		n, err := f.Write(make([]byte, size))
		total += n
		switch {
		case err == nil:
		case !errors.Is(err, unix.EAGAIN):
			t.Fatal(err)
		case size == 1:
			return total
		default:
			size = 1 // the rest byte by byte
		}
	}
}
