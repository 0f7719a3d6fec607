package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/emulator"
	"github.com/ssmsession/ssmsession/internal/stream"
)

const (
	terminateTimeout = 5 * time.Second
	localTarget      = "local"
)

// opening is what every command that opens a session has in common: its flags,
// and the way from them to a data channel.
type opening struct {
	target     string
	document   string
	parameters string
	reason     string
	region     string
	profile    string
	endpoint   string
	rate       string

	parsed    map[string][]string
	perSecond int // messages; -1 for what suits the far end
}

// addFlags defines the flags, spelled as the AWS CLI spells them where it has
// them.
func (o *opening) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVarP(&o.target, "target", "t", "", `the node: i-…, mi-…, or "local" for this machine through the built-in emulator`)
	f.StringVar(&o.document, "document-name", "", "session document (default: the account's shell preferences)")
	f.StringVar(&o.parameters, "parameters", "", `document parameters: key=v1,v2 or JSON {"key":["v1"]}`)
	f.StringVar(&o.reason, "reason", "", "why, for the audit trail (at most 256 characters)")
	f.StringVar(&o.region, "region", "", "AWS region (default: AWS_REGION or the profile's)")
	f.StringVar(&o.profile, "profile", "", "profile of the AWS configuration files")
	f.StringVar(&o.endpoint, "endpoint-url", "", "endpoint of Systems Manager (default: the region's)")
	f.StringVar(&o.rate, "rate", "auto", "data messages sent per second: a number, off, or auto (900 towards AWS, off on loopback)")
}

// complete takes the target from the one place it was given and reads the rest.
func (o *opening) complete(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		if cmd.Flags().Changed("target") && o.target != args[0] {
			return usage(cmd, fmt.Errorf("two targets were given: %s and %s", o.target, args[0]))
		}
		o.target = args[0]
	}
	if o.target == "" {
		return usage(cmd, errors.New("no target: name one, or try --target local"))
	}
	var err error
	if o.parsed, err = api.ParseParameters(o.parameters); err != nil {
		return usage(cmd, err)
	}
	if err := o.request().Validate(); err != nil {
		return usage(cmd, err)
	}
	switch o.rate {
	case "auto":
		o.perSecond = -1
	case "off":
		o.perSecond = 0
	default:
		if o.perSecond, err = strconv.Atoi(o.rate); err != nil || o.perSecond < 1 {
			return usage(cmd, fmt.Errorf("--rate takes a number of messages per second, off or auto, not %q", o.rate))
		}
	}
	return nil
}

func (o *opening) request() api.StartRequest {
	return api.StartRequest{
		Target: o.target, DocumentName: o.document, Reason: o.reason, Parameters: o.parsed,
	}
}

// service is where sessions come from. close ends what was started for it.
type service struct {
	client *api.Client
	close  func() error
}

// connect gives the service of the target: AWS, or for "local" an emulator of
// our own, which is reached exactly as AWS is.
func (o *opening) connect(ctx context.Context, e *env) (service, error) {
	cfg := api.Config{Region: o.region, Profile: o.profile, EndpointURL: o.endpoint, Version: e.version}
	if o.target != localTarget {
		client, err := api.New(ctx, cfg)
		return service{client, func() error { return nil }}, err
	}
	if err := emulator.ShellSupported(); err != nil {
		return service{}, fmt.Errorf("cannot open a shell on %s: %w", localTarget, err)
	}
	server, err := emulator.Start(ctx, emulator.Config{Shell: userShell(e), Version: e.version})
	if err != nil {
		return service{}, fmt.Errorf("cannot start the built-in emulator: %w", err)
	}
	key, secret := server.Credentials()
	client, err := api.New(ctx, api.Config{
		Region:      emulator.DefaultRegion,
		EndpointURL: server.URL(),
		Keys:        &api.Keys{AccessKeyID: key, SecretAccessKey: api.NewSecret(secret)},
		Version:     e.version,
	})
	if err != nil {
		return service{}, errors.Join(err, server.Close())
	}
	return service{client, server.Close}, nil
}

// userShell is the shell of whoever runs this.
func userShell(e *env) []string {
	if shell := e.getenv("SHELL"); shell != "" {
		return []string{shell}
	}
	return nil
}

// streamConfig says how the data channel of grant is dialled, and dialled again.
func (o *opening) streamConfig(e *env, client *api.Client, grant api.Grant) (stream.Config, error) {
	dial := stream.DialConfig{Proxy: http.ProxyFromEnvironment}
	if bundle := e.getenv("AWS_CA_BUNDLE"); bundle != "" && o.target != localTarget {
		roots, err := readRoots(bundle)
		if err != nil {
			return stream.Config{}, err
		}
		dial.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	rate := o.perSecond
	if rate < 0 {
		rate = stream.ServiceRate
		if u, err := url.Parse(grant.StreamURL); err == nil && stream.IsLoopback(u.Hostname()) {
			rate = 0
		}
	}
	return stream.Config{
		Rate: rate,
		Dial: func(ctx context.Context, resume bool) (stream.Socket, string, error) {
			token := grant.Token
			if resume {
				again, err := client.Resume(ctx, grant.SessionID)
				if err != nil {
					return nil, "", err
				}
				token = again.Token
			}
			socket, err := stream.DialWebSocket(ctx, grant.StreamURL, dial)
			return socket, token.Reveal(), err
		},
	}, nil
}

// readRoots reads a file of certificates to trust instead of the system's.
func readRoots(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read AWS_CA_BUNDLE: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in AWS_CA_BUNDLE %s", path)
	}
	return roots, nil
}
