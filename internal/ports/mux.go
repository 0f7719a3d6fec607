package ports

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/xtaci/smux"

	"github.com/ssmsession/ssmsession/internal/crash"
)

// Facts of smux as agents run it (docs/protocol.md, "Mux port forwarding").
const (
	muxVersion = 1
	// maxFrame is the most payload of one frame, in bytes.
	maxFrame = 32 << 10
	// receiveBucket is what may wait for slow readers, in bytes, over all
	// streams. Version 1 has no window per stream: when the bucket is full,
	// nothing is read any more, and every stream waits for the slowest.
	receiveBucket = 4 << 20
	// keepAliveInterval is as in agents, which close what gives nothing for 30 s.
	keepAliveInterval = 10 * time.Second
)

// Nop is a frame that means nothing. It may be sent between others, by a client
// that wants to know whether the far end takes anything.
const Nop = "\x01\x03\x00\x00\x00\x00\x00\x00"

// ErrMuxClosed is what a Mux and its streams return after Close.
var ErrMuxClosed = errors.New("the multiplexer is closed")

// Mux carries many streams over one stream of bytes, as the client of smux
// version 1.
//
// It has a queue of its own between smux and the far end. So the sender of smux
// never waits: it gives up opening and closing after 30 s, which a far end that
// is away for longer must not cost. Who waits instead is each Write, in order
// of arrival; a bulk transfer leaves room for a keystroke.
type Mux struct {
	session *smux.Session
	out     *outgoing
	done    chan struct{} // closed once err is set
	err     error
	running sync.WaitGroup
}

// NewMux begins on conn, whose Close must make a Read and a Write return; they
// are called from different goroutines. keepAlive sends a frame every 10 s, for
// the far end to see that we live. Whether the far end lives is for conn to say:
// silence is no error.
func NewMux(conn io.ReadWriteCloser, keepAlive bool) (*Mux, error) {
	out := newOutgoing(conn)
	session, err := smux.Client(out, &smux.Config{
		Version:           muxVersion,
		KeepAliveDisabled: !keepAlive,
		KeepAliveInterval: keepAliveInterval,
		KeepAliveTimeout:  math.MaxInt64,
		MaxFrameSize:      maxFrame,
		MaxReceiveBuffer:  receiveBucket,
		MaxStreamBuffer:   receiveBucket, // version 2 only, but checked
	})
	if err != nil {
		return nil, fmt.Errorf("multiplexer: %w", err)
	}
	m := &Mux{session: session, out: out, done: make(chan struct{})}
	m.running.Go(func() { crash.Guard(m.crashed, out.run) })
	m.running.Go(m.watch)
	return m, nil
}

// ErrOpened is a far end that opens a stream itself. Agents never do, and one that
// goes on would cost a client without end.
var ErrOpened = errors.New("the far end opens a connection of its own, as no agent does")

// watch waits for the end.
func (m *Mux) watch() {
	defer close(m.done)
	defer crash.Catch(&m.err)
	_, err := m.session.AcceptStream()
	if err == nil {
		err = ErrOpened
		_ = m.session.Close() // Close tells of it
	}
	if bug := (*crash.Error)(nil); errors.As(m.out.failure(), &bug) {
		err = bug // which has closed conn
	}
	m.err = err
}

// crashed ends everything after a panic of who hands on the queue.
func (m *Mux) crashed(err error) {
	m.out.fail(err)
	_ = m.out.conn.Close() // Close tells of it
}

// Done is closed when nothing can come any more. What had come before can still
// be read from the streams.
func (m *Mux) Done() <-chan struct{} { return m.done }

// Err tells why, once Done is closed: the error of conn's Read, ErrOpened, that
// what came is not smux, or a *crash.Error.
func (m *Mux) Err() error {
	if errors.Is(m.err, smux.ErrInvalidProtocol) {
		return fmt.Errorf("what the far end sends is not smux: %w", m.err)
	}
	return m.err
}

// Open opens a stream. The far end does not answer that.
func (m *Mux) Open() (*Stream, error) {
	s, err := m.session.OpenStream()
	if err != nil {
		return nil, m.explain(err)
	}
	return &Stream{smux: s, mux: m}, nil
}

// Close ends all streams and waits for the goroutines that use conn. What was
// written and not yet handed to conn is dropped.
func (m *Mux) Close() error {
	err := m.session.Close()
	m.running.Wait()
	if errors.Is(err, io.ErrClosedPipe) { // it had been closed
		return nil
	}
	return err
}

// explain gives an error that says what happened to conn where err only says
// that something did.
func (m *Mux) explain(err error) error {
	if failed := m.out.failure(); failed != nil && !errors.Is(failed, ErrMuxClosed) {
		return failed
	}
	return err
}

// Stream is one connection of a Mux.
type Stream struct {
	smux *smux.Stream
	mux  *Mux
}

// Read gives what came; io.EOF is the far end's end.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.smux.Read(p)
	if errors.Is(err, io.EOF) {
		// When both sides have ended, smux may find nothing, then be given the
		// last bytes and the end, and tell of the end. It has them still.
		return s.smux.Read(p)
	}
	return n, err
}

// Write sends p. It returns once p has its place in the queue, and waits while
// that is full.
func (s *Stream) Write(p []byte) (int, error) {
	sent := 0
	for len(p) > 0 {
		n := min(len(p), maxFrame)
		if err := s.mux.out.reserve(n, s.smux.GetDieCh()); err != nil {
			return sent, err
		}
		wrote, err := s.smux.Write(p[:n])
		sent += wrote
		if err != nil {
			s.mux.out.release(n - wrote)
			return sent, s.mux.explain(err)
		}
		p = p[n:]
	}
	return sent, nil
}

// WriteTo writes what comes to w, without a buffer of its own. It returns nil at
// the far end's end.
func (s *Stream) WriteTo(w io.Writer) (int64, error) {
	out := &watched{w: w}
	ended := false // well
	for tries := 0; ; tries++ {
		n, err := s.smux.WriteTo(out)
		ended = ended || err == nil
		// When the session ends, smux may say so before it gives what had come.
		switch {
		case out.err != nil:
			return out.n, err
		case n == 0 && tries > 0 && ended:
			return out.n, nil
		case n == 0 && tries > 0:
			return out.n, err
		}
	}
}

// watched tells whose error an error is.
type watched struct {
	w   io.Writer
	n   int64
	err error
}

func (w *watched) Write(p []byte) (n int, err error) {
	n, err = w.w.Write(p)
	w.n += int64(n)
	w.err = err
	return n, err
}

// Flush waits until all that was written to the Mux has been handed to conn.
func (s *Stream) Flush(ctx context.Context) error { return s.mux.out.flush(ctx) }

// CloseWrite tells the far end that nothing more will be written. An agent then
// closes its connection altogether, so it is not for an end of input alone
// (docs/protocol.md, "Mux port forwarding").
func (s *Stream) CloseWrite() error { return s.mux.explained(s.smux.CloseWrite()) }

// Close ends the stream both ways; what was not read is dropped. A second one
// does nothing.
func (s *Stream) Close() error { return s.mux.explained(s.smux.Close()) }

// explained is explain for an end: that it was over already is no error.
func (m *Mux) explained(err error) error {
	if err == nil || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return m.explain(err)
}
