package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// localPortForwarding is the type in the properties of a tunnel for many
// connections. Without it a session is one connection, as SSH needs it.
const localPortForwarding = "LocalPortForwarding"

// Who multiplexes, and who does not keep its multiplexer alive: versions after
// these clients and agents (docs/protocol.md, "Version gates").
const (
	muxClient           = "1.1.70"    // the first
	muxAfterAgent       = "3.0.196.0" // what clients go by; the first was 3.0.222
	keepAliveOffAgent   = "3.1.1446"  // the first, for every client
	keepAliveByClient   = "3.1.1575"  // the first that asks the client's version
	keepAliveLastClient = "1.2.331.0" // the last that wants it
)

// portGrace is how long nothing is sent once the client has acknowledged the end
// of the handshake. AWS's agent does not wait; a network does it for it. AWS's
// client is lost when a message finds it setting up its tunnel.
const portGrace = 100 * time.Millisecond

// errSpoke is why waiting for a client ends that has begun to send.
var errSpoke = errors.New("the client sends")

// runPort plays a tunnel: connections from this node to where the document says.
// Its failures reach the user as plain text. It tells no Terminating.
func (s *session) runPort(ctx context.Context) Result {
	to, kind, err := s.destination(ctx)
	if err != nil {
		return s.noPort(ctx, err)
	}
	if s.multiplexes(kind) {
		return s.runMux(ctx, to)
	}
	return s.runBasic(ctx, to, kind == localPortForwarding)
}

// noPort is the end of a tunnel that could not begin. Its reason waits for the
// client, too.
func (s *session) noPort(ctx context.Context, reason error) Result {
	if err := s.awaitQuiet(ctx, ctx); err != nil {
		return Result{Status: StatusSuccess}
	}
	return Result{StatusFailed, reason.Error()}
}

// multiplexes tells whether client and agent speak smux. Both must think the same.
func (s *session) multiplexes(kind string) bool {
	return kind == localPortForwarding && compareVersions(s.cfg.Version, muxAfterAgent) > 0 &&
		since(s.clientVersion, muxClient)
}

// keepsAlive tells whether the agent's multiplexer sends something of its own, and
// ends when nothing comes.
func (s *session) keepsAlive() bool {
	switch v := s.cfg.Version; {
	case since(v, keepAliveByClient):
		return compareVersions(s.clientVersion, keepAliveLastClient) <= 0
	default:
		return !since(v, keepAliveOffAgent)
	}
}

// destination reads where a tunnel leads, and of which type it is. A host is
// resolved here, once, and the resolver's words reach the user. Agents older than
// remoteHosts do not know of hosts: they lead to themselves.
func (s *session) destination(ctx context.Context) (to destination, kind string, err error) {
	var p struct {
		Host       string `json:"host"`
		PortNumber string `json:"portNumber"`
		Type       string `json:"type"`
	}
	if err := json.Unmarshal(s.cfg.Document.Properties, &p); err != nil {
		return to, "", agentError(fmt.Sprintf("Unable to remarshal session properties. %v", err))
	}
	if p.PortNumber == "" {
		return to, "", agentError(fmt.Sprintf("Port number is empty in session properties. %s", s.cfg.Document.Properties))
	}
	to = destination{port: p.PortNumber, hosts: []string{"localhost"}}
	if p.Host == "" || !since(s.cfg.Version, remoteHosts) {
		return to, p.Type, nil
	}
	to.hosts, err = net.DefaultResolver.LookupHost(ctx, p.Host)
	if err != nil {
		return to, "", err
	}
	for _, host := range to.hosts {
		if forbidden(host) {
			return to, "", agentError(fmt.Sprintf("Forwarding to IP address %s is forbidden.", p.Host))
		}
	}
	return to, p.Type, nil
}

// forbidden tells whether no tunnel may lead to an address: those at which a
// cloud tells a machine its secrets, names and time. AWS's agent adds the first
// and last ones of its VPC; there is none here.
func forbidden(address string) bool {
	ip := net.ParseIP(address)
	for _, denied := range []string{
		"169.254.169.254", "fd00:ec2::254", // metadata
		"169.254.169.253", "fd00:ec2::253", // names
		"169.254.169.123", "fd00:ec2::123", // time
		"169.254.169.250", "169.254.169.251", "fd00:ec2::240", // licences
	} {
		if ip.Equal(net.ParseIP(denied)) {
			return true
		}
	}
	return false
}

// destination is a port, and the hosts to try it on in turn.
type destination struct {
	hosts []string
	port  string
}

// dial connects to the first host that lets it; there is one. The first error
// counts, as the most telling one.
func (d destination) dial(ctx context.Context) (net.Conn, error) {
	var first error
	for _, host := range d.hosts {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, d.port))
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// terminates tells whether a flag ends the session: one that this agent knows.
func (s *session) terminates(payload []byte) bool {
	flag, err := frame.ParseFlag(payload)
	return err == nil && flag == frame.TerminateSession && since(s.cfg.Version, terminateFlag)
}

// awaitQuiet waits until the client is ready for output: portGrace after it
// acknowledged the handshake, or when it sends, which ends speaking with errSpoke.
// Its error is the end of ctx.
func (s *session) awaitQuiet(ctx, speaking context.Context) error {
	if s.channel.wait(speaking, func() bool { return s.channel.out.front == nil }) == nil {
		// Cut short it is as good.
		_ = sleep(speaking, portGrace)
	}
	return context.Cause(ctx)
}

// forward sends what r gives as output, byte for byte, until r or the session
// ends. The error is never nil; it is io.EOF for a good end of r.
func (s *session) forward(ctx context.Context, r io.Reader) error {
	buf := make([]byte, payloadSize)
	for {
		if err := s.channel.awaitActive(ctx); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if err != nil {
			return err
		}
		if err := s.channel.send(frame.Output, buf[:n]); err != nil {
			return err
		}
		if s.cfg.Pace.PerMessage > 0 {
			if err := sleep(ctx, s.cfg.Pace.PerMessage); err != nil {
				return err
			}
		}
	}
}

// portResult is the result of a tunnel that ended by itself. Why is in the log
// only.
func (s *session) portResult(err error) Result {
	if err == nil || errors.Is(err, io.EOF) {
		return Result{Status: StatusSuccess}
	}
	s.log.Error("the tunnel ended", "err", err)
	return Result{Status: StatusFailed}
}
