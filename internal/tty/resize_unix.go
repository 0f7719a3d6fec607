//go:build unix

package tty

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Resized sends a value when the terminal's size may have changed. Values not
// yet taken become one: who takes one asks Size. The channel is closed once
// ctx is over and nothing here runs any more.
//
// SIGCONT counts too: a process that is stopped or in the background is not
// told of changes.
func (t *Terminal) Resized(ctx context.Context) <-chan struct{} {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGWINCH, unix.SIGCONT)
	resized := make(chan struct{}, 1)
	go func() {
		defer close(resized)
		defer signal.Stop(signals)
		for {
			select {
			case <-ctx.Done():
				return
			case <-signals:
				select {
				case resized <- struct{}{}:
				default: // one is waiting already
				}
			}
		}
	}()
	return resized
}
