package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ssmsession/ssmsession/internal/crash"
)

// program is the one of the two programs that it was called as.
func program(argv []string, e *env) exit {
	if calledAsPlugin(argv) {
		return runPlugin(argv[1:], e)
	}
	return run(argv[min(1, len(argv)):], e)
}

// run is the whole program but for the exit itself.
func run(args []string, e *env) exit {
	ctx, stop := withSignals(context.Background(), &e.interrupts)
	defer stop()
	root := newRoot(e)
	root.SetArgs(args)
	return e.finish(execute(ctx, root))
}

// execute runs the command that was asked for. Its panic is its error.
func execute(ctx context.Context, root *cobra.Command) (err error) {
	defer crash.Catch(&err)
	return root.ExecuteContext(ctx)
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
  ssmsession start i-0123456789abcdef0
  ssmsession exec i-0123456789abcdef0 -- uname -a`,
		Version:           e.versionLine(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return e.report.open(cmd) }
	e.report.addFlags(root.PersistentFlags())
	root.SetVersionTemplate("ssmsession {{.Version}}\n")
	root.SetIn(e.in)
	root.SetOut(e.out)
	root.SetErr(e.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })
	root.SetHelpCommand(newHelp(root))
	root.AddCommand(newStart(e), newExec(e), newForward(e), newSSH(e), newSSHProxy(e), newSSHConfig(e), newConnect(e), newInstallPlugin(e), newEmulator(e))
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

// without has an unknown flag that other commands have, and one might look for here,
// told with the reason why there is none.
func without(cmd *cobra.Command, why map[string]string) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if unknown := (*pflag.NotExistError)(nil); errors.As(err, &unknown) {
			name := unknown.GetSpecifiedName()
			if reason, known := why[name]; known {
				err = fmt.Errorf("%s has no --%s: %s", cmd.Name(), name, reason)
			}
		}
		return usage(cmd, err)
	})
}

// tunnelsLack is for without: what commands lack whose sessions are tunnels.
func tunnelsLack() map[string]string {
	const reason = "agents encrypt no tunnel with a key of KMS; SSH and TLS through one are encrypted by themselves"
	return map[string]string{"require-encryption": reason, "kms-endpoint": reason}
}

// atMost is cobra.MaximumNArgs, as a usage error that shows what is too much.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usage(cmd, fmt.Errorf("that is more than %s takes: %s", cmd.Name(), strings.Join(args[n:], " ")))
		}
		return nil
	}
}

// newHelp is cobra's help command, but for what it does not know: that is an error.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:               "help [COMMAND]",
		Short:             "show the help of a command",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := root.Find(args)
			if err == nil {
				err = atMost(0)(about, rest)
			}
			if err != nil {
				return err
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		},
	}
}

// maxLine is the most of a text that is shown, in characters.
const maxLine = 2000

// oneLine keeps remote-controlled text from moving the cursor, turning letters
// around, adding lines or filling the screen.
func oneLine(s string) string {
	var b strings.Builder
	shown := 0
	for _, r := range strings.TrimSpace(s) {
		if shown++; shown > maxLine {
			b.WriteString("…")
			break
		}
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			b.WriteByte(' ')
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			writeEscaped(&b, r)
		}
	}
	return b.String()
}

// writeEscaped writes a character that is not for terminals.
func writeEscaped(b *strings.Builder, r rune) {
	if r < 0x100 {
		fmt.Fprintf(b, "\\x%02x", r)
		return
	}
	fmt.Fprintf(b, "\\u%04x", r)
}
