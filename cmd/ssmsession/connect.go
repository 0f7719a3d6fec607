package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/plugin"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// maxResponse is the longest response that is read, in bytes. Real ones have less
// than a thousandth.
const maxResponse = 1 << 20

// connectCommand is ssmsession connect.
type connectCommand struct {
	env      *env
	open     opening
	variable string
}

func newConnect(e *env) *cobra.Command {
	c := &connectCommand{env: e}
	cmd := &cobra.Command{
		Use:   "connect [FILE]",
		Short: "open a session that was started elsewhere",
		Long: `Connect opens a session from what the service answered to StartSession or
ExecuteCommand: JSON with SessionId, StreamUrl and TokenValue, as
"ssmsession start --no-connect", an SDK or PowerShell prints it. So whoever may
start sessions can hand one out to somebody who has no AWS credentials. (The AWS
CLI prints none: it calls session-manager-plugin, which this program can be.)

The response comes on standard input, in a file or in an environment variable,
never as an argument, for its token is a secret. After one on standard input the
keys come from the terminal itself. It opens the session once, and soon: the
service lets its token expire.

Credentials are needed only to get a lost connection back and to end a session
that has not ended by itself.`,
		Example: `  ssmsession start i-0123456789abcdef0 --no-connect --output json |
      ssmsession connect
  python3 -c 'import boto3, json; print(json.dumps(
      boto3.client("ecs").execute_command(
          cluster="c", task="t", interactive=True, command="sh")))' |
      ssmsession connect
  pwsh -c 'Start-SSMSession -Target i-0123456789abcdef0 | ConvertTo-Json' |
      ssmsession connect --region eu-west-1`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.open.completeChannel(cmd, e); err != nil {
				return err
			}
			from := ""
			if len(args) > 0 {
				from = args[0]
			}
			document, err := c.read(cmd, from)
			if err != nil {
				return err
			}
			response, err := plugin.ParseResponse(document)
			if err != nil {
				return &failure{code: "BadResponse", err: err,
					hint: "ssmsession start --no-connect --output json  prints one"}
			}
			c.open.take(response)
			e.result.Target = c.open.target
			start := &startCommand{env: e, open: c.open, terminal: tty.New(e.in, e.out)}
			e.status = start.statusLine()
			return (&givenSession{startCommand: start, stopped: cmd.Context()}).hold()
		},
	}
	c.open.addChannelFlags(cmd.Flags())
	c.open.addKeyFlags(cmd.Flags())
	c.open.addOutputFlag(cmd.Flags(), jsonAtEnd)
	c.open.addEncryptionFlags(cmd.Flags())
	cmd.Flags().StringVarP(&c.open.target, "target", "t", "", "the node, which the key of an encrypted session is bound to (default: what the response says)")
	cmd.Flags().StringVar(&c.variable, "from-env", "", "take the response from this environment variable, and remove it there")
	return cmd
}

// read gets the response from the one place it was given.
func (c *connectCommand) read(cmd *cobra.Command, from string) ([]byte, error) {
	switch {
	case c.variable != "" && from != "":
		return nil, usage(cmd, errors.New("two responses were given: in a file and in a variable"))
	case c.variable != "":
		document := c.env.getenv(c.variable)
		if err := os.Unsetenv(c.variable); err != nil || document == "" {
			return nil, usage(cmd, fmt.Errorf("--from-env: there is no variable %s", oneLine(c.variable)))
		}
		return []byte(document), nil
	case strings.HasPrefix(strings.TrimSpace(from), "{"):
		// It is not quoted: whoever looks at the messages need not have it, too.
		return nil, usage(cmd, errors.New("a response is no argument, for everybody can see those: pipe it, or name a file"))
	case from != "" && from != "-":
		return readResponse(cmd.Context(), openFile(from))
	}
	if tty.New(c.env.in, c.env.out).InIsTerminal() {
		return nil, usage(cmd, errors.New("no response: pipe one, or name a file"))
	}
	document, err := readResponse(cmd.Context(), func() (io.ReadCloser, error) {
		return io.NopCloser(tty.NewReader(c.env.in)), nil
	})
	if err != nil {
		return nil, err
	}
	// Without a terminal there is nobody to type, and the input has ended.
	if keys, err := openTerminal(); err == nil {
		c.env.in = keys // until the program ends
	}
	return document, nil
}

// openTerminal opens the terminal that this process has for its own, wherever its
// standard input comes from. A console has no raw mode for whoever may only read.
func openTerminal() (*os.File, error) {
	if runtime.GOOS == "windows" {
		return os.OpenFile("CONIN$", os.O_RDWR, 0)
	}
	return os.OpenFile("/dev/tty", os.O_RDWR, 0)
}

// readResponse reads all there is.
func readResponse(ctx context.Context, open func() (io.ReadCloser, error)) ([]byte, error) {
	data, err := readWhole(ctx, open, maxResponse)
	switch {
	case errors.Is(err, tty.ErrNotOpen):
		return nil, nil // and nothing is an empty response
	case err != nil:
		return nil, fmt.Errorf("cannot read the response: %w", err)
	case len(data) > maxResponse:
		return nil, &failure{code: "BadResponse", err: fmt.Errorf("the response is longer than %d bytes", maxResponse)}
	}
	return data, nil
}

// take makes the opening one of a session that was started elsewhere.
func (o *opening) take(r plugin.Response) {
	o.given = &api.Grant{SessionID: r.SessionID, StreamURL: r.StreamURL, Token: api.NewSecret(r.Token())}
	if o.region == "" {
		o.region = r.Region()
	}
	if o.target == "" {
		o.target = r.Target
	}
}

// name is what the session is called in messages.
func (o *opening) name() string {
	if o.given != nil && o.target == "" {
		return "session " + o.given.SessionID
	}
	return o.target
}

// usedHint tells what a response is good for.
const usedHint = "a response opens a session once, and soon: the session has begun already"

// usedError is a response that opens nothing.
type usedError struct{ sessionID string }

func (u *usedError) Error() string {
	return "the service does not let session " + oneLine(u.sessionID) + " be opened with this response"
}

// Permanent tells the channel not to try again.
func (*usedError) Permanent() bool { return true }

// onceOnly keeps a session that was given from being resumed before it has begun
// here: then its token was used or has expired, or somebody else holds it and has
// taken it back, and the two would take it from each other for ever.
func (o *opening) onceOnly(cfg *stream.Config) {
	if o.given == nil {
		return
	}
	var began atomic.Bool
	dial, notify := cfg.Dial, cfg.Notify
	cfg.Dial = func(ctx context.Context, resume bool) (stream.Socket, string, error) {
		if resume && !began.Load() {
			return nil, "", &failure{code: "ResponseUsed", err: &usedError{o.given.SessionID},
				hint: usedHint + ", or the token has expired"}
		}
		return dial(ctx, resume)
	}
	cfg.Notify = func(n stream.Notice) {
		switch {
		case n.Kind == stream.Began:
			began.Store(true)
		case n.Kind == stream.Reconnecting && !began.Load():
			return // it will not come to that
		}
		notify(n)
	}
}

// end ends a session at the service, because of why. One that was started elsewhere
// may be held by somebody else, or here by somebody who cannot end it.
func (o *opening) end(ctx context.Context, e *env, svc *service, sessionID string, why error) error {
	used := (*usedError)(nil)
	if errors.As(why, &used) || o.given != nil && errors.Is(why, stream.ErrBegunElsewhere) {
		return nil
	}
	err := svc.lacking
	if err == nil {
		err = terminate(ctx, svc.client.Load(), sessionID, e.patience())
	}
	if call := (*api.Error)(nil); o.told && errors.As(err, &call) && (withoutCredentials(call) || call.Code == accessDenied) {
		e.log.Debug("the service cannot be told that the session is over, the agent was", "error", err)
		return nil
	}
	if call := (*api.Error)(nil); o.given != nil && errors.As(err, &call) && withoutCredentials(call) {
		e.say("the session lives on until its idle timeout, for it cannot be ended from here: %s", oneLine(call.Message))
		return nil
	}
	return err
}

// accessDenied is the service's code for what somebody may not do.
const accessDenied = "AccessDeniedException"

// withoutCredentials tells that a call could not be made for want of what makes an
// AWS account reachable.
func withoutCredentials(e *api.Error) bool {
	switch e.Code {
	case api.CodeNoCredentials, api.CodeNoRegion, api.CodeNoProfile, api.CodeSSOExpired, api.CodeLoginExpired, api.CodeNeedsMFA:
		return true
	}
	return e.Expired()
}
