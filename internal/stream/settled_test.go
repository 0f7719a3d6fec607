package stream_test

import (
	"errors"
	"testing"
	"testing/synctest"

	. "github.com/ssmsession/ssmsession/internal/stream/streamtest"
)

// TestSettled: all that a Send has returned for counts, from that moment on.
func TestSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		settled := func(what string, want bool) {
			t.Helper()
			if got := r.Channel.Settled(); got != want {
				t.Errorf("%s: settled is %t, want %t", what, got, want)
			}
		}
		synctest.Wait()
		settled("when nothing was sent", true)
		for sequence := range int64(100) {
			send(t, r, "a")
			settled("just sent", false)
			r.Inject(Ack(sequence))
			synctest.Wait()
			settled("acknowledged", true)
		}
		r.Refuse(errors.New("nobody there"))
		r.Socket().Cut(errors.New("reset"))
		synctest.Wait()
		settled("without a link", false)
	})
}
