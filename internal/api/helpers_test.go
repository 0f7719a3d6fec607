package api

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// asked is one request as the service saw it.
type asked struct {
	target, auth, contentType, agent string
	body                             map[string]any
}

// service is an HTTP server that answers every call alike and remembers what
// it was asked.
type service struct {
	*httptest.Server
	mu   sync.Mutex // guards seen
	seen []asked
}

func newService(t *testing.T, status int, body string) *service {
	t.Helper()
	s := &service{}
	s.Server = httptest.NewServer(s.handler(t, status, body))
	t.Cleanup(s.Close)
	return s
}

func (s *service) handler(t *testing.T, status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("the service could not read a request: %v", err)
		}
		a := asked{
			target: r.Header.Get("X-Amz-Target"), auth: r.Header.Get("Authorization"),
			contentType: r.Header.Get("Content-Type"), agent: r.Header.Get("User-Agent"),
		}
		if err := json.Unmarshal(raw, &a.body); err != nil {
			t.Errorf("the service was sent a body that is no JSON object: %q", raw)
		}
		s.mu.Lock()
		s.seen = append(s.seen, a)
		s.mu.Unlock()
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		if _, err := io.WriteString(w, body); err != nil {
			t.Errorf("the service could not answer: %v", err)
		}
	})
}

func (s *service) requests() []asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// bareEnv takes every AWS variable away and points the home directory at an
// empty one, so that the tests see neither the developer's account nor CI's.
func bareEnv(t testing.TB) (home string) {
	t.Helper()
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "") // has the test restore it
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	home = t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	// The SDK looks up the home directory once, when the program starts.
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(home, ".aws", "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(home, ".aws", "credentials"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	return home
}

// accountEnv is bareEnv with keys and a region, and without retries.
func accountEnv(t *testing.T) (home string) {
	t.Helper()
	home = bareEnv(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secretfromenv")
	t.Setenv("AWS_REGION", "eu-west-1")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	return home
}

// sharedConfig writes the home directory's .aws/config.
func sharedConfig(t *testing.T, home, text string) {
	t.Helper()
	writeFile(t, filepath.Join(home, ".aws", "config"), text)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// isolatedClient is a client of the kind that talks to the emulator.
func isolatedClient(t *testing.T, endpoint string) *Client {
	t.Helper()
	return mustNew(t, Config{Region: "us-east-1", EndpointURL: endpoint, Version: "1.2.3",
		Keys: &Keys{AccessKeyID: "AKIDEMULATOR", SecretAccessKey: NewSecret("emulatorsecret")}})
}

func mustNew(t *testing.T, c Config) *Client {
	t.Helper()
	client, err := New(context.Background(), c)
	if err != nil {
		t.Fatalf("New failed: %v", err)
	}
	return client
}

// wantError demands an *Error with this code, line and hint.
func wantError(t *testing.T, err error, code, line, hint string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("the error is no *Error: %v", err)
	}
	if e.Code != code {
		t.Errorf("the code is %q, want %q", e.Code, code)
	}
	if e.Error() != line {
		t.Errorf("the line is\n\t%s\nwant\n\t%s", e.Error(), line)
	}
	if e.Hint != hint {
		t.Errorf("the hint is\n\t%s\nwant\n\t%s", e.Hint, hint)
	}
	return e
}

// wantErrorCode demands an *Error with this code.
func wantErrorCode(t *testing.T, err error, code string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("the error is no *Error: %v", err)
	}
	if e.Code != code {
		t.Errorf("the code is %q, want %q (%v)", e.Code, code, err)
	}
	return e
}

// ssoSource is a credentials provider of the kind an SSO profile has.
type ssoSource struct{ aws.CredentialsProvider }

func (ssoSource) ProviderSources() []aws.CredentialSource {
	return []aws.CredentialSource{aws.CredentialSourceProfileSSO}
}

// newActions is a service that plays several calls, by the names of their
// actions: those of X-Amz-Target, or of the form's Action, or of the path.
func newActions(t *testing.T, actions map[string]http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(actionsHandler(t, actions))
	t.Cleanup(s.Close)
	return s
}

func actionsHandler(t *testing.T, actions map[string]http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("the service could not read a request: %v", err)
		}
		r.Body = io.NopCloser(bytes.NewReader(raw))
		_, name, found := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		if !found {
			name = r.URL.Path
			if values, err := url.ParseQuery(string(raw)); err == nil && values.Has("Action") {
				name = values.Get("Action")
			}
		}
		play, ok := actions[name]
		if !ok {
			t.Errorf("the service was asked for %q, which it does not play", name)
			w.WriteHeader(http.StatusNotImplemented)
			return
		}
		play(w, r)
	})
}

// answer writes an answer of the service.
func answer(t *testing.T, w http.ResponseWriter, status int, body string) {
	t.Helper()
	w.WriteHeader(status)
	if _, err := io.WriteString(w, body); err != nil {
		t.Errorf("the service could not answer: %v", err)
	}
}

// form returns the body of a request.
func form(t *testing.T, r *http.Request) string {
	t.Helper()
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		t.Errorf("the service could not read a request: %v", err)
	}
	return string(raw)
}

// strangersCA is a certificate, as PEM, that has signed nothing.
func strangersCA(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
