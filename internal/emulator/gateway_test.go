package emulator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// status waits until a session has a status.
func wantStatus(t *testing.T, s *Server, g grant, want sessionStatus) {
	t.Helper()
	one := s.sessions.find(g.SessionID)
	for end := time.Now().Add(patience); one.information().Status != want; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("the session is %s, not %s", one.information().Status, want)
		}
	}
}

// TestLifeOfASession follows one session through its states.
func TestLifeOfASession(t *testing.T) {
	s := startWith(t, Config{}, echo)
	g := mustStart(t, s, `{"Target":"local"}`)
	wantStatus(t, s, g, statusConnecting)

	p := connect(t, s, g)
	first, err := p.receive()
	if err != nil || first.Type != frame.StartPublication {
		t.Fatalf("the first message is %q, %v, not %s", first.Type, err, frame.StartPublication)
	}
	wantStatus(t, s, g, statusConnected)
	p.send(frame.Output, []byte("hello"))
	p.wantOutput("<start_publication>hello")

	p.conn.Close()
	wantStatus(t, s, g, statusDisconnected)
	p.reconnect(s, mustResume(t, s, g))
	wantStatus(t, s, g, statusConnected)
	p.send(frame.Output, []byte("exit"))
	if closed := p.wantClosed(); closed.Output != "" || closed.SessionID != g.SessionID || closed.MessageType != "channel_closed" {
		t.Errorf("channel_closed is %+v", closed)
	}
	if p.started != 2 || p.paused != 0 {
		t.Errorf("the client was told %d times to start and %d times to pause", p.started, p.paused)
	}
	wantStatus(t, s, g, statusTerminated)
}

func TestMessagesOfTheService(t *testing.T) {
	start := publication(frame.StartPublication)
	// The vector that AWS's client was seen to accept, but for date and id.
	const vector = "0000007073746172745f7075626c69636174696f6e000000000000000000000000000000000000010000015e0baa788400000000000000000000000000000000" +
		"a508b5f073f31b16dd01e56bff48483e0000000000000000000000000000000000000000000000000000000000000000" + "0000001173746172745f7075626c69636174696f6e"
	want, err := hex.DecodeString(vector)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{start, want} {
		clear(b[40:48])
		clear(b[64:80])
	}
	if !bytes.Equal(start, want) {
		t.Errorf("start_publication is\n%x, not\n%x", start, want)
	}
	closed := channelClosed("jane-1", "over")
	if binary.BigEndian.Uint32(closed) != frame.ShortHeaderLen || !bytes.Equal(closed[4:36], append([]byte("channel_closed"), make([]byte, 18)...)) {
		t.Errorf("channel_closed begins with %x", closed[:36])
	}
	if digest := sha256.Sum256(closed[116:]); !bytes.Equal(closed[80:112], digest[:]) {
		t.Error("the digest of channel_closed is wrong")
	}
}

func TestIsType(t *testing.T) {
	m := inputMessage(0, frame.Output, []byte("x"))
	if !isType(m, frame.InputStreamData) || isType(m, "input_stream") || isType(m, frame.Acknowledge) || isType(m[:20], frame.InputStreamData) {
		t.Error("the type of an input message is not told right")
	}
	if !isType(publication(frame.PausePublication), frame.PausePublication) {
		t.Error("a type padded with NULs is not told right")
	}
}

// TestTokens is the specification of what opens a data channel.
func TestTokens(t *testing.T) {
	s := startWith(t, Config{Limits: Limits{Open: 500 * time.Millisecond}}, echo)
	expiring := startWith(t, Config{Limits: Limits{Token: time.Nanosecond}}, echo)
	fresh := func(s *Server) grant { return mustStart(t, s, `{"Target":"local"}`) }
	tests := []struct {
		name  string
		grant func() (*Server, grant)
	}{
		{"no token", func() (*Server, grant) { g := fresh(s); g.TokenValue = ""; return s, g }},
		{"a guessed token", func() (*Server, grant) { g := fresh(s); g.TokenValue = randomToken(); return s, g }},
		{"a used token", func() (*Server, grant) {
			g := fresh(s)
			connect(t, s, g).until("opening", func() bool { return s.sessions.find(g.SessionID).currentLeg() != nil })
			return s, g
		}},
		{"a token that another has replaced", func() (*Server, grant) { g := fresh(s); mustResume(t, s, g); return s, g }},
		{"another session's token", func() (*Server, grant) {
			g := fresh(s)
			g.StreamURL = fresh(s).StreamURL
			return s, g
		}},
		{"a token for a session that never was", func() (*Server, grant) {
			g := fresh(s)
			g.StreamURL = strings.Replace(g.StreamURL, g.SessionID, "jane-0123", 1)
			return s, g
		}},
		{"a token of a session that is over", func() (*Server, grant) {
			g := fresh(s)
			one := s.sessions.find(g.SessionID)
			one.terminate()
			<-one.done
			return s, g
		}},
		{"an expired token", func() (*Server, grant) { return expiring, fresh(expiring) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, g := test.grant()
			p := connect(t, s, g)
			if _, err := p.receive(); err == nil {
				t.Errorf("%s opens the data channel", test.name)
			}
		})
	}
	for name, opening := range map[string][]byte{"nothing": nil, "no JSON": []byte("{"), "a frame of data": inputMessage(0, frame.Output, []byte("x"))} {
		t.Run(name, func(t *testing.T) {
			conn, _, err := dial(t, s, fresh(s).StreamURL, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if opening != nil {
				if err := conn.WriteMessage(websocket.BinaryMessage, opening); err != nil {
					t.Fatal(err)
				}
			}
			p := &peer{t: t, conn: conn}
			p.wantSocketEnd()
		})
	}
}

func TestTokenIsConcealed(t *testing.T) {
	var log bytes.Buffer
	s, err := Start(context.Background(), Config{Log: textLog(&log)})
	if err != nil {
		t.Fatal(err)
	}
	s.play = echo
	g := mustStart(t, s, `{"Target":"local"}`)
	p := connect(t, s, g)
	p.send(frame.Output, []byte("exit"))
	p.wantClosed()
	p.conn.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, secret := s.Credentials()
	for _, text := range []string{log.String(), s.String(), fmt.Sprintf("%v %+v %#v", s, s, s)} {
		if strings.Contains(text, g.TokenValue) || strings.Contains(text, secret) {
			t.Errorf("a secret is printed: %s", text)
		}
	}
	if !strings.Contains(log.String(), g.SessionID) {
		t.Errorf("the log does not name the session: %s", log.String())
	}
}

// TestDoors is the specification of who may knock.
func TestDoors(t *testing.T) {
	s := startWith(t, Config{}, echo)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	url := mustStart(t, s, `{"Target":"local"}`).StreamURL
	tests := []struct {
		name, header, value string
		want                int
	}{
		{"a client", "", "", http.StatusSwitchingProtocols},
		{"a client that calls us localhost", "Host", "localhost:" + port, http.StatusSwitchingProtocols},
		{"a page in a browser", "Origin", "http://evil.example", http.StatusForbidden},
		{"a page of our own address", "Origin", s.URL(), http.StatusForbidden},
		{"a name bound to our address", "Host", "evil.example:" + port, http.StatusForbidden},
		{"another address", "Host", "192.0.2.1:" + port, http.StatusForbidden},
	}
	for _, test := range tests {
		header := http.Header{}
		if test.header != "" {
			header.Set(test.header, test.value)
		}
		conn, response, err := dial(t, s, url, header)
		if response == nil || response.StatusCode != test.want {
			t.Errorf("%s gets %v, %v, not %d", test.name, response, err, test.want)
		}
		if err == nil {
			conn.Close()
		}
	}
	for _, request := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/", http.StatusMethodNotAllowed},
		{http.MethodPost, "/other", http.StatusNotFound},
		{http.MethodGet, "/v1/data-channel/x", http.StatusBadRequest},
		{http.MethodPost, "/v1/data-channel/x", http.StatusMethodNotAllowed},
	} {
		r, err := http.NewRequest(request.method, s.URL()+request.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a := do(t, s, r); a.status != request.want {
			t.Errorf("%s %s gets %d, not %d", request.method, request.path, a.status, request.want)
		}
	}
}

func TestPingsAndFragments(t *testing.T) {
	s := startWith(t, Config{}, echo)
	g := mustStart(t, s, `{"Target":"local"}`)
	dialer := websocket.Dialer{WriteBufferSize: 512} // larger messages go out in fragments
	conn, _, err := dialer.Dial(g.StreamURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := &peer{t: t, conn: conn, acks: map[int64]bool{}}
	pongs := make(chan string, 2)
	conn.SetPongHandler(func(data string) error { pongs <- data; return nil })
	ping := func(data string) {
		if err := conn.WriteControl(websocket.PingMessage, []byte(data), time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	ping("keepalive") // before the opening, as AWS's client may
	p.open(g.TokenValue)
	ping("again")
	large := bytes.Repeat([]byte("0123456789"), 5000)
	p.send(frame.Output, large)
	p.wantOutput(string(large))
	for _, want := range []string{"keepalive", "again"} {
		if got := <-pongs; got != want {
			t.Errorf("the pong says %q, not %q", got, want)
		}
	}
}

func TestTooLargeMessageEndsTheSocket(t *testing.T) {
	s := startWith(t, Config{}, echo)
	g := mustStart(t, s, `{"Target":"local"}`)
	p := connect(t, s, g)
	p.wantOutput("<start_publication>")
	// The server may close before all of it is written.
	_ = p.conn.WriteMessage(websocket.BinaryMessage, make([]byte, messageLimit+1))
	p.wantSocketEnd()
	wantStatus(t, s, g, statusDisconnected)
}

func TestNewerLegReplacesTheOlder(t *testing.T) {
	s := startWith(t, Config{}, echo)
	g := mustStart(t, s, `{"Target":"local"}`)
	old := connect(t, s, g)
	old.send(frame.Output, []byte("one"))
	old.wantOutput("one")
	next := connect(t, s, mustResume(t, s, g))
	old.wantSocketEnd()
	next.next, next.expected = old.next, old.expected
	next.send(frame.Output, []byte("two"))
	next.wantOutput("two")
	wantStatus(t, s, g, statusConnected)
}

// TestAbsentClient: what the agent says meanwhile is dropped, and it is told.
func TestAbsentClient(t *testing.T) {
	told := make(chan string, 10)
	sent := make(chan error, 1)
	s := startWith(t, Config{}, func(ctx context.Context, _ agent.Config, leg agent.Leg) agent.Result {
		for {
			data, err := leg.Receive(ctx)
			if err != nil {
				return agent.Result{Status: "Cancelled"}
			}
			if isType(data, frame.PausePublication) {
				m := frame.Message{Type: frame.OutputStreamData, Created: time.Now(), ID: uuid.New(), PayloadType: frame.Output, Payload: []byte("x")}
				sent <- send(ctx, leg, &m)
			}
			m, err := frame.Parse(data)
			if err != nil {
				t.Errorf("the agent gets a message that cannot be read: %v", err)
			}
			told <- string(m.Type)
		}
	})
	g := mustStart(t, s, `{"Target":"local"}`)
	connect(t, s, g).conn.Close()
	for _, want := range []string{"start_publication", "pause_publication"} {
		if got := <-told; got != want {
			t.Fatalf("the agent is told %s, not %s", got, want)
		}
	}
	if err := <-sent; err != nil {
		t.Errorf("a message to nobody is an error: %v", err)
	}
	p := connect(t, s, mustResume(t, s, g))
	if got := <-told; got != "start_publication" {
		t.Errorf("when a client is back the agent is told %s", got)
	}
	s.sessions.find(g.SessionID).terminate()
	p.wantClosed()
	if p.expected != 0 {
		t.Error("a message that was sent to nobody has arrived")
	}
}

// drop takes what comes for the agent until the session ends.
func drop(ctx context.Context, leg agent.Leg) {
	for {
		if _, err := leg.Receive(ctx); err != nil {
			return
		}
	}
}

// discard is an agent that does nothing else.
func discard(ctx context.Context, _ agent.Config, leg agent.Leg) agent.Result {
	drop(ctx, leg)
	return agent.Result{Status: "Cancelled"}
}

// flood is an agent that sends as fast as it can.
func flood(sent *atomic.Int64) playFunc {
	return func(ctx context.Context, _ agent.Config, leg agent.Leg) agent.Result {
		m := frame.Message{Type: frame.OutputStreamData, Created: time.Now(), ID: uuid.New(), PayloadType: frame.Output,
			Payload: make([]byte, 1024)}
		b, err := m.Append(nil)
		if err != nil {
			panic(err)
		}
		var acks sync.WaitGroup
		defer acks.Wait()
		acks.Go(func() { drop(ctx, leg) })
		for {
			if err := leg.Send(ctx, b); err != nil {
				return agent.Result{Status: "Cancelled"}
			}
			sent.Add(int64(len(b)))
		}
	}
}

// TestBackpressure: a client that does not read stops the agent; its return, its
// replacement and the end of the session wake the agent.
func TestBackpressure(t *testing.T) {
	var sent atomic.Int64
	s := startWith(t, Config{}, flood(&sent))
	g := mustStart(t, s, `{"Target":"local"}`)
	p := connect(t, s, g)
	stalled := func() int64 {
		t.Helper()
		for last := int64(-1); ; {
			now := sent.Load()
			if now == last && now > 0 {
				return now
			}
			last = now
			time.Sleep(200 * time.Millisecond) // silence cannot be waited for
		}
	}
	first := stalled()
	// What the kernel holds of a loopback connection is its own affair.
	if first > 32<<20 {
		t.Errorf("%d bytes were sent to a client that reads nothing", first)
	}
	for range 20000 {
		if _, err := p.receive(); err != nil {
			t.Fatal(err)
		}
	}
	second := stalled()
	if second < first+10<<20 {
		t.Errorf("after reading 20 MB only %d more were sent", second-first)
	}
	q := connect(t, s, mustResume(t, s, g))
	p.wantSocketEnd()
	if third := stalled(); third <= second {
		t.Error("a new leg does not wake the agent")
	}
	s.sessions.find(g.SessionID).terminate()
	q.wantClosed()
}

func TestSlowClientGetsEverything(t *testing.T) {
	const messages = 20000
	s := startWith(t, Config{}, func(ctx context.Context, _ agent.Config, leg agent.Leg) agent.Result {
		acks, enough := context.WithCancel(ctx)
		var taken sync.WaitGroup
		defer taken.Wait()
		defer enough()
		taken.Go(func() { drop(acks, leg) })
		for i := range messages {
			m := frame.Message{Type: frame.OutputStreamData, Created: time.Now(), Sequence: int64(i), ID: uuid.New(),
				PayloadType: frame.Output, Payload: []byte{byte(i)}}
			if err := send(ctx, leg, &m); err != nil {
				return agent.Result{Status: "Failed", Output: err.Error()}
			}
		}
		return agent.Result{Status: "Success", Output: "bye"}
	})
	p := connect(t, s, mustStart(t, s, `{"Target":"local"}`))
	if closed := p.wantClosed(); closed.Output != "bye" || p.expected != messages {
		t.Errorf("%d of %d messages came before the end %q", p.expected, messages, closed.Output)
	}
}

func TestEndings(t *testing.T) {
	document := func(name, idle, maximum string) Document {
		return Document{Name: name, SessionType: frame.StandardStream,
			Inputs: DocumentInputs{IdleSessionTimeout: idle, MaxSessionDuration: maximum}}
	}
	s := startWith(t, Config{Documents: []Document{document("Idle", "300ms", ""), document("Maximum", "", "300ms")}}, echo)
	tests := []struct {
		name, document string
		do             func(p *peer, one *session)
		status         sessionStatus
		output         string
	}{
		{"the program ends", "", func(p *peer, _ *session) { p.send(frame.Output, []byte("exit")) }, statusTerminated, ""},
		{"the program fails", "", func(p *peer, _ *session) { p.send(frame.Output, []byte("fail")) }, statusFailed, "it failed"},
		{"it is terminated", "", func(_ *peer, one *session) { one.terminate() }, statusTerminated, ""},
		{"it is idle", "Idle", func(*peer, *session) {}, statusTerminated, "Your session timed out due to inactivity and has been terminated."},
		{"its time is up", "Maximum", func(*peer, *session) {}, statusTerminated, "Your session has reached its maximum duration and has been terminated."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			body := `{"Target":"local"}`
			if test.document != "" {
				body = `{"Target":"local","DocumentName":"` + test.document + `"}`
			}
			g := mustStart(t, s, body)
			p := connect(t, s, g)
			p.wantOutput("<start_publication>")
			one := s.sessions.find(g.SessionID)
			test.do(p, one)
			if closed := p.wantClosed(); closed.Output != test.output {
				t.Errorf("when %s, channel_closed says %q, not %q", test.name, closed.Output, test.output)
			}
			p.conn.Close()
			<-one.done
			wantStatus(t, s, g, test.status)
		})
	}
}

// TestIdleIsMeasured: traffic in either direction keeps a session.
func TestIdleIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = time.Minute
		s := &session{
			sessionSpec: sessionSpec{limits: sessionLimits{idle: idle}},
			attached:    make(chan struct{}), toAgent: newQueue(toAgentLimit), leg: &leg{out: newQueue(toClientLimit)},
		}
		s.ctx, s.cancel = context.WithCancelCause(t.Context())
		go s.watch()
		wait := func(d time.Duration, want error) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := context.Cause(s.ctx); got != want {
				t.Fatalf("after %v more the end is %v, not %v", d, got, want)
			}
		}
		wait(time.Hour, nil) // nobody is there yet
		s.touch()
		close(s.attached)
		for range 3 {
			wait(idle-1, nil)
			if err := s.putToAgent(t.Context(), serviceMessage(frame.InputStreamData, []byte("x"))); err != nil {
				t.Fatal(err)
			}
			wait(idle-1, nil)
			if err := s.putToClient(t.Context(), serviceMessage(frame.OutputStreamData, []byte("x"))); err != nil {
				t.Fatal(err)
			}
		}
		wait(idle-1, nil)
		wait(1, errIdle)
	})
}

func TestSessionThatNobodyOpens(t *testing.T) {
	s := startWith(t, Config{Limits: Limits{Attach: 50 * time.Millisecond}}, echo)
	g := mustStart(t, s, `{"Target":"local"}`)
	<-s.sessions.find(g.SessionID).done
	wantStatus(t, s, g, statusFailed)
}

func TestRate(t *testing.T) {
	var m meter
	now := time.Now()
	for i := range 5000 { // at the limit, for five seconds
		if got := m.count(now.Add(time.Duration(i) * time.Millisecond)); got != rateKept {
			t.Fatalf("message %d at 1000 a second is judged %d", i, got)
		}
	}
	m = meter{}
	for i := range rateLimit {
		if got := m.count(now); got != rateKept {
			t.Fatalf("message %d of a burst is judged %d", i, got)
		}
	}
	if got := m.count(now); got != rateExceeded {
		t.Errorf("a message above the limit is judged %d", got)
	}
	for i := range rateExcess {
		if got := m.count(now); got != rateKept {
			t.Fatalf("message %d after the pause is judged %d", i, got)
		}
	}
	if got := m.count(now); got != rateIgnored {
		t.Errorf("a client that goes on is judged %d", got)
	}
}

func TestClientAboveTheRate(t *testing.T) {
	// An agent that answers nothing, so that the client's writes are all there is.
	s := startWith(t, Config{Pace: PaceReal}, discard)
	g := mustStart(t, s, `{"Target":"local"}`)
	p := connect(t, s, g)
	for range rateLimit + 1 {
		p.send(frame.Output, []byte("x"))
	}
	p.until("waiting to be paused", func() bool { return p.paused == 1 })
	p.until("waiting to go on", func() bool { return p.started == 2 })
	for range rateLimit + rateExcess + 10 {
		if err := p.conn.WriteMessage(websocket.BinaryMessage, inputMessage(0, frame.Output, []byte("x"))); err != nil {
			break // cut while still writing
		}
	}
	p.wantSocketEnd()
	wantStatus(t, s, g, statusDisconnected)
	p.reconnect(s, mustResume(t, s, g))
	p.send(frame.Output, []byte("x"))
	wantStatus(t, s, g, statusConnected)
}
