// Package session has the session kinds: what is done over a data channel once
// it is open. Each is a struct with Run(ctx, Peer) error.
//
// It knows payload types and nothing of sequence numbers, sockets, AWS or
// terminals: it meets the data channel through Peer, the terminal through
// Terminal, the keyboard or pipe through Input.
package session

import (
	"context"
	"fmt"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Peer is the far end of a session, as a data channel offers it.
type Peer interface {
	// Send delivers p in order. It blocks while the far end is behind and,
	// but for a Size, until the session has started.
	Send(ctx context.Context, t frame.PayloadType, p []byte) error
	// Recv gives what came next, valid until the next call. After the last
	// it returns an error; one that wraps io.EOF is the good end.
	Recv(ctx context.Context) (frame.PayloadType, []byte, error)
	// Started waits for the start.
	Started(ctx context.Context) (frame.Start, error)
}

// Input is what the user sends: keys or a pipe. A Read can be abandoned, which
// an io.Reader's cannot. The bytes are valid until the next call; io.EOF ends
// them.
type Input interface {
	Read(ctx context.Context) ([]byte, error)
}

// Terminal is the terminal whose size the far end should know.
type Terminal interface {
	// Size is in character cells. An error means that there is no size.
	Size() (cols, rows int, err error)
	// Resized gives a value after each change, until ctx ends.
	Resized(ctx context.Context) <-chan struct{}
}

// ExitError is the status that the remote command ended with, when it told and
// was not 0. A session kind that ends well without one tells nothing: those are
// different facts.
type ExitError struct {
	Code int64 // as the agent gives it; -1 is a death by signal
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("remote command exited with status %d", e.Code)
}

// KindError is a session of a kind that cannot be run as asked.
type KindError struct{ SessionType frame.SessionType }

func (e *KindError) Error() string {
	return fmt.Sprintf("the document opens a session of type %s, which is not a shell", e.SessionType)
}

// LineError is a line of input that is longer than MaxLine.
type LineError struct{}

func (*LineError) Error() string {
	return fmt.Sprintf("a line of the input is longer than %d bytes, which is all that a terminal takes", MaxLine)
}

// WriteError is output that could not be written here: a full disk, or a reader
// that went away (EPIPE).
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return "cannot write the output: " + e.Err.Error() }

// Unwrap gives the cause.
func (e *WriteError) Unwrap() error { return e.Err }
