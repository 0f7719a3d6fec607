package stream_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
	. "github.com/ssmsession/ssmsession/internal/stream/streamtest"
)

// ended tells why a channel has ended, nil while it has not.
func ended(t *testing.T, r *Rig) error {
	t.Helper()
	synctest.Wait()
	over := make(chan error, 1)
	go func() {
		_, err := r.Channel.Started(t.Context())
		for err == nil {
			_, _, err = r.Channel.Recv(t.Context())
		}
		over <- err
	}()
	synctest.Wait()
	select {
	case err := <-over:
		return err
	default:
		return nil
	}
}

// A token of a session that somebody else has begun opens it in its middle.
func TestASessionBegunElsewhereIsTold(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(t *testing.T, r *Rig)
		want error
	}{
		{"when nothing from its beginning comes", func(_ *testing.T, r *Rig) {
			r.Inject(Data(7, frame.Output, "h"))
			time.Sleep(time.Second)
			r.Inject(Data(8, frame.Output, "i"))
			time.Sleep(2 * time.Second)
		}, stream.ErrBegunElsewhere},
		{"when it is so far on that nothing is kept", func(_ *testing.T, r *Rig) {
			r.Inject(Data(1<<20, frame.Output, "h"))
			time.Sleep(3 * time.Second)
		}, stream.ErrBegunElsewhere},
		{"though its agent acknowledges, as if it were a silent one", func(_ *testing.T, r *Rig) {
			time.Sleep(time.Second) // for the probe
			r.Inject(Data(7, frame.Output, "h"), Ack(0))
			time.Sleep(3 * time.Second)
		}, stream.ErrBegunElsewhere},
		{"however long it was silent before", func(_ *testing.T, r *Rig) {
			time.Sleep(time.Second)
			r.Inject(Ack(0))
			time.Sleep(time.Hour)
			r.Inject(Data(7, frame.Output, "h"))
			time.Sleep(3 * time.Second)
		}, stream.ErrBegunElsewhere},
		{"but not before three seconds", func(_ *testing.T, r *Rig) {
			r.Inject(Data(7, frame.Output, "h"))
			time.Sleep(3*time.Second - time.Millisecond)
		}, nil},
		{"and not when the beginning is only late", func(_ *testing.T, r *Rig) {
			r.Inject(Data(1, frame.Output, "i"))
			time.Sleep(3*time.Second - time.Millisecond)
			r.Inject(Data(0, frame.Output, "h"))
			r.Inject(Data(5, frame.Output, "j"))
			time.Sleep(time.Minute)
		}, nil},
		{"and not when the beginning may have been lost with a connection", func(_ *testing.T, r *Rig) {
			r.Socket().Cut(errors.New("cut"))
			time.Sleep(time.Second)
			r.Open()
			r.Inject(Data(1, frame.Output, "i"))
			time.Sleep(time.Minute)
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := New(t, stream.Config{AliveInterval: -1})
				r.Open()
				test.do(t, r)
				if err := ended(t, r); !errors.Is(err, test.want) {
					t.Errorf("it ends with %v, want %v", err, test.want)
				}
				if dials := r.Dials(); test.want != nil && len(dials) > 1 {
					t.Errorf("it is resumed: %v", dials)
				}
			})
		})
	}
}
