package session

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/ports"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// drainLimit is how long local programs have to take what had come when the
// session ended.
const drainLimit = 5 * time.Second

// refusalLife is how long after a refusal was said the end of its stream may
// come. They are sent together.
const refusalLife = 2 * time.Second

// muxRun is a multiplexed session.
type muxRun struct {
	Tunnel
	mux      *ports.Mux
	peer     Peer
	ctx      context.Context // its end, before that of the session or with it, is that of every connection
	fault    func(error)     // ends ctx
	spare    buffers
	refusals refusals
	conns    sync.WaitGroup
	waiting  sync.WaitGroup // who waits for conns, and who waits for the session's end
}

// runMux runs a multiplexed session; over tells that the far side ended it.
func (t Tunnel) runMux(ctx context.Context, peer Peer, agent string) (over bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conns, drop := context.WithCancelCause(ctx)
	defer drop(nil)
	r := &muxRun{Tunnel: t, peer: peer, ctx: conns, fault: cancel}
	conn := newMuxConn(ctx, peer, r.refusals.add)
	r.mux, err = ports.NewMux(conn, t.KeepAlive || !agentSince(agent, agentIsNotKeptFor))
	if err != nil {
		return false, err
	}
	r.waiting.Go(func() { dropUntaken(ctx, peer, &conn.taken, drop) })
	if err = r.settle(ctx); err == nil {
		t.Notify(TunnelEvent{Kind: TunnelReady})
		err = r.accept(ctx)
	}
	if err != nil && ctx.Err() == nil {
		// The session has ended. What had come is still given to those who read.
		drained := time.AfterFunc(drainLimit, func() { cancel(err) })
		r.conns.Wait()
		drained.Stop()
	}
	cancel(err)
	closeErr := r.mux.Close()
	r.conns.Wait()
	r.waiting.Wait()
	return conn.over, errors.Join(err, closeErr)
}

// settle waits until the agent has its tunnel, or ends. It has none as long as it
// does not acknowledge input; it closes the session when it does not know the name
// of the destination, or is forbidden the address.
func (r *muxRun) settle(ctx context.Context) error {
	if err := r.wait(ctx, time.After(settleTime)); err != nil {
		return err
	}
	if err := r.peer.Send(ctx, frame.Output, []byte(ports.Nop)); err != nil {
		return err
	}
	for arrived := arrivalOf(r.peer); !arrived(); {
		if err := r.wait(ctx, time.After(settleTick)); err != nil {
			return err
		}
	}
	return nil
}

// wait waits for a time, or for an end, which is the error.
func (r *muxRun) wait(ctx context.Context, timer <-chan time.Time) error {
	select {
	case <-timer:
		return nil
	case <-r.mux.Done():
		return r.mux.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// accept carries connections until something ends, and says what: nil when Conns
// was closed and all have ended.
func (r *muxRun) accept(ctx context.Context) error {
	ended := make(chan struct{})
	conns, ending := r.Conns, endingOf(r.peer)
	for {
		select {
		case conn, ok := <-conns:
			if ok {
				r.conns.Go(func() { r.carry(conn) })
				continue
			}
			conns = nil
			r.waiting.Go(func() {
				r.conns.Wait()
				close(ended)
			})
		case <-ending:
			conns, ending = nil, nil // they are for another session
		case <-ended:
			return nil
		case <-r.mux.Done():
			return r.mux.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// carry carries one connection to its end.
func (r *muxRun) carry(conn net.Conn) {
	var err error
	defer func() {
		if err != nil {
			r.fault(err)
		}
	}()
	defer crash.Catch(&err)
	defer conn.Close() //nolint:errcheck // it has ended; there is nobody to tell
	stop := context.AfterFunc(r.ctx, func() {
		_ = conn.Close() // as above
	})
	defer stop()
	f := newFlow(conn, &r.spare, r.peer)
	stream, openErr := r.mux.Open()
	if openErr != nil {
		r.Notify(f.event(TunnelRefused, openErr))
		return
	}
	r.Notify(f.event(TunnelOpened, nil))
	r.Notify(r.both(f, stream))
}

// both carries the bytes of one connection both ways, and tells how it ended.
func (r *muxRun) both(f *flow, stream *ports.Stream) TunnelEvent {
	downCtx, downEnded := context.WithCancel(r.ctx)
	defer downEnded()
	var up sync.WaitGroup
	var upErr error
	up.Go(func() {
		upErr = r.upload(downCtx, f, stream)
		if bug := (*crash.Error)(nil); errors.As(upErr, &bug) {
			r.fault(upErr)
		}
	})

	_, downErr := stream.WriteTo(f)
	downEnded()
	// At the far side's end, the agent has closed its connection both ways. What
	// cannot be sent here, the session's end tells.
	_ = stream.Close()
	refused := downErr == nil && f.in.Load() == 0 && r.refusals.take()
	if refused || downErr != nil || endInput(f.conn) != nil {
		_ = f.conn.Close() // there is nobody to tell
	}
	up.Wait()
	switch {
	case refused:
		return f.event(TunnelRefused, ErrRefused)
	case upErr != nil: // the reason why the rest failed
		return f.event(TunnelEnded, upErr)
	case downErr != nil && r.ctx.Err() != nil:
		return f.event(TunnelEnded, context.Cause(r.ctx))
	default:
		return f.event(TunnelEnded, downErr)
	}
}

// upload passes on what the local program writes, and its end when the far side
// has nothing more to say; downCtx ends with the download. An error is the local
// connection's.
func (r *muxRun) upload(downCtx context.Context, f *flow, stream *ports.Stream) (err error) {
	defer crash.Catch(&err)
	local, err := f.upload(func(p []byte) error {
		_, err := stream.Write(p)
		return err
	})
	switch {
	case !local && err != nil:
		// The stream has ended, which the download tells.
		discard(f.conn)
		return nil
	case downCtx.Err() != nil: // it all has ended, and so has this
		return nil
	case err != nil: // reset, or the like: there is nobody to give a reply to
		_ = stream.Close() // the download ends by it, and its error is this one
		return err
	}
	if stream.Flush(downCtx) == nil && (f.silent(downCtx, r.HalfCloseWait, f.gone) || downCtx.Err() == nil) {
		// One that cannot be sent is the session's end, which the download tells.
		_ = stream.CloseWrite()
	}
	return nil
}

// discard takes what the local program still sends, until its end, the deadline,
// or the closing of conn.
func discard(conn net.Conn) {
	// Each of the three ends it.
	_, _ = io.Copy(io.Discard, conn)
}

// refusals matches the agent's word that a connection was refused, which does
// not say which, with the stream that ends without data just after it.
type refusals struct {
	mu   sync.Mutex // guards what follows
	n    int
	last time.Time
}

func (r *refusals) add() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.last) > refusalLife {
		r.n = 0
	}
	r.n++
	r.last = time.Now()
}

// take tells whether there is a refusal for a stream that ended just now.
func (r *refusals) take() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == 0 || time.Since(r.last) > refusalLife {
		return false
	}
	r.n--
	return true
}

// muxConn is what a multiplexer has for its connection: an io.ReadWriteCloser over
// the Output messages of a Peer. What else comes is looked at in its place among the
// bytes.
type muxConn struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	peer    Peer
	refused func() // called for each ConnectToPortError

	mu   sync.Mutex // held by Read, so that Close can wait for it
	rest []byte     // of what came last
	err  error
	over bool // the far side ended the session; to be read after Close

	taken atomic.Int64 // messages
}

func newMuxConn(ctx context.Context, peer Peer, refused func()) *muxConn {
	ctx, cancel := context.WithCancelCause(ctx)
	return &muxConn{ctx: ctx, cancel: cancel, peer: peer, refused: refused}
}

// Read gives the bytes that come. Its error is Recv's.
func (c *muxConn) Read(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.rest) == 0 && c.err == nil {
		c.rest, c.err = c.next()
	}
	if len(c.rest) == 0 {
		return 0, c.err
	}
	n = copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// next gives the bytes of the next message, often none.
func (c *muxConn) next() (p []byte, err error) {
	defer crash.Catch(&err)
	typ, p, err := c.peer.Recv(c.ctx)
	c.taken.Add(1)
	switch {
	case err != nil:
		c.over = c.ctx.Err() == nil
		return nil, err
	case typ == frame.Output:
		return p, nil
	case typ == frame.Flag:
		if flag, err := frame.ParseFlag(p); err == nil && flag == frame.ConnectToPortError {
			c.refused()
		}
	}
	return nil, nil
}

// Write sends p.
func (c *muxConn) Write(p []byte) (n int, err error) {
	defer crash.Catch(&err)
	if err := c.peer.Send(c.ctx, frame.Output, p); err != nil {
		c.cancel(err) // one that cannot be sent to has ended
		return 0, err
	}
	return len(p), nil
}

// Close makes Read and Write return, and waits for a Read.
func (c *muxConn) Close() error {
	c.cancel(ports.ErrMuxClosed)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rest, c.err = nil, ports.ErrMuxClosed
	return nil
}
