package session

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// basicRig is a rig whose agent is too old to multiplex, and played by the test.
func inBasicBubble(t *testing.T, f func(t *testing.T, r *tunnelRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newTunnelRig(t, "2.3.714.0", nil)
		r.run()
		f(t, r)
		r.stop()
	})
}

// wantSent reads what the agent is sent.
func (r *tunnelRig) wantSent(what, want string) {
	r.t.Helper()
	var got string
	for len(got) < len(want) {
		got += string(<-r.peer.toAgent)
	}
	if got != want {
		r.t.Errorf("%s: the agent was sent %q, want %q", what, got, want)
	}
}

func (r *tunnelRig) say(s string) { r.peer.coming <- message{frame.Output, s} }

// wantNext reads as much as want has, and compares.
func wantNext(t *testing.T, what string, c io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("%s: read %q, %v; want %q", what, got[:n], err, want)
	}
}

func TestBasicOneAfterAnother(t *testing.T) {
	inBasicBubble(t, func(t *testing.T, r *tunnelRig) {
		first := r.connect()
		second := make(chan *half)
		go func() { second <- r.connect() }()
		go io.WriteString(first, "one")
		r.wantSent("the first connection's bytes", "one")
		go r.say("answer one")
		wantNext(t, "the first connection", first, "answer one")
		first.CloseWrite()
		go func() {
			time.Sleep(1900 * time.Millisecond)
			r.say(" and later")
		}()
		wantNext(t, "the first connection, after its end", first, " and later")
		select {
		case <-second:
			t.Error("the second connection was taken before the first had ended")
		default:
		}
		wantRead(t, "the first connection", first, "")
		two := <-second
		synctest.Wait()
		wantFlags(t, r.peer, frame.DisconnectToPort)

		r.say("left over") // the agent has not connected again yet
		synctest.Wait()
		go io.WriteString(two, "two")
		r.wantSent("the second connection's bytes", "two")
		go r.say("answer two")
		wantNext(t, "the second connection", two, "answer two")
		two.reset()
		synctest.Wait()
		wantFlags(t, r.peer, frame.DisconnectToPort)
		time.Sleep(leftover)
		synctest.Wait()
		if ended := r.of(TunnelEnded); len(ended) != 2 || ended[0].Err != nil || !errors.Is(ended[1].Err, errReset) ||
			ended[0].In != 20 || ended[0].Out != 3 {
			t.Errorf("the ends told are %v, want two, the second with a reset", ended)
		}
	})
}

// A program that quits in the middle of a download, in either order, is not waited
// for until all of it has come; and the next has none of it.
func TestBasicProgramThatQuits(t *testing.T) {
	for name, quit := range map[string]func(c *half){
		"at once":                  func(c *half) { c.reset() },
		"after its end of sending": func(c *half) { c.CloseWrite(); time.Sleep(time.Second); c.reset() },
		"as the system knows":      func(c *half) { c.leave(); time.Sleep(time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			inBasicBubble(t, func(t *testing.T, r *tunnelRig) {
				first := r.connect()
				go io.WriteString(first, "one")
				r.wantSent("the first connection's bytes", "one")
				go r.say("begin")
				wantNext(t, "the first connection", first, "begin")
				quit(first)
				begin := time.Now()
				second := make(chan *half)
				go func() { second <- r.connect() }()
				r.say("the next piece")
				synctest.Wait()
				wantFlags(t, r.peer, frame.DisconnectToPort)
				for range 5 { // what was on its way
					time.Sleep(200 * time.Millisecond)
					r.say("left over")
				}
				two := <-second
				if took := time.Since(begin); took < time.Second+leftover || took > time.Second+2*leftover {
					t.Errorf("the second connection was taken %v after the first had ended", took)
				}
				go io.WriteString(two, "two")
				r.wantSent("the second connection's bytes", "two")
				go r.say("answer two")
				wantNext(t, "the second connection", two, "answer two")
				two.reset()
			})
		})
	}
}

// One that has read all it wants and left is not waited for as one that may still read.
func TestBasicProgramThatLeaves(t *testing.T) {
	inBasicBubble(t, func(t *testing.T, r *tunnelRig) {
		for _, word := range []string{"one", "two", "three"} {
			begin := time.Now()
			c := r.connect()
			if took := time.Since(begin); took > leftover+10*time.Millisecond {
				t.Errorf("connection %s was taken after %v", word, took)
			}
			go io.WriteString(c, word)
			r.wantSent("connection "+word, word)
			go r.say("answer " + word)
			wantNext(t, "connection "+word, c, "answer "+word)
			c.leave()
		}
		time.Sleep(leftover + 10*time.Millisecond)
		wantFlags(t, r.peer, frame.DisconnectToPort, frame.DisconnectToPort, frame.DisconnectToPort)
	})
}

// What the destination says before there is a connection waits for the first.
func TestBasicEarlyWords(t *testing.T) {
	inBasicBubble(t, func(t *testing.T, r *tunnelRig) {
		r.say("220 ready\r\n")
		c := r.connect()
		wantNext(t, "the first connection", c, "220 ready\r\n")
		c.CloseWrite()
		wantRead(t, "the first connection", c, "")
		synctest.Wait()
		wantFlags(t, r.peer, frame.DisconnectToPort)
	})
}

func TestBasicManyEarlyWords(t *testing.T) {
	word := strings.Repeat("x", 16<<10)
	inBasicBubble(t, func(t *testing.T, r *tunnelRig) {
		said := make(chan int, 10)
		go func() {
			for i := range 10 {
				r.say(word)
				said <- i
			}
		}()
		synctest.Wait()
		if n := len(said); n > 5 {
			t.Errorf("%d times 16 kB were taken before there was a connection, want 64 kB and one piece", n)
		}
		c := r.connect()
		wantNext(t, "the first connection", c, strings.Repeat(word, 10))
		c.reset()
	})
}

// endingPeer is one that knows of its end before all was read.
type endingPeer struct {
	*tunnelPeer
	ending chan struct{}
}

func (p *endingPeer) Ending() <-chan struct{} { return p.ending }

// Whoever has said too much for the time before there is a connection, and ends, is
// not waited for.
func TestBasicEndAfterManyEarlyWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTunnelRig(t, "2.3.714.0", nil)
		far := &endingPeer{r.peer, make(chan struct{})}
		r.far = far
		r.run()
		defer r.cancel(nil)
		said := make(chan struct{})
		go func() {
			defer close(said)
			for range 10 {
				r.say(strings.Repeat("x", 16<<10))
			}
		}()
		time.Sleep(time.Second) // it is ready
		select {
		case <-said:
			t.Error("all was taken though there is no connection")
		default:
		}
		close(far.ending)
		<-said
		near, _ := halves()
		synctest.Wait()
		select {
		case r.conns <- near:
			t.Error("a connection was taken though the session had ended")
		default:
		}
		r.peer.end(errClosed)
		if err := <-r.result; !errors.Is(err, errClosed) {
			t.Errorf("the session's end gives %v", err)
		}
	})
}

// A connection without a byte leaves the destination's as it is.
func TestBasicConnectionWithoutBytes(t *testing.T) {
	inBasicBubble(t, func(t *testing.T, r *tunnelRig) {
		c := r.connect()
		c.CloseWrite()
		wantRead(t, "a connection that says nothing", c, "")
		synctest.Wait()
		wantFlags(t, r.peer)
		c = r.connect()
		go r.say("hello")
		wantNext(t, "the next", c, "hello")
		c.reset()
	})
}

// So it is bounded after a connection without a byte as before the first.
func TestBasicManyWordsWithoutAConnection(t *testing.T) {
	word := strings.Repeat("x", 16<<10)
	inBasicBubble(t, func(t *testing.T, r *tunnelRig) {
		c := r.connect()
		c.CloseWrite()
		wantRead(t, "a connection that says nothing", c, "")
		synctest.Wait()
		said := make(chan int, 10)
		go func() {
			for i := range 10 {
				r.say(word)
				said <- i
			}
		}()
		synctest.Wait()
		if n := len(said); n > 5 {
			t.Errorf("%d times 16 kB were taken without a connection, want 64 kB and one piece", n)
		}
		c = r.connect()
		wantNext(t, "the next connection", c, strings.Repeat(word, 10))
		c.reset()
	})
}

func TestBasicRefused(t *testing.T) {
	inBasicBubble(t, func(t *testing.T, r *tunnelRig) {
		r.peer.coming <- message{frame.Flag, string(frame.ConnectToPortError.Append(nil))} // nobody's
		c := r.connect()
		synctest.Wait()
		r.peer.coming <- message{frame.Flag, string(frame.ConnectToPortError.Append(nil))}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a refused connection goes on")
		}
		synctest.Wait()
		if refused := r.of(TunnelRefused); len(refused) != 1 || !errors.Is(refused[0].Err, ErrRefused) {
			t.Errorf("told as refused: %v, want one with its reason", refused)
		}
	})
}

func TestBasicEnds(t *testing.T) {
	for _, c := range []struct {
		what    string
		connect bool
		end     func(r *tunnelRig)
		want    error
		flags   []frame.FlagValue
	}{
		{"the session's end", true, func(r *tunnelRig) { r.peer.end(errClosed) }, errClosed, nil},
		{"the session's end, without a connection", false, func(r *tunnelRig) { r.peer.end(errLost) }, errLost, nil},
		{"the context's end", true, func(r *tunnelRig) { r.cancel(errStopped) }, errStopped, []frame.FlagValue{frame.TerminateSession}},
		{"the context's end, without a connection", false, func(r *tunnelRig) { r.cancel(errStopped) }, errStopped, []frame.FlagValue{frame.TerminateSession}},
		{"no more connections", false, func(r *tunnelRig) { close(r.conns) }, nil, []frame.FlagValue{frame.TerminateSession}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newTunnelRig(t, "2.3.714.0", nil)
			r.run()
			var program *half
			if c.connect {
				program = r.connect()
				go io.WriteString(program, "x")
				r.wantSent(c.what, "x")
				go r.say("last")
				wantNext(t, c.what, program, "last")
			}
			synctest.Wait()
			c.end(r)
			if err := <-r.result; !errors.Is(err, c.want) {
				t.Errorf("%s gives %v, want %v", c.what, err, c.want)
			}
			wantFlags(t, r.peer, c.flags...)
			if program == nil {
				return
			}
			if _, err := program.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: the local connection stays open", c.what)
			}
			if ended := r.of(TunnelEnded); len(ended) != 1 || !errors.Is(ended[0].Err, c.want) {
				t.Errorf("%s: the ends told are %v, want one with %v", c.what, ended, c.want)
			}
		})
	}
}

func TestBasicMuch(t *testing.T) {
	inBasicBubble(t, func(t *testing.T, r *tunnelRig) {
		c := r.connect()
		up, down := random(1<<20), random(1<<20+1)
		go c.Write(up)
		go func() {
			for rest := down; len(rest) > 0; {
				n := min(1024, len(rest))
				r.say(string(rest[:n]))
				rest = rest[n:]
			}
		}()
		got := make(chan []byte)
		go func() {
			var b bytes.Buffer
			io.CopyN(&b, c, int64(len(down)))
			got <- b.Bytes()
		}()
		r.wantSent("an upload", string(up))
		if !bytes.Equal(<-got, down) {
			t.Error("the download has other bytes")
		}
		c.reset()
	})
}
