package main

import (
	"os"
	"syscall"
)

// endingSignals end a session in order. Windows delivers SIGTERM when a console
// closes.
func endingSignals() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM} }

// catchBrokenPipes has nothing to do: a write to a closed pipe only fails here.
func catchBrokenPipes() (stop func()) { return func() {} }

// dieOf returns: a process here cannot die of a signal.
func dieOf(os.Signal) {}
