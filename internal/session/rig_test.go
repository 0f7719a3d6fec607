package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// message is what went to or came from the far end.
type message struct {
	typ     frame.PayloadType
	payload string
}

func (m message) String() string { return fmt.Sprintf("type %d %q", m.typ, m.payload) }

func typed(s string) message { return message{frame.Output, s} }

func size(cols, rows int) message {
	return message{frame.Size, fmt.Sprintf(`{"cols":%d,"rows":%d}`, cols, rows)}
}

// rig runs a Shell in a bubble between a far end, a terminal and a keyboard that
// the test plays. Its channels are made in the bubble.
type rig struct {
	t      *testing.T
	shell  Shell
	out    bytes.Buffer // what Out got; not to be read while Run writes
	err    bytes.Buffer
	peer   *farEnd
	typing chan []byte // closed by endInput
	inErr  error       // what Input gives once typing is closed
	cancel context.CancelCauseFunc
	result chan error
}

// newRig gives a rig whose shell has no terminal and whose session has not
// started.
func newRig(t *testing.T) *rig {
	r := &rig{
		t:      t,
		typing: make(chan []byte),
		inErr:  io.EOF,
		result: make(chan error, 1),
		peer: &farEnd{
			sent:    make(chan message, 100),
			coming:  make(chan message),
			ended:   make(chan struct{}),
			started: make(chan struct{}),
		},
	}
	r.shell = Shell{In: keyboard{r}, Out: &r.out, Err: &r.err}
	return r
}

// run starts the session. It is ended by the test, by end or by stop.
func (r *rig) run() {
	ctx, cancel := context.WithCancelCause(r.t.Context())
	r.cancel = cancel
	go func() { r.result <- r.shell.Run(ctx, r.peer) }()
	synctest.Wait()
}

// start tells that the session has begun.
func (r *rig) start(s frame.Start) {
	r.peer.start = s
	close(r.peer.started)
	synctest.Wait()
}

// say lets something come from the far end, which waits until it is taken.
func (r *rig) say(t frame.PayloadType, payload string) { r.peer.coming <- message{t, payload} }

// end is the end of the session by the far end, for the reason of err.
func (r *rig) end(err error) {
	r.peer.err = err
	close(r.peer.ended)
}

// press lets the user send something, and waits until it is on its way.
func (r *rig) press(keys string) {
	r.typing <- []byte(keys)
	synctest.Wait()
}

// endInput ends the user's side.
func (r *rig) endInput(err error) {
	r.inErr = err
	close(r.typing)
	synctest.Wait()
}

// wantSent compares all that was sent since the last call.
func (r *rig) wantSent(why string, want ...message) {
	r.t.Helper()
	synctest.Wait()
	var got []message
	for len(r.peer.sent) > 0 {
		got = append(got, <-r.peer.sent)
	}
	if !slices.Equal(got, want) {
		r.t.Errorf("%s: the far end was sent %v, want %v", why, got, want)
	}
}

// wantRunning fails when the session is over.
func (r *rig) wantRunning(why string) {
	r.t.Helper()
	synctest.Wait()
	select {
	case err := <-r.result:
		r.t.Fatalf("%s: the session has ended: %v", why, err)
	default:
	}
}

// wait gives what Run returned. In a bubble a Run that never returns is a
// deadlock, which fails the test.
func (r *rig) wait() error {
	err := <-r.result
	r.cancel(nil)
	return err
}

// farEnd is a Peer that the test plays.
type farEnd struct {
	sent    chan message
	coming  chan message
	ended   chan struct{} // closed once err is set
	err     error
	started chan struct{} // closed once start is set
	start   frame.Start
	sendErr error         // what Send gives instead of sending; set before run
	full    chan struct{} // when not nil, Send waits for it: a window that is full
}

func (f *farEnd) Send(ctx context.Context, t frame.PayloadType, p []byte) error {
	if t != frame.Size { // as a data channel does
		if _, err := f.Started(ctx); err != nil {
			return err
		}
	}
	if f.full != nil {
		select {
		case <-f.full:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if f.sendErr != nil {
		return f.sendErr
	}
	f.sent <- message{t, string(p)}
	return nil
}

func (f *farEnd) Recv(ctx context.Context) (frame.PayloadType, []byte, error) {
	select {
	case m := <-f.coming:
		return m.typ, []byte(m.payload), nil
	case <-f.ended:
		return 0, nil, f.err
	case <-ctx.Done():
		return 0, nil, context.Cause(ctx)
	}
}

func (f *farEnd) Started(ctx context.Context) (frame.Start, error) {
	select {
	case <-f.started:
		return f.start, nil
	case <-f.ended:
		return frame.Start{}, f.err
	case <-ctx.Done():
		return frame.Start{}, context.Cause(ctx)
	}
}

// keyboard is the Input of a rig.
type keyboard struct{ *rig }

func (k keyboard) Read(ctx context.Context) ([]byte, error) {
	select {
	case p, ok := <-k.typing:
		if !ok {
			return nil, k.inErr
		}
		return p, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// terminal is a Terminal whose size the test sets.
type terminal struct {
	cols, rows int
	err        error
	resized    chan struct{}
}

func newTerminal(cols, rows int) *terminal {
	return &terminal{cols: cols, rows: rows, resized: make(chan struct{})}
}

func (t *terminal) Size() (cols, rows int, err error) { return t.cols, t.rows, t.err }

func (t *terminal) Resized(context.Context) <-chan struct{} { return t.resized }

// resize changes the size, tells it and waits until that has had its effect.
func (t *terminal) resize(cols, rows int) {
	synctest.Wait() // Size may still be asked
	t.cols, t.rows, t.err = cols, rows, nil
	t.resized <- struct{}{}
	synctest.Wait()
}

// errClosed is the good end of a data channel.
var errClosed = fmt.Errorf("session closed: %w", io.EOF)

// errLost is a bad one.
var errLost = errors.New("session lost")
