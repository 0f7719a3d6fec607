package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/emulator"
	"github.com/ssmsession/ssmsession/internal/proxy"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/tty"
)

const localTarget = "local"

// opening is what every command that opens a session has in common: its flags,
// and the way from them to a data channel.
type opening struct {
	target         string
	document       string
	parameters     string
	reason         string
	region         string
	profile        string
	endpoint       string
	streamEndpoint string
	caBundle       string
	noVerify       bool
	connectTimeout time.Duration
	reconnectFor   time.Duration
	noReconnect    bool
	aliveInterval  time.Duration
	aliveCount     int
	kmsEndpoint    string
	encrypted      bool
	escape         string
	rate           string
	output         string

	unannounced bool // people are not told which session it is

	given  *api.Grant // a session that was started elsewhere; nil to start one
	shared *sharing   // the way to the service, for several sessions; nil for one of its own
	// told is set where the data channel tells the agent that the session is over:
	// who may not tell the service need not, then.
	told bool
	// prepare is called before a session is started; nil for nothing to do.
	prepare func(context.Context, *api.Client) error

	parsed    map[string][]string
	perSecond int // messages; -1 for what suits the far end
	escapes   *tty.Escapes
}

// addFlags defines the flags of whatever starts a session, spelled as the AWS CLI
// spells them where it has them.
func (o *opening) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVarP(&o.target, "target", "t", "", `the node: i-…, mi-…, or "local" for this machine through the built-in emulator`)
	o.addRequestFlags(f)
	o.addChannelFlags(f)
}

// addRequestFlags defines those that say which session to start on a target.
func (o *opening) addRequestFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.document, "document-name", "", "session document (default: the account's shell preferences)")
	f.StringVar(&o.parameters, "parameters", "", `document parameters: key=v1,v2 or JSON {"key":["v1"]}`)
	f.StringVar(&o.reason, "reason", "", "why, for the audit trail (at most 256 characters)")
}

// addChannelFlags defines those that say how to reach it.
func (o *opening) addChannelFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.region, "region", "", "AWS region (default: AWS_REGION or the profile's)")
	f.StringVar(&o.profile, "profile", "", "profile of the AWS configuration files")
	f.StringVar(&o.endpoint, "endpoint-url", "", "endpoint of Systems Manager (default: the region's)")
	f.StringVar(&o.streamEndpoint, "stream-endpoint", "", "endpoint of the data channel (default: AWS_ENDPOINT_URL_SSMMESSAGES, or what the service says)")
	f.StringVar(&o.caBundle, "ca-bundle", "", "file of certificates to trust instead of the system's (default: AWS_CA_BUNDLE)")
	f.BoolVar(&o.noVerify, "no-verify-ssl", false, "do not check certificates; whoever is in the way can read and change everything")
	f.DurationVar(&o.connectTimeout, "connect-timeout", 30*time.Second, "for the API call, the dial and the first message together; 0 for no limit")
	f.DurationVar(&o.reconnectFor, "reconnect-timeout", stream.DefaultRedial, "how long to try to get a lost connection back; 0 for no limit")
	f.BoolVar(&o.noReconnect, "no-reconnect", false, "end when the connection is lost")
	f.DurationVar(&o.aliveInterval, "server-alive-interval", stream.DefaultAliveInterval, "time between pings to the service; 0 for none")
	f.IntVar(&o.aliveCount, "server-alive-count-max", stream.DefaultAliveCount, "how many pings may stay unanswered until the connection counts as lost")
	f.StringVar(&o.rate, "rate", "auto", "data messages sent per second: a number, off, or auto (900 towards AWS, off on loopback)")
}

// addKeyFlags defines those of sessions that keys are typed into.
func (o *opening) addKeyFlags(f *pflag.FlagSet) {
	f.StringVar(&o.escape, "escape-char", "~", "what leaves the session, typed after Enter and followed by a dot: a character, ^X or none")
}

// addOutputFlag defines that of commands whose stdout is not another program's.
func (o *opening) addOutputFlag(f *pflag.FlagSet, json string) {
	f.StringVar(&o.output, "output", outputText, "text, or json: one document on stdout "+json)
}

// What --output takes.
const (
	outputText = "text"
	outputJSON = "json"
)

// jsonAtEnd is when most commands print their document.
const jsonAtEnd = "when the session is over"

// addEncryptionFlags defines those of sessions that the account may encrypt with
// a key of KMS, which are all but tunnels.
func (o *opening) addEncryptionFlags(f *pflag.FlagSet) {
	f.StringVar(&o.kmsEndpoint, "kms-endpoint", "", "endpoint of KMS, for sessions that the account encrypts (default: AWS_ENDPOINT_URL_KMS or the region's)")
	f.BoolVar(&o.encrypted, "require-encryption", false, "refuse a session that the account does not encrypt with a key of KMS")
}

// complete takes the target from the one place it was given and reads the rest.
func (o *opening) complete(cmd *cobra.Command, e *env, args []string) error {
	if err := o.completeChannel(cmd, e); err != nil {
		return err
	}
	switch {
	case len(args) > 1:
		return usage(cmd, fmt.Errorf("more than one target was given: %s", strings.Join(args, " ")))
	case len(args) == 1 && cmd.Flags().Changed("target") && o.target != args[0]:
		return usage(cmd, fmt.Errorf("two targets were given: %s and %s", o.target, args[0]))
	case len(args) == 1:
		o.target = args[0]
	}
	if o.target == "" {
		return usage(cmd, errors.New("no target: name one, or try --target local"))
	}
	e.result.Target, e.result.Document = o.target, o.document
	return o.completeRequest(cmd)
}

// completeRequest reads what addRequestFlags has defined.
func (o *opening) completeRequest(cmd *cobra.Command) (err error) {
	if o.parsed, err = api.ParseParameters(o.parameters); err != nil {
		return usage(cmd, err)
	}
	if err := o.request().Validate(); err != nil {
		return usage(cmd, err)
	}
	return nil
}

// has tells whether a command has a flag of its own, given or not.
func has(cmd *cobra.Command, flag string) bool { return cmd.Flags().Lookup(flag) != nil }

// completeChannel reads what addChannelFlags has defined, and begins the result.
func (o *opening) completeChannel(cmd *cobra.Command, e *env) error {
	e.result = &result{made: time.Now(), asked: o.output == outputJSON}
	if has(cmd, "output") && o.output != outputText && o.output != outputJSON {
		return usage(cmd, fmt.Errorf("--output takes text or json, not %q", o.output))
	}
	if o.connectTimeout < 0 {
		return usage(cmd, errors.New("--connect-timeout is a time such as 30s, or 0 for no limit"))
	}
	if o.reconnectFor < 0 || o.aliveInterval < 0 || o.aliveCount < 1 {
		return usage(cmd, errors.New("--reconnect-timeout and --server-alive-interval are times, --server-alive-count-max a number from 1"))
	}
	o.escapes = &tty.Escapes{}
	if has(cmd, "escape-char") {
		char, on, err := tty.ParseEscape(o.escape)
		if err != nil {
			return usage(cmd, fmt.Errorf("--escape-char: %w", err))
		}
		if on {
			o.escapes = tty.NewEscapes(char)
		}
	}
	var err error
	if o.perSecond, err = parseRate(o.rate); err != nil {
		return usage(cmd, err)
	}
	if _, err := parseStreamEndpoint(o.streamEndpoint); err != nil {
		return usage(cmd, fmt.Errorf("--stream-endpoint is %w", err))
	}
	return nil
}

// parseRate reads --rate.
func parseRate(s string) (perSecond int, err error) {
	switch s {
	case "auto":
		return -1, nil
	case "off":
		return 0, nil
	}
	if perSecond, err = strconv.Atoi(s); err != nil || perSecond < 1 {
		return 0, fmt.Errorf("--rate takes a number of messages per second, off or auto, not %q", s)
	}
	return perSecond, nil
}

// parseStreamEndpoint reads the address of a private endpoint: a URL as the AWS
// CLI has it, or a host. It is nil for none.
func parseStreamEndpoint(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil
	}
	if !strings.Contains(s, "://") {
		s = "wss://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return nil, errors.New("a host, or https:// or wss:// and a host")
	}
	switch u.Scheme {
	case "https", "wss":
		u.Scheme = "wss"
	case "http", "ws":
		u.Scheme = "ws"
	default:
		return nil, fmt.Errorf("https:// or wss://, not %s://", u.Scheme)
	}
	return u, nil
}

func (o *opening) request() api.StartRequest {
	return api.StartRequest{
		Target: o.target, DocumentName: o.document, Reason: o.reason, Parameters: o.parsed,
	}
}

// escapeHint tells how to leave, where there are keys to do it with.
func (o *opening) escapeHint(e *env) string {
	if name := o.escapes.Name(); name != "none" && tty.New(e.in, e.out).InIsTerminal() {
		return " (Enter " + name + ". leaves it)"
	}
	return ""
}

// service is where sessions come from, and the way there. Several goroutines use it:
// a connection is got back while a key is asked for, or a session ended.
type service struct {
	client  atomic.Pointer[api.Client]                 // nil where there can be none
	lacking error                                      // why there is none
	renew   func(context.Context) (*api.Client, error) // with credentials looked for anew
	dial    func(ctx context.Context, streamURL string) (stream.Socket, error)
	close   func() error // ends what was started for it
}

// resume asks for a new token. Credentials that have expired are looked for anew
// before the next time: the user may have logged in meanwhile.
func (s *service) resume(ctx context.Context, sessionID string) (api.Grant, error) {
	if s.lacking != nil {
		return api.Grant{}, s.lacking
	}
	grant, err := s.client.Load().Resume(ctx, sessionID)
	if expired := (*api.Error)(nil); errors.As(err, &expired) && expired.Expired() {
		if fresh, renewErr := s.renew(ctx); renewErr == nil {
			s.client.Store(fresh) // else the old one stays, and its error is told
		}
	}
	return grant, err
}

// dataKey makes the key of an encrypted session.
func (s *service) dataKey(ctx context.Context, r api.DataKeyRequest) (stream.DataKey, error) {
	if s.lacking != nil {
		return stream.DataKey{}, s.lacking
	}
	key, err := s.client.Load().DataKey(ctx, r)
	return stream.DataKey{Plaintext: (*stream.KeyBytes)(key.Plaintext), Ciphertext: key.Ciphertext}, err
}

// dialAgain dials what ResumeSession says, or else what StartSession said.
func (s *service) dialAgain(ctx context.Context, again, first string) (stream.Socket, error) {
	if again != "" && again != first {
		if socket, err := s.dial(ctx, again); err == nil || ctx.Err() != nil {
			return socket, err
		}
	}
	return s.dial(ctx, first)
}

// connect gives the service of the target: AWS, or for "local" an emulator of
// our own, which is reached exactly as AWS is.
func (o *opening) connect(ctx context.Context, e *env, clock *openingClock) (*service, error) {
	if o.shared != nil {
		return o.shared.get(func() (*service, error) { return o.connectAnew(ctx, e, clock) })
	}
	return o.connectAnew(ctx, e, clock)
}

func (o *opening) connectAnew(ctx context.Context, e *env, clock *openingClock) (*service, error) {
	if o.target == localTarget && o.given == nil {
		return o.connectLocal(ctx, e)
	}
	bundle, trust, err := o.trust(e)
	if err != nil {
		return nil, err
	}
	proxies, err := proxy.New(proxy.Config{Getenv: e.getenv, TLS: trust})
	if err != nil {
		return nil, &failure{code: "BadConfig", err: err}
	}
	if o.streamEndpoint == "" {
		o.streamEndpoint = e.getenv("AWS_ENDPOINT_URL_SSMMESSAGES")
		if _, err := parseStreamEndpoint(o.streamEndpoint); err != nil {
			return nil, &failure{code: "BadConfig", err: fmt.Errorf("AWS_ENDPOINT_URL_SSMMESSAGES is %w", err)}
		}
	}
	cfg := api.Config{
		Region: o.region, Profile: o.profile, EndpointURL: o.endpoint, KMSEndpointURL: o.kmsEndpoint,
		CABundle: bundle, Insecure: o.noVerify,
		Proxy:   proxies.ForRequest,
		Prompt:  clock.asking(e.prompt()),
		Version: e.version,
		Log:     e.log,
	}
	s := &service{
		renew: func(ctx context.Context) (*api.Client, error) { return api.New(ctx, cfg) },
		close: func() error { return nil },
		dial: func(ctx context.Context, streamURL string) (stream.Socket, error) {
			streamURL, err := o.streamURL(streamURL)
			if err != nil {
				return nil, err
			}
			return stream.DialWebSocket(ctx, streamURL, stream.DialConfig{
				TLS: trust, Dial: proxies.DialContext, UserAgent: e.userAgent(),
			})
		},
	}
	client, err := s.renew(ctx)
	if o.given != nil {
		s.lacking, err = err, nil // most sessions need no more than they were given
	}
	s.client.Store(client)
	return s, err
}

// streamURL puts the private endpoint, if there is one, in the place of the
// service's own.
func (o *opening) streamURL(given string) (string, error) {
	endpoint, err := parseStreamEndpoint(o.streamEndpoint)
	if err != nil || endpoint == nil {
		return given, err
	}
	u, err := url.Parse(given)
	if err != nil {
		return given, nil //nolint:nilerr // whoever dials it says so
	}
	u.Scheme, u.Host = endpoint.Scheme, endpoint.Host
	return u.String(), nil
}

// trust reads whose certificates count for both connections: the bundle for the
// API, which the SDK wants as it is, and the same for everything else.
func (o *opening) trust(e *env) (bundle []byte, cfg *tls.Config, err error) {
	cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	if o.noVerify {
		e.warn("certificates are not checked (--no-verify-ssl): whoever is in the way can read and change everything")
		cfg.InsecureSkipVerify = true
		return nil, cfg, nil
	}
	path, from := o.caBundle, "--ca-bundle"
	if path == "" {
		path, from = e.getenv("AWS_CA_BUNDLE"), "AWS_CA_BUNDLE"
	}
	if path == "" {
		return nil, cfg, nil
	}
	if bundle, err = os.ReadFile(path); err != nil {
		return nil, nil, &failure{code: "BadConfig", err: fmt.Errorf("cannot read the certificates of %s: %w", from, err)}
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(bundle) {
		return nil, nil, &failure{code: "BadConfig", err: fmt.Errorf("no certificate in %s, which %s names", path, from)}
	}
	return bundle, cfg, nil
}

// connectLocal starts an emulator in this process and gives the way to it.
func (o *opening) connectLocal(ctx context.Context, e *env) (*service, error) {
	if err := emulator.ShellSupported(); err != nil {
		return nil, &failure{code: "NotSupported", err: fmt.Errorf("cannot open a shell on %s: %w", localTarget, err)}
	}
	// It ends by close, in order: what ends us does not end the service.
	server, err := emulator.Start(context.WithoutCancel(ctx), emulator.Config{Shell: userShell(e), Version: e.version})
	if err != nil {
		return nil, fmt.Errorf("cannot start the built-in emulator: %w", err)
	}
	key, secret := server.Credentials()
	s := &service{
		close: server.Close,
		renew: func(ctx context.Context) (*api.Client, error) {
			return api.New(ctx, api.Config{
				Region:      emulator.DefaultRegion,
				EndpointURL: server.URL(),
				Keys:        &api.Keys{AccessKeyID: key, SecretAccessKey: api.NewSecret(secret)},
				Version:     e.version,
				Log:         e.log,
			})
		},
		dial: func(ctx context.Context, streamURL string) (stream.Socket, error) {
			return stream.DialWebSocket(ctx, streamURL, stream.DialConfig{})
		},
	}
	client, err := s.renew(ctx)
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	s.client.Store(client)
	return s, nil
}

// userShell is the shell of whoever runs this.
func userShell(e *env) []string {
	if shell := e.getenv("SHELL"); shell != "" {
		return []string{shell}
	}
	return nil
}

// streamConfig says how the data channel of grant is dialled, and dialled again.
func (o *opening) streamConfig(e *env, svc *service, grant api.Grant) stream.Config {
	rate := o.perSecond
	if rate < 0 {
		rate = stream.ServiceRate
		given, err := o.streamURL(grant.StreamURL)
		if u, parseErr := url.Parse(given); err == nil && parseErr == nil && stream.IsLoopback(u.Hostname()) {
			rate = 0
		}
	}
	cfg := stream.Config{
		Rate:          rate,
		Log:           e.log,
		RedialFor:     orNever(o.reconnectFor),
		NoRedial:      o.noReconnect,
		AliveInterval: orNever(o.aliveInterval),
		AliveCount:    o.aliveCount,

		RequireEncryption: o.encrypted,
	}
	cfg.DataKey = func(ctx context.Context, r stream.KeyRequest) (stream.DataKey, error) {
		return svc.dataKey(ctx, api.DataKeyRequest{
			KeyID: r.KeyID, SessionID: grant.SessionID, Target: o.target, Challenge: r.Challenge,
		})
	}
	cfg.Dial = func(ctx context.Context, resume bool) (stream.Socket, string, error) {
		if !resume {
			socket, err := svc.dial(ctx, grant.StreamURL)
			return socket, grant.Token.Reveal(), err
		}
		again, err := svc.resume(ctx, grant.SessionID)
		if err != nil {
			return nil, "", err
		}
		socket, err := svc.dialAgain(ctx, again.StreamURL, grant.StreamURL)
		return socket, again.Token.Reveal(), err
	}
	return cfg
}

// orNever is how stream.Config says what a flag says by 0.
func orNever(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}
