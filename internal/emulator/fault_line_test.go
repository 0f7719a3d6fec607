package emulator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// faultsOf makes faults of their texts.
func faultsOf(t testing.TB, specs ...string) []Fault {
	t.Helper()
	faults, err := ParseFaults(specs...)
	if err != nil {
		t.Fatal(err)
	}
	return faults
}

// setFaults sets the faults of a server.
func setFaults(t testing.TB, s *Server, specs ...string) {
	t.Helper()
	if err := s.SetFaults(faultsOf(t, specs...)...); err != nil {
		t.Fatal(err)
	}
}

// testLine is a line whose deliveries are noted. A test of it has virtual time.
type testLine struct {
	*faultLine
	t      *testing.T
	faults *faultSwitch
	opened time.Time
	got    []string // what was delivered and when
}

// newTestLine makes the to-client line of a session.
func newTestLine(t *testing.T, session int, seed uint64, specs ...string) *testLine {
	t.Helper()
	l := &testLine{t: t, faults: newFaultSwitch(seed), opened: time.Now()}
	l.faultLine = newFaultLine(ToClient, session, func(_ context.Context, message []byte) error {
		text := string(message)
		if m, err := frame.Parse(message); err == nil {
			text = fmt.Sprint(m.Sequence)
			if m.Verify() != nil {
				text += "!"
			}
		}
		l.got = append(l.got, fmt.Sprintf("%s@%v", text, time.Since(l.opened)))
		return nil
	})
	if err := l.faults.set(faultsOf(t, specs...)); err != nil {
		t.Fatal(err)
	}
	return l
}

// passAll passes frames with the numbers of a range.
func (l *testLine) passAll(from, to int) {
	l.t.Helper()
	for n := from; n < to; n++ {
		l.passOne(inputMessage(int64(n), frame.Output, []byte(fmt.Sprint("frame ", n))))
	}
}

func (l *testLine) passOne(message []byte) {
	l.t.Helper()
	if err := l.pass(l.t.Context(), l.faults.get(), l.opened, message); err != nil {
		l.t.Fatalf("a frame cannot be passed: %v", err)
	}
}

// want compares what was delivered, once nothing moves.
func (l *testLine) want(what, want string) {
	l.t.Helper()
	synctest.Wait()
	if got := strings.Join(l.got, " "); got != want {
		l.t.Errorf("%s: there came\n%s, not\n%s", what, got, want)
	}
	l.got = nil
}

// TestFrameFaults is the specification of what each fault does to frames.
func TestFrameFaults(t *testing.T) {
	for name, test := range map[string]struct {
		specs []string
		want  string
	}{
		"drop":                          {[]string{"drop=100%"}, ""},
		"drop the other way":            {[]string{"drop=100%,to-agent"}, "0@0s 1@0s 2@0s"},
		"duplicate":                     {[]string{"duplicate=100%"}, "0@0s 0@0s 1@0s 1@0s 2@0s 2@0s"},
		"duplicate twice":               {[]string{"duplicate=100%", "duplicate=100%"}, "0@0s 0@0s 0@0s 1@0s 1@0s 1@0s 2@0s 2@0s 2@0s"},
		"corrupt":                       {[]string{"corrupt=100%"}, "0!@0s 1!@0s 2!@0s"},
		"delay":                         {[]string{"delay=25ms"}, "0@25ms 1@25ms 2@25ms"},
		"delay twice":                   {[]string{"delay=25ms", "delay=5ms,to-client"}, "0@30ms 1@30ms 2@30ms"},
		"reorder with nothing after":    {[]string{"reorder=100%"}, "0@100ms 1@100ms 2@100ms"},
		"silence":                       {[]string{"silent-agent"}, ""},
		"lose acks, but these are none": {[]string{"lose-acks"}, "0@0s 1@0s 2@0s"},
		"not of frames":                 {[]string{"throttle=1", "cut=after:1", "refuse"}, "0@0s 1@0s 2@0s"},
		"duplicate and delay":           {[]string{"duplicate=100%", "delay=1s"}, "0@1s 0@1s 1@1s 1@1s 2@1s 2@1s"},
		"before its window":             {[]string{"drop=100%,after:1ms"}, "0@0s 1@0s 2@0s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTestLine(t, 1, 1, test.specs...)
				defer l.close()
				l.passAll(0, 3)
				l.drain(nil)
				l.want(name, test.want)
			})
		})
	}
}

// TestReorder: a frame comes right after the one that follows it.
func TestReorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(t, 1, 1, "reorder=100%,for:1s")
		defer l.close()
		l.passAll(0, 1)
		time.Sleep(10 * time.Millisecond)
		l.want("before another one comes", "")
		l.opened = l.opened.Add(-time.Hour) // the window is over
		if err := l.faults.set(faultsOf(t, "drop=100%,to-agent")); err != nil {
			t.Fatal(err)
		}
		l.passAll(1, 3)
		l.want("when one has overtaken it", "1@1h0m0.01s 0@1h0m0.01s 2@1h0m0.01s")
	})
}

// TestReorderKeepsLatency: frames that are late anyway change places, too.
func TestReorderKeepsLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(t, 1, 3, "delay=50ms", "reorder=20%")
		defer l.close()
		l.passAll(0, 200)
		l.drain(nil)
		synctest.Wait()
		order, moved := numbers(t, l.got), 0
		for i, n := range order {
			if n != i {
				moved++
			}
		}
		slices.Sort(order)
		for i, n := range order {
			if n != i {
				t.Fatalf("frame %d is missing or came twice", i)
			}
		}
		if moved < 20 || moved > 150 {
			t.Errorf("%d of 200 frames are not in their places", moved)
		}
	})
}

// numbers gives the sequence numbers of deliveries.
func numbers(t *testing.T, got []string) []int {
	t.Helper()
	var all []int
	for _, text := range got {
		var n int
		if _, err := fmt.Sscanf(text, "%d", &n); err != nil {
			t.Fatalf("%s is no frame", text)
		}
		all = append(all, n)
	}
	return all
}

// TestSomeFramesAreLate: others overtake them.
func TestSomeFramesAreLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(t, 1, 1, "delay=3s,50%")
		defer l.close()
		l.passAll(0, 100)
		synctest.Wait()
		now := len(l.got)
		if now < 30 || now > 70 {
			t.Errorf("%d of 100 frames are not late", now)
		}
		l.drain(nil)
		synctest.Wait()
		if late := l.got[now:]; len(l.got) != 100 || !strings.HasSuffix(late[0], "@3s") || !strings.HasSuffix(late[len(late)-1], "@3s") {
			t.Errorf("%d frames came in all, the late ones from %s to %s", len(l.got), late[0], late[len(late)-1])
		}
	})
}

// TestLoseAcks loses acknowledgements and nothing else.
func TestLoseAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(t, 1, 1, "lose-acks")
		defer l.close()
		l.passOne(acknowledgement(1))
		l.passAll(7, 8)
		l.want("of an acknowledgement and a frame", "7@0s")
	})
}

// TestWindowOfFrames is counted from the session's first client, or from when the
// faults were set if that was later.
func TestWindowOfFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(t, 1, 1, "drop=100%,after:2s,for:3s")
		defer l.close()
		time.Sleep(10 * time.Second)
		l.opened = time.Now()
		for n := range 7 {
			l.passAll(n, n+1)
			time.Sleep(time.Second)
		}
		l.want("with a client that came late", "0@0s 1@1s 5@5s 6@6s")
		if err := l.faults.set(faultsOf(t, "silent-agent=for:2s")); err != nil {
			t.Fatal(err)
		}
		for n := range 4 {
			l.passAll(n, n+1)
			time.Sleep(time.Second)
		}
		l.want("with faults that were set late", "2@9s 3@10s")
	})
}

// TestDiceAreRepeatable: what happens depends on the seed, the session's number, the
// direction, the fault's place and the frame's, and on nothing else.
func TestDiceAreRepeatable(t *testing.T) {
	const specs = "drop=20% duplicate=20% corrupt=10% delay=1s,20% reorder=20%"
	play := func(session int, seed uint64, pace time.Duration, toward Direction, specs ...string) (result []string) {
		synctest.Test(t, func(t *testing.T) {
			l := newTestLine(t, session, seed, specs...)
			defer l.close()
			l.toward = toward
			for n := range 300 {
				l.passAll(n, n+1)
				time.Sleep(pace)
			}
			l.drain(nil)
			synctest.Wait()
			result = l.got
		})
		return result
	}
	first := play(1, 42, 0, ToClient, strings.Fields(specs)...)
	if again := play(1, 42, 0, ToClient, strings.Fields(specs)...); !slices.Equal(first, again) {
		t.Error("the same frames with the same seed have another fate")
	}
	for name, other := range map[string][]string{
		"another seed":         play(1, 43, 0, ToClient, strings.Fields(specs)...),
		"another session":      play(2, 42, 0, ToClient, strings.Fields(specs)...),
		"another direction":    play(1, 42, 0, ToAgent, strings.Fields(specs)...),
		"faults in new places": play(1, 42, 0, ToClient, strings.Fields("reorder=20% "+specs)...),
	} {
		if slices.Equal(first, other) {
			t.Errorf("%s changes nothing", name)
		}
	}
	lost := func(got []string) []bool {
		lost := slices.Repeat([]bool{true}, 300)
		for _, n := range numbers(t, got) {
			lost[n] = false
		}
		return lost
	}
	slow := play(1, 42, 7*time.Millisecond, ToClient, "drop=20%")
	if !slices.Equal(lost(slow), lost(play(1, 42, 0, ToClient, "drop=20%"))) {
		t.Error("time decides what is lost")
	}
	if !slices.Equal(lost(slow), lost(play(1, 42, 0, ToClient, "drop=20%", "duplicate=50%", "delay=1s"))) {
		t.Error("another fault decides what is lost")
	}
	if !slices.Equal(lost(slow), lost(play(1, 42, 0, ToClient, "drop=20%,for:1h"))) {
		t.Error("a window that is open decides what is lost")
	}
}

// TestDiceAreFair: of many frames about as many have a fault as was ordered.
func TestDiceAreFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(t, 1, 9, "drop=5%")
		defer l.close()
		l.passAll(0, 20000)
		synctest.Wait()
		if lost := 20000 - len(l.got); lost < 850 || lost > 1150 {
			t.Errorf("%d of 20000 frames are lost, not about 1000", lost)
		}
	})
}

// TestCorruptChangesOneBit of the payload, and the caller's bytes never.
func TestCorruptChangesOneBit(t *testing.T) {
	message := inputMessage(1, frame.Output, []byte("some text"))
	before := slices.Clone(message)
	places := map[int]bool{}
	for place := range uint64(200) {
		wrong := corrupted(message, []uint64{place})
		var bits []int
		for i := range len(wrong) * 8 {
			if wrong[i/8]>>(i%8)&1 != message[i/8]>>(i%8)&1 {
				bits = append(bits, i)
			}
		}
		if len(bits) != 1 || bits[0] < frame.Overhead*8 {
			t.Fatalf("the bits %v are wrong", bits)
		}
		places[bits[0]] = true
	}
	if !slices.Equal(before, message) {
		t.Error("the message itself is changed")
	}
	if len(places) != len("some text")*8 {
		t.Errorf("%d different bits can be wrong", len(places))
	}
	if short := corrupted([]byte{0}, []uint64{3}); short[0] != 8 {
		t.Errorf("of a short message the wrong bit is in %x", short)
	}
	if none := corrupted(nil, []uint64{3}); len(none) != 0 {
		t.Error("nothing becomes something")
	}
}

// TestLineIsBounded: who passes waits when too much is late, and a context or the
// end of the line wakes him.
func TestLineIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(t, 1, 1, "delay=1s")
		big := make([]byte, heldLimit/4)
		begin := time.Now()
		for range 4 {
			l.passOne(big)
		}
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("frames that fit wait for %v", waited)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("the leg is gone")
		time.AfterFunc(500*time.Millisecond, func() { cancel(gone) })
		if err := l.pass(ctx, l.faults.get(), l.opened, big); err != gone {
			t.Errorf("a frame that does not fit is passed: %v", err)
		}
		l.passOne(big)
		if waited := time.Since(begin); waited != time.Second {
			t.Errorf("a frame that does not fit waits for %v", waited)
		}
		l.passOne(big)
		time.AfterFunc(time.Millisecond, func() { l.close() })
		for range 6 { // the last ones are for nobody
			l.passOne(big)
		}
		if waited := time.Since(begin); waited != time.Second+time.Millisecond {
			t.Errorf("the end of the line is waited for until %v", waited)
		}
		l.close()
	})
}

// TestDrainHasALimit: what is later than that is lost.
func TestDrainHasALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(t, 1, 1, "delay=1h")
		l.passAll(0, 1)
		begin := time.Now()
		l.drain(nil)
		if waited := time.Since(begin); waited != heldDrain {
			t.Errorf("what comes in an hour is waited for %v", waited)
		}
		stop := make(chan struct{})
		close(stop)
		l.drain(stop)
		if waited := time.Since(begin); waited != heldDrain {
			t.Errorf("a server that stops waits for %v", waited-heldDrain)
		}
		l.close()
		l.drain(nil)
		l.want("at the end", "")
	})
}
