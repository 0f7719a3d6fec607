package stream

import (
	"sync"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Socket is one websocket, carrying whole messages in batches. Any error is
// final. What DialWebSocket gives is the real one; streamtest has one in memory.
type Socket interface {
	// Receive reads until the socket ends and returns why. It hands over
	// everything that has arrived as one batch whenever it would have to
	// wait for more, and goes on with the empty batch that deliver returns;
	// nil from deliver ends it.
	Receive(deliver func(*frame.Batch) *frame.Batch) error
	// Send writes all messages of a batch with one flush.
	Send(*frame.Batch) error
	// Close drops the connection and unblocks both.
	Close() error
}

const (
	readBatches = 3 // one being read into, one on its way, one with the loop
	keepBuffer  = 128 << 10
)

// link is one socket with its two goroutines. The loop owns it: it takes from
// in, done, lost and mute, gives to out and free, and calls close.
type link struct {
	sock Socket
	in   chan *frame.Batch // reader to loop
	free chan *frame.Batch // loop to reader: spent
	out  chan *frame.Batch // loop to writer
	done chan *frame.Batch // writer to loop: written
	lost chan error        // the reader's end, after the last batch was taken from in
	mute chan error        // the writer's end: nothing more goes out, but something may still come in
	stop chan struct{}
	wg   sync.WaitGroup
}

func newLink(sock Socket) *link {
	l := &link{
		sock: sock,
		in:   make(chan *frame.Batch),
		free: make(chan *frame.Batch, readBatches),
		out:  make(chan *frame.Batch),
		done: make(chan *frame.Batch, 2),
		lost: make(chan error, 1),
		mute: make(chan error, 1),
		stop: make(chan struct{}),
	}
	for range readBatches {
		l.free <- &frame.Batch{}
	}
	l.wg.Go(l.read)
	l.wg.Go(l.write)
	return l
}

func (l *link) read() { l.lost <- l.receive() }

func (l *link) receive() (err error) {
	defer crash.Catch(&err)
	return l.sock.Receive(func(full *frame.Batch) *frame.Batch {
		if full != nil {
			select {
			case l.in <- full:
			case <-l.stop:
				return nil
			}
		}
		select {
		case b := <-l.free:
			b.Reset(keepBuffer)
			return b
		case <-l.stop:
			return nil
		}
	})
}

func (l *link) write() {
	for {
		select {
		case b := <-l.out:
			if err := l.send(b); err != nil {
				l.mute <- err
				return
			}
			l.done <- b
		case <-l.stop:
			return
		}
	}
}

func (l *link) send(b *frame.Batch) (err error) {
	defer crash.Catch(&err)
	return l.sock.Send(b)
}

// close ends the socket and waits for both goroutines.
func (l *link) close() {
	close(l.stop)
	// The connection is of no use any more, whatever closing it says.
	_ = l.sock.Close()
	l.wg.Wait()
}
