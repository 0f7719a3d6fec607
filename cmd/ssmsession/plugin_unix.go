//go:build unix

package main

import (
	"os"
	"syscall"
)

// signalKeys are the signals of keys, and the keys (docs/protocol.md, terminal
// behaviour). Nothing that has not begun can be stopped: SIGTSTP does nothing then.
func signalKeys() map[os.Signal]signalKey {
	return map[os.Signal]signalKey{
		syscall.SIGINT:  {char: 0x03, ends: true},
		syscall.SIGQUIT: {char: 0x1c, ends: true},
		syscall.SIGTSTP: {char: 0x1a},
	}
}
