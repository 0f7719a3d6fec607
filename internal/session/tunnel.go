package session

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// DefaultHalfCloseWait is a HalfCloseWait for a Tunnel of no special needs.
const DefaultHalfCloseWait = 2 * time.Second

// terminateGrace bounds how long the end of a session may take to be sent.
const terminateGrace = time.Second

// settleTime is how long after the start nothing is sent. An agent takes its
// handshake for complete only after it has said so, and throws away what it
// acknowledges in between (docs/protocol.md, "Handshake").
const settleTime = 50 * time.Millisecond

// settleTick is how often to look whether the agent has acknowledged what was sent
// then.
const settleTick = 5 * time.Millisecond

// The agents from which on something holds (docs/protocol.md, "Version gates").
const (
	agentMultiplexes  = "3.0.196.1" // AWS's client: after 3.0.196.0
	agentKnowsHosts   = "3.1.1188"
	agentIsNotKeptFor = "3.1.1446" // closes no tunnel for being silent
)

// Tunnel carries connections to the one destination of a Port session:
// multiplexed, or one after another where the agent is too old for that.
type Tunnel struct {
	// Conns gives the local connections to be carried, which belong to the
	// Tunnel then; closed when there will be no more. It should have no buffer:
	// what Run has not taken when it returns is the caller's.
	Conns <-chan net.Conn
	// RemoteHost tells that the destination is another host than the target. An
	// agent before 3.1.1188 would take the target itself; it is refused with a
	// *TunnelError.
	RemoteHost bool
	// HalfCloseWait is how long the far side must have been silent, after the
	// local end-of-file, before that is passed on. An agent then closes the whole
	// connection. A program that has gone, as far as its connection knows, is not
	// waited for. 0 is not to wait, as AWS's client does.
	HalfCloseWait time.Duration
	// KeepAlive sends something every 10 s, which keeps the service from ending
	// an idle session. Agents before 3.1.1446 are sent it anyway: they would end
	// the tunnel.
	KeepAlive bool
	// Notify is told what happens, by several goroutines, and must return at
	// once. Nil for nobody.
	Notify func(TunnelEvent)
}

// TunnelKind is what happened.
type TunnelKind int

// The kinds of event.
const (
	// TunnelReady comes once, when connections can be carried: a session that the
	// agent closes at once, because of its destination, is never ready.
	TunnelReady TunnelKind = iota
	// TunnelOpened is a connection that is being carried. Whether the
	// destination took it is not known yet.
	TunnelOpened
	// TunnelRefused is a connection that did not come about; Err tells why. It
	// has no other end.
	TunnelRefused
	// TunnelEnded is the end of a connection that was opened. Err is nil when it
	// ended as connections do.
	TunnelEnded
)

// TunnelEvent is something that happened in a Tunnel.
type TunnelEvent struct {
	Kind TunnelKind
	// Conn is the local connection; nil for TunnelReady. It is only good for
	// telling which: it may be closed.
	Conn net.Conn
	// In and Out count the bytes from and to the far side, at the end.
	In, Out int64
	Err     error
}

// TunnelError is a session that cannot carry what was asked of it.
type TunnelError struct{ Reason string }

func (e *TunnelError) Error() string { return e.Reason }

// ErrRefused is a destination that the target could not connect to. Agents do not
// tell more.
var ErrRefused = errors.New("the target could not connect to the destination (refused, unreachable, or a name that the target does not know)")

// Run carries connections until the session ends, ctx ends, or Conns was closed
// and all connections have ended, which alone gives nil. Otherwise the error is
// Recv's, which wraps io.EOF after a good end; ctx's cause; a *TunnelError; or
// that the agent does not keep to the protocol. When the session ends, what had
// come is still given to the local connections, for a few seconds.
//
// A session that has not ended by then is told to the agent to be over, for which
// the peer must outlive ctx by a second.
func (t Tunnel) Run(ctx context.Context, peer Peer) error {
	start, err := peer.Started(ctx)
	if err != nil {
		return err
	}
	if t.Notify == nil {
		t.Notify = func(TunnelEvent) {}
	}
	over := false
	if err = t.check(start); err == nil {
		if Multiplexed(start) {
			over, err = t.runMux(ctx, peer, start.AgentVersion)
		} else {
			over, err = t.runBasic(ctx, peer)
		}
	}
	if !over {
		terminate(ctx, peer)
	}
	return err
}

// check refuses a session that cannot carry what was asked.
func (t Tunnel) check(start frame.Start) error {
	if start.SessionType != frame.Port {
		return &TunnelError{fmt.Sprintf("the document opens a session of type %s, which carries no connections", start.SessionType)}
	}
	if t.RemoteHost && !agentSince(start.AgentVersion, agentKnowsHosts) {
		return &TunnelError{fmt.Sprintf("agent %s cannot forward to another host, only to the target itself: that takes %s", start.AgentVersion, agentKnowsHosts)}
	}
	return nil
}

// LocalPortForwarding is the type, in a Port document's properties, of a session for
// connections to a local port. Without it, a session is one connection as it is: that
// of SSH.
const LocalPortForwarding = "LocalPortForwarding"

// Multiplexed tells whether both sides speak smux. The agent decides by its own
// version and by the client's, which is always new enough here.
func Multiplexed(start frame.Start) bool {
	var p struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(start.Properties, &p); err != nil {
		return false // none, or none that an agent would understand
	}
	return p.Type == LocalPortForwarding && agentSince(start.AgentVersion, agentMultiplexes)
}

// agentSince tells whether an agent's version is known to be first or later.
func agentSince(version, first string) bool {
	order, known := compareVersions(version, first)
	return known && order >= 0
}

// AgentBefore tells whether an agent's version is known to be older than first. Of
// 3.1 that is not known where first is 3.1.1188; agents give four components.
func AgentBefore(version, first string) bool {
	order, known := compareVersions(version, first)
	return known && order < 0
}

// compareVersions orders two versions as cmp.Compare does, by as many components as
// first has. One that is missing or no number makes that impossible, unless those
// before it differ.
func compareVersions(version, first string) (order int, known bool) {
	have := strings.Split(version, ".")
	for i, component := range strings.Split(first, ".") {
		if i == len(have) {
			return 0, false
		}
		h, err := strconv.Atoi(have[i])
		w, wantErr := strconv.Atoi(component)
		switch {
		case err != nil || wantErr != nil:
			return 0, false
		case h != w:
			return cmp.Compare(h, w), true
		}
	}
	return 0, true
}

// errUntaken is why a connection ends that outlives its session, for nothing else.
var errUntaken = errors.New("the session has ended, and local programs did not take what had come")

// dropUntaken ends the local connections when the session has ended and local programs
// take nothing of what had come: the end is behind that, and nobody would hear of it.
// taken grows with each message. It returns when ctx ends, or that was done.
func dropUntaken(ctx context.Context, peer Peer, taken *atomic.Int64, drop context.CancelCauseFunc) {
	select {
	case <-endingOf(peer):
	case <-ctx.Done():
		return
	}
	for before := int64(-1); before != taken.Load(); {
		before = taken.Load()
		select {
		case <-time.After(drainLimit):
		case <-ctx.Done():
			return
		}
	}
	drop(errUntaken)
}

// endingOf asks a Peer that knows of its end before all was read; of one that does not
// know there never is one.
func endingOf(peer Peer) <-chan struct{} {
	if p, ok := peer.(interface{ Ending() <-chan struct{} }); ok {
		return p.Ending()
	}
	return nil
}

// terminate ends the session from this side. Agents honour that in Port sessions
// only (docs/protocol.md, "Client disconnect").
func terminate(ctx context.Context, peer Peer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), terminateGrace)
	defer cancel()
	// Where it cannot be sent there is no session to be ended, or its owner
	// terminates it by the API.
	_ = peer.Send(ctx, frame.Flag, frame.TerminateSession.Append(nil))
}
