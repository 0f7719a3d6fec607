//go:build unix

package main

import (
	"os"
	"syscall"
)

// become puts a program in this process's place. It returns when it cannot.
func become(argv []string) error { return syscall.Exec(argv[0], argv, os.Environ()) }
