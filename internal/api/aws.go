package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Config says how to reach AWS. The zero value is what the SDK finds by itself
// in the environment and the shared files.
type Config struct {
	// Region, Profile and EndpointURL win over the environment when not empty.
	// EndpointURL is the address of SSM only; STS and SSO keep theirs. So does
	// AWS_ENDPOINT_URL: the SDK makes the clients that fetch credentials before
	// it reads it. AWS_ENDPOINT_URL_STS, _SSO and _SSO_OIDC hold for those.
	//
	// A profile given here wins over keys in the environment, with one
	// exception: under "aws-vault exec NAME" (AWS_VAULT is NAME) the
	// environment's keys are those of profile NAME, and the shared file most
	// likely has none for it. So they hold when Profile, or AWS_PROFILE, is
	// NAME, too. Another Profile still wins.
	Region, Profile, EndpointURL string

	// KMSEndpointURL is the address of KMS, which makes the keys of encrypted
	// sessions. Empty: AWS_ENDPOINT_URL_KMS, AWS_ENDPOINT_URL, the profile's or
	// the region's.
	KMSEndpointURL string

	// Keys, when not nil, isolate the client from the user's AWS set-up: these
	// keys, Region and EndpointURL are then all it knows. No shared file, no
	// AWS_* variable, no instance metadata, no proxy. It is how the built-in
	// emulator is reached, KMS included. Region and EndpointURL are required
	// then, Profile must be empty, and KMSEndpointURL, CABundle, Insecure, Proxy and Prompt are not looked at.
	Keys *Keys

	// CABundle is PEM. Its certificates are trusted instead of the system's,
	// and instead of those AWS_CA_BUNDLE names.
	CABundle []byte

	// Insecure takes any certificate, of SSM and of whom credentials are asked
	// (STS, SSO): whoever is in the way can then read and use them.
	Insecure bool

	// Proxy names the proxy of a request, as http.Transport has it. Nil: what
	// net/http finds in the environment. Instance metadata is never asked
	// through a proxy: the address is this machine's own.
	Proxy func(*http.Request) (*url.URL, error)

	// Prompt asks the user for the MFA code of a role to be assumed. It returns
	// as soon as ctx ends. Any call may need it: credentials expire, and
	// Resume looks for fresh ones. Nil: nothing may prompt, and a profile that
	// needs a code is an error of New.
	Prompt func(ctx context.Context, question string) (string, error)

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
	for name, endpoint := range map[string]string{"the endpoint": c.EndpointURL, "the endpoint of KMS": c.KMSEndpointURL} {
		if endpoint == "" {
			continue
		}
		u, err := url.Parse(endpoint)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
			return setup.invalid(name + " is no http or https URL")
		}
		// Requests are signed, so a password has no use; refused, it cannot
		// get into a message either.
		if u.User != nil {
			return setup.invalid(name + " must not hold a user name or password")
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
		t.DisableKeepAlives = true // as below
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
		kms: kms.New(kms.Options{
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
	if c.CABundle != nil && !x509.NewCertPool().AppendCertsFromPEM(c.CABundle) {
		return nil, call{op: opSetup}.fail(CodeBadConfig, "the CA bundle holds no certificate", "it must be a PEM file", nil)
	}
	vault := c.vaultKeys()
	metadata := &instance{}
	cfg, err := config.LoadDefaultConfig(ctx, c.loadOptions(vault, metadata)...)
	var keyless config.SharedConfigAssumeRoleError
	if vault != nil && errors.As(err, &keyless) {
		// A role whose source_profile has no keys: aws-vault has them. The SDK
		// refuses it even when it needs none of it, so the source must do.
		c.Profile = keyless.Profile
		cfg, err = config.LoadDefaultConfig(ctx, c.loadOptions(vault, metadata)...)
	}
	if err != nil {
		return nil, c.explainLoad(ctx, err)
	}
	if err := checkRegion(cfg.Region); err != nil {
		return nil, err
	}
	// The SDK wants the look-up before it has the settings the look-up needs.
	metadata.client = newIMDS(cfg)
	source := &credentialSource{CredentialsProvider: cfg.Credentials}
	cfg.Credentials = source
	if vault != nil {
		c.Profile = "" // the AWS CLI would go to the shared file for it
	}
	who := caller{region: cfg.Region, proxy: c.Proxy, flags: c.flags(), sources: source.ProviderSources(), vault: os.Getenv("AWS_VAULT")}
	who.profile, who.root = profilesOf(cfg)
	return &Client{
		ssm: ssm.NewFromConfig(cfg, func(o *ssm.Options) {
			if c.EndpointURL != "" {
				o.BaseEndpoint = &c.EndpointURL
			}
		}),
		kms: kms.NewFromConfig(cfg, func(o *kms.Options) {
			if c.KMSEndpointURL != "" {
				o.BaseEndpoint = &c.KMSEndpointURL
			}
		}),
		caller: who,
	}, nil
}

// checkRegion refuses what the environment or a profile has for a region and
// cannot be one. It is no usage error: the command line does not show it.
func checkRegion(region string) error {
	setup := call{op: opSetup}
	switch {
	case region == "":
		return setup.fail(CodeNoRegion, "no region is set", "give --region, or set one with  aws configure set region us-east-1", nil)
	case !isRegion(region):
		return setup.fail(CodeBadConfig, fmt.Sprintf("%q is no name of a region", clean(region)), "see where it comes from with  aws configure list", nil)
	}
	return nil
}

func (c Config) loadOptions(vault aws.CredentialsProvider, metadata *instance) []func(*config.LoadOptions) error {
	opts := []func(*config.LoadOptions) error{
		config.WithLogger(sdkLogger(c.Log)),
		config.WithAPIOptions(c.apiOptions()),
		// A BuildableClient and no other, or the SDK refuses a CA bundle.
		config.WithHTTPClient(c.httpClient()),
		config.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) { o.Client = metadata }),
		config.WithAssumeRoleCredentialOptions(c.assumeRole),
	}
	if c.Region != "" {
		opts = append(opts, config.WithRegion(c.Region))
	}
	if c.Profile != "" {
		opts = append(opts, config.WithSharedConfigProfile(c.Profile))
	}
	if vault != nil {
		opts = append(opts, config.WithCredentialsProvider(vault))
	}
	if c.CABundle != nil {
		opts = append(opts, config.WithCustomCABundle(bytes.NewReader(c.CABundle)))
	} else if c.Insecure && os.Getenv("AWS_CA_BUNDLE") != "" {
		// The SDK would read it, and fail if it cannot, but not beside another
		// one. Which one does not matter: none is looked at.
		opts = append(opts, config.WithCustomCABundle(bytes.NewReader(someCertificate())))
	}
	if c.Log != nil {
		// Retries only: the modes that show bodies would show tokens.
		opts = append(opts, config.WithClientLogMode(aws.LogRetries))
	}
	return opts
}

// httpClient is the one that SSM, STS and SSO are asked with.
func (c Config) httpClient() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		if c.Proxy != nil {
			t.Proxy = c.Proxy
		}
		t.OnProxyConnectResponse = proxyAnswered
		// The calls are minutes and hours apart. A connection that was kept may
		// be one of a network that is gone, and hang.
		t.DisableKeepAlives = true
		t.TLSClientConfig.InsecureSkipVerify = c.Insecure
	})
}

// someCertificate makes one that stands for nobody, as PEM.
func someCertificate() []byte {
	public, private, _ := ed25519.GenerateKey(rand.Reader) // never fails (crypto/rand)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, _ := x509.CreateCertificate(rand.Reader, template, template, public, private) // nor does this, of such a key
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func (c Config) apiOptions() []func(*middleware.Stack) error {
	opts := []func(*middleware.Stack) error{
		awsmiddleware.AddUserAgentKeyValue("ssmsession", c.Version),
		func(s *middleware.Stack) error {
			// The last of its step sees the answer first.
			return s.Deserialize.Add(middleware.DeserializeMiddlewareFunc("LimitAnswer", limitAnswer), middleware.After)
		},
	}
	if c.Prompt != nil {
		opts = append(opts, func(s *middleware.Stack) error {
			return s.Initialize.Add(prompter(c.Prompt).middleware(), middleware.Before)
		})
	}
	return opts
}

// maxAnswer is the most of an answer's body that is read, in bytes. A grant has
// some 2 kB; the SDK itself would read for ever.
const maxAnswer = 1 << 20

// limitAnswer bounds the body of an answer before anything reads it.
func limitAnswer(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
	out middleware.DeserializeOutput, metadata middleware.Metadata, err error,
) {
	out, metadata, err = next.HandleDeserialize(ctx, in)
	if answer, ok := out.RawResponse.(*smithyhttp.Response); ok && answer.Body != nil {
		answer.Body = &limitedBody{ReadCloser: answer.Body, left: maxAnswer}
	}
	return out, metadata, err
}

// errLongAnswer is what reading a body ends with that is longer than maxAnswer.
var errLongAnswer = errors.New("the answer is too long")

type limitedBody struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLongAnswer
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
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

// explainLoad turns an error of LoadDefaultConfig into ours.
func (c Config) explainLoad(ctx context.Context, err error) error {
	setup := call{op: opSetup}
	profile := Config{Profile: c.Profile}.flags()
	var noProfile config.SharedConfigProfileNotExistError
	var badFile config.SharedConfigLoadError
	var keyless config.SharedConfigAssumeRoleError
	var noMFA config.AssumeRoleTokenProviderNotSetError
	switch {
	case ctx.Err() != nil:
		return caller{}.explain(ctx, setup, err)
	case errors.As(err, &noProfile):
		return setup.fail(CodeNoProfile, fmt.Sprintf("there is no profile named %q", clean(noProfile.Profile)),
			"list the profiles with  aws configure list-profiles", err)
	case errors.As(err, &badFile):
		return setup.fail(CodeBadConfig, fmt.Sprintf("cannot read %s: %s", clean(badFile.Filename), clean(badFile.Err.Error())),
			"mend the file, or name another in AWS_CONFIG_FILE", err)
	case errors.As(err, &keyless):
		return setup.fail(CodeBadConfig, fmt.Sprintf("profile %q has no credentials to assume %s with", clean(keyless.Profile), clean(keyless.RoleARN)),
			"give it some with  aws configure --profile "+shellWord(keyless.Profile), err)
	case errors.As(err, &noMFA):
		return setup.fail(CodeNeedsMFA, "the profile's role needs an MFA code, and nothing may prompt here (no terminal, or CI is set)",
			`run it in a terminal, or export credentials first with  eval "$(aws configure export-credentials --format env`+profile+`)"  or  aws sts get-session-token`, err)
	}
	return setup.fail(CodeBadConfig, clean(err.Error()), "check the AWS_* variables, and the profile with  aws configure list"+profile, err)
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
