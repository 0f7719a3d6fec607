package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/plugin"
	"github.com/ssmsession/ssmsession/internal/stream"
)

// aGiven is an opening of a session that was started elsewhere.
func aGiven(target, streamURL string) *opening {
	o := &opening{target: target}
	o.take(plugin.NewResponse("s-1", "secret", streamURL, ""))
	return o
}

func TestAGivenSessionIsHeldInTheRegionOfItsDataChannel(t *testing.T) {
	const streamURL = "wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/s-1"
	if o := aGiven("", streamURL); o.region != "eu-west-1" {
		t.Errorf("without a region said, it is %q", o.region)
	}
	o := &opening{region: "us-east-1"}
	if o.take(plugin.NewResponse("s-1", "secret", streamURL, "")); o.region != "us-east-1" {
		t.Errorf("where us-east-1 is said, it is %q", o.region)
	}
}

func TestAGivenSessionHasANameInMessages(t *testing.T) {
	if name := aGiven("", "").name(); name != "session s-1" {
		t.Errorf("without a target it is called %q", name)
	}
	if name := aGiven("i-1", "").name(); name != "i-1" {
		t.Errorf("with the target i-1 it is called %q", name)
	}
}

func TestAGivenSessionIsStartedNoSecondTime(t *testing.T) {
	grant, err := aGiven("", "wss://h/").start(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if grant.SessionID != "s-1" || grant.StreamURL != "wss://h/" || grant.Token.Reveal() != "secret" {
		t.Errorf("its grant is not the response's: %+v", grant)
	}
}

// TestAResponseIsUsedOnce is about who else may hold the session: to resume it
// takes it away from them.
func TestAResponseIsUsedOnce(t *testing.T) {
	errDialled := errors.New("dialled")
	var told []stream.NoticeKind
	cfg := stream.Config{
		Dial:   func(context.Context, bool) (stream.Socket, string, error) { return nil, "", errDialled },
		Notify: func(n stream.Notice) { told = append(told, n.Kind) },
	}
	aGiven("", "").onceOnly(&cfg)
	if _, _, err := cfg.Dial(t.Context(), false); !errors.Is(err, errDialled) {
		t.Errorf("it is not dialled the first time: %v", err)
	}
	cfg.Notify(stream.Notice{Kind: stream.Heard}) // of what another client has begun
	cfg.Notify(stream.Notice{Kind: stream.Reconnecting})
	_, _, err := cfg.Dial(t.Context(), true)
	var permanent interface{ Permanent() bool }
	if !errors.As(err, &permanent) || !permanent.Permanent() {
		t.Errorf("it is dialled again though nothing has begun: %v", err)
	}
	if p := explain(err); p.code != "ResponseUsed" || p.hint == "" {
		t.Errorf("that is told as %+v", p)
	}
	if len(told) != 1 {
		t.Errorf("people were told of %v, and it never came to a reconnect", told)
	}
	cfg.Notify(stream.Notice{Kind: stream.Began})
	cfg.Notify(stream.Notice{Kind: stream.Reconnecting})
	if _, _, err := cfg.Dial(t.Context(), true); !errors.Is(err, errDialled) {
		t.Errorf("once it has begun, it is not dialled again: %v", err)
	}
	if len(told) != 3 {
		t.Errorf("people were told of %v, want all that happened since", told)
	}
}

func TestOnlyWhatWasGivenMayLackCredentials(t *testing.T) {
	for _, test := range []struct {
		name string
		open *opening
		err  error
		want bool
	}{
		{"none, for a session given", aGiven("", ""), &api.Error{Code: api.CodeNoCredentials}, false},
		{"no region, for a session given", aGiven("", ""), &api.Error{Code: api.CodeNoRegion}, false},
		{"expired ones, for a session given", aGiven("", ""), &api.Error{Code: "ExpiredTokenException"}, false},
		{"none, for one's own", &opening{}, &api.Error{Code: api.CodeNoCredentials}, true},
		{"good ones that may not, for a session given", aGiven("", ""), &api.Error{Code: "AccessDeniedException"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var said strings.Builder
			e := &env{report: newReport(&said)}
			err := test.open.end(t.Context(), e, &service{lacking: test.err}, "s-1", nil)
			if (err != nil) != test.want {
				t.Errorf("a session that cannot be ended is the error %v", err)
			}
			if told := strings.Contains(said.String(), "lives on until its idle timeout"); told == test.want {
				t.Errorf("people are told %q", &said)
			}
		})
	}
}

func TestASessionOfSomebodyElseIsNotEnded(t *testing.T) {
	e := &env{report: newReport(&strings.Builder{})}
	for _, why := range []error{&failure{err: &usedError{"s-1"}}, stream.ErrBegunElsewhere} {
		// Without a client, to end it would panic.
		if err := aGiven("", "").end(t.Context(), e, &service{}, "s-1", why); err != nil {
			t.Error(err)
		}
		if p := explain(why); errors.Is(why, stream.ErrBegunElsewhere) && (p.code != "ResponseUsed" || p.hint == "") {
			t.Errorf("%v is told as %+v", why, p)
		}
	}
}

func TestAResponseHasALongestLength(t *testing.T) {
	path := filepath.Join(t.TempDir(), "response")
	for size, want := range map[int]bool{maxResponse: false, maxResponse + 1: true} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readResponse(t.Context(), openFile(path)); (err != nil) != want {
			t.Errorf("a response of %d bytes is read with the error %v", size, err)
		}
	}
}

// TestAResponseThatDoesNotComeIsNotWaitedForAfterASignal leaves a reader behind,
// as any read of a pipe that nobody closes.
func TestAResponseThatDoesNotComeIsNotWaitedForAfterASignal(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	if _, err := readResponse(ctx, func() (io.ReadCloser, error) { return from, nil }); !errors.Is(err, stopped) {
		t.Errorf("it ends with %v, want the signal", err)
	}
}
