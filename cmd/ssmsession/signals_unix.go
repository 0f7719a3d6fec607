//go:build unix

package main

import (
	"os"
	"syscall"
)

// endingSignals end a session in order: its terminal is restored and the
// service is told. SIGPIPE is among them because Go would otherwise die of a
// closed stdout on the spot.
func endingSignals() []os.Signal {
	return []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE}
}
