package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// idleAfter is how long nothing must pass before a session counts as idle.
const idleAfter = 30 * time.Second

// oneProcessor keeps the runtime from waking a second thread for each of the
// few goroutines that one event wakes. A session's work is carrying bytes from
// hand to hand: on one processor it is as fast (make bench, -cpu 1,2), for less.
// A user's GOMAXPROCS holds.
func oneProcessor(e *env) {
	if e.getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}

// idler is a Peer that puts the garbage collector to rest while nothing passes.
// The runtime otherwise collects every two minutes, needed or not, and that is
// most of what an open session would cost that nobody uses.
type idler struct {
	session.Peer
	timer *time.Timer

	mu      sync.Mutex // guards what follows
	percent int        // the collector's setting while it works
	resting bool
	over    bool
}

// newIdler wraps p until stop is called.
func newIdler(p session.Peer) (i *idler, stop func()) {
	i = &idler{Peer: p}
	i.timer = time.AfterFunc(idleAfter, i.rest)
	return i, func() {
		i.timer.Stop()
		i.wake(true)
	}
}

func (i *idler) rest() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.resting && !i.over {
		i.percent = debug.SetGCPercent(-1)
		i.resting = true
	}
}

func (i *idler) wake(over bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.over = i.over || over
	if i.resting {
		debug.SetGCPercent(i.percent)
		i.resting = false
	}
}

// active notes that something passes.
func (i *idler) active() {
	i.wake(false)
	i.timer.Reset(idleAfter)
}

// Send implements session.Peer.
func (i *idler) Send(ctx context.Context, t frame.PayloadType, p []byte) error {
	i.active()
	return i.Peer.Send(ctx, t, p)
}

// Recv implements session.Peer.
func (i *idler) Recv(ctx context.Context) (frame.PayloadType, []byte, error) {
	t, p, err := i.Peer.Recv(ctx)
	i.active()
	return t, p, err
}
