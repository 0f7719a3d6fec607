// Package tty is what we know of the user's terminal: raw mode and the way
// back, its size and the changes of it, how its files are read and written, and
// the escapes typed at it. It alone imports golang.org/x/term. It knows nothing
// of sessions or the wire, and reads and writes only when the caller does.
//
// Two goroutines can run here. The one of Raw watches for the process being
// continued and ends inside restore, which waits for it; the one of Resized
// ends with its context and closes its channel.
package tty

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/term"
)

// Terminal is a pair of files that may or may not be a terminal's. It owns
// neither and never closes them.
type Terminal struct {
	in, out *os.File
}

// New looks at nothing yet: what the files are is asked by each method.
func New(in, out *os.File) *Terminal { return &Terminal{in: in, out: out} }

// ErrNotTerminal is returned where a terminal is needed and there is none.
var ErrNotTerminal = errors.New("not a terminal")

// errNoSize is for terminals whose size nobody has set, such as a fresh pty's.
var errNoSize = errors.New("the terminal has no size")

// InIsTerminal reports whether the input is a terminal.
func (t *Terminal) InIsTerminal() bool { return isTerminal(t.in) }

// OutIsTerminal reports whether the output is a terminal.
func (t *Terminal) OutIsTerminal() bool { return isTerminal(t.out) }

// Raw makes the terminal pass every key on unread: no echo, no lines, no
// signals, no translation. When the input is no terminal it changes nothing and
// returns ErrNotTerminal.
//
// restore gives back the settings that Raw found. It acts once, whichever
// goroutine comes first; the others wait for it and get the same result. Call
// it on every way out. Raw is not to be called again before.
//
// A panic is a way out, too, and runs the deferred calls of its own goroutine
// and no other. So every goroutine that runs while the terminal is raw turns its
// panic into an error of the one that will call restore (internal/crash). Out of
// reach are the goroutines of libraries, and the runtime's own fatal errors (out
// of memory, concurrent map writes), which run no deferred calls.
func (t *Terminal) Raw() (restore func() error, err error) {
	if !t.InIsTerminal() {
		return nil, ErrNotTerminal
	}
	undo, err := t.raw()
	if err != nil {
		return nil, fmt.Errorf("cannot make the terminal raw: %w", err)
	}
	return sync.OnceValue(func() error {
		if err := undo(); err != nil {
			return fmt.Errorf("cannot restore the terminal: %w", err)
		}
		return nil
	}), nil
}

// Size returns the columns and rows of the output, or of the input when the
// output is no terminal. Both are above zero or there is an error: a size that
// nobody knows is not invented (docs/protocol.md, terminal behaviour, tells of
// a client that sends 300 by 100).
func (t *Terminal) Size() (cols, rows int, err error) {
	err = ErrNotTerminal
	for _, f := range []*os.File{t.out, t.in} {
		if !isTerminal(f) {
			continue
		}
		cols, rows, sizeErr := sizeOf(f)
		if sizeErr == nil {
			return cols, rows, nil
		}
		err = sizeErr
	}
	return 0, 0, err
}

func sizeOf(f *os.File) (cols, rows int, err error) {
	err = control(f, func(fd int) (err error) {
		cols, rows, err = term.GetSize(fd)
		return err
	})
	if err == nil && (cols <= 0 || rows <= 0) {
		err = errNoSize
	}
	return cols, rows, err
}

func isTerminal(f *os.File) bool {
	var is bool
	err := control(f, func(fd int) error {
		is = term.IsTerminal(fd)
		return nil
	})
	return err == nil && is
}

// control calls fn with the descriptor of f. It goes through SyscallConn and
// not Fd, which makes a file that package os opened blocking: its reads could
// then not be ended by a deadline or by Close.
func control(f *os.File, fn func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}
