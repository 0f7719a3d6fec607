package main

import (
	"context"
	"os"
	"os/signal"
)

// signalError is the cause of a context that a signal ended.
type signalError struct{ signal os.Signal }

func (s *signalError) Error() string { return "stopped by " + s.signal.String() }

// withSignals gives a context that ends, with a *signalError as its cause, when
// this process is asked to stop. stop waits for its goroutine.
func withSignals(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	for _, s := range endingSignals() {
		// What nohup (SIGHUP) or a shell's & (SIGINT) has set to be ignored
		// stays so. Go knows it of no other signal.
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	stopPipes := catchBrokenPipes()
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case s := <-signals:
			cancel(&signalError{s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		stopPipes()
		cancel(nil)
		<-done
	}
}
