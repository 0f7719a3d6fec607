package api

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

const (
	mfaProfile = "[profile dev]\nregion = eu-west-1\nrole_arn = arn:aws:iam::111122223333:role/r\n" +
		"mfa_serial = arn:aws:iam::111122223333:mfa/jane\nsource_profile = base\n" +
		"[profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = s\n"
	roleProfile = "[profile dev]\nregion = eu-west-1\nrole_arn = arn:aws:iam::111122223333:role/r\nsource_profile = base\n" +
		"[profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = s\n"
	ssoProfile = "[profile dev]\nregion = eu-west-1\nsso_session = corp\nsso_account_id = 111122223333\nsso_role_name = r\n" +
		"[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.example/start\n"
	webProfile = "[profile dev]\nregion = eu-west-1\nrole_arn = arn:aws:iam::111122223333:role/r\nweb_identity_token_file = "

	// What a service that is asked for credentials gives.
	temporaryKeys = `<Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>` +
		`<SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>`
	assumed    = `<AssumeRoleResponse><AssumeRoleResult>` + temporaryKeys + `</AssumeRoleResult></AssumeRoleResponse>`
	assumedWeb = `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>` + temporaryKeys +
		`</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`
	ssoKeys = `{"roleCredentials":{"accessKeyId":"ASIASSO","secretAccessKey":"s","sessionToken":"t","expiration":4070908800000}}`
)

// stsError is an error as STS words it.
func stsError(code, message string) string {
	return `<ErrorResponse><Error><Type>Sender</Type><Code>` + code + `</Code><Message>` + message + `</Message></Error></ErrorResponse>`
}

// servedBy leads every service the SDK asks to one address.
func servedBy(t *testing.T, address string) {
	t.Helper()
	for _, name := range []string{"SSM", "STS", "SSO", "SSO_OIDC"} {
		t.Setenv("AWS_ENDPOINT_URL_"+name, address)
	}
}

// ssoLogin writes the login of sso-session corp. Its file is named by the
// SHA-1 of the session's name.
func ssoLogin(t *testing.T, home, expires string) {
	t.Helper()
	writeFile(t, filepath.Join(home, ".aws", "sso", "cache", "ee0bfd2552fbd840c02cc48b6e823320543c450f.json"),
		`{"accessToken":"`+token+`","expiresAt":"`+expires+`","clientId":"c","clientSecret":"s","refreshToken":"r"}`)
}

func TestMFACodeOfARole(t *testing.T) {
	for _, tt := range []struct {
		name   string
		typed  string
		refuse string // what STS answers instead of keys
		line   string // of the error; empty: none
		code   string
		hint   string
	}{
		{name: "right", typed: "123456"},
		{name: "right, with the blanks a paste brings", typed: " 123456\n"},
		{name: "wrong", typed: "654321", refuse: stsError("AccessDenied", "MultiFactorAuthentication failed with invalid MFA one time pass code. "),
			code: CodeWrongMFA, line: "cannot start session on i-0abc: the MFA code is wrong, or was used before",
			hint: "wait for the device's next code and try again"},
		{name: "no code at all", typed: "open sesame",
			code: CodeWrongMFA, line: "cannot start session on i-0abc: an MFA code has 6 digits", hint: "try again with the code the device shows"},
		{name: "nothing", typed: "",
			code: CodeWrongMFA, line: "cannot start session on i-0abc: an MFA code has 6 digits", hint: "try again with the code the device shows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := bareEnv(t)
			sharedConfig(t, home, mfaProfile)
			var asked url.Values
			s := newActions(t, map[string]http.HandlerFunc{
				"StartSession": func(w http.ResponseWriter, r *http.Request) {
					if auth := r.Header.Get("Authorization"); !strings.Contains(auth, "ASIAROLE/") {
						t.Errorf("the request is signed %q, not with the role's key", auth)
					}
					answer(t, w, 200, granted)
				},
				"AssumeRole": func(w http.ResponseWriter, r *http.Request) {
					asked, _ = url.ParseQuery(form(t, r)) // newActions parsed it before
					if tt.refuse != "" {
						answer(t, w, 403, tt.refuse)
						return
					}
					answer(t, w, 200, assumed)
				},
			})
			servedBy(t, s.URL)
			var questions []string
			c := mustNew(t, Config{Profile: "dev", Prompt: func(_ context.Context, question string) (string, error) {
				questions = append(questions, question)
				return tt.typed, nil
			}})
			if len(questions) != 0 {
				t.Error("New asked already; credentials are the first call's business")
			}
			_, err := c.Start(context.Background(), StartRequest{Target: "i-0abc"})
			if len(questions) != 1 || questions[0] != "MFA code for arn:aws:iam::111122223333:mfa/jane" {
				t.Errorf("the user was asked %q, want one question that names the device", questions)
			}
			if tt.line != "" {
				if e := wantError(t, err, tt.code, tt.line, tt.hint); e.Permanent() || e.Expired() {
					t.Error("another code may be right: neither permanent nor expired")
				}
				return
			}
			if err != nil {
				t.Fatalf("Start failed: %v", err)
			}
			if asked.Get("TokenCode") != "123456" || asked.Get("SerialNumber") != "arn:aws:iam::111122223333:mfa/jane" || asked.Get("DurationSeconds") != "3600" {
				t.Errorf("STS was asked %v, want the code, the device and an hour", asked)
			}
			if _, err := c.Start(context.Background(), StartRequest{Target: "i-0abc"}); err != nil || len(questions) != 1 {
				t.Errorf("the second call asked again, or failed: %q, %v", questions, err)
			}
		})
	}
}

func TestAPromptThatFails(t *testing.T) {
	sharedConfig(t, bareEnv(t), mfaProfile)
	closed := errors.New("the terminal is closed")
	c := mustNew(t, Config{Profile: "dev", EndpointURL: trap(t), Prompt: func(context.Context, string) (string, error) { return "", closed }})
	_, err := c.Start(context.Background(), StartRequest{Target: "i-0abc"})
	wantError(t, err, CodeNeedsMFA, "cannot start session on i-0abc: cannot read the MFA code: the terminal is closed", "try again with the code the device shows")
	if !errors.Is(err, closed) {
		t.Errorf("the prompt's own error is lost: %v", err)
	}
}

func TestAPromptEndsWithTheCallThatAsks(t *testing.T) {
	sharedConfig(t, bareEnv(t), mfaProfile)
	prompting, ended := make(chan struct{}), make(chan error, 1)
	c := mustNew(t, Config{Profile: "dev", EndpointURL: trap(t), Prompt: func(ctx context.Context, _ string) (string, error) {
		close(prompting)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return "", ctx.Err()
	}})
	ctx, cancel := context.WithCancelCause(context.Background())
	interrupted := errors.New("interrupted")
	go func() {
		<-prompting
		cancel(interrupted)
	}()
	_, err := c.Start(ctx, StartRequest{Target: "i-0abc"})
	wantError(t, err, CodeCanceled, "cannot start session on i-0abc: interrupted", "")
	if cause := <-ended; !errors.Is(cause, interrupted) {
		t.Errorf("the prompt ended with %v, want the call's own cause", cause)
	}
}

// With nothing configured the SDK asks instance metadata; on a laptop nobody
// answers there.
func TestInstanceMetadataIsAskedOnceAndForASecond(t *testing.T) {
	bareEnv(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan net.Conn, 100)
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for conn, err := silent.Accept(); err == nil; conn, err = silent.Accept() {
			asked <- conn
		}
	}()
	t.Cleanup(func() {
		if err := silent.Close(); err != nil {
			t.Error(err)
		}
		<-accepted
		for len(asked) > 0 {
			(<-asked).Close()
		}
	})
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+silent.Addr().String())
	stderr := captureStderr(t)
	c := mustNew(t, Config{Region: "eu-west-1", EndpointURL: trap(t)})
	began := time.Now()
	_, err = c.Start(context.Background(), StartRequest{Target: "i-0abc"})
	wantError(t, err, CodeNoCredentials, "cannot start session on i-0abc: no usable AWS credentials", "see what is set with  aws configure list")
	// The SDK by itself makes six connections, and takes seven seconds.
	if n, took := len(asked), time.Since(began); n > 2 || took > 5*time.Second {
		t.Errorf("it took %v and %d connections to find that nobody answers, want about a second and two, of which one is for version 1", took, n)
	}
	before := len(asked)
	if said := stderr(); said != "" {
		t.Errorf("the SDK wrote to standard error, which is the user's: %s", said)
	}

	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	c = mustNew(t, Config{Region: "eu-west-1", EndpointURL: trap(t)})
	_, err = c.Start(context.Background(), StartRequest{Target: "i-0abc"})
	wantErrorCode(t, err, CodeNoCredentials)
	if len(asked) > before {
		t.Error("metadata is switched off, yet it was asked for")
	}
}

func TestInstanceMetadataGivesKeysAndIsReachedWithoutProxy(t *testing.T) {
	bareEnv(t)
	const path = "/latest/meta-data/iam/security-credentials/"
	metadata := newActions(t, map[string]http.HandlerFunc{
		"/latest/api/token": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
			answer(t, w, 200, "v2")
		},
		path: func(w http.ResponseWriter, _ *http.Request) { answer(t, w, 200, "role") },
		path + "role": func(w http.ResponseWriter, _ *http.Request) {
			answer(t, w, 200, `{"Code":"Success","AccessKeyId":"ASIAEC2","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}`)
		},
	})
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.URL)
	s := newService(t, 200, granted)
	var proxied []string
	c := mustNew(t, Config{Region: "eu-west-1", EndpointURL: s.URL, Proxy: func(r *http.Request) (*url.URL, error) {
		proxied = append(proxied, r.URL.Host)
		return nil, nil
	}})
	if _, err := c.Start(context.Background(), StartRequest{Target: "i-0abc"}); err != nil {
		t.Fatalf("Start failed: %v", err)
	}
	if auth := s.requests()[0].auth; !strings.Contains(auth, "ASIAEC2/") {
		t.Errorf("the request is signed %q, not with the instance's key", auth)
	}
	if len(proxied) != 1 || "http://"+proxied[0] != s.URL {
		t.Errorf("the proxy was asked about %q, want the service alone", proxied)
	}
}

func TestACredentialProcessSpeaksToTheUser(t *testing.T) {
	home := bareEnv(t)
	file := filepath.Join(home, "keys.json")
	writeFile(t, file, `{"Version":1,"AccessKeyId":"AKIDPROCESS","SecretAccessKey":"s"}`)
	sharedConfig(t, home, "[profile dev]\nregion = eu-west-1\ncredential_process = echo touch your key >&2 && cat "+file+"\n")
	s := newService(t, 200, granted)
	stderr := captureStderr(t)
	_, err := mustNew(t, Config{Profile: "dev", EndpointURL: s.URL}).Start(context.Background(), StartRequest{Target: "i-0abc"})
	if said := stderr(); said != "touch your key\n" {
		t.Errorf("the user reads %q, want what the process said", said)
	}
	if err != nil {
		t.Fatalf("Start failed: %v", err)
	}
	if auth := s.requests()[0].auth; !strings.Contains(auth, "AKIDPROCESS/") {
		t.Errorf("the request is signed %q, not with the process's key", auth)
	}
}

func TestCallsAtOnceAskForOneCode(t *testing.T) {
	sharedConfig(t, bareEnv(t), mfaProfile)
	s := newActions(t, map[string]http.HandlerFunc{
		"StartSession": func(w http.ResponseWriter, _ *http.Request) { answer(t, w, 200, granted) },
		"AssumeRole":   func(w http.ResponseWriter, _ *http.Request) { answer(t, w, 200, assumed) },
	})
	servedBy(t, s.URL)
	var prompts atomic.Int32
	c := mustNew(t, Config{Profile: "dev", Prompt: func(context.Context, string) (string, error) {
		prompts.Add(1)
		return "123456", nil
	}})
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			if _, err := c.Start(context.Background(), StartRequest{Target: "i-0abc"}); err != nil {
				t.Errorf("Start failed: %v", err)
			}
		})
	}
	calls.Wait()
	if n := prompts.Load(); n != 1 {
		t.Errorf("the user was asked %d times, want once", n)
	}
}

// STS away after the code was typed must not have it typed again.
func TestACodeIsAskedForOncePerCall(t *testing.T) {
	sharedConfig(t, bareEnv(t), mfaProfile)
	t.Setenv("AWS_ENDPOINT_URL_STS", "http://"+unusedAddress(t))
	prompts := 0
	c := mustNew(t, Config{Profile: "dev", EndpointURL: trap(t), Prompt: func(context.Context, string) (string, error) {
		prompts++
		return "123456", nil
	}})
	_, err := c.Start(context.Background(), StartRequest{Target: "i-0abc"})
	wantErrorCode(t, err, CodeNetwork)
	if prompts != 1 {
		t.Errorf("the user was asked %d times, want once", prompts)
	}
}

func TestKeysUnderAWSVault(t *testing.T) {
	const shared = "[profile corp]\nregion = eu-north-1\naws_access_key_id = AKIDCORPFILE\naws_secret_access_key = s\n" +
		"[profile other]\naws_access_key_id = AKIDOTHER\naws_secret_access_key = s\n"
	for _, tt := range []struct {
		name, flag, variable, vault string
		key                         string
	}{
		{"no profile named", "", "", "corp", "ASIAVAULT"},
		{"--profile names the same", "corp", "", "corp", "ASIAVAULT"},
		{"AWS_PROFILE names the same", "", "corp", "corp", "ASIAVAULT"},
		{"--profile names another", "other", "", "corp", "AKIDOTHER"},
		{"--profile, and no aws-vault", "corp", "", "", "AKIDCORPFILE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sharedConfig(t, bareEnv(t), shared)
			t.Setenv("AWS_ACCESS_KEY_ID", "ASIAVAULT")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
			t.Setenv("AWS_SESSION_TOKEN", "t")
			t.Setenv("AWS_VAULT", tt.vault)
			t.Setenv("AWS_REGION", "eu-west-1")
			if tt.variable != "" {
				t.Setenv("AWS_PROFILE", tt.variable)
			}
			s := newService(t, 200, granted)
			c := mustNew(t, Config{Profile: tt.flag, EndpointURL: s.URL})
			if _, err := c.Start(context.Background(), StartRequest{Target: "i-0abc"}); err != nil {
				t.Fatalf("Start failed: %v", err)
			}
			if auth := s.requests()[0].auth; !strings.Contains(auth, "="+tt.key+"/") {
				t.Errorf("the request is signed %q, want the key %s", auth, tt.key)
			}
		})
	}
}

// The profile wants an MFA code and its source has no keys: aws-vault asked for
// the one and holds the others.
func TestAWSVaultWithARole(t *testing.T) {
	for _, by := range []string{"--profile", "AWS_PROFILE"} {
		t.Run(by, func(t *testing.T) {
			sharedConfig(t, bareEnv(t), "[profile corp]\nrole_arn = arn:aws:iam::111122223333:role/r\nmfa_serial = m\nsource_profile = base\n[profile base]\nregion = eu-north-1\n")
			t.Setenv("AWS_ACCESS_KEY_ID", "ASIAVAULT")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
			t.Setenv("AWS_VAULT", "corp")
			var c Config
			if by == "--profile" {
				c.Profile = "corp"
			} else {
				t.Setenv("AWS_PROFILE", "corp")
			}
			s := newService(t, 400, `{"__type":"ExpiredTokenException"}`)
			c.EndpointURL = s.URL
			_, err := mustNew(t, c).Resume(context.Background(), "jane-01")
			e := wantError(t, err, "ExpiredTokenException", "cannot resume session jane-01: the credentials have expired",
				"leave this shell and run  aws-vault exec corp  again")
			if !e.Expired() || e.Permanent() {
				t.Error("keys that expired are expired, and not permanent")
			}
			if auth := s.requests()[0].auth; !strings.Contains(auth, "=ASIAVAULT/") || !strings.Contains(auth, "/eu-north-1/") {
				t.Errorf("the request is signed %q, want aws-vault's key and the source's region", auth)
			}
		})
	}
}

func TestWhatThoseWhoGiveCredentialsSayInOurWords(t *testing.T) {
	const login, again = "the SSO login has expired or was never made", "log in again with  aws sso login --profile dev"
	for _, tt := range []struct {
		name      string
		shared    string
		action    string // what is asked of the service that refuses
		status    int
		body      string
		code      string
		message   string
		hint      string
		permanent bool
	}{
		{"a role that may not be assumed", roleProfile, "AssumeRole", 403, stsError("AccessDenied", "User is not authorized to perform: sts:AssumeRole"),
			"AccessDenied", "cannot get credentials: access denied: User is not authorized to perform: sts:AssumeRole",
			"check role_arn and who may assume it; see who is asking with  aws sts get-caller-identity --profile base", true},
		{"a role that is none", roleProfile, "AssumeRole", 400, stsError("ValidationError", "r is invalid"),
			"ValidationError", "cannot get credentials: ValidationError: r is invalid",
			"check role_arn, role_session_name, duration_seconds and external_id in the AWS config file", true},
		{"a source whose key is unknown", roleProfile, "AssumeRole", 403, stsError("InvalidClientTokenId", "The security token included in the request is invalid."),
			"InvalidClientTokenId", "cannot get credentials: the service does not know the access key",
			"see which one is used with  aws configure list --profile dev  (a region that is not enabled says the same)", false},
		{"a source whose key has expired", roleProfile, "AssumeRole", 403, stsError("ExpiredToken", "expired"),
			"ExpiredToken", "cannot get credentials: the credentials have expired", "renew them, then check with  aws sts get-caller-identity --profile dev", false},
		{"STS switched off in the region", roleProfile, "AssumeRole", 403, stsError("RegionDisabledException", "off"),
			"RegionDisabledException", "cannot get credentials: RegionDisabledException: off",
			"activate STS for the region in the account's settings, or give another --region", false},
		{"STS failing", roleProfile, "AssumeRole", 500, stsError("InternalFailure", ""),
			"InternalFailure", "cannot get credentials: the service failed: InternalFailure", "try again in a moment", false},
		{"a login page for STS", roleProfile, "AssumeRole", 200, "<html>pay here</html>",
			CodeBadAnswer, "cannot get credentials: the answer is not the service's (HTTP 200)",
			"check the endpoint, and whether a proxy or a login page is in the way", false},
		{"a web identity that expired", webProfile, "AssumeRoleWithWebIdentity", 400, stsError("ExpiredTokenException", "Token expired"),
			"ExpiredTokenException", "cannot get credentials: the credentials have expired", "renew the web identity token in its file", false},
		{"a web identity that is none", webProfile, "AssumeRoleWithWebIdentity", 400, stsError("InvalidIdentityToken", "not a JWT"),
			"InvalidIdentityToken", "cannot get credentials: InvalidIdentityToken: not a JWT",
			"check the web identity token, and that the role trusts who issued it", false},
		{"a web identity the role does not trust", webProfile, "AssumeRoleWithWebIdentity", 403, stsError("AccessDenied", "no"),
			"AccessDenied", "cannot get credentials: access denied: no", "check that the role trusts the identity provider of the token", true},
		{"an SSO login taken back", ssoProfile, "/federation/credentials", 401, `{"__type":"UnauthorizedException","message":"Session token not found or invalid"}`,
			CodeSSOExpired, login, again, false},
		{"an SSO role that is not the user's", ssoProfile, "/federation/credentials", 403, `{"__type":"ForbiddenException","message":"No access"}`,
			"ForbiddenException", "cannot get credentials: ForbiddenException: No access",
			`check sso_account_id and sso_role_name of profile "dev" in the AWS config file`, true},
		{"an SSO login that cannot be renewed", ssoProfile, "/token", 400, `{"__type":"InvalidGrantException","error":"invalid_grant"}`,
			CodeSSOExpired, login, again, false},
		{"SSO in haste", ssoProfile, "/federation/credentials", 429, `{"__type":"TooManyRequestsException"}`,
			"TooManyRequestsException", "cannot get credentials: too many requests", "wait a moment and try again", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := bareEnv(t)
			t.Setenv("AWS_MAX_ATTEMPTS", "1")
			shared := tt.shared
			if shared == webProfile {
				file := filepath.Join(home, "token")
				writeFile(t, file, token)
				shared += file + "\n"
			}
			sharedConfig(t, home, shared)
			expires := "2099-01-01T00:00:00Z"
			if tt.action == "/token" {
				expires = "2020-01-01T00:00:00Z"
			}
			ssoLogin(t, home, expires)
			s := newActions(t, map[string]http.HandlerFunc{tt.action: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Amzn-Errortype", typeOf(tt.body))
				answer(t, w, tt.status, tt.body)
			}})
			servedBy(t, s.URL)
			_, err := mustNew(t, Config{Profile: "dev", EndpointURL: trap(t)}).Start(context.Background(), StartRequest{Target: "i-0abc"})
			e := wantError(t, err, tt.code, "cannot start session on i-0abc: "+tt.message, tt.hint)
			if e.Permanent() != tt.permanent {
				t.Errorf("Permanent is %v, want %v", e.Permanent(), tt.permanent)
			}
			if want := strings.Contains(tt.message, "expired"); e.Expired() != want {
				t.Errorf("Expired is %v, want %v", e.Expired(), want)
			}
			if leaks(e.Error() + e.Hint) {
				t.Errorf("the error shows the token: %v", e)
			}
		})
	}
}

// typeOf returns the __type of a JSON error: the REST protocols of SSO have it
// in a header.
func typeOf(body string) string {
	_, after, _ := strings.Cut(body, `"__type":"`)
	name, _, _ := strings.Cut(after, `"`)
	return name
}

// One setting of certificates holds for everybody the SDK asks.
func TestCertificatesOfEveryService(t *testing.T) {
	strangers := strangersCA(t)
	for _, source := range []struct{ name, shared string }{
		{"STS, a role", roleProfile}, {"STS, a web identity", webProfile}, {"SSO", ssoProfile},
	} {
		for _, tt := range []struct {
			name    string
			setting func(bundle []byte) Config
			env     string // AWS_CA_BUNDLE: the right one, a wrong one, none, or one that is not there
			trusted bool
		}{
			{"no setting", func([]byte) Config { return Config{} }, "", false},
			{"AWS_CA_BUNDLE", func([]byte) Config { return Config{} }, "right", true},
			{"a bundle", func(b []byte) Config { return Config{CABundle: b} }, "", true},
			{"a bundle, and another in AWS_CA_BUNDLE", func(b []byte) Config { return Config{CABundle: b} }, "wrong", true},
			{"a bundle, and an AWS_CA_BUNDLE that is not there", func(b []byte) Config { return Config{CABundle: b} }, "absent", true},
			{"a wrong bundle, and the right one in AWS_CA_BUNDLE", func([]byte) Config { return Config{CABundle: []byte(strangers)} }, "right", false},
			{"no check", func([]byte) Config { return Config{Insecure: true} }, "", true},
			{"no check, and a wrong AWS_CA_BUNDLE", func([]byte) Config { return Config{Insecure: true} }, "wrong", true},
		} {
			t.Run(source.name+"/"+tt.name, func(t *testing.T) {
				home := bareEnv(t)
				t.Setenv("AWS_MAX_ATTEMPTS", "1")
				s := tlsServices(t)
				bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
				file := filepath.Join(home, "file")
				writeFile(t, file, "a web identity")
				shared := source.shared
				if shared == webProfile {
					shared += file + "\n"
				}
				sharedConfig(t, home, shared)
				ssoLogin(t, home, "2099-01-01T00:00:00Z")
				servedBy(t, s.URL)
				if tt.env != "" {
					ca := filepath.Join(home, "ca.pem")
					if text := map[string]string{"right": string(bundle), "wrong": strangers}[tt.env]; text != "" {
						writeFile(t, ca, text)
					}
					t.Setenv("AWS_CA_BUNDLE", ca)
				}
				c := tt.setting(bundle)
				c.Profile = "dev"
				_, err := mustNew(t, c).Start(context.Background(), StartRequest{Target: "i-0abc"})
				if tt.trusted {
					if err != nil {
						t.Errorf("the certificate should be taken, yet: %v", err)
					}
					return
				}
				e := wantErrorCode(t, err, CodeNetwork)
				if !strings.Contains(e.Message, "is not trusted") || !strings.Contains(e.Hint, "--ca-bundle") {
					t.Errorf("the error does not say what is wrong and what helps: %v (%s)", e, e.Hint)
				}
			})
		}
	}
}

func TestACABundleWithoutCertificates(t *testing.T) {
	bareEnv(t)
	for _, bundle := range []string{"", "no PEM"} {
		_, err := New(context.Background(), Config{Region: "eu-west-1", CABundle: []byte(bundle)})
		wantError(t, err, CodeBadConfig, "cannot set up AWS: the CA bundle holds no certificate", "it must be a PEM file")
	}
}

func TestSourcesAreTheSDKs(t *testing.T) {
	w := caller{sources: []aws.CredentialSource{aws.CredentialSourceProfileSourceProfile, aws.CredentialSourceSSO, aws.CredentialSourceSTSAssumeRole}}
	if !w.sso() || w.env() || w.unset() || w.webIdentity() {
		t.Errorf("a role over an SSO login is taken for something else: %+v", w)
	}
	for profile, words := range map[string]string{"": "", "default": "", "my dev": ` of profile "my dev"`} {
		if got := named(" of", profile); got != words {
			t.Errorf("profile %q is named %q, want %q", profile, got, words)
		}
	}
}

// tlsServices plays SSM, STS and SSO at one address, with a certificate that
// no system trusts.
func tlsServices(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(actionsHandler(t, map[string]http.HandlerFunc{
		"StartSession":              func(w http.ResponseWriter, _ *http.Request) { answer(t, w, 200, granted) },
		"AssumeRole":                func(w http.ResponseWriter, _ *http.Request) { answer(t, w, 200, assumed) },
		"AssumeRoleWithWebIdentity": func(w http.ResponseWriter, _ *http.Request) { answer(t, w, 200, assumedWeb) },
		"/federation/credentials":   func(w http.ResponseWriter, _ *http.Request) { answer(t, w, 200, ssoKeys) },
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it would tell of the refused handshakes
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func TestARefusalIsSaidOnce(t *testing.T) {
	// The wrapped errors keep the SDK's whole story; the line has one sentence.
	err := &credentialError{err: fmt.Errorf("a: %w", io.ErrUnexpectedEOF)}
	e := caller{profile: "dev"}.explain(context.Background(), call{op: opStart, subject: "i-1"}, err)
	wantError(t, e, CodeNoCredentials, `cannot start session on i-1: no usable AWS credentials in profile "dev"`, "see what is set with  aws configure list --profile dev")
	if !errors.Is(e, io.ErrUnexpectedEOF) {
		t.Error("the SDK's error is not wrapped")
	}
}
