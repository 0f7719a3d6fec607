package api

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// trap is a server that must not be called.
func trap(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the trap was called: %s %s", r.Method, r.URL)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestIsolatedClientIgnoresTheUsersSetUp(t *testing.T) {
	home := bareEnv(t)
	garbage := filepath.Join(home, "garbage")
	writeFile(t, garbage, "[[[ this is no INI file\n\x00")
	sharedConfig(t, home, "[default\nregion")
	elsewhere := trap(t)
	for name, value := range map[string]string{
		"AWS_PROFILE":                         "nobody",
		"AWS_DEFAULT_PROFILE":                 "nobody",
		"AWS_CONFIG_FILE":                     garbage,
		"AWS_SHARED_CREDENTIALS_FILE":         garbage,
		"AWS_CA_BUNDLE":                       garbage,
		"AWS_REGION":                          "mars-north-1",
		"AWS_DEFAULT_REGION":                  "mars-north-2",
		"AWS_ENDPOINT_URL":                    elsewhere,
		"AWS_ENDPOINT_URL_SSM":                elsewhere,
		"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
		"AWS_USE_FIPS_ENDPOINT":               "true",
		"AWS_USE_DUALSTACK_ENDPOINT":          "true",
		"AWS_ACCESS_KEY_ID":                   "AKIDUSER",
		"AWS_SECRET_ACCESS_KEY":               "usersecret",
		"AWS_SESSION_TOKEN":                   "usertoken",
		"AWS_ROLE_ARN":                        "arn:aws:iam::111122223333:role/r",
		"AWS_WEB_IDENTITY_TOKEN_FILE":         garbage,
		"AWS_CONTAINER_CREDENTIALS_FULL_URI":  elsewhere,
		"AWS_EC2_METADATA_DISABLED":           "false",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT":   elsewhere,
		"AWS_DEFAULTS_MODE":                   "auto",
		"AWS_RETRY_MODE":                      "nonsense",
		"AWS_MAX_ATTEMPTS":                    "nonsense",
		"AWS_SDK_UA_APP_ID":                   strings.Repeat("x", 100),
		"HTTP_PROXY":                          elsewhere,
		"HTTPS_PROXY":                         elsewhere,
		"ALL_PROXY":                           elsewhere,
		"NO_PROXY":                            "",
	} {
		t.Setenv(name, value)
	}
	s := newService(t, 200, granted)
	g, err := isolatedClient(t, s.URL).Start(context.Background(), StartRequest{Target: "local"})
	if err != nil {
		t.Fatalf("the user's environment got in the way: %v", err)
	}
	if g.SessionID != "jane-01" {
		t.Errorf("the grant is %+v, not the service's", g)
	}
	auth := s.requests()[0].auth
	if !strings.Contains(auth, "Credential=AKIDEMULATOR/") || !strings.Contains(auth, "/us-east-1/ssm/aws4_request") {
		t.Errorf("the request is signed %q, not with the key and region handed in", auth)
	}
	if strings.Contains(auth, "x-amz-security-token") {
		t.Errorf("the user's session token was sent along: %q", auth)
	}
}

func TestIsolatedClientHasNoProxy(t *testing.T) {
	bareEnv(t)
	for name, c := range map[string]Config{
		"the environment's": {},
		"one handed in":     {Proxy: failing(errors.New("a proxy is asked for"))},
	} {
		c.Region, c.EndpointURL, c.Keys = "us-east-1", "http://emulator.test", &Keys{}
		client, ok := mustNew(t, c).ssm.Options().HTTPClient.(*awshttp.BuildableClient)
		if !ok {
			t.Fatal("the HTTP client is no BuildableClient")
		}
		if client.GetTransport().Proxy != nil {
			t.Errorf("the isolated client has a proxy: %s", name)
		}
	}
}

func TestIsolatedClientNeedsEverythingHandedIn(t *testing.T) {
	bareEnv(t)
	for name, c := range map[string]Config{
		"no region":   {EndpointURL: "http://127.0.0.1:1", Keys: &Keys{}},
		"no endpoint": {Region: "us-east-1", Keys: &Keys{}},
		"a profile":   {Region: "us-east-1", EndpointURL: "http://127.0.0.1:1", Profile: "dev", Keys: &Keys{}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(context.Background(), c)
			wantError(t, err, CodeInvalidInput, "cannot set up AWS: keys of one's own need a region and an endpoint, and no profile", "")
		})
	}
}

func TestRegionProfileAndEndpointWinOverTheEnvironment(t *testing.T) {
	home := accountEnv(t)
	sharedConfig(t, home, "[profile dev]\nregion = eu-north-1\naws_access_key_id = AKIDDEV\naws_secret_access_key = s\n")
	s := newService(t, 200, granted)
	for _, tt := range []struct {
		name   string
		config Config
		env    map[string]string
		scope  string
	}{
		{"the environment alone", Config{}, map[string]string{"AWS_ENDPOINT_URL_SSM": s.URL}, "AKIDENV eu-west-1"},
		{"the general endpoint variable", Config{}, map[string]string{"AWS_ENDPOINT_URL": s.URL}, "AKIDENV eu-west-1"},
		{"an endpoint given", Config{EndpointURL: s.URL}, map[string]string{"AWS_ENDPOINT_URL_SSM": trap(t)}, "AKIDENV eu-west-1"},
		{"a region given", Config{EndpointURL: s.URL, Region: "ap-south-1"}, nil, "AKIDENV ap-south-1"},
		{"a profile given", Config{EndpointURL: s.URL, Profile: "dev"}, nil, "AKIDDEV eu-west-1"},
		{"a profile in the environment", Config{EndpointURL: s.URL}, map[string]string{"AWS_PROFILE": "dev"}, "AKIDENV eu-west-1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			before := len(s.requests())
			if _, err := mustNew(t, tt.config).Start(context.Background(), StartRequest{Target: "i-1"}); err != nil {
				t.Fatalf("Start failed: %v", err)
			}
			auth := s.requests()[before].auth
			for _, part := range strings.Fields(tt.scope) {
				if !strings.Contains(auth, part+"/") {
					t.Errorf("the request is signed %q, want the scope %s", auth, tt.scope)
				}
			}
		})
	}
}

func TestProfilesOwnRegion(t *testing.T) {
	home := bareEnv(t)
	sharedConfig(t, home, "[profile dev]\nregion = eu-north-1\n")
	if got := mustNew(t, Config{Profile: "dev"}).caller.region; got != "eu-north-1" {
		t.Errorf("the region is %q, want the profile's", got)
	}
}

func TestSetUpThatCannotWork(t *testing.T) {
	for _, tt := range []struct {
		name       string
		config     Config
		shared     string
		code, line string
		hint       string
	}{
		{name: "no region anywhere", code: CodeNoRegion, line: "cannot set up AWS: no region is set",
			hint: "give --region, or set one with  aws configure set region us-east-1"},
		{name: "a region that is none", config: Config{Region: "us east.1/"}, code: CodeInvalidInput,
			line: `cannot set up AWS: "us east.1/" is no name of a region`},
		{name: "an unknown profile", config: Config{Region: "us-east-1", Profile: "nobody"}, code: CodeNoProfile,
			line: `cannot set up AWS: there is no profile named "nobody"`, hint: "list the profiles with  aws configure list-profiles"},
		{name: "an unknown profile beside a known one", config: Config{Region: "us-east-1", Profile: "nobody"}, code: CodeNoProfile,
			shared: "[profile dev]\nregion = eu-north-1\n",
			line:   `cannot set up AWS: there is no profile named "nobody"`, hint: "list the profiles with  aws configure list-profiles"},
		{name: "an endpoint without scheme", config: Config{Region: "us-east-1", EndpointURL: "localhost:8080"}, code: CodeInvalidInput,
			line: "cannot set up AWS: the endpoint is no http or https URL"},
		{name: "an endpoint without host", config: Config{Region: "us-east-1", EndpointURL: "http://:80"}, code: CodeInvalidInput,
			line: "cannot set up AWS: the endpoint is no http or https URL"},
		{name: "an endpoint with a password", config: Config{Region: "us-east-1", EndpointURL: "http://me:pass@host"}, code: CodeInvalidInput,
			line: "cannot set up AWS: the endpoint must not hold a user name or password"},
		{name: "a role that needs an MFA code, and nothing may prompt", config: Config{Region: "us-east-1", Profile: "mfa"}, code: CodeNeedsMFA,
			shared: "[profile mfa]\nrole_arn = arn:aws:iam::111122223333:role/r\nmfa_serial = arn:aws:iam::111122223333:mfa/m\n" +
				"source_profile = base\n[profile base]\naws_access_key_id = AKID\naws_secret_access_key = s\n",
			line: "cannot set up AWS: the profile's role needs an MFA code, and nothing may prompt here (no terminal, or CI is set)",
			hint: `run it in a terminal, or export credentials first with  eval "$(aws configure export-credentials --format env --profile mfa)"  or  aws sts get-session-token`},
		{name: "a role whose source has no keys", config: Config{Region: "us-east-1", Profile: "dev"}, code: CodeBadConfig,
			shared: "[profile dev]\nrole_arn = arn:aws:iam::111122223333:role/r\nsource_profile = base\n[profile base]\nregion = eu-west-1\n",
			line:   `cannot set up AWS: profile "base" has no credentials to assume arn:aws:iam::111122223333:role/r with`,
			hint:   "give it some with  aws configure --profile base"},
		{name: "a role without source", config: Config{Region: "us-east-1", Profile: "dev"}, code: CodeNoProfile,
			shared: "[profile dev]\nrole_arn = arn:aws:iam::111122223333:role/r\nsource_profile = base\n",
			line:   `cannot set up AWS: there is no profile named "base"`, hint: "list the profiles with  aws configure list-profiles"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := bareEnv(t)
			if tt.shared != "" {
				sharedConfig(t, home, tt.shared)
			}
			_, err := New(context.Background(), tt.config)
			e := wantError(t, err, tt.code, tt.line, tt.hint)
			if e.Usage() != (tt.code == CodeInvalidInput) {
				t.Errorf("Usage is %v for %s", e.Usage(), tt.code)
			}
		})
	}
}

func TestSetUpWithAFileThatCannotBeRead(t *testing.T) {
	home := bareEnv(t)
	t.Setenv("AWS_CA_BUNDLE", filepath.Join(home, "absent.pem"))
	_, err := New(context.Background(), Config{Region: "us-east-1"})
	e := wantErrorCode(t, err, CodeBadConfig)
	if !strings.HasPrefix(e.Error(), "cannot set up AWS: ") || !strings.Contains(e.Message, "absent.pem") {
		t.Errorf("the line does not name the file: %s", e.Error())
	}
}

func TestSDKLogGoesWhereItIsSentAndHoldsNoToken(t *testing.T) {
	accountEnv(t)
	t.Setenv("AWS_MAX_ATTEMPTS", "2")
	stderr := captureStderr(t)
	failing := newService(t, 500, `{"__type":"InternalServerError","Message":"`+token+`"}`)
	working := newService(t, 200, granted)
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if err := mustNew(t, Config{EndpointURL: failing.URL, Log: log}).Terminate(context.Background(), "jane-01"); err == nil {
		t.Fatal("Terminate succeeded at a service that fails")
	}
	if !strings.Contains(out.String(), "retrying request SSM/TerminateSession") {
		t.Errorf("the log does not tell of the retry: %s", out.String())
	}
	if _, err := mustNew(t, Config{EndpointURL: working.URL, Log: log}).Start(context.Background(), StartRequest{Target: "i-1"}); err != nil {
		t.Fatalf("Start failed: %v", err)
	}
	if leaks(out.String()) {
		t.Errorf("the log shows a token: %s", out.String())
	}
	if err := mustNew(t, Config{EndpointURL: failing.URL}).Terminate(context.Background(), "jane-01"); err == nil {
		t.Fatal("Terminate succeeded at a service that fails")
	}
	if said := stderr(); said != "" {
		t.Errorf("the SDK wrote to standard error, which is the user's: %s", said)
	}
}

// captureStderr returns a function that gives standard error back and returns
// what was written to it.
func captureStderr(t *testing.T) func() string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	saved := os.Stderr
	os.Stderr = f
	restore := func() {
		if os.Stderr == f {
			os.Stderr = saved
		}
	}
	t.Cleanup(func() {
		restore()
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return func() string {
		restore()
		said, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(said)
	}
}

// BenchmarkNew tells what a start-up pays for the SDK's own set-up.
func BenchmarkNew(b *testing.B) {
	bareEnv(b)
	b.Setenv("AWS_REGION", "eu-west-1")
	for _, c := range []struct {
		name   string
		config Config
	}{
		{"shared", Config{}},
		{"isolated", Config{Region: "us-east-1", EndpointURL: "http://127.0.0.1:1", Keys: &Keys{}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := New(context.Background(), c.config); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
