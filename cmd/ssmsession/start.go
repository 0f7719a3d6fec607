package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// startCommand is ssmsession start.
type startCommand struct {
	env   *env
	open  opening
	begun atomic.Bool
}

func newStart(e *env) *cobra.Command {
	c := &startCommand{env: e}
	cmd := &cobra.Command{
		Use:   "start [TARGET]",
		Short: "open a shell on a target",
		Long: `Start opens an interactive session on a managed node: a shell, or what the
session document says. The keys go to the far end as they are typed, Ctrl-C
included. It ends when the shell does; Enter ~ . leaves it from this side.

The target "local" is this machine, through the built-in emulator: no AWS
account or configuration is needed, nothing listens beyond loopback, and nothing
is left when it ends.

The exit code is 0 when the session ended, whatever the shell's was (a session
carries none), and 255 when it could not be held.`,
		Example: `  ssmsession start --target local
  ssmsession start i-0123456789abcdef0 --profile prod --region eu-west-1
  ssmsession start -t mi-0123456789abcdef0 --reason "ticket 4711"
  ssmsession start -t i-0123456789abcdef0 \
      --document-name AWS-StartInteractiveCommand --parameters command=top`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.open.complete(cmd, args); err != nil {
				return err
			}
			return c.run(cmd.Context())
		},
	}
	c.open.addFlags(cmd.Flags())
	return cmd
}

// run holds one session from StartSession to its end.
func (c *startCommand) run(ctx context.Context) (err error) {
	if c.open.target != localTarget {
		oneProcessor(c.env) // the emulator of "local" has work of its own
	}
	svc, err := c.open.connect(ctx, c.env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.close()) }()
	grant, err := svc.client.Start(ctx, c.open.request())
	if err != nil {
		return err
	}
	ended := false // by the service, so that there is nothing to terminate
	defer func() {
		if !ended {
			err = errors.Join(err, terminate(ctx, svc.client, grant.SessionID))
		}
	}()
	c.env.say("session %s on %s%s", oneLine(grant.SessionID), c.open.target, c.escapeHint())

	config, err := c.open.streamConfig(c.env, svc.client, grant)
	if err != nil {
		return err
	}
	channel := stream.Open(ctx, config)
	peer, stop := newIdler(channel)
	err = c.shell(ctx, peer)
	stop()
	closed := (*stream.Closed)(nil)
	ended = errors.As(err, &closed)
	if closeErr := channel.Close(); closeErr != nil && !errors.Is(err, closeErr) {
		err = errors.Join(err, closeErr)
	}
	return c.conclude(err, closed)
}

// escapeHint tells how to leave, where there are keys to do it with.
func (c *startCommand) escapeHint() string {
	if tty.New(c.env.in, c.env.out).InIsTerminal() {
		return " (Enter ~. leaves it)"
	}
	return ""
}

// shell runs the session with this process's terminal, which is put back
// before it returns.
func (c *startCommand) shell(ctx context.Context, peer session.Peer) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	terminal := tty.New(c.env.in, c.env.out)
	shell := session.Shell{Out: c.env.out, Err: c.env.err}
	shell.Begun = func(s frame.Start) {
		c.begun.Store(true)
		if s.CustomerMessage != "" {
			c.env.say("%s", oneLine(s.CustomerMessage))
		}
	}
	if terminal.OutIsTerminal() {
		shell.Term = terminal
	}
	if !terminal.InIsTerminal() {
		shell.In = newInput(c.env.in)
		return shell.Run(ctx, peer)
	}
	restore, err := terminal.Raw()
	if err != nil {
		return fmt.Errorf("cannot set up the terminal: %w", err)
	}
	defer func() { err = errors.Join(err, restore()) }()
	shell.In = &keys{
		input:   newInput(c.env.in),
		escapes: tty.NewEscapes('~'),
		leave:   func() { cancel(errDisconnected) },
		show: func(help string) {
			_, _ = io.WriteString(c.env.err, help) // as say
		},
	}
	return shell.Run(ctx, peer)
}

// conclude says how the session ended and turns its end into the command's.
func (c *startCommand) conclude(err error, closed *stream.Closed) error {
	switch {
	case errors.Is(err, errDisconnected):
		c.env.say("disconnected")
		return nil
	case closed == nil:
		return err
	case closed.Refused != "":
		return fmt.Errorf("the session was closed because this client could not do what it asked: %s", closed.Refused)
	case closed.Incomplete:
		return errors.New("the session was closed before all of its output had arrived")
	case closed.Output != "" && !c.begun.Load():
		return fmt.Errorf("the session was closed before it began: %s", closed.Output)
	}
	if closed.Output != "" {
		c.env.say("session closed: %s", oneLine(closed.Output))
	}
	if exit := (*session.ExitError)(nil); errors.As(err, &exit) {
		return exit
	}
	return nil
}

// terminate ends a session that has not ended by itself, whatever ended us, in
// a time of its own.
func terminate(ctx context.Context, client *api.Client, sessionID string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), terminateTimeout)
	defer cancel()
	if err := client.Terminate(ctx, sessionID); err != nil {
		return fmt.Errorf("the session may live on until its idle timeout: %w", err)
	}
	return nil
}
