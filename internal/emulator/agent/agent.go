// Package agent plays the managed node of one session: what AWS's own agent
// does once a session has been handed to it, from its first message on the data
// channel to its last. See docs/protocol.md, "The agent".
//
// It is faithful rather than convenient: its order of messages, its pauses and
// its losses are those of the real agent, so that a client that works against
// it works against a node. Where it differs, a comment says why.
//
// It knows frames, ptys and processes. It knows no HTTP, no websocket, no token
// and no other session: it speaks over a Leg.
//
// Who owns what: Run owns the session. Three goroutines live as long as the
// data channel does: receive takes messages off the leg, process puts input in
// order and hands it to the program, resend repeats what is not acknowledged.
// The program's output is read by one goroutine a stream. All of them, and
// every process, are gone when Run returns.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Leg is the agent's own data channel socket, seen from the agent: whole
// messages, in order. Send is called by one goroutine at a time, and so is
// Receive.
type Leg interface {
	// Send passes one message on. It blocks while the gateway takes nothing.
	// The message may be reused by the caller after the return.
	Send(ctx context.Context, message []byte) error
	// Receive gives the next message for the agent, valid until the next
	// Receive. An error is final.
	Receive(ctx context.Context) ([]byte, error)
}

// Config says which session to play, and as what.
type Config struct {
	SessionID string
	TargetID  string // of this node
	// Version is the agent version to play, such as "3.3.0.0": what an older
	// agent could not do, this one cannot either.
	Version  string
	Document Document
	// Shell is the command line of Standard_Stream's shell; AWS's agent runs
	// "sh", and so does this one when it is empty.
	Shell []string
	// ContainerMode is how the agent runs in a container of ECS: a command on a pty
	// is split into words and run without a shell.
	ContainerMode bool
	// Env is the environment of commands; nil is that of this process.
	Env []string
	// Dir is the working directory of commands; empty is that of this process.
	Dir string
	// Pace slows the agent down as AWS's is; the zero value does not.
	Pace Pace
	// KMSKeyID is the key that sessions other than tunnels are encrypted with; empty:
	// they are not. KMS is asked for the data key, and not nil then.
	KMSKeyID string
	KMS      Decrypter
	// Faults are for trying clients.
	Faults Faults
	// Log gets what the agent has to tell, never a byte of payload. It may be nil.
	Log *slog.Logger
}

// Pace is how long AWS's agent waits for no other reason than to wait.
type Pace struct {
	// PerMessage is the wait after each message of output. Output of separate
	// streams does not have it.
	PerMessage time.Duration
	// BeforePrompt is the wait before the first byte of a pty is read. The
	// waits before the reason of a failed start are one and two of these.
	BeforePrompt time.Duration
}

// RealPace is the pace of AWS's agent (docs/protocol.md, "Output of the agent").
//
//nolint:gochecknoglobals // a constant, which Go does not have of this type
var RealPace = Pace{PerMessage: time.Millisecond, BeforePrompt: time.Second}

// Document is a session document with its parameters filled in.
type Document struct {
	SessionType          frame.SessionType
	Command              string // of the two command types
	SeparateOutputStream bool
	StdOutPrefix         string          // with SeparateOutputStream
	StdErrPrefix         string          // with SeparateOutputStream
	ShellProfile         string          // typed into the pty first, for Standard_Stream
	Properties           json.RawMessage // announced in a handshake; null for the shell types
}

// The states of a Result.
const (
	StatusSuccess   = "Success"
	StatusFailed    = "Failed"
	StatusCancelled = "Cancelled"
)

// Result is what the agent reports to the service when a session has ended. A
// session that was cancelled while its program ran is a success, as AWS has it.
type Result struct {
	Status string // one of the states above
	Output string // for the user, mostly empty
}

// States of agent_session_state.
const (
	stateConnected   = "Connected"
	stateTerminating = "Terminating"
)

// errOver is the cause of cancellation for what outlived the session.
var errOver = errors.New("the session is over")

// session is one session being played.
type session struct {
	cfg     Config
	channel *channel
	log     *slog.Logger
	readers sync.WaitGroup // of the program's output

	clientVersion string // as the handshake told it
}

// Run plays the session until its program ends or ctx is cancelled, which is
// what a channel_closed towards the agent is; a leg that fails is the same. It
// returns once every process and goroutine of the session is gone, some three
// seconds after the cancellation at the latest.
func Run(ctx context.Context, cfg Config, leg Leg) Result {
	s := &session{cfg: cfg, log: cfg.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if !plays(cfg.Version, cfg.Document.SessionType) {
		// The words of an agent that meets a document of a later age.
		return Result{StatusFailed, fmt.Sprintf("Plugin with name %[1]s is not supported by this version "+
			"of ssm agent, please update to latest version. Step name: %[1]s", cfg.Document.SessionType)}
	}

	late, err := newLateRequest(cfg)
	if err != nil {
		return failed(err.Error())
	}
	c, running := newChannel(ctx, leg, cfg.Version, s.log)
	s.channel = c
	c.encryption = newEncryption(cfg)
	c.late = late
	var owned sync.WaitGroup
	owned.Go(c.receive)
	owned.Go(c.process)
	owned.Go(c.resend)
	owned.Go(func() { c.limit(running) })

	result := s.play(running)
	c.drain()

	c.end(errOver)
	s.readers.Wait()
	owned.Wait()
	return result
}

// play is the session worker: state, handshake, program (docs/protocol.md,
// "Session worker").
func (s *session) play(ctx context.Context) Result {
	s.channel.sendState(s.cfg.SessionID, stateConnected)

	// The handler of a command is there from the start and has its input
	// acknowledged; that of a pty comes with the pty, that of a tunnel with the tunnel.
	command := &command{}
	kind := s.cfg.Document.SessionType
	if kind == frame.NonInteractiveCommands {
		s.channel.handle(command.input)
	}
	if kind == frame.NonInteractiveCommands || kind == frame.Port || s.channel.encryption != nil {
		if err := s.handshake(ctx); err != nil {
			if ctx.Err() != nil && !errors.Is(err, errRefused) {
				return Result{Status: StatusCancelled}
			}
			return failed(fmt.Sprintf("Encountered error while initiating handshake. %v", err))
		}
	} else {
		s.channel.open()
	}
	switch {
	case ctx.Err() != nil:
		return Result{Status: StatusCancelled}
	case kind == frame.NonInteractiveCommands:
		return s.runCommand(ctx, command)
	case kind == frame.Port:
		return s.runPort(ctx)
	default:
		return s.runPTY(ctx)
	}
}

// Parts of a failure's text, and its limit in bytes.
const (
	errorTitle     = "\n----------ERROR-------\n"
	errorTruncated = "\n---Error truncated----"
	outputLimit    = 2500
)

// agentError is an error in the words of AWS's agent, which reach the user.
type agentError string

// Error gives the words.
func (e agentError) Error() string { return string(e) }

// failed is a session marked as failed: its reason reaches the user under a
// title.
func failed(text string) Result {
	if room := outputLimit - len(errorTitle); len(text) >= room {
		text = text[:room-len(errorTruncated)] + errorTruncated
	}
	return Result{StatusFailed, errorTitle + text}
}

// sleep waits for d, or less when ctx ends, whose cause it returns then.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close closes what a program was connected with; twice does not matter.
func (s *session) close(c io.Closer) {
	if err := c.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		s.log.Warn("cannot close the program's end", "err", err)
	}
}

// onCancel runs f when ctx ends. The function it returns forbids that, or waits
// for f when it has begun.
func onCancel(ctx context.Context, f func()) (stop func()) {
	done := make(chan struct{})
	forbid := context.AfterFunc(ctx, func() {
		defer close(done)
		f()
	})
	return func() {
		if !forbid() {
			<-done
		}
	}
}
