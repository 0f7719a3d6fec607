package stream_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
	. "github.com/ssmsession/ssmsession/internal/stream/streamtest"
)

// A service that is just being replaced is no reason to give up; one that will give
// the same answer again is.
func TestAFirstDialIsTriedAgainWhereThatMayHelp(t *testing.T) {
	const some, once = 5, 1
	for _, tt := range []struct {
		name  string
		err   error
		dials int
	}{
		{"status 500", &stream.DialError{Status: 500}, some},
		{"status 503", &stream.DialError{Status: 503}, some},
		{"nobody listens", &stream.DialError{Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, some},
		{"a reset", &stream.DialError{Err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}}, some},
		{"a name service that is away", &stream.DialError{Err: &net.OpError{Op: "dial", Err: &net.DNSError{IsTemporary: true}}}, some},
		{"a name that is none", &stream.DialError{Err: &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}}, once},
		{"an alert of TLS", &stream.DialError{Err: &net.OpError{Op: "remote error", Err: tls.AlertError(40)}}, once},
		{"a certificate", &stream.DialError{Err: &tls.CertificateVerificationError{Err: errors.New("expired")}}, once},
		{"status 403", &stream.DialError{Status: 403}, once},
		{"status 429", &stream.DialError{Status: 429}, once},
		{"a URL that is not dialled", &stream.DialError{Refused: true, Err: errors.New("it is not a URL")}, once},
		{"what is not known", errors.New("odd"), once},
		{"what cannot get better", finalError{}, once},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, dials := time.Now(), 0
				ch := stream.Open(t.Context(), stream.Config{
					Dial: func(_ context.Context, resume bool) (stream.Socket, string, error) {
						if dials++; resume {
							t.Error("a session that nobody has opened is to be resumed")
						}
						return nil, "", tt.err
					},
				})
				if _, err := ch.Started(t.Context()); !errors.Is(err, tt.err) {
					t.Errorf("Started gives %v, want what the dial said", err)
				}
				if dials != tt.dials {
					t.Errorf("dialled %d times, want %d", dials, tt.dials)
				}
				if took := time.Since(begin); took > 3*time.Second || tt.dials == once && took > 0 {
					t.Errorf("given up after %v", took)
				}
			})
		})
	}
}

func TestAFirstDialThatFailsAndIsTriedAgainOpensTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var notices []stream.Notice // by the loop, and read once it has ended
		var dials int
		cfg := quiet()
		cfg.Notify = func(n stream.Notice) { notices = append(notices, n) }
		cfg.Dial = func(context.Context, bool) (stream.Socket, string, error) {
			if dials++; dials < 3 {
				return nil, "", &stream.DialError{Status: 503}
			}
			return &brief{says: [][]byte{Output(0, "$"), ChannelClosed("")}}, "token", nil
		}
		ch := stream.Open(t.Context(), cfg)
		if _, err := ch.Started(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := ch.Close(); err != nil {
			t.Fatal(err)
		}
		if len(notices) != 2 || notices[0].Kind != stream.Heard || notices[1].Kind != stream.Began {
			t.Errorf("told %+v; nothing was lost", notices)
		}
	})
}

// brief is a Socket that says something and ends.
type brief struct{ says [][]byte }

func (b *brief) Receive(deliver func(*frame.Batch) *frame.Batch) error {
	batch := deliver(nil)
	if batch == nil {
		return net.ErrClosed
	}
	for _, m := range b.says {
		batch.Add(frame.Binary, m)
	}
	deliver(batch)
	return io.EOF
}

func (*brief) Send(*frame.Batch) error { return nil }
func (*brief) Close() error            { return nil }

// A far end that takes each connection, says a word and drops it, perhaps because of
// what it is sent, is not called as fast as it answers.
func TestConnectionsThatAreOfNoUseComeEverMoreSeldom(t *testing.T) {
	for _, tt := range []struct {
		name        string
		use         bool
		within      time.Duration
		least, most int
	}{
		{"of no use", false, time.Minute, 10, 100},
		{"of use", true, 2 * time.Second, 150, 250},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), tt.within)
				defer cancel()
				dials := int64(0)
				cfg := quiet()
				cfg.Dial = func(context.Context, bool) (stream.Socket, string, error) {
					time.Sleep(10 * time.Millisecond) // as far as the service is
					s := &brief{says: [][]byte{Control(frame.StartPublication)}}
					if tt.use || dials == 0 {
						s.says = append(s.says, Output(dials, "$"))
					}
					dials++
					return s, "token", nil
				}
				ch := stream.Open(ctx, cfg)
				for {
					if _, _, err := ch.Recv(ctx); err != nil {
						break
					}
				}
				_ = ch.Close() // its time was up
				if n := int(dials); n < tt.least || n > tt.most {
					t.Errorf("dialled %d times in %v, want %d to %d", n, tt.within, tt.least, tt.most)
				}
			})
		})
	}
}

// The attempts are counted from the loss on, whether the link that was lost had said
// something or not.
func TestAttemptsAreCountedFromTheLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := make(chan int, 10)
		cfg := quiet()
		cfg.Notify = func(n stream.Notice) {
			if n.Kind == stream.Reconnecting {
				attempts <- n.Attempt
			}
		}
		r := New(t, cfg)
		for want := range 3 {
			r.Socket().Cut(io.EOF)
			if got := <-attempts; got != want+1 {
				t.Errorf("attempt %d is told as %d", want+1, got)
			}
			time.Sleep(5 * time.Second)
		}
	})
}

// A connection that is got back when the session has been given up is not opened:
// nobody would read from it.
func TestASocketThatComesAfterTheEndIsNotOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := quiet()
		cfg.RedialFor = 5 * time.Second
		r := started(t, cfg)
		r.Inject(Output(1, "kept"))
		r.Want("acknowledged", "ack 1")
		lost := r.Socket()
		release := r.Delay()
		lost.Cut(io.EOF)
		time.Sleep(6 * time.Second)
		select {
		case <-r.Channel.Ending():
		default:
			t.Fatal("the session was not given up in its time")
		}
		release()
		if s := r.Socket(); s != lost {
			r.Want("nothing is sent after the end")
			if !s.Closed() {
				t.Error("the socket is left open")
			}
		} else {
			t.Error("the dial did not give its socket")
		}
		recv(t, r, frame.Output, "kept")
		if _, _, err := r.Channel.Recv(t.Context()); !errors.Is(err, stream.ErrLost) {
			t.Errorf("the end is %v", err)
		}
	})
}
