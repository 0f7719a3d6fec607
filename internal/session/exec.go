package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// ExecMode is how a command's bytes and its status travel (docs/exec.md).
type ExecMode int

// The modes. The session's document must fit.
const (
	// Streams is NonInteractiveCommands with separate streams, each of which
	// ends with a marker. There is no input.
	Streams ExecMode = iota
	// Framed is InteractiveCommands with frames both ways over a raw pty.
	Framed
	// OnTerminal is InteractiveCommands with the pty as the command's terminal;
	// its output ends with a marker.
	OnTerminal
	// Plain is NonInteractiveCommands without a wrapper, for a target without
	// sh: the status is the agent's word.
	Plain
)

// NoCode stands for an exit code that the agent did not give.
const NoCode = -2

// What a wrapper of Framed and a terminal understand.
const (
	interruptKey = 0x03     // Ctrl-C
	maxInput     = 32 << 10 // bytes of one frame of input
)

// beginTime is how long after the start an agent may have no command yet.
const beginTime = time.Second

// Exec is one command: its bytes, its status and its interruption. What is sent
// to the target as its command line is made elsewhere, for the same mode and
// nonce.
type Exec struct {
	Mode ExecMode
	// Nonce tells the wrapper's words from the command's: no bracket, no space.
	Nonce string
	// Binary tells that the streams are base64; only in Streams.
	Binary bool
	// Script is sent before all input and nil for none; only in Framed.
	Script []byte
	// In is nil for no input; only in Framed and OnTerminal.
	In       Input
	Out, Err io.Writer
	// Term is nil where there is no terminal; only in OnTerminal.
	Term Terminal
	// Interrupt gives a value for each interrupt to be passed on, and has room for
	// one; nil for none.
	// An agent takes only one of a command in Streams and Plain, and none before
	// there is one: no second is sent, and the first not in the first second unless
	// there was output.
	Interrupt <-chan struct{}
	// Kill gives a value when the command's process group is to be killed; only
	// in Framed, nil for never.
	Kill <-chan struct{}
	// Check finds out whether the output of a command that says nothing would
	// still come; only in Streams.
	Check Check
	// NotText is told once, at the first output that is not UTF-8, in which
	// stream that was: "stdout" or "stderr". An agent may have changed such
	// output. Nil for nobody; never called for what travels encoded.
	NotText func(stream string)
}

// Status is how the command ended: by itself with 0 to 255, or with 128 and the
// number of a signal. It is an error value for 0 too, and says nothing of the
// session, which may still be open.
type Status struct{ Code int64 }

func (s *Status) Error() string { return fmt.Sprintf("the command ended with status %d", s.Code) }

// StatusError is a status of the agent's that tells of no status of the
// command: -1, a death by a signal that it does not name.
type StatusError struct{ Code int64 }

func (*StatusError) Error() string {
	return "the command was ended by a signal, and the agent does not tell by which"
}

// ErrNoStatus is the end of a session that told no status.
var ErrNoStatus = errors.New("the session ended without the command's status")

// IncompleteError is output that did not come to its end. The command's status is
// not known then, whatever the agent says.
type IncompleteError struct {
	Code int64 // the agent's, or NoCode
	Err  error
}

func (e *IncompleteError) Error() string { return "the output is incomplete: " + e.Err.Error() }

// Unwrap gives the cause.
func (e *IncompleteError) Unwrap() error { return e.Err }

// NoShellError is a target that has no sh, on which nothing was run.
type NoShellError struct {
	Text string // the agent's, remote-controlled
	Err  error  // how the session ended
}

func (e *NoShellError) Error() string {
	return fmt.Sprintf("there is no sh on the target: %q", e.Text)
}

// Unwrap gives the cause.
func (e *NoShellError) Unwrap() error { return e.Err }

// CannotError is a target that cannot run the command in this mode.
type CannotError struct {
	Text string // why; remote-controlled
	Err  error  // how the session ended, or nil when it is still open
}

func (e *CannotError) Error() string {
	return fmt.Sprintf("the target cannot run the command like this: %q", e.Text)
}

// Unwrap gives the cause.
func (e *CannotError) Unwrap() error { return e.Err }

// Run runs the command to its end, and never returns nil. A *Status is the
// command's; the session may then still be open. An *IncompleteError, a
// *NoShellError, a *CannotError, a *StatusError and ErrNoStatus are what their
// names say, a *WriteError output that could not be written here; Recv's error
// at the end of the session is wrapped in them or joined. Other errors are Recv's,
// Send's and the input's as they are. When ctx ends, Run returns with the cause
// even if Out takes nothing; that one write may then outlive it.
func (x Exec) Run(ctx context.Context, peer Peer) error {
	feed := newFeeder(x)
	r := newExecOutput(x, feed)
	sides := []side{Shell{}.watchStart}
	switch x.Mode {
	case Framed:
		sides = append(sides, feed.send, feed.read)
	case OnTerminal:
		sides = append(sides, x.interrupts)
		shell := Shell{In: x.In, Term: x.Term}
		if x.In != nil {
			sides = append(sides, shell.input)
		}
		if x.Term != nil {
			sides = append(sides, shell.sizes)
		}
	default:
		sides = append(sides, func(ctx context.Context, peer Peer) error {
			return r.interruptOnce(ctx, peer, x.Interrupt)
		})
	}
	if r.watch != nil {
		sides = append(sides, r.watch.run)
	}
	return carry(ctx, peer, r.run, sides...)
}

// interrupts passes interrupts on as the key that a terminal knows.
func (x Exec) interrupts(ctx context.Context, peer Peer) error {
	for {
		select {
		case _, ok := <-x.Interrupt:
			if !ok {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
		if err := peer.Send(ctx, frame.Output, []byte{interruptKey}); err != nil {
			return quiet(ctx, err)
		}
	}
}

// interruptOnce passes the first interrupt on, which the agent makes a signal of. Then
// it waits for the command, and takes no more input. It has no command yet for a while
// after the handshake: an interrupt then stops AWS's agent listening for good, and the
// command goes on. So it is sent once there is output, or beginTime after the start.
func (r *execOutput) interruptOnce(ctx context.Context, peer Peer, interrupt <-chan struct{}) error {
	if _, err := peer.Started(ctx); err != nil {
		return quiet(ctx, err)
	}
	begun := time.NewTimer(beginTime)
	defer begun.Stop()
	for sent := false; ; {
		select {
		case _, ok := <-interrupt:
			if !ok {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
		if sent {
			continue
		}
		select {
		case <-r.begun:
		case <-begun.C:
		case <-ctx.Done():
			return nil
		}
		sent = true
		if err := peer.Send(ctx, frame.Output, []byte{interruptKey}); err != nil {
			return quiet(ctx, err)
		}
	}
}
