package stream_test

import (
	"context"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
	. "github.com/ssmsession/ssmsession/internal/stream/streamtest"
)

func TestNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards got
		var got []stream.Notice
		count := func() int {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return len(got)
		}
		want := func(why string, notices ...stream.Notice) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(got) != len(notices) || len(got) > 0 && !reflect.DeepEqual(got, notices) {
				t.Errorf("%s: told %+v, want %+v", why, got, notices)
			}
			got = nil
		}
		cfg := quiet()
		cfg.Notify = func(n stream.Notice) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, n)
		}
		r := New(t, cfg)
		r.Open()
		want("an open socket says nothing")
		r.Inject(Output(0, "$"))
		want("the first message, which begins the session", stream.Notice{Kind: stream.Heard}, stream.Notice{Kind: stream.Began})
		r.Inject(Output(1, "$"))
		want("the next one is no news")
		r.Inject(Control(frame.PausePublication))
		want("a pause", stream.Notice{Kind: stream.Paused})

		cut := errors.New("cut")
		r.Socket().Cut(cut)
		want("a lost socket", stream.Notice{Kind: stream.Reconnecting, Attempt: 1, Err: cut})
		r.Open()
		want("a new socket has yet to prove itself")
		time.Sleep(3 * time.Second)
		r.Inject(Output(2, "$"))
		want("it does", stream.Notice{Kind: stream.Resumed, For: 3 * time.Second})
		r.Inject(Output(3, "$"))
		want("once")

		refused := errors.New("no route")
		r.Refuse(refused)
		r.Socket().Cut(cut)
		for count() < 3 {
			time.Sleep(10 * time.Millisecond)
		}
		mu.Lock()
		defer mu.Unlock()
		for i, n := range got[:3] {
			why := refused
			if i == 0 {
				why = cut
			}
			if n.Kind != stream.Reconnecting || n.Attempt != i+1 || !errors.Is(n.Err, why) {
				t.Errorf("attempt %d is told as %+v", i+1, n)
			}
		}
	})
}

func TestNoticesOfAHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kinds []stream.NoticeKind // by the loop, and read once it has ended
		cfg := quiet()
		cfg.Notify = func(n stream.Notice) { kinds = append(kinds, n.Kind) }
		r := New(t, cfg)
		r.Open()
		r.Inject(Data(0, frame.HandshakeRequest, `{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"InteractiveCommands"}}]}`))
		r.Inject(Data(1, frame.HandshakeComplete, `{}`))
		if _, err := r.Channel.Started(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.Inject(ChannelClosed(""))
		if err := r.Channel.Close(); err != nil {
			t.Fatal(err)
		}
		want := []stream.NoticeKind{stream.Heard, stream.Asked, stream.Began}
		if !slices.Equal(kinds, want) {
			t.Errorf("told %v, want %v", kinds, want)
		}
	})
}

func TestASilentAgentIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notices := make(chan stream.Notice, 10)
		cfg := quiet()
		cfg.Notify = func(n stream.Notice) { notices <- n }
		r := started(t, cfg)
		want := func(why string, kinds ...stream.NoticeKind) {
			t.Helper()
			synctest.Wait()
			var got []stream.NoticeKind
			for len(notices) > 0 {
				got = append(got, (<-notices).Kind)
			}
			if !slices.Equal(got, kinds) {
				t.Errorf("%s: told %v, want %v", why, got, kinds)
			}
		}
		want("the start", stream.Heard, stream.Began)
		time.Sleep(time.Hour)
		want("idle time says nothing")
		send(t, r, "a")
		time.Sleep(10*time.Second - time.Millisecond)
		want("not yet")
		time.Sleep(time.Millisecond)
		want("ten seconds without an acknowledgement", stream.Unanswered)
		time.Sleep(time.Minute)
		want("told once")
		r.Inject(Ack(0))
		want("it answers", stream.Answered)
		send(t, r, "b")
		time.Sleep(10 * time.Second)
		want("silent again", stream.Unanswered)
		r.Socket().Cut(io.EOF)
		want("a lost link is other news", stream.Reconnecting)
	})
}

// What we leave unread may hold the acknowledgement: that is not the agent's silence,
// and not the end of a session whose reader takes his time.
func TestAReaderThatTakesHisTimeIsNotTheAgentsSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notices := make(chan stream.Notice, 10)
		cfg := quiet()
		cfg.Notify = func(n stream.Notice) { notices <- n }
		r := started(t, cfg)
		for range 2 {
			<-notices // of the start
		}
		payload := strings.Repeat("x", 1024)
		const messages = 2 << 10 // as much as is kept before the socket is left unread
		for i := range int64(messages) {
			r.Inject(Output(1+i, payload))
		}
		send(t, r, "a")
		time.Sleep(2 * stream.DefaultGiveUp)
		for got := 0; got < messages*len(payload); {
			_, p, err := r.Channel.Recv(t.Context())
			if err != nil {
				t.Fatalf("after %d bytes: %v", got, err)
			}
			got += len(p)
		}
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if len(notices) > 0 {
			t.Errorf("told %v of an agent that was not listened to", <-notices)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(notices) != 1 || (<-notices).Kind != stream.Unanswered {
			t.Error("not told of the silence, once, ten seconds after the reader")
		}
		time.Sleep(stream.DefaultGiveUp)
		if _, _, err := r.Channel.Recv(t.Context()); !errors.Is(err, stream.ErrLost) {
			t.Errorf("an agent that does not answer gives %v, want %v", err, stream.ErrLost)
		}
	})
}

// At the end nobody reads any more, and only acknowledgements are waited for.
func TestCloseDoesNotLeaveTheSocketUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		payload := strings.Repeat("x", 1024)
		for i := range int64(2 << 10) {
			r.Inject(Output(1+i, payload))
		}
		send(t, r, "a")
		synctest.Wait()
		r.Inject(Ack(0))
		began := time.Now()
		if err := r.Channel.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("with the acknowledgement in the socket, the end took %v", took)
		}
	})
}

// blowing is a Socket whose parts panic as asked.
type blowing struct {
	stream.Socket
	receive, send bool
	closed        chan struct{}
}

func (b *blowing) Receive(func(*frame.Batch) *frame.Batch) error {
	if b.receive {
		panic("in Receive")
	}
	<-b.closed
	return io.EOF
}

func (b *blowing) Send(*frame.Batch) error {
	if b.send {
		panic("in Send")
	}
	return nil
}

func (b *blowing) Close() error {
	close(b.closed)
	return nil
}

// A panic is the end of the session, in order: nothing hangs, nothing is left,
// and nobody tries again.
func TestAPanicEndsTheChannel(t *testing.T) {
	for _, tt := range []struct {
		name   string
		socket blowing
		dial   bool
		notify bool
		want   string
	}{
		{name: "of the reader", socket: blowing{receive: true}, want: "internal error: in Receive"},
		{name: "of the writer", socket: blowing{send: true}, want: "internal error: in Send"},
		{name: "of the dial", dial: true, want: "internal error: in Dial"},
		{name: "of the loop", notify: true, want: "internal error: in the loop"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := quiet()
				cfg.Dial = func(context.Context, bool) (stream.Socket, string, error) {
					if tt.dial {
						panic("in Dial")
					}
					socket := tt.socket
					socket.closed = make(chan struct{})
					return &socket, "token", nil
				}
				if tt.notify {
					cfg.Dial = func(context.Context, bool) (stream.Socket, string, error) {
						return short{}, "token", nil
					}
					cfg.Notify = func(stream.Notice) { panic("in the loop") }
				}
				channel := stream.Open(t.Context(), cfg)
				_, _, err := channel.Recv(t.Context())
				crashed := (*crash.Error)(nil)
				if !errors.As(err, &crashed) || err.Error() != tt.want {
					t.Errorf("Recv gives %v, want %s", err, tt.want)
				}
				if err := channel.Close(); !errors.As(err, &crashed) {
					t.Errorf("Close gives %v", err)
				}
			})
		})
	}
}

// short is a Socket that ends at once, so that the loop has something to tell.
type short struct{}

func (short) Receive(func(*frame.Batch) *frame.Batch) error { return io.EOF }
func (short) Send(*frame.Batch) error                       { return nil }
func (short) Close() error                                  { return nil }
