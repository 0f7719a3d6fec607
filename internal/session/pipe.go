package session

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Pipe is one connection to a port of the target, as its bytes are: what SSH
// wants of a ProxyCommand.
type Pipe struct {
	// In ends without a word to the agent, which has none for it: after that
	// nothing is sent, and what comes is read on.
	In  Input
	Out io.Writer
}

// Run carries bytes both ways until the session ends. The error is never nil:
// Recv's, which wraps io.EOF after a good end; a *WriteError; a *TunnelError when
// the document opens another kind of session; the input's; or ctx's cause. When
// ctx ends, Run returns even if Out takes nothing; that one write may then
// outlive it.
//
// A session that has not ended by then is told to the agent to be over, for which
// the peer must outlive ctx by a second.
func (p Pipe) Run(ctx context.Context, peer Peer) error {
	start, err := peer.Started(ctx)
	if err != nil {
		return err
	}
	if err := p.check(start); err != nil {
		terminate(ctx, peer)
		return err
	}
	heard := make(chan struct{})
	err = carry(ctx, peer, func(ctx context.Context, peer Peer) error {
		return p.output(ctx, peer, sync.OnceFunc(func() { close(heard) }))
	}, func(ctx context.Context, peer Peer) error {
		select {
		case <-heard:
		case <-time.After(settleTime):
		case <-ctx.Done():
			return nil
		}
		return p.input(ctx, peer)
	})
	if !errors.Is(err, io.EOF) {
		terminate(ctx, peer)
	}
	return err
}

func (Pipe) check(start frame.Start) error {
	if start.SessionType != frame.Port {
		return &TunnelError{"the document opens a session of type " + string(start.SessionType) + ", which carries no connection"}
	}
	if Multiplexed(start) {
		return &TunnelError{"the document opens a session for many connections, which cannot carry one as it is"}
	}
	return nil
}

// input sends what is to be sent, up to its end.
func (p Pipe) input(ctx context.Context, peer Peer) error {
	for {
		b, err := p.In.Read(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return quiet(ctx, err)
		}
		if err := peer.Send(ctx, frame.Output, b); err != nil {
			return quiet(ctx, err)
		}
	}
}

// output writes what comes, and calls heard when something does: a server that
// speaks first, as sshd, is not to be waited for any longer.
func (p Pipe) output(ctx context.Context, peer Peer, heard func()) error {
	for {
		typ, b, err := peer.Recv(ctx)
		if err != nil {
			return err
		}
		if typ != frame.Output {
			continue
		}
		heard()
		if _, err := p.Out.Write(b); err != nil {
			return &WriteError{err}
		}
	}
}
