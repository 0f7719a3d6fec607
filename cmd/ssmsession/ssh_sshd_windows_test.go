package main

import "github.com/rogpeppe/go-internal/testscript"

// sshCommands has none: there is no sshd to be started for one connection here.
func sshCommands() map[string]func(*testscript.TestScript, bool, []string) { return nil }
