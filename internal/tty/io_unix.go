//go:build unix

package tty

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// errNotOpen is what the system says of a descriptor that is not open for what
// is asked of it.
const errNotOpen = unix.EBADF

// console is for Windows; here a terminal is a file.
func console(*os.File) func([]uint16) (int, error) { return nil }

// fileReader is NewReader's. The reads are os.File's own, so that deadlines and
// Close work where they do.
type fileReader struct {
	f        *os.File
	terminal bool
}

func newFileReader(f *os.File) io.Reader { return &fileReader{f: f, terminal: isTerminal(f)} }

func (r *fileReader) Read(p []byte) (int, error) {
	for {
		n, err := r.f.Read(p)
		switch {
		case errors.Is(err, unix.EAGAIN):
			if err := wait(r.f, unix.POLLIN); err != nil {
				return 0, fmt.Errorf("cannot wait for input: %w", err)
			}
		case r.terminal && errors.Is(err, unix.EIO):
			return n, io.EOF
		default:
			return n, readError(err)
		}
	}
}

// fileWriter is NewWriter's. The writes are os.File's own, so that SIGPIPE is
// raised where it should be.
type fileWriter struct {
	f *os.File
}

func newFileWriter(f *os.File) io.Writer { return &fileWriter{f: f} }

func (w *fileWriter) Write(p []byte) (int, error) {
	n := 0
	for {
		m, err := w.f.Write(p[n:])
		n += m
		if !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
		if err := wait(w.f, unix.POLLOUT); err != nil {
			return n, fmt.Errorf("cannot wait to write: %w", err)
		}
	}
}

// wait returns once f may be ready for the event, POLLIN or POLLOUT, or has an
// error to tell, which the next read or write then finds.
func wait(f *os.File, event int16) error {
	return control(f, func(fd int) error {
		for {
			fds := []unix.PollFd{{Fd: int32(fd), Events: event}}
			_, err := unix.Poll(fds, -1)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err == nil && fds[0].Revents&unix.POLLNVAL != 0 {
				return selectReady(fd, event)
			}
			return os.NewSyscallError("poll", err)
		}
	})
}

// selectReady is wait for what poll refuses. The descriptor is open, for control
// holds it; so this is macOS, whose poll does not know /dev/tty.
func selectReady(fd int, event int16) error {
	if fd >= unix.FD_SETSIZE {
		return os.NewSyscallError("select", unix.EINVAL)
	}
	for {
		var set, none unix.FdSet
		set.Set(fd)
		readable, writable := &set, &none
		if event == unix.POLLOUT {
			readable, writable = &none, &set
		}
		_, err := unix.Select(fd+1, readable, writable, nil, nil)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("select", err)
		}
	}
}
