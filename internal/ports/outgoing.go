package ports

import (
	"context"
	"io"
	"sync"
)

const (
	// queued is how much data may wait for conn, in bytes: two full frames, so
	// that one is filled while the other is sent. More would only make the
	// small wait longer behind the large.
	queued = 2 * maxFrame
	// keepBuffer is the largest buffer that is kept for the next batch.
	keepBuffer = 4 * maxFrame
)

// outgoing is what smux takes for its connection. Writes go to a queue that run
// hands to conn, as much at once as there is; reads are conn's. Data must be
// reserved before smux is given it, which is what bounds the queue: frames
// without data are 8 bytes each and always find room.
type outgoing struct {
	conn io.ReadWriteCloser
	more chan struct{} // holds a value when there is something for run
	done chan struct{} // closed once err is set

	mu     sync.Mutex // guards what follows
	err    error
	buf    []byte   // the queue
	data   int      // of the queue's bytes, those that were reserved
	free   int      // bytes that may still be reserved
	claims []*claim // who waits to reserve, first come first served
	pushed int64    // bytes ever queued
	sent   int64    // bytes ever handed to conn
	turned chan struct{}
}

// claim is a reservation that waits. granted is closed when it is made.
type claim struct {
	n       int
	granted chan struct{}
	gone    bool
}

func newOutgoing(conn io.ReadWriteCloser) *outgoing {
	return &outgoing{
		conn: conn,
		more: make(chan struct{}, 1),
		done: make(chan struct{}),
		free: queued,
	}
}

// Read is conn's.
func (o *outgoing) Read(p []byte) (int, error) { return o.conn.Read(p) }

// Write queues p.
func (o *outgoing) Write(p []byte) (int, error) { return o.WriteBuffers([][]byte{p}) }

// WriteBuffers queues one frame, its header and its data. smux looks for it, and
// spares a copy.
func (o *outgoing) WriteBuffers(v [][]byte) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	for i, p := range v {
		o.buf = append(o.buf, p...)
		n += len(p)
		if i > 0 {
			o.data += len(p)
		}
	}
	o.pushed += int64(n)
	select {
	case o.more <- struct{}{}:
	default: // run knows
	}
	return n, nil
}

// Close ends everything.
func (o *outgoing) Close() error {
	o.fail(ErrMuxClosed)
	return o.conn.Close()
}

// run hands the queue to conn, until either end.
func (o *outgoing) run() {
	var batch []byte
	for {
		select {
		case <-o.more:
		case <-o.done:
			return
		}
		o.mu.Lock()
		batch, o.buf = o.buf, batch[:0]
		data := o.data
		o.data = 0
		o.mu.Unlock()
		if _, err := o.conn.Write(batch); err != nil {
			o.fail(err)
			return
		}
		o.handed(len(batch), data)
		if cap(batch) > keepBuffer {
			batch = nil
		}
	}
}

// handed notes that n bytes of the queue, data of them reserved, are conn's.
func (o *outgoing) handed(n, data int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent += int64(n)
	if o.turned != nil {
		close(o.turned)
		o.turned = nil
	}
	o.releaseLocked(data)
}

// fail ends the queue, for the first reason that is given.
func (o *outgoing) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
		close(o.done)
	}
}

func (o *outgoing) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// reserve waits for room for n bytes, at most queued, until the queue's end or
// that of cancelled.
func (o *outgoing) reserve(n int, cancelled <-chan struct{}) error {
	o.mu.Lock()
	if o.err != nil {
		defer o.mu.Unlock()
		return o.err
	}
	if len(o.claims) == 0 && o.free >= n {
		o.free -= n
		o.mu.Unlock()
		return nil
	}
	c := &claim{n: n, granted: make(chan struct{})}
	o.claims = append(o.claims, c)
	o.mu.Unlock()

	var err error
	select {
	case <-c.granted:
		return nil
	case <-o.done:
		return o.failure()
	case <-cancelled:
		err = io.ErrClosedPipe
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case <-c.granted: // at the same time
		o.releaseLocked(n)
	default:
		c.gone = true
		o.releaseLocked(0) // it may have been in another's way
	}
	return err
}

// release gives back what was reserved and not queued.
func (o *outgoing) release(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.releaseLocked(n)
}

func (o *outgoing) releaseLocked(n int) {
	o.free += n
	for len(o.claims) > 0 && (o.claims[0].gone || o.free >= o.claims[0].n) {
		c := o.claims[0]
		o.claims[0] = nil
		if o.claims = o.claims[1:]; !c.gone {
			o.free -= c.n
			close(c.granted)
		}
	}
}

// flush waits until what is queued now is conn's.
func (o *outgoing) flush(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for mark := o.pushed; o.sent < mark; {
		if o.err != nil {
			return o.err
		}
		if o.turned == nil {
			o.turned = make(chan struct{})
		}
		turned := o.turned
		o.mu.Unlock()
		select {
		case <-turned:
		case <-o.done:
		case <-ctx.Done():
			o.mu.Lock()
			return context.Cause(ctx)
		}
		o.mu.Lock()
	}
	return nil
}
