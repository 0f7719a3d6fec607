package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/remote"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// run runs the command, on a target without sh as far as that goes.
func (c *execCommand) run(ctx context.Context, cmd *cobra.Command) (err error) {
	c.hintInput()
	defer c.hintInput()
	ctx, stop := c.limit.begin(ctx, c.timeout, c.grace)
	defer stop()
	if c.open.target == localTarget { // whose emulator is the session's own
		defer heedForChildren()()
	} else {
		c.open.shared = &sharing{}
		defer func() {
			if late := errors.Join(c.open.shared.end()...); late != nil {
				err = c.env.and(err, late)
			}
		}()
	}
	x := session.Exec{Mode: c.mode(), Nonce: remote.NewNonce(), Binary: c.binary}
	command, err := c.line(&x)
	if err != nil {
		return usage(cmd, err)
	}
	err = c.attempt(ctx, x, command)
	if without := (*session.NoShellError)(nil); errors.As(err, &without) {
		if command, err = c.program.Plain(); err != nil || cmd.Flags().Changed("shell") {
			return &failure{code: "NotSupported", err: fmt.Errorf("this needs a sh on the target, which has none: %s", oneLine(without.Text))}
		}
		c.env.say("the target has no sh: the command runs without, and a death by signal is not told from a failure")
		err = c.attempt(ctx, session.Exec{Mode: session.Plain}, command)
	}
	if r := c.env.result; r.out.cut || r.err.cut {
		c.env.say("the output is longer than %s (--max-output): the rest was dropped", c.maxOutput)
	}
	return c.limit.result(err)
}

// line makes the command line that x sends, and another x where that one cannot
// carry it.
func (c *execCommand) line(x *session.Exec) (command string, err error) {
	switch x.Mode {
	case session.Plain:
		return c.program.Plain()
	case session.OnTerminal:
		c.program.Sized = c.terminal.OutIsTerminal()
		return c.program.Terminal(x.Nonce)
	case session.Streams:
		command, err = c.program.Streams(x.Nonce, x.Binary)
		if cannot := errors.Is(err, remote.ErrTooLong) || errors.Is(err, remote.ErrNotText); !cannot || c.via == viaStreams {
			return command, err
		}
		c.env.log.Debug("exec goes over a pty", "why", err)
	}
	x.Mode, x.Binary = session.Framed, false // all frames are
	command, x.Script, err = c.program.Framed(x.Nonce)
	return command, err
}

// attempt runs the command in one session.
func (c *execCommand) attempt(ctx context.Context, x session.Exec, command string) error {
	piped := x.Mode == session.Streams || x.Mode == session.Plain
	document, parameters := documentPty, map[string][]string{"command": {command}}
	if piped {
		document = documentStreams
		parameters["separateOutputStream"] = []string{"true"}
	}
	maps.Copy(parameters, c.parameters)
	c.open.document, c.open.parsed = cmp.Or(c.document, document), parameters
	c.env.result.Document, c.env.result.SessionID = c.open.document, ""
	lost := make(losses, 1)
	c.env.noticed = lost.notice
	err := c.open.hold(ctx, c.env, func(ctx context.Context, peer session.Peer) error { return c.body(ctx, peer, x, lost) })
	switch {
	case err == nil: // nobody's status is a success
		err = session.ErrNoStatus
	case piped:
		err = c.suggestPty(err)
	}
	return err
}

// body runs x over one data channel.
func (c *execCommand) body(ctx context.Context, peer session.Peer, x session.Exec, lost losses) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	if err := c.suits(ctx, peer, x.Mode); err != nil {
		return err
	}
	r := newReins(x.Mode == session.Framed, cancel)
	x.Interrupt, x.Kill = r.interrupt, r.kill
	defer c.env.interrupts.passTo(r.pull)()
	wg.Go(func() { crash.Guard(cancel, func() { c.limit.watch(ctx, r) }) })

	x.Out, x.Err = tty.NewWriter(c.env.out), tty.NewWriter(c.env.err)
	if c.env.result.asked {
		x.Out, x.Err = &c.env.result.out, &c.env.result.err
	}
	switch x.Mode {
	case session.OnTerminal:
		restore := c.takeTerminal(ctx, peer, &x, cancel)
		defer func() { err = errors.Join(err, restore()) }()
	case session.Framed:
		if c.stdin {
			x.In = newInput(c.env.in, &tty.Escapes{}, func(tty.Action) {})
		}
	default:
		x.NotText = c.notText(x.Mode)
	}
	if x.Mode == session.Streams {
		x.Check = c.newChecks(x.Nonce, lost)
	}
	return x.Run(ctx, peer)
}

// suits refuses a session whose agent would mix the outputs, before any of them is
// shown. It is asked only where agents tell: a command on a pty may be the first to
// say anything.
func (c *execCommand) suits(ctx context.Context, peer session.Peer, mode session.ExecMode) error {
	if mode != session.Streams && mode != session.Plain {
		return nil
	}
	start, err := peer.Started(ctx)
	switch {
	case err != nil, start.AgentVersion == "":
		return nil //nolint:nilerr // Run tells why there is no start
	case start.SessionType != frame.NonInteractiveCommands:
		return &failure{code: "NotSupported", err: fmt.Errorf("the document %s opens a session of type %s, and this takes one of type %s",
			oneLine(c.open.document), oneLine(string(start.SessionType)), frame.NonInteractiveCommands)}
	case session.AgentBefore(start.AgentVersion, separatingAgent):
		return &failure{code: "NotSupported", hint: "--via pty does without such an agent",
			err: fmt.Errorf("the agent on the target is %s: before %s, none tells stdout from stderr, nor a status",
				oneLine(start.AgentVersion), separatingAgent)}
	}
	return nil
}

// takeTerminal gives this terminal to x, as far as there is one.
func (c *execCommand) takeTerminal(ctx context.Context, peer session.Peer, x *session.Exec, cancel context.CancelCauseFunc) (restore func() error) {
	if c.terminal.OutIsTerminal() {
		x.Term = c.terminal
	}
	switch {
	case c.terminal.InIsTerminal():
		k := newKeyboard(c.env, c.terminal, peer, c.open.escapes, func() { cancel(errLeft) })
		x.In, x.Out = k, k.gate(ctx, x.Out)
		return k.restore
	case c.stdin:
		x.In = newInput(c.env.in, &tty.Escapes{}, func(tty.Action) {})
	}
	return func() error { return nil }
}

// errLeft is the cause of a command that the user left by the escape. Nobody
// knows its status.
var errLeft = errors.New("left before the command had ended")

// notText tells of output that the agent changes.
func (c *execCommand) notText(mode session.ExecMode) func(string) {
	hint := "; --binary carries it unchanged"
	switch {
	case c.binary:
		return nil
	case mode == session.Plain:
		hint = ""
	}
	return func(stream string) {
		c.env.warn("%s is not UTF-8, and the agent may have changed it%s", stream, hint)
	}
}

// separatingAgent is the first agent that tells stdout from stderr, and a status
// (docs/protocol.md, "NonInteractiveCommands").
const separatingAgent = "3.1.1511"

// lostHint is what to do about output that was lost.
const lostHint = "the command may have ended or not; --via pty rides out a pause of the service and a lost connection"

// suggestPty adds the way out for whoever may not use the document for pipes, whose
// agent does not know its kind of session or whose connection was lost.
func (c *execCommand) suggestPty(err error) error {
	hint := "--via pty needs only " + documentPty
	var (
		refused    *api.Error
		fail       *failure
		incomplete *session.IncompleteError
	)
	switch {
	case errors.As(err, &incomplete):
		if incomplete.Code > 0 && !c.env.troubled.Load() && c.env.result.stats.Resumes == 0 {
			return &failure{code: "Incomplete", err: err, hint: "a target without sh, such as Windows, needs --plain"}
		}
		// An agent that is paused stops reading separate streams for good.
		return &failure{code: "Incomplete", err: err, hint: lostHint}
	case errors.As(err, &fail) && fail.code == "Incomplete": // as the channel saw it
		return &failure{code: fail.code, err: err, hint: lostHint}
	case c.document != "":
		return err // which the user knows
	case errors.As(err, &fail) && fail.code == "NotBegun":
		return &failure{code: fail.code, err: err, hint: hint}
	case c.env.result.SessionID == "" && errors.As(err, &refused):
		switch refused.Code {
		case "AccessDeniedException", "InvalidDocument", "DoesNotExistException":
			if refused.Hint != "" {
				hint = refused.Hint + "; or: " + hint
			}
			return &failure{code: refused.Code, err: err, hint: hint}
		}
	}
	return err
}
