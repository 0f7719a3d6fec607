//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/ssmsession/ssmsession/internal/emulator"
)

// testService is an emulator in this process, and a relay in front of it that sees
// what goes over the API.
type testService struct {
	t      *testing.T
	server *emulator.Server
	relay  *httptest.Server

	mu      sync.Mutex // guards what follows
	log     bytes.Buffer
	tokens  []string            // that it gave out, and other secrets
	resumed int                 // calls of ResumeSession that it answered
	noData  bool                // no data channel opens
	called  func()              // is called before everything that it is asked; nil for nothing
	spoil   func([]byte) []byte // changes the answer to StartSession; nil for nothing
}

func newTestService(t *testing.T, change ...func(*emulator.Config)) *testService {
	t.Helper()
	s := &testService{t: t}
	cfg := emulator.Config{
		Targets: []emulator.Target{{ID: exampleTarget}},
		Shell:   []string{"/bin/sh"},

		AuthorizedKeys: filepath.Join(t.TempDir(), "keys"),

		Log: slog.New(slog.NewTextHandler(lockedWriter{s}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&cfg)
	}
	server, err := emulator.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.server = server
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("the emulator does not stop: %v", err)
		}
	})
	target, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		ModifyResponse: s.look,
	}
	s.relay = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if called := s.watcher(); called != nil {
			called()
		}
		if r.Method == http.MethodGet && s.refusing() {
			http.Error(w, "no data channel today", http.StatusInternalServerError)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(s.relay.Close)
	return s
}

// lockedWriter is a service's log.
type lockedWriter struct{ s *testService }

func (w lockedWriter) Write(p []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.log.Write(p)
}

// xmlSecret finds those of STS.
var xmlSecret = regexp.MustCompile(`<(?:SecretAccessKey|SessionToken)>([^<]+)<`)

// look notes the secrets of an answer and leads the data channel through the relay.
func (s *testService) look(r *http.Response) error {
	if r.StatusCode != http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	body = bytes.ReplaceAll(body,
		[]byte(strings.TrimPrefix(s.server.URL(), "http://")), []byte(strings.TrimPrefix(s.relay.URL, "http://")))
	var found []string
	for _, m := range xmlSecret.FindAllSubmatch(body, -1) {
		found = append(found, string(m[1]))
	}
	var answer struct{ TokenValue, Plaintext string } // of a session, of a data key
	_ = json.Unmarshal(body, &answer)                 // it may be XML
	found = append(found, answer.TokenValue, answer.Plaintext)
	call := r.Request.Header.Get("X-Amz-Target")
	s.note(func() {
		s.tokens = append(s.tokens, slices.DeleteFunc(found, func(secret string) bool { return secret == "" })...)
		if strings.HasSuffix(call, ".ResumeSession") && answer.TokenValue != "" {
			s.resumed++
		}
		if s.spoil != nil && strings.HasSuffix(call, ".StartSession") {
			body = s.spoil(body)
		}
	})
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

func (s *testService) note(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *testService) watcher() func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.called
}

func (s *testService) refusing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noData
}

// environment leads the program to the service.
func (s *testService) environment() []string {
	key, secret := s.server.Credentials()
	return []string{
		"AWS_ENDPOINT_URL=" + s.relay.URL, "AWS_REGION=" + emulator.DefaultRegion,
		"AWS_ACCESS_KEY_ID=" + key, "AWS_SECRET_ACCESS_KEY=" + secret,
	}
}

// sessions asks the service for its sessions.
func (s *testService) sessions(state types.SessionState) []types.Session {
	s.t.Helper()
	key, secret := s.server.Credentials()
	endpoint := s.server.URL()
	client := ssm.New(ssm.Options{
		Region:       emulator.DefaultRegion,
		BaseEndpoint: &endpoint,
		Credentials:  credentials.NewStaticCredentialsProvider(key, secret, ""),
	})
	out, err := client.DescribeSessions(s.t.Context(), &ssm.DescribeSessionsInput{State: state})
	if err != nil {
		s.t.Fatal(err)
	}
	return out.Sessions
}

// secrets are what nobody may be shown.
func (s *testService) secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, secret := s.server.Credentials()
	return append(slices.Clone(s.tokens), secret)
}

// screen opens a session on a terminal.
func (s *testService) screen() *user {
	s.t.Helper()
	sc := openScreen(s.t, s.t.TempDir(), childEnv(s.environment()...), screenCols, screenRows,
		"ssmsession", "start", exampleTarget)
	s.t.Cleanup(sc.close)
	return &user{screen: sc}
}

func TestTheServiceIsToldWhenASessionIsLeft(t *testing.T) {
	for _, tt := range []struct {
		name   string
		leave  func(*user) error
		status int
	}{
		{"by the end of the shell", func(u *user) error { u.Type("exit\r"); return nil }, 0},
		{"by the escape", func(u *user) error { u.Type("\r~."); return nil }, 0},
		{"by SIGTERM", func(u *user) error { return syscall.Kill(u.pid, syscall.SIGTERM) }, 143},
		{"by SIGHUP", func(u *user) error { return syscall.Kill(u.pid, syscall.SIGHUP) }, 129},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newTestService(t)
			u := s.screen()
			shell := u.shellPID()
			if active := s.sessions(types.SessionStateActive); len(active) != 1 || active[0].Status != types.SessionStatusConnected {
				t.Fatalf("during the session the service has %v, want one that is connected", active)
			}
			if err := tt.leave(u); err != nil {
				t.Fatal(err)
			}
			u.wantEnd(tt.status)
			for _, session := range s.sessions(types.SessionStateActive) {
				if session.Status != types.SessionStatusTerminating {
					t.Errorf("after the session the service has it as %s", session.Status)
				}
			}
			// The service takes its time, and nobody is told of the end.
			eventually(t, "the session has terminated", func() bool {
				past := s.sessions(types.SessionStateHistory)
				return len(past) == 1 && past[0].Status == types.SessionStatusTerminated
			})
			wantGone(t, shell)
		})
	}
}

// TestSecretsAreNeverShown looks for tokens and the secret key wherever somebody
// might see them.
func TestSecretsAreNeverShown(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	check := func(where, text string) {
		t.Helper()
		for _, secret := range s.secrets() {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows a secret: %s", where, text)
			}
		}
	}
	pipe := func(status int, args ...string) string {
		t.Helper()
		cmd := exec.Command("timer", append([]string{"ssmsession"}, args...)...)
		cmd.Env = childEnv(s.environment()...)
		cmd.Stdin = strings.NewReader("exit\n")
		out, _ := cmd.CombinedOutput() // the status tells
		if got := cmd.ProcessState.ExitCode(); got != status {
			t.Errorf("%q ended with status %d, want %d: %s", args, got, status, out)
		}
		check(fmt.Sprintf("%q", args), string(out))
		return string(out)
	}

	u := s.screen()
	u.wantRun("true")
	if runtime.GOOS == "linux" {
		argv, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", u.pid))
		if err != nil {
			t.Fatal(err)
		}
		check("the command line", string(argv))
	}
	u.Type("\r~?exit\r")
	u.wantEnd(0)
	check("the screen", u.shown())

	pipe(0, "start", exampleTarget)
	for _, cmd := range commandTree() {
		pipe(0, append(strings.Fields(cmd.CommandPath())[1:], "--help")...)
	}
	s.mu.Lock()
	s.noData = true
	s.mu.Unlock()
	pipe(255, "start", exampleTarget)

	s.mu.Lock()
	log, tokens := s.log.String(), len(s.tokens)
	s.mu.Unlock()
	if tokens < 3 {
		t.Errorf("the test has seen %d tokens, want one a session at least", tokens)
	}
	if log == "" {
		t.Error("the emulator logs nothing")
	}
	check("the emulator's log", log)
}

// shown is all that was ever shown, as it came.
func (s *screen) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.raw.String()
}

// eventually waits for a state that no event tells of.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("in %v it did not come to hold that %s", patience, what)
		}
	}
}
