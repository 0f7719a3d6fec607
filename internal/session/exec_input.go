package session

import (
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// feeder is the side of an Exec in Framed that sends. One goroutine reads the
// script and the input and makes frames of them, another sends, so that an
// interrupt never waits for the command to take its input.
type feeder struct {
	exec   Exec
	begun  chan struct{} // closed when the wrapper listens
	groups chan string   // the command's process group; has room for it
	acks   chan struct{} // has room for the one that is waited for
	frames chan []byte   // from read to send
}

func newFeeder(x Exec) *feeder {
	return &feeder{
		exec:   x,
		begun:  make(chan struct{}),
		groups: make(chan string, 1),
		acks:   make(chan struct{}, 1),
		frames: make(chan []byte),
	}
}

// started is of frameListener, called once.
func (f *feeder) started() { close(f.begun) }

// group is of frameListener.
func (f *feeder) group(id string) {
	select {
	case f.groups <- id:
	default: // it was told before
	}
}

// taken is of frameListener.
func (f *feeder) taken() {
	select {
	case f.acks <- struct{}{}:
	default: // nothing more was sent than one frame
	}
}

// read makes frames of the script and of the input, each with its end.
func (f *feeder) read(ctx context.Context, _ Peer) error {
	select {
	case <-f.begun:
	case <-ctx.Done():
		return nil
	}
	var buf inputFrames
	if f.exec.Script != nil {
		if !f.pass(ctx, &buf, f.exec.Script) || !f.hand(ctx, endFrame()) {
			return nil
		}
	}
	for f.exec.In != nil {
		p, err := f.exec.In.Read(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return quiet(ctx, err)
		}
		if !f.pass(ctx, &buf, p) {
			return nil
		}
	}
	f.hand(ctx, endFrame())
	return nil
}

// endFrame tells the end of the script or of the input.
func endFrame() []byte { return []byte("e\n") }

// pass hands over p in frames, and tells whether there still is somebody to take
// them.
func (f *feeder) pass(ctx context.Context, buf *inputFrames, p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), maxInput)
		if !f.hand(ctx, buf.next(p[:n])) {
			return false
		}
		p = p[n:]
	}
	return true
}

func (f *feeder) hand(ctx context.Context, b []byte) bool {
	select {
	case f.frames <- b:
		return true
	case <-ctx.Done():
		return false
	}
}

// inputFrames makes frames in two buffers by turns: who takes one is done with
// the one before.
type inputFrames struct {
	buf  [2][]byte
	turn int
}

func (i *inputFrames) next(p []byte) []byte {
	b := append(i.buf[i.turn][:0], "d "...)
	b = strconv.AppendInt(b, int64(len(p)), 10)
	b = append(b, '\n')
	b = append(b, p...)
	i.buf[i.turn] = b
	i.turn = 1 - i.turn
	return b
}

// send sends frames, each when the one before was taken, and signals, each when
// it is known to whom. Nothing is sent before the wrapper listens: the terminal
// would still change or echo it.
func (f *feeder) send(ctx context.Context, peer Peer) error {
	var group string
	var interrupted, killed bool
	waiting := false // for the last frame to be taken
	groups, interrupt, kill := f.groups, f.exec.Interrupt, f.exec.Kill
	for {
		frames := f.frames
		if waiting {
			frames = nil
		}
		var out []byte
		select {
		case <-ctx.Done():
			return nil
		case group = <-groups:
			groups = nil // the first is the command's
		case <-f.acks:
			waiting = false
		case _, ok := <-interrupt:
			if interrupted = interrupted || ok; !ok {
				interrupt = nil
			}
		case _, ok := <-kill:
			if killed = killed || ok; !ok {
				kill = nil
			}
		case out = <-frames:
			waiting = out[0] == 'd'
		}
		if group != "" && interrupted {
			out, interrupted = signalFrame('i', group), false
		}
		if group != "" && killed {
			out, killed = append(out, signalFrame('k', group)...), false
		}
		if out == nil {
			continue
		}
		if err := peer.Send(ctx, frame.Output, out); err != nil {
			return quiet(ctx, err)
		}
	}
}

// signalFrame asks for a signal to a process group: i for an interrupt, k for
// the end.
func signalFrame(kind byte, group string) []byte {
	return append([]byte{kind, ' '}, group+"\n"...)
}
