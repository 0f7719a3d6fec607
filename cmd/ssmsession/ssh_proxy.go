package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// documentSSH is the session document of a connection without frames.
const documentSSH = "AWS-StartSSHSession"

// leaveTime is what the far end has to end by itself once nobody reads here: an
// ssh that ends in order has told sshd so, and one that was killed has not.
const leaveTime = 500 * time.Millisecond

// sshProxyCommand is ssmsession ssh-proxy.
type sshProxyCommand struct {
	env  *env
	open opening
	key  keyToPush
}

func newSSHProxy(e *env) *cobra.Command {
	c := &sshProxyCommand{env: e}
	cmd := &cobra.Command{
		Use:   "ssh-proxy HOST PORT",
		Short: "carry an SSH connection to a target, as ProxyCommand of ssh",
		Long: `Ssh-proxy connects its standard input and output with a port of a managed node,
byte for byte, for the ProxyCommand of OpenSSH's programs and of what is built on
them. The node needs an agent and sshd, and no open port.

HOST is what ssh's %h gives: i-… or mi-…, with or without a user@ before it. PORT
is its %p, on the node itself.

Nothing but the connection's bytes is on stdout, and nothing on stderr unless
something goes wrong. It goes on after the end of its input, until the far end
closes the connection or nobody reads its output any more.

"ssmsession ssh-config --install" writes the lines for ssh; "ssmsession ssh" does
without them. docs/ssh.md tells more.

The exit code is 0 when the connection was closed, and 255 when there was none.`,
		Example: `  ssh -o ProxyCommand='ssmsession ssh-proxy %h %p' ec2-user@i-0123456789abcdef0
  ssmsession ssh-proxy i-0123456789abcdef0 22 --profile prod --region eu-west-1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usage(cmd, errors.New("ssh-proxy takes a host and a port: %h and %p in a ProxyCommand"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.complete(cmd, args[0], args[1]); err != nil {
				return err
			}
			return c.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	c.key.addFlags(f)
	c.open.addRequestFlags(f)
	c.open.addChannelFlags(f)
	f.Lookup("document-name").Usage = "session document of the same kind (default: " + documentSSH + ")"
	lacks := tunnelsLack()
	lacks["output"] = "stdout is the connection's"
	lacks["target"] = "HOST is the target"
	without(cmd, lacks)
	return cmd
}

// complete reads what the flags and the two arguments say.
func (c *sshProxyCommand) complete(cmd *cobra.Command, host, port string) error {
	o := &c.open
	if err := c.key.complete(cmd); err != nil {
		return err
	}
	if o.document == "" {
		o.document = documentSSH
	}
	if err := o.complete(cmd, c.env, []string{host[strings.LastIndexByte(host, '@')+1:]}); err != nil {
		return err
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > maxPort {
		return usage(cmd, fmt.Errorf("%q is no port: a number from 1 to %d", port, maxPort))
	}
	if o.parsed == nil {
		o.parsed = map[string][]string{}
	}
	o.parsed["portNumber"] = []string{strconv.Itoa(n)}
	o.unannounced, c.env.quiet = true, true // the terminal is ssh's, and may be raw
	if !c.key.asked {
		return nil
	}
	pushed, err := c.key.read(o.target)
	if err != nil {
		return usage(cmd, err)
	}
	o.prepare = func(ctx context.Context, client *api.Client) error { return client.PushSSHKey(ctx, pushed) }
	return nil
}

// run carries the connection to its end.
func (c *sshProxyCommand) run(ctx context.Context) error {
	stopped, stop := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop(nil)
	p := newPipe(c.env)
	wg.Go(func() {
		crash.Guard(stop, func() {
			if leave(stopped, c.env.out, p.in.ended) {
				stop(&session.WriteError{Err: syscall.EPIPE})
			}
		})
	})
	err := p.hold(stopped, c.env, &c.open)
	if err == nil && p.silent() {
		return p.noAnswer(c.open.parsed["portNumber"][0], c.open.target)
	}
	return err
}

// pipe is one session that carries a connection. It outlives what stops it, so that
// the agent can be told.
type pipe struct {
	in     *endedInput
	out    *countedOutput
	closed *stream.Closed // how the service closed it, or nil
}

func newPipe(e *env) *pipe {
	return &pipe{
		in:  &endedInput{ended: make(chan struct{})},
		out: &countedOutput{to: tty.NewWriter(e.out)},
	}
}

// hold holds the session to its end, which the end of stopped is.
func (p *pipe) hold(stopped context.Context, e *env, o *opening) error {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(stopped))
	defer cancel(nil)
	release := context.AfterFunc(stopped, func() { cancel(context.Cause(stopped)) })
	defer release()
	return o.hold(ctx, e, func(ctx context.Context, peer session.Peer) error {
		release() // from now on it is this that ends
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(stopped, func() { cancel(context.Cause(stopped)) })()
		return p.carry(ctx, peer, e, o)
	})
}

// carry carries the connection over a data channel.
func (p *pipe) carry(ctx context.Context, peer session.Peer, e *env, o *opening) error {
	p.in.Input = newInput(e.in, &tty.Escapes{}, func(tty.Action) {})
	err := session.Pipe{In: p.in, Out: p.out}.Run(ctx, peer)
	o.told = true
	errors.As(err, &p.closed)
	if cannot := (*session.TunnelError)(nil); errors.As(err, &cannot) {
		return &failure{code: "NotSupported", err: cannot}
	}
	return err
}

// silent tells that the connection was closed without a word, which no server of
// SSH does: an agent that cannot connect has no other way to tell it.
func (p *pipe) silent() bool { return p.closed != nil && p.out.n.Load() == 0 }

// noAnswer is the error of a connection that was silent.
func (p *pipe) noAnswer(port, of string) error {
	why := ""
	if p.closed.Output != "" {
		why = ": " + oneLine(p.closed.Output)
	}
	return &failure{code: "NoAnswer", hint: "check that sshd runs on the target and listens on that port",
		err: fmt.Errorf("nothing came from port %s of %s before the session was closed%s",
			oneLine(port), oneLine(of), why)}
}

// leave waits until nobody reads out any more, and then gives the far end the time
// to end by itself. It tells false when ctx ended sooner.
func leave(ctx context.Context, out *os.File, inputEnded <-chan struct{}) bool {
	return readerLeaves(ctx, out, inputEnded) && wait(ctx, leaveTime)
}

// endedInput tells when the input has ended.
type endedInput struct {
	session.Input               // set before the first Read
	ended         chan struct{} // closed then
	once          sync.Once
}

// Read implements session.Input.
func (in *endedInput) Read(ctx context.Context) ([]byte, error) {
	p, err := in.Input.Read(ctx)
	if errors.Is(err, io.EOF) {
		in.once.Do(func() { close(in.ended) })
	}
	return p, err
}

// countedOutput counts what came.
type countedOutput struct {
	to io.Writer
	n  atomic.Int64
}

// Write implements io.Writer.
func (o *countedOutput) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	o.n.Add(int64(n))
	return n, err
}
