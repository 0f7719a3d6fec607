package stream

import (
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// The bounds of what is kept for a caller that does not read. The garbage
// collector lets a heap double, so the sum stays well under the 16 MB that an
// evil far end may cost.
const (
	maxReady     = 4 << 20 // bytes in order, waiting for Recv
	crowded      = 2 << 20 // bytes from which on the socket is read only now and then
	maxEarly     = 4 << 20 // bytes out of order: seconds of what an agent sends while it repeats one message
	maxEarlySpan = 1 << 14 // messages beyond the expected one
	messageCost  = 128     // bytes counted for a message on top of its payload
	chunkBytes   = 32 << 10
	spareChunks  = crowded / chunkBytes
)

// chunk is what Recv hands out: one message, or neighbouring messages of a
// byte stream as one piece.
type chunk struct {
	typ frame.PayloadType
	buf []byte
}

// receiver owns what came from the agent: order, bounds, and which messages to
// acknowledge. It is pure. To acknowledge is to promise: what is acknowledged
// is kept until it was handed to the caller.
type receiver struct {
	expected int64
	// deliver takes the messages in order, each once.
	deliver func(typ frame.PayloadType, payload []byte)

	ready      []*chunk // a queue
	readyBytes int
	early      map[int64]chunk
	earlyBytes int
	spare      []*chunk // spent, of full size

	bytes int64 // payload bytes delivered
}

func newReceiver() *receiver { return &receiver{early: make(map[int64]chunk)} }

// accept takes one output_stream_data message and tells whether to acknowledge
// it. A repeated one is acknowledged again: its acknowledgement may have been
// lost, and the agent repeats only its oldest message, so that it would go on
// for ever. One that does not fit is left to be repeated.
func (r *receiver) accept(m *frame.Message) (ack bool) {
	switch {
	case m.Sequence < r.expected:
		return true
	case m.Sequence > r.expected:
		return r.keepEarly(m)
	case r.readyBytes >= maxReady:
		return false
	}
	r.inOrder(m.PayloadType, m.Payload)
	for len(r.early) > 0 {
		c, ok := r.early[r.expected]
		if !ok {
			break
		}
		delete(r.early, r.expected)
		r.earlyBytes -= len(c.buf) + messageCost
		r.inOrder(c.typ, c.buf)
	}
	return true
}

func (r *receiver) inOrder(typ frame.PayloadType, payload []byte) {
	r.expected++
	r.bytes += int64(len(payload))
	r.deliver(typ, payload)
}

func (r *receiver) keepEarly(m *frame.Message) bool {
	if _, ok := r.early[m.Sequence]; ok {
		return true
	}
	cost := len(m.Payload) + messageCost
	if m.Sequence-r.expected > maxEarlySpan || r.earlyBytes+cost > maxEarly {
		return false
	}
	r.early[m.Sequence] = chunk{m.PayloadType, append([]byte(nil), m.Payload...)}
	r.earlyBytes += cost
	return true
}

// queue keeps payload for the caller. Output and StdErr are byte streams:
// neighbours of one type become one chunk, so that a burst of 1 kB messages is
// one write to a terminal or a pipe. Every other type keeps its borders.
func (r *receiver) queue(typ frame.PayloadType, payload []byte) {
	stream := typ == frame.Output || typ == frame.StdErr
	if n := len(r.ready); stream && n > 0 {
		tail := r.ready[n-1]
		if tail.typ == typ && len(tail.buf)+len(payload) <= chunkBytes {
			before := cap(tail.buf)
			tail.buf = append(tail.buf, payload...)
			r.readyBytes += cap(tail.buf) - before
			return
		}
	}
	c := &chunk{}
	if n := len(r.spare); stream && n > 0 {
		c, r.spare = r.spare[n-1], r.spare[:n-1]
	}
	c.typ = typ
	c.buf = append(c.buf[:0], payload...)
	r.readyBytes += cap(c.buf) + messageCost
	r.ready = append(r.ready, c)
}

// head is the next chunk for the caller, nil when there is none.
func (r *receiver) head() *chunk {
	if len(r.ready) == 0 {
		return nil
	}
	return r.ready[0]
}

// pop takes the head off the queue: it is the caller's now.
func (r *receiver) pop() {
	r.readyBytes -= cap(r.ready[0].buf) + messageCost
	r.ready[0] = nil
	r.ready = r.ready[1:]
	if len(r.ready) == 0 {
		r.ready = r.ready[:0:cap(r.ready)]
	}
}

// reuse takes back a chunk that the caller is done with.
func (r *receiver) reuse(c *chunk) {
	if cap(c.buf) >= chunkBytes/2 && len(r.spare) < spareChunks {
		r.spare = append(r.spare, c)
	}
}

// crowded tells whether so much waits for the caller that the socket should be
// left to fill up: the far end then feels a slow reader as TCP lets it feel
// one, instead of sending what would be refused.
func (r *receiver) crowded() bool { return r.readyBytes >= crowded }

// gap tells whether messages are kept that an earlier, missing one holds up.
func (r *receiver) gap() bool { return len(r.early) > 0 }
