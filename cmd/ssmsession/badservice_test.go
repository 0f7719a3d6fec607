package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// What a bad service grants, and how long a run of the program against it may
// take.
const (
	badSession = "person-0123456789abcdef0"
	badToken   = "AAEAATheTokenThatNobodyMaySee"
	badKey     = "TheSecretKeyThatNobodyMaySee"
	badLimit   = 30 * time.Second
)

// badService is a service on loopback that answers as a test says. It checks no
// signatures.
type badService struct {
	t      *testing.T
	server *httptest.Server
	trap   net.Listener // the proxy of all that is not loopback: nobody may come

	api, resume, terminate, upgrade http.HandlerFunc          // instead of the good answers; nil for those
	grant                           func(*badService, *grant) // spoils what StartSession gives
	channel                         func(*farEnd)             // the far end of a data channel; nil: none may be asked for
	tasks                           sync.WaitGroup            // its data channels

	mu         sync.Mutex // guards what follows
	calls      []string   // of the API, by their names
	terminated []string   // sessions
	asked      []string   // addresses that data channels were asked for at
	granted    string     // the session that StartSession gave
	closed     bool       // a data channel was closed as the service does it
	trapped    int        // connections that came to the trap
}

// grant is the answer to StartSession.
type grant struct {
	SessionID  string `json:"SessionId,omitempty"`
	StreamURL  string `json:"StreamUrl,omitempty"`
	TokenValue string `json:",omitempty"`
}

// newBadService starts a service, over TLS if it is given a certificate, that
// answers as set says.
func newBadService(t *testing.T, cert *tls.Certificate, set func(*badService)) *badService {
	t.Helper()
	s := &badService{t: t}
	set(s)
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0) // what it says of bad clients is for them
	if cert == nil {
		s.server.Start()
	} else {
		s.server.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}}
		s.server.StartTLS()
	}
	s.trap = listen(t, func(c net.Conn) {
		s.note(func() { s.trapped++ })
		c.Close()
	})
	t.Cleanup(func() {
		s.server.Close()
		s.tasks.Wait()
	})
	return s
}

func (s *badService) note(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *badService) host() string { return s.server.Listener.Addr().String() }

// environment leads the program to the service, and into the trap if it wants to
// go anywhere else.
func (s *badService) environment() []string {
	trap := "http://" + s.trap.Addr().String()
	return childEnv("AWS_ENDPOINT_URL="+s.server.URL, "AWS_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY="+badKey,
		"HTTP_PROXY="+trap, "HTTPS_PROXY="+trap, "ALL_PROXY="+trap)
}

func (s *badService) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		s.open(w, r)
		return
	}
	_, call, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the caller has gone
	}
	s.note(func() { s.calls = append(s.calls, call) })
	switch call {
	case "StartSession":
		if s.api != nil {
			s.api(w, r)
			return
		}
		g := grant{badSession, "ws://" + s.host() + "/v1/data-channel/" + badSession + "?role=publish_subscribe", badToken}
		if s.grant != nil {
			s.grant(s, &g)
		}
		s.note(func() { s.granted = g.SessionID })
		says(http.StatusOK, marshal(g))(w, r)
	case "ResumeSession":
		if s.resume != nil {
			s.resume(w, r)
			return
		}
		says(http.StatusOK, marshal(grant{badSession, "ws://elsewhere.invalid/", badToken}))(w, r)
	case "TerminateSession":
		var named grant
		if err := json.Unmarshal(body, &named); err != nil {
			s.t.Errorf("TerminateSession is called with %q: %v", body, err)
		}
		s.note(func() { s.terminated = append(s.terminated, named.SessionID) })
		if s.terminate != nil {
			s.terminate(w, r)
			return
		}
		says(http.StatusOK, marshal(grant{SessionID: named.SessionID}))(w, r)
	case "GenerateDataKey":
		if bytes.Contains(body, []byte(`"KeyId":"denied`)) {
			refuses(http.StatusBadRequest, "AccessDeniedException", "no")(w, r)
			return
		}
		says(http.StatusOK, marshal(map[string]any{"CiphertextBlob": []byte("blob"), "Plaintext": make([]byte, 64), "KeyId": "k"}))(w, r)
	default:
		s.t.Errorf("the program calls %s", call)
	}
}

// open is the way to a data channel.
func (s *badService) open(w http.ResponseWriter, r *http.Request) {
	var nth int
	s.note(func() {
		s.asked = append(s.asked, r.RequestURI)
		nth = len(s.asked)
	})
	switch {
	case s.upgrade != nil:
		s.upgrade(w, r)
		return
	case s.channel == nil:
		s.t.Errorf("a data channel was asked for at %s", r.RequestURI)
		http.Error(w, "there are none", http.StatusNotFound)
		return
	}
	conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		s.t.Errorf("the upgrade at %s fails: %v", r.RequestURI, err)
		return
	}
	f := &farEnd{
		service: s, conn: conn, nth: nth,
		opened: make(chan frame.OpenDataChannel, 1), input: make(chan frame.Message, 100), gone: make(chan struct{}),
		ponged: make(chan struct{}, 1),
	}
	conn.SetPongHandler(func(string) error {
		select {
		case f.ponged <- struct{}{}:
		default:
		}
		return nil
	})
	s.tasks.Go(f.read)
	s.tasks.Go(func() {
		defer conn.Close()
		s.channel(f)
	})
}

// farEnd is the far end of one data channel: service and agent. Writing to a
// client that has gone is no error.
type farEnd struct {
	service  *badService
	conn     *websocket.Conn
	nth      int   // of the session's data channels, from 1
	sequence int64 // of the next output

	opened chan frame.OpenDataChannel
	input  chan frame.Message // the client's input_stream_data; what is not wanted is dropped
	ponged chan struct{}      // the client has answered a ping
	gone   chan struct{}      // closed when the client has gone
}

// read takes what the client says.
func (f *farEnd) read() {
	defer close(f.gone)
	for {
		kind, p, err := f.conn.ReadMessage()
		if err != nil {
			return
		}
		if kind == websocket.TextMessage {
			var open frame.OpenDataChannel
			if err := json.Unmarshal(p, &open); err != nil {
				f.service.t.Errorf("the client opens with %q: %v", p, err)
			}
			f.opened <- open
			continue
		}
		m, err := frame.Parse(p)
		if err == nil {
			err = m.Verify()
		}
		if err != nil {
			f.service.t.Errorf("the client sends %q: %v", p, err)
		}
		if m.Type == frame.InputStreamData {
			select {
			case f.input <- m:
			default:
			}
		}
	}
}

// wire is the wire form of a message that is good but for what the caller does.
func wire(m frame.Message) []byte {
	m.Created, m.ID = time.Now(), uuid.New()
	b, err := m.Append(nil)
	if err != nil {
		panic(err) // what the tests give can be encoded
	}
	return b
}

func (f *farEnd) binary(b []byte) { _ = f.conn.WriteMessage(websocket.BinaryMessage, b) }
func (f *farEnd) text(s string)   { _ = f.conn.WriteMessage(websocket.TextMessage, []byte(s)) }

// message is the agent's next message of a type.
func (f *farEnd) message(typ frame.PayloadType, payload string) []byte {
	return wire(frame.Message{
		Type: frame.OutputStreamData, Sequence: f.sequence, PayloadType: typ, Payload: []byte(payload),
	})
}

// send sends the agent's next message.
func (f *farEnd) send(typ frame.PayloadType, payload string) {
	f.binary(f.message(typ, payload))
	f.sequence++
}

// numbered sends output out of turn.
func (f *farEnd) numbered(sequence int64, payload string) {
	f.binary(wire(frame.Message{
		Type: frame.OutputStreamData, Sequence: sequence, PayloadType: frame.Output, Payload: []byte(payload),
	}))
}

// spoilt sends the next output spoilt; its number is not used up.
func (f *farEnd) spoilt(spoil func(b []byte)) {
	b := f.message(frame.Output, "spoilt\n")
	spoil(b)
	f.binary(b)
}

// answered waits until the client has said something.
func (f *farEnd) answered() {
	select {
	case <-f.input:
	case <-f.gone:
	}
}

// settle waits until the client has read all that was sent.
func (f *farEnd) settle(t *testing.T) {
	_ = f.conn.WriteControl(websocket.PingMessage, []byte("there?"), time.Time{}) // or it has gone
	select {
	case <-f.ponged:
	case <-f.gone:
		t.Error("the client has gone before the end")
	}
}

// end closes the channel as the service does, and sees the client go.
func (f *farEnd) end(output string) {
	f.service.note(func() { f.service.closed = true })
	f.binary(wire(frame.Message{
		Type: frame.ChannelClosed, HeaderLength: frame.ShortHeaderLen,
		Payload: marshal(frame.ChannelClosedPayload{
			MessageType: string(frame.ChannelClosed), SessionID: badSession, SchemaVersion: 1, Output: output,
		}),
	}))
	<-f.gone
}

// goOn is the rest of a good session.
func (f *farEnd) goOn() {
	f.send(frame.Output, "survived\n")
	f.end("")
}

// badRow is one thing that can be wrong with a service, or with the command line.
type badRow struct {
	name string
	args []string // nil: start and a target; else what follows start

	api, resume, terminate, upgrade http.HandlerFunc          // as badService's
	grant                           func(*badService, *grant) // as badService's
	channel                         func(*farEnd)             // as badService's

	status int
	says   string // a pattern that the line on stderr matches; empty: no line
	prints string // all of stdout
	starts int    // calls of StartSession; 0: one, or none if it is a usage error
}

// TestBadService starts a session with services that have something wrong.
func TestBadService(t *testing.T) {
	for _, row := range slices.Concat(usageRows(), answerRows(), dialRows(t), openRows(), frameRows()) {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.test(t)
		})
	}
}

func (row badRow) test(t *testing.T) {
	s := newBadService(t, nil, func(s *badService) {
		s.api, s.resume, s.terminate, s.upgrade = row.api, row.resume, row.terminate, row.upgrade
		s.grant, s.channel = row.grant, row.channel
	})
	args := row.args
	if args == nil {
		args = []string{exampleTarget}
	}
	e := endsInTime(t, badLimit, nil, s.environment(), append([]string{"ssmsession", "start"}, args...)...)
	if e.status != row.status {
		t.Errorf("it ends with status %d, want %d", e.status, row.status)
	}
	e.wantSays(t, row.says)
	if e.stdout != row.prints {
		t.Errorf("stdout is %.200q, want %.200q", e.stdout, row.prints)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	starts := row.starts
	if starts == 0 && row.status != exitUsage {
		starts = 1
	}
	if got := s.starts(); got != starts {
		t.Errorf("it calls StartSession %d times, want %d", got, starts)
	}
	var wantTerminated []string
	if s.granted != "" && !s.closed {
		wantTerminated = []string{s.granted}
	}
	if got := slices.Compact(s.terminated); !slices.Equal(got, wantTerminated) {
		t.Errorf("it ends the sessions %q at the service, want %q", got, wantTerminated)
	}
	if s.trapped > 0 {
		t.Errorf("it went to a stranger %d times", s.trapped)
	}
}

// starts counts the calls of StartSession. mu is held.
func (s *badService) starts() (n int) {
	for _, call := range s.calls {
		if call == "StartSession" {
			n++
		}
	}
	return n
}

func usageRows() []badRow {
	rows := []badRow{
		{name: "no target", args: []string{}, says: `target`},
		{name: "an empty target", args: []string{"--target", ""}, says: `target`},
		{name: "an empty argument", args: []string{""}, says: `target`},
		{name: "a target of 401 characters", args: []string{strings.Repeat("i", 401)}, says: `target`},
		{name: "parameters that are no JSON", args: []string{exampleTarget, "--parameters", `{"command":`}, says: `parameters`},
		{name: "parameters of JSON that is no object", args: []string{exampleTarget, "--parameters", `{"command":{}}`}, says: `parameters`},
		{name: "parameters without a value", args: []string{exampleTarget, "--parameters", `command`}, says: `parameters`},
		{name: "a reason of 257 characters", args: []string{exampleTarget, "--reason", strings.Repeat("r", 257)}, says: `reason`},
		{name: "a document that can have no such name", args: []string{exampleTarget, "--document-name", "a b"}, says: `document`},
		{name: "a time that is none", args: []string{exampleTarget, "--connect-timeout", "soon"}, says: `connect-timeout`},
		{name: "a time before now", args: []string{exampleTarget, "--connect-timeout", "-1s"}, says: `connect-timeout`},
		{name: "a flag that is none", args: []string{exampleTarget, "--no-such-flag"}, says: `no-such-flag`},
	}
	for i := range rows {
		rows[i].status = exitUsage
	}
	return rows
}

// quickly are the arguments that give a connection a second.
func quickly(more ...string) []string {
	return append([]string{exampleTarget, "--connect-timeout", "1s"}, more...)
}

// late is what is said when that was not enough.
const late = `\b1s\b|in time|timeout|no answer|timed out`

// answerRows are answers to StartSession.
func answerRows() []badRow {
	const page = "<!DOCTYPE html><html><body>Please log in, AAEAATheTokenThatNobodyMaySee</body></html>"
	const on = `session on ` + exampleTarget + `: `
	rows := []badRow{
		{name: "no SessionId", grant: func(_ *badService, g *grant) { g.SessionID = "" }, says: `SessionId`},
		{name: "no StreamUrl", grant: func(_ *badService, g *grant) { g.StreamURL = "" }, says: `StreamUrl`},
		{name: "no TokenValue", grant: func(_ *badService, g *grant) { g.TokenValue = "" }, says: `TokenValue`},
		{name: "nothing at all", api: says(200, nil), says: on},
		{name: "an empty object", api: says(200, []byte(`{}`)), says: on + `.*SessionId`},
		{name: "null", api: says(200, []byte(`null`)), says: on},
		{name: "a list", api: says(200, []byte(`[]`)), says: on},
		{name: "an object cut short", api: says(200, []byte(`{"SessionId":"a","TokenValue":"`+badToken)), says: on},
		{name: "a number for a name", api: says(200, []byte(`{"SessionId":5,"TokenValue":"`+badToken+`"}`)), says: on},
		{name: "a login page", api: says(200, []byte(page)), says: on},
		{name: "a login page that refuses", api: says(403, []byte(page)), says: on + `.*403`},
		{name: "a refusal without a word", api: says(400, nil), says: on + `.*400`},
		{name: "a failure without a word", api: says(500, nil), starts: 3, says: on + `.*500`},
		{name: "a gateway that is ill", api: says(502, []byte(page)), starts: 3, says: on + `.*502`},
		{name: "a way elsewhere", api: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusTemporaryRedirect)
		}, says: on + `.*307`},
		{name: "the line cut", api: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			starts: 3, says: on},
		{name: "no answer", args: quickly(), api: never, says: `(` + late + `).*` + exampleTarget + `|` + exampleTarget + `.*(` + late + `)`},

		{name: "InternalServerError", api: refuses(500, "InternalServerError", "An error occurred."), starts: 3, says: on + `the service failed`},
		{name: "InvalidDocument", args: []string{exampleTarget, "--document-name", "No-Such"},
			api: refuses(400, "InvalidDocument", "Document No-Such does not exist."), says: `No-Such`},
		{name: "TargetNotConnected", api: refuses(400, "TargetNotConnected", exampleTarget+" is not connected."), says: on + `.*not connected`},
		{name: "TargetNotConnected in a namespace", api: refuses(400, "com.amazonaws.ssm#TargetNotConnected", ""), says: on + `.*not connected`},
		{name: "AccessDeniedException", api: refuses(400, "AccessDeniedException", "User: jane is not authorized."), says: on + `access denied.*jane`},
		{name: "AccessDeniedException without a word", api: refuses(400, "AccessDeniedException", ""), says: on + `access denied$`},
		{name: "ValidationException", api: refuses(400, "ValidationException", "Value at 'target'."), says: on + `.*Value at 'target'`},
		{name: "ThrottlingException", api: refuses(400, "ThrottlingException", "Rate exceeded"), starts: 3, says: on + `too many`},
		{name: "ExpiredTokenException", api: refuses(400, "ExpiredTokenException", "The token has expired."), says: on + `.*expired`},
		{name: "UnrecognizedClientException", api: refuses(400, "UnrecognizedClientException", "The token is invalid."), says: on + `.*access key`},
		{name: "an unknown code", api: refuses(400, "TeapotException", "short and stout"), says: on + `.*Teapot.*short and stout`},
		{name: "an unknown code without a word", api: refuses(418, "TeapotException", ""), says: on + `.*Teapot`},
		{name: "a word that moves the cursor", api: refuses(400, "TeapotException", "a\x1b[2J\u009b\u202eb\r\nc"), says: on + `.*a.*c`},
	}
	for i := range rows {
		rows[i].status = exitFailed
	}
	return rows
}

// dialRows are stream URLs, and what is behind them.
func dialRows(t *testing.T) []badRow {
	deaf := listen(t, func(c net.Conn) {
		defer c.Close()
		_, _ = io.Copy(io.Discard, c) // until the client goes
	})
	shut := listen(t, func(c net.Conn) { c.Close() })
	nobody := listen(t, func(net.Conn) {})
	nobody.Close()
	to := func(url string) func(*badService, *grant) {
		return func(s *badService, g *grant) {
			g.StreamURL = strings.NewReplacer("HERE", s.host(), "DEAF", deaf.Addr().String(),
				"SHUT", shut.Addr().String(), "NOBODY", nobody.Addr().String()).Replace(url)
		}
	}
	const host = `127\.0\.0\.1:\d+`
	rows := []badRow{
		{name: "ws to a stranger", grant: to("ws://service.test/v1?role=publish_subscribe"), says: `service\.test.*wss`},
		{name: "ws to a stranger's address", grant: to("ws://192.0.2.1/"), says: `192\.0\.2\.1.*wss`},
		{name: "ws to a stranger who is named like us", grant: to("ws://127.0.0.1.service.test/"), says: `service\.test.*wss`},
		{name: "ws to a stranger whose user is named like us", grant: to("ws://127.0.0.1@service.test/"), says: `service\.test.*wss`},
		{name: "ws to a stranger, in capitals", grant: to("WS://SERVICE.TEST/"), says: `(?i)service\.test.*wss`},
		{name: "http", grant: to("http://HERE/"), says: host + `.*wss`},
		{name: "https", grant: to("https://HERE/"), says: host + `.*wss`},
		{name: "no scheme", grant: to("HERE/v1"), says: `stream URL`},
		{name: "a file", grant: to("file:///etc/passwd"), says: `stream URL`},
		{name: "no URL", grant: to("\x1b[2J:// not\na URL"), says: `stream URL`},
		{name: "no host", grant: to("wss:///v1"), says: `stream URL|host`},
		{name: "a port that is none", grant: to("ws://127.0.0.1:99999/"), says: `127\.0\.0\.1:99999`},
		{name: "a user and a password", grant: to("ws://user:" + proxyPassword + "@HERE/"), says: host},
		{name: "nobody there", grant: to("ws://NOBODY/"), says: host + `.*refused`},
		{name: "wss with somebody who speaks none", grant: to("wss://HERE/"), says: host + `.*(?i:tls|http)`},
		{name: "somebody who hangs up", grant: to("ws://SHUT/"), says: host + `.*(closed|EOF|reset)`},
		{name: "somebody who says nothing", args: quickly(), grant: to("ws://DEAF/"), says: `(` + host + `|data channel).*(` + late + `)`},
		{name: "somebody who says nothing to TLS", args: quickly(), grant: to("wss://DEAF/"), says: `(` + host + `|data channel).*(` + late + `)`},

		{name: "the upgrade refused", upgrade: says(403, []byte(badToken)), says: host + `.*403`},
		{name: "the upgrade failed", upgrade: says(500, nil), says: host + `.*500`},
		{name: "a page instead", upgrade: says(200, []byte("<html>\x1b[2J")), says: host + `.*200`},
		{name: "a way elsewhere", upgrade: http.RedirectHandler("http://elsewhere.invalid/", http.StatusFound).ServeHTTP, says: host + `.*302`},
		{name: "an upgrade to something else", upgrade: answersRaw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: tea\r\nConnection: Upgrade\r\n\r\n"), says: host},
		{name: "an upgrade that knows not our key", upgrade: answersRaw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: bm8=\r\n\r\n"), says: host},
		{name: "no HTTP", upgrade: answersRaw("\x1b[2JSSH-2.0-tea\r\n\r\n"), says: host},
		{name: "a session id that moves the cursor", upgrade: says(403, nil),
			grant: func(_ *badService, g *grant) { g.SessionID = "a\x1b[2J\r\nb" }, says: host + `.*403`},
		{name: "a session that cannot be ended either", upgrade: says(403, nil),
			terminate: refuses(400, "AccessDeniedException", ""), says: host + `.*403`},
		{name: "a session whose end is not answered", upgrade: says(403, nil), terminate: never, says: host + `.*403`},
	}
	for i := range rows {
		rows[i].status = exitFailed
	}
	return rows
}

// openRows are data channels that open and do not become a session.
func openRows() []badRow {
	asks := func(payload string, then func(*farEnd)) func(*farEnd) {
		return func(f *farEnd) {
			f.send(frame.HandshakeRequest, payload)
			then(f)
		}
	}
	silence := func(f *farEnd) { <-f.gone }
	const shell = `{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream"}}]}`
	const tea = `{"RequestedClientActions":[{"ActionType":"Make\u001b[2JTea","ActionParameters":{}}]}`
	rows := []badRow{
		{name: "never a message", args: quickly(), channel: silence, says: late},
		{name: "closed at once, again and again", args: quickly(), channel: func(*farEnd) {}, says: late},
		{name: "pings and nothing else", args: quickly(), channel: func(f *farEnd) {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					_ = f.conn.WriteControl(websocket.PingMessage, []byte("hello"), time.Time{}) // or it has gone
				case <-f.gone:
					return
				}
			}
		}, says: late},
		{name: "10 MB in one message, again and again", args: quickly(), channel: func(f *farEnd) {
			f.binary(make([]byte, 10<<20))
			<-f.gone
		}, says: late + `|large|limit`},
		{name: "closed before anything, with a reason", channel: func(f *farEnd) { f.end("no\x1b[2J \u202etea\u2028\ntoday") }, says: `closed before it began.*no.*tea.*today`},
		{name: "a reason as long as a book", channel: func(f *farEnd) {
			f.end(strings.Repeat("\x1b]0;mine\a\r\n", 10_000))
		}, says: `closed before it began.*\\x1b.*mine`},
		{name: "a handshake that is no JSON", channel: asks("\x1b[2J", silence), says: `handshake`},
		{name: "a handshake that asks for a list", channel: asks("[]", silence), says: `handshake`},
		{name: "a handshake and then silence", args: quickly(), channel: asks(shell, silence), says: late + `|handshake`},
		{name: "a handshake that asks for what nobody knows", channel: asks(tea, func(f *farEnd) {
			f.answered()
			f.end("")
		}), says: `could not do what it asked.*Tea`},
		{name: "a handshake that asks for what nobody knows, and then silence", args: quickly(), channel: asks(tea, silence), says: `Tea|handshake|` + late},
		{name: "a handshake for a session that nobody knows", channel: asks(strings.Replace(shell, "Standard_Stream", "Tea", 1), func(f *farEnd) {
			f.answered()
			f.end("")
		}), says: `Tea`},
		{name: "a handshake for a tunnel", channel: asks(strings.Replace(shell, "Standard_Stream", "Port", 1), func(f *farEnd) {
			f.answered()
			f.send(frame.HandshakeComplete, `{}`)
			<-f.gone
		}), says: `(?i)port`},
		{name: "a handshake that ends before it began", channel: func(f *farEnd) {
			f.send(frame.HandshakeComplete, `{}`)
			<-f.gone
		}, says: `handshake`},
		{name: "a handshake that ends in no JSON", channel: asks(shell, func(f *farEnd) {
			f.answered()
			f.send(frame.HandshakeComplete, "\x1b[2J")
			<-f.gone
		}), says: `handshake`},
		{name: "a status that is no number", channel: func(f *farEnd) {
			f.send(frame.ExitCode, "EXIT_CODE: \x1b[2J")
			<-f.gone
		}, says: `exit code`},
	}
	for i := range rows {
		rows[i].status = exitFailed
	}
	return rows
}

// frameRows are frames that a session survives, and some that it does not.
func frameRows() []badRow {
	survives := func(name string, channel func(*farEnd)) badRow {
		return badRow{name: name, prints: "survived\n", channel: func(f *farEnd) {
			channel(f)
			f.goOn()
		}}
	}
	header := func(n uint32) func(*farEnd) {
		return func(f *farEnd) {
			f.spoilt(func(b []byte) { binary.BigEndian.PutUint32(b, n) })
		}
	}
	length := func(n uint32) func(*farEnd) {
		return func(f *farEnd) {
			b := f.message(frame.Output, "whole\n")
			binary.BigEndian.PutUint32(b[frame.HeaderLen:], n)
			f.binary(b)
			f.sequence++
		}
	}
	reading := func(row badRow) badRow {
		row.prints = "whole\n" + row.prints
		return row
	}
	return []badRow{
		survives("a wrong digest", func(f *farEnd) { f.spoilt(func(b []byte) { b[80]++ }) }),
		survives("a payload changed on the way", func(f *farEnd) { f.spoilt(func(b []byte) { b[len(b)-1]++ }) }),
		survives("a header length of 0", header(0)),
		survives("a header length of 1", header(1)),
		survives("a header length that leaves no payload length", header(frame.HeaderLen+8)),
		survives("a header length of 2³¹", header(1<<31)),
		survives("a header length of 2³²-1", header(math.MaxUint32)),
		survives("every beginning of a message", func(f *farEnd) {
			b := f.message(frame.Output, "spoilt\n")
			for n := range b {
				f.binary(b[:n])
			}
		}),
		survives("text that is no message", func(f *farEnd) {
			f.text("")
			f.text("{}")
			f.text(strings.Repeat("\x1b[2J", 1000))
		}),
		reading(survives("a payload length of 1", length(1))),
		reading(survives("a payload length of 2³²-1", length(math.MaxUint32))),
		survives("a message type that nobody knows", func(f *farEnd) {
			f.binary(wire(frame.Message{Type: "make_tea", Payload: []byte("now")}))
		}),
		survives("no message type", func(f *farEnd) {
			f.spoilt(func(b []byte) { copy(b[4:36], make([]byte, 32)) })
		}),
		survives("a payload type that nobody knows", func(f *farEnd) { f.send(4711, "tea") }),
		survives("acknowledgements of what was never sent", func(f *farEnd) {
			for _, n := range []int64{0, -1, math.MaxInt64, math.MinInt64} {
				f.binary(wire(frame.Message{Type: frame.Acknowledge, Payload: frame.Ack{Type: frame.InputStreamData, Sequence: n}.Append(nil)}))
			}
			for _, p := range []string{"{}", "[]", "tea", "\x00", `{"AcknowledgedMessageSequenceNumber":"9"}`, `{"AcknowledgedMessageSequenceNumber":1e99}`} {
				f.binary(wire(frame.Message{Type: frame.Acknowledge, Payload: []byte(p)}))
			}
		}),
		survives("numbers that cannot be", func(f *farEnd) {
			for _, n := range []int64{-1, math.MinInt64, math.MaxInt64, math.MaxInt32} {
				f.numbered(n, "nobody should see this\n")
			}
		}),
		reading(survives("everything twice", func(f *farEnd) {
			b := f.message(frame.Output, "whole\n")
			f.binary(b)
			f.binary(b)
			f.sequence++
		})),
		survives("10 MB in one message", func(f *farEnd) {
			if f.nth > 1 {
				return
			}
			f.binary(make([]byte, 10<<20))
			<-f.gone
		}),
		reading(survives("handshakes in the middle", func(f *farEnd) {
			f.send(frame.Output, "whole\n")
			f.send(frame.HandshakeRequest, "tea")
			f.send(frame.HandshakeComplete, "tea")
			f.send(frame.EncChallengeRequest, "tea")
		})),
		{name: "a gap that never fills", channel: func(f *farEnd) {
			f.send(frame.Output, "before\n")
			f.numbered(2, "after\n")
			f.end("")
		}, status: exitFailed, says: `before all of its output`, prints: "before\n"},
		{name: "closed before anything, as by a command that has nothing to say", channel: func(f *farEnd) { f.end("") }},
		{name: "a gap at the beginning that never fills", channel: func(f *farEnd) {
			f.numbered(1, "after\n")
			f.end("bye")
		}, status: exitFailed, says: `before all of its output`},
		{name: "a parting word that moves the cursor", channel: func(f *farEnd) {
			f.send(frame.Output, "before\n")
			f.end(strings.Repeat("\x1b]0;mine\a\r\n\u009b2J", 8_000))
		}, says: `session closed: \\x1b]0;mine`, prints: "before\n"},
		{name: "the line lost, and the session over", channel: func(f *farEnd) { f.send(frame.Output, "before\n") },
			resume: says(200, marshal(grant{SessionID: badSession})), status: exitFailed, says: `over`, prints: "before\n"},
		{name: "the line lost, and no leave to come back", channel: func(f *farEnd) { f.send(frame.Output, "before\n") },
			resume: refuses(400, "AccessDeniedException", "not you"), status: exitFailed, says: `not you`, prints: "before\n"},
		{name: "an end that is no JSON", channel: func(f *farEnd) {
			f.send(frame.Output, "before\n")
			f.service.note(func() { f.service.closed = true })
			f.binary(wire(frame.Message{Type: frame.ChannelClosed, Payload: []byte("\x1b[2J")}))
			<-f.gone
		}, prints: "before\n"},
	}
}
