package emulator

import (
	"context"
	"errors"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// The service's limit on a client, as seen from outside: above a thousand data
// messages a second it pauses the session, and soon cuts the socket of a client
// that goes on (docs/protocol.md, "Rates"). Played only at Pace real.
// How soon is not known; a second's worth more is our choice, so that a client that
// heeds the pause can have its whole window on the way.
const (
	rateLimit  = 1000 // messages within any second
	rateExcess = 1000 // messages after the pause that are still taken
	ratePause  = time.Second
)

// meter counts a client's data messages, over a second that slides. It is told the
// time, and decides; what is done about it is the session's.
type meter struct {
	recent []time.Time // when the last ones came, a ring
	next   int
	paused bool
	excess int
}

// verdict is what a meter says of one message.
type verdict int

// The verdicts.
const (
	rateKept     verdict = iota
	rateExceeded         // just now: pause
	rateIgnored          // paused, and it went on: cut
)

// count counts one message that comes now.
func (m *meter) count(now time.Time) verdict {
	if m.paused {
		m.excess++
		if m.excess > rateExcess {
			return rateIgnored
		}
		return rateKept
	}
	if m.recent == nil {
		m.recent = make([]time.Time, rateLimit)
	}
	oldest := m.recent[m.next]
	m.recent[m.next] = now
	m.next = (m.next + 1) % rateLimit
	if now.Sub(oldest) >= time.Second {
		return rateKept
	}
	m.paused = true
	return rateExceeded
}

// errRate ends the socket of a client that goes on after a pause.
var errRate = errors.New("client sends more than the service takes")

// fromClient is what reading a leg delivers to: the relay, behind the limit if that
// is played.
func (s *session) fromClient(l *leg) func(context.Context, []byte) error {
	return func(ctx context.Context, message []byte) error {
		if s.rateLimited && isType(message, frame.InputStreamData) && !s.withinRate(l) {
			return errRate
		}
		return s.relayToAgent(ctx, l, message)
	}
}

// withinRate counts a data message of a leg and pauses both ends if it is the one
// too many. It is false when the socket is to be cut.
func (s *session) withinRate(l *leg) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.meter.count(time.Now()) {
	case rateExceeded:
		l.out.force(publication(frame.PausePublication))
		s.toAgent.force(publication(frame.PausePublication))
		signal(s.overRate)
	case rateIgnored:
		return false
	case rateKept:
	}
	return true
}

// liftPause goes on after a pause for the rate. A client that is paused sends
// nothing, so nothing but time can lift it.
func (s *session) liftPause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.meter.paused {
		return // another leg came meanwhile
	}
	s.meter = meter{}
	if s.leg != nil {
		s.leg.out.force(publication(frame.StartPublication))
		s.toAgent.force(publication(frame.StartPublication))
	}
}
