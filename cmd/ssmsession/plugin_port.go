package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/plugin"
	"github.com/ssmsession/ssmsession/internal/ports"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// sizeAgain is when the size is told for the second time to a session that has not
// begun; the time doubles.
const sizeAgain = 100 * time.Millisecond

// givenSession is one that was started elsewhere: only its beginning tells of what
// kind it is.
type givenSession struct {
	*startCommand
	stopped context.Context // its end ends the session
	keys    *pluginKeys     // nil but in the plugin's place
}

// hold holds the session to its end.
func (g *givenSession) hold() error {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(g.stopped))
	defer cancel(nil)
	release := context.AfterFunc(g.stopped, func() { cancel(context.Cause(g.stopped)) })
	defer release()
	return g.open.hold(ctx, g.env, func(ctx context.Context, peer session.Peer) error {
		start, err := g.started(ctx, peer)
		if err != nil || start.SessionType != frame.Port {
			return g.terminalSession(ctx, peer) // which meets the same error
		}
		release() // from now on it is the connections that end, and then the channel
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(g.stopped, func() { cancel(context.Cause(g.stopped)) })()
		return g.port(ctx, peer, start)
	})
}

// started waits until the session has begun. An agent may have its terminal before
// it says anything, and is told the size for that.
func (g *givenSession) started(ctx context.Context, peer session.Peer) (frame.Start, error) {
	for again := sizeAgain; g.terminal.OutIsTerminal(); again *= 2 {
		if cols, rows, err := g.terminal.Size(); err == nil {
			size, err := json.Marshal(frame.TerminalSize{Cols: cols, Rows: rows})
			if err == nil {
				err = peer.Send(ctx, frame.Size, size)
			}
			if err != nil {
				return frame.Start{}, fmt.Errorf("size: %w", err)
			}
		}
		short, cancel := context.WithTimeout(ctx, again)
		start, err := peer.Started(short)
		late := short.Err() != nil
		cancel()
		if err == nil || !late || ctx.Err() != nil {
			return start, err
		}
	}
	return peer.Started(ctx)
}

// terminalSession runs a session of keys and a screen.
func (g *givenSession) terminalSession(ctx context.Context, peer session.Peer) error {
	if g.keys == nil {
		return g.shell(ctx, peer)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if err := g.keys.carry(ctx, peer); err != nil && ctx.Err() == nil {
			g.env.log.Debug("signals reach the far end no more", "error", err)
		}
	})
	return g.shell(ctx, peer)
}

// portProperties are what the session document says of a port session
// (docs/protocol.md, documents). Numbers are text.
type portProperties struct {
	Type                string `json:"type"`
	Host                string `json:"host"`
	PortNumber          string `json:"portNumber"`
	LocalPortNumber     string `json:"localPortNumber"`
	LocalUnixSocket     string `json:"localUnixSocket"`
	LocalConnectionType string `json:"localConnectionType"`
}

// parsePortProperties reads them. None at all are those of SSH.
func parsePortProperties(text []byte) (p portProperties, err error) {
	if len(text) == 0 {
		return p, nil
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, fmt.Errorf("the document's properties are of no port session: %w", err)
	}
	return p, nil
}

// forward is what is to be forwarded.
func (p portProperties) forward() (f ports.Forward, err error) {
	number := func(s, what string) (n int, err error) {
		if s == "" {
			return 0, nil
		}
		if n, err = strconv.Atoi(s); err != nil || n < 0 || n > maxPort {
			return 0, fmt.Errorf("the document's %s port is %q, which is no number from 0 to %d", what, s, maxPort)
		}
		return n, nil
	}
	if f.Port, err = number(p.PortNumber, "remote"); err != nil {
		return f, err
	}
	if !strings.EqualFold(p.Host, "localhost") {
		f.Host = p.Host
	}
	if p.LocalConnectionType == "unix" || p.LocalUnixSocket != "" {
		if f.Socket = p.LocalUnixSocket; f.Socket == "" {
			return f, errors.New("the document names no path for its unix socket")
		}
		return f, nil
	}
	f.LocalPort, err = number(p.LocalPortNumber, "local")
	return f, err
}

// port carries connections.
func (g *givenSession) port(ctx context.Context, peer session.Peer, start frame.Start) error {
	if start.CustomerMessage != "" {
		g.env.texts.message(start.CustomerMessage)
	}
	p, err := parsePortProperties(start.Properties)
	if err == nil && p.Type != session.LocalPortForwarding {
		return g.pipe(ctx, peer, p)
	}
	var f ports.Forward
	if err == nil {
		f, err = p.forward()
	}
	if err != nil {
		return g.refuse(ctx, peer, &failure{code: "NotSupported", err: err})
	}
	return g.tunnel(ctx, peer, f, session.Multiplexed(start))
}

// refuse ends a session that nothing can be done with, because of why.
func (g *givenSession) refuse(ctx context.Context, peer session.Peer, why error) error {
	err := peer.Send(ctx, frame.Flag, frame.TerminateSession.Append(nil))
	g.open.told = err == nil
	return why // what could not be sent has ended
}

// pipe carries one connection as it is. What is said before its bytes ssh takes for
// the server's greeting; after that nothing may come between them.
func (g *givenSession) pipe(ctx context.Context, peer session.Peer, props portProperties) error {
	e := g.env
	if e.result.asked {
		e.result.asked = false
		return g.refuse(ctx, peer, &failure{code: "NotSupported",
			err: errors.New("stdout is the connection's: --output has no place there")})
	}
	if e.texts != nil {
		e.texts.quiet = true
	}
	if g.keys != nil {
		g.keys.spared.Store(true) // the terminal's keys are ssh's
	}
	ctx, stop := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop(nil)
	p := newPipe(e)
	wg.Go(func() {
		crash.Guard(stop, func() {
			if leave(ctx, e.out, p.in.ended) {
				stop(&session.WriteError{Err: syscall.EPIPE})
			}
		})
	})
	err := p.carry(ctx, peer, e, &g.open)
	switch {
	case e.texts != nil && nobodyReads(err):
		return nil // how ssh ends, for which callers expect 0
	case p.silent():
		return p.noAnswer(props.PortNumber, g.open.name())
	}
	return err
}

// tunnel listens, and carries the connections that come.
func (g *givenSession) tunnel(ctx context.Context, peer session.Peer, f ports.Forward, mux bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &forwardCommand{env: g.env, open: g.open, asJSON: g.env.result.asked, halfCloseWait: session.DefaultHalfCloseWait}
	if c.open.target == "" {
		c.open.target = g.open.given.SessionID
	}
	t, err := newTunnel(ctx, c, f)
	if err != nil {
		return g.refuse(ctx, peer, err)
	}
	t.heard = func(ev session.TunnelEvent) {
		if g.env.texts == nil && ev.Kind == session.TunnelReady {
			if err := c.announce([]*tunnel{t}); err != nil {
				cancel(err)
			}
		}
	}
	if g.env.texts != nil {
		t.heard = g.env.texts.connections(t, mux)
	}
	l := &life{tunnel: t, opening: &g.open, stopped: ctx, began: make(chan struct{})}
	err = t.serve(ctx, func(ctx context.Context) error { return l.carry(ctx, peer) })
	if cannot := (*session.TunnelError)(nil); errors.As(err, &cannot) {
		return &failure{code: "NotSupported", err: cannot}
	}
	signalled := (*signalError)(nil)
	if !errors.As(err, &signalled) {
		return err
	}
	g.env.texts.stopped()
	if _, isKey := signalKeys()[signalled.signal]; isKey && g.keys != nil {
		return nil // Ctrl-C is how people end it
	}
	return err
}

// connections gives what prints the texts of t's connections.
func (t *pluginTexts) connections(of *tunnel, mux bool) func(session.TunnelEvent) {
	var first sync.Once
	accepted, waiting := plugin.AcceptedBasicText, ""
	if mux {
		accepted, waiting = plugin.AcceptedText, plugin.WaitingText
	}
	return func(ev session.TunnelEvent) {
		switch ev.Kind {
		case session.TunnelReady:
			local := fmt.Sprintf(plugin.PortText, strconv.Itoa(localPortOf(of.listeners[0])), t.sessionID)
			if of.forward.Socket != "" {
				local = fmt.Sprintf(plugin.SocketText, of.forward.Socket, t.sessionID)
			}
			t.tell(local + waiting)
		case session.TunnelOpened:
			first.Do(func() { t.tell(fmt.Sprintf(accepted, t.sessionID)) })
		case session.TunnelRefused:
			if errors.Is(ev.Err, session.ErrRefused) {
				t.tell(plugin.RefusedText)
			}
		}
	}
}
