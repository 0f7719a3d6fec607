package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// credentialSource marks the errors of finding credentials, which the SDK
// otherwise mixes with those of the call itself.
type credentialSource struct{ aws.CredentialsProvider }

// credentialError says that a call failed before it was made, for want of
// credentials.
type credentialError struct{ err error }

func (e *credentialError) Error() string { return "no credentials: " + e.err.Error() }
func (e *credentialError) Unwrap() error { return e.err }

// RetryableError has the SDK's retries take the search for final: who is asked
// for credentials is asked often enough by a client of its own, and a user who
// has typed an MFA code need not type three.
func (e *credentialError) RetryableError() bool { return false }

// askerKey finds in a context the context of the call that wants credentials.
// The SDK looks for them under a context that nobody can cancel, for others
// may wait for the same; but a prompt must end with the call that asks.
type askerKey struct{}

// Retrieve implements aws.CredentialsProvider.
func (s *credentialSource) Retrieve(ctx context.Context) (aws.Credentials, error) {
	keys, err := s.CredentialsProvider.Retrieve(context.WithValue(ctx, askerKey{}, ctx))
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

// vaultKeys returns the environment's keys if aws-vault put them there for the
// profile that is asked for, else nil.
func (c Config) vaultKeys() aws.CredentialsProvider {
	profile := cmp.Or(c.Profile, os.Getenv("AWS_PROFILE"), os.Getenv("AWS_DEFAULT_PROFILE"))
	if profile == "" || profile != os.Getenv("AWS_VAULT") {
		return nil
	}
	env, err := config.NewEnvConfig()
	if err != nil || !env.Credentials.HasKeys() {
		return nil // the SDK reads the same, and tells of the error
	}
	return credentials.StaticCredentialsProvider{Value: env.Credentials, Source: []aws.CredentialSource{aws.CredentialSourceEnvVars}}
}

// instance asks EC2's instance metadata, the SDK's last resort: once, and for
// a second, as the AWS CLI does. Off EC2 nobody answers, or worse, a packet
// filter drops the question; the user must not wait for the SDK's three tries.
type instance struct{ client *imds.Client }

// GetMetadata implements ec2rolecreds.GetMetadataAPIClient.
func (i *instance) GetMetadata(ctx context.Context, in *imds.GetMetadataInput, opts ...func(*imds.Options)) (*imds.GetMetadataOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return i.client.GetMetadata(ctx, in, opts...)
}

// newIMDS makes the client of instance. Of its second, the SDK gives half to
// the token of version 2 and half to version 1, which a container on EC2 may
// need: answers with a token do not come that far.
func newIMDS(cfg aws.Config) *imds.Client {
	return imds.NewFromConfig(cfg, func(o *imds.Options) {
		o.Retryer = aws.NopRetryer{}
		o.HTTPClient = awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.Proxy = nil })
	})
}

// assumeRole sets what the SDK does otherwise when it assumes a role.
func (c Config) assumeRole(o *stscreds.AssumeRoleOptions) {
	if o.Duration == 0 {
		// The API's own default, which every role permits. The SDK's quarter of
		// an hour would have a resumed session ask for a code again.
		o.Duration = time.Hour
	}
	if c.Prompt != nil {
		// The SDK wants a function that no context can stop. It gets no
		// code: prompter fills it in.
		o.TokenProvider = func() (string, error) { return "", nil }
	}
}

// prompter asks the user for MFA codes.
type prompter func(ctx context.Context, question string) (string, error)

// mfaError says that there is no usable MFA code.
type mfaError struct {
	code string // one of the Code constants
	err  error
}

func (e *mfaError) Error() string { return e.err.Error() }
func (e *mfaError) Unwrap() error { return e.err }

// middleware is the step of every call that, before an AssumeRole which names
// an MFA device, has the user asked for its code.
func (p prompter) middleware() middleware.InitializeMiddleware {
	return middleware.InitializeMiddlewareFunc("ssmsession.MFA", func(
		ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler,
	) (middleware.InitializeOutput, middleware.Metadata, error) {
		if role, ok := in.Parameters.(*sts.AssumeRoleInput); ok && role.SerialNumber != nil {
			code, err := p.ask(ctx, *role.SerialNumber)
			if err != nil {
				return middleware.InitializeOutput{}, middleware.Metadata{}, err
			}
			role.TokenCode = &code
		}
		return next.HandleInitialize(ctx, in)
	})
}

func (p prompter) ask(ctx context.Context, serial string) (string, error) {
	if asker, ok := ctx.Value(askerKey{}).(context.Context); ok {
		ctx = asker
	}
	code, err := p(ctx, "MFA code for "+clean(serial))
	if err != nil {
		return "", &mfaError{CodeNeedsMFA, fmt.Errorf("cannot read the MFA code: %w", err)}
	}
	// What AssumeRole's TokenCode is modelled as. The code is not repeated: it
	// is a secret for half a minute, and the user may have typed a password.
	code = strings.TrimSpace(code)
	if len(code) != 6 || strings.Trim(code, "0123456789") != "" {
		return "", &mfaError{CodeWrongMFA, errors.New("an MFA code has 6 digits")}
	}
	return code, nil
}

// profilesOf returns the name of the shared profile that was loaded, and of
// the one at the end of its chain of source_profile, which has the keys or the
// login.
func profilesOf(cfg aws.Config) (loaded, root string) {
	for _, source := range cfg.ConfigSources {
		if shared, ok := source.(config.SharedConfig); ok {
			end := &shared
			for end.Source != nil {
				end = end.Source
			}
			return shared.Profile, end.Profile
		}
	}
	return "", ""
}

// from reports whether the credentials come, at some step, from one of sources.
func (w caller) from(sources ...aws.CredentialSource) bool {
	return slices.ContainsFunc(w.sources, func(s aws.CredentialSource) bool { return slices.Contains(sources, s) })
}

// sso reports whether the credentials come of an SSO login.
func (w caller) sso() bool {
	return w.from(aws.CredentialSourceSSO, aws.CredentialSourceSSOLegacy,
		aws.CredentialSourceProfileSSO, aws.CredentialSourceProfileSSOLegacy)
}

// env reports whether the keys are the environment's.
func (w caller) env() bool { return w.from(aws.CredentialSourceEnvVars) }

// webIdentity reports whether a token in a file stands for the user.
func (w caller) webIdentity() bool {
	return w.from(aws.CredentialSourceEnvVarsSTSWebIDToken, aws.CredentialSourceProfileSTSWebIDToken)
}

// unset reports whether nothing is configured: the SDK's last resort is to ask
// the instance it may be running on.
func (w caller) unset() bool {
	return len(w.sources) == 1 && w.sources[0] == aws.CredentialSourceIMDS
}

// credentials explains a call that was never made for want of credentials.
func (w caller) credentials(c call, err *credentialError) *Error {
	var answer smithy.APIError
	var code *mfaError
	var garbled *smithy.DeserializationError
	var process *processcreds.ProviderError
	fail := func(code, message, hint string) *Error { return c.fail(code, message, hint, err) }
	switch {
	case errors.As(err, &code):
		return fail(code.code, clean(code.Error()), "try again with the code the device shows")
	case w.unset():
		return fail(CodeNoCredentials, "no usable AWS credentials"+named(" in", w.profile), "see what is set with  aws configure list"+w.profileFlag())
	case unreachable(err):
		return inSearch(w.network(c, err))
	case errors.As(err, &answer):
		return w.credentialsAnswered(c, answer, err)
	case errors.As(err, &garbled):
		return inSearch(notTheService(c, err))
	case errors.As(err, &process):
		// The process's standard error is the user's: what it said, it said
		// there. What it wrote to standard output may be half a secret, so the
		// SDK's words, which quote it, are not ours.
		return fail(CodeNoCredentials, "the credential_process"+named(" of", w.root)+" gave no credentials"+exitOf(err),
			"run the command by hand: it is credential_process in the AWS config file")
	case w.webIdentity():
		return inSearch(fail(CodeNoCredentials, clean(rootCause(err).Error()),
			"check the token file in AWS_WEB_IDENTITY_TOKEN_FILE, or the profile's web_identity_token_file"))
	case w.sso():
		return fail(CodeSSOExpired, "the SSO login has expired or was never made", w.login())
	case w.from(aws.CredentialSourceLogin, aws.CredentialSourceProfileLogin):
		return fail(CodeLoginExpired, "the login has expired or was never made", "log in again with  aws login"+w.rootFlag())
	}
	return fail(CodeNoCredentials, "no usable AWS credentials"+named(" in", w.profile), "see what is set with  aws configure list"+w.profileFlag())
}

// credentialsAnswered explains that a service which was asked for credentials
// refused. The codes are the API references' of STS, SSO and SSO OIDC.
func (w caller) credentialsAnswered(c call, answer smithy.APIError, err error) *Error {
	e := inSearch(w.answered(c, answer, err))
	code := answer.ErrorCode()
	switch serviceOf(err) {
	case "SSO", "SSO OIDC":
		switch code {
		case "UnauthorizedException", "InvalidGrantException", "ExpiredTokenException", "InvalidClientException", "UnauthorizedClientException":
			return c.fail(CodeSSOExpired, "the SSO login has expired or was never made", w.login(), err)
		case "ForbiddenException", "ResourceNotFoundException", "InvalidRequestException":
			e.Hint = "check sso_account_id and sso_role_name" + named(" of", w.root) + " in the AWS config file"
		}
	case "Signin":
		return c.fail(CodeLoginExpired, e.Message, "log in again with  aws login"+w.rootFlag(), err)
	case "STS":
		w.explainSTS(e, answer)
	}
	return e
}

// explainSTS mends the words for an answer of STS, which unlike SSM's is about
// a role.
func (w caller) explainSTS(e *Error, answer smithy.APIError) {
	switch answer.ErrorCode() {
	case "AccessDenied", "AccessDeniedException":
		// STS has no code of its own for it.
		if strings.Contains(answer.ErrorMessage(), "MultiFactorAuthentication failed") {
			e.Code = CodeWrongMFA
			e.Message = "the MFA code is wrong, or was used before"
			e.Hint = "wait for the device's next code and try again"
			return
		}
		e.Hint = "check role_arn and who may assume it; see who is asking with  aws sts get-caller-identity" + w.rootFlag()
		if w.webIdentity() {
			e.Hint = "check that the role trusts the identity provider of the token"
		}
	case "ValidationError", "ValidationException", "MalformedPolicyDocument":
		e.Hint = "check role_arn, role_session_name, duration_seconds and external_id in the AWS config file"
	case "InvalidIdentityToken", "IDPRejectedClaim", "IDPCommunicationError":
		e.Hint = "check the web identity token, and that the role trusts who issued it"
	case "ExpiredTokenException", "ExpiredToken":
		if w.webIdentity() {
			e.Hint = "renew the web identity token in its file"
		}
	case "RegionDisabledException":
		e.Hint = "activate STS for the region in the account's settings, or give another --region"
	}
}

// inSearch says of an error that it came up in the search for credentials.
func inSearch(e *Error) *Error {
	e.Message = "cannot get credentials: " + e.Message
	return e
}

// serviceOf returns the SDK's name of the service that failed first: the
// innermost, when one's credentials are another's answer.
func serviceOf(err error) string {
	name := ""
	for op := (*smithy.OperationError)(nil); errors.As(err, &op); err = op.Err {
		name = op.ServiceID
	}
	return name
}

// exitOf returns how a process ended in brackets, or nothing.
func exitOf(err error) string {
	var ended interface{ ExitCode() int }
	switch {
	case !errors.As(err, &ended):
		return ""
	case ended.ExitCode() < 0:
		return " (it was killed, or took more than a minute)"
	}
	return fmt.Sprintf(" (exit status %d)", ended.ExitCode())
}

// renew is the hint for credentials that have expired, by where they are from.
func (w caller) renew() string {
	switch {
	case w.sso():
		return w.login()
	case w.env() && w.vault != "":
		return "leave this shell and run  aws-vault exec " + shellWord(w.vault) + "  again"
	case w.env():
		return "renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN in the environment"
	}
	return "renew them, then check with  aws sts get-caller-identity" + w.profileFlag()
}

// login is the hint for an SSO login that is over. The profile with the login
// may be the source of the one in use.
func (w caller) login() string { return "log in again with  aws sso login" + w.rootFlag() }

// named returns words and the quoted name of a profile, or nothing for the
// default profile.
func named(words, profile string) string {
	if profile == "" || profile == "default" {
		return ""
	}
	return fmt.Sprintf("%s profile %q", words, clean(profile))
}

// profileFlag has a suggested command ask with the same credentials. Keys of
// the environment need no flag: with one the AWS CLI would not look at them.
func (w caller) profileFlag() string {
	if w.profile == "" || w.profile == "default" || w.env() {
		return ""
	}
	return " --profile " + shellWord(w.profile)
}

// rootFlag is profileFlag for the profile that has the keys or the login.
func (w caller) rootFlag() string {
	if w.root == "" || w.root == w.profile || w.env() {
		return w.profileFlag()
	}
	return " --profile " + shellWord(w.root)
}
