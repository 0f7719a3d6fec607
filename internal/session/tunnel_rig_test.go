package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xtaci/smux"

	"github.com/ssmsession/ssmsession/internal/ports"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// half is one end of a connection in memory that can be closed one way.
type half struct {
	r        *io.PipeReader
	w        *io.PipeWriter
	other    *half
	left     atomic.Bool
	mu       sync.Mutex // guards what follows
	deadline *time.Timer
}

// halves gives both ends of a connection.
func halves() (a, b *half) {
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	a, b = &half{r: r1, w: w2}, &half{r: r2, w: w1}
	a.other, b.other = b, a
	return a, b
}

func (h *half) Read(p []byte) (int, error)  { return h.r.Read(p) }
func (h *half) Write(p []byte) (int, error) { return h.w.Write(p) }
func (h *half) CloseWrite() error           { return h.w.Close() }

func (h *half) Close() error {
	h.stopDeadline(nil)
	err := h.r.CloseWithError(net.ErrClosed) // first: what the other end answers to its end comes too late
	return errors.Join(err, h.w.Close())
}

// reset ends the connection as a program does that is killed with data unread.
func (h *half) reset() {
	h.w.CloseWithError(errReset)
	h.r.CloseWithError(errReset)
}

// leave ends the connection both ways as a program does that has read everything:
// the other end gets an end-of-file, and knows.
func (h *half) leave() {
	h.w.Close()
	h.left.Store(true)
	h.r.CloseWithError(errReset)
}

// Gone tells whether the other end has left.
func (h *half) Gone() bool { return h.other.left.Load() }

func (h *half) stopDeadline(next *time.Timer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.deadline != nil {
		h.deadline.Stop()
	}
	h.deadline = next
}

func (h *half) SetReadDeadline(t time.Time) error {
	h.stopDeadline(time.AfterFunc(time.Until(t), func() { h.r.CloseWithError(os.ErrDeadlineExceeded) }))
	return nil
}

func (h *half) SetDeadline(t time.Time) error    { return h.SetReadDeadline(t) }
func (h *half) SetWriteDeadline(time.Time) error { return nil }
func (h *half) LocalAddr() net.Addr              { return nil }
func (h *half) RemoteAddr() net.Addr             { return nil }

var errReset = errors.New("connection reset")

// tunnelPeer is the Peer of a Port session, without a network between.
type tunnelPeer struct {
	start   frame.Start
	toAgent chan []byte        // bytes
	tried   chan time.Duration // when the agent was tried, since the start of the test
	flags   chan frame.FlagValue
	coming  chan message
	ended   chan struct{} // closed once err is set
	made    time.Time
	err     error
}

func newTunnelPeer(start frame.Start) *tunnelPeer {
	return &tunnelPeer{
		start:   start,
		toAgent: make(chan []byte),
		tried:   make(chan time.Duration, 1),
		flags:   make(chan frame.FlagValue, 100),
		coming:  make(chan message),
		ended:   make(chan struct{}),
		made:    time.Now(),
	}
}

func (p *tunnelPeer) end(err error) {
	p.err = err
	close(p.ended)
}

func (p *tunnelPeer) Started(context.Context) (frame.Start, error) { return p.start, nil }

func (p *tunnelPeer) Send(ctx context.Context, t frame.PayloadType, b []byte) error {
	if t == frame.Flag {
		flag, err := frame.ParseFlag(b)
		if err != nil {
			return err
		}
		select {
		case <-p.ended:
			return p.err
		default:
			p.flags <- flag
			return nil
		}
	}
	if string(b) == ports.Nop {
		select {
		case p.tried <- time.Since(p.made):
			return nil
		default: // it has been tried
		}
	}
	select {
	case p.toAgent <- append([]byte(nil), b...):
		return nil
	case <-p.ended:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *tunnelPeer) Recv(ctx context.Context) (frame.PayloadType, []byte, error) {
	select {
	case m := <-p.coming:
		return m.typ, []byte(m.payload), nil
	case <-p.ended:
		return 0, nil, p.err
	case <-ctx.Done():
		return 0, nil, context.Cause(ctx)
	}
}

// agentConn is the byte stream as the agent has it: it writes 1024 bytes a
// message.
type agentConn struct {
	peer *tunnelPeer
	stop chan struct{}
	once sync.Once
	rest []byte
}

func (c *agentConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		select {
		case c.rest = <-c.peer.toAgent:
		case <-c.stop:
			return 0, io.EOF
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *agentConn) Write(p []byte) (n int, err error) {
	for n < len(p) {
		piece := p[n:min(n+1024, len(p))]
		select {
		case c.peer.coming <- message{frame.Output, string(piece)}:
		case <-c.stop:
			return n, io.ErrClosedPipe
		}
		n += len(piece)
	}
	return n, nil
}

func (c *agentConn) Close() error {
	c.once.Do(func() { close(c.stop) })
	return nil
}

// startOf is the start of a session that forwards a port.
func startOf(agent string) frame.Start {
	return frame.Start{
		SessionType:  frame.Port,
		AgentVersion: agent,
		Properties:   []byte(`{"portNumber":"80","type":"LocalPortForwarding","localPortNumber":"0"}`),
	}
}

// tunnelRig runs a Tunnel against an agent that multiplexes.
type tunnelRig struct {
	t       testing.TB
	tunnel  Tunnel
	conns   chan net.Conn
	peer    *tunnelPeer
	far     Peer // what the Tunnel has: peer, or one around it
	agent   *smux.Session
	conn    *agentConn
	cancel  context.CancelCauseFunc
	result  chan error
	stopped chan struct{} // for an agent of the test's own

	mu     sync.Mutex // guards what follows
	events []TunnelEvent
}

// newTunnelRig makes a rig whose agent gives serve the far end of each stream;
// the error of serve is a destination that refuses.
func newTunnelRig(t testing.TB, version string, serve func(net.Conn) error) *tunnelRig {
	r := &tunnelRig{t: t, conns: make(chan net.Conn), peer: newTunnelPeer(startOf(version)), result: make(chan error, 1), stopped: make(chan struct{})}
	r.far = r.peer
	r.tunnel = Tunnel{Conns: r.conns, HalfCloseWait: DefaultHalfCloseWait, Notify: r.notify}
	if serve == nil {
		return r
	}
	r.conn = &agentConn{peer: r.peer, stop: make(chan struct{})}
	cfg := smux.DefaultConfig()
	cfg.KeepAliveDisabled = true
	agent, err := smux.Server(r.conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.agent = agent
	go func() {
		for {
			stream, err := agent.AcceptStream()
			if err != nil {
				return
			}
			go r.dial(stream, serve)
		}
	}()
	return r
}

// dial does what an agent does for a stream (docs/protocol.md, "Mux port
// forwarding"): either direction's end closes everything.
func (r *tunnelRig) dial(stream *smux.Stream, serve func(net.Conn) error) {
	near, far := halves()
	refused := make(chan error, 1)
	go func() { refused <- serve(far) }()
	// A destination that takes the connection reads or writes; one that refuses
	// returns at once.
	select {
	case err := <-refused:
		if err != nil {
			r.peer.coming <- message{frame.Flag, string(frame.ConnectToPortError.Append(nil))}
			stream.Close()
			return
		}
	case <-time.After(time.Millisecond):
	}
	go func() {
		io.Copy(near, stream)
		near.Close()
	}()
	io.Copy(stream, near)
	stream.Close()
	near.Close()
}

func (r *tunnelRig) notify(e TunnelEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// of gives the events of one kind.
func (r *tunnelRig) of(kind TunnelKind) (events []TunnelEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Kind == kind {
			events = append(events, e)
		}
	}
	return events
}

func (r *tunnelRig) run() {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.t.Context()))
	r.cancel = cancel
	go func() { r.result <- r.tunnel.Run(ctx, r.far) }()
}

// connect gives the local program's end of a new connection.
func (r *tunnelRig) connect() *half {
	near, program := halves()
	r.conns <- near
	return program
}

// stop ends the agent, and what Run returned.
func (r *tunnelRig) stop() error {
	r.cancel(errStopped)
	return r.over()
}

// over gives what Run returned, and ends the agent.
func (r *tunnelRig) over() error {
	err := <-r.result
	if r.agent != nil {
		r.agent.Close()
	}
	return err
}

var errStopped = errors.New("stopped")

// bubble is synctest.Test for what uses smux, which keeps channels for reuse: they
// must not come into a bubble or leave it. Two collections drop them.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	drop := func() {
		runtime.GC()
		runtime.GC()
	}
	drop()
	defer drop()
	synctest.Test(t, f)
}

// inBubble runs f with a rig in a bubble, and stops it.
func inBubble(t *testing.T, serve func(net.Conn) error, f func(t *testing.T, r *tunnelRig)) {
	t.Helper()
	bubble(t, func(t *testing.T) {
		r := newTunnelRig(t, "3.3.0.0", serve)
		r.run()
		f(t, r)
		if r.cancel != nil {
			r.stop()
		}
	})
}

// echo gives back what it reads, until its end.
func echo(c net.Conn) error {
	io.Copy(c, c)
	return c.Close()
}

// wantRead reads all that comes and compares.
func wantRead(t *testing.T, what string, c io.Reader, want string) {
	t.Helper()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != want {
		t.Errorf("%s: read %d bytes (%v), want %d", what, len(got), err, len(want))
	}
}

func mustWrite(t *testing.T, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatalf("the local program cannot write: %v", err)
	}
}

func (k TunnelKind) String() string {
	return [...]string{"ready", "opened", "refused", "ended"}[k]
}

func (e TunnelEvent) String() string {
	return fmt.Sprintf("%v in %d out %d: %v", e.Kind, e.In, e.Out, e.Err)
}
