package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// endOfInput is what a terminal sends for the end of a file (Ctrl-D).
const endOfInput = 0x04

// Shell is an interactive session, or a command's: bytes both ways, and the
// terminal's size.
type Shell struct {
	In       Input
	Out, Err io.Writer
	// Term is nil where there is no terminal; no size is sent then.
	Term Terminal
	// Begun is called once, when the session has started. May be nil.
	Begun func(frame.Start)
}

// Run runs the session to its end. The error is never nil: Recv's, which wraps
// io.EOF after a good end, joined with an *ExitError when the remote command told
// a status other than 0; or what went wrong on this side. When ctx ends, it
// returns with the cause even if Out takes nothing; that one write may then
// outlive it.
func (s Shell) Run(ctx context.Context, peer Peer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	side := func(f func(context.Context, Peer) error) {
		wg.Go(func() {
			if err := f(ctx, peer); err != nil {
				cancel(err)
			}
		})
	}
	side(s.input)
	if s.Term != nil {
		side(s.sizes)
	}
	side(s.watchStart)

	ended := make(chan error, 1)
	go func() { ended <- s.output(ctx, peer) }()
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
			return fmt.Errorf("writing output: %w", err)
		}
	}
}

// input carries the user's bytes. Their end is the end of input for the far
// end too, as far as a terminal has one: Ctrl-D ends a line's worth of input,
// so what does not end with a line break takes two.
func (s Shell) input(ctx context.Context, peer Peer) error {
	last := byte('\n')
	for {
		p, err := s.In.Read(ctx)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				return quiet(ctx, err)
			}
			end := []byte{endOfInput}
			if last != '\n' && last != '\r' {
				end = append(end, endOfInput)
			}
			return quiet(ctx, peer.Send(ctx, frame.Output, end))
		}
		if len(p) == 0 {
			continue
		}
		last = p[len(p)-1]
		if err := peer.Send(ctx, frame.Output, p); err != nil {
			return quiet(ctx, err)
		}
	}
}

// sizes tells the far end the size: at once, for an agent that has its pty
// before it says anything; again when the session has started, because an agent
// throws away what comes before; and after each change.
func (s Shell) sizes(ctx context.Context, peer Peer) error {
	resized := s.Term.Resized(ctx)
	if err := s.sendSize(ctx, peer); err != nil {
		return err
	}
	if _, err := peer.Started(ctx); err != nil {
		return quiet(ctx, err)
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
	if s.Begun != nil {
		s.Begun(start)
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
