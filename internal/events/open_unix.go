//go:build unix

package events

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openFile never waits for somebody: O_NONBLOCK in the last open is for a FIFO
// that has taken the place of a file since the look at it.
func openFile(name string) (*os.File, error) {
	info, err := os.Stat(name)
	switch {
	case err == nil && info.Mode()&fs.ModeNamedPipe != 0:
		return openFIFO(name)
	case err == nil && !info.Mode().IsRegular():
		return os.OpenFile(name, os.O_WRONLY|unix.O_NOCTTY, 0)
	default:
		return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NONBLOCK, 0o600)
	}
}

// openFIFO opens for both directions, though nothing is read: that neither
// waits for a reader nor fails without one, lines wait in the pipe for one that
// comes later, and one that goes is no EPIPE. POSIX leaves it open what happens
// then; Linux and macOS do as said. Who may only write gets that, and needs a
// reader that is there.
func openFIFO(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if !errors.Is(err, fs.ErrPermission) {
		return f, err
	}
	// Not by os.OpenFile, which has no poller for a FIFO on macOS and would
	// give EAGAIN for a full pipe; os.NewFile has.
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("%s may only be written to, and nobody reads it", name)
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// inherited takes over descriptor n. One that closes on exec cannot have been
// inherited: it was opened by this process, such as those that Go's runtime
// waits with, and a line written there would do harm.
func inherited(n int) (*os.File, error) {
	flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC != 0 {
		return nil, fmt.Errorf("the program was started without a descriptor %d", n)
	}
	mode, err := unix.FcntlInt(uintptr(n), unix.F_GETFL, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot use descriptor %d: %w", n, err)
	}
	if mode&unix.O_ACCMODE == unix.O_RDONLY {
		return nil, fmt.Errorf("descriptor %d is open for reading only", n)
	}
	own := n
	if n <= 2 {
		// Stdout and stderr have other users, who outlive the Writer.
		if own, err = unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			return nil, fmt.Errorf("cannot duplicate descriptor %d: %w", n, err)
		}
	}
	// Else a child process would keep a pipe open that the reader waits for
	// the end of.
	unix.CloseOnExec(own)
	return os.NewFile(uintptr(own), fmt.Sprintf("fd:%d", n)), nil
}
