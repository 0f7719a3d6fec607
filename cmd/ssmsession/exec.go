package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ssmsession/ssmsession/internal/remote"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// The session documents of exec, for pipes and for a pty.
const (
	documentStreams = "AWS-StartNonInteractiveCommand"
	documentPty     = "AWS-StartInteractiveCommand"
)

// What --via takes.
const (
	viaAuto    = "auto"
	viaStreams = "streams"
	viaPty     = "pty"
)

// defaultGrace is how long a command has to end by itself when its time is over.
const defaultGrace = 5 * time.Second

// execCommand is ssmsession exec.
type execCommand struct {
	env      *env
	open     opening
	terminal *tty.Terminal

	stdin     bool
	tty       bool
	shell     string
	script    string
	vars      []string
	dir       string
	binary    bool
	plain     bool
	via       string
	timeout   time.Duration
	grace     time.Duration
	maxOutput string

	program    remote.Program
	document   string              // as the user named it, or empty
	parameters map[string][]string // the user's own
	limit      timeLimit
	hinted     bool
}

func newExec(e *env) *cobra.Command {
	c := &execCommand{env: e}
	cmd := &cobra.Command{
		Use:   "exec [-t TARGET | TARGET] [flags] -- COMMAND [ARG…]",
		Short: "run a command on a target, with its output and its status",
		Long: `Exec runs one command on a managed node. Its stdout comes to stdout, its stderr
to stderr, byte for byte and while it runs, and its status is the exit code.
Nothing else is written, but for errors and for what happens to the connection.

The command and its arguments arrive as they are given: no shell comes between,
and nothing is expanded on the target. --shell takes a line for a shell, --script
a script that is here.

Standard input is sent with -i, to its end, whatever is in it. On a terminal, -i
makes the command's terminal of yours, as --tty does.

The target needs a POSIX sh for it. Where there is none, the command is run as
the agent runs it, and so it is with --plain, which a Windows target needs: a
death by signal and a command that is not there cannot be told from other
failures then, and -i does not work.

The session document is AWS-StartNonInteractiveCommand, or with -i, --tty and
--via pty AWS-StartInteractiveCommand. One of your own that takes its place needs
the same parameters.

The exit code is the command's: 128 + n when it died of signal n, 126 when it
could not be run, 127 when it was not found. It is 255 when ssmsession failed,
lost output included, 124 when --timeout was over and 2 when the command line
cannot be meant. The first Ctrl-C is sent to the command, the second ends this
side.`,
		Example: `  ssmsession exec i-0123456789abcdef0 -- uname -a
  ssmsession exec -t i-0123456789abcdef0 --shell 'df -h | tail -1'
  ssmsession exec -t local --script ./deploy.sh -- --verbose
  ssmsession exec -i i-0123456789abcdef0 -- tar xzf - -C /srv < site.tar.gz
  ssmsession exec -i i-0123456789abcdef0 -- vim /etc/hosts
  ssmsession exec i-0123456789abcdef0 --output json --timeout 5m -- make test`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.complete(cmd, args); err != nil {
				return err
			}
			return c.run(cmd.Context(), cmd)
		},
	}
	c.addFlags(cmd.Flags())
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if cmd.Flags().NArg() > 1 { // it may be the command's flag
			return noCommand(cmd)
		}
		return usage(cmd, err)
	})
	return cmd
}

func (c *execCommand) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.BoolVarP(&c.stdin, "stdin", "i", false, "send standard input to the command; with a terminal on both sides, as --tty")
	f.BoolVar(&c.tty, "tty", false, "run the command on a terminal")
	f.StringVar(&c.shell, "shell", "", "run this line with sh -c; words behind -- are its $1, $2, …")
	f.StringVar(&c.script, "script", "", "run this local script, with the words behind -- as its arguments")
	f.StringArrayVar(&c.vars, "env", nil, "set NAME=VALUE for the command; may be repeated")
	f.StringVar(&c.dir, "cwd", "", "directory to run the command in (default: the session's)")
	f.BoolVar(&c.binary, "binary", false, "carry output that is not UTF-8 unchanged, a third slower")
	f.DurationVar(&c.timeout, "timeout", 0, "interrupt the command after this time and exit with 124; 0 for no limit")
	f.DurationVar(&c.grace, "timeout-grace", defaultGrace, "how long it has to end then, until it is killed")
	f.StringVar(&c.maxOutput, "max-output", "64MiB", "with --output json, the most of stdout and of stderr to keep: bytes, KiB, MiB or GiB")
	f.StringVar(&c.via, "via", viaAuto, "streams: the agent's own; pty: over a terminal, for old agents and without "+documentStreams+"; auto")
	f.BoolVar(&c.plain, "plain", false, "run the command as the agent does, without a sh on the target")
	c.open.addFlags(f)
	c.open.addKeyFlags(f)
	c.open.addOutputFlag(f, jsonAtEnd)
	c.open.addEncryptionFlags(f)
	f.Lookup("document-name").Usage = "session document of the same kind (default: " + documentStreams +
		", or for a pty " + documentPty + ")"
}

// noCommand is the error of a command line without the two dashes.
func noCommand(cmd *cobra.Command) error {
	return usage(cmd, fmt.Errorf("the command goes behind two dashes:  %s TARGET -- uname -a", cmd.CommandPath()))
}
