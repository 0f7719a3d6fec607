package main

import "os"

// signalKeys are the signals of keys, and the keys: Windows has Ctrl-C, and
// Ctrl-Break that Go gives as the same.
func signalKeys() map[os.Signal]signalKey {
	return map[os.Signal]signalKey{os.Interrupt: {char: 0x03, ends: true}}
}
