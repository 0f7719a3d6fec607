package ports

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xtaci/smux"

	"github.com/ssmsession/ssmsession/internal/crash"
)

// bubble is synctest.Test for what uses smux, which keeps channels for reuse: they
// must not come into a bubble or leave it. Two collections drop them.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	drop := func() {
		runtime.GC()
		runtime.GC()
	}
	drop()
	defer drop()
	synctest.Test(t, f)
}

// wire is a connection whose far end the test plays.
type wire struct {
	io.Reader
	come  *io.PipeWriter
	wrote chan []byte   // what was written
	gone  chan struct{} // closed by Close
	once  sync.Once
}

func newWire() *wire {
	r, w := io.Pipe()
	return &wire{Reader: r, come: w, wrote: make(chan []byte), gone: make(chan struct{})}
}

// brokenWire is one whose Write panics.
type brokenWire struct{ *wire }

func (brokenWire) Write([]byte) (int, error) { panic("boom") }

// A panic in the goroutine that hands on the queue is the end, with its reason.
func TestAPanicEndsTheMultiplexer(t *testing.T) {
	m, err := NewMux(brokenWire{newWire()}, false)
	if err != nil {
		t.Fatal(err)
	}
	// By a frame, which Open may or may not see the end of.
	if _, err := m.Open(); err != nil && !errors.As(err, new(*crash.Error)) {
		t.Fatal(err)
	}
	<-m.Done()
	if err := m.Err(); !errors.As(err, new(*crash.Error)) {
		t.Errorf("the end is %v", err)
	}
	if err := m.Close(); err != nil {
		t.Errorf("Close gives %v", err)
	}
}

func (w *wire) Write(p []byte) (int, error) {
	select {
	case w.wrote <- bytes.Clone(p):
		return len(p), nil
	case <-w.gone:
		return 0, net.ErrClosed
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.gone) })
	return w.come.CloseWithError(io.ErrUnexpectedEOF)
}

// wantWrite compares what is written next.
func (w *wire) wantWrite(t *testing.T, what, want string) {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-w.wrote:
		if hex.EncodeToString(got) != want {
			t.Errorf("%s is written as %x, want %s", what, got, want)
		}
	default:
		t.Errorf("%s: nothing is written, want %s", what, want)
	}
}

func newMux(t *testing.T, conn io.ReadWriteCloser, keepAlive bool) *Mux {
	t.Helper()
	m, err := NewMux(conn, keepAlive)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The vectors of docs/protocol.md, "Mux port forwarding".
func TestMuxVectors(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		m := newMux(t, w, true)
		s, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		w.wantWrite(t, "the first stream", "0100000003000000")
		go s.Write([]byte("hello"))
		w.wantWrite(t, "hello", "010205000300000068656c6c6f")
		go w.come.Write([]byte("\x01\x02\x02\x00\x03\x00\x00\x00hi\x01\x03\x00\x00\x00\x00\x00\x00"))
		buf := make([]byte, 10)
		if n, err := s.Read(buf); string(buf[:n]) != "hi" || err != nil {
			t.Errorf("read %q, %v; want hi", buf[:n], err)
		}
		if err := s.CloseWrite(); err != nil {
			t.Errorf("the end: %v", err)
		}
		w.wantWrite(t, "the end of the first stream", "0101000003000000")
		go w.come.Write([]byte("\x01\x02\x03\x00\x03\x00\x00\x00yes\x01\x01\x00\x00\x03\x00\x00\x00"))
		if got, err := io.ReadAll(s); string(got) != "yes" || err != nil {
			t.Errorf("after its own end a stream reads %q, %v; want yes", got, err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("a second end: %v", err)
		}
		if _, err := m.Open(); err != nil {
			t.Fatal(err)
		}
		w.wantWrite(t, "the second stream", "0100000005000000")
		time.Sleep(keepAliveInterval)
		w.wantWrite(t, "a sign of life", "0103000000000000")
		time.Sleep(keepAliveInterval)
		w.wantWrite(t, "a sign of life", "0103000000000000")
		for range 100 { // the far end is silent for 1000 s, which is no error
			time.Sleep(keepAliveInterval)
			w.wantWrite(t, "a sign of life", "0103000000000000")
		}
		select {
		case <-m.Done():
			t.Errorf("the multiplexer ended for the silence of the far end: %v", m.Err())
		default:
		}
		m.Close()
		if _, err := m.Open(); err == nil {
			t.Error("a stream was opened after the end")
		}
	})
}

func TestMuxJoinsWhatWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		m := newMux(t, w, false)
		defer m.Close()
		s, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the opening is being written
		for _, word := range []string{"a", "b", "c"} {
			if _, err := io.WriteString(s, word); err != nil {
				t.Fatal(err)
			}
		}
		w.wantWrite(t, "the stream", "0100000003000000")
		w.wantWrite(t, "the rest, at once", "010201000300000061"+"010201000300000062"+"010201000300000063")
		if err := s.Flush(t.Context()); err != nil {
			t.Errorf("all has gone, but Flush gives %v", err)
		}
	})
}

// Writers wait while nothing is taken, in order, and the queue keeps to its
// bound; opening and closing do not wait.
func TestMuxIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		m := newMux(t, w, false)
		const writers = 100
		var writing sync.WaitGroup
		for range writers {
			s, err := m.Open()
			if err != nil {
				t.Fatal(err)
			}
			writing.Go(func() {
				if _, err := s.Write(make([]byte, 100_000)); err != nil {
					t.Errorf("a writer was not served: %v", err)
				}
				s.Close()
			})
		}
		time.Sleep(time.Hour)
		m.out.mu.Lock()
		size, waiting := len(m.out.buf), len(m.out.claims)
		m.out.mu.Unlock()
		if limit := queued + writers*100; size > limit {
			t.Errorf("%d bytes are queued, want at most %d", size, limit)
		}
		if waiting < writers-4 {
			t.Errorf("%d writers wait, want all but a few", waiting)
		}
		total := 0
		for want := writers * (100_000 + 4*8 + 2*8); total < want; {
			total += len(<-w.wrote)
		}
		writing.Wait()
		m.Close()
		if m.out.free != queued {
			t.Errorf("%d bytes can be reserved in the end, want %d", m.out.free, queued)
		}
	})
}

// What was reserved for a stream that has ended is another's.
func TestMuxWritesThatFailTakeNoRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		m := newMux(t, w, false)
		s, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if n, err := s.Write(make([]byte, maxFrame)); n != 0 || err == nil {
				t.Fatalf("a stream that was closed took %d bytes, %v", n, err)
			}
		}
		if m.out.free != queued {
			t.Errorf("%d bytes can be reserved, want %d", m.out.free, queued)
		}
		m.Close()
	})
}

func TestReservations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutgoing(newWire())
		if err := o.reserve(queued, nil); err != nil {
			t.Fatal(err)
		}
		cancelled := make(chan struct{})
		results := make(chan string, 3)
		claimed := func(name string, n int, cancelled chan struct{}) {
			go func() {
				if err := o.reserve(n, cancelled); err != nil {
					name += " " + err.Error()
				}
				results <- name
			}()
			synctest.Wait()
		}
		claimed("large", queued, cancelled)
		o.release(10)
		claimed("small", 1, nil)
		if len(results) != 0 {
			t.Errorf("%q came first, before who had waited longer", <-results)
		}
		close(cancelled)
		// Whoever gave up and who waited behind are told at once, in any order.
		got := []string{<-results, <-results}
		slices.Sort(got)
		if want := []string{"large " + io.ErrClosedPipe.Error(), "small"}; !slices.Equal(got, want) {
			t.Errorf("who gave up and who waited behind got %q, want %q", got, want)
		}
		claimed("last", queued, nil)
		o.fail(errors.New("broken"))
		if got := <-results; got != "last broken" {
			t.Errorf("at the end, who waited got %q", got)
		}
		if err := o.reserve(1, nil); err == nil || o.flush(t.Context()) != nil {
			t.Errorf("after the end a reservation gives %v", err)
		}
	})
}

func TestMuxFlush(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		m := newMux(t, w, false)
		s, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Flush(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while nothing is taken, Flush gives %v, want the context's end", err)
		}
		flushed := make(chan error)
		go func() { flushed <- s.Flush(t.Context()) }()
		<-w.wrote
		if err := <-flushed; err != nil {
			t.Errorf("Flush gives %v", err)
		}
		if _, err := io.WriteString(s, "x"); err != nil {
			t.Fatal(err)
		}
		go func() { flushed <- s.Flush(t.Context()) }()
		synctest.Wait()
		m.Close()
		if err := <-flushed; !errors.Is(err, ErrMuxClosed) {
			t.Errorf("at the end Flush gives %v, want %v", err, ErrMuxClosed)
		}
	})
}

// What the far end may send that is no smux, or not for a client.
func TestMuxFarEnd(t *testing.T) {
	for _, c := range []struct {
		what, sent, want string
	}{
		{"another protocol", "SSH-2.0-OpenSSH", "not smux"},
		{"version 2", "\x02\x00\x00\x00\x02\x00\x00\x00", "not smux"},
		{"a window", "\x01\x04\x08\x00\x03\x00\x00\x00", "not smux"},
		{"an opening with data", "\x01\x00\x01\x00\x02\x00\x00\x00x", "not smux"},
		{"half a frame, and the end", "\x01\x02", io.ErrUnexpectedEOF.Error()},
		{"the end", "", io.EOF.Error()},
	} {
		bubble(t, func(t *testing.T) {
			w := newWire()
			m := newMux(t, w, false)
			go func() {
				io.WriteString(w.come, c.sent)
				if !strings.Contains(c.want, "smux") {
					w.come.Close()
				}
			}()
			<-m.Done()
			if err := m.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s gives %v, want %q", c.what, err, c.want)
			}
			m.Close()
		})
	}
}

// A far end that opens a stream is no agent, and the end of it.
func TestMuxThatIsOpenedTo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		m := newMux(t, w, false)
		go func() {
			for range w.wrote { // the answers are of no interest
			}
		}()
		if _, err := w.come.Write([]byte{1, 0, 0, 0, 2, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		<-m.Done()
		if err := m.Err(); !errors.Is(err, ErrOpened) {
			t.Errorf("the end is %v, want %v", err, ErrOpened)
		}
		if n := m.session.NumStreams(); n != 0 {
			t.Errorf("%d streams are open, want 0", n)
		}
		m.Close()
		close(w.wrote)
	})
}

// What came before the end is given, though smux knows of the end already.
func TestMuxGivesWhatCameBeforeTheEnd(t *testing.T) {
	for range 200 {
		a, b := net.Pipe()
		m := newMux(t, a, false)
		server, err := smux.Server(b, &smux.Config{Version: 1, KeepAliveDisabled: true, MaxFrameSize: maxFrame, MaxReceiveBuffer: 1 << 20, MaxStreamBuffer: 1 << 16})
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan string)
		go func() {
			var out strings.Builder
			s.WriteTo(&out)
			got <- out.String()
		}()
		far, err := server.AcceptStream()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(far, "the last word"); err != nil {
			t.Fatal(err)
		}
		b.Close()
		if g := <-got; g != "the last word" {
			t.Fatalf("%q was given, want the last word", g)
		}
		m.Close()
		server.Close()
	}
}

func TestStreamTellsWhoseErrorItIs(t *testing.T) {
	full := errors.New("disk full")
	a, b := net.Pipe()
	defer b.Close()
	m := newMux(t, a, false)
	defer m.Close()
	s, err := m.Open()
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, b)
	go b.Write([]byte("\x01\x02\x01\x00\x03\x00\x00\x00x"))
	if _, err := s.WriteTo(broken{full}); !errors.Is(err, full) {
		t.Errorf("the error is %v, want the writer's", err)
	}
}

type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }

// Random bytes on many streams at once arrive whole.
func TestMuxManyStreams(t *testing.T) {
	a, b := net.Pipe()
	m := newMux(t, a, false)
	server, err := smux.Server(b, &smux.Config{Version: 1, KeepAliveDisabled: true, MaxFrameSize: 1000, MaxReceiveBuffer: 1 << 20, MaxStreamBuffer: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			s, err := server.AcceptStream()
			if err != nil {
				return
			}
			go func() {
				io.Copy(s, s)
				s.Close()
			}()
		}
	}()
	var streams sync.WaitGroup
	for i := range 50 {
		streams.Go(func() {
			want := make([]byte, 10_000*(i%10)+i+1)
			src := rand.NewChaCha8([32]byte{byte(i)})
			src.Read(want)
			s, err := m.Open()
			if err != nil {
				t.Error(err)
				return
			}
			go func() {
				s.Write(want)
				s.CloseWrite()
			}()
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
				t.Errorf("stream %d: %d bytes came back, %v; want %d", i, len(got), err, len(want))
			}
			s.Close()
		})
	}
	streams.Wait()
	m.Close()
	server.Close()
}

// FuzzMuxFarEnd: whatever the far end sends, the multiplexer ends when it does,
// and so do its streams.
func FuzzMuxFarEnd(f *testing.F) {
	f.Add([]byte("\x01\x02\x02\x00\x03\x00\x00\x00hi\x01\x01\x00\x00\x03\x00\x00\x00"))
	f.Add([]byte("\x01\x00\x00\x00\x02\x00\x00\x00\x01\x02\x01\x00\x02\x00\x00\x00x"))
	f.Add([]byte("\x01\x03\x00\x00\x00\x00\x00\x00\x01\x04\x08\x00"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		a, b := net.Pipe()
		m := newMux(t, a, false)
		s, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, b)
		go func() {
			b.Write(sent)
			b.Close()
		}()
		n, err := s.WriteTo(io.Discard)
		if n > int64(len(sent)) {
			t.Errorf("%d bytes came of %d (%v)", n, len(sent), err)
		}
		m.Close()
		b.Close()
		<-m.Done()
	})
}
