//go:build unix

package main

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// readerLeaves waits until nobody reads out any more: the other end of a pipe or a
// socket, or a terminal. It tells false when ctx ended sooner. A file is always
// read.
func readerLeaves(ctx context.Context, out *os.File, _ <-chan struct{}) bool {
	stop, wake, err := os.Pipe()
	if err != nil {
		return false // a write will tell
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { _ = wake.Close() }) // wakes whoever polls
	defer func() { _ = stop.Close() }()                 // nothing was written
	conn, err := out.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = conn.Control(func(fd uintptr) {
		// macOS tells of a hangup only who asks for it.
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLHUP}, {Fd: int32(stop.Fd()), Events: unix.POLLIN}}
		for {
			_, err := unix.Poll(fds, -1)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			gone = err == nil && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
			return
		}
	})
	return err == nil && gone
}
