package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// startCommand is ssmsession start.
type startCommand struct {
	env  *env
	open opening
}

func newStart(e *env) *cobra.Command {
	c := &startCommand{env: e}
	cmd := &cobra.Command{
		Use:   "start [TARGET]",
		Short: "open a shell on a target",
		Long: `Start opens an interactive session on a managed node: a shell, or what the
session document says. The keys go to the far end as they are typed, Ctrl-C
included. It ends when the shell does; Enter ~ . leaves it from this side.

Without a terminal the input is typed for you: lines from a pipe or a file, the
end of which ends the shell once it has read them. A line may have 4095 bytes.
The terminal is the far end's, so the output has the echo of the input in it.

The target "local" is this machine, through the built-in emulator: no AWS
account or configuration is needed, nothing listens beyond loopback, and nothing
is left when it ends.

The exit code is 0 when the session ended, whatever the shell's was (a session
carries none), and 255 when it could not be held.`,
		Example: `  ssmsession start --target local
  ssmsession start i-0123456789abcdef0 --profile prod --region eu-west-1
  ssmsession start -t mi-0123456789abcdef0 --reason "ticket 4711"
  ssmsession start -t i-0123456789abcdef0 \
      --document-name AWS-StartInteractiveCommand --parameters command=top
  echo 'uname -a' | ssmsession start -t i-0123456789abcdef0 > log`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.open.complete(cmd, e, args); err != nil {
				return err
			}
			return c.open.hold(cmd.Context(), e, c.shell)
		},
	}
	c.open.addFlags(cmd.Flags())
	return cmd
}

// shell runs the session with this process's terminal, which is put back
// before it returns.
func (c *startCommand) shell(ctx context.Context, peer session.Peer) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	terminal := tty.New(c.env.in, c.env.out)
	shell := session.Shell{Out: tty.NewWriter(c.env.out), Err: tty.NewWriter(c.env.err)}
	if r := c.env.result; r.asked {
		shell.Out, shell.Err = &r.out, &r.err
	}
	if terminal.OutIsTerminal() {
		shell.Term = terminal
	}
	if tty.Mintty(c.env.in) {
		return &failure{code: "NoConsole", hint: "run  winpty ssmsession …",
			err: errors.New("this window is no Windows console, and keys typed in it would not arrive")}
	}
	in := newInput(c.env.in)
	if !terminal.InIsTerminal() {
		shell.In, shell.Piped = in, true
		return c.explain(shell.Run(ctx, peer))
	}
	restore, err := c.env.rawTerminal(terminal)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	shell.In = &keys{
		input:   in,
		escapes: c.open.escapes,
		leave:   func() { cancel(errDisconnected) },
		show: func(help string) {
			_, _ = io.WriteString(c.env.err, help) // as say
		},
	}
	return shell.Run(ctx, peer)
}

// explain adds what to do about a line that no terminal takes.
func (c *startCommand) explain(err error) error {
	if line := (*session.LineError)(nil); errors.As(err, &line) {
		return &failure{code: "LineTooLong", err: line,
			hint: fmt.Sprintf("bytes as they are go through  ssmsession exec -i %s -- sh -s", oneLine(c.open.target))}
	}
	return err
}

// rawTerminal makes the terminal raw until restore is called.
func (e *env) rawTerminal(terminal *tty.Terminal) (restore func() error, err error) {
	undo, err := terminal.Raw()
	if err != nil {
		return nil, fmt.Errorf("cannot set up the terminal: %w", err)
	}
	e.people.raw.Store(true)
	return func() error {
		e.people.raw.Store(false)
		return undo()
	}, nil
}
