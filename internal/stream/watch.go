package stream

import (
	"errors"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// ErrBegunElsewhere says that the token has opened a session in its middle: what
// came first went to another client and will not come again.
var ErrBegunElsewhere = errors.New("the session has begun elsewhere: its beginning went to another client")

// noteStray notes that the far end's first words are not the beginning of a
// session. It may still come, for messages overtake each other and get lost; an
// agent repeats its oldest each 100 ms.
func (l *loop) noteStray(now time.Time, sequence int64) {
	if sequence > 0 && l.strayAt.IsZero() {
		l.strayAt = now
	}
}

// strayDeadline is when nothing else is waited for, zero for never: a beginning
// that came proves that the session is ours, and on a second connection it may
// have been lost with the first.
func (l *loop) strayDeadline() time.Time {
	if l.link == nil || l.strayAt.IsZero() || l.rcv.expected > 0 || !l.lostAt.IsZero() {
		return time.Time{}
	}
	return l.strayAt.Add(strayLimit)
}

// watchStart begins a session whose far end says nothing: most shells have no
// handshake, and a program need not print anything. An agent that wants a
// handshake asks for it at once, so one that has acknowledged something and then
// does not ask is just silent. When there is nothing that it could acknowledge,
// a flag of no meaning is sent: it changes nothing, and tells that somebody is
// there (docs/protocol.md, "Handshake").
func (l *loop) watchStart(now time.Time) {
	if l.startDeadline().IsZero() {
		return
	}
	switch {
	case !l.silentAt.IsZero() && !now.Before(l.silentAt):
		l.silent = true
		l.begin(frame.Start{SessionType: frame.StandardStream})
	case l.silentAt.IsZero() && !now.Before(l.probeAt) && l.snd.next == 0:
		if err := l.number(frame.Flag, make([]byte, 4)); err != nil {
			l.end = err
		}
	}
}

// startDeadline is when watchStart has something to do, zero for never.
func (l *loop) startDeadline() time.Time {
	switch {
	case l.link == nil || l.started || l.hand.asked || l.end != nil || !l.strayDeadline().IsZero():
		return time.Time{}
	case !l.silentAt.IsZero():
		return l.silentAt
	case l.snd.next == 0:
		return l.probeAt
	}
	return time.Time{}
}

// watchAnswers tells when the agent begins or ceases to leave us without an
// acknowledgement for long.
func (l *loop) watchAnswers(now time.Time) {
	if l.link == nil || l.end != nil {
		l.unanswered = false // that is other news
		return
	}
	since := l.unansweredSince()
	late := !since.IsZero() && now.Sub(since) >= unansweredAfter
	if late == l.unanswered {
		return
	}
	l.unanswered = late
	if late {
		l.cfg.Notify(Notice{Kind: Unanswered, For: now.Sub(since)})
	} else {
		l.cfg.Notify(Notice{Kind: Answered})
	}
}

// unansweredSince is since when the agent has left something unacknowledged, zero for
// never. Time in which we leave the socket unread does not count: it may be in there.
func (l *loop) unansweredSince() time.Time {
	since := l.snd.unansweredSince()
	switch {
	case since.IsZero() || l.rcv.crowded():
		return time.Time{}
	case l.crowdedAt.After(since):
		return l.crowdedAt
	}
	return since
}

// noticeSleep finds out that this process, or the whole machine, did not run for a
// while: the timer is late, or the wall clock has gone on without the monotonic
// one. The link is not to be blamed for the silence then; what came meanwhile may
// wait to be read. But it is to prove itself soon.
func (l *loop) noticeSleep(now time.Time) {
	late := !l.wakeAt.IsZero() && now.Sub(l.wakeAt) > wakeGrace
	slept := !l.turnAt.IsZero() && now.Round(0).Sub(l.turnAt.Round(0))-now.Sub(l.turnAt) > wakeGrace
	l.turnAt = now
	if l.link == nil || !late && !slept {
		return
	}
	l.cfg.Log.Debug("woke up late")
	l.pingAt = now
	if !l.strayAt.IsZero() {
		l.strayAt = now
	}
	if limit := l.silence(); limit > wakeGrace {
		l.readAt = now.Add(wakeGrace - limit)
	}
}
