package main

import (
	"context"
	"os"
)

// readerLeaves waits until the input has ended: a pipe here cannot be asked for its
// reader, and ssh closes both ends together. It tells false when ctx ended sooner.
func readerLeaves(ctx context.Context, _ *os.File, inputEnded <-chan struct{}) bool {
	select {
	case <-inputEnded:
		return true
	case <-ctx.Done():
		return false
	}
}
