package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signalError is the cause of a context that a signal ended.
type signalError struct{ signal os.Signal }

func (s *signalError) Error() string { return "stopped by " + s.signal.String() }

// withSignals gives a context that ends, with a *signalError as its cause, when
// this process is asked to stop. Interrupts that passed takes do not count. stop
// waits for its goroutine.
func withSignals(parent context.Context, passed *interrupts) (ctx context.Context, stop func()) {
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
		for {
			select {
			case s := <-signals:
				if s == os.Interrupt && passed.take() {
					continue
				}
				cancel(&signalError{s})
			case <-ctx.Done():
			}
			return
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		stopPipes()
		cancel(nil)
		<-done
	}
}

// heedForChildren lets programs that are started from now on have the interrupts and
// hangups that this one ignores, because a shell's & or nohup has told it to. A child
// inherits that, and what it inherits no shell can trap; but the commands of an agent
// have it not. Here they still do nothing. stop sets it back.
func heedForChildren() (stop func()) {
	unread := make(chan os.Signal, 1)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGHUP} {
		if signal.Ignored(s) {
			signal.Notify(unread, s)
		}
	}
	return func() { signal.Stop(unread) }
}

// interrupts are passed to whoever can do something with them, instead of ending
// this program.
type interrupts struct {
	mu sync.Mutex
	to func() bool
}

// passTo gives interrupts to a function from now on until release is called. It
// must return at once, and tells whether it has taken one.
func (i *interrupts) passTo(to func() bool) (release func()) {
	set := func(to func() bool) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.to = to
	}
	set(to)
	return func() { set(nil) }
}

func (i *interrupts) take() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.to != nil && i.to()
}
