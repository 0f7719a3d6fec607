package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/xtaci/smux"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// muxPort is a tunnel for many connections: a server of smux, protocol version 1,
// over the bytes of all payloads together (docs/protocol.md, "Tunnels").
type muxPort struct {
	s     *session
	to    destination
	wire  *pairEnd // the payloads
	mux   *smux.Session
	ended chan error // the first end of the tunnel
	conns sync.WaitGroup
}

// runMux plays a tunnel for many connections. Its parts end together, and are
// gone when it returns, but for smux's own, which nothing holds any more.
func (s *session) runMux(ctx context.Context, to destination) Result {
	ctx, cancel := context.WithCancelCause(ctx)
	cfg := smux.DefaultConfig()
	cfg.KeepAliveDisabled = !s.keepsAlive()
	wire, end := newPair()
	mux, err := smux.Server(end, cfg)
	if err != nil {
		cancel(err)
		return s.portResult(err)
	}
	p := &muxPort{s: s, to: to, wire: wire, mux: mux, ended: make(chan error, 1)}
	p.conns.Go(func() { p.end(p.accept(ctx)) })
	p.conns.Go(func() {
		if err := s.forward(ctx, wire); errors.Is(err, io.EOF) {
			p.end(io.ErrUnexpectedEOF) // smux was not kept alive
		} else {
			p.end(err)
		}
	})
	s.channel.handle(p.input)

	result := Result{Status: StatusSuccess}
	select {
	case <-ctx.Done():
	case err := <-p.ended:
		result = s.portResult(err)
	}
	cancel(errOver)
	s.close(wire)
	if err := mux.Close(); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		s.log.Debug("cannot close the multiplexer", "err", err)
	}
	p.conns.Wait()
	return result
}

// end ends the tunnel. Only the first end counts.
func (p *muxPort) end(err error) {
	select {
	case p.ended <- err:
	default:
	}
}

// input is the handler of the tunnel. While smux has no room for more (4 MiB that
// destinations did not take), it blocks, and with it all input.
func (p *muxPort) input(t frame.PayloadType, payload []byte) error {
	switch t {
	case frame.Output:
		_, err := p.wire.Write(payload)
		return err
	case frame.Flag: // DisconnectToPort means nothing here
		if p.s.terminates(payload) {
			p.end(nil)
		}
	}
	return nil
}

// accept connects each new stream with the destination, one after another: one
// that takes its time to connect holds up those that follow, as in AWS's agent.
func (p *muxPort) accept(ctx context.Context) error {
	for {
		stream, err := p.mux.AcceptStream()
		if err != nil && ctx.Err() == nil && !p.mux.IsClosed() {
			// The client broke the protocol. AWS's agent hears nothing any more,
			// but does not end.
			p.s.log.Error("the multiplexer is stuck", "err", err)
			<-ctx.Done()
		}
		if err != nil {
			return err
		}
		conn, err := p.to.dial(ctx)
		if ctx.Err() != nil {
			if err == nil {
				p.s.close(conn)
			}
			return context.Cause(ctx)
		}
		if err != nil {
			p.refuse(stream, err)
			continue
		}
		p.conns.Go(func() { p.relay(ctx, stream, conn) })
	}
}

// refuse tells the client that a stream has no destination: by a flag, which does
// not say which stream it is about, and by the stream's end.
func (p *muxPort) refuse(stream io.Closer, reason error) {
	p.s.log.Error("Unable to dial connection to server", "err", reason)
	if err := p.s.channel.send(frame.Flag, frame.ConnectToPortError.Append(nil)); err != nil {
		p.s.log.Debug("refusal not told", "err", err)
	}
	p.hangUp(stream)
}

// relay carries bytes both ways between a stream and its connection. The end of
// either way closes what it leads to altogether: a FIN of the client does not half
// close the connection, and an answer that is on its way is lost.
func (p *muxPort) relay(ctx context.Context, stream io.ReadWriteCloser, conn net.Conn) {
	stop := onCancel(ctx, func() { p.s.close(conn) }) // a write to it may be stuck
	defer stop()
	var away sync.WaitGroup
	away.Go(func() {
		p.copy(conn, stream)
		p.s.close(conn)
	})
	p.copy(stream, conn)
	p.hangUp(stream)
	away.Wait()
}

// copy copies until either side ends.
func (p *muxPort) copy(to io.Writer, from io.Reader) {
	if _, err := io.Copy(to, from); err != nil {
		p.s.log.Debug("a connection of the tunnel ended", "err", err)
	}
}

// hangUp closes a stream.
func (p *muxPort) hangUp(stream io.Closer) {
	if err := stream.Close(); err != nil {
		p.s.log.Debug("a stream of the tunnel was closed already", "err", err)
	}
}
