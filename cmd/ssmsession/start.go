package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// startCommand is ssmsession start.
type startCommand struct {
	env      *env
	open     opening
	handOn   handOn
	terminal *tty.Terminal
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
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.open.complete(cmd, e, args); err != nil {
				return err
			}
			if err := c.handOn.complete(cmd, e, &c.open); err != nil {
				return err
			}
			if c.handOn.asked {
				return c.handOn.start(cmd.Context(), e, &c.open)
			}
			if tty.Mintty(e.in) {
				return &failure{code: "NoConsole", hint: "run  winpty ssmsession …",
					err: errors.New("this window is no Windows console, and keys typed in it would not arrive")}
			}
			c.terminal = tty.New(e.in, e.out)
			e.status = c.statusLine()
			return c.open.hold(cmd.Context(), e, c.shell)
		},
	}
	c.open.addFlags(cmd.Flags())
	c.open.addKeyFlags(cmd.Flags())
	c.open.addOutputFlag(cmd.Flags(), jsonAtEnd)
	c.open.addEncryptionFlags(cmd.Flags())
	c.handOn.addFlags(cmd.Flags())
	return cmd
}

// statusLine is the line for what happens to the connection. There is none where
// the screen is not the session's alone, or cannot be written to in places.
func (c *startCommand) statusLine() *tty.StatusLine {
	e := c.env
	if !c.terminal.InIsTerminal() || !c.terminal.OutIsTerminal() || e.result.asked {
		return nil
	}
	if _, _, err := c.terminal.Size(); err != nil {
		return nil // there is no bottom
	}
	if term := e.getenv("TERM"); runtime.GOOS != "windows" && (term == "" || term == "dumb") {
		return nil
	}
	return tty.NewStatusLine(tty.NewWriter(e.out), c.terminal.Size)
}

// shell runs the session with this process's terminal, which is put back
// before it returns.
func (c *startCommand) shell(ctx context.Context, peer session.Peer) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	shell := session.Shell{Out: tty.NewWriter(c.env.out), Err: tty.NewWriter(c.env.err)}
	switch r := c.env.result; {
	case r.asked:
		shell.Out, shell.Err = &r.out, &r.err
	case c.env.status != nil:
		shell.Out = c.env.status
	}
	if c.terminal.OutIsTerminal() {
		shell.Term = c.terminal
	}
	if !c.terminal.InIsTerminal() {
		shell.In, shell.Piped = newInput(c.env.in, &tty.Escapes{}, func(tty.Action) {}), true
		return c.explain(shell.Run(ctx, peer))
	}
	k := newKeyboard(c.env, c.terminal, peer, c.open.escapes, func() { cancel(errDisconnected) })
	shell.In, shell.Out = k, k.gate(ctx, shell.Out)
	err = shell.Run(ctx, peer)
	return errors.Join(err, k.restore())
}

// explain adds what to do about a line that no terminal takes.
func (c *startCommand) explain(err error) error {
	if line := (*session.LineError)(nil); errors.As(err, &line) {
		return &failure{code: "LineTooLong", err: line,
			hint: fmt.Sprintf("bytes as they are go through  ssmsession exec -i %s -- sh -s", oneLine(c.open.target))}
	}
	return err
}
