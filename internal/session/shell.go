package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// endOfInput is what a terminal sends for the end of a file (Ctrl-D).
const endOfInput = 0x04

// How long to wait before the end of input is told again: it grows from the
// first to the last.
const (
	firstAgain = 100 * time.Millisecond
	lastAgain  = 5 * time.Second
)

// MaxLine is the longest line that a terminal takes, in bytes without the line
// break: Linux's limit. What is longer is cut without a word.
const MaxLine = 4095

// Shell is an interactive session, or a command's: bytes both ways, and the
// terminal's size.
type Shell struct {
	In       Input
	Out, Err io.Writer
	// Piped tells that In is not a keyboard. The terminal at the far end takes
	// it as lines, then; one longer than MaxLine ends the session with a
	// *LineError instead of arriving in part.
	Piped bool
	// Term is nil where there is no terminal; no size is sent then.
	Term Terminal
}

// Run runs the session to its end. The error is never nil: Recv's, which wraps
// io.EOF after a good end, joined with an *ExitError when the remote command told
// a status other than 0; or what went wrong on this side. When ctx ends, it
// returns with the cause even if Out takes nothing; that one write may then
// outlive it.
func (s Shell) Run(ctx context.Context, peer Peer) error {
	sides := []side{s.input, s.watchStart}
	if s.Term != nil {
		sides = append(sides, s.sizes)
	}
	return carry(ctx, peer, s.output, sides...)
}

// side is one of the things that go on at once in a session.
type side func(context.Context, Peer) error

// carry runs the sides of a session until output ends, whose error it returns, or
// until another fails or ctx ends. Then output may outlive it by one write.
func carry(ctx context.Context, peer Peer, output side, others ...side) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	for _, f := range others {
		wg.Go(func() {
			if err := safely(ctx, peer, f); err != nil {
				cancel(err)
			}
		})
	}
	ended := make(chan error, 1)
	go func() { ended <- safely(ctx, peer, output) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// Both may be ready: what the far end said is the better reason.
	select {
	case err := <-ended:
		return err
	default:
		return context.Cause(ctx)
	}
}

// safely calls f and turns its panic into an error, for a goroutine.
func safely(ctx context.Context, peer Peer, f side) (err error) {
	defer crash.Catch(&err)
	return f(ctx, peer)
}

// output carries what comes to where it belongs, until the session ends.
func (s Shell) output(ctx context.Context, peer Peer) error {
	var exit *ExitError
	for {
		typ, p, err := peer.Recv(ctx)
		if err != nil {
			if exit != nil && errors.Is(err, io.EOF) {
				return errors.Join(exit, err)
			}
			return err
		}
		switch typ {
		case frame.Output:
			_, err = s.Out.Write(p)
		case frame.StdErr:
			_, err = s.Err.Write(p)
		case frame.ExitCode:
			code, parseErr := frame.ParseExitCode(p)
			if parseErr != nil {
				return parseErr
			}
			if exit = nil; code != 0 {
				exit = &ExitError{code}
			}
		}
		if err != nil {
			return &WriteError{err}
		}
	}
}

// input carries the user's bytes, then their end.
func (s Shell) input(ctx context.Context, peer Peer) error {
	var line pipedLine
	for {
		p, err := s.In.Read(ctx)
		if errors.Is(err, io.EOF) {
			return quiet(ctx, s.endInput(ctx, peer, &line))
		}
		if err != nil {
			return quiet(ctx, err)
		}
		whole, tooLong := line.add(p)
		if s.Piped && tooLong {
			p = p[:whole]
		}
		if len(p) > 0 {
			if err := peer.Send(ctx, frame.Output, p); err != nil {
				return quiet(ctx, err)
			}
		}
		if s.Piped && tooLong {
			return &LineError{}
		}
	}
}

// endInput tells the end of the user's bytes as far as a terminal can. It is told
// again and again: each only ends one read of one program, and one that comes
// while a program changes the terminal's mode is lost.
func (s Shell) endInput(ctx context.Context, peer Peer, line *pipedLine) error {
	if s.Piped && line.length > 0 {
		// Half a line would wait for its Enter for ever.
		if err := peer.Send(ctx, frame.Output, []byte{'\n'}); err != nil {
			return err
		}
	}
	for again := firstAgain; ; again = min(2*again, lastAgain) {
		if err := peer.Send(ctx, frame.Output, []byte{endOfInput}); err != nil {
			return err
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pipedLine measures the last line of what was sent.
type pipedLine struct{ length int }

// add takes what comes next. When it makes a line too long, whole is how much of
// p is in the lines before.
func (l *pipedLine) add(p []byte) (whole int, tooLong bool) {
	for i, b := range p {
		if b == '\n' || b == '\r' {
			l.length, whole = 0, i+1
			continue
		}
		if l.length++; l.length > MaxLine {
			return whole, true
		}
	}
	return len(p), false
}

// sizes tells the far end the size: at once and again until the session has
// started, for an agent that has its pty before it says anything; when it has
// started, because an agent acknowledges and throws away what comes before; and
// after each change.
func (s Shell) sizes(ctx context.Context, peer Peer) error {
	resized := s.Term.Resized(ctx)
	for again, started := firstAgain, false; !started; again *= 2 {
		if err := s.sendSize(ctx, peer); err != nil {
			return err
		}
		var err error
		if started, err = startedWithin(ctx, peer, again); err != nil {
			return quiet(ctx, err)
		}
	}
	for {
		if err := s.sendSize(ctx, peer); err != nil {
			return err
		}
		select {
		case _, ok := <-resized:
			if !ok {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// startedWithin waits for the start, but not for long.
func startedWithin(ctx context.Context, peer Peer, limit time.Duration) (bool, error) {
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := peer.Started(short)
	if err != nil && short.Err() != nil && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, err
}

func (s Shell) sendSize(ctx context.Context, peer Peer) error {
	cols, rows, err := s.Term.Size()
	if err != nil {
		return nil //nolint:nilerr // no size is no reason to end a session
	}
	payload, err := json.Marshal(frame.TerminalSize{Cols: cols, Rows: rows})
	if err != nil {
		return fmt.Errorf("size: %w", err)
	}
	return quiet(ctx, peer.Send(ctx, frame.Size, payload))
}

// watchStart refuses a session that is no shell.
func (s Shell) watchStart(ctx context.Context, peer Peer) error {
	start, err := peer.Started(ctx)
	if err != nil {
		return quiet(ctx, err)
	}
	if start.SessionType == frame.Port {
		return &KindError{start.SessionType}
	}
	return nil
}

// quiet drops an error that only says that the session has ended, which its
// output tells with the reason.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() == nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
