//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// holdsBytes tells that a pipe has something to read. It waits for nothing.
func holdsBytes(pipe *os.File) bool {
	conn, err := pipe.SyscallConn()
	if err != nil {
		return false
	}
	holds := false
	err = conn.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, pollErr := unix.Poll(fds, 0)
		holds = pollErr == nil && n > 0 && fds[0].Revents&unix.POLLIN != 0
	})
	return err == nil && holds
}
