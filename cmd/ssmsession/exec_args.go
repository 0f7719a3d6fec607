package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// complete reads the command line into what run needs.
func (c *execCommand) complete(cmd *cobra.Command, args []string) error {
	e := c.env
	named := c.open.target
	targets, words, dashes := splitAtDashes(cmd, args)
	err := c.open.complete(cmd, e, targets[:min(len(targets), 1)])
	e.result.command = true
	switch {
	case strings.HasPrefix(named, "-"):
		return usage(cmd, fmt.Errorf("the target is named %q: -t is the target, --tty the terminal", named))
	case !dashes && (len(targets) > 1 || named != "" && len(targets) > 0):
		return noCommand(cmd)
	case len(targets) > 1:
		return usage(cmd, fmt.Errorf("more than one target was given: %s", strings.Join(targets, " ")))
	case named != "" && len(targets) == 1 && named != targets[0]: // "i", for who means docker's -ti
		return usage(cmd, fmt.Errorf("two targets were given: %s and %s; -t is the target, --tty the terminal", named, targets[0]))
	case err != nil:
		return err
	case !cmd.Flags().Changed("shell") && !cmd.Flags().Changed("script") && len(words) == 0:
		return noCommand(cmd)
	}
	if err := c.check(cmd); err != nil {
		return err
	}
	if e.result.limit, err = parseBytes(c.maxOutput); err != nil {
		return usage(cmd, fmt.Errorf("--max-output: %w", err))
	}
	c.document, c.parameters = c.open.document, c.open.parsed
	c.terminal = tty.New(e.in, e.out)
	c.open.unannounced = true
	return c.read(cmd, words)
}

// splitAtDashes parts what stands before -- from what stands behind it.
func splitAtDashes(cmd *cobra.Command, args []string) (before, behind []string, dashes bool) {
	n := cmd.Flags().ArgsLenAtDash()
	if n < 0 {
		return args, nil, false
	}
	return args[:n], args[n:], true
}

// check refuses what cannot be meant together.
func (c *execCommand) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	pairs := []struct{ one, other, why string }{
		{"shell", "script", "a command is one or the other"},
		{"tty", "binary", "a terminal's output is text"},
		{"plain", "stdin", "input needs a sh on the target"},
		{"plain", "tty", "a terminal's status needs a sh on the target"},
		{"plain", "script", "a script needs a sh on the target"},
		{"plain", "shell", "a line for a shell needs one on the target"},
		{"plain", "env", "a variable needs a sh on the target"},
		{"plain", "cwd", "a directory needs a sh on the target"},
		{"plain", "binary", "it needs a sh on the target"},
	}
	for _, p := range pairs {
		if given(p.one) && given(p.other) {
			return usage(cmd, fmt.Errorf("--%s and --%s do not go together: %s", p.one, p.other, p.why))
		}
	}
	switch {
	case c.via != viaAuto && c.via != viaStreams && c.via != viaPty:
		return usage(cmd, fmt.Errorf("--via takes auto, streams or pty, not %q", c.via))
	case c.via == viaStreams && (c.stdin || c.tty):
		return usage(cmd, errors.New("--via streams has no standard input and no terminal"))
	case c.via == viaPty && c.plain:
		return usage(cmd, errors.New("--via pty needs a sh on the target, which --plain does without"))
	case c.timeout < 0 || c.grace < 0:
		return usage(cmd, errors.New("--timeout and --timeout-grace are times such as 5m, or 0"))
	case given("timeout-grace") && c.timeout == 0:
		return usage(cmd, errors.New("--timeout-grace is what follows --timeout: give both"))
	case given("max-output") && !c.env.result.asked:
		return usage(cmd, errors.New("--max-output is for --output json"))
	}
	for _, name := range []string{"command", "separateOutputStream"} {
		if _, given := c.open.parsed[name]; given {
			return usage(cmd, fmt.Errorf("--parameters has %q, which exec sets itself", name))
		}
	}
	return nil
}

// read makes the program of what was given, the bytes of a script included.
func (c *execCommand) read(cmd *cobra.Command, words []string) error {
	c.program.Argv, c.program.Env, c.program.Dir = words, c.vars, c.dir
	switch {
	case cmd.Flags().Changed("shell"):
		c.program.Argv = append([]string{"sh", "-c", c.shell, "sh"}, words...)
	case cmd.Flags().Changed("script"): // or else an empty name would make a command of its arguments
		script, err := readScript(cmd.Context(), c.script)
		if err != nil {
			return &failure{code: "NoScript", err: err}
		}
		c.program.Script = script
	}
	if err := c.program.Check(); err != nil {
		return usage(cmd, err)
	}
	return nil
}

// maxScript is the most that is read of a script, in bytes.
const maxScript = 64 << 20

// readScript reads a whole script. The result is never nil.
func readScript(ctx context.Context, name string) ([]byte, error) {
	script, err := readWhole(ctx, openFile(name), maxScript)
	if err != nil {
		return nil, fmt.Errorf("cannot read the script: %w", err)
	}
	if len(script) > maxScript {
		return nil, fmt.Errorf("the script %s is longer than %d MiB", name, maxScript>>20)
	}
	return script, nil
}

// parseBytes reads a number of bytes, or of a unit that is one of 1024.
func parseBytes(s string) (int, error) {
	number := strings.TrimRight(s, "BKMGibkmg")
	unit := strings.ToUpper(s[len(number):])
	n, err := strconv.ParseInt(number, 10, 64)
	factor, ok := map[string]int64{
		"": 1, "B": 1,
		"K": 1 << 10, "KB": 1 << 10, "KIB": 1 << 10,
		"M": 1 << 20, "MB": 1 << 20, "MIB": 1 << 20,
		"G": 1 << 30, "GB": 1 << 30, "GIB": 1 << 30,
	}[unit]
	if err != nil || !ok || n < 1 || n > math.MaxInt/factor {
		return 0, fmt.Errorf("a size is a number of bytes, or one with KiB, MiB or GiB, not %q", s)
	}
	return int(n * factor), nil
}

// interactive tells that the command gets a terminal.
func (c *execCommand) interactive() bool {
	both := c.terminal.InIsTerminal() && c.terminal.OutIsTerminal()
	return c.tty || c.stdin && both && c.via == viaAuto && !c.binary && !c.env.result.asked
}

// mode is how the command is run, as far as its length and its bytes allow.
func (c *execCommand) mode() session.ExecMode {
	switch {
	case c.plain:
		return session.Plain
	case c.interactive():
		return session.OnTerminal
	case c.stdin || c.via == viaPty:
		return session.Framed
	}
	return session.Streams
}

// hintInput tells whoever pipes something that it goes nowhere, once. What comes
// late is seen when it is called again.
func (c *execCommand) hintInput() {
	if c.stdin || c.hinted || !hasInput(c.env.in) {
		return
	}
	c.hinted = true
	c.env.say("standard input is not sent; -i sends it")
}

// hasInput tells that somebody has put something into a file: a pipe that has
// bytes, or a regular file that is not at its end.
func hasInput(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false // it is closed
	}
	if !info.Mode().IsRegular() {
		return info.Mode()&fs.ModeNamedPipe != 0 && holdsBytes(f)
	}
	at, err := f.Seek(0, io.SeekCurrent)
	return err == nil && at < info.Size()
}
