package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/events"
	"github.com/ssmsession/ssmsession/internal/ports"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream"
)

// tunnel is one -L: its listeners, and the sessions that carry what they accept,
// one after another.
type tunnel struct {
	command   *forwardCommand
	env       *env // of this tunnel: what it says begins with its name
	forward   ports.Forward
	remote    string
	listeners []net.Listener
	accepted  chan net.Conn
	pending   net.Conn // accepted, and not yet a session's; of the one that runs or feeds
	count     counters
	heard     func(session.TunnelEvent) // is told what happens, too; nil for nobody

	ready chan struct{} // closed once the first session is ready
	once  sync.Once     // for that
	done  chan struct{} // closed when run has returned
	told  bool          // people know why it was given up; read it after all has ended
	err   error         // of run; read it after done
	stats stream.Stats  // of the sessions that are over; read it after done
}

// newTunnel opens the listeners of f.
func newTunnel(ctx context.Context, c *forwardCommand, f ports.Forward) (*tunnel, error) {
	remote := remoteName(f, c.open.target)
	listeners, err := ports.Listen(ctx, f)
	if err != nil {
		return nil, listenFailure(f, err)
	}
	t := &tunnel{
		command: c, forward: f, remote: remote, listeners: listeners,
		accepted: make(chan net.Conn),
		ready:    make(chan struct{}), done: make(chan struct{}),
	}
	t.env = c.env.ofOne(oneLine(remote), t.notice)
	if !ports.Loopback(f) {
		c.env.warn("listening on %s: other machines can reach %s through it", localName(listeners[0]), oneLine(remote))
	}
	return t, nil
}

// listenFailure says why there is no local end.
func listenFailure(f ports.Forward, err error) error {
	if taken := (*ports.InUseError)(nil); errors.As(err, &taken) {
		return &failure{code: "PortInUse", err: err, hint: "a local port 0 takes a free one"}
	}
	hint := ""
	switch {
	case f.Bind == "" || errors.Is(err, syscall.EACCES):
	case f.Host != "":
		hint = f.Bind + " is where to listen: it has to be an address of this machine"
	default: // or it was to be the remote host
		meant := ports.Forward{LocalPort: f.LocalPort, Host: f.Bind, Port: f.Port}
		hint = fmt.Sprintf("%s is where to listen, an address of this machine; a remote host stands between the ports:  -L %s", f.Bind, meant)
	}
	return &failure{code: "NoListener", err: err, hint: hint}
}

// ofOne is the environment of one of several sessions.
func (e *env) ofOne(about string, noticed func(stream.Notice)) *env {
	return e.reporting(&report{
		people: e.people, quiet: e.quiet, debug: e.debug, watch: e.watch,
		log: e.log.With("forward", about), result: &result{}, about: about, noticed: noticed,
	})
}

// close closes the listeners.
func (t *tunnel) close() {
	for _, l := range t.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.env.log.Debug("cannot close a listener", "error", err)
		}
	}
}

// run holds sessions until ctx ends, or the first one cannot be had, or one is
// lost that must not be. Its error is never nil.
func (t *tunnel) run(ctx context.Context) (err error) {
	defer close(t.done)
	defer func() { t.err = err }()
	return t.serve(ctx, t.sessions)
}

// serve accepts connections while body carries them.
func (t *tunnel) serve(ctx context.Context, body func(context.Context) error) (err error) {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer t.close()
	defer crash.Catch(&err)
	for _, l := range t.listeners {
		wg.Go(func() {
			if err := t.accept(ctx, l); err != nil {
				cancel(err)
			}
		})
	}
	err = body(ctx)
	t.drop(err)
	return err
}

// sessions holds the first session at once, and every other for a connection that
// waits for it.
func (t *tunnel) sessions(ctx context.Context) error {
	for first := true; ; first = false {
		if !first && !t.await(ctx) {
			return context.Cause(ctx)
		}
		waiting := t.pending
		up, err := t.session(ctx)
		switch {
		case ctx.Err() != nil:
			return afterwards(context.Cause(ctx), err)
		case first && !up:
			return notReady(err)
		case up && err != nil && t.command.open.noReconnect:
			return err
		case up:
			t.tellEnd(err)
		}
		if t.pending != nil && t.pending == waiting {
			t.drop(notReady(err)) // it has had its session
		}
	}
}

// notReady is why a session was never ready.
func notReady(err error) error {
	if err == nil {
		return &failure{code: "NotBegun", err: errors.New("the session ended before it was ready")}
	}
	return err
}

// tellEnd says that a session is over, for which nobody asked.
func (t *tunnel) tellEnd(err error) {
	if p := explain(err); p != nil {
		t.env.say("%s; a new session is started for the next connection", oneLine(p.message))
		return
	}
	t.env.say("the session has ended; a new one is started for the next connection")
}

// await waits for a connection that needs a session, until ctx ends.
func (t *tunnel) await(ctx context.Context) bool {
	if t.pending != nil {
		return true
	}
	select {
	case t.pending = <-t.accepted:
		return true
	case <-ctx.Done():
		return false
	}
}

// drop refuses the connection that waits, for want of a session.
func (t *tunnel) drop(why error) {
	if t.pending == nil {
		return
	}
	conn := t.pending
	t.pending = nil
	t.refused(conn, why)
	if err := conn.Close(); err != nil {
		t.env.log.Debug("cannot close a connection", "error", err)
	}
}

// session holds one session to its end and tells whether it was ready.
func (t *tunnel) session(ctx context.Context) (up bool, err error) {
	o := t.command.opening(t.forward, localPortOf(t.listeners[0]))
	l := &life{tunnel: t, opening: o, stopped: ctx, began: make(chan struct{})}
	t.env.troubled.Store(false)
	t.count.sessions.Add(1)
	err = l.hold()
	if expired := (*api.Error)(nil); errors.As(err, &expired) && expired.Expired() && t.env.result.SessionID == "" && ctx.Err() == nil {
		o.shared.forget() // the user may have logged in meanwhile
		err = l.hold()
	}
	t.env.troubled.Store(false) // what is over is not got back
	t.command.status.wake()
	t.add(t.env.result.stats)
	if cannot := (*session.TunnelError)(nil); errors.As(err, &cannot) {
		err = &failure{code: "NotSupported", err: cannot}
	}
	return isClosed(l.began), err
}

// life is one session of a tunnel. It outlives what stops it, so that the agent
// can be told.
type life struct {
	*tunnel
	opening *opening
	stopped context.Context // its end ends the session
	began   chan struct{}   // closed once the session is ready
}

// hold holds the session from its start to its end.
func (l *life) hold() error {
	l.env.result = &result{Target: l.opening.target, Document: l.opening.document}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(l.stopped))
	defer cancel(nil)
	release := context.AfterFunc(l.stopped, func() { cancel(context.Cause(l.stopped)) })
	defer release()
	return l.opening.hold(ctx, l.env, func(ctx context.Context, peer session.Peer) error {
		release() // from now on the body ends it
		return l.carry(ctx, peer)
	})
}

// carry carries connections over a data channel.
func (l *life) carry(ctx context.Context, peer session.Peer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	defer context.AfterFunc(l.stopped, func() { cancel(context.Cause(l.stopped)) })()
	conns := make(chan net.Conn)
	wg.Go(func() { crash.Guard(cancel, func() { l.feed(ctx, conns) }) })
	err := session.Tunnel{
		Conns: conns, RemoteHost: l.forward.Host != "",
		HalfCloseWait: l.command.halfCloseWait, KeepAlive: l.command.keepAlive,
		Notify: func(ev session.TunnelEvent) {
			if ev.Kind == session.TunnelReady {
				close(l.began)
			}
			l.happened(ev)
		},
	}.Run(ctx, peer)
	l.opening.told = isClosed(l.began)
	if closed := (*stream.Closed)(nil); !l.opening.told && errors.As(err, &closed) {
		err = &notReadyError{err}
	}
	return err
}

// notReadyError is a session that was closed before it was ready.
type notReadyError struct{ error }

func (e *notReadyError) Unwrap() error { return e.error }

// isClosed tells whether a channel that nobody sends on was closed.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// add sums what the data channels of the sessions did.
func (t *tunnel) add(s stream.Stats) {
	t.stats.BytesIn += s.BytesIn
	t.stats.BytesOut += s.BytesOut
	t.stats.Retransmissions += s.Retransmissions
	t.stats.Resumes += s.Resumes
	t.stats.RoundTrip = s.RoundTrip
}

// feed gives a session what is accepted while it lasts. What it does not take is
// pending.
func (t *tunnel) feed(ctx context.Context, conns chan<- net.Conn) {
	for t.await(ctx) {
		select {
		case conns <- t.pending:
			t.pending = nil
		case <-ctx.Done():
			return
		}
	}
}

// How long to wait after an accept that failed, for want of descriptors mostly: it
// grows from the first to the last.
const (
	firstAcceptPause = 10 * time.Millisecond
	lastAcceptPause  = time.Second
)

// accept takes connections until ctx ends or the listener is closed, which is no
// error.
func (t *tunnel) accept(ctx context.Context, l net.Listener) (err error) {
	defer crash.Catch(&err)
	defer context.AfterFunc(ctx, t.close)()
	pause := firstAcceptPause
	for {
		conn, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			if pause == firstAcceptPause {
				t.env.fail("cannot accept a connection on %s: %s", localName(l), oneLine(err.Error()))
			}
			if !wait(ctx, pause) {
				return nil
			}
			pause = min(2*pause, lastAcceptPause)
			continue
		}
		pause = firstAcceptPause
		select {
		case t.accepted <- &countingConn{Conn: conn, count: &t.count}:
		case <-ctx.Done():
			if err := conn.Close(); err != nil {
				return fmt.Errorf("cannot close a connection: %w", err)
			}
			return nil
		}
	}
}

// happened takes what a session tells of its connections.
func (t *tunnel) happened(ev session.TunnelEvent) {
	if t.heard != nil {
		t.heard(ev)
	}
	switch ev.Kind {
	case session.TunnelReady:
		t.once.Do(func() { close(t.ready) })
	case session.TunnelOpened:
		if conn, ok := ev.Conn.(*countingConn); ok {
			conn.opened = true
		}
		t.count.opened.Add(1)
		t.count.open.Add(1)
		t.tell(ev, events.Opened)
		t.command.status.wake()
	case session.TunnelRefused:
		t.refused(ev.Conn, ev.Err)
	case session.TunnelEnded:
		t.count.open.Add(-1)
		t.tell(ev, events.Ended)
	}
}

// refused tells of a connection that came to nothing. It may have counted as one
// that is carried: what the destination says comes later.
func (t *tunnel) refused(conn net.Conn, why error) {
	if counted, ok := conn.(*countingConn); ok && counted.opened {
		t.count.opened.Add(-1)
		t.count.open.Add(-1)
	}
	t.count.refused.Add(1)
	t.tell(session.TunnelEvent{Conn: conn, Err: why}, events.Refused)
	p := explain(why)
	if p == nil {
		return
	}
	who := "a connection"
	if counted, ok := conn.(*countingConn); ok && counted.from() != "" {
		who += " from " + counted.from()
	}
	t.env.fail("%s was refused: %s", who, oneLine(p.message))
}

// tell emits the event of a connection.
func (t *tunnel) tell(ev session.TunnelEvent, outcome events.Outcome) {
	line := events.Connection{Remote: t.remote, Outcome: outcome, BytesIn: ev.In, BytesOut: ev.Out}
	if conn, ok := ev.Conn.(*countingConn); ok {
		line.From = conn.from()
	}
	if ev.Err != nil {
		line.Reason = ev.Err.Error()
	}
	t.env.watch.Emit(line)
}

// notice takes what happens to the data channel.
func (t *tunnel) notice(n stream.Notice) {
	if n.Kind == stream.Reconnecting && n.Attempt == 1 {
		t.count.reconnects.Add(1)
		t.env.watch.Emit(t.count.traffic(t.remote))
	}
	t.command.status.wake()
}
