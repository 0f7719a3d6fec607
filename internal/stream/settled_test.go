package stream_test

import (
	"errors"
	"strings"
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
			if got := r.Channel.Settled(r.Channel.Sent()); got != want {
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

// What others send meanwhile is nobody's business who waits for his own.
func TestSettledUpToAMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		send(t, r, strings.Repeat("a", 2500)) // three messages
		mark := r.Channel.Sent()
		settled := func(what string, want bool) {
			t.Helper()
			synctest.Wait()
			if got := r.Channel.Settled(mark); got != want {
				t.Errorf("%s: settled is %t, want %t", what, got, want)
			}
		}
		send(t, r, "b")
		r.Inject(Ack(0), Ack(2), Ack(3))
		settled("with a message in the middle missing", false)
		r.Inject(Ack(1))
		settled("with all up to the mark acknowledged", true)
		for sequence := range int64(100) {
			send(t, r, "c")
			settled("while more is sent", true)
			if sequence > 0 { // one is always under way
				r.Inject(Ack(3 + sequence))
			}
		}
		r.Refuse(errors.New("nobody there"))
		r.Socket().Cut(errors.New("reset"))
		settled("without a link", false)
	})
}
