package emulator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// startServer starts a server that is closed at the end of the test.
func startServer(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := Start(context.Background(), cfg)
	if err != nil {
		t.Fatalf("the server does not start: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("the server does not close cleanly: %v", err)
		}
	})
	return s
}

// startWith starts a server whose agent is play.
func startWith(t testing.TB, cfg Config, play playFunc) *Server {
	t.Helper()
	s := startServer(t, cfg)
	s.play = play // before any session
	return s
}

// needPTY skips a test where the agent has no pty.
func needPTY(t testing.TB) {
	t.Helper()
	if !agent.PTYSupported() {
		if os.Getenv("CI") == "true" && runtime.GOOS != "windows" {
			t.Fatal("no pty on this system")
		}
		t.Skip("no pty on this system")
	}
}

// answer is what a call of the API got.
type answer struct {
	status  int
	header  http.Header
	members map[string]any
}

func (a answer) code() string { c, _ := a.members["__type"].(string); return c }

func (a answer) message() string {
	for _, name := range []string{"Message", "message"} {
		if m, ok := a.members[name].(string); ok {
			return m
		}
	}
	return ""
}

func (a answer) text(name string) string { v, _ := a.members[name].(string); return v }

// newRequest makes a request as the SDKs do, signed with the server's key now.
func newRequest(t testing.TB, s *Server, action, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.URL()+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("X-Amz-Target", "AmazonSSM."+action)
	sign(t, s, r, body, s.key, time.Now())
	return r
}

func sign(t testing.TB, s *Server, r *http.Request, body string, key aws.Credentials, at time.Time) {
	t.Helper()
	hash := sha256.Sum256([]byte(body))
	service := "ssm"
	if strings.HasPrefix(r.Header.Get("X-Amz-Target"), kmsPrefix) {
		service = kmsService
	}
	err := v4.NewSigner().SignHTTP(context.Background(), key, r, hex.EncodeToString(hash[:]), service, s.cfg.Region, at)
	if err != nil {
		t.Fatal(err)
	}
}

// httpClient trusts the server's authority, if it has one, and keeps no idle
// connections that would outlive the test.
func httpClient(t testing.TB, s *Server) *http.Client {
	t.Helper()
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: tlsConfig(t, s)}, Timeout: patience}
}

func tlsConfig(t testing.TB, s *Server) *tls.Config {
	t.Helper()
	if s.CAFile() == "" {
		return nil
	}
	pem, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("the authority's file has no certificate")
	}
	return &tls.Config{RootCAs: roots}
}

func do(t testing.TB, s *Server, r *http.Request) answer {
	t.Helper()
	response, err := httpClient(t, s).Do(r)
	if err != nil {
		t.Fatalf("the call got no answer: %v", err)
	}
	defer response.Body.Close()
	a := answer{status: response.StatusCode, header: response.Header}
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body.Bytes(), &a.members); err != nil && strings.HasPrefix(response.Header.Get("Content-Type"), contentType) {
		t.Fatalf("the answer is not JSON: %q", body.String())
	}
	return a
}

// call makes a signed call.
func call(t testing.TB, s *Server, action, body string) answer {
	t.Helper()
	return do(t, s, newRequest(t, s, action, body))
}

// mustStart starts a session.
func mustStart(t testing.TB, s *Server, body string) grant {
	t.Helper()
	a := call(t, s, "StartSession", body)
	if a.status != http.StatusOK {
		t.Fatalf("StartSession %s was refused: %d %s %s", body, a.status, a.code(), a.message())
	}
	return grant{a.text("SessionId"), a.text("TokenValue"), a.text("StreamUrl")}
}

// mustResume gets a new token.
func mustResume(t testing.TB, s *Server, g grant) grant {
	t.Helper()
	a := call(t, s, "ResumeSession", `{"SessionId":"`+g.SessionID+`"}`)
	if a.status != http.StatusOK || a.text("TokenValue") == "" {
		t.Fatalf("ResumeSession gave no token: %d %v", a.status, a.code())
	}
	return grant{a.text("SessionId"), a.text("TokenValue"), a.text("StreamUrl")}
}

// peer is a client of a data channel, with the codec and nothing of our stream
// package.
type peer struct {
	t        testing.TB
	conn     *websocket.Conn
	next     int64 // of input
	expected int64 // of output
	output   bytes.Buffer
	stderr   bytes.Buffer
	exit     string
	closed   *frame.ChannelClosedPayload
	acks     map[int64]bool
	paused   int
	started  int
	secret   *peerSecret // of an encrypted session
}

func dial(t testing.TB, s *Server, url string, header http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	dialer := websocket.Dialer{TLSClientConfig: tlsConfig(t, s), HandshakeTimeout: patience}
	return dialer.Dial(url, header)
}

// connect dials a data channel and opens it with the token.
func connect(t testing.TB, s *Server, g grant) *peer {
	t.Helper()
	p := &peer{t: t, acks: map[int64]bool{}, secret: &peerSecret{server: s, sessionID: g.SessionID, targetID: "local"}}
	p.reconnect(s, g)
	t.Cleanup(func() { p.conn.Close() })
	return p
}

// reconnect goes on with another socket.
func (p *peer) reconnect(s *Server, g grant) {
	p.t.Helper()
	conn, _, err := dial(p.t, s, g.StreamURL, nil)
	if err != nil {
		p.t.Fatalf("the data channel cannot be dialled: %v", err)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(5 * patience)); err != nil { // no test writes for longer
		p.t.Fatal(err)
	}
	p.conn = conn
	p.open(g.TokenValue)
}

func (p *peer) open(token string) {
	p.t.Helper()
	open, err := json.Marshal(frame.OpenDataChannel{
		MessageSchemaVersion: "1.0",
		RequestID:            uuid.NewString(),
		TokenValue:           token,
		ClientID:             uuid.NewString(),
		ClientVersion:        "1.2.650.0",
	})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.conn.WriteMessage(websocket.TextMessage, open); err != nil {
		p.t.Fatalf("the opening cannot be sent: %v", err)
	}
}

// send sends one message of input.
func (p *peer) send(kind frame.PayloadType, payload []byte) {
	p.t.Helper()
	if kind == frame.Output {
		payload = p.secret.seal(payload)
	}
	m := inputMessage(p.next, kind, payload)
	p.next++
	if err := p.conn.WriteMessage(websocket.BinaryMessage, m); err != nil {
		p.t.Fatalf("input cannot be sent: %v", err)
	}
}

func inputMessage(sequence int64, kind frame.PayloadType, payload []byte) []byte {
	m := frame.Message{
		Type: frame.InputStreamData, Created: time.Now(), Sequence: sequence,
		ID: uuid.New(), PayloadType: kind, Payload: payload,
	}
	b, err := m.Append(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// receive reads one message, acknowledges output and takes it in when it is the
// expected one.
func (p *peer) receive() (frame.Message, error) {
	p.t.Helper()
	if err := p.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	_, data, err := p.conn.ReadMessage()
	if err != nil {
		return frame.Message{}, err
	}
	m, err := frame.Parse(data)
	if err != nil {
		p.t.Fatalf("a message that cannot be read: %v", err)
	}
	if err := m.Verify(); err != nil {
		p.t.Fatalf("a %s message whose payload is not what its digest says", m.Type)
	}
	p.take(&m)
	return m, nil
}

func (p *peer) take(m *frame.Message) {
	p.t.Helper()
	switch m.Type {
	case frame.OutputStreamData:
		if m.Sequence > p.expected {
			return // it comes again
		}
		p.acknowledge(m)
		if m.Sequence < p.expected {
			return
		}
		p.expected++
		m.Payload = p.secret.open(p.t, m.PayloadType, m.Payload)
		switch m.PayloadType {
		case frame.Output:
			p.output.Write(m.Payload)
		case frame.StdErr:
			p.stderr.Write(m.Payload)
		case frame.ExitCode:
			p.exit = string(m.Payload)
		case frame.HandshakeRequest:
			p.send(frame.HandshakeResponse, []byte(`{"ClientVersion":"1.2.650.0","ProcessedClientActions":`+
				`[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}`+p.secret.agree(p.t, m.Payload)+`],"Errors":null}`))
		case frame.EncChallengeRequest:
			p.send(frame.EncChallengeResponse, p.secret.answer(p.t, m.Payload))
		case frame.HandshakeComplete:
			p.secret.told = string(m.Payload)
		}
	case frame.Acknowledge:
		n, err := frame.ParseAck(m.Payload)
		if err != nil {
			p.t.Fatalf("an acknowledgement that cannot be read: %v", err)
		}
		p.acks[n] = true
	case frame.ChannelClosed:
		p.closed = &frame.ChannelClosedPayload{}
		if err := json.Unmarshal(m.Payload, p.closed); err != nil {
			p.t.Fatalf("a channel_closed that cannot be read: %v", err)
		}
	case frame.StartPublication:
		p.started++
	case frame.PausePublication:
		p.paused++
	}
}

func (p *peer) acknowledge(m *frame.Message) {
	ack := frame.Message{
		Type: frame.Acknowledge, Created: time.Now(), Flags: frame.FlagSYN | frame.FlagFIN, ID: uuid.New(),
		Payload: frame.Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence}.Append(nil),
	}
	b, err := ack.Append(nil)
	if err != nil {
		panic(err)
	}
	// After channel_closed nobody may be there to read it.
	_ = p.conn.WriteMessage(websocket.BinaryMessage, b)
}

// until receives until done says so.
func (p *peer) until(what string, done func() bool) {
	p.t.Helper()
	for !done() {
		if _, err := p.receive(); err != nil {
			p.t.Fatalf("%s: the socket ended first: %v (output so far: %q)", what, err, tail(p.output.Bytes()))
		}
	}
}

func tail(b []byte) []byte { return b[max(0, len(b)-200):] }

// wantOutput waits for text on the output.
func (p *peer) wantOutput(text string) {
	p.t.Helper()
	p.until("waiting for output "+text, func() bool { return bytes.Contains(p.output.Bytes(), []byte(text)) })
}

// wantClosed waits for channel_closed and then for the end of the socket.
func (p *peer) wantClosed() frame.ChannelClosedPayload {
	p.t.Helper()
	p.until("waiting for channel_closed", func() bool { return p.closed != nil })
	p.wantSocketEnd()
	return *p.closed
}

// wantSocketEnd waits for the socket to end, whatever comes before.
func (p *peer) wantSocketEnd() {
	p.t.Helper()
	for {
		_, err := p.receive()
		var timeout net.Error
		switch {
		case err == nil:
		case errors.As(err, &timeout) && timeout.Timeout():
			p.t.Fatal("the socket stays open")
		default:
			return
		}
	}
}

// echo is an agent that sends back what it gets as output, until the payload is
// "exit"; a payload "fail" fails.
func echo(ctx context.Context, cfg agent.Config, leg agent.Leg) agent.Result {
	var next int64
	state := frame.Message{Type: frame.AgentSessionState, Created: time.Now(), ID: uuid.New(),
		Payload: []byte(`{"SchemaVersion":1,"SessionState":"Connected","SessionId":"` + cfg.SessionID + `"}`)}
	if err := send(ctx, leg, &state); err != nil {
		return agent.Result{Status: "Failed"}
	}
	for {
		data, err := leg.Receive(ctx)
		if err != nil {
			return agent.Result{Status: "Cancelled"}
		}
		m, err := frame.Parse(data)
		if err != nil || m.Type == frame.Acknowledge {
			continue
		}
		payload := m.Payload
		switch {
		case m.Type != frame.InputStreamData:
			payload = []byte("<" + m.Type + ">")
		case string(payload) == "exit":
			return agent.Result{Status: "Success"}
		case string(payload) == "fail":
			return agent.Result{Status: "Failed", Output: "it failed"}
		}
		out := frame.Message{Type: frame.OutputStreamData, Created: time.Now(), Sequence: next, ID: uuid.New(),
			PayloadType: frame.Output, Payload: payload}
		next++
		if err := send(ctx, leg, &out); err != nil {
			return agent.Result{Status: "Cancelled"}
		}
	}
}

func send(ctx context.Context, leg agent.Leg, m *frame.Message) error {
	b, err := m.Append(nil)
	if err != nil {
		return err
	}
	return leg.Send(ctx, b)
}
