//go:build unix

package tty

import "golang.org/x/sys/unix"

// full reports whether a write would have to wait, as far as the system tells:
// of a terminal it says only that there is room, not how much. A file that poll
// refuses, /dev/tty on macOS, is never full.
func (w *fileWriter) full() bool {
	full := false
	err := control(w.f, func(fd int) error {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(fds, 0)
		full = n == 0 && err == nil
		return err
	})
	return err == nil && full
}
