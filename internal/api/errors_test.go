package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/aws/smithy-go"
)

func TestWhatTheServiceSaysInOurWords(t *testing.T) {
	const node = "check the agent with  aws ssm describe-instance-information --filters Key=InstanceIds,Values=i-0abc"
	const identity = "aws sts get-caller-identity"
	const envKeys = "renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN in the environment"
	const lookUp = "look the code up in the AWS documentation; --debug tells more of the call"
	const portal = "check the endpoint, and whether a proxy or a login page is in the way"
	start := func(document string) func(*Client) error {
		return func(c *Client) error {
			_, err := c.Start(context.Background(), StartRequest{Target: "i-0abc", DocumentName: document})
			return err
		}
	}
	resume := func(c *Client) error {
		_, err := c.Resume(context.Background(), "jane-01")
		return err
	}
	end := func(c *Client) error { return c.Terminate(context.Background(), "jane-01") }
	for _, tt := range []struct {
		name       string
		call       func(*Client) error
		status     int
		body       string
		code, line string
		hint       string
		permanent  bool
	}{
		{"target not connected", start(""), 400, `{"__type":"TargetNotConnected","Message":"i-0abc is not connected."}`,
			"TargetNotConnected", "cannot start session on i-0abc: target is not connected", node, false},
		{"with a namespace", start(""), 400, `{"__type":"com.amazonaws.ssm#TargetNotConnected"}`,
			"TargetNotConnected", "cannot start session on i-0abc: target is not connected", node, false},
		{"a named document", start("My-Doc"), 400, `{"__type":"InvalidDocument","Message":"Document with name My-Doc does not exist."}`,
			"InvalidDocument", "cannot start session on i-0abc: document My-Doc cannot be used: Document with name My-Doc does not exist",
			"list the session documents with  aws ssm list-documents --filters Key=DocumentType,Values=Session", true},
		{"the account's document", start(""), 400, `{"__type":"InvalidDocument"}`,
			"InvalidDocument", "cannot start session on i-0abc: the account's session document cannot be used",
			"list the session documents with  aws ssm list-documents --filters Key=DocumentType,Values=Session", true},
		{"the service's fault", start(""), 500, `{"__type":"InternalServerError","Message":"boom"}`,
			"InternalServerError", "cannot start session on i-0abc: the service failed: boom", "try again in a moment", false},
		{"no such session", resume, 400, `{"__type":"DoesNotExistException","Message":"gone"}`,
			"DoesNotExistException", "cannot resume session jane-01: there is no such session", "list yours with  aws ssm describe-sessions --state Active", true},
		{"access denied", start(""), 400, `{"__type":"AccessDeniedException","Message":"User: arn:aws:iam::1:user/jane is not authorized to perform: ssm:StartSession"}`,
			"AccessDeniedException", "cannot start session on i-0abc: access denied: User: arn:aws:iam::1:user/jane is not authorized to perform: ssm:StartSession",
			"see who is asking with  " + identity, true},
		{"access denied at the end", end, 400, `{"__type":"AccessDeniedException"}`,
			"AccessDeniedException", "cannot end session jane-01: access denied", "see who is asking with  " + identity, true},
		{"validation", start(""), 400, `{"__type":"ValidationException","Message":"2 validation errors\ndetected:\tone"}`,
			"ValidationException", "cannot start session on i-0abc: the service refuses the request: 2 validation errors detected: one",
			"check the target's name and the parameters", true},
		{"validation with a document", start("My-Doc"), 400, `{"__type":"ValidationException","Message":"no"}`,
			"ValidationException", "cannot start session on i-0abc: the service refuses the request: no",
			"see the document's parameters with  aws ssm describe-document --name My-Doc", true},
		{"parameters of a document", start("My-Doc"), 400, `{"__type":"InvalidParameters","Message":"Parameter \"x\" requires a value"}`,
			"InvalidParameters", `cannot start session on i-0abc: InvalidParameters: Parameter "x" requires a value`,
			"see the document's parameters with  aws ssm describe-document --name My-Doc", false},
		{"validation of a session's id", resume, 400, `{"__type":"ValidationException"}`,
			"ValidationException", "cannot resume session jane-01: the service refuses the request",
			"check the session's id; list yours with  aws ssm describe-sessions --state Active", true},
		{"throttling", resume, 400, `{"__type":"ThrottlingException","Message":"Rate exceeded"}`,
			"ThrottlingException", "cannot resume session jane-01: too many requests", "wait a moment and try again", false},
		{"throttling by another name", resume, 400, `{"__type":"TooManyRequestsException"}`,
			"TooManyRequestsException", "cannot resume session jane-01: too many requests", "wait a moment and try again", false},
		{"expired credentials", resume, 400, `{"__type":"ExpiredTokenException","Message":"The security token included in the request is expired"}`,
			"ExpiredTokenException", "cannot resume session jane-01: the credentials have expired", envKeys, false},
		{"an expired request", resume, 400, `{"__type":"RequestExpired","Message":"Request has expired."}`,
			"RequestExpired", "cannot resume session jane-01: the request or its credentials have expired", "check this machine's clock; then " + envKeys, false},
		{"a clock that is wrong", resume, 400, `{"__type":"RequestTimeTooSkewed"}`,
			"RequestTimeTooSkewed", "cannot resume session jane-01: this machine's clock is wrong", "set the clock, to the minute at least", false},
		{"a service not subscribed to", start(""), 400, `{"__type":"OptInRequired","Message":"The AWS Access Key Id needs a subscription for the service"}`,
			"OptInRequired", "cannot start session on i-0abc: the account may not use the service: The AWS Access Key Id needs a subscription for the service",
			"check that the account is active and has the region enabled, with  aws account list-regions", true},
		{"a service that is away", start(""), 503, `{"__type":"ServiceUnavailable"}`,
			"ServiceUnavailable", "cannot start session on i-0abc: the service failed: ServiceUnavailable", "try again in a moment", false},
		{"an unknown code of the service's fault", resume, 502, `{"__type":"NovelFailure","Message":"oh"}`,
			"NovelFailure", "cannot resume session jane-01: the service failed: NovelFailure: oh", "try again in a moment", false},
		{"an unknown key", start(""), 400, `{"__type":"UnrecognizedClientException","Message":"The security token included in the request is invalid."}`,
			"UnrecognizedClientException", "cannot start session on i-0abc: the service does not know the access key", "see which one is used with  aws configure list  (a region that is not enabled says the same)", false},
		{"a wrong secret", start(""), 400, `{"__type":"InvalidSignatureException","Message":"The request signature we calculated does not match."}`,
			"InvalidSignatureException", "cannot start session on i-0abc: the signature does not match: The request signature we calculated does not match",
			"check the secret key, and this machine's clock", false},
		{"an unknown code with a message", start(""), 400, `{"__type":"NovelException","message":"something new."}`,
			"NovelException", "cannot start session on i-0abc: NovelException: something new", lookUp, false},
		{"an unknown code without", start(""), 400, `{"__type":"NovelException"}`,
			"NovelException", "cannot start session on i-0abc: NovelException", lookUp, false},
		{"a message that moves the cursor", start(""), 400, `{"__type":"NovelException","message":"a\u001b[2J\u0007\u202eb\r\nc"}`,
			"NovelException", "cannot start session on i-0abc: NovelException: a[2Jb c", lookUp, false},
		{"an error without code", start(""), 418, `{}`,
			CodeBadAnswer, "cannot start session on i-0abc: the answer is not the service's (HTTP 418)", portal, false},
		{"an error without a body", start(""), 500, "",
			CodeBadAnswer, "cannot start session on i-0abc: the answer is not the service's (HTTP 500)", portal, false},
		{"a redirect without a body", start(""), 302, "",
			CodeBadAnswer, "cannot start session on i-0abc: the answer is not the service's (HTTP 302)", portal, false},
		{"a redirect with a page", start(""), 301, `<html>moved</html>`,
			CodeBadAnswer, "cannot start session on i-0abc: the answer is not the service's (HTTP 301)", portal, false},
		{"a gateway's page", resume, 502, `<html>bad gateway</html>`,
			CodeBadAnswer, "cannot resume session jane-01: the answer is not the service's (HTTP 502)", portal, false},
		{"no answer at all", start(""), 200, "",
			CodeBadAnswer, "cannot start session on i-0abc: the service's answer has no SessionId", "try again, and check the endpoint", false},
		{"an error that is a page", start(""), 403, `<html>` + token + `</html>`,
			CodeBadAnswer, "cannot start session on i-0abc: the answer is not the service's (HTTP 403)", portal, false},
		{"a page instead of an answer", start(""), 200, `<html>` + token + `</html>`,
			CodeBadAnswer, "cannot start session on i-0abc: the answer is not the service's (HTTP 200)", portal, false},
		{"half an answer", start(""), 200, `{"TokenValue":"` + token + `","StreamUrl`,
			CodeBadAnswer, "cannot start session on i-0abc: the answer is not the service's (HTTP 200)", portal, false},
		{"an answer of the wrong type", start(""), 200, `{"SessionId":["` + token + `"],"TokenValue":7}`,
			CodeBadAnswer, "cannot start session on i-0abc: the answer is not the service's (HTTP 200)", portal, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			accountEnv(t)
			s := newService(t, tt.status, tt.body)
			t.Setenv("AWS_ENDPOINT_URL_SSM", s.URL)
			err := tt.call(mustNew(t, Config{}))
			e := wantError(t, err, tt.code, tt.line, tt.hint)
			if e.Permanent() != tt.permanent {
				t.Errorf("Permanent is %v, want %v", e.Permanent(), tt.permanent)
			}
			if want := strings.Contains(tt.line, "expired"); e.Expired() != want {
				t.Errorf("Expired is %v, want %v", e.Expired(), want)
			}
			if e.Usage() {
				t.Error("an answer of the service should be no usage error")
			}
			if leaks(fmt.Sprintf("%v %+v", err, err)) {
				t.Errorf("the error shows the token: %+v", err)
			}
		})
	}
}

func TestErrorsWrapTheSDKs(t *testing.T) {
	accountEnv(t)
	s := newService(t, 400, `{"__type":"AccessDeniedException","Message":"no"}`)
	err := mustNew(t, Config{EndpointURL: s.URL}).Terminate(context.Background(), "jane-01")
	var answer smithy.APIError
	if !errors.As(err, &answer) || answer.ErrorCode() != "AccessDeniedException" {
		t.Errorf("the SDK's error is not wrapped: %v", err)
	}
}

func TestHintsRepeatTheFlags(t *testing.T) {
	home := accountEnv(t)
	sharedConfig(t, home, "[profile my dev]\naws_access_key_id = AKID\naws_secret_access_key = s\n")
	s := newService(t, 400, `{"__type":"TargetNotConnected"}`)
	c := mustNew(t, Config{Region: "eu-west-3", Profile: "my dev", EndpointURL: s.URL})
	for target, hint := range map[string]string{
		"i-0abc": "check the agent with  aws ssm describe-instance-information --filters Key=InstanceIds,Values=i-0abc" +
			" --region eu-west-3 --profile 'my dev' --endpoint-url " + s.URL,
		"it's $(me)": `check the agent with  aws ssm describe-instance-information --filters Key=InstanceIds,Values='it'\''s $(me)'` +
			" --region eu-west-3 --profile 'my dev' --endpoint-url " + s.URL,
		"ecs:c_t_r": "check that the task runs and was started with  --enable-execute-command",
	} {
		_, err := c.Start(context.Background(), StartRequest{Target: target})
		wantError(t, err, "TargetNotConnected", "cannot start session on "+target+": target is not connected", hint)
	}
}

func TestIsolatedErrorsSuggestNoCommand(t *testing.T) {
	s := newService(t, 400, `{"__type":"TargetNotConnected"}`)
	_, err := isolatedClient(t, s.URL).Start(context.Background(), StartRequest{Target: "local"})
	wantError(t, err, "TargetNotConnected", "cannot start session on local: target is not connected", "")
}

// failing is a Config's Proxy that has every connection end in err, as a dial
// does that fails.
func failing(err error) func(*http.Request) (*url.URL, error) {
	return func(*http.Request) (*url.URL, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
}

func TestWhatTheNetworkSaysInOurWords(t *testing.T) {
	noName := func(host string) error {
		return &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	for _, tt := range []struct {
		name       string
		config     Config
		code, line string
		hint       string
	}{
		{"an unknown region", Config{Region: "us-east-99", Proxy: failing(noName("ssm.us-east-99.amazonaws.com"))},
			CodeNetwork, "cannot start session on i-0abc: no such host: ssm.us-east-99.amazonaws.com",
			"check the network, and that us-east-99 is a region, with  aws ec2 describe-regions"},
		{"an endpoint that is not there", Config{EndpointURL: "https://ssm.example", Proxy: failing(noName("ssm.example"))},
			CodeNetwork, "cannot start session on i-0abc: no such host: ssm.example", "check the network and the endpoint"},
		{"no name server", Config{Proxy: failing(&net.DNSError{Err: "server misbehaving", Name: "ssm.eu-west-1.amazonaws.com", IsTemporary: true})},
			CodeNetwork, "cannot start session on i-0abc: cannot resolve ssm.eu-west-1.amazonaws.com", "check the network"},
		{"a dial that times out", Config{Proxy: failing(os.ErrDeadlineExceeded)},
			CodeTimeout, "cannot start session on i-0abc: no answer from ssm.eu-west-1.amazonaws.com in time", "check the network and the proxy settings"},
		{"anything else", Config{Proxy: failing(errors.New("the cable is out"))},
			CodeNetwork, "cannot start session on i-0abc: cannot reach ssm.eu-west-1.amazonaws.com: the cable is out", "check the network and the proxy settings"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			accountEnv(t)
			_, err := mustNew(t, tt.config).Start(context.Background(), StartRequest{Target: "i-0abc"})
			if e := wantError(t, err, tt.code, tt.line, tt.hint); e.Permanent() {
				t.Error("a network that is away should be worth another try")
			}
		})
	}
}

// unusedAddress is one of loopback where nobody listens.
func unusedAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return listener.Addr().String()
}

func TestConnectionRefused(t *testing.T) {
	accountEnv(t)
	host := unusedAddress(t)
	_, err := mustNew(t, Config{EndpointURL: "http://" + host}).Resume(context.Background(), "jane-01")
	wantError(t, err, CodeNetwork, "cannot resume session jane-01: connection to "+host+" refused", "check the endpoint and the proxy settings")
}

func TestUntrustedCertificate(t *testing.T) {
	accountEnv(t)
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it would tell of the refused handshake
	s.StartTLS()
	t.Cleanup(s.Close)
	_, err := mustNew(t, Config{EndpointURL: s.URL}).Resume(context.Background(), "jane-01")
	e := wantErrorCode(t, err, CodeNetwork)
	if want := "cannot resume session jane-01: the certificate of " + strings.TrimPrefix(s.URL, "https://") + " is not trusted: "; !strings.HasPrefix(e.Error(), want) {
		t.Errorf("the line is %q, want it to begin with %q", e.Error(), want)
	}
	if !strings.Contains(e.Hint, "AWS_CA_BUNDLE") {
		t.Errorf("the hint does not name what helps: %s", e.Hint)
	}
}

func TestTheCallersContextDecides(t *testing.T) {
	accountEnv(t)
	asked := make(chan struct{}, 1)
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-release
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(release) })
	c := mustNew(t, Config{EndpointURL: s.URL})

	interrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		<-asked
		cancel(interrupted)
	}()
	_, err := c.Start(ctx, StartRequest{Target: "i-0abc"})
	wantError(t, err, CodeCanceled, "cannot start session on i-0abc: interrupted", "")
	if !errors.Is(err, interrupted) {
		t.Errorf("the cause is lost: %v", err)
	}

	ctx, stop := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer stop()
	_, err = c.Start(ctx, StartRequest{Target: "i-0abc"})
	wantError(t, err, CodeTimeout, "cannot start session on i-0abc: no answer in time", "check the network, the region and the endpoint")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the cause is lost: %v", err)
	}
}

func TestCredentialsThatCannotBeHad(t *testing.T) {
	const session = "[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.example/start\n"
	const runByHand = "run the command by hand: it is credential_process in the AWS config file"
	const role = "sso_account_id = 111122223333\nsso_role_name = r\nregion = eu-west-1\n"
	for _, tt := range []struct {
		name, shared, profile string
		code, message, hint   string
	}{
		{"nothing set", "", "", CodeNoCredentials, "no usable AWS credentials", "see what is set with  aws configure list"},
		{"a profile without keys", "[profile dev]\nregion = eu-west-1\n", "dev",
			CodeNoCredentials, `no usable AWS credentials in profile "dev"`, "see what is set with  aws configure list --profile dev"},
		{"a process that fails", "[profile dev]\ncredential_process = exit 3\n", "dev",
			CodeNoCredentials, `the credential_process of profile "dev" gave no credentials (exit status 3)`, runByHand},
		{"a process that says nonsense", "[profile dev]\ncredential_process = echo '{\"SecretAccessKey\":\"" + token + "\"'\n", "dev",
			CodeNoCredentials, `the credential_process of profile "dev" gave no credentials`, runByHand},
		{"a process under a role", "[profile dev]\nrole_arn = arn:aws:iam::111122223333:role/r\nsource_profile = base\n[profile base]\ncredential_process = exit 4\n", "dev",
			CodeNoCredentials, `the credential_process of profile "base" gave no credentials (exit status 4)`, runByHand},
		{"a web identity without its token", "[profile dev]\nrole_arn = arn:aws:iam::111122223333:role/r\nweb_identity_token_file = /absent/token\n", "dev",
			CodeNoCredentials, "cannot get credentials: unable to read file at /absent/token: open /absent/token: no such file or directory",
			"check the token file in AWS_WEB_IDENTITY_TOKEN_FILE, or the profile's web_identity_token_file"},
		{"no login", "[profile dev]\nlogin_session = arn:aws:iam::111122223333:user/jane\n", "dev",
			CodeLoginExpired, "the login has expired or was never made", "log in again with  aws login --profile dev"},
		{"no SSO login below a role", session + "[profile dev]\nrole_arn = arn:aws:iam::111122223333:role/r\nsource_profile = base\n[profile base]\nsso_session = corp\n" + role, "dev",
			CodeSSOExpired, "the SSO login has expired or was never made", "log in again with  aws sso login --profile base"},
		{"no SSO login", session + "[profile dev]\nsso_session = corp\n" + role, "dev",
			CodeSSOExpired, "the SSO login has expired or was never made", "log in again with  aws sso login --profile dev"},
		{"no SSO login of the older kind", "[profile dev]\nsso_start_url = https://corp.example/start\nsso_region = eu-west-1\n" + role, "dev",
			CodeSSOExpired, "the SSO login has expired or was never made", "log in again with  aws sso login --profile dev"},
		{"no SSO login, default profile", session + "[default]\nsso_session = corp\n" + role, "",
			CodeSSOExpired, "the SSO login has expired or was never made", "log in again with  aws sso login"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := bareEnv(t)
			if tt.shared != "" {
				sharedConfig(t, home, tt.shared)
			}
			c := mustNew(t, Config{Region: "eu-west-1", Profile: tt.profile, EndpointURL: trap(t)})
			_, err := c.Start(context.Background(), StartRequest{Target: "i-0abc"})
			e := wantError(t, err, tt.code, "cannot start session on i-0abc: "+tt.message, tt.hint)
			if e.Permanent() {
				t.Error("credentials may come back while a session waits: not permanent")
			}
			if want := strings.Contains(tt.message, "has expired"); e.Expired() != want {
				t.Errorf("Expired is %v, want %v", e.Expired(), want)
			}
			if leaks(e.Error() + e.Hint) {
				t.Errorf("the error shows what the process said: %v", e)
			}
		})
	}
}

func TestSSOLoginThatExpired(t *testing.T) {
	home := bareEnv(t)
	sharedConfig(t, home, "[profile dev]\nsso_start_url = https://corp.example/start\nsso_region = eu-west-1\n"+
		"sso_account_id = 111122223333\nsso_role_name = r\nregion = eu-west-1\n")
	// The file's name is the SHA-1 of the start URL.
	writeFile(t, filepath.Join(home, ".aws", "sso", "cache", "f7c9b39d0b4c7a7d82c79307585f77e1c5e74378.json"),
		`{"accessToken":"`+token+`","expiresAt":"2020-01-01T00:00:00Z"}`)
	_, err := mustNew(t, Config{Profile: "dev"}).Start(context.Background(), StartRequest{Target: "i-0abc"})
	wantError(t, err, CodeSSOExpired, "cannot start session on i-0abc: the SSO login has expired or was never made", "log in again with  aws sso login --profile dev")
	var expired *ssocreds.InvalidTokenError
	if !errors.As(err, &expired) || expired.Err != nil {
		t.Errorf("the login was not found at all, the test tests nothing: %v", expired)
	}
}

func TestRoleWhoseServiceIsAway(t *testing.T) {
	home := bareEnv(t)
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	sharedConfig(t, home, "[profile dev]\nregion = eu-west-1\nrole_arn = arn:aws:iam::111122223333:role/r\nsource_profile = base\n"+
		"[profile base]\naws_access_key_id = AKID\naws_secret_access_key = s\n")
	c := mustNew(t, Config{Profile: "dev", Proxy: failing(errors.New("the cable is out"))})
	_, err := c.Start(context.Background(), StartRequest{Target: "i-0abc"})
	wantError(t, err, CodeNetwork, "cannot start session on i-0abc: cannot get credentials: cannot reach sts.eu-west-1.amazonaws.com: the cable is out", "check the network and the proxy settings")
}

func TestExpiredCredentialsOfAnSSOProfile(t *testing.T) {
	// The service tells of the expiry here, and the source decides the hint.
	w := caller{profile: "dev", sources: (&credentialSource{CredentialsProvider: ssoSource{}}).ProviderSources()}
	e := w.explain(context.Background(), call{op: opResume, subject: "jane-01"}, &smithy.GenericAPIError{Code: "ExpiredTokenException"})
	wantError(t, e, "ExpiredTokenException", "cannot resume session jane-01: the credentials have expired", "log in again with  aws sso login --profile dev")
}

func TestAnErrorOfNoKnownKind(t *testing.T) {
	err := &smithy.OperationError{ServiceID: "SSM", OperationName: "StartSession", Err: errors.New("a rule\nwas broken.")}
	e := caller{}.explain(context.Background(), call{op: opStart, subject: "i-1"}, err)
	wantError(t, e, CodeUnknown, "cannot start session on i-1: a rule was broken", "--debug tells more of the call")
}

func TestLongMessagesAreCut(t *testing.T) {
	if got := clean(strings.Repeat("é", 5000)); len([]rune(got)) != 1001 {
		t.Errorf("a message of 5000 characters has %d after cleaning, want 1000 and an ellipsis", len([]rune(got)))
	}
}
