package emulator

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// mirror is an agent that sends back every message as it came, well-formed or not.
func mirror(ctx context.Context, _ agent.Config, leg agent.Leg) agent.Result {
	for {
		data, err := leg.Receive(ctx)
		if err != nil {
			return agent.Result{Status: "Cancelled"}
		}
		if isType(data, frame.StartPublication) || isType(data, frame.PausePublication) {
			continue
		}
		if err := leg.Send(ctx, data); err != nil {
			return agent.Result{Status: "Cancelled"}
		}
	}
}

// TestRelayChangesNothing: the gateway does not read what it relays.
func TestRelayChangesNothing(t *testing.T) {
	s := startWith(t, Config{}, mirror)
	g := mustStart(t, s, `{"Target":"local"}`)
	conn := openSocket(t, s, g)
	random := make([]byte, 3000)
	rand.Read(random)
	wrongDigest := inputMessage(1, frame.Output, []byte("x"))
	wrongDigest[digestStart] ^= 1
	for name, message := range map[string][]byte{
		"a message of input":             inputMessage(7, frame.Output, []byte("hello")),
		"a message with a wrong digest":  wrongDigest,
		"a message of an unknown type":   bytes.Replace(inputMessage(0, 99, []byte("x")), []byte("input_stream_data"), []byte("input_stream_dat?"), 1),
		"an acknowledgement":             acknowledgement(3),
		"half a header":                  inputMessage(0, frame.Output, []byte("x"))[:50],
		"nothing":                        {},
		"noise":                          random,
		"the largest message of all":     make([]byte, messageLimit),
		"a header length that overflows": append([]byte{255, 255, 255, 255}, random...),
	} {
		if err := conn.WriteMessage(websocket.BinaryMessage, message); err != nil {
			t.Fatal(err)
		}
		kind, got, err := conn.ReadMessage()
		if err != nil {
			t.Fatalf("after %s the socket ended: %v", name, err)
		}
		if kind != websocket.BinaryMessage || !bytes.Equal(got, message) {
			t.Errorf("%s of %d bytes came back with %d, kind %d", name, len(message), len(got), kind)
		}
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte("text, as AWS's readers take it")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.ReadMessage(); err != nil || string(got) != "text, as AWS's readers take it" {
		t.Errorf("a text message came back as %q, %v", got, err)
	}
}

// openSocket dials and opens a data channel, and reads the first message.
func openSocket(t *testing.T, s *Server, g grant) *websocket.Conn {
	t.Helper()
	p := connect(t, s, g)
	if first, err := p.receive(); err != nil || first.Type != frame.StartPublication {
		t.Fatalf("the first message is %q, %v", first.Type, err)
	}
	if err := p.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return p.conn
}

func acknowledgement(sequence int64) []byte {
	m := frame.Message{
		Type: frame.Acknowledge, Created: time.Now(), Flags: frame.FlagSYN | frame.FlagFIN, ID: uuid.New(),
		Payload: frame.Ack{Type: frame.OutputStreamData, ID: uuid.New(), Sequence: sequence}.Append(nil),
	}
	b, err := m.Append(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// TestSessionStateIsForTheService: the client never sees it.
func TestSessionStateIsForTheService(t *testing.T) {
	s := startWith(t, Config{}, echo) // it tells its state first
	p := connect(t, s, mustStart(t, s, `{"Target":"local"}`))
	p.send(frame.Output, []byte("exit"))
	for {
		m, err := p.receive()
		if err != nil {
			break
		}
		if m.Type == frame.AgentSessionState {
			t.Error("the client gets the agent's session state")
		}
	}
	if p.closed == nil {
		t.Error("the session did not end with channel_closed")
	}
}

// TestManySessions runs them side by side, each with its own words.
func TestManySessions(t *testing.T) {
	const sessions, words = 40, 50
	s := startWith(t, Config{}, echo)
	var all sync.WaitGroup
	for n := range sessions {
		p := connect(t, s, mustStart(t, s, `{"Target":"local"}`))
		all.Go(func() {
			var want strings.Builder
			want.WriteString("<start_publication>")
			for i := range words {
				word := fmt.Sprintf("session %d word %d;", n, i)
				want.WriteString(word)
				if err := p.conn.WriteMessage(websocket.BinaryMessage, inputMessage(int64(i), frame.Output, []byte(word))); err != nil {
					t.Errorf("session %d: %v", n, err)
					return
				}
			}
			for p.output.Len() < want.Len() {
				if _, err := p.receive(); err != nil {
					t.Errorf("session %d ended: %v", n, err)
					return
				}
			}
			if p.output.String() != want.String() {
				t.Errorf("session %d got other words", n)
			}
		})
	}
	all.Wait()
}

// TestRacingForALeg: of many clients with tokens of one session one has the leg in
// the end, and the others' sockets end.
func TestRacingForALeg(t *testing.T) {
	s := startWith(t, Config{}, echo)
	g := mustStart(t, s, `{"Target":"local"}`)
	connect(t, s, g)
	var peers []*peer
	for range 10 {
		peers = append(peers, connect(t, s, mustResume(t, s, g)))
	}
	last := peers[len(peers)-1]
	for _, p := range peers[:len(peers)-1] {
		p.wantSocketEnd()
	}
	last.send(frame.Output, []byte("exit"))
	last.wantClosed()
}

// TestTerminateFromOutside: whoever has the key can end a session.
func TestTerminateFromOutside(t *testing.T) {
	cancelled := make(chan error, 1)
	s := startWith(t, Config{}, func(ctx context.Context, cfg agent.Config, leg agent.Leg) agent.Result {
		drop(ctx, leg)
		cancelled <- context.Cause(ctx)
		return agent.Result{Status: "Cancelled", Output: "what the agent says"}
	})
	g := mustStart(t, s, `{"Target":"local"}`)
	p := connect(t, s, g)
	p.until("opening", func() bool { return p.started == 1 })
	call(t, s, "TerminateSession", `{"SessionId":"`+g.SessionID+`"}`)
	if closed := p.wantClosed(); closed.Output != "" {
		t.Errorf("TerminateSession ends a session with %q", closed.Output)
	}
	if cause := <-cancelled; cause != errTerminated {
		t.Errorf("the agent is cancelled because of %v", cause)
	}
}

// TestEndWithoutAClient: a session whose client is away ends all the same, and the
// client learns it when it wants to resume.
func TestEndWithoutAClient(t *testing.T) {
	end := make(chan struct{})
	s := startWith(t, Config{}, func(ctx context.Context, _ agent.Config, leg agent.Leg) agent.Result {
		<-end
		return agent.Result{Status: "Success"}
	})
	g := mustStart(t, s, `{"Target":"local"}`)
	p := connect(t, s, g)
	p.until("opening", func() bool { return p.started == 1 })
	p.conn.Close()
	wantStatus(t, s, g, statusDisconnected)
	token := mustResume(t, s, g)
	close(end)
	<-s.sessions.find(g.SessionID).done
	if a := call(t, s, "ResumeSession", `{"SessionId":"`+g.SessionID+`"}`); a.status != http.StatusOK || a.text("TokenValue") != "" {
		t.Errorf("resuming gets %d and a token %t", a.status, a.text("TokenValue") != "")
	}
	late := connect(t, s, token)
	if m, err := late.receive(); err == nil {
		t.Errorf("a token from before the end gets %s", m.Type)
	}
}

// TestMemoryIsFlat: a client that reads nothing, and one that never sends an end,
// cost no more than their queues.
func TestMemoryIsFlat(t *testing.T) {
	var sent atomic.Int64
	s := startWith(t, Config{}, flood(&sent))
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	p := connect(t, s, mustStart(t, s, `{"Target":"local"}`))
	p.until("opening", func() bool { return p.started == 1 })
	before := heap()
	for i := range 50000 { // 50 MB, taken in turns with silence
		if _, _, err := p.conn.ReadMessage(); err != nil {
			t.Fatal(err)
		}
		if i%10000 == 0 {
			if now := heap(); now > before+4<<20 {
				t.Errorf("after %d messages there are %d bytes more on the heap", i, now-before)
			}
		}
	}
}

// TestCloseUnderLoad closes the server while agents send as fast as they can to
// clients that read, and to clients that do not.
func TestCloseUnderLoad(t *testing.T) {
	var sent atomic.Int64
	s, err := Start(context.Background(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.play = flood(&sent)
	var readers sync.WaitGroup
	for i := range 4 {
		p := connect(t, s, mustStart(t, s, `{"Target":"local"}`))
		p.until("opening", func() bool { return p.expected > 0 })
		if i%2 == 0 {
			readers.Go(func() {
				for p.closed == nil {
					if _, err := p.receive(); err != nil {
						return
					}
				}
				p.conn.Close()
			})
		}
	}
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > patience {
		t.Errorf("closing took %v", took)
	}
	readers.Wait()
}
