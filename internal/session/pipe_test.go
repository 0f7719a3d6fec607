package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// sshStart is the start of a session for SSH.
func sshStart() frame.Start {
	return frame.Start{SessionType: frame.Port, AgentVersion: "3.3.0.0", Properties: []byte(`{"portNumber":"22"}`)}
}

// pipeRig runs a Pipe in a bubble.
type pipeRig struct {
	*rig // its keyboard
	peer *tunnelPeer
}

func inPipeBubble(t *testing.T, out io.Writer, f func(t *testing.T, r pipeRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := pipeRig{newRig(t), newTunnelPeer(sshStart())}
		ctx, cancel := context.WithCancelCause(t.Context())
		r.cancel = cancel
		if out == nil {
			out = &r.out
		}
		go func() { r.result <- Pipe{In: keyboard{r.rig}, Out: out}.Run(ctx, r.peer) }()
		f(t, r)
	})
}

func TestPipe(t *testing.T) {
	inPipeBubble(t, nil, func(t *testing.T, r pipeRig) {
		for _, s := range []string{"SSH-2.0-x\r\n", "\n", "\x00\xff\r"} {
			r.typing <- []byte(s)
			if got := string(<-r.peer.toAgent); got != s {
				t.Errorf("%q was sent as %q", s, got)
			}
		}
		r.peer.coming <- message{frame.Output, "SSH-2.0-y\r\n\n"}
		r.peer.coming <- message{frame.StdErr, "not of the bytes"}
		r.peer.coming <- message{frame.Flag, "\x00\x00\x00\x03"}
		close(r.typing)
		synctest.Wait()
		// After the end nothing is sent, and what comes is written on.
		time.Sleep(time.Hour)
		r.peer.coming <- message{frame.Output, "late"}
		synctest.Wait()
		select {
		case p := <-r.peer.toAgent:
			t.Errorf("after the end of the input %q was sent", p)
		case err := <-r.result:
			t.Fatalf("after the end of the input it ended: %v", err)
		default:
		}
		r.peer.end(errClosed)
		if err := r.wait(); !errors.Is(err, io.EOF) {
			t.Errorf("the session's end gives %v, want Recv's error", err)
		}
		if got, want := r.out.String(), "SSH-2.0-y\r\n\nlate"; got != want {
			t.Errorf("%q was written, want %q", got, want)
		}
		wantFlags(t, r.peer)
	})
}

// An agent throws away what it acknowledges just after the handshake.
func TestPipeSendsNothingAtOnce(t *testing.T) {
	t.Run("to a server that waits", func(t *testing.T) {
		inPipeBubble(t, nil, func(t *testing.T, r pipeRig) {
			began := time.Now()
			go func() { r.typing <- []byte("hello") }()
			if got := string(<-r.peer.toAgent); got != "hello" || time.Since(began) != settleTime {
				t.Errorf("%q was sent after %v, want all of it after %v", got, time.Since(began), settleTime)
			}
			r.peer.end(errClosed)
			r.wait()
		})
	})
	t.Run("to a server that speaks first", func(t *testing.T) {
		inPipeBubble(t, nil, func(t *testing.T, r pipeRig) {
			began := time.Now()
			go func() { r.typing <- []byte("hello") }()
			time.Sleep(settleTime / 10)
			r.peer.coming <- message{frame.Output, "SSH-2.0-y\r\n"}
			if got := string(<-r.peer.toAgent); got != "hello" || time.Since(began) != settleTime/10 {
				t.Errorf("%q was sent after %v, want all of it once the server has spoken, after %v", got, time.Since(began), settleTime/10)
			}
			r.peer.end(errClosed)
			r.wait()
		})
	})
}

func TestPipeEndOfTheContext(t *testing.T) {
	inPipeBubble(t, nil, func(t *testing.T, r pipeRig) {
		r.typing <- []byte("x")
		<-r.peer.toAgent
		r.cancel(errStopped)
		if err := <-r.result; !errors.Is(err, errStopped) {
			t.Errorf("the context's end gives %v, want its cause", err)
		}
		wantFlags(t, r.peer, frame.TerminateSession)
	})
}

func TestPipeInputThatFails(t *testing.T) {
	broken := errors.New("cannot read")
	inPipeBubble(t, nil, func(t *testing.T, r pipeRig) {
		r.inErr = broken
		close(r.typing)
		if err := r.wait(); !errors.Is(err, broken) {
			t.Errorf("an input that fails gives %v, want its error", err)
		}
		wantFlags(t, r.peer, frame.TerminateSession)
	})
}

func TestPipeReaderThatWentAway(t *testing.T) {
	full := errors.New("broken pipe")
	inPipeBubble(t, brokenWriter{full}, func(t *testing.T, r pipeRig) {
		r.peer.coming <- message{frame.Output, "x"}
		var write *WriteError
		if err := r.wait(); !errors.As(err, &write) || !errors.Is(err, full) {
			t.Errorf("the error is %v, want a WriteError of the writer's", err)
		}
		wantFlags(t, r.peer, frame.TerminateSession)
	})
}

// fullPipe takes nothing until it is freed.
type fullPipe struct{ free chan struct{} }

func (w fullPipe) Write(p []byte) (int, error) {
	<-w.free
	return len(p), nil
}

func TestPipeReaderThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fullPipe{make(chan struct{})}
		peer := newTunnelPeer(sshStart())
		ctx, cancel := context.WithCancelCause(t.Context())
		result := make(chan error)
		go func() { result <- Pipe{In: keyboard{newRig(t)}, Out: w}.Run(ctx, peer) }()
		peer.coming <- message{frame.Output, "x"}
		began := time.Now()
		cancel(errStopped)
		if err := <-result; !errors.Is(err, errStopped) || time.Since(began) > 0 {
			t.Errorf("with a write that waits, the context's end gives %v after %v, want its cause at once", err, time.Since(began))
		}
		close(w.free)
	})
}

func TestPipeRefusesSessions(t *testing.T) {
	for what, c := range map[string]struct {
		start frame.Start
		want  string
	}{
		"a shell":          {frame.Start{SessionType: frame.StandardStream}, "Standard_Stream"},
		"many connections": {startOf("3.3.0.0"), "many connections"},
	} {
		peer := newTunnelPeer(c.start)
		err := Pipe{In: keyboard{newRig(t)}, Out: &bytes.Buffer{}}.Run(t.Context(), peer)
		var refused *TunnelError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s gives %v, want a TunnelError with %q", what, err, c.want)
		}
		wantFlags(t, peer, frame.TerminateSession)
	}
}

// A session that ends before it starts gives its reason, and is sent nothing.
func TestPortSessionsThatNeverStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.peer.err = errLost
		close(r.peer.ended)
		if err := (Pipe{In: keyboard{r}, Out: &r.out}).Run(t.Context(), r.peer); !errors.Is(err, errLost) {
			t.Errorf("a pipe gives %v, want %v", err, errLost)
		}
		if err := (Tunnel{}).Run(t.Context(), r.peer); !errors.Is(err, errLost) {
			t.Errorf("a tunnel gives %v, want %v", err, errLost)
		}
		r.wantSent("a session that never started")
	})
}
