package emulator

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Bounds of a leg, in bytes. What is on the way to a client when its socket is cut
// is lost, and comes again only at the agent's ten messages a second: so little is
// kept there, though enough for a burst to cost few writes.
const (
	toClientLimit = 64 << 10  // messages that wait for a client that reads slowly
	sendBuffer    = 64 << 10  // the kernel's
	flushSize     = 64 << 10  // gathered in one write
	openLimit     = 16 << 10  // the opening of a client; real ones have half a KiB
	messageLimit  = 256 << 10 // one message of a client; real ones send up to 32 KiB
	readBuffer    = 32 << 10  // of the websocket library
	writeBuffer   = 4 << 10   // of the websocket library
)

// leg is one websocket of a client. One goroutine reads it (open, then read), one
// writes it (write); close ends both. The reader never writes, so that a client
// that does not read cannot keep its messages from being read, its pings included.
type leg struct {
	conn *websocket.Conn
	cork *corkConn
	out  *queue
	ctx  context.Context // ends when the leg is closed
	end  context.CancelFunc
	done chan struct{} // closed when both goroutines have ended

	written chan struct{} // closed when the writer has ended
	faults  legFaults
}

// newLeg makes the leg of an upgraded connection.
func newLeg(conn *websocket.Conn, cork *corkConn) *leg {
	l := &leg{conn: conn, cork: cork, out: newQueue(toClientLimit), done: make(chan struct{}), written: make(chan struct{})}
	l.faults.cut, l.faults.frozen = make(chan struct{}), cork.frozen
	// Not the server's context: when that ends, the client is still to be told.
	l.ctx, l.end = context.WithCancel(context.Background())
	conn.SetReadLimit(openLimit)
	cork.limitBuffer()
	conn.SetPingHandler(func(data string) error {
		// The writer answers. A client that pings and does not read gets no more
		// answers than there is room for.
		_, err := l.out.tryPut(frame.Pong, []byte(data))
		return err
	})
	conn.SetCloseHandler(func(int, string) error { return nil }) // reading ends; nothing is owed
	return l
}

// close ends the leg at once. What was not written yet is lost.
func (l *leg) close() {
	l.end()
	l.out.close()
	_ = l.cork.Close() // both goroutines see it; it may have been closed before
}

// finish sends last after all that waits, and then closes the leg's half of the
// socket. It does not wait for that.
func (l *leg) finish(last []byte) {
	l.out.force(last)
	l.out.close()
}

// errNotOpened says that the first message was not OpenDataChannel.
var errNotOpened = errors.New("first message is not an OpenDataChannel")

// open reads the frame that a client opens the data channel with, within a time.
// Only pings may come before it (docs/protocol.md, "Opening").
func (l *leg) open(within time.Duration) (frame.OpenDataChannel, error) {
	var open frame.OpenDataChannel
	if err := l.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return open, fmt.Errorf("set a deadline for the opening: %w", err)
	}
	kind, data, err := l.conn.ReadMessage()
	if err != nil {
		return open, fmt.Errorf("wait for the opening: %w", err)
	}
	if kind != websocket.TextMessage || json.Unmarshal(data, &open) != nil {
		return open, errNotOpened
	}
	if err := l.conn.SetReadDeadline(time.Time{}); err != nil {
		return open, fmt.Errorf("lift the deadline: %w", err)
	}
	l.conn.SetReadLimit(messageLimit)
	return open, nil
}

// read gives every message to deliver, which may keep it until it returns, until
// the socket or deliver fails. The error says why, and is never nil. Text is taken
// like binary, as AWS's own readers do.
func (l *leg) read(deliver func(context.Context, []byte) error) error {
	var buf bytes.Buffer
	for {
		_, r, err := l.conn.NextReader()
		if err != nil {
			return err
		}
		buf.Reset()
		if _, err := buf.ReadFrom(r); err != nil {
			return err
		}
		if err := deliver(l.ctx, buf.Bytes()); err != nil {
			return err
		}
	}
}

// write writes what is put out, a batch with one flush, until the socket fails or
// the leg is finished. Then it closes its half of the socket only: closing the
// whole of it while the client's last acknowledgements are unread would reset it,
// and what the client has not read yet would be lost.
func (l *leg) write() error {
	var batch frame.Batch
	for {
		err := l.out.take(l.ctx, &batch)
		if errors.Is(err, errQueueClosed) {
			return l.hangUp()
		}
		if err != nil {
			return err
		}
		for i := range batch.Len() {
			if err := l.writeMessage(batch.Message(i)); err != nil {
				return err
			}
		}
		if err := l.cork.flush(); err != nil {
			return err
		}
	}
}

// writeMessage writes one message, of which nothing may leave before the flush.
func (l *leg) writeMessage(kind frame.Kind, p []byte) error {
	if kind == frame.Pong {
		return l.conn.WriteControl(websocket.PongMessage, p, time.Time{})
	}
	if err := l.conn.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return err
	}
	if l.cork.buffered() < flushSize {
		return nil
	}
	return l.cork.flush()
}

// hangUp closes the leg's half of the socket: TCP and TLS both know how. A fault may
// order another way.
func (l *leg) hangUp() error {
	switch l.ending() {
	case EndReset:
		return l.cork.reset()
	case EndClose:
		goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		if err := l.conn.WriteControl(websocket.CloseMessage, goodbye, time.Time{}); err != nil {
			return err
		}
		if err := l.cork.flush(); err != nil {
			return err
		}
	}
	if half, ok := l.cork.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return l.cork.Close()
}

// corkConn is a connection that gathers what is written until flush. The
// websocket library writes once a message, from the writer's goroutine, and on
// errors of the protocol from the reader's. A thousand small messages become some
// twenty writes of the socket, as plain TCP and with TLS alike.
type corkConn struct {
	net.Conn
	spare  []byte // of flush alone, swapped with buf
	faults *faultSwitch
	frozen chan struct{} // closed when the connection is to do nothing more, by a fault

	once sync.Once
	gone chan struct{} // closed by Close

	mu  sync.Mutex // guards buf
	buf []byte
}

// newCorkConn makes one of a connection, for the faults of a switch.
func newCorkConn(conn net.Conn, faults *faultSwitch) *corkConn {
	return &corkConn{Conn: conn, faults: faults, frozen: make(chan struct{}), gone: make(chan struct{})}
}

// tcp is the connection below, nil if there is none.
func (c *corkConn) tcp() *net.TCPConn {
	conn := c.Conn
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	tcp, _ := conn.(*net.TCPConn)
	return tcp
}

// limitBuffer keeps the kernel from holding megabytes on the way to the client.
func (c *corkConn) limitBuffer() {
	if tcp := c.tcp(); tcp != nil {
		_ = tcp.SetWriteBuffer(sendBuffer) // a hint; without it there is more to repeat
	}
}

// reset ends the connection at once and as rudely as TCP can.
func (c *corkConn) reset() error {
	tcp := c.tcp()
	if tcp == nil {
		return c.Close()
	}
	return errors.Join(tcp.SetLinger(0), tcp.Close())
}

// Close closes the connection, and wakes who waits for a fault to end.
func (c *corkConn) Close() error {
	c.once.Do(func() { close(c.gone) })
	return c.Conn.Close()
}

// Write gathers p.
func (c *corkConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = append(c.buf, p...)
	return len(p), nil
}

// SetWriteDeadline does nothing: a leg that must end is closed.
func (c *corkConn) SetWriteDeadline(time.Time) error { return nil }

// buffered is how many bytes wait for a flush.
func (c *corkConn) buffered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.buf)
}

// flush writes out what was gathered. One goroutine may call it. The lock is not
// held meanwhile: a client that does not read must not stop the reader, which may
// want to write that a message was not well-formed.
func (c *corkConn) flush() error {
	c.mu.Lock()
	c.buf, c.spare = c.spare[:0], c.buf
	c.mu.Unlock()
	return c.send(c.spare)
}
