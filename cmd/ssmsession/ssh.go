package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// sshCommand is ssmsession ssh.
type sshCommand struct {
	env  *env
	open opening
	key  keyToPush

	user   string // as the user named it, or empty
	args   []string
	events string   // of --events, which are ssh-proxy's
	pass   []string // flags for ssh-proxy
}

func newSSH(e *env) *cobra.Command {
	c := &sshCommand{env: e}
	cmd := &cobra.Command{
		Use:   "ssh [USER@]TARGET [flags] [-- SSH-ARG…]",
		Short: "run the system's ssh through a session",
		Long: `Ssh runs OpenSSH's ssh, with ssmsession ssh-proxy as its way to the target. What
stands behind the two dashes is ssh's: options, then a command. Its configuration
holds as ever, but for the way there; the key of the host is kept under the
target's id.

With --ec2-instance-connect, a key is made for this one connection and let in
with EC2 Instance Connect. It is in this process's memory alone, and ssh asks for
signatures through a socket that only you can reach. --public-key has a key of
yours let in instead; Windows needs it.

The exit code is ssh's: the command's, or 255 when there was no connection.`,
		Example: `  ssmsession ssh ec2-user@i-0123456789abcdef0
  ssmsession ssh ec2-user@i-0123456789abcdef0 --region eu-west-1 -- uname -a
  ssmsession ssh i-0123456789abcdef0 -- -A -L 8080:localhost:80 -N
  ssmsession ssh ubuntu@i-0123456789abcdef0 --ec2-instance-connect`,
		// Two writers would be in each other's way.
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			c.events, e.eventSpec = e.eventSpec, ""
			return e.report.open(cmd)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.complete(cmd, args); err != nil {
				return err
			}
			return c.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	c.key.addFlags(f)
	c.open.addFlags(f)
	f.Lookup("document-name").Usage = "session document of the same kind (default: " + documentSSH + ")"
	lacks := tunnelsLack()
	lacks["output"] = "the output is ssh's"
	lacks["escape-char"] = "the escapes are ssh's, whose option behind -- is -e"
	without(cmd, lacks)
	return cmd
}

// complete parts our words from ssh's.
func (c *sshCommand) complete(cmd *cobra.Command, args []string) error {
	own := args
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		own, c.args = args[:dash], args[dash:]
	}
	if len(own) > 1 {
		return usage(cmd, fmt.Errorf("what is ssh's goes behind two dashes:  %s TARGET -- uname -a", cmd.CommandPath()))
	}
	if err := c.key.complete(cmd); err != nil {
		return err
	}
	target := c.open.target
	if len(own) == 1 {
		target = own[0]
	}
	if at := strings.LastIndexByte(target, '@'); at >= 0 {
		c.user, target = target[:at], target[at+1:]
		if c.user == "" {
			return usage(cmd, errors.New("there is no user before the @"))
		}
	}
	if len(own) == 0 {
		c.open.target = target // it may have been the flag's, with a user
	}
	if err := c.open.complete(cmd, c.env, slices.DeleteFunc([]string{target}, func(s string) bool { return s == "" })); err != nil {
		return err
	}
	c.env.result = nil // ssh-proxy holds the session
	switch {
	case !plainHost(target):
		return usage(cmd, fmt.Errorf("%q is no host for ssh", target))
	case strings.HasPrefix(c.user, "-") || strings.ContainsAny(c.user, "\r\n\x00"):
		return usage(cmd, fmt.Errorf("%q is no user for ssh", c.user))
	case strings.HasPrefix(c.events, "fd:") || strings.HasPrefix(c.events, "/dev/"):
		return usage(cmd, errors.New("--events needs a file here: ssh passes no descriptor on to ssh-proxy, whose events they are"))
	}
	c.pass = proxyFlags(cmd)
	if c.events != "" {
		c.pass = append(c.pass, "--events="+percents(c.events))
	}
	return nil
}

// plainHost tells whether ssh can be given s for a host and it means nothing to it
// but that.
func plainHost(s string) bool {
	return s != "" && s[0] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == ""
}

// proxyFlags repeats those of the given flags that ssh-proxy has to know.
func proxyFlags(cmd *cobra.Command) (flags []string) {
	own := []string{"target", "events"}
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(opening).addFlags(all)
	newReport(nil).addFlags(all)
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if all.Lookup(f.Name) != nil && !slices.Contains(own, f.Name) {
			flags = append(flags, "--"+f.Name+"="+percents(f.Value.String()))
		}
	})
	return flags
}

// run runs ssh to its end.
func (c *sshCommand) run(ctx context.Context) (err error) {
	self, err := ownPath()
	if err != nil {
		return fmt.Errorf("cannot find this program's own file: %w", err)
	}
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		return &failure{code: "NoSSH", err: fmt.Errorf("cannot find ssh: %w", err), hint: "install OpenSSH's client"}
	}
	var push, options []string
	if c.key.asked {
		var done func() error
		if push, options, done, err = c.keyOptions(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
	}
	proxy := proxyLine(runtime.GOOS, self, c.open.target, append(c.pass, push...))
	argv := append([]string{ssh, "-o", "ProxyCommand=" + proxy, "-o", "HostKeyAlias=" + c.open.target}, options...)
	if c.user != "" {
		argv = append(argv, "-l", c.user)
	}
	argv = append(append(argv, c.open.target), c.args...)
	c.env.log.Debug("ssh", "argv", argv)
	if !c.key.asked {
		if err := become(argv); !errors.Is(err, errors.ErrUnsupported) {
			return &failure{code: "NoSSH", err: fmt.Errorf("cannot run ssh: %w", err)}
		}
	}
	return c.child(ctx, argv)
}

// keyOptions gives what ssh-proxy and ssh have to be told of the key, and what is to
// be done in the end.
func (c *sshCommand) keyOptions() (push, options []string, done func() error, err error) {
	push = []string{"--ec2-instance-connect", "--os-user=" + cmp.Or(percents(c.key.osUser), "%r")} // which ssh knows
	if c.key.file != "" {
		return append(push, "--public-key="+percents(c.key.file)), nil, func() error { return nil }, nil
	}
	if runtime.GOOS == "windows" {
		return nil, nil, nil, &failure{code: "NotSupported", hint: "--public-key FILE has a key of yours let in",
			err: errors.New("a key for one connection needs an agent's socket, which ssh has none of on Windows")}
	}
	key, err := newAgentKey()
	if err != nil {
		return nil, nil, nil, err
	}
	agent, err := newKeyAgent(key)
	if err != nil {
		return nil, nil, nil, err
	}
	return append(push, "--public-key="+percents(agent.publicFile)),
		[]string{"-o", "IdentityAgent=" + sshWord(agent.socket), "-o", "IdentityFile=" + sshWord(agent.publicFile), "-o", "IdentitiesOnly=yes"},
		agent.close, nil
}

// child runs ssh beside this process and gives its status. Ctrl-C is ssh's: it comes
// to both. What else asks us to stop is passed on.
func (c *sshCommand) child(ctx context.Context, argv []string) error {
	defer c.env.interrupts.passTo(func() bool { return true })()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.env.in, c.env.out, c.env.err
	cmd.Cancel = func() error {
		if asked := (*signalError)(nil); errors.As(context.Cause(ctx), &asked) && runtime.GOOS != "windows" {
			return cmd.Process.Signal(asked.signal)
		}
		return cmd.Process.Kill()
	}
	if err := cmd.Start(); err != nil {
		return &failure{code: "NoSSH", err: fmt.Errorf("cannot run ssh: %w", err)}
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return statusOf(err)
}

// proxyLine is the value of ProxyCommand: a line for a shell, in which ssh fills in
// what has a percent sign. It may have one in host and in flags.
func proxyLine(goos, self, host string, flags []string) string {
	quote := shellQuoted
	if goos == "windows" {
		quote = windowsQuoted
	}
	words := []string{quote(percents(self)), "ssh-proxy", host, "%p"}
	for _, flag := range flags {
		words = append(words, quote(flag))
	}
	return strings.Join(words, " ")
}

// percents keeps ssh from filling anything in.
func percents(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// plainWord has the characters that mean nothing to any shell, nor to ssh.
const plainWord = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"

// shellQuoted is a word of a POSIX shell, which csh and fish read alike.
func shellQuoted(s string) string {
	if s != "" && strings.Trim(s, plainWord) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// windowsQuoted is a word of a Windows command line, by the rules of C's runtime. A
// quotation mark cannot be in a file's name there.
func windowsQuoted(s string) string {
	if s != "" && strings.Trim(s, plainWord+`\`) == "" {
		return s
	}
	slashes := len(s) - len(strings.TrimRight(s, `\`))
	return `"` + strings.ReplaceAll(s, `"`, `\"`) + strings.Repeat(`\`, slashes) + `"`
}

// sshWord is a word in ssh's configuration, where percent signs and ${…} are filled
// in.
func sshWord(s string) string { return `"` + percents(s) + `"` }
