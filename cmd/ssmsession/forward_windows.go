package main

import (
	"context"
	"errors"
	"os"
)

// isQuit has nothing to tell: there is no such signal.
func isQuit(os.Signal) bool { return false }

// inFront tells that a command gets the console's signals itself, as all of its
// programs do. Others cannot be sent.
func inFront(...*os.File) bool { return true }

// leads tells whether this process is to start the one in the background.
func (c *forwardCommand) leads() bool { return c.background }

// goToBackground refuses.
func (c *forwardCommand) goToBackground(context.Context) error {
	return &failure{code: "NotSupported", err: errors.New("-f does not work on Windows, where no program can leave its console"),
		hint: "start it by another one:  Start-Process ssmsession -WindowStyle Hidden -ArgumentList …"}
}

// detach has nothing to do.
func (c *forwardCommand) detach() error { return nil }
