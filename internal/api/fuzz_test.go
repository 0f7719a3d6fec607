package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"unicode"
)

// FuzzAnswers: whatever the service answers, every call gives what it promises or
// an *Error of one line that a terminal can show.
func FuzzAnswers(f *testing.F) {
	for _, body := range []string{
		`{"SessionId":"s","TokenValue":"t","StreamUrl":"wss://h/"}`,
		`{"CiphertextBlob":"YmxvYg==","Plaintext":"AAAA","KeyId":"k"}`,
		`{"__type":"com.amazonaws.ssm#TargetNotConnected:http://x","Message":"i-0abc is not connected."}`,
		`{"__type":"AccessDeniedException","message":"\u001b[2J\u202e"}`,
		`{"SessionId":1,"TokenValue":[]}`, `[`, `null`, "", "<html>", "\xff\xfe{\x00}\x00",
	} {
		f.Add(200, body)
		f.Add(400, body)
		f.Add(503, body)
	}
	type answer struct {
		status int
		body   string
	}
	var now atomic.Pointer[answer]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a := now.Load()
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body) // the client may have read enough
	}))
	f.Cleanup(server.Close)
	f.Setenv("AWS_MAX_ATTEMPTS", "1")
	f.Setenv("AWS_ACCESS_KEY_ID", "AKID")
	f.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	f.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	client, err := New(context.Background(), Config{Region: "us-east-1", EndpointURL: server.URL, KMSEndpointURL: server.URL})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			return // no answer of an HTTP server of Go's
		}
		now.Store(&answer{status, body})
		ctx := context.Background()
		started, startErr := client.Start(ctx, StartRequest{Target: "i-0abc"})
		if startErr == nil && (started.SessionID == "" || started.StreamURL == "" || started.Token.Reveal() == "") {
			t.Errorf("a grant without a member: %+v", started)
		}
		resumed, resumeErr := client.Resume(ctx, "s")
		if resumeErr == nil && resumed.Token.Reveal() == "" {
			t.Error("a session is resumed without a token")
		}
		key, keyErr := client.DataKey(ctx, someSession())
		if keyErr == nil && (len(key.Plaintext) != 64 || len(key.Ciphertext) == 0) {
			t.Errorf("a key of %d bytes", len(key.Plaintext))
		}
		for _, err := range []error{startErr, resumeErr, keyErr, client.Terminate(ctx, "s")} {
			if err == nil {
				continue
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%v is an error of another type", err)
			}
			for _, text := range []string{e.Error(), e.Hint} {
				if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
					t.Errorf("%q is not for a terminal", text)
				}
			}
		}
	})
}
