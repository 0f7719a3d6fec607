package emulator

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Who has no key: what they can do to a server, and what they cannot.

// knock opens a plain connection.
func knock(t testing.TB, s *Server) net.Conn {
	t.Helper()
	_, address, _ := strings.Cut(s.URL(), "://")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("the server cannot be dialled: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// waiting is how many connections have shown no key and no token.
func waiting(s *Server) int {
	s.lobby.mu.Lock()
	defer s.lobby.mu.Unlock()
	return s.lobby.order.Len()
}

// wantGone waits for the server to close a connection, whatever it says before.
func wantGone(t testing.TB, what string, conn net.Conn) []byte {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(conn)
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%s keeps its connection", what)
	}
	return said
}

// wantService is that a session can be had and used.
func wantService(t testing.TB, s *Server) {
	t.Helper()
	p := connect(t, s, mustStart(t, s, `{"Target":"local"}`))
	p.send(frame.Output, []byte("hello"))
	p.wantOutput("hello")
	p.send(frame.Output, []byte("exit"))
	p.wantClosed()
}

func TestAWebPageIsRefusedEvenWithAKey(t *testing.T) {
	s := startWith(t, Config{}, echo)
	for _, origin := range []string{"http://evil.example", "null", "", s.URL()} {
		r := newRequest(t, s, "GetConnectionStatus", `{"Target":"local"}`)
		r.Header["Origin"] = []string{origin}
		if a := do(t, s, r); a.status != http.StatusForbidden {
			t.Errorf("a call of a page of %q gets %d", origin, a.status)
		}
	}
	r, err := http.NewRequest(http.MethodOptions, s.URL()+"/", nil) // what a browser asks before a call with a signature
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Access-Control-Request-Method", "POST")
	if a := do(t, s, r); a.status < 400 || a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a browser that asks whether it may call gets %d, %v", a.status, a.header)
	}
}

func TestACallForAnotherHostIsRefused(t *testing.T) {
	s := startWith(t, Config{}, echo)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	r := newRequest(t, s, "GetConnectionStatus", `{"Target":"local"}`)
	r.Host = "evil.example:" + port // rebound to our address
	if a := do(t, s, r); a.status != http.StatusForbidden {
		t.Errorf("a call for another name gets %d", a.status)
	}
	r = newRequest(t, s, "GetConnectionStatus", `{"Target":"local"}`)
	r.Host = "localhost:" + port // ours, but not the one that was signed
	if a := do(t, s, r); a.code() != "InvalidSignatureException" {
		t.Errorf("a call that was signed for another name of ours gets %d %s", a.status, a.code())
	}
	for _, request := range []string{"POST / HTTP/1.0\r\n\r\n", "POST / HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n"} {
		conn := knock(t, s)
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		if said := wantGone(t, "a call without a name", conn); !bytes.Contains(said, []byte(" 403 ")) {
			t.Errorf("a call without a name gets %q", said)
		}
	}
}

func TestAHashOfAnotherBodyDoesNotHelp(t *testing.T) {
	s := startWith(t, Config{}, echo)
	r := newRequest(t, s, "GetConnectionStatus", `{"Target":"local"}`)
	r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(`{"Target":"other"}`)), 18
	if a := do(t, s, r); a.code() != "InvalidSignatureException" {
		t.Errorf("a call with another body gets %d %s", a.status, a.code())
	}
}

func TestABodyIsReadOfWhoNamesTheKeyOnly(t *testing.T) {
	s := startWith(t, Config{}, echo)
	const unknown = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20240829/us-east-1/ssm/aws4_request, SignedHeaders=host, Signature=00"
	for header, want := range map[string]string{
		"X-Amz-Target: AmazonSSM.StartSession":                                                        "MissingAuthenticationTokenException",
		"X-Amz-Target: AmazonSSM.StartSession\r\nAuthorization: " + unknown:                           "UnrecognizedClientException",
		"X-Amz-Target: AmazonSSM.StartSession\r\nAuthorization: Basic eDp5":                           "IncompleteSignatureException",
		"Content-Type: application/x-www-form-urlencoded\r\nAuthorization: " + unknown:                "InvalidClientTokenId",
		"Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\nAuthorization: " + unknown: "InvalidClientTokenId",
	} {
		conn := knock(t, s)
		// The body never comes.
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n%s\r\n\r\n", header)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("a call with %q gets no answer: %v", header, err)
			continue
		}
		buf := make([]byte, 4096)
		n, _ := response.Body.Read(buf)
		if !bytes.Contains(buf[:n], []byte(want)) {
			t.Errorf("a call with %q gets %q, not %s", header, buf[:n], want)
		}
		conn.Close()
	}
}

func TestAnUnsignedBodyIsSmall(t *testing.T) {
	s := startWith(t, Config{}, echo)
	token := strings.Repeat("x", 20_000)
	for size, want := range map[int]int{len(token): http.StatusBadRequest, unsignedLimit: http.StatusRequestEntityTooLarge} {
		body := form("AssumeRoleWithWebIdentity", "RoleArn", opsRole, "RoleSessionName", "jane", "WebIdentityToken", strings.Repeat("x", size)).Encode()
		r, err := http.NewRequest(http.MethodPost, s.URL()+"/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", queryContentType)
		if a := do(t, s, r); a.status != want {
			t.Errorf("a web identity of %d bytes gets %d, not %d", size, a.status, want)
		}
	}
}

func TestHeadersAreBounded(t *testing.T) {
	s := startWith(t, Config{}, echo)
	conn := knock(t, s)
	// What is written after the refusal may meet a connection that is closed.
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", 128<<10))
	if said := wantGone(t, "who sends 128 KiB of headers", conn); !bytes.Contains(said, []byte(" 431 ")) {
		t.Errorf("128 KiB of headers get %q", said)
	}
}

// upgrade is a request for a data channel.
const upgrade = "GET /v1/data-channel/x HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// TestTheSlowAreNotWaitedFor: whoever does not come to the point loses the connection,
// by the one limit that is not an hour here.
func TestTheSlowAreNotWaitedFor(t *testing.T) {
	const soon = 200 * time.Millisecond
	header := Limits{Header: soon, Body: time.Hour, Open: time.Hour}
	body := Limits{Header: time.Hour, Body: soon, Open: time.Hour}
	open := Limits{Header: time.Hour, Body: time.Hour, Open: soon}
	for _, test := range []struct {
		what   string
		cfg    Config
		words  string
		signed bool
	}{
		{"who says nothing", Config{Limits: header}, "", false},
		{"who stops within the headers", Config{Limits: header}, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n", false},
		{"who begins no TLS", Config{Limits: header, TLS: true}, "", false},
		{"who stops within the body", Config{Limits: body}, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n" +
			"X-Amz-Target: AmazonSSM.StartSession\r\nContent-Length: 18\r\nAuthorization: ", true},
		{"who stops within an unsigned body", Config{Limits: body},
			"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 18\r\n\r\nA", false},
		{"who upgrades and says nothing", Config{Limits: open}, upgrade, false},
		{"who begins a message", Config{Limits: open}, upgrade + "\x81\xfe\x10\x00", false},
	} {
		s := startWith(t, test.cfg, echo)
		conn := knock(t, s)
		words := test.words
		if test.signed {
			words += newRequest(t, s, "StartSession", `{"Target":"local"}`).Header.Get("Authorization") + "\r\n\r\n{"
		}
		if _, err := io.WriteString(conn, words); err != nil {
			t.Fatal(err)
		}
		wantGone(t, test.what, conn)
		for end := time.Now().Add(patience); waiting(s) > 0; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatalf("%s is counted when gone", test.what)
			}
		}
	}
}

// TestADataChannelOutlivesARequest: the times of requests end with the upgrade.
func TestADataChannelOutlivesARequest(t *testing.T) {
	for _, tls := range []bool{false, true} {
		s := startWith(t, Config{TLS: tls, Limits: Limits{Header: 2 * time.Second, Body: 2 * time.Second}}, echo)
		p := connect(t, s, mustStart(t, s, `{"Target":"local"}`))
		p.wantOutput("<start_publication>")
		wantGone(t, "a request that began later", knock(t, s))
		p.say("still there")
	}
}

// TestPingsDoNotBuyTime: a websocket that only pings is not open.
func TestPingsDoNotBuyTime(t *testing.T) {
	s := startWith(t, Config{Limits: Limits{Open: 300 * time.Millisecond}}, echo)
	conn, _, err := dial(t, s, mustStart(t, s, `{"Target":"local"}`).StreamURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for end := time.Now().Add(patience); ; {
		if err := conn.WriteControl(websocket.PingMessage, []byte("still there"), time.Now().Add(patience)); err != nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the socket stays open")
		}
	}
}

func TestAnOpeningIsSmall(t *testing.T) {
	s := startWith(t, Config{Limits: Limits{Open: time.Hour}}, echo)
	g := mustStart(t, s, `{"Target":"local"}`)
	conn, _, err := dial(t, s, g.StreamURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// It is enough to announce it: the text of 32 KiB never comes.
	if _, err := io.WriteString(conn.NetConn(), "\x81\xfe\x80\x00mask"); err != nil {
		t.Fatal(err)
	}
	(&peer{t: t, conn: conn}).wantSocketEnd()
	p := connect(t, s, g) // the token is still good
	p.send(frame.Output, bytes.Repeat([]byte("x"), messageLimit-1000))
	p.until("a large message", func() bool { return p.output.Len() > messageLimit-1000 })
}

// TestIdleSocketsKeepNobodyOut has more of them than are let in, of every kind that
// shows no key.
func TestIdleSocketsKeepNobodyOut(t *testing.T) {
	const sockets = 3 * lobbyLimit
	s := startWith(t, Config{Limits: Limits{Header: time.Hour, Body: time.Hour, Open: time.Hour}}, echo)
	began := connect(t, s, mustStart(t, s, `{"Target":"local"}`))
	began.wantOutput("<start_publication>")
	before := runtime.NumGoroutine()
	words := []string{
		"", "POST / HTTP/1.1\r\n",
		"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 18\r\n\r\nA",
		"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",                       // refused, and kept alive
		"GET /v1/data-channel/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",      // no upgrade
		"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n", // not signed
		upgrade,
	}
	conns := make([]net.Conn, sockets)
	for i := range conns {
		conns[i] = knock(t, s)
		if err := conns[i].SetDeadline(time.Time{}); err != nil { // so many take their time
			t.Fatal(err)
		}
		_, _ = io.WriteString(conns[i], words[i%len(words)]) // an early one may be gone
	}
	// The last one was accepted when it is answered, and with it all before.
	last := knock(t, s)
	fmt.Fprint(last, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(last), nil); err != nil {
		t.Fatalf("the last one is not answered: %v", err)
	}
	if n := waiting(s); n > lobbyLimit {
		t.Errorf("%d connections without a key are kept, more than %d", n, lobbyLimit)
	}
	wantGone(t, "the oldest of too many", conns[0])
	wantService(t, s)
	began.say("a session that was there before goes on")
	// Goroutines tell what is really left: two for a connection, one more for a leg.
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before+3*lobbyLimit+50; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines are left of %d connections", runtime.NumGoroutine()-before, sockets)
		}
	}
	for _, conn := range conns {
		conn.Close()
	}
	last.Close()
	for end := time.Now().Add(patience); waiting(s) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections that are gone are counted", waiting(s))
		}
	}
}

// TestTheKnownAreNotCounted: who has shown a key or a token is not closed for others.
func TestTheKnownAreNotCounted(t *testing.T) {
	s := startWith(t, Config{}, echo)
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	signed := func() *http.Request { return newRequest(t, s, "GetConnectionStatus", `{"Target":"local"}`) }
	unsigned := signed()
	unsigned.Header.Del("Authorization")
	forged := signed()
	forged.Header.Set("X-Amz-Target", "AmazonSSM.StartSession")
	noUpgrade, err := http.NewRequest(http.MethodGet, s.URL()+dataChannelPath+"x", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		request *http.Request
		counted int
	}{{"has not signed", unsigned, 1}, {"has signed something else", forged, 1}, {"has asked for a data channel", noUpgrade, 1}, {"has signed", signed(), 0}} {
		response, err := client.Do(test.request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if n := waiting(s); n != test.counted {
			t.Errorf("of the connection of who %s %d are counted, not %d", test.name, n, test.counted)
		}
		client.CloseIdleConnections()
		for end := time.Now().Add(patience); waiting(s) > 0; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatal("a connection that is gone is counted")
			}
		}
	}
	p := connect(t, s, mustStart(t, s, `{"Target":"local"}`))
	p.wantOutput("<start_publication>")
	for end := time.Now().Add(patience); waiting(s) > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("a data channel that is open is counted")
		}
	}
}

// TestFilesArePrivate whatever the umask is: the environment has the key.
func TestFilesArePrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no modes")
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	s, err := Start(context.Background(), Config{TLS: true, Targets: []Target{{ID: "i-0123456789abcdef0"}}, AuthorizedKeys: filepath.Join(dir, "keys")})
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteEnvFile(filepath.Join(dir, "env"), s.Environment()); err != nil {
		t.Fatal(err)
	}
	if err := s.keys.add("ssh-ed25519 AAAA"); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Fatalf("the files are %v, %v, not three", files, err)
	}
	for _, file := range files {
		if info, err := file.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", file.Name(), info.Mode(), err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 { // the environment's is its writer's
		t.Errorf("left are %v, %v", left, err)
	}
}
