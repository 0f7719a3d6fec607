package stream_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
	. "github.com/ssmsession/ssmsession/internal/stream/streamtest"
)

// wantBegun compares whether a session has begun.
func wantBegun(t *testing.T, r *Rig, why string, want bool) {
	t.Helper()
	synctest.Wait()
	begun := make(chan struct{})
	go func() {
		if _, err := r.Channel.Started(t.Context()); err == nil {
			close(begun)
		}
	}()
	synctest.Wait()
	got := false
	select {
	case <-begun:
		got = true
	default:
	}
	if got != want {
		t.Errorf("%s: the session has begun: %v, want %v", why, got, want)
	}
}

// A program that prints nothing has a session all the same, which takes input.
func TestASilentSessionBegins(t *testing.T) {
	const probe = "0:10:\x00\x00\x00\x00"
	t.Run("when the agent has acknowledged a probe and asks for nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := New(t, quiet())
			r.Open()
			time.Sleep(time.Second - time.Millisecond)
			r.Want("nothing at first: an agent that has something to say says it")
			time.Sleep(time.Millisecond)
			r.Want("then a probe", probe)
			time.Sleep(200 * time.Millisecond)
			r.Want("which is repeated like anything else", probe)
			wantBegun(t, r, "without an agent", false)
			r.Inject(Ack(0))
			time.Sleep(time.Second - time.Millisecond)
			wantBegun(t, r, "as long as a handshake may come", false)
			time.Sleep(time.Millisecond)
			wantBegun(t, r, "after that", true)
			send(t, r, "x")
			r.Want("input goes on from there", "1:1:x")
		})
	})
	t.Run("when it has acknowledged a size", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := New(t, quiet())
			r.Open()
			if err := r.Channel.Send(t.Context(), frame.Size, []byte(`{"cols":80,"rows":24}`)); err != nil {
				t.Fatal(err)
			}
			r.Want("the size", `0:3:{"cols":80,"rows":24}`)
			r.Inject(Ack(0))
			time.Sleep(time.Second)
			wantBegun(t, r, "a size is as good as a probe", true)
			r.Want("there is no probe then")
		})
	})
	t.Run("but not while a handshake is under way", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := New(t, quiet())
			r.Open()
			r.Inject(Data(0, frame.HandshakeRequest, `{"RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port"}}]}`))
			r.Sent()
			r.Inject(Ack(0))
			time.Sleep(time.Minute)
			wantBegun(t, r, "it is the agent's to complete it", false)
			r.Inject(Data(1, frame.HandshakeComplete, `{}`))
			wantBegun(t, r, "completed", true)
		})
	})
	t.Run("and a handshake that comes late is answered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := New(t, quiet())
			r.Open()
			time.Sleep(time.Second)
			r.Inject(Ack(0))
			time.Sleep(time.Second)
			wantBegun(t, r, "so far silent", true)
			r.Sent()
			r.Inject(Data(0, frame.HandshakeRequest, `{"RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream"}}]}`))
			if got := r.Sent(); len(got) != 2 || got[0] != "ack 0" {
				t.Errorf("it is answered with %q, want an acknowledgement and a response", got)
			}
		})
	})
	t.Run("and one that comes behind output is not", func(t *testing.T) {
		for _, silent := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				r := New(t, quiet())
				r.Open()
				if silent {
					time.Sleep(time.Second)
					r.Inject(Ack(0))
					time.Sleep(time.Second)
				}
				r.Inject(Output(0, "$"))
				wantBegun(t, r, "by then", true)
				r.Sent()
				r.Inject(Data(1, frame.HandshakeRequest, `{"RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream"}}]}`))
				r.Want("it is acknowledged, for it has a number", "ack 1")
			})
		}
	})
}
