package session

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/ports"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// An agent throws away what it acknowledges just after the handshake: a connection
// that waits for a session would never be answered.
func TestTunnelSendsNothingAtOnce(t *testing.T) {
	for what, version := range map[string]string{"multiplexed": "3.3.0.0", "one connection after another": "2.3.714.0"} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newTunnelRig(t, version, nil)
				began := time.Now()
				r.run()
				wrote := make(chan struct{})
				go func() {
					defer close(wrote)
					if _, err := r.connect().Write([]byte("hello")); err != nil {
						t.Errorf("the local program cannot write: %v", err)
					}
				}()
				<-r.peer.toAgent
				if took := time.Since(began); took != settleTime {
					t.Errorf("the agent was sent something after %v, want %v", took, settleTime)
				}
				if len(r.of(TunnelReady)) != 1 {
					t.Error("it is not ready")
				}
				<-wrote
				r.stop()
			})
		})
	}
}

// slowAgent is one that acknowledges nothing before taken is closed.
type slowAgent struct {
	*tunnelPeer
	taken chan struct{}
}

func (p *slowAgent) Sent() int64 { return 0 }

func (p *slowAgent) Settled(int64) bool {
	select {
	case <-p.taken:
		return true
	default:
		return false
	}
}

// A destination that is forbidden or not known ends the session just after the
// handshake, or after the search for the name: it was never ready.
func TestTunnelIsNotReadyBeforeTheAgentIs(t *testing.T) {
	closed := errors.New("forbidden")
	for _, tt := range []struct {
		what    string
		version string
		after   time.Duration
		ready   bool
	}{
		{"closed at once", "3.3.0.0", 15 * time.Millisecond, false},
		{"closed after a long search for the name", "3.3.0.0", 5 * time.Second, false},
		{"one connection after another, closed at once", "2.3.714.0", 15 * time.Millisecond, false},
		{"one connection after another, closed later", "2.3.714.0", settleTime + 1, true},
	} {
		t.Run(tt.what, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newTunnelRig(t, tt.version, nil)
				r.far = &slowAgent{r.peer, make(chan struct{})}
				go func() {
					time.Sleep(tt.after)
					r.peer.end(closed)
				}()
				r.run()
				if err := r.over(); !errors.Is(err, closed) {
					t.Errorf("the end was told as %v, want the session's", err)
				}
				if got := len(r.of(TunnelReady)) > 0; got != tt.ready {
					t.Errorf("ready was told: %t, want %t", got, tt.ready)
				}
			})
		})
	}
}

func TestTunnelIsReadyOnceTheAgentTakesInput(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newTunnelRig(t, "3.3.0.0", nil)
		agent := &slowAgent{r.peer, make(chan struct{})}
		r.far = agent
		r.run()
		if after := <-r.peer.tried; after != settleTime {
			t.Errorf("the agent was tried after %v, want %v", after, settleTime)
		}
		time.Sleep(time.Minute)
		if len(r.of(TunnelReady)) != 0 {
			t.Error("ready was told before the agent had acknowledged anything")
		}
		close(agent.taken)
		time.Sleep(settleTick)
		synctest.Wait()
		if len(r.of(TunnelReady)) != 1 {
			t.Error("ready was not told when the agent had acknowledged it")
		}
		r.stop()
	})
}

func TestTunnelEcho(t *testing.T) {
	inBubble(t, echo, func(t *testing.T, r *tunnelRig) {
		began := time.Now()
		c := r.connect()
		sent := string(random(100_000))
		go func() {
			mustWrite(t, c, sent)
			c.CloseWrite()
		}()
		wantRead(t, "an echo, after the end of what was sent", c, sent)
		if took := time.Since(began); took < DefaultHalfCloseWait || took > DefaultHalfCloseWait+time.Second {
			t.Errorf("the end was passed on after %v, want the wait of %v", took, DefaultHalfCloseWait)
		}
		synctest.Wait()
		ended := r.of(TunnelEnded)
		if len(ended) != 1 || ended[0].Err != nil || ended[0].In != int64(len(sent)) || ended[0].Out != int64(len(sent)) {
			t.Errorf("the end was told as %v, want 100000 bytes both ways and no error", ended)
		}
		if len(r.of(TunnelReady)) != 1 || len(r.of(TunnelOpened)) != 1 {
			t.Errorf("the events were %v, want one that it is ready and one that a connection was opened", r.events)
		}
	})
}

// A destination that replies after the local end-of-file, again and again.
func TestTunnelLateReplies(t *testing.T) {
	serve := func(c net.Conn) error {
		io.ReadFull(c, make([]byte, 3))
		for range 5 {
			time.Sleep(1900 * time.Millisecond)
			io.WriteString(c, "late ")
		}
		return c.Close()
	}
	inBubble(t, serve, func(t *testing.T, r *tunnelRig) {
		c := r.connect()
		mustWrite(t, c, "ask")
		c.CloseWrite()
		wantRead(t, "replies each within the wait", c, strings.Repeat("late ", 5))
	})
}

func TestTunnelReplyAfterTheWaitIsLost(t *testing.T) {
	serve := func(c net.Conn) error {
		io.Copy(io.Discard, c) // answers only after the end, which is the agent's end, too
		io.WriteString(c, "too late")
		return c.Close()
	}
	inBubble(t, serve, func(t *testing.T, r *tunnelRig) {
		c := r.connect()
		mustWrite(t, c, "ask")
		c.CloseWrite()
		wantRead(t, "the connection ends, as the agent's does", c, "")
	})
}

func TestTunnelLargeReplyToASlowReader(t *testing.T) {
	reply := string(random(6 << 20)) // more than the multiplexer keeps
	serve := func(c net.Conn) error {
		io.ReadFull(c, make([]byte, 3))
		io.WriteString(c, reply)
		return c.Close()
	}
	inBubble(t, serve, func(t *testing.T, r *tunnelRig) {
		c := r.connect()
		mustWrite(t, c, "ask")
		c.CloseWrite()
		var got strings.Builder
		for {
			time.Sleep(3 * time.Second) // longer than the wait
			n, err := io.CopyN(&got, c, 1_000_000)
			if err != nil {
				break
			}
			if n == 0 {
				t.Fatal("nothing came and no end")
			}
		}
		if got.String() != reply {
			t.Errorf("%d bytes of the reply came, want %d", got.Len(), len(reply))
		}
	})
}

// The destination ends first: the local program reads its end, and what it still
// sends does not take from it what it has not read.
func TestTunnelDestinationEndsFirst(t *testing.T) {
	serve := func(c net.Conn) error {
		io.WriteString(c, "no")
		return c.Close()
	}
	inBubble(t, serve, func(t *testing.T, r *tunnelRig) {
		c := r.connect()
		wantRead(t, "what the destination said", c, "no")
		mustWrite(t, c, "and more")
		synctest.Wait()
		if n := len(r.of(TunnelEnded)); n != 0 {
			t.Error("the connection was closed while the local program still wrote")
		}
		time.Sleep(linger + time.Millisecond)
		synctest.Wait()
		if ended := r.of(TunnelEnded); len(ended) != 1 || ended[0].Err != nil {
			t.Errorf("the ends told are %v, want one, without an error", ended)
		}
	})
}

func TestTunnelRefused(t *testing.T) {
	// The first destination refuses, others do not.
	first := make(chan struct{}, 1)
	first <- struct{}{}
	inBubble(t, func(c net.Conn) error {
		select {
		case <-first:
			return errors.New("refused")
		default:
			return echo(c)
		}
	}, func(t *testing.T, r *tunnelRig) {
		c := r.connect()
		if got, err := io.ReadAll(c); len(got) != 0 {
			t.Errorf("a refused connection gave %q, %v, want its end", got, err)
		}
		synctest.Wait()
		refused := r.of(TunnelRefused)
		if len(refused) != 1 || !errors.Is(refused[0].Err, ErrRefused) || refused[0].Conn == nil {
			t.Errorf("told as refused: %v, want the one with its reason", refused)
		}
		other := r.connect()
		mustWrite(t, other, "hello")
		buf := make([]byte, 5)
		if _, err := io.ReadFull(other, buf); err != nil || string(buf) != "hello" {
			t.Errorf("after a refusal, another connection gives %q, %v", buf, err)
		}
		other.Close()
		time.Sleep(time.Minute)
		if n := len(r.of(TunnelRefused)); n != 1 {
			t.Errorf("%d connections were told as refused, want 1", n)
		}
	})
}

// A connection that ends without data long after a refusal is not that refusal's.
func TestTunnelRefusalThatBelongsToNobody(t *testing.T) {
	serve := func(c net.Conn) error {
		io.ReadFull(c, make([]byte, 1))
		return c.Close()
	}
	inBubble(t, serve, func(t *testing.T, r *tunnelRig) {
		r.peer.coming <- message{frame.Flag, string(frame.ConnectToPortError.Append(nil))}
		r.peer.coming <- message{frame.Flag, "no flag"}
		r.peer.coming <- message{frame.StdErr, "not of the bytes"}
		c := r.connect()
		time.Sleep(refusalLife + time.Second)
		mustWrite(t, c, "x")
		wantRead(t, "a destination that says nothing", c, "")
		time.Sleep(time.Minute)
		if len(r.of(TunnelRefused)) != 0 || len(r.of(TunnelEnded)) != 1 {
			t.Errorf("the events are %v, want an end and no refusal", r.events)
		}
	})
}

// A refusal is that of a stream without data which ends just then: not of one that has
// said something, nor of two.
func TestTunnelRefusalsAreMatched(t *testing.T) {
	serve := func(c net.Conn) error {
		word := make([]byte, 4)
		io.ReadFull(c, word)
		if string(word) == "talk" {
			io.WriteString(c, "hello")
		}
		return c.Close()
	}
	refusal := message{frame.Flag, string(frame.ConnectToPortError.Append(nil))}
	inBubble(t, serve, func(t *testing.T, r *tunnelRig) {
		r.peer.coming <- refusal
		c := r.connect()
		mustWrite(t, c, "talk")
		wantRead(t, "a destination that says something", c, "hello")
		c.Close()
		time.Sleep(refusalLife + time.Second) // nobody's, so far
		synctest.Wait()
		if n := len(r.of(TunnelRefused)); n != 0 {
			t.Errorf("a connection with data was told as refused")
		}
		r.peer.coming <- refusal
		for range 2 {
			c := r.connect()
			mustWrite(t, c, "hush")
			wantRead(t, "a destination that says nothing", c, "")
			c.Close()
		}
		synctest.Wait()
		if n := len(r.of(TunnelRefused)); n != 1 {
			t.Errorf("of one refusal %d connections were told as refused", n)
		}
	})
}

// A local program that is killed: its connection ends at once at the far side.
func TestTunnelLocalReset(t *testing.T) {
	served := make(chan error, 1)
	bubble(t, func(t *testing.T) {
		r := newTunnelRig(t, "3.3.0.0", func(c net.Conn) error {
			_, err := io.Copy(io.Discard, c)
			served <- err
			return c.Close()
		})
		r.run()
		c := r.connect()
		mustWrite(t, c, "hello")
		time.Sleep(time.Second)
		began := time.Now()
		c.reset()
		<-served
		if took := time.Since(began); took != 0 {
			t.Errorf("the destination saw the end after %v, want at once", took)
		}
		synctest.Wait()
		if ended := r.of(TunnelEnded); len(ended) != 1 || !errors.Is(ended[0].Err, errReset) {
			t.Errorf("the ends told are %v, want one with the reset", ended)
		}
		r.stop()
	})
}

// A program that has left reads no answer, so that its destination hears of its end at
// once. One that has only ended its sending does.
func TestTunnelProgramThatLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		heard := make(chan time.Duration)
		r := newTunnelRig(t, "3.3.0.0", func(c net.Conn) error {
			defer c.Close()
			if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
				return err
			}
			begin := time.Now()
			_, err := c.Read(make([]byte, 1))
			heard <- time.Since(begin)
			return err
		})
		r.run()
		c := r.connect()
		mustWrite(t, c, "quit")
		c.leave()
		if took := <-heard; took > 10*time.Millisecond {
			t.Errorf("the destination of a program that left heard of it after %v", took)
		}
		synctest.Wait()
		if ended := r.of(TunnelEnded); len(ended) != 1 || ended[0].Err != nil || ended[0].Out != 4 {
			t.Errorf("the ends told are %v, want one without an error", ended)
		}
		c = r.connect()
		mustWrite(t, c, "quit")
		c.CloseWrite()
		if took := <-heard; took < DefaultHalfCloseWait/2 {
			t.Errorf("the destination of a program that still reads heard of its end after %v", took)
		}
		r.stop()
	})
}

func TestTunnelEndsWithItsConnections(t *testing.T) {
	inBubble(t, echo, func(t *testing.T, r *tunnelRig) {
		c := r.connect()
		close(r.conns)
		synctest.Wait()
		select {
		case err := <-r.result:
			t.Fatalf("it ended with a connection open: %v", err)
		default:
		}
		mustWrite(t, c, "x")
		c.CloseWrite()
		wantRead(t, "the last connection", c, "x")
		if err := <-r.result; err != nil {
			t.Errorf("the end of all connections gave %v, want nil", err)
		}
		wantFlags(t, r.peer, frame.TerminateSession)
		r.result <- nil // for stop
	})
}

func TestTunnelEndOfTheContext(t *testing.T) {
	inBubble(t, echo, func(t *testing.T, r *tunnelRig) {
		c := r.connect()
		mustWrite(t, c, "x")
		io.ReadFull(c, make([]byte, 1))
		if err := r.stop(); !errors.Is(err, errStopped) {
			t.Errorf("the end of the context gave %v, want its cause", err)
		}
		wantFlags(t, r.peer, frame.TerminateSession)
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the local connection stays open")
		}
		if ended := r.of(TunnelEnded); len(ended) != 1 || !errors.Is(ended[0].Err, errStopped) {
			t.Errorf("the ends told are %v, want one with the cause", ended)
		}
		r.result <- nil // for stop
	})
}

func wantFlags(t *testing.T, p *tunnelPeer, want ...frame.FlagValue) {
	t.Helper()
	for i, w := range want {
		select {
		case got := <-p.flags:
			if got != w {
				t.Errorf("flag %d was %d, want %d", i, got, w)
			}
		default:
			t.Errorf("flag %d, %d, was not sent", i, w)
		}
	}
	if len(p.flags) > 0 {
		t.Errorf("flag %d was sent, too", <-p.flags)
	}
}

// stuckPeer takes nothing once the session is ready.
type stuckPeer struct{ *tunnelPeer }

func (p stuckPeer) Send(ctx context.Context, _ frame.PayloadType, b []byte) error {
	if string(b) == ports.Nop {
		return nil
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestTunnelEndsThoughNothingCanBeSent(t *testing.T) {
	for what, version := range map[string]string{"multiplexed": "3.3.0.0", "one at a time": "2.3.714.0"} {
		bubble(t, func(t *testing.T) {
			conns := make(chan net.Conn)
			ctx, cancel := context.WithCancelCause(t.Context())
			result := make(chan error)
			go func() {
				result <- Tunnel{Conns: conns}.Run(ctx, stuckPeer{newTunnelPeer(startOf(version))})
			}()
			near, c := halves()
			conns <- near
			go c.Write(random(1 << 20))
			time.Sleep(time.Second)
			began := time.Now()
			cancel(errStopped)
			if err := <-result; !errors.Is(err, errStopped) {
				t.Errorf("%s: it gave %v, want the cause", what, err)
			}
			if took := time.Since(began); took != terminateGrace {
				t.Errorf("%s: the end took %v, want %v", what, took, terminateGrace)
			}
		})
	}
}

// What came before the session's end is given to those who read.
func TestTunnelEndOfTheSession(t *testing.T) {
	reply := string(random(1 << 20))
	sent := make(chan struct{})
	inBubble(t, func(c net.Conn) error {
		io.WriteString(c, reply)
		close(sent)
		_, err := io.Copy(io.Discard, c)
		return err
	}, func(t *testing.T, r *tunnelRig) {
		c := r.connect()
		buf := make([]byte, 1)
		io.ReadFull(c, buf)
		<-sent
		synctest.Wait()
		r.peer.end(errClosed)
		time.Sleep(time.Second)
		wantRead(t, "what had come", c, reply[1:])
		if err := <-r.result; !errors.Is(err, io.EOF) {
			t.Errorf("the session's end gave %v, want Recv's error", err)
		}
		wantFlags(t, r.peer)
		r.result <- nil // for stop
	})
}

func TestTunnelEndOfTheSessionWithoutAReader(t *testing.T) {
	inBubble(t, func(c net.Conn) error {
		io.Copy(c, strings.NewReader(strings.Repeat("x", 1<<20)))
		return nil
	}, func(t *testing.T, r *tunnelRig) {
		r.connect() // and never reads
		time.Sleep(time.Second)
		r.peer.end(errLost)
		began := time.Now()
		if err := <-r.result; !errors.Is(err, errLost) {
			t.Errorf("the session's end gave %v, want Recv's error", err)
		}
		if took := time.Since(began); took > drainLimit {
			t.Errorf("a program that does not read held the end for %v", took)
		}
		r.result <- nil // for stop
	})
}

func TestTunnelThatIsNoSmux(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newTunnelRig(t, "3.3.0.0", nil)
		r.run()
		c := r.connect()
		<-r.peer.toAgent
		r.peer.coming <- message{frame.Output, "SSH-2.0-OpenSSH_9.9\r\n"}
		if err := <-r.result; err == nil || !strings.Contains(err.Error(), "not smux") {
			t.Errorf("bytes that are no smux gave %v, want an error that says so", err)
		}
		wantFlags(t, r.peer, frame.TerminateSession)
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the local connection stays open")
		}
	})
}

// While the data channel is away, for longer than smux waits to open a stream,
// connections are kept and go on afterwards.
func TestTunnelWhileTheLinkIsAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newTunnelRig(t, "3.3.0.0", nil)
		r.run()
		var programs []*half
		for range 50 {
			c := r.connect()
			programs = append(programs, c)
			go c.Write(random(100_000))
		}
		time.Sleep(5 * time.Minute) // nobody takes what is sent
		if refused := r.of(TunnelRefused); len(refused) != 0 || len(r.of(TunnelOpened)) != 50 {
			t.Fatalf("%d connections were refused, %d opened, want all 50 opened", len(refused), len(r.of(TunnelOpened)))
		}
		if len(r.of(TunnelEnded)) != 0 {
			t.Errorf("connections ended: %v", r.of(TunnelEnded))
		}
		var got int
		for got < 50*100_000 {
			got += len(<-r.peer.toAgent)
		}
		for _, c := range programs {
			c.Close()
		}
		r.cancel(errStopped)
		<-r.result
	})
}

func TestTunnelKeepAlive(t *testing.T) {
	const nop = "\x01\x03\x00\x00\x00\x00\x00\x00"
	for _, c := range []struct {
		agent string
		asked bool
		want  bool
	}{
		{"3.0.222.0", false, true},
		{"3.0.222", false, true},
		{"3.1.1445.0", false, true},
		{"3.1.1446.0", false, false},
		{"3.1.1575.0", false, false},
		{"3.3.0.0", false, false},
		{"3.3.0.0", true, true},
	} {
		bubble(t, func(t *testing.T) {
			r := newTunnelRig(t, c.agent, nil)
			r.tunnel.KeepAlive = c.asked
			r.run()
			time.Sleep(90*time.Second + time.Millisecond)
			synctest.Wait()
			var got string
			for done := false; !done; {
				select {
				case p := <-r.peer.toAgent:
					got += string(p)
					synctest.Wait()
				default:
					done = true
				}
			}
			want := ""
			if c.want {
				want = strings.Repeat(nop, 9)
			}
			if got != want {
				t.Errorf("agent %s, asked %v: in 90 s %q was sent, want %q", c.agent, c.asked, got, want)
			}
			select {
			case err := <-r.result:
				t.Errorf("agent %s: the tunnel ended for silence: %v", c.agent, err)
			default:
			}
			r.cancel(errStopped)
			<-r.result
		})
	}
}

func TestTunnelVersions(t *testing.T) {
	port := startOf("")
	for _, c := range []struct {
		what       string
		agent      string
		properties string
		mux        bool
	}{
		{"the first that multiplexes", "3.0.222.0", string(port.Properties), true},
		{"three components", "3.0.222", string(port.Properties), true},
		{"just after the mark", "3.0.196.1", string(port.Properties), true},
		{"at the mark", "3.0.196.0", string(port.Properties), false},
		{"at the mark, shorter", "3.0.196", string(port.Properties), false},
		{"old", "2.3.714.0", string(port.Properties), false},
		{"no version", "", string(port.Properties), false},
		{"no number", "3.x.0.0", string(port.Properties), false},
		{"SSH", "3.3.0.0", `{"portNumber":"22"}`, false},
		{"no properties", "3.3.0.0", ``, false},
		{"properties that are none", "3.3.0.0", `[]`, false},
	} {
		start := frame.Start{SessionType: frame.Port, AgentVersion: c.agent, Properties: []byte(c.properties)}
		if got := Multiplexed(start); got != c.mux {
			t.Errorf("%s: multiplexed is %v, want %v", c.what, got, c.mux)
		}
	}
}

func TestTunnelRefusesSessions(t *testing.T) {
	for _, c := range []struct {
		what   string
		start  frame.Start
		remote bool
		want   string
	}{
		{"a shell", frame.Start{SessionType: frame.StandardStream}, false, "Standard_Stream"},
		{"an agent that knows no other hosts", startOf("3.1.1187.0"), true, "agent 3.1.1187.0 cannot forward to another host"},
		{"an agent that does not multiplex, either", startOf("2.3.714.0"), true, "agent 2.3.714.0 cannot forward to another host"},
	} {
		peer := newTunnelPeer(c.start)
		err := Tunnel{RemoteHost: c.remote}.Run(t.Context(), peer)
		var refused *TunnelError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the error is %v, want a TunnelError with %q", c.what, err, c.want)
		}
		wantFlags(t, peer, frame.TerminateSession)
	}
	if err := (Tunnel{RemoteHost: true}).check(startOf("3.1.1188.0")); err != nil {
		t.Errorf("agent 3.1.1188 is refused: %v", err)
	}
}

// A panic for one connection ends the tunnel in order.
func TestTunnelWithAMistakeInIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newTunnelRig(t, "3.3.0.0", echo)
		r.tunnel.Notify = func(e TunnelEvent) {
			if e.Kind == TunnelOpened {
				panic("a mistake")
			}
		}
		r.run()
		c := r.connect()
		if err := <-r.result; err == nil || !strings.Contains(err.Error(), "a mistake") {
			t.Errorf("a panic for one connection gives %v, want an error of the tunnel", err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the local connection stays open")
		}
		r.result <- nil // for stop
		r.stop()
		time.Sleep(time.Second) // the agent ends, too
	})
}

// A program that takes nothing does not keep the end of its session from being known;
// one that takes what there is, slowly, gets it.
func TestTunnelEndsBehindAProgramThatTakesNothing(t *testing.T) {
	for _, version := range []string{"3.3.0.0", "2.3.714.0"} {
		for what, slow := range map[string]bool{"takes nothing": false, "is slow": true} {
			t.Run(version+" "+what, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					const piece, pieces = 64 << 10, 100 // 6 MiB, more than a multiplexer keeps
					r := newTunnelRig(t, version, nil)
					far := &endingPeer{r.peer, make(chan struct{})}
					r.far = far
					r.run()
					c := r.connect()
					go io.WriteString(c, "x")
					header := ""
					for got := ""; !strings.HasSuffix(got, "x"); {
						got = string(<-r.peer.toAgent)
						header = got[:max(0, len(got)-1)]
					}
					go func() { // what is here when the session ends, and not yet taken
						for range pieces {
							said := strings.Repeat("y", piece)
							if header != "" {
								said = "\x01\x02\x00\x80\x03\x00\x00\x00" + said[:32<<10]
								said += said
							}
							r.peer.coming <- message{frame.Output, said}
						}
						r.peer.end(errClosed)
					}()
					time.Sleep(time.Second)
					close(far.ending)
					ended := time.Now()
					got := make(chan int64, 1)
					if slow {
						go func() {
							n := int64(0)
							for range pieces {
								time.Sleep(time.Second)
								m, err := io.CopyN(io.Discard, c, piece)
								if n += m; err != nil {
									break
								}
							}
							got <- n
						}()
					}
					if err := r.over(); !errors.Is(err, errClosed) {
						t.Errorf("the session's end gives %v", err)
					}
					took := time.Since(ended)
					switch {
					case slow:
						if n := <-got; n < pieces*piece-(4<<20) || took < 10*time.Second {
							t.Errorf("after %v a slow program got %d bytes of %d", took, n, pieces*piece)
						}
					case took > 2*drainLimit+time.Second:
						t.Errorf("the end was known after %v", took)
					}
				})
			})
		}
	}
}

// busyPeer is one to which so much is sent that something is always under way: of what
// was sent after the first word, the last is never acknowledged.
type busyPeer struct {
	*tunnelPeer
	sent atomic.Int64
}

func (p *busyPeer) Sent() int64             { return p.sent.Load() }
func (p *busyPeer) Settled(mark int64) bool { return mark <= 1 || mark < p.sent.Load() }

func (p *busyPeer) Send(ctx context.Context, t frame.PayloadType, b []byte) error {
	err := p.tunnelPeer.Send(ctx, t, b)
	p.sent.Add(1)
	return err
}

// An upload over one connection does not keep the end of another from the far side.
func TestTunnelEndOfOneConnectionBesideTheUploadOfAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ended := make(chan struct{})
		r := newTunnelRig(t, "3.3.0.0", func(c net.Conn) error {
			first := make([]byte, 1)
			if _, err := io.ReadFull(c, first); err != nil {
				return err
			}
			_, err := io.Copy(io.Discard, c)
			if first[0] == 'q' {
				close(ended)
			}
			return err
		})
		r.far = &busyPeer{tunnelPeer: r.peer}
		r.run()
		bulk, other := r.connect(), r.connect()
		var upload sync.WaitGroup
		upload.Go(func() {
			for {
				time.Sleep(10 * time.Millisecond)
				if _, err := bulk.Write(make([]byte, 10_000)); err != nil {
					return
				}
			}
		})
		mustWrite(t, other, "q")
		began := time.Now()
		other.CloseWrite()
		select {
		case <-ended:
			if took := time.Since(began); took < DefaultHalfCloseWait || took > DefaultHalfCloseWait+time.Second {
				t.Errorf("the end was passed on after %v, want the wait of %v", took, DefaultHalfCloseWait)
			}
		case <-time.After(time.Minute):
			t.Error("the end was not passed on within a minute")
		}
		r.stop()
		upload.Wait()
	})
}

// Who wants no wait gets none, and not the default.
func TestTunnelWithoutAWaitPassesTheEndOnAtOnce(t *testing.T) {
	for _, version := range []string{"3.3.0.0", "2.3.714.0"} {
		t.Run(version, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newTunnelRig(t, version, nil)
				r.tunnel.HalfCloseWait = 0
				r.run()
				c := r.connect()
				go func() {
					io.WriteString(c, "quit")
					c.CloseWrite()
				}()
				for got := ""; !strings.HasSuffix(got, "quit"); {
					got = string(<-r.peer.toAgent)
				}
				began := time.Now()
				if version == "2.3.714.0" {
					if flag := <-r.peer.flags; flag != frame.DisconnectToPort {
						t.Errorf("after the bytes came the flag %d, want the end", flag)
					}
				} else if fin := <-r.peer.toAgent; fin[1] != 1 {
					t.Errorf("after the bytes came %x, want the end", fin)
				}
				if took := time.Since(began); took > 10*time.Millisecond {
					t.Errorf("the end was sent %v after the last byte", took)
				}
				r.stop()
			})
		})
	}
}

// Bytes that the local program sent, and that wait behind a far end that takes
// none, are not silence.
func TestTunnelEndWaitsForWhatWasSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newTunnelRig(t, "3.3.0.0", nil)
		r.run()
		c := r.connect()
		go func() {
			c.Write(make([]byte, 30_000))
			c.CloseWrite()
		}()
		time.Sleep(time.Hour)
		got := 0
		for got < 8+30_000 {
			got += len(<-r.peer.toAgent) - 8 // a frame's header
		}
		began := time.Now()
		if fin := <-r.peer.toAgent; fin[1] != 1 {
			t.Errorf("after the bytes came %x, want the end", fin)
		}
		if took := time.Since(began); took != DefaultHalfCloseWait {
			t.Errorf("the end was sent %v after the last byte, want %v", took, DefaultHalfCloseWait)
		}
		r.stop()
	})
}
