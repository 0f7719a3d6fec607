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

// collector is the garbage collector of a process, which may rest while all of
// its sessions are idle.
type collector struct {
	mu       sync.Mutex // guards what follows
	sessions int
	idle     int  // of them
	percent  int  // the collector's setting while it works
	resting  bool // it does not
}

// change notes more or fewer sessions, and more or fewer of them idle.
func (c *collector) change(sessions, idle int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions += sessions
	c.idle += idle
	rest := c.idle > 0 && c.idle == c.sessions
	switch {
	case rest && !c.resting:
		c.percent = debug.SetGCPercent(-1)
	case !rest && c.resting:
		debug.SetGCPercent(c.percent)
	}
	c.resting = rest
}

// idler is a Peer that puts the garbage collector to rest while nothing passes.
// The runtime otherwise collects every two minutes, needed or not, and that is
// most of what an open session would cost that nobody uses.
type idler struct {
	session.Peer
	timer     *time.Timer
	collector *collector

	mu   sync.Mutex // guards what follows
	idle bool
	over bool
}

// newIdler wraps p until stop is called. Sessions of one process share c; it is
// nil for a session alone.
func newIdler(p session.Peer, c *collector) (i *idler, stop func()) {
	if c == nil {
		c = &collector{}
	}
	i = &idler{Peer: p, collector: c}
	c.change(1, 0)
	i.timer = time.AfterFunc(idleAfter, i.rest)
	return i, func() {
		i.timer.Stop()
		i.wake(true)
		c.change(-1, 0)
	}
}

// Sent and Settled pass on what the data channel tells of itself.
func (i *idler) Sent() int64 {
	p, ok := i.Peer.(interface{ Sent() int64 })
	if !ok {
		return 0
	}
	return p.Sent()
}

// Settled is as Sent.
func (i *idler) Settled(mark int64) bool {
	p, ok := i.Peer.(interface{ Settled(mark int64) bool })
	return !ok || p.Settled(mark)
}

// Ending passes on the word that nothing more will come.
func (i *idler) Ending() <-chan struct{} {
	p, ok := i.Peer.(interface{ Ending() <-chan struct{} })
	if !ok {
		return nil
	}
	return p.Ending()
}

// Alive passes on the question whether the connection works.
func (i *idler) Alive(ctx context.Context) error {
	p, ok := i.Peer.(interface{ Alive(context.Context) error })
	if !ok {
		return nil
	}
	return p.Alive(ctx)
}

func (i *idler) rest() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.idle && !i.over {
		i.idle = true
		i.collector.change(0, 1)
	}
}

func (i *idler) wake(over bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.over = i.over || over
	if i.idle {
		i.idle = false
		i.collector.change(0, -1)
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
