package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/session"
)

// Exit codes (docs/exit-status.md).
const (
	exitUsage  = 2
	exitFailed = 255
	exitSignal = 128 // plus the signal's number
	exitPipe   = exitSignal + 13
)

// run is the whole program but for the exit itself.
func run(args []string, e *env) int {
	ctx, stop := withSignals(context.Background())
	defer stop()
	root := newRoot(e)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	e.explain(err)
	return exitCode(err)
}

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "ssmsession",
		Short: "sessions on AWS managed nodes, without the AWS CLI or its plugin",
		Long: `ssmsession opens sessions on nodes managed by AWS Systems Manager: it asks the
service for a session, opens the data channel and carries your terminal over it.
It needs neither the AWS CLI nor its plugin. Without an AWS account, the target
"local" is this machine, through a local service inside the program.`,
		Example: `  ssmsession start --target local
  ssmsession start i-0123456789abcdef0`,
		Version:           e.versionLine(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetVersionTemplate("ssmsession {{.Version}}\n")
	root.SetIn(e.in)
	root.SetOut(e.out)
	root.SetErr(e.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })
	root.AddCommand(newStart(e), newEmulator(e))
	return root
}

// usageError is a command line that cannot be meant.
type usageError struct {
	command string
	err     error
}

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }

func usage(cmd *cobra.Command, err error) error { return &usageError{cmd.CommandPath(), err} }

// atMost is cobra.MaximumNArgs, as a usage error.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.MaximumNArgs(n)(cmd, args); err != nil {
			return usage(cmd, err)
		}
		return nil
	}
}

// explain says in one line what went wrong, and in a second what to do next.
func (e *env) explain(err error) {
	var (
		exit   *session.ExitError
		sig    *signalError
		apiErr *api.Error
		use    *usageError
	)
	switch {
	case err == nil, errors.As(err, &exit):
		return
	case errors.As(err, &sig), errors.Is(err, syscall.EPIPE):
		// Whoever stopped us, or stopped reading, knows. What failed on the
		// way out is news.
		if errors.As(err, &apiErr) {
			e.say("%s", oneLine(apiErr.Error()))
		}
	case errors.As(err, &use):
		e.say("%s", oneLine(err.Error()))
		e.hint("%s --help", use.command)
	case errors.As(err, &apiErr):
		e.say("%s", oneLine(err.Error()))
		if apiErr.Hint != "" {
			e.hint("%s", oneLine(apiErr.Hint))
		}
	case strings.HasPrefix(err.Error(), "unknown command"):
		// cobra has no type for it.
		e.say("%s", oneLine(err.Error()))
		e.hint("ssmsession --help")
	default:
		e.say("%s", oneLine(err.Error()))
	}
}

func (e *env) hint(format string, args ...any) {
	_, _ = fmt.Fprintf(e.err, "hint: "+format+"\n", args...) // as say
}

// oneLine keeps remote-controlled text from moving the cursor or adding lines.
func oneLine(s string) string {
	var b strings.Builder
	for _, r := range strings.TrimSpace(s) {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			b.WriteByte(' ')
		case r < ' ' || (r >= 0x7f && r < 0xa0):
			fmt.Fprintf(&b, "\\x%02x", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// exitCode is the one place that decides it.
func exitCode(err error) int {
	var (
		exit   *session.ExitError
		sig    *signalError
		apiErr *api.Error
		use    *usageError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Code & 0xff
	case errors.As(err, &sig):
		return exitSignal + int(sig.signal.(syscall.Signal))
	case errors.Is(err, syscall.EPIPE):
		return exitPipe
	case errors.As(err, &use):
		return exitUsage
	case errors.As(err, &apiErr) && apiErr.Usage():
		return exitUsage
	case strings.HasPrefix(err.Error(), "unknown command"):
		return exitUsage
	default:
		return exitFailed
	}
}
