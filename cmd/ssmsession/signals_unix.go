//go:build unix

package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// endingSignals end a session in order: its terminal is restored and the
// service is told.
func endingSignals() []os.Signal {
	return []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}
}

// catchBrokenPipes keeps Go from dying on the spot of a closed stdout: the write
// fails instead, and the session ends in order. The signal itself is of no use.
// It comes for a lost connection or a reader of events that went away as well.
// To ignore it would be simpler, but programs that are started would inherit
// that.
func catchBrokenPipes() (stop func()) {
	unread := make(chan os.Signal, 1)
	signal.Notify(unread, syscall.SIGPIPE)
	return func() { signal.Stop(unread) }
}

// dieOf ends the process by the signal that ended the session, so that whoever
// started it sees that. It returns where that is impossible.
func dieOf(s os.Signal) {
	signal.Reset(s)
	switch s {
	case syscall.SIGQUIT:
		// Go would print the stacks of all goroutines.
	case syscall.SIGPIPE:
		// Go lets it do nothing, but for a write to a closed stdout or stderr.
		for _, f := range []*os.File{os.Stdout, os.Stderr} {
			if readerGone(f) {
				_, _ = f.WriteString("\n") // is the end
			}
		}
	default:
		if err := syscall.Kill(os.Getpid(), s.(syscall.Signal)); err == nil {
			<-time.After(time.Second) // it is on its way
		}
	}
}

// isBrokenPipe tells that a write has failed for want of a reader.
func isBrokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }

// readerGone tells whether f is a pipe that nobody reads any more.
func readerGone(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = conn.Control(func(fd uintptr) {
		// On macOS it is a hangup, and told only to who asks for it.
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLHUP}}
		n, pollErr := unix.Poll(fds, 0)
		gone = pollErr == nil && n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
	})
	return err == nil && gone
}
