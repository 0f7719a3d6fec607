//go:build unix

package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// isQuit tells the other signal that a key sends.
func isQuit(s os.Signal) bool { return s == syscall.SIGQUIT }

// inFront tells whether this program's process group is the one that the keys of
// its terminal are for.
func inFront(files ...*os.File) bool {
	group := unix.Getpgrp()
	for _, f := range files {
		conn, err := f.SyscallConn()
		if err != nil {
			continue // it is closed
		}
		front := 0
		err = conn.Control(func(fd uintptr) {
			// No terminal is in front of nobody.
			front, _ = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP)
		})
		if err == nil && front == group {
			return true
		}
	}
	return false
}
