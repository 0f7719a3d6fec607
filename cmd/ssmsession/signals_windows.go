package main

import (
	"os"
	"syscall"
)

// endingSignals end a session in order. Windows delivers SIGTERM when a console
// closes.
func endingSignals() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM} }
