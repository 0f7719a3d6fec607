package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// teller tells people what happens to the data channel: by a status line where
// the terminal is the session's, elsewhere by lines on stderr. It has a goroutine
// of its own, for a terminal may take nothing for as long as it likes.
type teller struct {
	env     *env
	leave   string // how the user gives up, empty where there are no keys
	status  *tty.StatusLine
	notices chan stream.Notice
	quit    chan struct{}
	wg      sync.WaitGroup

	// Owned by the goroutine.
	lostAt   time.Time // since when there is no connection; zero while there is one
	silentAt time.Time // since when the target does not answer; zero while it does
	reason   string    // why there is no connection
}

// newTeller starts one. stop is to be called.
func newTeller(e *env, escapes *tty.Escapes) *teller {
	t := &teller{env: e, status: e.status, notices: make(chan stream.Notice, 64), quit: make(chan struct{})}
	if name := escapes.Name(); e.status != nil && name != "none" {
		t.leave = name + "."
	}
	t.wg.Go(func() {
		if err := t.run(); err != nil {
			e.log.Debug("telling of the connection ended", "error", err)
		}
	})
	return t
}

// notice takes what happens. It returns at once; what nobody could be told of in
// time is not told.
func (t *teller) notice(n stream.Notice) {
	select {
	case t.notices <- n:
	default:
	}
}

// stop ends the goroutine. Only a terminal that takes nothing keeps it from
// ending soon, and then nobody waits for it.
func (t *teller) stop() {
	close(t.quit)
	ended := make(chan struct{})
	go func() {
		t.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(time.Second):
	}
}

func (t *teller) run() (err error) {
	defer crash.Catch(&err)
	// Without trouble there is no tick: an idle session costs nothing.
	tick := time.NewTicker(time.Hour)
	tick.Stop()
	defer tick.Stop()
	for {
		select {
		case n := <-t.notices:
			trouble := t.troubled()
			t.take(n)
			if now := t.troubled(); now != trouble && now {
				tick.Reset(time.Second)
			} else if !now {
				tick.Stop()
			}
		case now := <-tick.C:
			t.draw(now)
		case <-t.quit:
			t.draw(time.Time{})
			return nil
		}
	}
}

func (t *teller) troubled() bool { return !t.lostAt.IsZero() || !t.silentAt.IsZero() }

// take changes the state and, without a status line, says so.
func (t *teller) take(n stream.Notice) {
	now := time.Now()
	switch n.Kind {
	case stream.Reconnecting:
		reason := reasonOf(n.Err)
		if t.status == nil && reason != t.reason {
			t.env.say("connection lost (%s); reconnecting", oneLine(reason))
		}
		t.reason = reason
		t.lostAt, t.silentAt = now.Add(-n.For), time.Time{}
	case stream.Resumed:
		t.lostAt, t.reason = time.Time{}, ""
		if t.status == nil {
			t.env.say("connected again after %s", max(n.For, 100*time.Millisecond).Round(100*time.Millisecond))
		}
	case stream.Unanswered:
		t.silentAt = now.Add(-n.For)
		if t.status == nil {
			t.env.say("target does not answer")
		}
	case stream.Answered:
		t.silentAt = time.Time{}
	default:
		return
	}
	switch {
	case !t.troubled():
		t.draw(time.Time{})
	case !t.silentAt.IsZero():
		t.draw(now) // it has waited long enough
	}
}

// draw shows how things stand at a time, or nothing.
func (t *teller) draw(now time.Time) {
	if t.status == nil {
		return
	}
	var (
		text  string
		since time.Time
	)
	switch {
	case now.IsZero() || !t.troubled():
		t.status.Show("")
		return
	case !t.lostAt.IsZero():
		text, since = "reconnecting", t.lostAt
		if hint := loginHint(t.reason); hint != "" {
			text = hint
		}
	default:
		text, since = "target does not answer", t.silentAt
	}
	text += fmt.Sprintf(", %d s", int(now.Sub(since).Seconds()))
	if t.leave != "" {
		text += " … " + t.leave + " gives up"
	}
	t.status.Show(text)
}

// expiredPrefix begins the reason when credentials have to be renewed.
const expiredPrefix = "credentials expired: "

// loginHint is a reason that the user can do something about, else empty.
func loginHint(reason string) string {
	if strings.HasPrefix(reason, expiredPrefix) {
		return oneLine(reason)
	}
	return ""
}

// reasonOf says why there is no connection, and what helps if the user can help.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	if call := (*api.Error)(nil); errors.As(err, &call) && call.Expired() && call.Hint != "" {
		return expiredPrefix + call.Hint
	}
	return err.Error()
}
