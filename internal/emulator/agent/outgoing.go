package agent

import "time"

// Limits of the buffer of sent messages.
const (
	outgoingCapacity = 100_000 // messages
	keptFree         = 1024    // entries kept for reuse
)

// sent is a message that has not been acknowledged.
type sent struct {
	sequence   int64
	message    []byte
	at         time.Time // when it was last sent
	prev, next *sent
}

// outgoing holds the messages that are not acknowledged, in the order they were
// first sent. An acknowledgement retires one message, any; only the front is
// ever repeated. It is pure: no clock, no lock, no socket.
type outgoing struct {
	entries     map[int64]*sent
	front, back *sent
	free        []*sent
}

// entry gives an entry to encode a message in.
func (o *outgoing) entry() *sent {
	if n := len(o.free); n > 0 {
		s := o.free[n-1]
		o.free = o.free[:n-1]
		return s
	}
	return &sent{}
}

// release takes an entry back for reuse.
func (o *outgoing) release(s *sent) {
	if len(o.free) < keptFree {
		o.free = append(o.free, s)
	}
}

// record adds s at the back and tells whether there was room: the agent sends
// what finds no room all the same, and never again.
func (o *outgoing) record(s *sent) bool {
	if len(o.entries) >= outgoingCapacity {
		return false
	}
	if o.entries == nil {
		o.entries = make(map[int64]*sent)
	}
	o.entries[s.sequence] = s
	s.prev, s.next = o.back, nil
	if o.back == nil {
		o.front = s
	} else {
		o.back.next = s
	}
	o.back = s
	return true
}

// retire removes the message with a sequence number and tells when it was last
// sent.
func (o *outgoing) retire(sequence int64) (at time.Time, ok bool) {
	s, ok := o.entries[sequence]
	if !ok {
		return time.Time{}, false
	}
	delete(o.entries, sequence)
	if s.prev == nil {
		o.front = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		o.back = s.prev
	} else {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
	o.release(s)
	return s.at, true
}
