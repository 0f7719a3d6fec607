package stream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

const (
	readBuffer     = 64 << 10
	writeBuffer    = 8 << 10   // above any message we send, or gorilla would fragment it
	maxMessage     = 256 << 10 // bytes; agents send about 1 kB, 64 kB is to be expected of others
	readBatchBytes = 64 << 10
	upgradeTimeout = 30 * time.Second
	upgradeBytes   = 64 << 10 // of the answer to the upgrade, TLS included
	minimalTLS     = tls.VersionTLS12
)

// DialConfig says how a websocket is dialled.
type DialConfig struct {
	// TLS is cloned; nil for the system's roots. Below TLS 1.2 is refused.
	TLS *tls.Config
	// Dial connects to addr, for a URL of scheme ws or wss: through a proxy,
	// perhaps. nil for net.Dialer. TLS goes over what it gives. (gorilla has
	// hooks for proxies and for TLS of its own; it knows few kinds of proxy,
	// and dials one with the hook for TLS without ever encrypting.)
	Dial func(ctx context.Context, scheme, addr string) (net.Conn, error)
	// UserAgent is sent with the upgrade when it is not empty.
	UserAgent string
}

// DialError is a websocket that could not be had.
type DialError struct {
	Host   string
	Status int // the HTTP status that refused the upgrade, or 0
	// Refused tells that we do not dial such a URL.
	Refused bool
	Err     error
}

func (e *DialError) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("cannot open the data channel at %s: the server answered %d %s",
			e.Host, e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("cannot open the data channel at %s: %v", e.Host, e.Err)
}

// Unwrap gives the cause.
func (e *DialError) Unwrap() error { return e.Err }

// DialWebSocket dials a StreamUrl, verbatim. It is refused unless it is wss, or
// ws to a loopback host: the token travels in it. The errors are *DialError.
// It returns at once when ctx ends.
func DialWebSocket(ctx context.Context, streamURL string, cfg DialConfig) (Socket, error) {
	u, err := url.Parse(streamURL)
	if err != nil {
		return nil, &DialError{Host: "the stream URL", Refused: true, Err: errors.New("it is not a URL")}
	}
	fail := func(status int, err error) error {
		return &DialError{Host: u.Host, Status: status, Err: err}
	}
	if u.Hostname() == "" && (u.Scheme == "wss" || u.Scheme == "ws") {
		return nil, &DialError{Host: "the stream URL", Refused: true, Err: errors.New("it names no host")}
	}
	if u.Scheme != "wss" && (u.Scheme != "ws" || !IsLoopback(u.Hostname())) {
		return nil, &DialError{Host: cmp.Or(u.Host, "the stream URL"), Refused: true,
			Err: fmt.Errorf("a stream URL must be wss://, not %s://", u.Scheme)}
	}
	if u.User != nil {
		return nil, &DialError{Host: u.Host, Refused: true, Err: errors.New("a stream URL has no user")}
	}
	tlsConfig := &tls.Config{}
	if cfg.TLS != nil {
		tlsConfig = cfg.TLS.Clone()
	}
	tlsConfig.MinVersion = max(tlsConfig.MinVersion, minimalTLS)

	connect := cfg.Dial
	if connect == nil {
		connect = func(ctx context.Context, _, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
	}
	s := &webSocket{}
	dialer := websocket.Dialer{
		NetDialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			conn, err := connect(ctx, u.Scheme, addr)
			if err != nil {
				return nil, err
			}
			s.cork = &corkedConn{Conn: conn, limited: true, left: upgradeBytes}
			return s.cork, nil
		},
		TLSClientConfig:  tlsConfig,
		HandshakeTimeout: upgradeTimeout,
		ReadBufferSize:   readBuffer,
		WriteBufferSize:  writeBuffer,
	}
	header := http.Header{}
	if cfg.UserAgent != "" {
		header.Set("User-Agent", cfg.UserAgent)
	}
	if err := s.dial(ctx, &dialer, streamURL, header); err != nil {
		status := 0
		if r := (*badStatus)(nil); errors.As(err, &r) {
			status = r.status
		}
		return nil, fail(status, err)
	}
	s.conn.SetReadLimit(maxMessage)
	s.cork.limited = false
	return s, nil
}

// IsLoopback tells whether a host name can only mean this machine.
func IsLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// errHungUp is a server that takes the connection and does not answer.
var errHungUp = errors.New("the server closed the connection")

type badStatus struct{ status int }

func (e *badStatus) Error() string { return fmt.Sprintf("status %d", e.status) }

// webSocket is a Socket over gorilla/websocket. Its reader owns batch and
// deliver.
type webSocket struct {
	conn *websocket.Conn
	cork *corkedConn

	batch   *frame.Batch
	deliver func(*frame.Batch) *frame.Batch
}

// dial connects and upgrades. gorilla watches the context only while it
// connects, so during the upgrade the end of ctx closes the connection.
func (s *webSocket) dial(ctx context.Context, d *websocket.Dialer, url string, h http.Header) error {
	connect := d.NetDialContext
	var stop func() bool
	d.NetDialContext = func(ctx2 context.Context, network, addr string) (net.Conn, error) {
		conn, err := connect(ctx2, network, addr)
		if err == nil {
			stop = context.AfterFunc(ctx, func() {
				_ = conn.Close() // ends the upgrade, whose error is replaced below
			})
		}
		return conn, err
	}
	conn, resp, err := d.DialContext(ctx, url, h)
	cancelled := stop != nil && !stop()
	switch {
	case cancelled || (err != nil && ctx.Err() != nil):
		if conn != nil {
			_ = conn.Close() // already closed by the cancellation
		}
		return context.Cause(ctx)
	case err != nil && resp != nil && resp.StatusCode == http.StatusSwitchingProtocols:
		return errors.New("the server's answer is that of no websocket")
	case err != nil && resp != nil:
		return &badStatus{resp.StatusCode}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errHungUp
	case err != nil:
		return err
	}
	s.conn = conn
	return nil
}

// Receive implements Socket. Handing over happens in two places: when a batch
// is full, and just before the connection is read from, which is when
// everything that had arrived was taken out of the buffers above it.
func (s *webSocket) Receive(deliver func(*frame.Batch) *frame.Batch) error {
	s.deliver = deliver
	if s.batch = deliver(nil); s.batch == nil {
		return net.ErrClosed
	}
	s.cork.beforeRead = s.handOver
	// Answering is for whoever owns the protocol: gorilla would write the
	// pong from here, and take a busy peer for a broken one after a second.
	s.conn.SetPingHandler(func(data string) error {
		s.batch.Add(frame.Ping, []byte(data))
		return nil
	})
	s.conn.SetPongHandler(func(data string) error {
		s.batch.Add(frame.Pong, []byte(data))
		return nil
	})
	err := plainly(s.receive())
	if s.batch != nil && s.batch.Len() > 0 {
		s.deliver(s.batch)
	}
	return err
}

// plainly says why a connection ended without the library's words.
func plainly(err error) error {
	closed := (*websocket.CloseError)(nil)
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		return &lostError{"the connection was reset", err}
	case errors.Is(err, websocket.ErrReadLimit):
		return &lostError{fmt.Sprintf("the service sent a message of more than %d kB", maxMessage>>10), err}
	case !errors.As(err, &closed):
		return err
	case closed.Code == websocket.CloseAbnormalClosure:
		return &lostError{"the service hung up", err}
	case closed.Text != "":
		return &lostError{fmt.Sprintf("the service closed the connection: %d %q", closed.Code, closed.Text), err}
	}
	return &lostError{fmt.Sprintf("the service closed the connection: %d", closed.Code), err}
}

// lostError is why a connection ended.
type lostError struct {
	text string
	err  error
}

func (e *lostError) Error() string { return e.text }
func (e *lostError) Unwrap() error { return e.err }

func (s *webSocket) receive() error {
	message := make([]byte, 0, 4<<10)
	for {
		_, r, err := s.conn.NextReader()
		if err != nil {
			return err
		}
		if message, err = appendAll(message[:0], r); err != nil {
			return err
		}
		s.batch.Add(frame.Binary, message)
		if cap(message) > keepBuffer {
			message = make([]byte, 0, 4<<10)
		}
		if s.batch.Size() >= readBatchBytes {
			if err := s.handOver(); err != nil {
				return err
			}
		}
	}
}

func (s *webSocket) handOver() error {
	if s.batch.Len() == 0 {
		return nil
	}
	if s.batch = s.deliver(s.batch); s.batch == nil {
		return net.ErrClosed
	}
	return nil
}

// appendAll is io.ReadAll into a buffer of ours.
func appendAll(buf []byte, r io.Reader) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// Send implements Socket.
func (s *webSocket) Send(b *frame.Batch) error {
	s.cork.cork()
	for i := range b.Len() {
		if err := s.send(b.Message(i)); err != nil {
			return err
		}
	}
	return s.cork.uncork()
}

// Without deadlines: Close ends a write, and each deadline would be one more
// wake-up of an idle process.
func (s *webSocket) send(kind frame.Kind, p []byte) error {
	switch kind {
	case frame.Text:
		return s.conn.WriteMessage(websocket.TextMessage, p)
	case frame.Ping:
		return s.conn.WriteControl(websocket.PingMessage, p, time.Time{})
	case frame.Pong:
		return s.conn.WriteControl(websocket.PongMessage, p, time.Time{})
	default:
		return s.conn.WriteMessage(websocket.BinaryMessage, p)
	}
}

// Close implements Socket: it drops the connection, as AWS's client does.
func (s *webSocket) Close() error { return s.cork.Close() }

// corkedConn is the connection beneath gorilla and beneath TLS. Corked, it
// collects what is written, so that a batch of messages is one write for ws and
// wss alike. It also tells the reader when it is about to wait for the network.
type corkedConn struct {
	net.Conn
	// Owned by whoever reads: the dial, then the reading goroutine.
	beforeRead func() error
	limited    bool // left counts: gorilla reads the answer to an upgrade without end
	left       int

	mu     sync.Mutex // a TLS layer may write (an alert, a key update) from the reading goroutine; guards corked, buf
	corked bool
	buf    []byte
}

func (c *corkedConn) Read(p []byte) (int, error) {
	if c.beforeRead != nil {
		if err := c.beforeRead(); err != nil {
			return 0, err
		}
	}
	if !c.limited {
		return c.Conn.Read(p)
	}
	if c.left <= 0 {
		return 0, errors.New("the answer to the upgrade has no end")
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

func (c *corkedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.corked {
		c.buf = append(c.buf, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *corkedConn) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

func (c *corkedConn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	_, err := c.Conn.Write(c.buf)
	c.buf = c.buf[:0]
	if cap(c.buf) > keepBuffer*4 {
		c.buf = nil
	}
	return err
}
