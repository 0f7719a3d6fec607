package agent

import (
	"bytes"
	"io"
	"sync"
)

// pairRoom is how many bytes one end of a pair may be ahead of the other: what a
// unix socket of Linux holds, which is what AWS's agent has in this place.
const pairRoom = 208 << 10

// newPair makes two ends of a connection in memory. Unlike those of net.Pipe they
// do not wait for each other at every write.
func newPair() (a, b *pairEnd) {
	one, other := newPairWay(), newPairWay()
	return &pairEnd{in: one, out: other}, &pairEnd{in: other, out: one}
}

// pairEnd is one end of a pair. It is an io.ReadWriteCloser for one reader and one
// writer.
type pairEnd struct{ in, out *pairWay }

// Read reads what the other end wrote; io.EOF once either is closed.
func (e *pairEnd) Read(p []byte) (int, error) { return e.in.read(p) }

// Write blocks while the other end is pairRoom behind.
func (e *pairEnd) Write(p []byte) (int, error) { return e.out.write(p) }

// Close closes both ends, which wakes whoever waits at one. What was not read is
// still there.
func (e *pairEnd) Close() error {
	e.in.close()
	e.out.close()
	return nil
}

// pairWay is one direction of a pair.
type pairWay struct {
	mu      sync.Mutex
	changed *sync.Cond
	data    bytes.Buffer
	closed  bool
}

func newPairWay() *pairWay {
	w := &pairWay{}
	w.changed = sync.NewCond(&w.mu)
	return w
}

func (w *pairWay) read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.data.Len() == 0 && !w.closed {
		w.changed.Wait()
	}
	n, err := w.data.Read(p)
	w.changed.Broadcast()
	return n, err
}

func (w *pairWay) write(p []byte) (written int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(p) > 0 {
		for w.data.Len() >= pairRoom && !w.closed {
			w.changed.Wait()
		}
		if w.closed {
			return written, io.ErrClosedPipe
		}
		n := min(len(p), pairRoom-w.data.Len())
		w.data.Write(p[:n]) // never fails
		written, p = written+n, p[n:]
		w.changed.Broadcast()
	}
	return written, nil
}

func (w *pairWay) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.changed.Broadcast()
}
