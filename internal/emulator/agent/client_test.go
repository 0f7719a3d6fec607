package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// memoryLeg is a data channel in memory: the client's end is its two channels.
// The one to the agent has no buffer: a message that it took has been dealt
// with when it takes the next.
type memoryLeg struct {
	toAgent   chan []byte
	fromAgent chan []byte
}

func newMemoryLeg() *memoryLeg {
	return &memoryLeg{toAgent: make(chan []byte), fromAgent: make(chan []byte, 16)}
}

func (l *memoryLeg) Send(ctx context.Context, message []byte) error {
	select {
	case l.fromAgent <- bytes.Clone(message):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *memoryLeg) Receive(ctx context.Context) ([]byte, error) {
	select {
	case m, ok := <-l.toAgent:
		if !ok {
			return nil, io.ErrUnexpectedEOF
		}
		return m, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// client is the far end of an agent, driven by a test message by message.
type client struct {
	t       testing.TB
	leg     *memoryLeg
	next    int64
	pending []frame.Message // taken off the leg and not yet looked at
	results chan Result
	cancel  context.CancelFunc

	keys     *clientCipher // gather decrypts output with them; nil: there is nothing to
	tolerant bool
	seen     int64 // sequence number of the next message that is no repetition
}

// play starts a session and takes its first message, the state.
func play(t testing.TB, cfg Config) *client {
	t.Helper()
	if cfg.SessionID == "" {
		cfg.SessionID = "jane-0123456789abcdef0"
	}
	if cfg.Version == "" {
		cfg.Version = "3.3.0.0"
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &client{t: t, leg: newMemoryLeg(), results: make(chan Result, 1), cancel: cancel, tolerant: true}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.results <- Run(ctx, cfg, c.leg)
	}()
	t.Cleanup(func() {
		cancel()
		for {
			select {
			case <-c.leg.fromAgent:
			case <-ended:
				return
			}
		}
	})
	c.wantState("a session begins by telling its state", "Connected")
	return c
}

// take waits for the next message of the agent. A session's client passes
// repetitions over, which a busy machine makes come at any time.
func (c *client) take(why string) frame.Message {
	c.t.Helper()
	for {
		m := c.takeAny(why)
		if c.tolerant && m.Type == frame.OutputStreamData {
			if m.Sequence < c.seen {
				c.ack(m)
				continue
			}
			c.seen = m.Sequence + 1
		}
		return m
	}
}

func (c *client) takeAny(why string) frame.Message {
	c.t.Helper()
	if len(c.pending) > 0 {
		m := c.pending[0]
		c.pending = c.pending[1:]
		return m
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case b := <-c.leg.fromAgent:
		return c.parse(b)
	case <-timer.C:
		c.t.Fatalf("%s: nothing came from the agent", why)
		return frame.Message{}
	}
}

func (c *client) parse(b []byte) frame.Message {
	c.t.Helper()
	m, err := frame.Parse(b)
	if err == nil {
		err = m.Verify()
	}
	if err != nil {
		c.t.Fatalf("the agent sent a message that does not parse: %v", err)
	}
	if m.HeaderLength != frame.HeaderLen {
		c.t.Fatalf("the agent sent a header of %d bytes, want %d", m.HeaderLength, frame.HeaderLen)
	}
	return m
}

// want takes the next message, which must be output of one payload type.
func (c *client) want(why string, t frame.PayloadType) frame.Message {
	c.t.Helper()
	m := c.take(why)
	if m.Type != frame.OutputStreamData || m.PayloadType != t {
		c.t.Fatalf("%s: got %s with payload type %d (%.200q), want output_stream_data with %d",
			why, m.Type, m.PayloadType, m.Payload, t)
	}
	return m
}

// wantAck takes the next message, which must acknowledge one message of input.
func (c *client) wantAck(why string, sequence int64) {
	c.t.Helper()
	m := c.take(why)
	if m.Type != frame.Acknowledge {
		c.t.Fatalf("%s: got %s with payload type %d (%.200q), want an acknowledgement of %d",
			why, m.Type, m.PayloadType, m.Payload, sequence)
	}
	c.checkAck(why, m, sequence)
}

func (c *client) checkAck(why string, m frame.Message, sequence int64) {
	c.t.Helper()
	got, err := frame.ParseAck(m.Payload)
	if err != nil || got != sequence {
		c.t.Fatalf("%s: got the acknowledgement %s (%v), want one of %d", why, m.Payload, err, sequence)
	}
	if m.Flags != 3 || m.Sequence != 0 || m.PayloadType != 0 {
		c.t.Errorf("an acknowledgement has flags %d, sequence number %d, payload type %d, want 3, 0, 0",
			m.Flags, m.Sequence, m.PayloadType)
	}
}

func (c *client) wantState(why, state string) {
	c.t.Helper()
	m := c.take(why)
	want := fmt.Sprintf(`"SessionState":%q`, state)
	if m.Type != frame.AgentSessionState || !bytes.Contains(m.Payload, []byte(want)) {
		c.t.Fatalf("%s: got %s with payload type %d (%.200q), want agent_session_state %s",
			why, m.Type, m.PayloadType, m.Payload, state)
	}
	if m.Flags != 3 || m.Sequence != 0 {
		c.t.Errorf("a session state has flags %d and sequence number %d, want 3 and 0", m.Flags, m.Sequence)
	}
}

// wantNothing is for tests in a bubble, after synctest.Wait.
func (c *client) wantNothing(why string) {
	c.t.Helper()
	select {
	case b := <-c.leg.fromAgent:
		m := c.parse(b)
		c.t.Fatalf("%s: got %s %d with payload type %d (%.200q), want nothing",
			why, m.Type, m.Sequence, m.PayloadType, m.Payload)
	default:
	}
}

func (c *client) wantResult(why string, want Result) {
	c.t.Helper()
	for {
		select {
		case got := <-c.results:
			if got != want {
				c.t.Fatalf("%s: the session ended with %+v, want %+v", why, got, want)
			}
			return
		case <-c.leg.fromAgent: // what nobody looked at must not hold the agent up
		case <-time.After(patience):
			c.t.Fatalf("%s: the session did not end", why)
		}
	}
}

// post sends any message to the agent.
func (c *client) post(m frame.Message) {
	c.t.Helper()
	if m.Created.IsZero() {
		m.Created = time.Now()
	}
	b, err := m.Append(nil)
	if err != nil {
		c.t.Fatalf("encode a message for the agent: %v", err)
	}
	c.postBytes(b)
}

// postBytes sends bytes to the agent, taking what the agent sends meanwhile.
func (c *client) postBytes(b []byte) {
	c.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case c.leg.toAgent <- b:
			return
		case got := <-c.leg.fromAgent:
			c.pending = append(c.pending, c.parse(got))
		case <-timer.C:
			c.t.Fatal("the agent takes no messages")
		}
	}
}

// input sends one message of input and returns its sequence number.
func (c *client) input(t frame.PayloadType, payload string) int64 {
	c.t.Helper()
	sequence := c.next
	c.next++
	c.inputAs(sequence, t, payload)
	return sequence
}

func (c *client) inputAs(sequence int64, t frame.PayloadType, payload string) {
	c.t.Helper()
	c.post(frame.Message{
		Type: frame.InputStreamData, Sequence: sequence, ID: uuid.New(),
		PayloadType: t, Payload: []byte(payload),
	})
}

func (c *client) ack(m frame.Message) {
	c.t.Helper()
	c.post(frame.Message{
		Type: frame.Acknowledge, Flags: 3, ID: uuid.New(),
		Payload: frame.Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence}.Append(nil),
	})
}

// service sends a message as the service does, with the short header.
func (c *client) service(t frame.MessageType, payload string) {
	c.t.Helper()
	c.post(frame.Message{Type: t, HeaderLength: frame.ShortHeaderLen, Payload: []byte(payload)})
}

// agree answers the handshake that must come first, as a client of one version.
func (c *client) agree(version string) frame.HandshakeCompletePayload {
	c.t.Helper()
	c.ack(c.want("a handshake begins with the request", frame.HandshakeRequest))
	sequence := c.input(frame.HandshakeResponse, fmt.Sprintf(`{"ClientVersion":%q,"ProcessedClientActions":[`+
		`{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":null}`, version))
	c.wantAck("the response is acknowledged before the handshake completes", sequence)
	m := c.want("a handshake ends with its completion", frame.HandshakeComplete)
	c.ack(m)
	var complete frame.HandshakeCompletePayload
	if err := json.Unmarshal(m.Payload, &complete); err != nil {
		c.t.Fatalf("HandshakeComplete has the payload %q: %v", m.Payload, err)
	}
	return complete
}

// transcript is what a session said, by payload type, and in which order.
type transcript struct {
	output outputs
	order  []string // one word a message: "1", "11", "12", or the state
	acked  map[int64]bool
}

type outputs map[frame.PayloadType]string

// String quotes the texts.
func (o outputs) String() string {
	var b strings.Builder
	for _, t := range slices.Sorted(maps.Keys(o)) {
		fmt.Fprintf(&b, "%d: %q ", t, o[t])
	}
	return b.String()
}

func newTranscript() *transcript {
	return &transcript{output: make(outputs), acked: make(map[int64]bool)}
}

// gather acknowledges everything until enough says so.
func (c *client) gather(why string, enough func(*transcript) bool) *transcript {
	c.t.Helper()
	tr := newTranscript()
	for !enough(tr) {
		m := c.take(why + fmt.Sprintf(" (so far %.2000v)", tr.output))
		switch m.Type {
		case frame.OutputStreamData:
			if c.keys != nil && hides(m.PayloadType) {
				m.Payload = []byte(c.keys.open(c.t, m.Payload))
			}
			if len(m.Payload) > payloadSize+maxHeld {
				c.t.Errorf("a payload has %d bytes", len(m.Payload))
			}
			c.ack(m)
			tr.output[m.PayloadType] += string(m.Payload)
			tr.order = append(tr.order, fmt.Sprint(m.PayloadType))
		case frame.Acknowledge:
			sequence, err := frame.ParseAck(m.Payload)
			if err != nil {
				c.t.Fatal(err)
			}
			tr.acked[sequence] = true
		case frame.AgentSessionState:
			tr.order = append(tr.order, "state")
		default:
			c.t.Fatalf("%s: got a %s", why, m.Type)
		}
	}
	return tr
}

// untilOutput is enough for gather when the output contains text.
func untilOutput(text string) func(*transcript) bool {
	return func(tr *transcript) bool { return strings.Contains(tr.output[frame.Output], text) }
}

// untilState is enough for gather when the agent is about to go.
func untilState(tr *transcript) bool {
	return len(tr.order) > 0 && tr.order[len(tr.order)-1] == "state"
}

func needPTY(t testing.TB) {
	t.Helper()
	if !PTYSupported() {
		if os.Getenv("CI") == "true" && os.Getenv("RUNNER_OS") != "Windows" {
			t.Fatal("this system has no pty")
		}
		t.Skip("this system has no pty")
	}
}
