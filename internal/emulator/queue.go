package emulator

import (
	"context"
	"errors"
	"sync"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// errQueueClosed says that nobody takes the messages of a queue any more.
var errQueueClosed = errors.New("queue is closed")

// queue is one direction of a leg: whole messages in order, bounded in bytes.
// Putting blocks while it is full, which is the backpressure that a TCP
// connection would give; taking takes all there is, so that a burst costs one
// switch of goroutines and one write. Any number may put, one takes.
//
// It is a lock beside channels, not a channel of messages: it is bounded in bytes,
// it copies into buffers that are used again, and who waits is woken by a context.
type queue struct {
	limit int
	ready chan struct{} // holds a token when messages went into an empty queue
	room  chan struct{} // holds a token when messages were taken
	done  chan struct{} // closed by close

	mu     sync.Mutex // guards the rest
	batch  frame.Batch
	closed bool
}

// newQueue makes a queue of some bytes.
func newQueue(limit int) *queue {
	return &queue{
		limit: limit,
		ready: make(chan struct{}, 1),
		room:  make(chan struct{}, 1),
		done:  make(chan struct{}),
	}
}

// put copies a message in, waiting for room. The error is errQueueClosed or the
// cause of ctx.
func (q *queue) put(ctx context.Context, kind frame.Kind, message []byte) error {
	for waited := false; ; waited = true {
		if taken, err := q.tryPut(kind, message); taken || err != nil {
			if waited {
				signal(q.room) // there may be room for another one that waits
			}
			return err
		}
		select {
		case <-q.room:
		case <-q.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tryPut is put without waiting: it tells whether there was room. A message larger
// than the limit has room in an empty queue.
func (q *queue) tryPut(kind frame.Kind, message []byte) (taken bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false, errQueueClosed
	}
	if q.batch.Len() > 0 && q.batch.Size()+len(message) > q.limit {
		return false, nil
	}
	q.add(kind, message)
	return true, nil
}

// force copies a message in, room or not: for the few that the gateway itself
// originates. A closed queue drops it.
func (q *queue) force(message []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.add(frame.Binary, message)
	}
}

// add puts a message into the batch. The taker takes all, so it needs waking for the
// first one only.
func (q *queue) add(kind frame.Kind, message []byte) {
	q.batch.Add(kind, message)
	if q.batch.Len() == 1 {
		signal(q.ready)
	}
}

// take waits until there are messages and swaps them all into b, whose own are
// dropped. What was put before close is still taken; then the error is
// errQueueClosed. Otherwise it is the cause of ctx.
func (q *queue) take(ctx context.Context, b *frame.Batch) error {
	b.Reset(2 * q.limit)
	for {
		q.mu.Lock()
		q.batch, *b = *b, q.batch
		closed := q.closed
		q.mu.Unlock()
		if b.Len() > 0 {
			signal(q.room)
			return nil
		}
		if closed {
			return errQueueClosed
		}
		select {
		case <-q.ready:
		case <-q.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// close ends the queue: nothing more goes in, and everybody who waits wakes up.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.done)
	}
}

// discard closes the queue and lets go of what is in it.
func (q *queue) discard() {
	q.close()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.batch = frame.Batch{}
}

// signal leaves a token in c, for one who waits for it now or later.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // a token is there already
	}
}
