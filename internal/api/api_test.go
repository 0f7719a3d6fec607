package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

const granted = `{"SessionId":"jane-01","TokenValue":"` + token + `","StreamUrl":"wss://example.com/v1/data-channel/jane-01?role=publish_subscribe"}`

func TestStartSendsTheModelledRequest(t *testing.T) {
	s := newService(t, 200, granted)
	g, err := isolatedClient(t, s.URL).Start(context.Background(), StartRequest{
		Target: "i-0abc", DocumentName: "AWS-StartInteractiveCommand", Reason: "ticket 7",
		Parameters: map[string][]string{"command": {"uname -a", "id"}},
	})
	if err != nil {
		t.Fatalf("Start failed: %v", err)
	}
	if g.SessionID != "jane-01" || g.Token.Reveal() != token ||
		g.StreamURL != "wss://example.com/v1/data-channel/jane-01?role=publish_subscribe" {
		t.Errorf("the grant is not what the service sent: %+v", g)
	}
	seen := s.requests()
	if len(seen) != 1 {
		t.Fatalf("the service was asked %d times, want once", len(seen))
	}
	a := seen[0]
	if a.target != "AmazonSSM.StartSession" || a.contentType != "application/x-amz-json-1.1" {
		t.Errorf("the envelope is %q, %q", a.target, a.contentType)
	}
	if !strings.Contains(a.agent, "ssmsession/1.2.3") {
		t.Errorf("the User-Agent %q does not name us and our version", a.agent)
	}
	want := map[string]any{
		"Target": "i-0abc", "DocumentName": "AWS-StartInteractiveCommand", "Reason": "ticket 7",
		"Parameters": map[string]any{"command": []any{"uname -a", "id"}},
	}
	if !reflect.DeepEqual(a.body, want) {
		t.Errorf("the body is %v, want %v", a.body, want)
	}
}

func TestStartLeavesOutWhatWasNotGiven(t *testing.T) {
	s := newService(t, 200, granted)
	if _, err := isolatedClient(t, s.URL).Start(context.Background(), StartRequest{Target: "i-0abc"}); err != nil {
		t.Fatalf("Start failed: %v", err)
	}
	if got, want := s.requests()[0].body, (map[string]any{"Target": "i-0abc"}); !reflect.DeepEqual(got, want) {
		t.Errorf("the body is %v, want %v", got, want)
	}
}

func TestStartNamesTheMemberThatIsMissing(t *testing.T) {
	for _, tt := range []struct{ missing, body string }{
		{"SessionId", `{"TokenValue":"` + token + `","StreamUrl":"wss://x"}`},
		{"SessionId", `{"SessionId":"","TokenValue":"` + token + `","StreamUrl":"wss://x"}`},
		{"StreamUrl", `{"SessionId":"jane-01","TokenValue":"` + token + `"}`},
		{"TokenValue", `{"SessionId":"jane-01","StreamUrl":"wss://x"}`},
		{"SessionId", `{}`},
	} {
		t.Run(tt.missing, func(t *testing.T) {
			s := newService(t, 200, tt.body)
			_, err := isolatedClient(t, s.URL).Start(context.Background(), StartRequest{Target: "i-0abc"})
			wantError(t, err, CodeBadAnswer, "cannot start session on i-0abc: the service's answer has no "+tt.missing, "")
			if leaks(err.Error()) {
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
}

func TestASessionThatCannotBeUsedIsEnded(t *testing.T) {
	const half = `{"SessionId":"jane-01","StreamUrl":"wss://x"}`
	t.Run("even when the caller's time is up", func(t *testing.T) {
		accountEnv(t)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var ended []string
		s := newActions(t, map[string]http.HandlerFunc{
			"StartSession": func(w http.ResponseWriter, _ *http.Request) { answer(t, w, 200, half) },
			"TerminateSession": func(w http.ResponseWriter, r *http.Request) {
				ended = append(ended, form(t, r))
				cancel()
				answer(t, w, 200, `{}`)
			},
		})
		_, err := mustNew(t, Config{EndpointURL: s.URL}).Start(ctx, StartRequest{Target: "i-0abc"})
		wantError(t, err, CodeBadAnswer, "cannot start session on i-0abc: the service's answer has no TokenValue", "try again, and check the endpoint")
		if len(ended) != 1 || ended[0] != `{"SessionId":"jane-01"}` {
			t.Errorf("the service was asked to end %q, want jane-01 once", ended)
		}
	})
	t.Run("and if it cannot be ended, the user is told how", func(t *testing.T) {
		accountEnv(t)
		s := newActions(t, map[string]http.HandlerFunc{
			"StartSession":     func(w http.ResponseWriter, _ *http.Request) { answer(t, w, 200, half) },
			"TerminateSession": func(w http.ResponseWriter, _ *http.Request) { answer(t, w, 400, `{"__type":"AccessDeniedException"}`) },
		})
		_, err := mustNew(t, Config{EndpointURL: s.URL}).Start(context.Background(), StartRequest{Target: "i-0abc"})
		wantError(t, err, CodeBadAnswer, "cannot start session on i-0abc: the service's answer has no TokenValue",
			"the session is left behind: end it with  aws ssm terminate-session --session-id jane-01 --endpoint-url "+s.URL)
	})
}

func TestStartRefusesBadInputWithoutACall(t *testing.T) {
	long := func(n int) string { return strings.Repeat("é", n) }
	for _, tt := range []struct {
		name    string
		request StartRequest
		line    string
	}{
		{"no target", StartRequest{}, "cannot start session: no target is given"},
		{"a target too long", StartRequest{Target: long(401)}, "cannot start session: the target has 401 characters, 400 are allowed"},
		{"a target that is no text", StartRequest{Target: "i-\xff"}, "cannot start session: the target is not valid UTF-8"},
		{"a document name too short", StartRequest{Target: "i-1", DocumentName: "ab"}, `cannot start session on i-1: "ab" is no document name`},
		{"a document name with a blank", StartRequest{Target: "i-1", DocumentName: "my doc"}, `cannot start session on i-1: "my doc" is no document name`},
		{"a document name of two lines", StartRequest{Target: "i-1", DocumentName: "abc\n"}, `cannot start session on i-1: "abc" is no document name`},
		{"a reason too long", StartRequest{Target: "i-1", Reason: long(257)}, "cannot start session on i-1: the reason has 257 characters, 256 are allowed"},
		{"a reason of two lines", StartRequest{Target: "i-1", Reason: "a\nb"}, "cannot start session on i-1: the reason has more than one line"},
		{"an unnamed parameter", StartRequest{Target: "i-1", Parameters: map[string][]string{"": {"x"}}}, "cannot start session on i-1: the name of a parameter is empty"},
		{"a parameter's name too long", StartRequest{Target: "i-1", Parameters: map[string][]string{long(256): {"x"}}}, "cannot start session on i-1: the name of a parameter has 256 characters, 255 are allowed"},
		{"an empty value", StartRequest{Target: "i-1", Parameters: map[string][]string{"p": {"x", ""}}}, `cannot start session on i-1: a value of parameter "p" is empty`},
		{"a value too long", StartRequest{Target: "i-1", Parameters: map[string][]string{"p": {long(65536)}}}, `cannot start session on i-1: a value of parameter "p" has 65536 characters, 65535 are allowed`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, 200, granted)
			_, err := isolatedClient(t, s.URL).Start(context.Background(), tt.request)
			var e *Error
			if !errors.As(err, &e) || e.Error() != tt.line {
				t.Fatalf("the error is\n\t%v\nwant\n\t%s", err, tt.line)
			}
			if !e.Usage() || !e.Permanent() {
				t.Error("bad input should be a usage error, and permanent")
			}
			if n := len(s.requests()); n != 0 {
				t.Errorf("the service was asked %d times all the same", n)
			}
		})
	}
}

func TestValidateAcceptsTheLimits(t *testing.T) {
	r := StartRequest{
		Target: strings.Repeat("é", 400), DocumentName: "arn:aws:ssm:eu-west-1:111122223333:document/My_Doc-1.2",
		Reason:     strings.Repeat("é", 256),
		Parameters: map[string][]string{strings.Repeat("k", 255): {strings.Repeat("é", 65535), "x"}, "none": {}},
	}
	if err := r.Validate(); err != nil {
		t.Errorf("a request at every limit is refused: %v", err)
	}
	for _, name := range []string{"abc", strings.Repeat("a", 128)} {
		if err := (StartRequest{Target: "t", DocumentName: name}).Validate(); err != nil {
			t.Errorf("document name %q is refused: %v", name, err)
		}
	}
}

func TestResumeReturnsAFreshToken(t *testing.T) {
	for _, tt := range []struct{ name, body, url string }{
		{"whole", granted, "wss://example.com/v1/data-channel/jane-01?role=publish_subscribe"},
		{"the token alone", `{"TokenValue":"` + token + `"}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, 200, tt.body)
			g, err := isolatedClient(t, s.URL).Resume(context.Background(), "jane-01")
			if err != nil {
				t.Fatalf("Resume failed: %v", err)
			}
			if g.SessionID != "jane-01" || g.StreamURL != tt.url || g.Token.Reveal() != token {
				t.Errorf("the grant is not what the service sent: %+v", g)
			}
			a := s.requests()[0]
			if a.target != "AmazonSSM.ResumeSession" || !reflect.DeepEqual(a.body, map[string]any{"SessionId": "jane-01"}) {
				t.Errorf("the service was asked %s with %v", a.target, a.body)
			}
		})
	}
}

func TestResumeOfASessionThatIsOver(t *testing.T) {
	for _, body := range []string{`{"SessionId":"jane-01"}`, `{"SessionId":"jane-01","TokenValue":""}`, `{}`} {
		s := newService(t, 200, body)
		_, err := isolatedClient(t, s.URL).Resume(context.Background(), "jane-01")
		if !errors.Is(err, ErrSessionOver) {
			t.Errorf("after %s the error is %v, want ErrSessionOver", body, err)
		}
		if e := wantError(t, err, CodeSessionOver, "cannot resume session jane-01: the session is over", ""); !e.Permanent() {
			t.Error("a session that is over should not be asked for again")
		}
	}
}

func TestTerminateNamesTheSession(t *testing.T) {
	s := newService(t, 200, `{"SessionId":"jane-01"}`)
	if err := isolatedClient(t, s.URL).Terminate(context.Background(), "jane-01"); err != nil {
		t.Fatalf("Terminate failed: %v", err)
	}
	a := s.requests()[0]
	if a.target != "AmazonSSM.TerminateSession" || !reflect.DeepEqual(a.body, map[string]any{"SessionId": "jane-01"}) {
		t.Errorf("the service was asked %s with %v", a.target, a.body)
	}
}

func TestNoSessionNoCall(t *testing.T) {
	s := newService(t, 200, granted)
	c := isolatedClient(t, s.URL)
	_, err := c.Resume(context.Background(), "")
	wantError(t, err, CodeInvalidInput, "cannot resume session: no session is named", "")
	wantError(t, c.Terminate(context.Background(), ""), CodeInvalidInput, "cannot end session: no session is named", "")
	if n := len(s.requests()); n != 0 {
		t.Errorf("the service was asked %d times all the same", n)
	}
}

func TestServerFaultsAreTriedThreeTimes(t *testing.T) {
	s := newService(t, http.StatusInternalServerError, `{"__type":"InternalServerError"}`)
	if err := isolatedClient(t, s.URL).Terminate(context.Background(), "jane-01"); err == nil {
		t.Fatal("Terminate succeeded at a service that fails")
	}
	if n := len(s.requests()); n != 3 {
		t.Errorf("the service was asked %d times, want the three of the SDK's standard mode", n)
	}
}
