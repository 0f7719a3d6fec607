package main

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// endingSignals end a session in order. Windows delivers SIGTERM when a console
// closes.
func endingSignals() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM} }

// catchBrokenPipes has nothing to do: a write to a closed pipe only fails here.
func catchBrokenPipes() (stop func()) { return func() {} }

// isBrokenPipe tells that a write has failed for want of a reader. The system has no
// EPIPE, which is this program's own word here.
func isBrokenPipe(err error) bool {
	return errors.Is(err, windows.ERROR_NO_DATA) || errors.Is(err, windows.ERROR_BROKEN_PIPE) || errors.Is(err, syscall.EPIPE)
}

// dieOf returns: a process here cannot die of a signal.
func dieOf(os.Signal) {}
