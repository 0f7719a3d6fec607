package emulator

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	"github.com/google/uuid"
)

const (
	opsRole = "arn:aws:iam::444455556666:role/team/ops"
	mfaRole = "arn:aws:iam::111122223333:role/mfa-admin"
	device  = "arn:aws:iam::111122223333:mfa/emulator"
)

// jwt makes a web identity token that is signed by a secret key.
func jwt(secret, claims string) string {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	signed := part(`{"alg":"HS256","typ":"JWT"}`) + "." + part(claims)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + part(string(mac.Sum(nil)))
}

// form makes the members of a call of STS; one without a value is left out.
func form(action string, pairs ...string) url.Values {
	f := url.Values{"Action": {action}, "Version": {stsVersion}}
	for i := 0; i < len(pairs); i += 2 {
		f.Set(pairs[i], pairs[i+1])
	}
	return f
}

// stsAnswer is what a call of STS got, as far as tests look at it.
type stsAnswer struct {
	status int
	header http.Header
	text   string

	XMLName xml.Name
	Type    string `xml:"Error>Type"`
	Code    string `xml:"Error>Code"`
	Message string `xml:"Error>Message"`
	FaultID string `xml:"RequestId"`
	ID      string `xml:"ResponseMetadata>RequestId"`
	Assumed struct {
		ARN        string    `xml:"AssumedRoleUser>Arn"`
		ID         string    `xml:"AssumedRoleUser>AssumedRoleId"`
		Key        string    `xml:"Credentials>AccessKeyId"`
		Secret     string    `xml:"Credentials>SecretAccessKey"`
		Token      string    `xml:"Credentials>SessionToken"`
		Expiration time.Time `xml:"Credentials>Expiration"`
	} `xml:"AssumeRoleResult"`
}

// newQuery makes a request to STS by hand, signed for a service if there is a key.
func newQuery(t testing.TB, s *Server, body, service string, key aws.Credentials) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.URL()+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", queryContentType+"; charset=utf-8")
	if !key.HasKeys() {
		return r
	}
	hash := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(context.Background(), key, r, hex.EncodeToString(hash[:]), service, s.cfg.Region, time.Now()); err != nil {
		t.Fatal(err)
	}
	return r
}

func doQuery(t testing.TB, s *Server, r *http.Request) stsAnswer {
	t.Helper()
	response, err := httpClient(t, s).Do(r)
	if err != nil {
		t.Fatalf("the call got no answer: %v", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := stsAnswer{status: response.StatusCode, header: response.Header, text: string(body)}
	if err := xml.Unmarshal(body, &a); err != nil {
		t.Fatalf("the answer is not XML: %v: %s", err, body)
	}
	return a
}

// callSTS makes a call of STS with the server's own key.
func callSTS(t testing.TB, s *Server, f url.Values) stsAnswer {
	t.Helper()
	return doQuery(t, s, newQuery(t, s, f.Encode(), "sts", s.key))
}

// sdkConfig is the SDK's configuration as a user has it: all of it comes from the
// environment and from files, of which there are none but those a test makes.
func sdkConfig(t *testing.T, environment map[string]string, options ...func(*config.LoadOptions) error) (aws.Config, error) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, value, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, value) // to have it back afterwards
			os.Unsetenv(name)     // not empty: the SDK tells the difference
		}
	}
	none := filepath.Join(t.TempDir(), "none")
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
	} {
		t.Setenv(name, value)
	}
	for name, value := range environment {
		t.Setenv(name, value)
	}
	return config.LoadDefaultConfig(t.Context(), options...)
}

// environment gives the server's variables.
func environment(s *Server) map[string]string {
	env := map[string]string{}
	for _, pair := range s.Environment() {
		env[pair[0]] = pair[1]
	}
	return env
}

func mustSDKConfig(t *testing.T, environment map[string]string, options ...func(*config.LoadOptions) error) aws.Config {
	t.Helper()
	cfg, err := sdkConfig(t, environment, options...)
	if err != nil {
		t.Fatalf("the SDK cannot be set up: %v", err)
	}
	return cfg
}

// wantWorking fails unless sessions can be started with the credentials of cfg, and
// their owner is as wanted.
func wantWorking(t *testing.T, cfg aws.Config, arn string) {
	t.Helper()
	if _, err := ssm.NewFromConfig(cfg).StartSession(t.Context(), &ssm.StartSessionInput{Target: aws.String("local")}); err != nil {
		t.Errorf("no session can be started by %s: %v", arn, err)
	}
	who, err := sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatalf("the caller is not told who it is: %v", err)
	}
	if *who.Arn != arn || *who.Account != strings.Split(arn, ":")[4] {
		t.Errorf("the caller is %s of account %s, not %s", *who.Arn, *who.Account, arn)
	}
}

// wantAPIError fails unless err is an API error with a code and a message.
func wantAPIError(t *testing.T, err error, code, message string) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code || e.ErrorMessage() != message {
		t.Errorf("the error is %v, not %s: %s", err, code, message)
	}
}

// TestRolesByTheSDK has the SDK find its credentials in each of the ways that lead
// to STS, from what users write into their environment and files.
func TestRolesByTheSDK(t *testing.T) {
	s := startWith(t, Config{MFACode: "654321"}, echo)
	file := func(t *testing.T, text string) string {
		t.Helper()
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	with := func(env map[string]string, pairs ...string) map[string]string {
		env = maps.Clone(env)
		for i := 0; i < len(pairs); i += 2 {
			env[pairs[i]] = pairs[i+1]
		}
		return env
	}
	profiles := "[profile ops]\nrole_arn = " + opsRole + "\nrole_session_name = jane\ncredential_source = Environment\n" +
		"[profile chain]\nrole_arn = arn:aws:iam::777788889999:role/second\nrole_session_name = jane\nsource_profile = ops\n" +
		"[profile mfa]\nrole_arn = " + mfaRole + "\nrole_session_name = jane\nmfa_serial = " + device + "\ncredential_source = Environment\n"
	code := func(code string) func(*config.LoadOptions) error {
		return config.WithAssumeRoleCredentialOptions(func(o *stscreds.AssumeRoleOptions) {
			o.TokenProvider = func() (string, error) { return code, nil }
		})
	}
	const opsARN = "arn:aws:sts::444455556666:assumed-role/ops/jane"
	// The chain of the Go SDK goes by STS's own variable alone: it has not come to
	// AWS_ENDPOINT_URL when it makes its client.
	env := with(environment(s), "AWS_ENDPOINT_URL_STS", s.URL(), "AWS_CONFIG_FILE", file(t, profiles))
	profile := config.WithSharedConfigProfile // in the environment a key would win over AWS_PROFILE

	t.Run("no role", func(t *testing.T) {
		wantWorking(t, mustSDKConfig(t, env), "arn:aws:iam::111122223333:user/emulator")
	})
	t.Run("a profile with a role", func(t *testing.T) {
		wantWorking(t, mustSDKConfig(t, env, profile("ops")), opsARN)
	})
	t.Run("a role by way of another", func(t *testing.T) {
		wantWorking(t, mustSDKConfig(t, env, profile("chain")), "arn:aws:sts::777788889999:assumed-role/second/jane")
	})
	t.Run("a profile with an MFA device", func(t *testing.T) {
		wantWorking(t, mustSDKConfig(t, env, profile("mfa"), code("654321")), "arn:aws:sts::111122223333:assumed-role/mfa-admin/jane")
	})
	t.Run("a wrong MFA code", func(t *testing.T) {
		_, err := mustSDKConfig(t, env, profile("mfa"), code(DefaultMFACode)).Credentials.Retrieve(t.Context())
		wantAPIError(t, err, "AccessDenied", "MultiFactorAuthentication failed with invalid MFA one time pass code.")
	})
	webIdentity := func(claims string) map[string]string {
		return map[string]string{
			"AWS_ENDPOINT_URL": s.URL(), "AWS_ENDPOINT_URL_STS": s.URL(), "AWS_REGION": DefaultRegion, "AWS_ROLE_ARN": opsRole, "AWS_ROLE_SESSION_NAME": "jane",
			"AWS_WEB_IDENTITY_TOKEN_FILE": file(t, jwt(s.key.SecretAccessKey, claims)),
		}
	}
	t.Run("web identity", func(t *testing.T) {
		inAMinute := strconv.FormatInt(time.Now().Add(time.Minute).Unix(), 10)
		wantWorking(t, mustSDKConfig(t, webIdentity(`{"sub":"jane","iss":"https://issuer.example","exp":`+inAMinute+`}`)), opsARN)
	})
	t.Run("an expired web identity", func(t *testing.T) {
		_, err := mustSDKConfig(t, webIdentity(`{"sub":"jane","exp":1624482335}`)).Credentials.Retrieve(t.Context())
		if e := (*types.ExpiredTokenException)(nil); !errors.As(err, &e) || !strings.HasSuffix(e.ErrorMessage(), "must be before the expiration date/time1624482335") {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("the endpoint of all services", func(t *testing.T) {
		cfg := mustSDKConfig(t, environment(s))
		cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), opsRole,
			func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "jane" }))
		wantWorking(t, cfg, opsARN)
	})
}

// TestSDKReadsTheErrors has the SDK's own types for the errors that STS models, and
// the codes that it goes by.
func TestSDKReadsTheErrors(t *testing.T) {
	s := startWith(t, Config{}, echo)
	client := func(edit func(*aws.Credentials)) *sts.Client {
		key := s.key
		edit(&key)
		return sts.New(sts.Options{
			BaseEndpoint: aws.String(s.URL()), Region: DefaultRegion, HTTPClient: httpClient(t, s), Retryer: aws.NopRetryer{},
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return key, nil }),
		})
	}
	same := func(*aws.Credentials) {}
	_, err := client(same).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: aws.String(opsRole), RoleSessionName: aws.String("jane"), WebIdentityToken: aws.String("a token of another kind")})
	if e := (*types.InvalidIdentityTokenException)(nil); !errors.As(err, &e) {
		t.Errorf("a web identity token that is none gets %v", err)
	}
	_, err = client(func(key *aws.Credentials) { key.SessionToken = "another" }).GetCallerIdentity(t.Context(), nil)
	wantAPIError(t, err, "InvalidClientTokenId", "The security token included in the request is invalid.")
	_, err = client(func(key *aws.Credentials) { key.SecretAccessKey = "another" }).GetCallerIdentity(t.Context(), nil)
	if e := smithy.APIError(nil); !errors.As(err, &e) || e.ErrorCode() != "SignatureDoesNotMatch" || e.ErrorFault() == smithy.FaultServer {
		t.Errorf("another secret gets %v", err)
	}
}

// TestQueryErrors is the specification of what bad calls of STS get.
func TestQueryErrors(t *testing.T) {
	s := startWith(t, Config{}, echo)
	secret := s.key.SecretAccessKey
	role := func(pairs ...string) url.Values {
		return form("AssumeRole", append([]string{"RoleArn", opsRole, "RoleSessionName", "jane"}, pairs...)...)
	}
	mfa := func(pairs ...string) url.Values {
		return role(append([]string{"RoleArn", mfaRole}, pairs...)...)
	}
	web := func(token string, pairs ...string) url.Values {
		return form("AssumeRoleWithWebIdentity", append([]string{"RoleArn", opsRole, "RoleSessionName", "jane", "WebIdentityToken", token}, pairs...)...)
	}
	tests := []struct {
		name          string
		form          url.Values
		status        int
		code, message string // message: a part of it
	}{
		{"an unknown action", form("GetSessionToken"), 400, "InvalidAction", "Could not find operation GetSessionToken for version 2011-06-15"},
		{"no action", url.Values{}, 400, "InvalidAction", "NO_VERSION_SPECIFIED"},
		{"another version", form("GetCallerIdentity", "Version", "2010-05-08"), 400, "InvalidAction", "for version 2010-05-08"},
		{"no role", form("AssumeRole", "RoleSessionName", "jane"), 400, "ValidationError",
			"1 validation error detected: Value null at 'roleArn' failed to satisfy constraint: Member must not be null"},
		{"no role and no session name", form("AssumeRole"), 400, "ValidationError", "2 validation errors detected: "},
		{"a short role", role("RoleArn", "arn:aws:iam"), 400, "ValidationError", "Member must have length greater than or equal to 20"},
		{"a user's ARN", role("RoleArn", "arn:aws:iam::111122223333:user/jane"), 400, "ValidationError", "Request ARN is invalid"},
		{"a role without a name", role("RoleArn", "arn:aws:iam::111122223333:role/"), 400, "ValidationError", "Request ARN is invalid"},
		{"a role of no account", role("RoleArn", "arn:aws:iam:111122223333:role/ops"), 400, "ValidationError", "Request ARN is invalid"},
		{"a session name with a blank", role("RoleSessionName", "jane doe"), 400, "ValidationError",
			`Value 'jane doe' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w+=,.@-]*`},
		{"a session name with markup", role("RoleSessionName", "<jane>"), 400, "ValidationError", `Value '<jane>' at 'roleSessionName'`},
		{"a session name of one character", role("RoleSessionName", "j"), 400, "ValidationError", "greater than or equal to 2"},
		{"a session name of 65 characters", role("RoleSessionName", strings.Repeat("j", 65)), 400, "ValidationError", "less than or equal to 64"},
		{"899 seconds", role("DurationSeconds", "899"), 400, "ValidationError",
			"Value '899' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900"},
		{"43201 seconds", role("DurationSeconds", "43201"), 400, "ValidationError", "Member must have value less than or equal to 43200"},
		{"a duration that is no number", role("DurationSeconds", "long"), 400, "MalformedInput", "DurationSeconds"},
		{"an MFA role without a code", mfa(), 403, "AccessDenied",
			"User: arn:aws:iam::111122223333:user/emulator is not authorized to perform: sts:AssumeRole on resource: " + mfaRole},
		{"an MFA role in a path", mfa("RoleArn", "arn:aws:iam::111122223333:role/a/b/mfa"), 403, "AccessDenied", "role/a/b/mfa"},
		{"an MFA role without a device", mfa("TokenCode", "123456"), 403, "AccessDenied",
			"MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code."},
		{"an MFA role with a device alone", mfa("SerialNumber", device), 403, "AccessDenied", "must provide both"},
		{"an MFA role with a wrong code", mfa("SerialNumber", device, "TokenCode", "000000"), 403, "AccessDenied",
			"MultiFactorAuthentication failed with invalid MFA one time pass code."},
		{"any role with a wrong code", role("SerialNumber", device, "TokenCode", "000000"), 403, "AccessDenied", "invalid MFA one time pass code"},
		{"a code of letters", mfa("SerialNumber", device, "TokenCode", "abcdef"), 400, "ValidationError",
			`Value 'abcdef' at 'tokenCode' failed to satisfy constraint: Member must satisfy regular expression pattern: [\d]*`},
		{"a code of five digits", mfa("SerialNumber", device, "TokenCode", "12345"), 400, "ValidationError", "greater than or equal to 6"},
		{"a short serial number", mfa("SerialNumber", "GAHT", "TokenCode", "123456"), 400, "ValidationError", "'serialNumber'"},
		{"no web identity token", web(""), 400, "InvalidIdentityToken", "The ID Token provided is not a valid JWT."},
		{"a web identity token that is no JWT", web("a.b"), 400, "InvalidIdentityToken", "not a valid JWT"},
		{"a JWT of text", web("a.b.c"), 400, "InvalidIdentityToken", "not a valid JWT"},
		{"a JWT that another key has signed", web(jwt("another", `{"sub":"jane"}`)), 400, "InvalidIdentityToken", "not signed with the secret access key"},
		{"a JWT without its signature", web(jwt(secret, `{"sub":"jane"}`)[:50] + ".e30."), 400, "InvalidIdentityToken", ""},
		{"an expired JWT", web(jwt(secret, `{"sub":"jane","exp":1624482335}`)), 400, "ExpiredTokenException", "Token expired: current date/time "},
		{"an expired JWT that another key has signed", web(jwt("another", `{"exp":1}`)), 400, "InvalidIdentityToken", ""},
		{"a JWT for an MFA role", web(jwt(secret, `{"sub":"jane"}`), "RoleArn", mfaRole), 403, "AccessDenied",
			"Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		{"a JWT for no session", web(jwt(secret, `{}`), "RoleSessionName", ""), 400, "ValidationError", "'roleSessionName'"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := callSTS(t, s, test.form)
			if a.status != test.status || a.Code != test.code || !strings.Contains(a.Message, test.message) {
				t.Errorf("%s gets %d %s: %q, not %d %s: …%q…", test.name, a.status, a.Code, a.Message, test.status, test.code, test.message)
			}
			if a.XMLName != (xml.Name{Space: "https://sts.amazonaws.com/doc/2011-06-15/", Local: "ErrorResponse"}) || a.Type != "Sender" {
				t.Errorf("the error is %s of type %q", a.XMLName.Local, a.Type)
			}
			if a.FaultID != a.header.Get("x-amzn-RequestId") || uuid.Validate(a.FaultID) != nil || a.header.Get("Content-Type") != "text/xml" {
				t.Errorf("the request id is %q, the header %v", a.FaultID, a.header)
			}
			if strings.Contains(a.text, secret) {
				t.Error("the answer has the secret key in it")
			}
		})
	}
	if len(s.temporary.byID) != 0 {
		t.Errorf("refused calls have made %d keys", len(s.temporary.byID))
	}
}

// TestQuerySignature is which requests to STS are let in.
func TestQuerySignature(t *testing.T) {
	s := startWith(t, Config{}, echo)
	whoAmI := form("GetCallerIdentity").Encode()
	otherID := s.key
	otherID.AccessKeyID = "AKIAIOSFODNN7EXAMPLE"
	edited := func(edit func(*http.Request)) *http.Request {
		r := newQuery(t, s, whoAmI, "sts", s.key)
		edit(r)
		return r
	}
	tests := []struct {
		name    string
		request *http.Request
		status  int
		code    string
	}{
		{"as the SDK signs", newQuery(t, s, whoAmI, "sts", s.key), 200, ""},
		{"signed for another service", newQuery(t, s, whoAmI, "ssm", s.key), 403, "SignatureDoesNotMatch"},
		{"signed with another key", newQuery(t, s, whoAmI, "sts", otherID), 403, "InvalidClientTokenId"},
		{"not signed", newQuery(t, s, whoAmI, "", aws.Credentials{}), 403, "MissingAuthenticationToken"},
		{"an action that is not there, not signed", newQuery(t, s, form("Nothing").Encode(), "", aws.Credentials{}), 403, "MissingAuthenticationToken"},
		{"with half a signature", edited(func(r *http.Request) { r.SetBasicAuth("a", "b") }), 400, "IncompleteSignature"},
		{"another body", edited(func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("Action=AssumeRole")), 17
		}), 403, "SignatureDoesNotMatch"},
		{"a body that is no form", newQuery(t, s, "Action=%", "sts", s.key), 400, "MalformedQueryString"},
		{"a body above the limit", newQuery(t, s, strings.Repeat("x", bodyLimit+1), "sts", s.key), 413, "RequestEntityTooLargeException"},
	}
	for _, test := range tests {
		if a := doQuery(t, s, test.request); a.status != test.status || a.Code != test.code {
			t.Errorf("a request %s gets %d %s, not %d %s", test.name, a.status, a.Code, test.status, test.code)
		}
	}
	if e := inQueryWords(context.Canceled); e.status != 500 || e.code != "InternalFailure" {
		t.Errorf("an error of the server's is answered as %d %s", e.status, e.code)
	}
}

func TestAssumeRole(t *testing.T) {
	s := startWith(t, Config{}, echo)
	for seconds, want := range map[string]time.Duration{"": time.Hour, "900": 15 * time.Minute, "43200": 12 * time.Hour} {
		f := form("AssumeRole", "RoleArn", opsRole, "RoleSessionName", "jane@example", "SerialNumber", device, "TokenCode", DefaultMFACode)
		if seconds != "" {
			f.Set("DurationSeconds", seconds)
		}
		before := time.Now()
		a := callSTS(t, s, f)
		if a.status != 200 || a.XMLName.Local != "AssumeRoleResponse" || a.ID != a.header.Get("x-amzn-RequestId") {
			t.Fatalf("the answer is %d %s", a.status, a.text)
		}
		got := a.Assumed
		if !regexp.MustCompile(`^ASIA[0-9A-F]{16}$`).MatchString(got.Key) || len(got.Secret) != 40 || len(got.Token) != 400 {
			t.Errorf("the key is %s, with a secret of %d characters and a token of %d", got.Key, len(got.Secret), len(got.Token))
		}
		if got.ARN != "arn:aws:sts::444455556666:assumed-role/ops/jane@example" || !regexp.MustCompile(`^AROA[A-Z2-7]{17}:jane@example$`).MatchString(got.ID) {
			t.Errorf("the role is %s, %s", got.ARN, got.ID)
		}
		if life := got.Expiration.Sub(before); life > want+patience || life < want-time.Second {
			t.Errorf("asked for %q seconds it is good for %v, not %v", seconds, life, want)
		}
	}
}

// TestRolesInAChainAreForAnHour: with a role's key another role can be had, but not for
// longer.
func TestRolesInAChainAreForAnHour(t *testing.T) {
	s := startWith(t, Config{}, echo)
	first := newTemporaryKey(time.Now(), time.Hour)
	s.temporary.add(principal{key: first, issued: time.Now(), arn: "arn:aws:sts::111122223333:assumed-role/ops/jane"})
	for seconds, want := range map[string]string{"3600": "", "3601": "ValidationError"} {
		f := form("AssumeRole", "RoleArn", opsRole, "RoleSessionName", "jane", "DurationSeconds", seconds)
		a := doQuery(t, s, newQuery(t, s, f.Encode(), "sts", first))
		if a.Code != want || want != "" && !strings.Contains(a.Message, "role chaining") {
			t.Errorf("a second role for %s seconds gets %d %s %q, not %q", seconds, a.status, a.Code, a.Message, want)
		}
	}
}

// TestTemporaryKey is the specification of what a temporary key opens.
func TestTemporaryKey(t *testing.T) {
	s := startWith(t, Config{}, echo)
	issue := func(now time.Time, lifetime time.Duration) aws.Credentials {
		key := newTemporaryKey(now, lifetime)
		s.temporary.add(principal{key: key, arn: "arn:aws:sts::111122223333:assumed-role/ops/jane"})
		return key
	}
	good, other := issue(time.Now(), time.Hour), issue(time.Now(), time.Hour)
	edited := func(edit func(*aws.Credentials)) aws.Credentials {
		key := good
		edit(&key)
		return key
	}
	const invalid, expired = "The security token included in the request is invalid.", "The security token included in the request is expired"
	tests := []struct {
		name          string
		key           aws.Credentials
		code, message string // of Systems Manager; empty: let in
		sts           string // the code of STS
	}{
		{"a good one", good, "", "", ""},
		{"one that is good for another second or two", issue(time.Now().Add(-time.Hour), time.Hour+patience), "", "", ""},
		{"one without its token", edited(func(key *aws.Credentials) { key.SessionToken = "" }), "UnrecognizedClientException", invalid, "InvalidClientTokenId"},
		{"one with another's token", edited(func(key *aws.Credentials) { key.SessionToken = other.SessionToken }), "UnrecognizedClientException", invalid, "InvalidClientTokenId"},
		{"one with another's secret", edited(func(key *aws.Credentials) { key.SecretAccessKey = other.SecretAccessKey }), "InvalidSignatureException",
			"The request signature we calculated does not match the signature you provided. " +
				"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.", "SignatureDoesNotMatch"},
		{"one that was never given", newTemporaryKey(time.Now(), time.Hour), "UnrecognizedClientException", invalid, "InvalidClientTokenId"},
		{"one whose time is over", issue(time.Now().Add(-time.Hour), time.Hour), "ExpiredTokenException", expired, "ExpiredToken"},
	}
	const body = `{"Target":"local"}`
	for _, test := range tests {
		r := newRequest(t, s, "StartSession", body)
		r.Header.Del("Authorization")
		sign(t, s, r, body, test.key, time.Now())
		if a := do(t, s, r); a.code() != test.code || a.message() != test.message || test.code == "" && a.status != 200 {
			t.Errorf("with %s StartSession gets %d %s: %q, not %s: %q", test.name, a.status, a.code(), a.message(), test.code, test.message)
		}
		a := doQuery(t, s, newQuery(t, s, form("GetCallerIdentity").Encode(), "sts", test.key))
		if a.Code != test.sts || a.Message != test.message {
			t.Errorf("with %s GetCallerIdentity gets %d %s: %q, not %s", test.name, a.status, a.Code, a.Message, test.sts)
		}
	}
}

func TestTemporaryKeysAreBounded(t *testing.T) {
	var keys temporaryKeys
	now := time.Now()
	add := func(lifetime time.Duration) string {
		key := newTemporaryKey(now, lifetime)
		keys.add(principal{key: key})
		return key.AccessKeyID
	}
	long, short := add(12*time.Hour), add(15*time.Minute)
	for range temporaryKeyLimit - 2 {
		add(time.Hour)
	}
	if _, ok := keys.find(short); !ok {
		t.Error("a key is forgotten though there is room")
	}
	for range 100 {
		add(time.Hour)
	}
	if n := len(keys.byID); n != temporaryKeyLimit {
		t.Errorf("%d keys are remembered, not %d", n, temporaryKeyLimit)
	}
	if _, ok := keys.find(short); ok {
		t.Error("the key that expires first is remembered for longest")
	}
	if _, ok := keys.find(long); !ok {
		t.Error("the key that is good for longest is forgotten")
	}
}

func TestDeniedActionsOfSTS(t *testing.T) {
	s := startWith(t, Config{Deny: []string{"AssumeRole", "AssumeRoleWithWebIdentity", "GetCallerIdentity"}}, echo)
	const user = "User: arn:aws:iam::111122223333:user/emulator is not authorized to perform: "
	for message, f := range map[string]url.Values{
		user + "sts:AssumeRole on resource: " + opsRole:           form("AssumeRole", "RoleArn", opsRole, "RoleSessionName", "jane"),
		user + "sts:GetCallerIdentity on resource: *":             form("GetCallerIdentity"),
		"Not authorized to perform sts:AssumeRoleWithWebIdentity": form("AssumeRoleWithWebIdentity", "RoleArn", opsRole, "RoleSessionName", "jane", "WebIdentityToken", jwt(s.key.SecretAccessKey, `{}`)),
	} {
		if a := callSTS(t, s, f); a.status != 403 || a.Code != "AccessDenied" || a.Message != message {
			t.Errorf("%s gets %d %s: %s", f.Get("Action"), a.status, a.Code, a.Message)
		}
	}
}

func TestBadMFACodes(t *testing.T) {
	for _, code := range []string{"12345", "1234567", "12345x"} {
		if s, err := Start(context.Background(), Config{MFACode: code}); err == nil {
			t.Errorf("the server starts with the MFA code %q", code)
			s.Close()
		} else if configError := (*ConfigError)(nil); !errors.As(err, &configError) || strings.Contains(err.Error(), code) {
			t.Errorf("the error for the MFA code %q is %v", code, err)
		}
	}
}

// TestSTSLogsNoSecrets logs all there is of calls that go well and that do not.
func TestSTSLogsNoSecrets(t *testing.T) {
	var log bytes.Buffer
	s, err := Start(context.Background(), Config{Log: textLog(&log), MFACode: "918273"})
	if err != nil {
		t.Fatal(err)
	}
	token := jwt(s.key.SecretAccessKey, `{"sub":"jane"}`)
	role := []string{"RoleArn", opsRole, "RoleSessionName", "jane"}
	secrets := []string{s.key.SecretAccessKey, token, "918273", "91827x"}
	for _, f := range []url.Values{
		form("AssumeRole", append(role, "SerialNumber", device, "TokenCode", "918273")...),
		form("AssumeRole", append(role, "SerialNumber", device, "TokenCode", "91827x")...),
		form("AssumeRoleWithWebIdentity", append(role, "WebIdentityToken", token)...),
		form("AssumeRoleWithWebIdentity", append(role, "WebIdentityToken", token+"x")...),
	} {
		callSTS(t, s, f)
	}
	for _, p := range s.temporary.byID {
		secrets = append(secrets, p.key.SecretAccessKey, p.key.SessionToken)
	}
	if err := s.Close(); err != nil { // nothing is logged from here on
		t.Fatal(err)
	}
	if len(secrets) != 8 || !strings.Contains(log.String(), "AssumeRole") {
		t.Fatalf("the calls have made %d secrets, and the log is %q", len(secrets), log.String())
	}
	for i, secret := range secrets {
		if strings.Contains(log.String(), secret) || strings.Contains(fmt.Sprintf("%v %+v %#v", s, s, s), secret) {
			t.Errorf("secret %d of %d is in the log, or in the server's name", i, len(secrets))
		}
	}
}

// FuzzQueryForms puts any form to every action of STS: what is answered is XML, and
// no error is the server's.
func FuzzQueryForms(f *testing.F) {
	s := startWith(f, Config{}, echo)
	actions := slices.Sorted(maps.Keys(s.queryOperations()))
	for i := range actions {
		f.Add(i, form("", "RoleArn", opsRole, "RoleSessionName", "jane", "WebIdentityToken", jwt(s.key.SecretAccessKey, `{"sub":"<"}`)).Encode())
		f.Add(i, form("", "RoleArn", mfaRole, "RoleSessionName", "\x00", "SerialNumber", device, "TokenCode", "123456").Encode())
		f.Add(i, "RoleArn=&RoleSessionName=&DurationSeconds=1e9&WebIdentityToken=e30.bnVsbA.")
	}
	user, _ := s.principal(s.key.AccessKeyID)
	f.Fuzz(func(t *testing.T, i int, body string) {
		members, err := url.ParseQuery(body)
		if err != nil {
			return
		}
		action := actions[uint(i)%uint(len(actions))]
		result, err := s.query[action].call(caller{principal: user}, members)
		var out any = queryAnswer{XMLName: xml.Name{Local: action}, Result: result}
		if err != nil {
			fault := inQueryWords(err)
			if fault.status != 400 && fault.status != 403 {
				t.Errorf("%s %q is the server's fault: %v", action, body, err)
			}
			out = queryFault{Code: fault.code, Message: fault.message}
		}
		text, err := xml.Marshal(out)
		if err != nil || xml.Unmarshal(text, &struct{}{}) != nil {
			t.Errorf("the answer to %s %q is not XML: %v: %s", action, body, err, text)
		}
	})
}

// FuzzWebIdentity is for tokens that were not signed here: none is taken.
func FuzzWebIdentity(f *testing.F) {
	s := startWith(f, Config{}, echo)
	f.Add(jwt("another", `{"sub":"jane","exp":1e300}`))
	f.Add("e30.e30.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		claims, err := s.readWebIdentity(token, time.Now())
		if err == nil {
			t.Errorf("the token %q was taken: %+v", token, claims)
		} else if _, jsonErr := json.Marshal(asAPIError(err).body()); jsonErr != nil || asAPIError(err).code != "InvalidIdentityToken" {
			t.Errorf("the token %q gets %v", token, err)
		}
	})
}
