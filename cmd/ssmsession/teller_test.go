package main

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// lockedBuffer is a screen or a file that two goroutines share.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// take gives what was written since the last call.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.buf.Reset()
	return b.buf.String()
}

func TestPeopleAreToldInLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &lockedBuffer{}
		teller := newTeller(&env{report: newReport(out)}, tty.NewEscapes('~'))
		defer teller.stop()
		tell := func(n stream.Notice, want string) {
			t.Helper()
			teller.notice(n)
			synctest.Wait()
			if got := out.take(); got != want {
				t.Errorf("of %+v people are told %q, want %q", n, got, want)
			}
		}
		cut := errors.New("the service hung up")
		tell(stream.Notice{Kind: stream.Heard}, "")
		tell(stream.Notice{Kind: stream.Reconnecting, Attempt: 1, Err: cut}, "ssmsession: connection lost (the service hung up); reconnecting\n")
		tell(stream.Notice{Kind: stream.Reconnecting, Attempt: 2, Err: cut}, "")
		tell(stream.Notice{Kind: stream.Reconnecting, Attempt: 3, Err: errors.New("no\nroute")}, "ssmsession: connection lost (no route); reconnecting\n")
		tell(stream.Notice{Kind: stream.Resumed, For: 1234 * time.Millisecond}, "ssmsession: connected again after 1.2s\n")
		tell(stream.Notice{Kind: stream.Unanswered, For: 10 * time.Second}, "ssmsession: target does not answer\n")
		tell(stream.Notice{Kind: stream.Answered}, "")
	})
}

func TestQuietPeopleAreToldNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &lockedBuffer{}
		e := &env{report: newReport(out)}
		e.quiet = true
		teller := newTeller(e, tty.NewEscapes('~'))
		teller.notice(stream.Notice{Kind: stream.Reconnecting, Err: errors.New("cut")})
		synctest.Wait()
		teller.stop()
		if got := out.take(); got != "" {
			t.Errorf("told %q", got)
		}
	})
}

func TestTheStatusLineComesWithTroubleThatLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &lockedBuffer{}
		e := &env{report: newReport(out)}
		e.status = tty.NewStatusLine(out, func() (int, int, error) { return 80, 24, nil })
		teller := newTeller(e, tty.NewEscapes('~'))
		defer teller.stop()
		// What is drawn, without the places that its characters have.
		shown := func() string {
			synctest.Wait()
			var text strings.Builder
			for i, part := range strings.Split(out.take(), "\x1b[24;") {
				if _, char, ok := strings.Cut(part, "H"); ok && i > 0 && char != "" {
					text.WriteByte(char[0])
				}
			}
			return text.String()
		}
		want := func(why, part string) {
			t.Helper()
			got := shown()
			if part == "" && strings.ContainsAny(got, "abcdefghijklmnopqrstuvwxyz") || !strings.Contains(got, part) {
				t.Errorf("%s: the line is %q, want %q", why, got, part)
			}
		}
		cut := errors.New("cut")
		teller.notice(stream.Notice{Kind: stream.Reconnecting, Attempt: 1, Err: cut})
		want("at once", "")
		teller.notice(stream.Notice{Kind: stream.Resumed})
		time.Sleep(time.Minute)
		want("a loss that was mended at once", "")

		teller.notice(stream.Notice{Kind: stream.Reconnecting, Attempt: 1, Err: cut})
		time.Sleep(time.Second)
		want("after a second", "reconnecting, 1 s ... ~. gives up")
		time.Sleep(3 * time.Second)
		want("after four", "reconnecting, 4 s ... ~. gives up")
		teller.notice(stream.Notice{Kind: stream.Reconnecting, Attempt: 2, For: 4 * time.Second,
			Err: &api.Error{Code: "ExpiredTokenException", Hint: "aws sso login --profile x"}})
		time.Sleep(time.Second)
		want("a login is missing", "credentials expired: aws sso login --profile x, 5 s ... ~. gives up")
		teller.notice(stream.Notice{Kind: stream.Resumed, For: 5 * time.Second})
		want("it is back", "")
		time.Sleep(time.Hour)
		want("and stays", "")
		teller.notice(stream.Notice{Kind: stream.Unanswered, For: 10 * time.Second})
		want("a silent target", "target does not answer, 10 s ... ~. gives up")
	})
}
