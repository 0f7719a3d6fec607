package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// killGrace is how long a killed command's last words are waited for.
const killGrace = time.Second

// timeoutError is a command that had no end in its time.
type timeoutError struct {
	limit time.Duration
	early bool // it had not begun
}

func (t *timeoutError) Error() string {
	if t.early {
		return fmt.Sprintf("the command had not begun after %s", t.limit)
	}
	return fmt.Sprintf("the command had not ended after %s", t.limit)
}

// reins stop a running command.
type reins struct {
	interrupt, kill chan struct{}           // what the session takes, with room for one
	kills           bool                    // the session takes a kill, and goes on
	end             context.CancelCauseFunc // ends the session on this side
	interrupted     atomic.Bool
}

func newReins(kills bool, end context.CancelCauseFunc) *reins {
	return &reins{interrupt: make(chan struct{}, 1), kill: make(chan struct{}, 1), kills: kills, end: end}
}

// pull interrupts the command, once: an agent takes no second interrupt. It
// tells whether it did.
func (r *reins) pull() bool {
	if r.interrupted.Swap(true) {
		return false
	}
	r.interrupt <- struct{}{}
	return true
}

// timeLimit is --timeout: it ends what has not begun, and stops what has.
type timeLimit struct {
	limit, grace time.Duration
	over         chan struct{} // closed when the time is over; nil for no limit
	watched      atomic.Bool   // the command has begun, and watch looks after it
	hit          atomic.Bool
}

// begin starts the clock; 0 is no limit. The context ends, with a *timeoutError
// as its cause, if the time is over before there is something to stop.
func (t *timeLimit) begin(ctx context.Context, limit, grace time.Duration) (context.Context, func()) {
	if limit == 0 {
		return ctx, func() {}
	}
	t.limit, t.grace, t.over = limit, grace, make(chan struct{})
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() {
		close(t.over)
		if !t.watched.Load() {
			cancel(&timeoutError{limit: limit, early: true})
		}
	})
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}

// watch stops a running command when its time is over: by an interrupt, by a kill
// where that is possible, and by the end of the session. It returns when ctx ends.
func (t *timeLimit) watch(ctx context.Context, r *reins) {
	t.watched.Store(true)
	defer t.watched.Store(false)
	select {
	case <-t.over:
	case <-ctx.Done():
		return
	}
	t.hit.Store(true)
	r.pull()
	if !wait(ctx, t.grace) {
		return
	}
	if r.kills {
		r.kill <- struct{}{} // has room
		if !wait(ctx, killGrace) {
			return
		}
	}
	r.end(&timeoutError{limit: t.limit})
}

// wait tells whether d has passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// result turns how a command ended into how it counts: one that was stopped has
// not ended in time, whatever its status. A signal to us goes before.
func (t *timeLimit) result(err error) error {
	if stopped := (*signalError)(nil); !t.hit.Load() || errors.As(err, &stopped) {
		return err
	}
	if timeout := (*timeoutError)(nil); errors.As(err, &timeout) {
		return err // and what failed on the way out
	}
	return &timeoutError{limit: t.limit}
}
