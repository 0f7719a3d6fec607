package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// DefaultClientVersion is the version of AWS's client that agents are told they
// talk to. It is a feature switch of the agent's and not ours to be proud of:
// above 1.2.331.0 its tunnel sends no keep-alives that we would not answer, and
// above 1.2.295 it separates stderr (docs/protocol.md, "Version gates").
const DefaultClientVersion = "1.2.707.0"

// Defaults of Config.
const (
	DefaultWindow        = 256 << 10       // bytes
	ServiceRate          = 900             // messages a second; the service pushes back at 1000
	DefaultGiveUp        = 5 * time.Minute // as AWS's 3000 repetitions
	DefaultRedial        = 10 * time.Minute
	DefaultAliveInterval = 30 * time.Second
	DefaultAliveCount    = 3
	muteGrace            = time.Second // for reading what a peer said before it stopped listening
	flushGrace           = 2 * time.Second
	sendPiece            = 16 << 10  // bytes taken from a Send at once
	backlog              = 256 << 10 // bytes waiting for the writer from which on reading pauses
	backlogLimit         = 512 << 10 // and from which on acknowledgements are left out
	crowdedRead          = 250 * time.Millisecond
	backlogRead          = time.Second
	probeAfter           = time.Second      // without a word from the far end
	silentStart          = time.Second      // after an acknowledgement, without a request for a handshake
	strayLimit           = 3 * time.Second  // for a session's beginning to come after what follows it
	recentAcks           = 512              // acknowledgements remembered: half a second of what an agent sends
	ackDoubt             = 2 * time.Second  // before a link was last heard of, in which an acknowledgement may be lost
	attemptLimit         = 10 * time.Second // for one attempt to reconnect
	wakeGrace            = 5 * time.Second  // for a link to prove itself after we slept
	unansweredAfter      = 10 * time.Second // is when the user is told
)

// Config is what a Channel needs. Dial is required.
type Config struct {
	// Dial gives a fresh socket and the token that opens the data channel on
	// it. Once there was one, resume is true, and a new token has to be
	// fetched. An error with a method Permanent() bool that returns true ends
	// the Channel; after others it is called again, but for a first socket
	// only a few times, and only after a *DialError of what may pass. It must
	// return soon once its context has ended.
	Dial func(ctx context.Context, resume bool) (Socket, string, error)
	// DataKey makes the data key of a session that its account encrypts. It
	// is called at most once, and its context ends before the agent gives up.
	// Nil refuses such sessions.
	DataKey func(ctx context.Context, r KeyRequest) (DataKey, error)
	// RequireEncryption refuses, with ErrNotEncrypted, a session that does not
	// ask for encryption.
	RequireEncryption bool
	// ClientVersion is reported to the agent; empty for DefaultClientVersion.
	ClientVersion string
	// Window is the most that may be unacknowledged, in bytes; 0 for
	// DefaultWindow.
	Window int
	// Rate is the most data messages sent a second; 0 for no limit.
	Rate int
	// GiveUp is how long the agent may leave something unacknowledged on a
	// working link; 0 for DefaultGiveUp.
	GiveUp time.Duration
	// RedialFor is how long to try to get a lost link back; 0 for
	// DefaultRedial, negative for no limit.
	RedialFor time.Duration
	// NoRedial makes the loss of a link the end.
	NoRedial bool
	// AliveInterval is the time between websocket pings; 0 for
	// DefaultAliveInterval, negative for none. A link that gives nothing for
	// AliveCount intervals (0 for DefaultAliveCount) is lost.
	AliveInterval time.Duration
	AliveCount    int
	// Notify is told what happens to the Channel, in order, by its loop: it
	// must return at once. Nil for nobody.
	Notify func(Notice)
	// Log gets what is worth knowing when something goes wrong, never a
	// payload or a token; nil for silence.
	Log *slog.Logger
}

// Closed is the good end of a session: the service said so. It wraps io.EOF.
type Closed struct {
	// Output is the service's text for the user, often empty. It is
	// remote-controlled.
	Output string
	// Incomplete tells that something the agent had sent never arrived.
	Incomplete bool
	// Refused is what this client could not do that the session demanded,
	// which is then why it was closed; often empty.
	Refused string
}

func (c *Closed) Error() string {
	if c.Output != "" {
		return fmt.Sprintf("session closed: %q", c.Output)
	}
	return "session closed"
}

// Unwrap makes errors.Is(err, io.EOF) hold.
func (c *Closed) Unwrap() error { return io.EOF }

// ErrLost says that the session could not be carried on: the agent stopped
// answering, or no socket could be had for too long.
var ErrLost = errors.New("session lost")

// ErrClosed is what Send and Recv return after Close.
var ErrClosed = errors.New("data channel closed")

// Stats counts what a Channel did.
type Stats struct {
	BytesIn, BytesOut int64         // payload
	RoundTrip         time.Duration // smoothed; 0 when none was measured
	Retransmissions   int64
	Resumes           int64
}

// Channel is a data channel. Send and Recv may be called from different
// goroutines; each by one at a time for its order to mean something.
type Channel struct {
	cfg Config

	write   chan *piece   // Send to loop
	read    chan *chunk   // loop to Recv
	spent   chan *chunk   // Recv to loop
	pings   chan *ping    // Alive to loop
	flush   chan struct{} // closed by Close
	closing sync.Once
	started chan struct{} // closed once start is set
	start   frame.Start
	ending  chan struct{} // closed by the loop, or after it
	done    chan struct{} // closed once err and stats are set, after the last chunk was read
	err     error
	stats   Stats

	given   atomic.Int64 // pieces that the loop was given
	settled atomic.Int64 // how many are acknowledged, with all before them; -1 without a link; set by the loop

	last   *chunk // with the caller of Recv
	pieces sync.Pool
}

// piece is a copy of what a Send was given, on its way to the loop.
type piece struct {
	typ frame.PayloadType
	buf []byte
}

// Open begins a Channel and returns at once; dialling goes on behind it. The
// end of ctx ends the Channel, with its cause as the error.
func Open(ctx context.Context, cfg Config) *Channel {
	if cfg.ClientVersion == "" {
		cfg.ClientVersion = DefaultClientVersion
	}
	if cfg.Window <= 0 {
		cfg.Window = DefaultWindow
	}
	if cfg.GiveUp <= 0 {
		cfg.GiveUp = DefaultGiveUp
	}
	if cfg.RedialFor == 0 {
		cfg.RedialFor = DefaultRedial
	}
	if cfg.AliveInterval == 0 {
		cfg.AliveInterval = DefaultAliveInterval
	}
	if cfg.AliveCount <= 0 {
		cfg.AliveCount = DefaultAliveCount
	}
	if cfg.Notify == nil {
		cfg.Notify = func(Notice) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Channel{
		cfg:     cfg,
		write:   make(chan *piece),
		read:    make(chan *chunk),
		spent:   make(chan *chunk, spareChunks),
		pings:   make(chan *ping),
		flush:   make(chan struct{}),
		started: make(chan struct{}),
		ending:  make(chan struct{}),
		done:    make(chan struct{}),
	}
	c.pieces.New = func() any { return &piece{} }
	go c.run(ctx)
	return c
}

// run is the loop's goroutine; done is its visible end.
func (c *Channel) run(ctx context.Context) {
	defer close(c.done)
	l := newLoop(c)
	c.err = c.loop(ctx, l)
	l.tellEnd()
	c.stats = l.stats()
}

func (c *Channel) loop(ctx context.Context, l *loop) (err error) {
	defer crash.Catch(&err)
	return l.run(ctx)
}

// Send sends p as one or more messages of type t, in order, and returns once
// all of it has its place in the window, which is a promise to deliver it. It
// blocks while the window is full, and, but for a Size, until the session has
// started: before that an agent acknowledges input and throws it away. A Size
// must fit one message.
func (c *Channel) Send(ctx context.Context, t frame.PayloadType, p []byte) error {
	limit := min(sendPiece, c.cfg.Window)
	var started <-chan struct{} // nil, never ready, for a Size
	if t != frame.Size {
		started = c.started
		select {
		case <-started:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.done:
			return c.ended()
		}
	}
	for len(p) > 0 {
		n := min(limit, len(p))
		out := c.pieces.Get().(*piece)
		out.typ, out.buf = t, append(out.buf[:0], p[:n]...)
		select {
		case c.write <- out:
			c.given.Add(1)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.done:
			return c.ended()
		}
		p = p[n:]
	}
	return nil
}

// Recv gives what came next from the agent: a message of any type but those of
// the handshake, or several of one byte stream (Output, StdErr) as one piece.
// The bytes are valid until the next call. After the last it returns *Closed,
// or why the Channel ended without being closed.
func (c *Channel) Recv(ctx context.Context) (frame.PayloadType, []byte, error) {
	if c.last != nil {
		select {
		case c.spent <- c.last:
		default: // enough spare ones
		}
		c.last = nil
	}
	select {
	case ch := <-c.read:
		c.last = ch
		return ch.typ, ch.buf, nil
	case <-ctx.Done():
		return 0, nil, context.Cause(ctx)
	case <-c.done:
		return 0, nil, c.ended()
	}
}

// Sent is a mark for Settled: behind all for which a Send has returned.
func (c *Channel) Sent() int64 { return c.given.Load() }

// Settled tells whether all that was sent up to a mark has been acknowledged and there
// is a link: silence is the far end's own, then.
func (c *Channel) Settled(mark int64) bool { return c.settled.Load() >= mark }

// Ending is closed once nothing more will come than what is here already, though
// Recv may not have given all of that yet.
func (c *Channel) Ending() <-chan struct{} { return c.ending }

// ping is the question of an Alive.
type ping struct {
	payload  []byte     // which the service gives back
	answered chan error // has room for the one that comes
}

// Alive asks the service for a sign of life and returns nil once it has come: then
// the connection works, and all that the service had passed on before is here,
// though it may not have been read. Without a link, or when that is lost, it
// returns an error. It is called by one goroutine at a time.
func (c *Channel) Alive(ctx context.Context) error {
	p := &ping{payload: []byte(uuid.NewString()), answered: make(chan error, 1)}
	select {
	case c.pings <- p:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.done:
		return c.ended()
	}
	select {
	case err := <-p.answered:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.done:
		return c.ended()
	}
}

// Started waits until the session has begun and tells what is known of it.
func (c *Channel) Started(ctx context.Context) (frame.Start, error) {
	select {
	case <-c.started:
		return c.start, nil
	case <-ctx.Done():
		return frame.Start{}, context.Cause(ctx)
	case <-c.done:
	}
	select {
	case <-c.started:
		return c.start, nil
	default:
		return frame.Start{}, c.ended()
	}
}

// Close ends the Channel: what is unacknowledged gets a short grace, then the
// socket is dropped. It waits for every goroutine of the Channel and returns
// why the Channel had ended, if not by this call: nil after a *Closed.
func (c *Channel) Close() error {
	c.closing.Do(func() { close(c.flush) })
	<-c.done
	if closed := (*Closed)(nil); errors.As(c.err, &closed) || errors.Is(c.err, ErrClosed) {
		return nil
	}
	return c.err
}

// Stats tells what the Channel did. It is complete after Close only, and empty
// before the Channel has ended.
func (c *Channel) Stats() Stats {
	select {
	case <-c.done:
		return c.stats
	default:
		return Stats{}
	}
}

func (c *Channel) ended() error { return c.err }
