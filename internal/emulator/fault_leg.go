package emulator

import (
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// cutLimit is how long what was relayed before a cut may take to leave, and then
// how long a client that got a close frame may take to go.
const cutLimit = time.Second

// legFaults is what faults have done to one socket of a client, and the count by
// which some of them come.
type legFaults struct {
	cut    chan struct{} // closed when the socket is being cut
	frozen chan struct{} // closed when it is half-open

	mu      sync.Mutex // guards the rest, and the closing
	set     *faultSet  // that relayed is counted for
	relayed int
	ending  Ending
}

// closed tells whether a channel that only closes has.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// takesNothing tells whether what the client sends is not taken any more.
func (l *leg) takesNothing() bool { return closed(l.faults.cut) || closed(l.faults.frozen) }

// cut takes no more for the leg, lets go what was relayed before, and has the socket
// ended as ordered. sever does the rest.
func (l *leg) cut(ending Ending) {
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	if closed(l.faults.cut) {
		return
	}
	l.faults.ending = ending
	close(l.faults.cut)
	l.out.close()
}

// ending is how the leg's half of the socket is to be closed.
func (l *leg) ending() Ending {
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	return l.faults.ending
}

// freeze makes the leg half-open.
func (l *leg) freeze() {
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	if !closed(l.faults.frozen) {
		close(l.faults.frozen)
	}
}

// sever ends a leg that was cut. A client that does not read, or does not answer a
// close frame, is not waited for long.
func (l *leg) sever() {
	select {
	case <-l.written:
	case <-time.After(cutLimit):
	case <-l.ctx.Done():
	}
	if l.ending() == EndClose {
		select {
		case <-time.After(cutLimit):
		case <-l.ctx.Done():
		}
	}
	l.close()
}

// count counts a message that was relayed on a leg, either way, and makes the faults
// happen that come after so many.
func (s *session) count(l *leg, set *faultSet) {
	l.faults.mu.Lock()
	if l.faults.set != set {
		l.faults.set, l.faults.relayed = set, 0
	}
	l.faults.relayed++
	relayed := l.faults.relayed
	l.faults.mu.Unlock()
	for i, f := range set.faults {
		if f.Messages == relayed && f.ofSockets() && set.allowed(i, s.id) {
			s.strike(l, f)
		}
	}
}

// ofSockets tells whether the fault is one that happens to a leg as a whole.
func (f Fault) ofSockets() bool {
	return f.Kind == FaultCut || f.Kind == FaultHalfOpen || f.Kind == FaultPause
}

// strike makes a fault happen to a leg.
func (s *session) strike(l *leg, f Fault) {
	s.log.Info("fault", "session", s.id, "fault", f)
	switch f.Kind {
	case FaultCut:
		l.cut(f.Ending)
	case FaultHalfOpen:
		l.freeze()
	case FaultPause:
		s.publish(l, f, frame.PausePublication)
	default: // not of sockets
	}
}

// publish sends a message of the service both ways, or one.
func (s *session) publish(l *leg, f Fault, t frame.MessageType) {
	if f.goes(ToClient) {
		l.out.force(publication(t))
	}
	if f.goes(ToAgent) {
		s.toAgent.force(publication(t))
	}
}

// watchFaults makes the faults of a leg happen that come after a time, until the leg
// is closed. When other faults are set it begins anew with those.
func (s *session) watchFaults(l *leg) {
	opened := time.Now()
	for {
		set, changed := s.faults.watch()
		if !s.awaitFaults(l, set, opened, changed) {
			return
		}
	}
}

// legEvent is something that is to happen to a leg.
type legEvent struct {
	at    time.Time
	fault int
	lifts bool // a pause ends
}

// legEvents are the faults of sockets that come after a time, also after none.
func legEvents(set *faultSet, opened time.Time) []legEvent {
	var events []legEvent
	for i, f := range set.all() {
		if !f.ofSockets() || f.Messages > 0 {
			continue
		}
		from := set.since
		if opened.After(from) {
			from = opened
		}
		events = append(events, legEvent{at: from.Add(f.After), fault: i})
	}
	return events
}

// awaitFaults is watchFaults for one set. It is true when the set has changed.
func (s *session) awaitFaults(l *leg, set *faultSet, opened time.Time, changed <-chan struct{}) bool {
	events := legEvents(set, opened)
	for {
		next, timer := nextEvent(events)
		select {
		case <-timer:
			event := events[next]
			f := set.faults[event.fault]
			events = append(events[:next], events[next+1:]...)
			switch {
			case event.lifts:
				s.publish(l, f, frame.StartPublication)
			case set.allowed(event.fault, s.id):
				s.strike(l, f)
				if f.Kind == FaultPause {
					events = append(events, legEvent{at: event.at.Add(f.For), fault: event.fault, lifts: true})
				}
			}
		case <-l.faults.cut:
			l.sever()
			return false
		case <-l.ctx.Done():
			return false
		case <-changed:
			for _, event := range events {
				if event.lifts {
					s.publish(l, set.faults[event.fault], frame.StartPublication)
				}
			}
			return true
		}
	}
}

// nextEvent finds the first of the events, and what fires at its time.
func nextEvent(events []legEvent) (next int, timer <-chan time.Time) {
	if len(events) == 0 {
		return 0, nil
	}
	for i := range events {
		if events[i].at.Before(events[next].at) {
			next = i
		}
	}
	return next, time.After(time.Until(events[next].at))
}

// refuse answers a dial that is to be refused: with a status, or by closing the
// connection.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request) bool {
	id := r.PathValue("session")
	f, happens := s.faultFor(FaultRefuse, id)
	if !happens {
		return false
	}
	s.log.Info("fault", "session", id, "fault", f)
	if f.Status != 0 {
		http.Error(w, "refused on order", f.Status)
		return true
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		err = conn.Close()
		s.lobby.admit(r)
	}
	if err != nil {
		s.log.Debug("connection not closed", "error", err)
	}
	return true
}

// Read reads as slowly as a fault has it, and nothing from a half-open connection.
func (c *corkConn) Read(p []byte) (int, error) {
	rate := c.faults.get().rate(ToAgent)
	n, err := c.Conn.Read(p[:slowly(len(p), rate)])
	if closed(c.frozen) {
		<-c.gone
		return 0, net.ErrClosed
	}
	c.pace(n, rate)
	return n, err
}

// send writes p as slowly as a fault has it, and nothing to a half-open connection.
func (c *corkConn) send(p []byte) error {
	for len(p) > 0 {
		if closed(c.frozen) {
			<-c.gone
			return net.ErrClosed
		}
		rate := c.faults.get().rate(ToClient)
		n, err := c.Conn.Write(p[:slowly(len(p), rate)])
		if err != nil {
			return err
		}
		c.pace(n, rate)
		p = p[n:]
	}
	return nil
}

// slowSlice is how long a slow connection may be busy at a time.
const slowSlice = 50 * time.Millisecond

// slowly is how many of n bytes go at a time at a rate; all without one.
func slowly(n, rate int) int {
	if rate == 0 {
		return n
	}
	return min(n, max(1, int(int64(rate)*int64(slowSlice)/int64(time.Second))))
}

// pace waits for as long as n bytes take at a rate, or until the connection is
// closed.
func (c *corkConn) pace(n, rate int) {
	if rate == 0 || n == 0 {
		return
	}
	select {
	case <-time.After(time.Duration(n) * time.Second / time.Duration(rate)):
	case <-c.gone:
	}
}
