package stream

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// The constants of retransmission (docs/protocol.md, "Retransmission"). The
// smoothing is AWS's own, but that the first measurement counts as it is; the floor
// keeps a quick loopback from repeating what is only waiting for a busy processor,
// and the ceiling is higher than AWS's because every timeout here doubles (Karn).
const (
	initialRTT    = 100 * time.Millisecond
	initialRTO    = 200 * time.Millisecond
	minRTO        = 200 * time.Millisecond
	maxRTO        = 4 * time.Second
	rttGranule    = 10 * time.Millisecond
	reorderWindow = 3 // later messages acknowledged before an earlier one counts as lost
)

// The bounds of what is under way.
const (
	maxPayload    = 1024    // bytes in one message; larger ones get a client thrown out
	minWindow     = 8 << 10 // bytes; the window after the service asked for a pause
	maxSpan       = 1 << 15 // messages from the oldest unacknowledged one to the newest
	pauseAtMost   = 5 * time.Second
	maxBatchBytes = 32 << 10 // what goes to the socket in one piece
)

// outgoing is one sequenced message from the moment it has a number until it is
// acknowledged and nothing older is open.
type outgoing struct {
	wire   []byte    // encoded once: a repetition is identical (same id, same date)
	size   int       // bytes of payload
	behind int64     // what its owner counts: pieces that came before it
	sentAt time.Time // last transmission
	waits  time.Time // since when an answer is due: first transmission on this link
	order  int64     // how many transmissions there were before this one's last
	tries  int
	due    bool // waits to be written, for the first time or again
	acked  bool
}

// sender owns what goes to the agent: numbers, window, retransmission, pacing.
// It is pure.
type sender struct {
	limit    int // bytes: the window's upper bound
	window   int // bytes: the window now
	inflight int // bytes numbered and not acknowledged
	pace     *rate.Limiter

	next        int64       // next sequence number
	open        []*outgoing // numbers next-len(open) to next-1
	firstDue    int         // no entry of open before this one is due
	free        []*outgoing // spent entries, for reuse
	transmitted int64       // transmissions so far
	ackedOrder  int64       // highest order among what was acknowledged

	srtt, rttvar, rto time.Duration
	sampled           bool // srtt is measured, not assumed
	pausedUntil       time.Time
	aliveSince        time.Time // when the agent last acknowledged something
	agentSeen         bool      // something has come from the agent

	retransmissions int64
}

func newSender(window, messagesPerSecond int) *sender {
	s := &sender{limit: window, window: window, srtt: initialRTT, rto: initialRTO, ackedOrder: -1}
	if messagesPerSecond > 0 {
		// The burst is small enough that any one second stays under the
		// 1000 messages at which the service pushes back.
		s.pace = rate.NewLimiter(rate.Limit(messagesPerSecond), max(1, messagesPerSecond/16))
	}
	return s
}

// room is how many bytes of payload may be pushed now.
func (s *sender) room() int {
	if len(s.open) >= maxSpan {
		return 0
	}
	return max(0, s.window-s.inflight)
}

// push numbers one message, behind so many pieces, and makes it due. encode gets the
// number and appends the wire form.
func (s *sender) push(size int, behind int64, encode func(wire []byte, sequence int64) ([]byte, error)) error {
	m := &outgoing{}
	if n := len(s.free); n > 0 {
		m, s.free = s.free[n-1], s.free[:n-1]
	}
	wire, err := encode(m.wire[:0], s.next)
	if err != nil {
		return err
	}
	*m = outgoing{wire: wire, size: size, behind: behind, due: true}
	s.next++
	s.inflight += size
	s.open = append(s.open, m)
	return nil
}

// acked takes one acknowledgement. Only the number counts, and it retires
// exactly one message; one that was never sent, or came twice, changes nothing.
func (s *sender) acked(now time.Time, sequence int64) {
	s.resume()
	s.agentSeen = true
	first := s.next - int64(len(s.open))
	if sequence < first || sequence >= s.next {
		return
	}
	m := s.open[sequence-first]
	if m.acked || m.tries == 0 {
		return
	}
	m.acked, m.due = true, false
	s.aliveSince = now
	s.inflight -= m.size
	s.window = min(s.limit, s.window+m.size)
	s.ackedOrder = max(s.ackedOrder, m.order)
	if m.tries == 1 { // Karn: a repeated message tells nothing of the round trip
		s.sample(now.Sub(m.sentAt))
	}
	s.retire()
	s.findLost()
}

func (s *sender) sample(rtt time.Duration) {
	if s.sampled {
		s.rttvar += (max(s.srtt-rtt, rtt-s.srtt) - s.rttvar) / 4
		s.srtt += (rtt - s.srtt) / 8
	} else {
		s.sampled = true
		s.srtt, s.rttvar = rtt, rtt/2
	}
	s.resetRTO()
}

// resetRTO takes back the doublings of the timeout.
func (s *sender) resetRTO() {
	s.rto = min(maxRTO, max(minRTO, s.srtt+max(rttGranule, 4*s.rttvar)))
}

// retire drops the acknowledged messages at the head.
func (s *sender) retire() {
	n := 0
	for n < len(s.open) && s.open[n].acked {
		if len(s.free) < maxBatchBytes/maxPayload {
			s.free = append(s.free, s.open[n])
		}
		s.open[n] = nil
		n++
	}
	s.open = s.open[n:]
	s.firstDue = max(0, s.firstDue-n)
	if len(s.open) == 0 {
		s.open = s.open[:0:cap(s.open)]
	}
}

// findLost makes due what was overtaken: when a message that was transmitted
// well after another is acknowledged first, the other is gone. Acknowledgements
// are selective, so this repairs a loss in one round trip.
func (s *sender) findLost() {
	for i, m := range s.open {
		if m.tries == 0 || m.order+reorderWindow > s.ackedOrder {
			return // unsent, and so is all that follows; or too young to tell
		}
		if !m.acked && !m.due {
			m.due = true
			s.firstDue = min(s.firstDue, i)
		}
	}
}

// fill appends to b all that is due and allowed now.
func (s *sender) fill(now time.Time, b *frame.Batch) {
	if now.Before(s.pausedUntil) {
		return
	}
	s.expire(now)
	for s.firstDue < len(s.open) && b.Size() < maxBatchBytes {
		m := s.open[s.firstDue]
		if m.due {
			if s.pace != nil && !s.pace.AllowN(now, 1) {
				return
			}
			if m.tries > 0 {
				s.retransmissions++
			}
			if m.waits.IsZero() {
				m.waits = now
			}
			b.Add(frame.Binary, m.wire)
			m.due, m.sentAt, m.order = false, now, s.transmitted
			m.tries++
			s.transmitted++
		}
		s.firstDue++
	}
}

// expire makes the oldest message due again when its time is up, and doubles
// the timeout, once it is known that there is an agent: a size has to reach one
// that is just starting its program as soon as it can take it. Only the oldest:
// what follows it is repeated when it is known to be lost, not because something
// before it is.
func (s *sender) expire(now time.Time) {
	m := s.oldest()
	if m == nil || m.due || now.Before(m.sentAt.Add(s.rto)) {
		return
	}
	m.due = true
	s.firstDue = 0
	if s.agentSeen {
		s.rto = min(maxRTO, 2*s.rto)
	}
}

// oldest is the oldest message that is not acknowledged, which is the head.
func (s *sender) oldest() *outgoing {
	if len(s.open) == 0 {
		return nil
	}
	return s.open[0]
}

// deadline is when fill wants to be called next, given that it was just called
// and a batch had room; zero for never.
func (s *sender) deadline(now time.Time) time.Time {
	m := s.oldest()
	if m == nil {
		return time.Time{}
	}
	if now.Before(s.pausedUntil) {
		return s.pausedUntil
	}
	var next time.Time
	if s.firstDue < len(s.open) && s.pace != nil {
		missing := 1 - s.pace.TokensAt(now)
		next = now.Add(time.Duration(missing / float64(s.pace.Limit()) * float64(time.Second)))
	}
	if !m.due {
		next = earlier(next, m.sentAt.Add(s.rto))
	}
	return next
}

// pause stops data at the service's word until something shows that the agent
// is there, or a bounded time; afterwards it goes on with a small window.
func (s *sender) pause(now time.Time) {
	s.pausedUntil = now.Add(pauseAtMost)
	s.window = max(min(minWindow, s.limit), s.window/4)
}

// resume lifts a pause.
func (s *sender) resume() { s.pausedUntil = time.Time{} }

// relink makes everything unacknowledged due again, in order, on a new socket.
func (s *sender) relink() {
	for _, m := range s.open {
		m.due, m.order, m.waits = !m.acked, 0, time.Time{}
	}
	s.firstDue, s.transmitted, s.ackedOrder = 0, 0, -1
	s.resetRTO()
	s.resume()
}

// unansweredSince is since when the agent has left something unacknowledged on
// this link; zero when nothing is open.
func (s *sender) unansweredSince() time.Time {
	m := s.oldest()
	if m == nil || m.waits.IsZero() {
		return time.Time{}
	}
	if s.aliveSince.After(m.waits) {
		return s.aliveSince
	}
	return m.waits
}

// empty tells whether everything is acknowledged.
func (s *sender) empty() bool { return len(s.open) == 0 }

// earlier is the earlier of two deadlines, where zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
