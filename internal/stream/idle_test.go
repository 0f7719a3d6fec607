package stream_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
	. "github.com/ssmsession/ssmsession/internal/stream/streamtest"
)

// A deadline that has passed and that nothing comes of any more would have the loop
// turn without end. A bubble shows that as a test that does not end.
func TestTheLoopRestsWhileNothingCanBeDone(t *testing.T) {
	t.Run("lost, with output that nobody has read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := quiet()
			cfg.RedialFor = time.Minute
			r := started(t, cfg)
			r.Inject(Output(1, "unread"))
			r.Refuse(errors.New("no route"))
			r.Socket().Cut(errors.New("gone"))
			time.Sleep(time.Hour)
			recv(t, r, frame.Output, "unread")
			if _, _, err := r.Channel.Recv(t.Context()); !errors.Is(err, stream.ErrLost) {
				t.Errorf("after the output, Recv gives %v", err)
			}
		})
	})
	t.Run("a write fails, and output crowds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := started(t, quiet())
			crowd(r)
			r.Socket().FailSend(errors.New("broken pipe"))
			send(t, r, "x")
			time.Sleep(time.Minute)
			if dials := r.Dials(); len(dials) != 1 {
				t.Errorf("the link was given up while it was left unread: %d dials", len(dials))
			}
			for range 2 << 20 / len(chunkOfCrowd) {
				recv(t, r, frame.Output, chunkOfCrowd)
			}
			if dials := r.Dials(); len(dials) != 2 {
				t.Errorf("a link that takes nothing was not given up: %d dials", len(dials))
			}
		})
	})
	t.Run("a write fails, and more is paced", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := quiet()
			cfg.Rate = 10_000
			r := started(t, cfg)
			r.Socket().FailSend(errors.New("broken pipe"))
			send(t, r, strings.Repeat("x", 128<<10))
			time.Sleep(500 * time.Millisecond)
			if dials := r.Dials(); len(dials) != 1 {
				t.Errorf("what the far end has still said was not waited for: %d dials", len(dials))
			}
			time.Sleep(time.Second)
			if dials := r.Dials(); len(dials) != 2 {
				t.Errorf("a link that takes nothing was not given up: %d dials", len(dials))
			}
		})
	})
}

// chunkOfCrowd is as long as what Recv gives at once.
var chunkOfCrowd = strings.Repeat("c", 32<<10)

// crowd has so much wait for Recv that the socket is left unread.
func crowd(r *Rig) {
	payload := chunkOfCrowd[:16<<10]
	for i := range int64(2 << 20 / len(payload)) {
		r.Inject(Output(1+i, payload))
	}
}

// A silent link is given up when its time is over, and not at the ping after that.
func TestSilenceEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, stream.Config{AliveInterval: 30 * time.Second, AliveCount: 3})
		time.Sleep(10 * time.Second)
		r.Inject(Output(1, "the last word"))
		time.Sleep(90*time.Second - time.Millisecond)
		if dials := r.Dials(); len(dials) != 1 {
			t.Fatalf("given up too early: %d dials", len(dials))
		}
		time.Sleep(time.Millisecond)
		if dials := r.Dials(); len(dials) != 2 {
			t.Errorf("not given up after three intervals: %d dials", len(dials))
		}
	})
}
