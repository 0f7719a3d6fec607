package main

import (
	"context"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// answering is a Peer that has nothing to say and takes everything.
type answering struct{ session.Peer }

func (answering) Send(context.Context, frame.PayloadType, []byte) error { return nil }

// endingPeer is a Peer that tells of its end.
type endingPeer struct {
	session.Peer
	end chan struct{}
}

func (p endingPeer) Ending() <-chan struct{} { return p.end }

func TestAnIdlerPassesTheEndOn(t *testing.T) {
	end := make(chan struct{})
	i, stop := newIdler(endingPeer{end: end}, &collector{})
	defer stop()
	if i.Ending() != end {
		t.Error("the end of the peer is not told")
	}
}

// gcPercent reads the collector's setting.
func gcPercent() int {
	percent := debug.SetGCPercent(-1)
	debug.SetGCPercent(percent)
	return percent
}

func TestTheCollectorRestsWhileASessionIsIdle(t *testing.T) {
	before := gcPercent()
	synctest.Test(t, func(t *testing.T) {
		peer, stop := newIdler(answering{}, &collector{})
		want := func(why string, percent int) {
			t.Helper()
			synctest.Wait()
			if got := gcPercent(); got != percent {
				t.Errorf("%s: the collector is set to %d, not %d", why, got, percent)
			}
		}
		time.Sleep(idleAfter - time.Millisecond)
		want("not yet idle", before)
		time.Sleep(time.Millisecond)
		want("idle", -1)
		if err := peer.Send(t.Context(), frame.Output, []byte("x")); err != nil {
			t.Fatal(err)
		}
		want("busy again", before)
		time.Sleep(idleAfter)
		want("idle again", -1)
		stop()
		want("over", before)
		time.Sleep(time.Hour)
		want("and it stays as it was", before)
	})
}
