package main

import "github.com/rogpeppe/go-internal/testscript"

// Windows has no ptys to test with: scripts that need one skip it.

func leader() {}

func terminalCommands() map[string]func(*testscript.TestScript, bool, []string) { return nil }
