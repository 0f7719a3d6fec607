package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
)

// Config says how to reach AWS. The zero value is what the SDK finds by itself
// in the environment and the shared files.
type Config struct {
	// Region, Profile and EndpointURL win over the environment when not empty.
	// EndpointURL is the address of SSM only; STS and SSO keep theirs.
	Region, Profile, EndpointURL string

	// Keys, when not nil, isolate the client from the user's AWS set-up: these
	// keys, Region and EndpointURL are then all it knows. No shared file, no
	// AWS_* variable, no instance metadata, no proxy. It is how the built-in
	// emulator is reached. Region and EndpointURL are required then, and
	// Profile must be empty.
	Keys *Keys

	// Transport, when not nil, has the last word on the HTTP transport of the
	// calls, after the SDK's own settings and before AWS_CA_BUNDLE's.
	Transport func(*http.Transport)

	// Version is ours, for the User-Agent.
	Version string

	// Log takes the SDK's own log, at debug level: retries and warnings, never
	// a body. Nil keeps the SDK silent.
	Log *slog.Logger
}

// Keys are credentials handed in by the caller.
type Keys struct {
	AccessKeyID                   string
	SecretAccessKey, SessionToken Secret
}

// New makes a client. It reads files and the environment, and makes no call:
// credentials are looked for by the first one. A missing region, an unknown
// profile and an unusable setting are errors with a hint.
func New(ctx context.Context, c Config) (*Client, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Keys != nil {
		return c.isolated(), nil
	}
	return c.shared(ctx)
}

func (c Config) validate() error {
	setup := call{op: opSetup}
	if c.Region != "" && !isRegion(c.Region) {
		return setup.invalid(fmt.Sprintf("%q is no name of a region", clean(c.Region)))
	}
	if c.EndpointURL != "" {
		u, err := url.Parse(c.EndpointURL)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
			return setup.invalid("the endpoint is no http or https URL")
		}
		// Requests are signed, so a password has no use; refused, it cannot
		// get into a message either.
		if u.User != nil {
			return setup.invalid("the endpoint must not hold a user name or password")
		}
	}
	if c.Keys != nil && (c.Region == "" || c.EndpointURL == "" || c.Profile != "") {
		return setup.invalid("keys of one's own need a region and an endpoint, and no profile")
	}
	return nil
}

// isRegion reports whether s may become part of a host name. That is all that
// can be known: new regions appear, and private ones have names of their own.
func isRegion(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return len(s) <= 63 && s[0] != '-'
}

// isolated builds the client's options by hand instead of telling
// LoadDefaultConfig, option by option, what not to look at: that loader reads
// some forty variables, opens AWS_CA_BUNDLE, and fails on a profile that does
// not exist whatever list of files it is given. Options that never meet the
// loader cannot be changed by a variable, now or in a later SDK.
func (c Config) isolated() *Client {
	keys := credentials.NewStaticCredentialsProvider(
		c.Keys.AccessKeyID, c.Keys.SecretAccessKey.Reveal(), c.Keys.SessionToken.Reveal())
	httpClient := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		// Not even HTTP_PROXY: net/http would spare loopback by itself, but
		// the one address this client knows needs no such reasoning.
		t.Proxy = nil
		if c.Transport != nil {
			c.Transport(t)
		}
	})
	return &Client{
		ssm: ssm.New(ssm.Options{
			Region:       c.Region,
			BaseEndpoint: &c.EndpointURL,
			Credentials:  keys,
			HTTPClient:   httpClient,
			Logger:       sdkLogger(c.Log),
			APIOptions:   c.apiOptions(),
		}),
		caller: caller{isolated: true, region: c.Region},
	}
}

// shared builds the client as the SDK's own tools would.
func (c Config) shared(ctx context.Context) (*Client, error) {
	cfg, err := config.LoadDefaultConfig(ctx, c.loadOptions()...)
	if err != nil {
		return nil, c.explainLoad(ctx, err)
	}
	if cfg.Region == "" {
		return nil, &Error{Op: opSetup, Code: CodeNoRegion, Message: "no region is set",
			Hint: "give --region, or set one with  aws configure set region us-east-1"}
	}
	source := &credentialSource{CredentialsProvider: cfg.Credentials}
	cfg.Credentials = source
	client := ssm.NewFromConfig(cfg, func(o *ssm.Options) {
		if c.EndpointURL != "" {
			o.BaseEndpoint = &c.EndpointURL
		}
	})
	return &Client{
		ssm: client,
		caller: caller{
			region:  cfg.Region,
			profile: profileOf(cfg),
			flags:   c.flags(),
			sources: source.ProviderSources(),
		},
	}, nil
}

func (c Config) loadOptions() []func(*config.LoadOptions) error {
	opts := []func(*config.LoadOptions) error{
		config.WithLogger(sdkLogger(c.Log)),
		config.WithAPIOptions(c.apiOptions()),
	}
	if c.Region != "" {
		opts = append(opts, config.WithRegion(c.Region))
	}
	if c.Profile != "" {
		opts = append(opts, config.WithSharedConfigProfile(c.Profile))
	}
	if c.Transport != nil {
		// A BuildableClient and no other, or the SDK refuses AWS_CA_BUNDLE.
		opts = append(opts, config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(c.Transport)))
	}
	if c.Log != nil {
		// Retries only: the modes that show bodies would show tokens.
		opts = append(opts, config.WithClientLogMode(aws.LogRetries))
	}
	return opts
}

func (c Config) apiOptions() []func(*middleware.Stack) error {
	return []func(*middleware.Stack) error{awsmiddleware.AddUserAgentKeyValue("ssmsession", c.Version)}
}

// flags repeats what the user gave on our command line, for the commands that
// hints suggest: without it they would ask another account or region.
func (c Config) flags() string {
	var b strings.Builder
	for _, f := range []struct{ name, value string }{
		{"--region", c.Region}, {"--profile", c.Profile}, {"--endpoint-url", c.EndpointURL},
	} {
		if f.value != "" {
			b.WriteString(" " + f.name + " " + shellWord(f.value))
		}
	}
	return b.String()
}

// profileOf returns the name of the shared profile that was loaded.
func profileOf(cfg aws.Config) string {
	for _, source := range cfg.ConfigSources {
		if shared, ok := source.(config.SharedConfig); ok {
			return shared.Profile
		}
	}
	return ""
}

// credentialSource marks the errors of finding credentials, which the SDK
// otherwise mixes with those of the call itself.
type credentialSource struct{ aws.CredentialsProvider }

// credentialError says that a call failed before it was made, for want of
// credentials.
type credentialError struct{ err error }

func (e *credentialError) Error() string { return "no credentials: " + e.err.Error() }
func (e *credentialError) Unwrap() error { return e.err }

// Retrieve implements aws.CredentialsProvider.
func (s *credentialSource) Retrieve(ctx context.Context) (aws.Credentials, error) {
	keys, err := s.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, &credentialError{err: err}
	}
	return keys, nil
}

// ProviderSources implements aws.CredentialProviderSource, which the SDK puts
// into the User-Agent.
func (s *credentialSource) ProviderSources() []aws.CredentialSource {
	if p, ok := s.CredentialsProvider.(aws.CredentialProviderSource); ok {
		return p.ProviderSources()
	}
	return nil
}

// explainLoad turns an error of LoadDefaultConfig into ours.
func (c Config) explainLoad(ctx context.Context, err error) error {
	setup := call{op: opSetup}
	var noProfile config.SharedConfigProfileNotExistError
	var badFile config.SharedConfigLoadError
	var noMFA config.AssumeRoleTokenProviderNotSetError
	switch {
	case ctx.Err() != nil:
		return caller{}.explain(ctx, setup, err)
	case errors.As(err, &noProfile):
		return &Error{Op: opSetup, Code: CodeNoProfile, err: err,
			Message: fmt.Sprintf("there is no profile named %q", clean(noProfile.Profile)),
			Hint:    "list the profiles with  aws configure list-profiles"}
	case errors.As(err, &badFile):
		return &Error{Op: opSetup, Code: CodeBadConfig, err: err,
			Message: fmt.Sprintf("cannot read %s: %s", clean(badFile.Filename), clean(badFile.Err.Error()))}
	case errors.As(err, &noMFA):
		return &Error{Op: opSetup, Code: CodeBadConfig, err: err,
			Message: "the profile's role wants an MFA code",
			Hint:    "take the credentials from the AWS CLI with  eval \"$(aws configure export-credentials --format env" + Config{Profile: c.Profile}.flags() + ")\""}
	}
	return &Error{Op: opSetup, Code: CodeBadConfig, err: err, Message: clean(err.Error())}
}

// sdkLogger carries the SDK's log to ours. Without ours it drops everything:
// the SDK's default is standard error, which belongs to the user.
func sdkLogger(log *slog.Logger) logging.Logger {
	if log == nil {
		return logging.Nop{}
	}
	return logging.LoggerFunc(func(class logging.Classification, format string, v ...any) {
		log.Debug("aws sdk: "+clean(fmt.Sprintf(format, v...)), "class", string(class))
	})
}
