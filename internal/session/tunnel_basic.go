package session

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// earlyLimit is what a destination may say, in bytes, while there is no local
// connection to take it.
const earlyLimit = 64 << 10

// leftover is how long a destination has to be silent after a disconnect that is
// acknowledged, when it was cut off: what was on its way is not for the next
// connection. No word of the protocol tells that it has all come: an agent reads the
// destination beside what it acknowledges, and a piece that it had just read may
// follow.
const leftover = 250 * time.Millisecond

// basicRun is a session of one stream, for one connection after another. The
// agent connects to the destination when the session starts, and after a
// disconnect at the next byte it is sent; it does not tell when the destination
// ends (docs/protocol.md, "Basic port forwarding").
type basicRun struct {
	Tunnel
	peer  Peer
	spare buffers
	// stale tells that what comes is still the last connection's: the agent has
	// not been sent a byte of a new one.
	stale atomic.Bool
	// ending is closed once nothing more will come; nil for a Peer that cannot tell.
	ending <-chan struct{}
	taken  atomic.Int64    // messages
	conns  context.Context // its end, before that of the session or with it, is that of every connection

	mu       sync.Mutex // guards what follows, and is held while current is written to
	current  *flow
	attached chan struct{}           // closed while there is a current
	refuse   context.CancelCauseFunc // of current
	gone     context.CancelFunc      // tells that its program takes nothing any more
	early    []byte                  // at most earlyLimit
	dropped  bool                    // what came before the end was for nobody
}

// runBasic runs a session of one stream; over tells that the far side ended it.
func (t Tunnel) runBasic(ctx context.Context, peer Peer) (over bool, err error) {
	r := &basicRun{Tunnel: t, peer: peer, ending: endingOf(peer), attached: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(ctx)
	conns, drop := context.WithCancelCause(ctx)
	defer drop(nil)
	r.conns = conns
	var sides sync.WaitGroup
	sides.Go(func() {
		err := safely(ctx, peer, r.receive)
		over = ctx.Err() == nil
		cancel(err)
	})
	sides.Go(func() { dropUntaken(ctx, peer, &r.taken, drop) })
	err = r.accept(ctx)
	cancel(nil)
	sides.Wait()
	return over, err
}

func (r *basicRun) accept(ctx context.Context) error {
	settled := time.After(settleTime)
	var conns <-chan net.Conn // nobody's until then
	ending := r.ending
	for {
		select {
		case <-settled:
			r.Notify(TunnelEvent{Kind: TunnelReady})
			conns = r.Conns
		case <-ending:
			conns, ending, settled = nil, nil, nil // they are for another session
		case conn, ok := <-conns:
			if !ok {
				return nil
			}
			if err := r.carry(ctx, conn); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// carry carries one connection to its end. An error is the session's.
func (r *basicRun) carry(ctx context.Context, conn net.Conn) (err error) {
	defer crash.Catch(&err)
	f := newFlow(conn, &r.spare, r.peer)
	connCtx, cancel := context.WithCancelCause(r.conns)
	defer cancel(nil)
	defer conn.Close() //nolint:errcheck // it has ended; there is nobody to tell
	stop := context.AfterFunc(connCtx, func() {
		_ = conn.Close() // as above
	})
	defer stop()
	reads, gone := context.WithCancel(connCtx)
	defer gone()
	r.Notify(f.event(TunnelOpened, nil))
	r.attach(f, cancel, gone)

	local, upErr := f.upload(func(p []byte) error {
		r.stale.Store(false)
		return r.peer.Send(ctx, frame.Output, p)
	})
	ended := upErr == nil && f.silent(reads, r.HalfCloseWait, f.gone)
	_ = conn.Close() // as above; it also ends a write that waits for the program
	if ctx.Err() == nil && local && f.in.Load()+f.out.Load() > 0 {
		// The next connection is not to have the rest of this one.
		err = r.peer.Send(ctx, frame.Flag, frame.DisconnectToPort.Append(nil))
		if !ended {
			f.silent(ctx, leftover, stays)
		}
	}
	r.detach(f)
	switch cause := context.Cause(connCtx); {
	case errors.Is(cause, ErrRefused):
		r.Notify(f.event(TunnelRefused, cause))
	case cause != nil:
		r.Notify(f.event(TunnelEnded, cause))
	default:
		r.Notify(f.event(TunnelEnded, upErr))
	}
	if !local {
		err = upErr
	}
	return err
}

// attach makes f the connection that takes what comes.
func (r *basicRun) attach(f *flow, refuse context.CancelCauseFunc, gone context.CancelFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current, r.refuse, r.gone = f, refuse, gone
	close(r.attached)
	early := r.early
	r.early = nil
	r.give(early)
}

func (r *basicRun) detach(f *flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current, r.refuse, r.gone = nil, nil, nil
	r.attached = make(chan struct{})
	if f.in.Load()+f.out.Load() > 0 {
		r.stale.Store(true)
	}
}

// receive takes what comes until the session's end, whose error it returns.
func (r *basicRun) receive(ctx context.Context, peer Peer) error {
	for {
		typ, p, err := peer.Recv(ctx)
		if err != nil {
			return err
		}
		r.taken.Add(1)
		switch typ {
		case frame.Output:
			r.deliver(ctx, p)
		case frame.Flag:
			if flag, err := frame.ParseFlag(p); err == nil && flag == frame.ConnectToPortError {
				r.refused()
			}
		}
	}
}

// deliver gives p to the connection of the moment, keeps it for the first one, or
// waits for that while there is too much to keep. Where the session ends meanwhile,
// nobody gets anything: the rest could not follow.
func (r *basicRun) deliver(ctx context.Context, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.current == nil && !r.dropped && !r.stale.Load() && len(r.early)+len(p) > earlyLimit {
		attached, ended := r.attached, false
		r.mu.Unlock()
		select {
		case <-attached:
		case <-r.ending:
			ended = true
		case <-ctx.Done():
		}
		r.mu.Lock()
		if ctx.Err() != nil {
			return
		}
		if ended && r.current == nil {
			r.early, r.dropped = nil, true
		}
	}
	switch {
	case r.dropped, r.stale.Load():
	case r.current == nil:
		r.early = append(r.early, p...)
	default:
		r.give(p)
	}
}

// give writes to the current connection. One that takes nothing any more has ended,
// however much there still is for it.
func (r *basicRun) give(p []byte) {
	if len(p) == 0 {
		return
	}
	if _, err := r.current.Write(p); err != nil {
		_ = r.current.conn.Close() // it has failed already
		r.gone()
	}
}

func (r *basicRun) refused() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != nil {
		r.refuse(ErrRefused)
	}
}
