package stream

import (
	"log/slog"
	"testing"
	"time"
)

// A clock that a test can stop is not to be had, not even in a bubble: the loop
// is asked directly.
func TestALateLoopDoesNotBlameItsLink(t *testing.T) {
	begin := time.Now()
	awake := func() *loop {
		return &loop{
			cfg:    Config{AliveInterval: 30 * time.Second, AliveCount: 3, Log: slog.New(slog.DiscardHandler)},
			rcv:    newReceiver(),
			link:   &link{},
			readAt: begin, turnAt: begin, wakeAt: begin.Add(30 * time.Second), pingAt: begin.Add(30 * time.Second),
		}
	}
	t.Run("in time", func(t *testing.T) {
		l := awake()
		now := begin.Add(31 * time.Second)
		l.noticeSleep(now)
		if !l.readAt.Equal(begin) || !l.pingAt.Equal(begin.Add(30*time.Second)) {
			t.Errorf("a timer that is a second late changes deadlines: read at %v, ping at %v", l.readAt.Sub(begin), l.pingAt.Sub(begin))
		}
	})
	t.Run("stopped for minutes", func(t *testing.T) {
		l := awake()
		now := begin.Add(5 * time.Minute)
		l.noticeSleep(now)
		if err := l.dead(now); err != nil {
			t.Errorf("the link is dead at once: %v", err)
		}
		if !l.pingAt.Equal(now) {
			t.Error("it is not asked to prove itself")
		}
		if err := l.dead(now.Add(wakeGrace - time.Millisecond)); err != nil {
			t.Errorf("the link is dead before its grace is over: %v", err)
		}
		if err := l.dead(now.Add(wakeGrace)); err == nil {
			t.Error("a link that stays silent is alive after its grace")
		}
	})
	t.Run("while the beginning of the session is late", func(t *testing.T) {
		l := awake()
		l.strayAt = begin
		now := begin.Add(5 * time.Minute)
		l.noticeSleep(now)
		if want := now.Add(strayLimit); !l.strayDeadline().Equal(want) {
			t.Errorf("it is waited for until %v after we woke, want %v", l.strayDeadline().Sub(now), strayLimit)
		}
	})
	t.Run("without pings", func(t *testing.T) {
		l := awake()
		l.cfg.AliveInterval = -1
		now := begin.Add(5 * time.Minute)
		l.noticeSleep(now)
		if err := l.dead(now.Add(time.Hour)); err != nil {
			t.Errorf("nobody asked for a silent link to be dead: %v", err)
		}
	})
}
