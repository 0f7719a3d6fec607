package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// newClient is a version whose client multiplexes and wants no keep-alive.
const newClient = "1.2.707.0"

// listenLoopback is a destination: its connections come on a channel.
func listenLoopback(t testing.TB) (port string, conns <-chan net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted, ended := make(chan net.Conn, 100), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			accepted <- conn
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-ended
	})
	_, port, err = net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, accepted
}

// closedPort is a port at which nothing listens.
func closedPort(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// wantConn waits for the next connection that the agent makes.
func wantConn(t testing.TB, why string, conns <-chan net.Conn) net.Conn {
	t.Helper()
	select {
	case conn := <-conns:
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		return conn
	case <-time.After(patience):
		t.Fatalf("%s: the agent did not connect", why)
		return nil
	}
}

func wantBytes(t testing.TB, why string, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("%s: got %q, %v, want %q", why, got, err, want)
	}
}

func wantEOF(t testing.TB, why string, r io.Reader) {
	t.Helper()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("%s: got %d bytes and %v, want the end", why, n, err)
	}
}

// portConfig is a session of type Port.
func portConfig(version, properties string) Config {
	return Config{Version: version, Document: Document{SessionType: frame.Port, Properties: json.RawMessage(properties)}}
}

func sshTo(port string) Config { return portConfig(current, fmt.Sprintf(`{"portNumber":%q}`, port)) }

func forwardTo(version, port string) Config {
	return portConfig(version, fmt.Sprintf(`{"localPortNumber":"0","portNumber":%q,"type":"LocalPortForwarding"}`, port))
}

// flag sends a flag and wants it to be acknowledged.
func (c *client) flag(why string, flag frame.FlagValue) {
	c.t.Helper()
	c.wantAck(why, c.input(frame.Flag, string(flag.Append(nil))))
}

// lastFlag sends a flag that ends the session, which may be over before the flag is
// acknowledged.
func (c *client) lastFlag(flag frame.FlagValue) {
	c.t.Helper()
	c.input(frame.Flag, string(flag.Append(nil)))
}

func TestWhoMultiplexesAndKeepsAlive(t *testing.T) {
	for _, tt := range []struct {
		agent, client, kind string
		mux, alive          bool
	}{
		{current, newClient, localPortForwarding, true, false},
		{current, newClient, "", false, false},
		{current, "1.1.70", localPortForwarding, true, true},
		{current, "1.1.69.9", localPortForwarding, false, true},
		{current, "", localPortForwarding, false, true},
		{current, "0.0.1", localPortForwarding, false, true},
		{current, "1.2.331.0", localPortForwarding, true, true},
		{current, "1.2.332.0", localPortForwarding, true, false},
		{"3.0.196.0", newClient, localPortForwarding, false, true},
		{"3.0.222.0", newClient, localPortForwarding, true, true},
		{"3.1.1445.0", newClient, localPortForwarding, true, true},
		{"3.1.1446.0", newClient, localPortForwarding, true, false},
		{"3.1.1446.0", "1.2.0.0", localPortForwarding, true, false}, // in spite of the client
		{"3.1.1575.0", "1.2.0.0", localPortForwarding, true, true},
		{"3.1.1575.0", newClient, localPortForwarding, true, false},
	} {
		s := &session{cfg: Config{Version: tt.agent}, clientVersion: tt.client}
		if got := s.multiplexes(tt.kind); got != tt.mux {
			t.Errorf("agent %s, client %q, type %q: multiplexes: %t, want %t", tt.agent, tt.client, tt.kind, got, tt.mux)
		}
		if got := s.keepsAlive(); got != tt.alive {
			t.Errorf("agent %s, client %q: keeps alive: %t, want %t", tt.agent, tt.client, got, tt.alive)
		}
	}
}

func TestForbiddenAddresses(t *testing.T) {
	for address, want := range map[string]bool{
		"169.254.169.254": true, "::ffff:169.254.169.254": true, "fd00:ec2::254": true, "FD00:EC2:0::253": true,
		"169.254.169.123": true, "169.254.169.250": true, "169.254.169.251": true, "fd00:ec2::240": true,
		"169.254.169.252": false, "127.0.0.1": false, "::1": false, "fe80::1%lo": false, "": false,
	} {
		if got := forbidden(address); got != want {
			t.Errorf("a tunnel to %q is forbidden: %t, want %t", address, got, want)
		}
	}
}

func TestDestinations(t *testing.T) {
	for _, tt := range []struct{ version, properties, want string }{
		{current, `{"portNumber":"22"}`, "[localhost]:22 "},
		{current, `{"portNumber":"80","host":"127.0.0.2","type":"LocalPortForwarding"}`, "[127.0.0.2]:80 LocalPortForwarding"},
		{current, `{"portNumber":"80","host":""}`, "[localhost]:80 "},
		{"3.1.1188.0", `{"portNumber":"80","host":"127.0.0.2"}`, "[127.0.0.2]:80 "},
		// An older agent tunnels to itself, whatever the host.
		{"3.1.1187.0", `{"portNumber":"80","host":"169.254.169.254"}`, "[localhost]:80 "},
		{current, `{"portNumber":"80","host":"169.254.169.254"}`, "Forwarding to IP address 169.254.169.254 is forbidden."},
		{current, `{"portNumber":""}`, `Port number is empty in session properties. {"portNumber":""}`},
		{current, `{"portNumber":80}`, "Unable to remarshal session properties. json: cannot unmarshal number into"},
	} {
		s := &session{cfg: portConfig(tt.version, tt.properties), log: slog.New(slog.DiscardHandler)}
		to, kind, err := s.destination(t.Context())
		got := fmt.Sprintf("%v:%s %s", to.hosts, to.port, kind)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, tt.want) {
			t.Errorf("agent %s, %s: got %q, want %q", tt.version, tt.properties, got, tt.want)
		}
	}
}

func TestDialTriesOneHostAfterTheOther(t *testing.T) {
	port, conns := listenLoopback(t)
	conn, err := destination{hosts: []string{"no..host", "127.0.0.1"}, port: port}.dial(t.Context())
	if err != nil {
		t.Fatalf("the second host is there, but: %v", err)
	}
	defer conn.Close()
	wantConn(t, "the second host", conns)
}

func TestPortHandshakeTellsTheProperties(t *testing.T) {
	c := play(t, forwardTo(current, "80"))
	m := c.want("a tunnel begins with a handshake", frame.HandshakeRequest)
	c.ack(m)
	const want = `"ActionParameters":{"SessionType":"Port","Properties":` +
		`{"localPortNumber":"0","portNumber":"80","type":"LocalPortForwarding"}}`
	if !strings.Contains(string(m.Payload), want) {
		t.Errorf("the request is %s, want in it %s", m.Payload, want)
	}
}

func TestPortsThatCannotBegin(t *testing.T) {
	closed := closedPort(t)
	for why, tt := range map[string]struct {
		properties, want string
	}{
		"no port":        {`{"portNumber":""}`, `Port number is empty in session properties. {"portNumber":""}`},
		"forbidden host": {`{"portNumber":"80","host":"169.254.169.254","type":"LocalPortForwarding"}`, "Forwarding to IP address 169.254.169.254 is forbidden."},
		"unknown host":   {`{"portNumber":"80","host":"no..host","type":"LocalPortForwarding"}`, "lookup no..host"},
		"refused": {`{"host":"127.0.0.1","portNumber":"` + closed + `"}`,
			"Unable to connect to specified port: dial tcp 127.0.0.1:" + closed + ": connect: connection refused"},
	} {
		t.Run(why, func(t *testing.T) {
			c := play(t, portConfig(current, tt.properties))
			begun := time.Now() // before the agent can have the acknowledgement
			c.agree(newClient)
			if why == "refused" && runtime.GOOS == "windows" {
				tt.want = "Unable to connect to specified port: dial tcp 127.0.0.1:" + closed
			}
			select {
			case got := <-c.results:
				if got.Status != StatusFailed || !strings.HasPrefix(got.Output, tt.want) {
					t.Errorf("the session ended with %+v, want the words %q", got, tt.want)
				}
			case <-time.After(patience):
				t.Fatal("the session did not end")
			}
			if got := time.Since(begun); got < portGrace {
				t.Errorf("the end came %v after the handshake, when the client is still setting up its tunnel", got)
			}
		})
	}
}

func TestSSHIsByteForByte(t *testing.T) {
	port, conns := listenLoopback(t)
	c := play(t, sshTo(port))
	c.agree(newClient)
	conn := wantConn(t, "at the start", conns)
	c.knock()
	for _, text := range []string{"SSH-2.0-test\r\n", "\n", "\x03\x00\xff\xfe\xef\xbf\xbd"} {
		c.wantAck("input", c.input(frame.Output, text))
		wantBytes(t, "to the destination", conn, text)
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		m := c.want("from the destination", frame.Output)
		if string(m.Payload) != text {
			t.Errorf("the destination said %q, the agent %q", text, m.Payload)
		}
		c.ack(m)
	}
	conn.Close()
	c.wantResult("when the destination has ended", Result{Status: StatusSuccess})
}

// knock sends what means nothing to a tunnel until it is taken: before there is one
// nothing is acknowledged.
func (c *client) knock() {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	sequence := c.next
	c.next++
	for time.Now().Before(deadline) {
		c.inputAs(sequence, frame.Size, `{"cols":80,"rows":24}`)
		if c.acknowledged(sequence) {
			return
		}
	}
	c.t.Fatal("there is no tunnel")
}

// acknowledged waits a moment for the acknowledgement of a message.
func (c *client) acknowledged(sequence int64) bool {
	c.t.Helper()
	if len(c.pending) > 0 {
		c.wantAck("input", sequence)
		return true
	}
	select {
	case b := <-c.leg.fromAgent:
		c.pending = append(c.pending, c.parse(b))
		c.wantAck("input", sequence)
		return true
	case <-time.After(500 * time.Millisecond):
		return false
	}
}

// TestDestinationThatSpeaksFirstWaits: AWS's client must not be disturbed while it
// sets up its tunnel.
func TestDestinationThatSpeaksFirstWaits(t *testing.T) {
	for why, speaks := range map[string]bool{"a silent client": false, "a client that sends": true} {
		t.Run(why, func(t *testing.T) {
			port, conns := listenLoopback(t)
			c := play(t, sshTo(port))
			begun := time.Now() // before the agent can have the acknowledgement
			c.agree(newClient)
			conn := wantConn(t, "at the start", conns)
			if _, err := io.WriteString(conn, "hello"); err != nil {
				t.Fatal(err)
			}
			if speaks {
				c.input(frame.Size, `{"cols":80,"rows":24}`) // means nothing, and is taken
			}
			for {
				m := c.take("the greeting")
				if m.Type == frame.Acknowledge {
					continue
				}
				if string(m.Payload) != "hello" {
					t.Fatalf("got %q, want the greeting", m.Payload)
				}
				c.ack(m)
				break
			}
			if got := time.Since(begun); !speaks && got < portGrace {
				t.Errorf("the greeting came %v after the handshake, want at least %v", got, portGrace)
			}
		})
	}
}

func TestSSHEnds(t *testing.T) {
	reset := func(c *client, conn net.Conn) {
		if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
			c.t.Fatal(err)
		}
		conn.Close()
	}
	for why, tt := range map[string]struct {
		version string
		end     func(c *client, conn net.Conn)
		want    string
	}{
		"the destination resets":           {current, reset, StatusFailed},
		"the client wants it":              {current, func(c *client, _ net.Conn) { c.lastFlag(frame.TerminateSession) }, StatusSuccess},
		"the service ends it":              {current, func(c *client, _ net.Conn) { c.service(frame.ChannelClosed, `{}`) }, StatusSuccess},
		"the client's connection is over":  {current, func(c *client, _ net.Conn) { c.lastFlag(frame.DisconnectToPort) }, StatusFailed},
		"an old agent knows no such flags": {"2.3.700.0", oldFlags, StatusSuccess},
	} {
		t.Run(why, func(t *testing.T) {
			port, conns := listenLoopback(t)
			cfg := sshTo(port)
			cfg.Version = tt.version
			c := play(t, cfg)
			c.agree(newClient)
			conn := wantConn(t, "at the start", conns)
			greet(c, conn)
			tt.end(c, conn)
			c.wantResult(why, Result{Status: tt.want})
		})
	}
}

// greet makes sure that the agent is there.
func greet(c *client, conn net.Conn) {
	c.t.Helper()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		c.t.Fatal(err)
	}
	c.ack(c.want("the greeting", frame.Output))
}

func oldFlags(c *client, conn net.Conn) {
	c.t.Helper()
	c.flag("disconnect", frame.DisconnectToPort)
	c.flag("terminate", frame.TerminateSession)
	greet(c, conn)
	conn.Close()
}

// TestBasicForwarding: one connection after another, to agents and for clients
// that do not multiplex.
func TestBasicForwarding(t *testing.T) {
	for _, versions := range [][2]string{{"3.0.196.0", newClient}, {current, "1.1.69.0"}} {
		t.Run(strings.Join(versions[:], " and "), func(t *testing.T) {
			port, conns := listenLoopback(t)
			lines := make(logLines, 100)
			cfg := forwardTo(versions[0], port)
			cfg.Log = lines.logger()
			c := play(t, cfg)
			c.agree(versions[1])
			conn := wantConn(t, "at the start, before any connection of the client", conns)
			greet(c, conn)

			c.flag("the client's connection has ended", frame.DisconnectToPort)
			wantEOF(t, "the destination's end of it", conn)
			lines.wait(t, "connection ended")
			c.wantAck("the next one", c.input(frame.Output, "second"))
			conn = wantConn(t, "for input", conns)
			wantBytes(t, "the input that made the connection", conn, "second")

			conn.Close() // the client is not told
			lines.wait(t, "connection ended")
			c.wantAck("the one after that", c.input(frame.Output, "third"))
			conn = wantConn(t, "for input after the destination has closed", conns)
			wantBytes(t, "the input that made the connection", conn, "third")
			c.lastFlag(frame.TerminateSession)
			c.wantResult("the flag ends the session", Result{Status: StatusSuccess})
			wantEOF(t, "the destination's end", conn)
		})
	}
}

// logLines is a log that a test waits for lines of.
type logLines chan string

func (l logLines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

func (l logLines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l logLines) wait(t testing.TB, text string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line := <-l:
			if strings.Contains(line, text) {
				return
			}
		case <-timeout:
			t.Fatalf("the agent did not log %q", text)
		}
	}
}

func TestBasicForwardingToADestinationThatIsGone(t *testing.T) {
	port := closedPort(t)
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	c := play(t, forwardTo("3.0.196.0", port))
	c.agree(newClient)
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	greet(c, conn)
	listener.Close()
	c.flag("the client's connection has ended", frame.DisconnectToPort)
	conn.Close()
	c.input(frame.Output, "again")
	select {
	case got := <-c.results:
		if got != (Result{Status: StatusFailed}) {
			t.Errorf("the session ended with %+v, want a failure without words", got)
		}
	case b := <-c.leg.fromAgent:
		t.Errorf("the agent answered the input with %s", c.parse(b).Type)
	case <-time.After(patience):
		t.Error("the session did not end")
	}
}

// TestCancelledWithADestinationThatReadsNothing: the agent is stuck in a write.
func TestCancelledWithADestinationThatReadsNothing(t *testing.T) {
	port, conns := listenLoopback(t)
	c := play(t, sshTo(port))
	c.agree(newClient)
	conn := wantConn(t, "at the start", conns)
	greet(c, conn)
	chunk := strings.Repeat("x", 64<<10)
	for {
		sequence := c.input(frame.Output, chunk)
		if !c.acknowledged(sequence) {
			break
		}
	}
	c.cancel()
	c.wantResult("cancelled", Result{Status: StatusSuccess})
}

func TestPortOutputIsInFullPayloads(t *testing.T) {
	s := &session{cfg: Config{Pace: Pace{PerMessage: time.Nanosecond}}, log: slog.New(slog.DiscardHandler)}
	leg := newFastLeg()
	var running context.Context
	s.channel, running = newChannel(t.Context(), leg, current, s.log)
	defer s.channel.end(errOver)
	err := s.forward(running, bufio.NewReaderSize(strings.NewReader(strings.Repeat("\xff", 3000)), 4096))
	leg.mu.Lock()
	defer leg.mu.Unlock()
	if err != io.EOF || leg.bytes != 3000 || len(leg.waiting) != 3 {
		t.Errorf("3000 bytes became %d in %d messages, and %v; want three and io.EOF", leg.bytes, len(leg.waiting), err)
	}
}
