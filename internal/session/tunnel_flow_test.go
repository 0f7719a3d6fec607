package session

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// unsettled is a peer whose far end may not have heard everything.
type unsettled struct {
	Peer
	is atomic.Bool
}

func (u *unsettled) Sent() int64        { return 0 }
func (u *unsettled) Settled(int64) bool { return !u.is.Load() }

// An answer is not late as long as the question may be under way.
func TestSilenceOfAFarEndThatCannotHearDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &unsettled{}
		local, far := net.Pipe()
		defer local.Close()
		defer far.Close()
		f := newFlow(local, &buffers{}, peer)
		began := time.Now()
		if !f.silent(t.Context(), 2*time.Second, stays) || time.Since(began) != 2*time.Second {
			t.Errorf("the silence of an idle link took %v, want 2s", time.Since(began))
		}
		began = time.Now()
		peer.is.Store(true)
		time.AfterFunc(30*time.Second, func() { peer.is.Store(false) })
		if !f.silent(t.Context(), 2*time.Second, stays) {
			t.Fatal("the silence was given up")
		}
		if took := time.Since(began); took < 31*time.Second || took > 33*time.Second {
			t.Errorf("with a link that was away for 30s the silence took %v, want about 32s", took)
		}
	})
}

// slowlySettled is a peer whose far end has heard everything when it is asked for the
// hundredth time.
type slowlySettled struct {
	Peer
	asked int
}

func (s *slowlySettled) Sent() int64 { return 0 }

func (s *slowlySettled) Settled(int64) bool {
	s.asked++
	return s.asked > 100
}

// A wait of next to nothing is no reason to ask without rest while the far end cannot hear.
func TestAShortSilenceIsAskedForAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, far := net.Pipe()
		defer local.Close()
		defer far.Close()
		peer := &slowlySettled{}
		f := newFlow(local, &buffers{}, peer)
		began := time.Now()
		if !f.silent(t.Context(), time.Nanosecond, stays) {
			t.Fatal("the silence was given up")
		}
		if took := time.Since(began); took < 100*time.Millisecond {
			t.Errorf("it was asked %d times in %v", peer.asked, took)
		}
	})
}

func TestManyUploadsAtOnceHaveSmallerBuffers(t *testing.T) {
	b := &buffers{}
	var lent []*[]byte
	lend := func(want int, when string) {
		t.Helper()
		p := b.lend()
		if len(*p) != want {
			t.Fatalf("%s a buffer has %d bytes, want %d", when, len(*p), want)
		}
		lent = append(lent, p)
	}
	for range manyReads {
		lend(largeRead, "while few are lent")
	}
	for range manyReads {
		lend(mediumRead, "when many are lent")
	}
	for i, p := range lent {
		b.giveBack(p, i%2 == 0)
	}
	b.giveBack(nil, false) // of an upload that has lent none
	for range manyReads {
		lend(largeRead, "when all have come back, whether held or not,")
	}
	lend(mediumRead, "when many are lent again")
}
