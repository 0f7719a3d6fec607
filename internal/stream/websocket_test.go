package stream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// serve runs handle on every websocket that comes and gives the ws URL.
func serve(t *testing.T, start func(*httptest.Server), handle func(*websocket.Conn)) (*httptest.Server, string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{}
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Errorf("upgrade: %v", err)
			return
		}
		defer conn.Close()
		handle(conn)
	}))
	start(srv)
	t.Cleanup(srv.Close)
	return srv, "ws" + strings.TrimPrefix(srv.URL, "http")
}

// received runs Receive and gives the messages as they come, each with the
// number of the batch it came in.
func received(t *testing.T, s Socket) (<-chan string, <-chan error) {
	t.Helper()
	messages, ended := make(chan string, 10_000), make(chan error, 1)
	go func() {
		batch := 0
		ended <- s.Receive(func(b *frame.Batch) *frame.Batch {
			if b == nil {
				return &frame.Batch{}
			}
			batch++
			for i := range b.Len() {
				kind, p := b.Message(i)
				messages <- fmt.Sprintf("%d/%d:%.20s", batch, kind, p)
			}
			b.Reset(1 << 20)
			return b
		})
		close(messages)
	}()
	return messages, ended
}

func dial(t *testing.T, url string, cfg DialConfig) Socket {
	t.Helper()
	s, err := DialWebSocket(t.Context(), url, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestWebSocketCarriesMessages(t *testing.T) {
	echoed := make(chan string, 10)
	_, url := serve(t, (*httptest.Server).Start, func(c *websocket.Conn) {
		c.SetPongHandler(func(data string) error {
			echoed <- "pong " + data
			return nil
		})
		for range 2 {
			typ, p, err := c.ReadMessage()
			if err != nil {
				t.Error(err)
				return
			}
			echoed <- fmt.Sprintf("%d %s", typ, p)
		}
		if err := c.WriteControl(websocket.PingMessage, []byte("there?"), time.Now().Add(time.Minute)); err != nil {
			t.Error(err)
		}
		// A message in fragments, with a ping among them.
		w, err := c.NextWriter(websocket.BinaryMessage)
		if err != nil {
			t.Error(err)
			return
		}
		for _, part := range []string{"one ", "two ", "three"} {
			if _, err := w.Write([]byte(part + strings.Repeat(".", 5000))); err != nil {
				t.Error(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if err := c.WriteMessage(websocket.TextMessage, []byte("text counts too")); err != nil {
			t.Error(err)
		}
		_, _, _ = c.ReadMessage() // the pong is handled in here, then the end
	})
	s := dial(t, url, DialConfig{})
	var b frame.Batch
	b.Add(frame.Text, []byte("open"))
	b.Add(frame.Binary, []byte("data"))
	if err := s.Send(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1 open", "2 data"} {
		if got := <-echoed; got != want {
			t.Errorf("the server got %q, want %q", got, want)
		}
	}
	messages, ended := received(t, s)
	for _, want := range []string{":there?", ":one ................", ":text counts too"} {
		if got := <-messages; !strings.HasSuffix(got, want) {
			t.Errorf("received %q, want %q", got, want)
		}
	}
	b.Reset(1 << 20)
	b.Add(frame.Pong, []byte("here"))
	if err := s.Send(&b); err != nil {
		t.Fatal(err)
	}
	if got := <-echoed; got != "pong here" {
		t.Errorf("the server got %q", got)
	}
	s.Close()
	if err := <-ended; err == nil {
		t.Error("Receive ends without a reason")
	}
}

func TestABurstIsOneBatch(t *testing.T) {
	const n = 50
	_, url := serve(t, (*httptest.Server).Start, func(c *websocket.Conn) {
		var burst bytes.Buffer
		for i := range n {
			burst.Write([]byte{0x82, 3})
			fmt.Fprintf(&burst, "%03d", i)
		}
		if _, err := c.NetConn().Write(burst.Bytes()); err != nil {
			t.Error(err)
		}
		_, _, _ = c.ReadMessage()
	})
	messages, _ := received(t, dial(t, url, DialConfig{}))
	first, _, _ := strings.Cut(<-messages, "/")
	last := ""
	for range n - 1 {
		last, _, _ = strings.Cut(<-messages, "/")
	}
	if first != "1" || last != "1" {
		t.Errorf("a burst that arrived as one is handed over as batches %s to %s", first, last)
	}
}

func TestDialRefusals(t *testing.T) {
	status := func(code int) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		t.Cleanup(srv.Close)
		return "ws" + strings.TrimPrefix(srv.URL, "http")
	}
	tests := []struct{ name, url, want string }{
		{"forbidden", status(403), "the server answered 403 Forbidden"},
		{"broken", status(500), "the server answered 500 Internal Server Error"},
		{"no upgrade", status(200), "the server answered 200 OK"},
		{"nobody there", "ws://127.0.0.1:1/", "connection refused"},
		{"in the clear beyond loopback", "ws://ssmmessages.example.com/v1", "must be wss://"},
		{"another scheme", "http://127.0.0.1/", "must be wss://"},
		{"no URL", "::", "it is not a URL"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := DialWebSocket(t.Context(), test.url, DialConfig{})
			var d *DialError
			if !errors.As(err, &d) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v, want %q", err, test.want)
			}
		})
	}
}

// A server that accepts and never answers must not hold up a cancelled dial.
func TestDialEndsWhenCancelled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the user left")
	ended := make(chan error, 1)
	go func() {
		_, err := DialWebSocket(ctx, "ws://"+l.Addr().String(), DialConfig{})
		ended <- err
	}()
	defer (<-accepted).Close()
	cancel(why)
	select {
	case err := <-ended:
		if !errors.Is(err, why) {
			t.Errorf("the dial ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the dial goes on after its context has ended")
	}
}

func TestAMessageTooLargeEndsTheSocket(t *testing.T) {
	_, url := serve(t, (*httptest.Server).Start, func(c *websocket.Conn) {
		// It fails when the client has had enough.
		_ = c.WriteMessage(websocket.BinaryMessage, make([]byte, maxMessage+1))
		_, _, _ = c.ReadMessage()
	})
	_, ended := received(t, dial(t, url, DialConfig{}))
	err := <-ended
	if want := "the service sent a message of more than 256 kB"; !errors.Is(err, websocket.ErrReadLimit) || err.Error() != want {
		t.Errorf("Receive ended with %v, want %s", err, want)
	}
}

// countingConn counts writes to the network.
type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func TestABatchIsOneWrite(t *testing.T) {
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			got := make(chan int, 1)
			start := (*httptest.Server).Start
			if scheme == "wss" {
				start = (*httptest.Server).StartTLS
			}
			srv, url := serve(t, start, func(c *websocket.Conn) {
				n := 0
				for n < 1000 {
					if _, _, err := c.ReadMessage(); err != nil {
						t.Error(err)
						break
					}
					n++
				}
				got <- n
				_, _, _ = c.ReadMessage()
			})
			var writes atomic.Int64
			cfg := DialConfig{Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
				c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
				return countingConn{c, &writes}, err
			}}
			if scheme == "wss" {
				roots := x509.NewCertPool()
				roots.AddCert(srv.Certificate())
				cfg.TLS = &tls.Config{RootCAs: roots, ServerName: "example.com"}
			}
			s := dial(t, url, cfg)
			before := writes.Load()
			var b frame.Batch
			for sent := 0; sent < 1000; sent += b.Len() {
				b.Reset(1 << 20)
				for range 50 {
					b.Add(frame.Binary, make([]byte, 300))
				}
				if err := s.Send(&b); err != nil {
					t.Fatal(err)
				}
			}
			if n := <-got; n != 1000 {
				t.Errorf("%d messages arrived", n)
			}
			if n := writes.Load() - before; n != 20 {
				t.Errorf("20 batches of 50 messages took %d writes", n)
			}
		})
	}
}

func TestTLSFloor(t *testing.T) {
	srv, url := serve(t, func(s *httptest.Server) {
		s.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
		s.Config.ErrorLog = nil
		s.StartTLS()
	}, func(*websocket.Conn) {})
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	_, err := DialWebSocket(t.Context(), url, DialConfig{TLS: &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS10}})
	if err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

// The real websocket under the real loop, in virtual time: net.Pipe has no
// buffer, so the far end always reads.
func TestChannelOverWebSocketInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := make(chan string, 100)
		ch := Open(t.Context(), Config{
			Dial: func(ctx context.Context, _ bool) (Socket, string, error) {
				client, server := net.Pipe()
				go pipeServer(server, far)
				s, err := DialWebSocket(ctx, "ws://localhost/", DialConfig{
					Dial: func(context.Context, string, string) (net.Conn, error) { return client, nil },
				})
				return s, "token", err
			},
		})
		typ, p, err := ch.Recv(t.Context())
		if err != nil || typ != frame.Output || string(p) != "$" {
			t.Fatalf("Recv gives %d, %q, %v", typ, p, err)
		}
		if err := ch.Send(t.Context(), frame.Output, []byte("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := ch.Close(); err != nil {
			t.Error(err)
		}
		got := map[string]int{}
		for line := range far {
			got[line]++
		}
		// A minute holds two pings; what is never acknowledged is repeated.
		if got["open"] != 1 || got["acknowledge"] != 1 || got["ping"] != 2 || got["input_stream_data"] < 10 {
			t.Errorf("the far end saw %v", got)
		}
	})
}

// pipeServer upgrades the one connection and reports what it reads.
func pipeServer(conn net.Conn, saw chan<- string) {
	defer close(saw)
	l := &oneListener{conn: make(chan net.Conn, 1), done: make(chan struct{})}
	l.conn <- conn
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(l.done)
		up := websocket.Upgrader{}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		c.SetPingHandler(func(data string) error {
			saw <- "ping"
			go func() {
				// The reader must go on meanwhile: the pipe has no buffer.
				_ = c.WriteControl(websocket.PongMessage, []byte(data), time.Time{})
			}()
			return nil
		})
		for first := true; ; first = false {
			_, p, err := c.ReadMessage()
			if err != nil {
				return
			}
			if first {
				saw <- "open"
				m := frame.Message{Type: frame.OutputStreamData, Created: time.Now(), PayloadType: frame.Output, Payload: []byte("$")}
				raw, err := m.Append(nil)
				if err != nil || c.WriteMessage(websocket.BinaryMessage, raw) != nil {
					return
				}
				continue
			}
			if m, err := frame.Parse(p); err == nil {
				saw <- string(m.Type)
			}
		}
	})}
	_ = srv.Serve(l) // ends with the listener
}

type oneListener struct {
	conn chan net.Conn
	done chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }
