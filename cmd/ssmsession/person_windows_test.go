package main

import "github.com/rogpeppe/go-internal/testscript"

// Windows has no ptys and no signals to test with: scripts that need them skip
// it.

func roles() map[string]func() { return nil }

func timed(argv []string) []string { return argv }

func terminalCommands() map[string]func(*testscript.TestScript, bool, []string) { return nil }
