package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// errRecorded ends a call once it is known where it would have gone.
var errRecorded = errors.New("recorded")

// TestTheHostThatIsAsked shows which host a set of settings leads to.
func TestTheHostThatIsAsked(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config Config
		env    map[string]string
		shared string
		url    string
	}{
		{name: "the region's", url: "https://ssm.eu-west-1.amazonaws.com/"},
		{name: "another region's", config: Config{Region: "us-gov-west-1"}, url: "https://ssm.us-gov-west-1.amazonaws.com/"},
		{name: "China's", config: Config{Region: "cn-north-1"}, url: "https://ssm.cn-north-1.amazonaws.com.cn/"},
		{name: "FIPS", config: Config{Region: "us-east-1"}, env: map[string]string{"AWS_USE_FIPS_ENDPOINT": "true"},
			url: "https://ssm-fips.us-east-1.amazonaws.com/"},
		{name: "dual-stack", env: map[string]string{"AWS_USE_DUALSTACK_ENDPOINT": "true"}, url: "https://ssm.eu-west-1.api.aws/"},
		{name: "FIPS and dual-stack", config: Config{Region: "us-east-1"},
			env: map[string]string{"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
			url: "https://ssm-fips.us-east-1.api.aws/"},
		{name: "dual-stack of the profile", shared: "[default]\nuse_dualstack_endpoint = true\n", url: "https://ssm.eu-west-1.api.aws/"},
		{name: "AWS_ENDPOINT_URL", env: map[string]string{"AWS_ENDPOINT_URL": "https://all.example"}, url: "https://all.example/"},
		{name: "AWS_ENDPOINT_URL_SSM", env: map[string]string{"AWS_ENDPOINT_URL": "https://all.example", "AWS_ENDPOINT_URL_SSM": "https://ssm.example:8443"},
			url: "https://ssm.example:8443/"},
		{name: "the profile's", shared: "[default]\nendpoint_url = https://profile.example\n", url: "https://profile.example/"},
		{name: "an endpoint given", config: Config{EndpointURL: "https://flag.example"},
			env: map[string]string{"AWS_ENDPOINT_URL_SSM": "https://ssm.example"}, url: "https://flag.example/"},
		{name: "variables that are to be ignored", env: map[string]string{"AWS_ENDPOINT_URL_SSM": "https://ssm.example", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
			url: "https://ssm.eu-west-1.amazonaws.com/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := accountEnv(t)
			if tt.shared != "" {
				sharedConfig(t, home, tt.shared)
			}
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			var asked []string
			tt.config.Proxy = func(r *http.Request) (*url.URL, error) {
				asked = append(asked, r.URL.String())
				return nil, errRecorded
			}
			_, err := mustNew(t, tt.config).Start(context.Background(), StartRequest{Target: "i-0abc"})
			if !errors.Is(err, errRecorded) {
				t.Fatalf("the call did not come as far as its connection: %v", err)
			}
			if len(asked) == 0 || asked[0] != tt.url { // what follows is for the error's text
				t.Errorf("the call went to %q, want %q", asked, tt.url)
			}
		})
	}
}

func TestTheProxyIsForEveryoneTheSDKAsks(t *testing.T) {
	home := bareEnv(t)
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	sharedConfig(t, home, roleProfile)
	var hosts []string
	c := mustNew(t, Config{Profile: "dev", Proxy: func(r *http.Request) (*url.URL, error) {
		hosts = append(hosts, r.URL.Host)
		return nil, errRecorded
	}})
	if _, err := c.Start(context.Background(), StartRequest{Target: "i-0abc"}); !errors.Is(err, errRecorded) {
		t.Fatalf("the call did not come as far as its connection: %v", err)
	}
	if !slices.Equal(slices.Compact(hosts), []string{"sts.eu-west-1.amazonaws.com"}) {
		t.Errorf("the proxy was looked up for %q, want STS", hosts)
	}
}

// Each service has a client of its own.
func TestTheProxyIsForEveryService(t *testing.T) {
	for _, tt := range []struct {
		host string
		call func(*Client) error
	}{
		{"ssm.eu-west-1.amazonaws.com", func(c *Client) error { return c.Terminate(t.Context(), "jane-01") }},
		{"kms.eu-west-1.amazonaws.com", func(c *Client) error {
			_, err := c.DataKey(t.Context(), DataKeyRequest{KeyID: "alias/sessions", SessionID: "jane-01", Target: "i-0abc"})
			return err
		}},
		{"ec2-instance-connect.eu-west-1.amazonaws.com", func(c *Client) error {
			return c.PushSSHKey(t.Context(), someKey())
		}},
	} {
		t.Run(tt.host, func(t *testing.T) {
			accountEnv(t)
			var hosts []string
			c := mustNew(t, Config{Proxy: func(r *http.Request) (*url.URL, error) {
				hosts = append(hosts, r.URL.Host)
				return nil, errRecorded
			}})
			if err := tt.call(c); !errors.Is(err, errRecorded) {
				t.Fatalf("the call did not come as far as its connection: %v", err)
			}
			if len(hosts) == 0 || hosts[0] != tt.host { // what follows is for the error's text
				t.Errorf("the proxy was looked up for %q, want %s", hosts, tt.host)
			}
		})
	}
}

func TestAProxyThatDoesNotHelp(t *testing.T) {
	refusing := func(status int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodConnect || r.Host != "ssm.eu-west-1.amazonaws.com:443" {
				t.Errorf("the proxy was asked %s %s, want a CONNECT to SSM", r.Method, r.Host)
			}
			w.WriteHeader(status)
		}))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	needsPassword, refuses, broken, away := refusing(407), refusing(403), refusing(502), unusedAddress(t)
	for _, tt := range []struct{ name, proxy, message, hint string }{
		{"it wants a password", needsPassword, "the proxy " + needsPassword + " refused to connect: 407 Proxy Authentication Required",
			"give the proxy's user name and password in its variable, as in  HTTPS_PROXY=http://user:password@host:port"},
		{"it lets nobody through", refuses, "the proxy " + refuses + " refused to connect: 403 Forbidden",
			"check that the proxy lets the service through, or name the service's host in NO_PROXY"},
		{"it fails", broken, "the proxy " + broken + " refused to connect: 502 Bad Gateway",
			"check that the proxy lets the service through, or name the service's host in NO_PROXY"},
		{"it is away", away, "cannot reach the proxy: dial tcp " + away + ": connect: connection refused",
			"check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			accountEnv(t)
			c := mustNew(t, Config{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: tt.proxy, User: url.UserPassword("jane", token)})})
			_, err := c.Start(context.Background(), StartRequest{Target: "i-0abc"})
			if e := wantError(t, err, CodeNetwork, "cannot start session on i-0abc: "+tt.message, tt.hint); e.Permanent() {
				t.Error("a proxy may come back: not permanent")
			}
			if leaks(err.Error()) {
				t.Errorf("the error shows the proxy's password: %v", err)
			}
		})
	}
}

// A captive portal answers in the service's place, or leads to who does.
func TestAPortalThatLeadsElsewhere(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		accountEnv(t)
		asked := 0
		portal := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/login" {
				if _, err := io.WriteString(w, "<html>"+token+"</html>"); err != nil {
					t.Error(err)
				}
				return
			}
			asked++
			http.Redirect(w, r, "/login", status)
		}))
		_, err := mustNew(t, Config{EndpointURL: portal.URL}).Start(context.Background(), StartRequest{Target: "i-0abc"})
		portal.Close()
		e := wantErrorCode(t, err, CodeBadAnswer)
		if !strings.HasPrefix(e.Message, "the answer is not the service's (HTTP ") || !strings.Contains(e.Hint, "login page") {
			t.Errorf("after HTTP %d the error is %q (%s)", status, e.Message, e.Hint)
		}
		if leaks(e.Error()) || asked != 1 {
			t.Errorf("after HTTP %d the portal was asked %d times, or its page shows: %v", status, asked, e)
		}
	}
}

func TestARegionOfTheEnvironmentThatIsNone(t *testing.T) {
	accountEnv(t)
	t.Setenv("AWS_REGION", "us east.1/")
	_, err := New(context.Background(), Config{})
	if e := wantError(t, err, CodeBadConfig, `cannot set up AWS: "us east.1/" is no name of a region`, "see where it comes from with  aws configure list"); e.Usage() {
		t.Error("what the environment holds is no usage error")
	}
}

// An endpoint of the environment's that cannot be read is quoted by whoever tries, but
// for its password.
func TestThePasswordOfAnEndpointIsNotShown(t *testing.T) {
	const password = "hunter2"
	for _, endpoint := range []string{
		"http://jane:hunter2@exa mple/", "http://jane:hunter2@[::1", "://jane:hunter2@x", "http://jane:hunter2%zz@127.0.0.1:1",
		"http://jane:hun/hunter2@127.0.0.1", "http://jane:hun hunter2@127.0.0.1", "ftp://jane:hunter2@127.0.0.1:1", "http://jane:hunter2@127.0.0.1:1",
	} {
		accountEnv(t)
		t.Setenv("AWS_ENDPOINT_URL", endpoint)
		c, err := New(t.Context(), Config{})
		if err != nil {
			t.Fatal(err)
		}
		_, startErr := c.Start(t.Context(), StartRequest{Target: "i-0abc"})
		_, keyErr := c.DataKey(t.Context(), someSession())
		pushErr := c.PushSSHKey(t.Context(), someKey())
		for what, err := range map[string]error{"Start": startErr, "DataKey": keyErr, "PushSSHKey": pushErr} {
			if err == nil || strings.Contains(err.Error(), password) {
				t.Errorf("with %s, %s fails with %v", endpoint, what, err)
			}
		}
	}
	bareEnv(t)
	t.Setenv("AWS_REGION", "eu-west-1")
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/ci")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token)
	t.Setenv("AWS_ENDPOINT_URL_STS", "http://jane:hunter2@exa mple/")
	c, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Start(t.Context(), StartRequest{Target: "i-0abc"}); err == nil || strings.Contains(err.Error(), password) {
		t.Errorf("with such an endpoint of STS, Start fails with %v", err)
	}
}
