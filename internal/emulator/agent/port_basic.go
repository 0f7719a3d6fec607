package agent

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// basicPort is a tunnel for one connection at a time, whose bytes are the payloads
// (docs/protocol.md, "Tunnels"). One that comes again is LocalPortForwarding for old
// clients and agents: its connection may go and come, and input makes it come.
type basicPort struct {
	s     *session
	ctx   context.Context // of the tunnel
	to    destination
	again bool
	ended chan error // the first end of the tunnel

	// speaking ends with the first message of the client.
	speaking context.Context
	spoke    context.CancelCauseFunc

	mu   sync.Mutex // guards the rest
	conn net.Conn   // nil: the next input makes it
	over bool
}

// runBasic plays a tunnel for one connection at a time. In AWS's agent a first
// connection that is refused is a crash, and its user told no reason; here the
// words are the ones that it was to say.
func (s *session) runBasic(ctx context.Context, to destination, again bool) Result {
	conn, err := to.dial(ctx)
	if ctx.Err() != nil {
		if err == nil {
			s.close(conn)
		}
		return Result{Status: StatusSuccess}
	}
	if err != nil {
		return s.noPort(ctx, unable(err))
	}
	p := &basicPort{s: s, ctx: ctx, to: to, again: again, ended: make(chan error, 1)}
	p.speaking, p.spoke = context.WithCancelCause(ctx)
	defer p.spoke(errOver)
	defer p.shut()
	p.attend(conn)
	s.channel.handle(p.input)
	select {
	case <-ctx.Done():
		return Result{Status: StatusSuccess}
	case err := <-p.ended:
		return s.portResult(err)
	}
}

func unable(err error) error { return fmt.Errorf("Unable to connect to specified port: %w", err) }

// attend makes conn the connection, and sends what comes on it. The caller holds
// mu, or is alone.
func (p *basicPort) attend(conn net.Conn) {
	p.conn = conn
	p.s.readers.Go(func() {
		err := p.s.awaitQuiet(p.ctx, p.speaking)
		if err == nil {
			err = p.s.forward(p.ctx, conn)
		}
		p.lost(conn, err)
	})
}

// lost closes a connection whose reading has ended. The client is not told.
func (p *basicPort) lost(conn net.Conn, err error) {
	p.s.close(conn)
	if !p.again {
		p.end(err)
		return
	}
	p.mu.Lock()
	if p.conn == conn {
		p.conn = nil
	}
	p.mu.Unlock()
	p.s.log.Debug("connection ended, until there is input", "err", err)
}

// end ends the tunnel. Only the first end counts.
func (p *basicPort) end(err error) {
	select {
	case p.ended <- err:
	default:
	}
}

// input is the handler of the tunnel. While the destination takes nothing, it
// blocks, and with it all input.
func (p *basicPort) input(t frame.PayloadType, payload []byte) error {
	p.spoke(errSpoke)
	switch t {
	case frame.Output:
		conn, err := p.connection()
		if err != nil {
			return err
		}
		_, err = conn.Write(payload)
		return err
	case frame.Flag:
		p.flag(payload)
	}
	return nil
}

// flag does what the client wants besides carrying its bytes.
func (p *basicPort) flag(payload []byte) {
	if p.s.terminates(payload) {
		p.end(nil)
		return
	}
	if flag, err := frame.ParseFlag(payload); err == nil && flag == frame.DisconnectToPort && since(p.s.cfg.Version, disconnectFlag) {
		p.disconnect()
	}
}

// disconnect closes the connection because the client's has ended. Without another
// to come that is the end of the tunnel, and no good one.
func (p *basicPort) disconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.s.close(p.conn)
	}
	if p.again {
		p.conn = nil
	}
}

// connection gives the connection; a new one if the last has ended. When that
// cannot be had, the tunnel ends.
func (p *basicPort) connection() (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil, errOver
	}
	if p.conn != nil {
		return p.conn, nil
	}
	conn, err := p.to.dial(p.ctx)
	if err != nil {
		err = unable(err)
		p.end(err)
		return nil, err
	}
	p.attend(conn)
	return conn, nil
}

// shut closes the connection for good.
func (p *basicPort) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	if p.conn != nil {
		p.s.close(p.conn)
	}
}
