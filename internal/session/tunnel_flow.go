package session

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// The buffers of an upload: one that is small for the many connections that say
// little, then one that is large. When many have a large one, the next get half of
// it: a thousand connections at full speed take less memory for that, and the
// difference between two of them stays small.
const (
	smallRead  = 2 << 10
	mediumRead = 16 << 10
	largeRead  = 32 << 10
	manyReads  = 64
)

// linger is how long a local program may go on sending to a far side that has
// ended.
const linger = 5 * time.Second

// buffers spares the buffers of uploads that say much.
type buffers struct {
	lent          atomic.Int64
	large, medium sync.Pool
}

// lend gives a buffer, large while few are lent. It is to be given back.
func (b *buffers) lend() *[]byte {
	pool, size := &b.large, largeRead
	if b.lent.Add(1) > manyReads {
		pool, size = &b.medium, mediumRead
	}
	if p, ok := pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, size)
	return &p
}

// giveBack takes a buffer that was lent, or nil. What somebody may still hold is
// counted, and not lent again.
func (b *buffers) giveBack(p *[]byte, held bool) {
	if p == nil {
		return
	}
	b.lent.Add(-1)
	switch {
	case held:
	case len(*p) == largeRead:
		b.large.Put(p)
	default:
		b.medium.Put(p)
	}
}

// flow is the bytes of one local connection, both ways.
type flow struct {
	conn    net.Conn
	peer    Peer
	spare   *buffers
	gone    func() bool  // the local program has closed both ways
	in, out atomic.Int64 // bytes from and to the far side

	began time.Time
	last  atomic.Int64 // when the far side was last heard, in ns since began
	busy  atomic.Bool  // a Write is waiting for the local program
}

func newFlow(conn net.Conn, spare *buffers, peer Peer) *flow {
	return &flow{conn: conn, peer: peer, spare: spare, gone: goneOf(conn), began: time.Now()}
}

// leaver is a connection that knows whether the program at its other end has closed
// it altogether.
type leaver interface{ Gone() bool }

// goneOf asks a connection that; of one that does not know nobody has ever gone.
func goneOf(conn net.Conn) func() bool {
	if c, ok := conn.(leaver); ok {
		return c.Gone
	}
	return stays
}

func stays() bool { return false }

// settler is a Peer that knows whether all that was sent up to a mark has been
// acknowledged, over a connection that is there.
type settler interface {
	Sent() (mark int64)
	Settled(mark int64) bool
}

// arrivalOf gives what tells whether all that has been sent to a Peer until now has
// arrived. What goes to one that does not know has always arrived.
func arrivalOf(peer Peer) (arrived func() bool) {
	if p, ok := peer.(settler); ok {
		mark := p.Sent()
		return func() bool { return p.Settled(mark) }
	}
	return func() bool { return true }
}

func (f *flow) heard() { f.last.Store(int64(time.Since(f.began))) }

// Write gives the local program what came from the far side.
func (f *flow) Write(p []byte) (int, error) {
	f.busy.Store(true)
	n, err := f.conn.Write(p)
	f.in.Add(int64(n))
	f.heard()
	f.busy.Store(false)
	return n, err
}

// upload passes on what the local program writes, until its end-of-file, which
// gives nil; local tells that the error is the local connection's.
func (f *flow) upload(send func([]byte) error) (local bool, err error) {
	buf := make([]byte, smallRead)
	var lent *[]byte
	for {
		n, err := f.conn.Read(buf)
		if n > 0 {
			if err := send(buf[:n]); err != nil {
				f.spare.giveBack(lent, true) // who failed may still hold it
				return false, err
			}
			f.out.Add(int64(n))
			if n == len(buf) && lent == nil {
				lent = f.spare.lend()
				buf = *lent
			}
		}
		if err != nil {
			f.spare.giveBack(lent, false)
			if errors.Is(err, io.EOF) {
				return true, nil
			}
			return true, err
		}
	}
}

// silent waits until the far side has been silent for wait, from now on. Time in
// which it cannot have heard all that was sent until now, or is not heard because the
// local program does not read, does not count. It is false when ctx ends first, or when
// enough is true: that is asked soon, for a program is gone just after its end-of-file,
// and then ever more seldom. It rests in between, however short wait is.
func (f *flow) silent(ctx context.Context, wait time.Duration, enough func() bool) bool {
	const rest = time.Millisecond
	wait = max(wait, rest)
	f.heard()
	arrived := arrivalOf(f.peer)
	for pause := rest; ; pause = min(2*pause, max(rest, wait/8)) {
		left := wait - time.Since(f.began) + time.Duration(f.last.Load())
		if left <= 0 {
			return true
		}
		select {
		case <-time.After(min(left, pause)):
		case <-ctx.Done():
			return false
		}
		if enough() {
			return false
		}
		if f.busy.Load() || !arrived() {
			f.heard()
		}
	}
}

// endInput tells the local program that nothing more will come, and bounds how
// long it has for its own end. What it still sends is to be read until then and
// thrown away: closing at once would make a reset of it, and that would take from
// the program what it has not read.
func endInput(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(linger)); err != nil {
		return err
	}
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return conn.Close()
}

// event tells of f, with its counts.
func (f *flow) event(kind TunnelKind, err error) TunnelEvent {
	return TunnelEvent{Kind: kind, Conn: f.conn, In: f.in.Load(), Out: f.out.Load(), Err: err}
}
