package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/xtaci/smux"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// tunnel is a client with a multiplexer, on a session of which the handshake is
// over. It is the connection that its multiplexer has.
type tunnel struct {
	*client
	mux   *smux.Session
	flags chan frame.FlagValue

	output *io.PipeReader
	posts  chan []byte // to the agent: the acknowledgements go between the input
	done   chan struct{}
}

// newTunnel opens a session of forwarding, and a client's multiplexer on it.
func newTunnel(t testing.TB, cfg Config) *tunnel {
	t.Helper()
	c := play(t, cfg)
	c.agree(newClient)
	c.knock()
	r, w := io.Pipe()
	u := &tunnel{client: c, output: r, flags: make(chan frame.FlagValue, 100), posts: make(chan []byte, 4096), done: make(chan struct{})}
	expected := int64(2) // after the two of the handshake
	var parts sync.WaitGroup
	parts.Go(func() { u.post() })
	parts.Go(func() { u.receive(w, expected) })
	smuxConfig := smux.DefaultConfig()
	smuxConfig.KeepAliveDisabled = true
	mux, err := smux.Client(u, smuxConfig)
	if err != nil {
		t.Fatal(err)
	}
	u.mux = mux
	t.Cleanup(func() {
		mux.Close()
		close(u.done)
		w.CloseWithError(io.ErrClosedPipe)
		parts.Wait()
	})
	return u
}

// post hands messages to the agent.
func (u *tunnel) post() {
	for {
		select {
		case b := <-u.posts:
			select {
			case u.leg.toAgent <- b:
			case <-u.done:
				return
			}
		case <-u.done:
			return
		}
	}
}

// receive takes the agent's messages, acknowledges output and passes it on.
func (u *tunnel) receive(w *io.PipeWriter, expected int64) {
	for {
		var m frame.Message
		select {
		case b := <-u.leg.fromAgent:
			var err error
			if m, err = frame.Parse(b); err != nil {
				w.CloseWithError(err)
				return
			}
		case <-u.done:
			return
		}
		if m.Type != frame.OutputStreamData {
			continue
		}
		u.enqueue(frame.Message{Type: frame.Acknowledge, Flags: 3,
			Payload: frame.Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence}.Append(nil)})
		if m.Sequence != expected {
			continue // the leg keeps order: it is one that came again
		}
		expected++
		if m.PayloadType == frame.Flag {
			flag, _ := frame.ParseFlag(m.Payload)
			u.flags <- flag
			continue
		}
		if _, err := w.Write(m.Payload); err != nil {
			return
		}
	}
}

func (u *tunnel) enqueue(m frame.Message) {
	m.Created, m.ID = time.Now(), uuid.New()
	b, err := m.Append(nil)
	if err != nil {
		panic(err)
	}
	select {
	case u.posts <- b:
	case <-u.done:
	}
}

// Read implements io.Reader, for smux.
func (u *tunnel) Read(p []byte) (int, error) { return u.output.Read(p) }

// Write implements io.Writer, for smux: it is input, in payloads of a size that
// cuts smux's frames anywhere.
func (u *tunnel) Write(p []byte) (int, error) {
	for chunk := range slices.Chunk(p, 1000) {
		u.enqueue(frame.Message{Type: frame.InputStreamData, Sequence: u.next, PayloadType: frame.Output, Payload: chunk})
		u.next++
	}
	return len(p), nil
}

// Close implements io.Closer, for smux.
func (u *tunnel) Close() error { return u.output.Close() }

// open opens a stream, which is a connection of a user.
func (u *tunnel) open() *smux.Stream {
	u.t.Helper()
	stream, err := u.mux.OpenStream()
	if err == nil {
		err = stream.SetDeadline(time.Now().Add(patience))
	}
	if err != nil {
		u.t.Fatal(err)
	}
	return stream
}

// end waits for the result.
func (u *tunnel) end(why string, want Result) {
	u.t.Helper()
	select {
	case got := <-u.results:
		if got != want {
			u.t.Errorf("%s: the session ended with %+v, want %+v", why, got, want)
		}
	case <-time.After(patience):
		u.t.Fatalf("%s: the session did not end", why)
	}
}

func write(t testing.TB, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

func TestMuxCarriesBothWays(t *testing.T) {
	port, conns := listenLoopback(t)
	u := newTunnel(t, forwardTo(current, port))
	select {
	case <-conns:
		t.Fatal("the agent connects before the client does")
	default:
	}
	stream := u.open()
	conn := wantConn(t, "for a stream", conns)
	write(t, conn, "220 hello\r\n") // a destination that speaks first
	wantBytes(t, "from the destination", stream, "220 hello\r\n")
	write(t, stream, "\n\x00\xff")
	wantBytes(t, "to the destination", conn, "\n\x00\xff")
	second := u.open()
	conn2 := wantConn(t, "for a second stream", conns)
	write(t, second, "b")
	wantBytes(t, "to the second connection", conn2, "b")
}

// TestMuxManyAtOnce echoes noise through fifty streams.
func TestMuxManyAtOnce(t *testing.T) {
	port, conns := listenLoopback(t)
	u := newTunnel(t, forwardTo(current, port))
	var echoes, users sync.WaitGroup
	echoes.Go(func() {
		for range 50 {
			conn := <-conns
			echoes.Go(func() { io.Copy(conn, conn) })
		}
	})
	for i := range 50 {
		users.Go(func() {
			noise := make([]byte, 20_000)
			for j := range noise {
				noise[j] = byte(rand.Uint32())
			}
			stream := u.open()
			got := make([]byte, len(noise))
			go stream.Write(noise)
			if _, err := io.ReadFull(stream, got); err != nil || sha256.Sum256(got) != sha256.Sum256(noise) {
				t.Errorf("stream %d: what came back is not what went: %v", i, err)
			}
			stream.Close()
		})
	}
	users.Wait()
	echoes.Wait() // the agent closes the connections of streams that are closed
}

func TestMuxRefusedConnection(t *testing.T) {
	port := closedPort(t)
	u := newTunnel(t, forwardTo(current, port))
	stream := u.open()
	select {
	case flag := <-u.flags:
		if flag != frame.ConnectToPortError {
			t.Errorf("the client is told flag %d, want 3", flag)
		}
	case <-time.After(patience):
		t.Fatal("the client is not told that the destination refuses")
	}
	wantEOF(t, "and the stream ends", stream)

	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	stream = u.open()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	write(t, stream, "x")
	wantBytes(t, "the session goes on", conn, "x")
}

// TestMuxHasNoHalfClose: the end of one way is the end of the connection.
func TestMuxHasNoHalfClose(t *testing.T) {
	port, conns := listenLoopback(t)
	u := newTunnel(t, forwardTo(current, port))

	stream := u.open()
	conn := wantConn(t, "for a stream", conns)
	write(t, stream, "last words")
	if err := stream.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "before the end", conn, "last words")
	wantEOF(t, "the client's end closes the connection", conn)
	wantEOF(t, "and the stream's other way", stream)

	stream = u.open()
	conn = wantConn(t, "for a stream", conns)
	write(t, conn, "goodbye")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "before the end", stream, "goodbye")
	wantEOF(t, "the destination's end closes the stream", stream)
	wantEOF(t, "and the connection's other way", conn)
}

func TestMuxFlags(t *testing.T) {
	port, conns := listenLoopback(t)
	u := newTunnel(t, forwardTo(current, port))
	flag := func(v frame.FlagValue) {
		u.enqueue(frame.Message{Type: frame.InputStreamData, Sequence: u.next, PayloadType: frame.Flag, Payload: v.Append(nil)})
		u.next++
	}
	stream := u.open()
	conn := wantConn(t, "for a stream", conns)
	write(t, stream, "a")
	wantBytes(t, "to the destination", conn, "a")
	flag(frame.DisconnectToPort)
	write(t, stream, "b")
	wantBytes(t, "DisconnectToPort means nothing here", conn, "b")
	flag(frame.TerminateSession)
	u.end("TerminateSession ends the session", Result{Status: StatusSuccess})
	wantEOF(t, "and its connections", conn)
}

func TestMuxCancelled(t *testing.T) {
	port, conns := listenLoopback(t)
	u := newTunnel(t, forwardTo(current, port))
	stream := u.open()
	wantConn(t, "for a stream", conns) // reads nothing
	go stream.Write(make([]byte, 8<<20))
	// The connection, smux's 4 MiB, the pair and the queue are full, or about to be.
	u.cancel()
	u.end("cancelled while a destination reads nothing", Result{Status: StatusSuccess})
}

// TestMuxStuck: a client that breaks the protocol is not heard any more, as it is
// with AWS's agent; the session goes on.
func TestMuxStuck(t *testing.T) {
	lines := make(logLines, 1000)
	cfg := forwardTo(current, closedPort(t))
	cfg.Log = lines.logger()
	u := newTunnel(t, cfg)
	if _, err := u.Write([]byte("\x02\x00\x00\x00\x03\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	lines.wait(t, "the multiplexer is stuck")
	select {
	case got := <-u.results:
		t.Errorf("the session ended with %+v", got)
	default:
	}
	u.cancel()
	u.end("cancelled", Result{Status: StatusSuccess})
}

func TestPairPassesBytesOn(t *testing.T) {
	a, b := newPair()
	text := bytes.Repeat([]byte("0123456789"), 100_000) // more than there is room for
	written := make(chan error, 1)
	go func() {
		n, err := a.Write(text)
		if err == nil && n != len(text) {
			err = fmt.Errorf("%d of %d bytes", n, len(text))
		}
		written <- errors.Join(err, a.Close())
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d of %d bytes came, and %v", len(got), len(text), err)
	}
	if err := <-written; err != nil {
		t.Errorf("the write: %v", err)
	}
}

func TestPairClosed(t *testing.T) {
	a, b := newPair()
	write(t, a, "left")
	b.Close()
	wantBytes(t, "what was there", b, "left")
	wantEOF(t, "then the end", b)
	if n, err := a.Write([]byte("x")); n != 0 || err != io.ErrClosedPipe {
		t.Errorf("a write to a closed pair gives %d, %v", n, err)
	}

	c, d := newPair()
	stuck := make(chan error, 2)
	go func() {
		_, err := c.Write(make([]byte, pairRoom+1))
		stuck <- err
	}()
	go func() {
		_, err := c.Read(make([]byte, 1))
		stuck <- err
	}()
	d.Close()
	for range 2 {
		if err := <-stuck; err != io.EOF && err != io.ErrClosedPipe {
			t.Errorf("who waits at a pair that is closed gets %v", err)
		}
	}
}
