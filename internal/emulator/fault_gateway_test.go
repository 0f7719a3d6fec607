package emulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// parrot is an agent that sends back every input as output of the same number, and
// nothing else: what is lost while no client is there leaves no gap.
func parrot(ctx context.Context, _ agent.Config, leg agent.Leg) agent.Result {
	for {
		data, err := leg.Receive(ctx)
		if err != nil {
			return agent.Result{Status: "Cancelled"}
		}
		m, err := frame.Parse(data)
		if err != nil || m.Type != frame.InputStreamData {
			continue
		}
		m.Type = frame.OutputStreamData
		if err := send(ctx, leg, &m); err != nil {
			return agent.Result{Status: "Cancelled"}
		}
	}
}

// opened starts a session and opens it.
func opened(t testing.TB, s *Server) (grant, *peer) {
	t.Helper()
	g := mustStart(t, s, `{"Target":"local"}`)
	p := connect(t, s, g)
	p.until("opening", func() bool { return p.started == 1 })
	return g, p
}

// say sends a word and waits for its echo.
func (p *peer) say(word string) {
	p.t.Helper()
	p.send(frame.Output, []byte(word))
	p.wantOutput(word)
}

// again opens a session anew with another socket.
func (p *peer) again(s *Server, g grant) {
	p.t.Helper()
	p.conn.Close()
	p.reconnect(s, mustResume(p.t, s, g))
}

// silent tells that nothing came for a while, which cannot be waited for. The socket
// cannot be read any more.
func (p *peer) silent(what string) {
	p.t.Helper()
	if err := p.conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		p.t.Fatal(err)
	}
	kind, data, err := p.conn.ReadMessage()
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		p.t.Errorf("%s: there came %d, %d bytes, %v", what, kind, len(data), err)
	}
}

// end reads to the end of the socket and tells how that was.
func (p *peer) end() error {
	p.t.Helper()
	for {
		_, err := p.receive()
		if err == nil {
			continue
		}
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			p.t.Fatal("the socket stays open")
		}
		return err
	}
}

// TestFaultsMeetRealTraffic turns one fault after the other on and off.
func TestFaultsMeetRealTraffic(t *testing.T) {
	s := startWith(t, Config{Faults: faultsOf(t, "drop=100%,to-agent")}, echo)
	g := mustStart(t, s, `{"Target":"local"}`)
	p := connect(t, s, g)
	p.wantOutput("<start_publication>") // the service's own is never dropped
	p.send(frame.Output, []byte("lost;"))
	l := s.sessions.find(g.SessionID).currentLeg()
	relayed := func() int {
		l.faults.mu.Lock()
		defer l.faults.mu.Unlock()
		return l.faults.relayed
	}
	for end := time.Now().Add(patience); relayed() < 3; runtime.Gosched() { // the output, its acknowledgement, the input
		if time.Now().After(end) {
			t.Fatal("the gateway does not read the input")
		}
	}
	setFaults(t, s)
	p.say("found;")
	setFaults(t, s, "duplicate=100%,to-agent")
	p.say("twice;")
	p.wantOutput("twice;twice;")
	setFaults(t, s, "drop=100%,to-client")
	p.send(frame.Output, []byte("unheard"))
	setFaults(t, s, "delay=100ms,to-client")
	begin := time.Now()
	p.next, p.expected = 0, 0
	if err := p.conn.WriteMessage(websocket.BinaryMessage, inputMessage(0, frame.Output, []byte("late"))); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := p.receive()
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Payload) == "late" {
			break
		}
	}
	if took := time.Since(begin); took < 100*time.Millisecond {
		t.Errorf("a frame that is 100 ms late took %v", took)
	}
	if got := p.output.String(); strings.Contains(got, "lost") || !strings.Contains(got, "found;twice;twice;") {
		t.Errorf("the output is %q", got)
	}
}

// TestBadDayIsHadAgain: two servers with one seed lose the same frames of the same
// traffic, another seed others.
func TestBadDayIsHadAgain(t *testing.T) {
	lost := func(seed uint64) string {
		s := startWith(t, Config{FaultSeed: seed, Faults: faultsOf(t, "drop=30%,to-agent", "drop=30%,to-client")}, mirror)
		conn := openSocket(t, s, mustStart(t, s, `{"Target":"local"}`))
		write := func(n int64) {
			if err := conn.WriteMessage(websocket.BinaryMessage, inputMessage(n, frame.Output, []byte("x"))); err != nil {
				t.Fatal(err)
			}
		}
		const frames, ends = 100, 50 // that all ends are lost is as good as impossible
		for n := range int64(frames + ends) {
			write(n)
		}
		lost := []byte(strings.Repeat("-", frames))
		for {
			_, data, err := conn.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			m, err := frame.Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			if m.Sequence >= frames {
				return string(lost)
			}
			lost[m.Sequence] = '+'
		}
	}
	first := lost(1234)
	if n := strings.Count(first, "-"); n < 30 || n > 72 {
		t.Errorf("%d of 100 frames are lost, not about 51: %s", n, first)
	}
	if again := lost(1234); again != first {
		t.Errorf("the same seed loses others:\n%s\n%s", first, again)
	}
	if other := lost(4321); other == first {
		t.Error("another seed loses the same")
	}
}

// TestCorruptFrames: the client's check finds them. The agent has none.
func TestCorruptFrames(t *testing.T) {
	s := startWith(t, Config{}, mirror)
	conn := openSocket(t, s, mustStart(t, s, `{"Target":"local"}`))
	setFaults(t, s, "corrupt=100%,to-client")
	if err := conn.WriteMessage(websocket.BinaryMessage, inputMessage(0, frame.Output, []byte("text"))); err != nil {
		t.Fatal(err)
	}
	_, data, err := conn.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	if m, err := frame.Parse(data); err != nil || m.Verify() == nil || len(m.Payload) != 4 {
		t.Errorf("a corrupt frame is read as %+v, %v", m, err)
	}
}

// TestRealAgentOnABadDay: with the agent's repetition everything arrives.
func TestRealAgentOnABadDay(t *testing.T) {
	needPTY(t)
	s := startServer(t, Config{FaultSeed: 7, Faults: faultsOf(t,
		"drop=10%,to-client", "duplicate=10%", "reorder=10%,to-client", "lose-acks=10%,to-agent", "corrupt=2%,to-client", "delay=1ms")})
	g := mustStart(t, s, `{"Target":"local","DocumentName":"AWS-StartInteractiveCommand","Parameters":{"command":["seq 5000 | cat; read line"]}}`)
	p := connect(t, s, g)
	for told := false; p.closed == nil; {
		if !told && bytes.Contains(p.output.Bytes(), []byte("\r\n5000\r\n")) {
			p.send(frame.Output, []byte("\r"))
			told = true
		}
		if err := p.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, data, err := p.conn.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if m, err := frame.Parse(data); err == nil && m.Verify() == nil {
			p.take(&m)
		}
	}
	var want bytes.Buffer
	for i := range 5000 {
		fmt.Fprintf(&want, "%d\r\n", i+1)
	}
	want.WriteString("\r\n") // the echo of the input
	if !bytes.Equal(p.output.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes came, not the right %d", p.output.Len(), want.Len())
	}
}

// TestLateFramesComeBeforeTheEnd: channel_closed does not overtake them.
func TestLateFramesComeBeforeTheEnd(t *testing.T) {
	s := startWith(t, Config{Faults: faultsOf(t, "delay=200ms,to-client")}, echo)
	p := connect(t, s, mustStart(t, s, `{"Target":"local"}`))
	p.send(frame.Output, []byte("last words"))
	p.send(frame.Output, []byte("exit"))
	p.wantClosed()
	if got := p.output.String(); !strings.HasSuffix(got, "last words") {
		t.Errorf("before the end came %q", got)
	}
}

// TestCut is the specification of the ways in which a socket is cut.
func TestCut(t *testing.T) {
	for _, secure := range []bool{false, true} {
		s := startWith(t, Config{TLS: secure}, parrot)
		for spec, is := range map[string]func(error) bool{
			"cut=after:200ms": func(err error) bool {
				return websocket.IsCloseError(err, websocket.CloseAbnormalClosure) || errors.Is(err, io.ErrUnexpectedEOF)
			},
			"cut=after:200ms,close": func(err error) bool { return websocket.IsCloseError(err, websocket.CloseNormalClosure) },
			"cut=after:200ms,reset": func(err error) bool { return errors.Is(err, syscall.ECONNRESET) || runtime.GOOS == "windows" },
		} {
			t.Run(fmt.Sprintf("%s, TLS %v", spec, secure), func(t *testing.T) {
				setFaults(t, s, spec)
				begin := time.Now()
				g, p := opened(t, s)
				for cut := 1; cut <= 2; cut++ {
					if err := p.end(); !is(err) {
						t.Errorf("cut %d: the socket ends with %v", cut, err)
					}
					if took := time.Since(begin); took < 200*time.Millisecond {
						t.Errorf("cut %d: the socket ends after %v", cut, took)
					}
					begin = time.Now()
					p.again(s, g)
				}
				setFaults(t, s)
				p.say("still there")
			})
		}
	}
}

// TestCutAfterMessages: those before arrive, those after do not, and each socket has
// a count of its own. A word is three: there, back, and acknowledged.
func TestCutAfterMessages(t *testing.T) {
	s := startWith(t, Config{Faults: faultsOf(t, "cut=after:8,times:2")}, parrot)
	g, p := opened(t, s)
	for cut := 1; cut <= 2; cut++ {
		p.say(fmt.Sprintf("one of cut %d;", cut))
		p.say(fmt.Sprintf("two of cut %d;", cut))
		p.say(fmt.Sprintf("three of cut %d;", cut))
		p.end()
		p.again(s, g)
	}
	for i := range 10 { // a third time was not ordered
		p.say(fmt.Sprintf("word %d;", i))
	}
	setFaults(t, s, "cut=after:2")
	p.send(frame.Output, []byte("cut now")) // the last acknowledgement may count, or not
	p.end()
	_, q := opened(t, s) // every session has its own count
	q.say("cut, too")
	q.end()
}

// TestCutOfAClientThatDoesNotRead does not wait for it.
func TestCutOfAClientThatDoesNotRead(t *testing.T) {
	var sent atomic.Int64
	for _, spec := range []string{"cut=after:100ms", "cut=after:100ms,close", "cut=after:100ms,reset"} {
		s := startWith(t, Config{Faults: faultsOf(t, spec)}, flood(&sent))
		g := mustStart(t, s, `{"Target":"local"}`)
		connect(t, s, g)
		wantStatus(t, s, g, statusConnected)
		wantStatus(t, s, g, statusDisconnected)
	}
}

// TestHalfOpen: the connection stays and nothing is heard on it, not even a pong,
// until another one takes its place.
func TestHalfOpen(t *testing.T) {
	for _, secure := range []bool{false, true} {
		s := startWith(t, Config{TLS: secure}, parrot)
		g, p := opened(t, s)
		p.say("before;")
		setFaults(t, s, "half-open=once")
		l := s.sessions.find(g.SessionID).currentLeg()
		<-l.faults.frozen
		p.conn.SetPongHandler(func(string) error { t.Error("a half-open connection answers"); return nil })
		if err := p.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		p.send(frame.Output, []byte("unheard;"))
		p.silent("on a half-open connection")
		old := p.conn
		p.next--
		p.reconnect(s, mustResume(t, s, g))
		p.say("after;")
		if got := p.output.String(); strings.Contains(got, "unheard") {
			t.Errorf("a half-open connection was read: %s", got)
		}
		<-l.done
		old.Close()
	}
}

// TestHalfOpenAfterMessages: no more than those are relayed, either way.
func TestHalfOpenAfterMessages(t *testing.T) {
	s := startWith(t, Config{Faults: faultsOf(t, "half-open=after:2,once")}, parrot)
	g, p := opened(t, s)
	for range 20 {
		p.send(frame.Output, []byte("word;"))
	}
	<-s.sessions.find(g.SessionID).currentLeg().faults.frozen
	for range 2 { // they may have left before
		if err := p.conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.conn.ReadMessage(); err != nil {
			break
		}
	}
	p.silent("on a half-open connection")
	p.next, p.expected = 1, 1
	p.reconnect(s, mustResume(t, s, g))
	p.say("last")
	if n := strings.Count(p.output.String(), "word;"); n > 0 {
		t.Errorf("%d words went through afterwards", n)
	}
}

// TestSilentAgent: the service answers for itself.
func TestSilentAgent(t *testing.T) {
	s := startWith(t, Config{}, parrot)
	_, p := opened(t, s)
	setFaults(t, s, "silent-agent")
	pongs := make(chan string, 1)
	p.conn.SetPongHandler(func(data string) error { pongs <- data; return nil })
	p.send(frame.Output, []byte("unheard"))
	if err := p.conn.WriteControl(websocket.PingMessage, []byte("you?"), time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	p.silent("from a silent agent")
	select {
	case <-pongs:
	default:
		t.Error("a ping is not answered")
	}
}

// TestPause: both ends are told, or one, and told to go on.
func TestPause(t *testing.T) {
	s := startWith(t, Config{}, echo)
	_, p := opened(t, s)
	begin := time.Now()
	setFaults(t, s, "pause=after:50ms,for:100ms")
	p.until("waiting to be paused and to go on", func() bool { return p.paused == 1 && p.started == 2 })
	p.wantOutput("<pause_publication><start_publication>")
	if took := time.Since(begin); took < 150*time.Millisecond {
		t.Errorf("a pause of 100 ms after 50 ms was over after %v", took)
	}
	setFaults(t, s, "pause=for:1h,to-client")
	p.until("waiting to be paused", func() bool { return p.paused == 2 })
	setFaults(t, s) // ends it
	p.until("waiting to go on", func() bool { return p.started == 3 })
	if got := p.output.String(); got != "<start_publication><pause_publication><start_publication>" {
		t.Errorf("the agent was told %s", got)
	}
}

// TestSlow: no more than so many bytes a second, in the direction that was said.
func TestSlow(t *testing.T) {
	s := startWith(t, Config{}, echo)
	_, p := opened(t, s)
	word := strings.Repeat("x", 2000)
	measure := func(spec string) time.Duration {
		if spec != "" {
			setFaults(t, s, spec)
			p.say("one is read already")
		}
		begin := time.Now()
		for i := range 5 {
			p.say(fmt.Sprint(spec, i, word))
		}
		return time.Since(begin)
	}
	for _, spec := range []string{"slow=10000,to-client", "slow=10000,to-agent"} {
		if took := measure(spec); took < 800*time.Millisecond || took > patience {
			t.Errorf("with %s 10 kB took %v", spec, took)
		}
	}
	setFaults(t, s, "slow=1")
	setFaults(t, s)
	measure("") // else it takes hours, which nobody waits for
}

func TestSlowSlices(t *testing.T) {
	for _, test := range []struct{ n, rate, want int }{
		{1000, 0, 1000}, {1000, 1, 1}, {1000, 1000, 50}, {10, 1000, 10}, {0, 1000, 0}, {1 << 20, 1<<31 - 1, 1 << 20},
	} {
		if got := slowly(test.n, test.rate); got != test.want {
			t.Errorf("of %d bytes at %d a second %d go at a time, not %d", test.n, test.rate, got, test.want)
		}
	}
}

// TestRefuse: dials fail, for a time or a number of times, and then they do not.
func TestRefuse(t *testing.T) {
	s := startWith(t, Config{}, parrot)
	g, p := opened(t, s)
	url := mustResume(t, s, g).StreamURL
	setFaults(t, s, "refuse=status:503,times:2")
	for range 2 {
		if _, response, err := dial(t, s, url, nil); err == nil || response == nil || response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a dial that is refused gets %v, %v", response, err)
		}
	}
	p.again(s, g)
	p.say("the third one is not refused")

	setFaults(t, s, "refuse")
	if _, response, err := dial(t, s, url, nil); err == nil || response != nil {
		t.Errorf("a dial that is dropped gets %v, %v", response, err)
	}
	if _, _, err := dial(t, s, strings.Replace(url, g.SessionID, "nobody-0", 1), nil); err == nil {
		t.Error("a dial of a session that never was is not refused")
	}
	setFaults(t, s, "refuse=for:1ns")
	p.again(s, g)
	p.say("nor one that comes after the time")
}

// TestNothingIsLeftOfFaults closes a server in the middle of all of them.
func TestNothingIsLeftOfFaults(t *testing.T) {
	before := runtime.NumGoroutine()
	var closing sync.WaitGroup
	for _, spec := range []string{"delay=1h", "half-open", "pause=for:1h", "slow=2000", "cut=after:1h", "reorder=100%", "cut=after:1,close"} {
		var sent atomic.Int64
		s, err := Start(context.Background(), Config{Faults: faultsOf(t, spec)})
		if err != nil {
			t.Fatal(err)
		}
		s.play = flood(&sent)
		p := connect(t, s, mustStart(t, s, `{"Target":"local"}`))
		for sent.Load() == 0 {
			runtime.Gosched()
		}
		closing.Go(func() {
			begin := time.Now()
			if err := s.Close(); err != nil {
				t.Errorf("with %s closing fails: %v", spec, err)
			}
			if took := time.Since(begin); took > patience {
				t.Errorf("with %s closing took %v", spec, took)
			}
			p.conn.Close()
		})
	}
	closing.Wait()
	noMoreGoroutinesThan(t, before)
}

// TestSetFaultsUnderLoad changes them while sessions send as fast as they can.
func TestSetFaultsUnderLoad(t *testing.T) {
	var sent atomic.Int64
	s := startWith(t, Config{}, flood(&sent))
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		g := mustStart(t, s, `{"Target":"local"}`)
		p := connect(t, s, g)
		readers.Go(func() {
			for !closed(stop) {
				if _, _, err := p.conn.ReadMessage(); err == nil {
					continue
				}
				a := call(t, s, "ResumeSession", `{"SessionId":"`+g.SessionID+`"}`)
				conn, _, err := dial(t, s, a.text("StreamUrl"), nil)
				if err != nil {
					t.Errorf("a session cannot go on: %v", err)
					return
				}
				p.conn.Close()
				p.conn = conn
				p.open(a.text("TokenValue"))
			}
			p.conn.Close()
		})
	}
	for range 20 {
		for _, specs := range [][]string{{"drop=5%", "cut=after:200"}, {"delay=1ms", "reorder=5%"}, {"duplicate=5%", "pause=for:1ms"}, {}} {
			before := sent.Load()
			setFaults(t, s, specs...)
			for end := time.Now().Add(patience); sent.Load() < before+10000; runtime.Gosched() {
				if time.Now().After(end) {
					t.Fatalf("with %v nothing is sent any more", specs)
				}
			}
		}
	}
	close(stop)
	readers.Wait()
}

// BenchmarkToClientWithFaults is BenchmarkToClient with a fault that never happens.
func BenchmarkToClientWithFaults(b *testing.B) {
	var sent atomic.Int64
	s := startWith(b, Config{Faults: faultsOf(b, "drop=0.000001%")}, flood(&sent))
	p := connect(b, s, mustStart(b, s, `{"Target":"local"}`))
	b.SetBytes(1024)
	b.ReportAllocs()
	buf := make([]byte, 2048)
	for b.Loop() {
		_, r, err := p.conn.NextReader()
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = r.Read(buf)
		}
	}
}
