package session

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ssmsession/ssmsession/internal/crash"
)

// When a check is due, and how long its answer may take. docs/exec.md has them in
// words.
const (
	// After a lost connection an agent repeats what was lost one message each
	// 100 ms: what has paused for so long has been repeated, or will not be.
	quietAfterLoss = 10 * time.Second
	// Without a loss a pause of the service is rare, and silence is not: a check
	// costs a session. So it doubles with each check.
	quietFirst, quietLast = 30 * time.Second, 10 * time.Minute
	// One output may be silent so many times longer while the other is not.
	oneSided = 10
	// The sign may have to wait for an agent that gets its own connection back.
	answerTime = 30 * time.Second
	// One that comes later than this may have been read in a pause, and be the last
	// that is.
	promptTime = 2 * time.Second
	// And on one output so long while the other has given its own and goes on.
	answerLag = 2 * time.Minute
	// The service is there if it answers a ping so soon.
	aliveTime = 15 * time.Second
	// What came with its answer is read by then.
	readTime = time.Second
	// A check that could not be made is made later, each time after twice as long.
	againAfter, againLast = 5 * time.Minute, 80 * time.Minute
)

// Check is how an Exec in Streams tells silence from output that does not come any
// more: an agent that the service has paused stops reading an output for good, and
// says nothing (docs/exec.md, "A command that says nothing").
type Check struct {
	// Ask makes the wrapper write a sign on both outputs, [NONCE], without
	// anything that is sent over this session. It tells whether there still is a
	// wrapper; an error is that it could not be asked, and one with a method
	// Permanent() bool that gives true, that it never can. It is called once at a
	// time, and its context ends when there is no need any more. Nil for no
	// checks.
	Ask func(ctx context.Context) (found bool, err error)
	// Lost holds a token when the session has lost its connection, or has tried to
	// get another. Nil where that cannot be.
	Lost <-chan struct{}
	// Haste divides all times, for tests; 0 is 1.
	Haste int
}

// unheardError is a command whose output, or whose end, will not come.
type unheardError struct{ found bool }

func (e *unheardError) Error() string {
	if e.found {
		return "the agent has stopped reading it"
	}
	return "the command is no longer on the target"
}

// prover is a Peer that can find out whether its connection works: an answer that
// comes now, behind all that the service had to pass on.
type prover interface {
	Alive(ctx context.Context) error
}

// pulse is what a watch knows of an output. The output side writes it.
type pulse struct {
	last   atomic.Int64 // when something came last, in ns since the watch began; 0 for never
	signAt atomic.Int64 // when a sign did
	signs  atomic.Int64 // how many have come
	fresh  atomic.Bool  // output has come behind the last of them
	ended  atomic.Bool
}

// watch is the side of an Exec that checks.
type watch struct {
	check  Check
	both   [2]*execStream
	began  time.Time
	busy   atomic.Bool   // what has come is being written
	news   chan struct{} // holds a token when a sign has come, or the first output behind one
	over   context.Context
	giveUp context.CancelCauseFunc // ends over

	// Owned by run.
	peer      Peer
	losses    int           // of the connection
	lost      bool          // one was after the last check
	lostAt    time.Duration // since the watch began, as all that follow
	notBefore time.Duration
	quiet     time.Duration
	again     time.Duration // after which a check that cannot be made is made again
}

func newWatch(c Check, stdout, stderr *execStream) *watch {
	c.Haste = max(c.Haste, 1)
	w := &watch{
		check: c, both: [2]*execStream{stdout, stderr}, began: time.Now(),
		news: make(chan struct{}, 1),
	}
	w.quiet, w.again = w.scaled(quietFirst), w.scaled(againAfter)
	w.over, w.giveUp = context.WithCancelCause(context.Background())
	return w
}

// bound gives the output side the context in which it waits. It ends with ctx, or
// with an *unheardError.
func (w *watch) bound(ctx context.Context) (wait context.Context, stop func()) {
	if w == nil {
		return ctx, func() {}
	}
	wait, cancel := context.WithCancelCause(ctx)
	release := context.AfterFunc(w.over, func() { cancel(context.Cause(w.over)) })
	return wait, func() {
		release()
		cancel(nil)
	}
}

// taking tells that the output side has a message, taken that it is done with it.
func (w *watch) taking() {
	if w == nil {
		return
	}
	w.busy.Store(true)
	for _, s := range w.both {
		s.scanner().fresh = false
	}
}

func (w *watch) taken() {
	if w == nil {
		return
	}
	now := int64(w.now())
	for _, s := range w.both {
		m, p := s.scanner(), &s.pulse
		news := m.signs > 0 || m.fresh && !p.fresh.Load()
		if m.signs > 0 || m.fresh {
			p.last.Store(now)
			p.fresh.Store(m.fresh)
		}
		if m.signs > 0 {
			p.signAt.Store(now)
			p.signs.Add(int64(m.signs))
			m.signs = 0
		}
		p.ended.Store(s.marked.done)
		if news {
			select {
			case w.news <- struct{}{}:
			default:
			}
		}
	}
	w.busy.Store(false)
}

// scanner sees the signs of s.
func (s *execStream) scanner() *marked {
	if s.raw != nil {
		return s.raw
	}
	return s.marked
}

func (w *watch) now() time.Duration { return time.Since(w.began) }

func (w *watch) scaled(d time.Duration) time.Duration { return d / time.Duration(w.check.Haste) }

// answer is what became of a check.
type answer int

const (
	noVerdict answer = iota // the connection does not work, which is not the agent's fault
	isHeard
	isHeardLate
	isUnheard
	notAsked // nobody could be
	notToBe  // and nobody can be
)

// run checks when it is time, until ctx ends.
func (w *watch) run(ctx context.Context, peer Peer) error {
	if _, err := peer.Started(ctx); err != nil {
		return nil //nolint:nilerr // the output side is told the same
	}
	w.peer = peer
	for w.due(ctx) {
		got, found := w.ask(ctx)
		switch got {
		case noVerdict:
			w.notBefore = w.now() + w.scaled(quietAfterLoss)
		case isHeard:
			w.again = w.scaled(againAfter)
			if !w.lost {
				w.quiet = min(2*w.quiet, w.scaled(quietLast))
			}
			w.lost = false
		case isHeardLate: // asked again, the less often the more often that happens
			w.again = w.scaled(againAfter)
			w.lost, w.lostAt = true, w.now()
			w.notBefore = w.now() + w.quiet
			w.quiet = min(2*w.quiet, w.scaled(quietLast))
		case isUnheard:
			w.giveUp(&unheardError{found})
			return nil
		case notAsked:
			w.notBefore = w.now() + w.again
			w.again = min(2*w.again, w.scaled(againLast))
		case notToBe:
			return nil
		}
	}
	return nil
}

// due waits until a check is due, and is false when ctx has ended.
func (w *watch) due(ctx context.Context) bool {
	for {
		left := never
		if at, ok := w.next(); ok {
			left = at - w.now()
		}
		switch {
		case left <= 0 && w.busy.Load(): // nobody takes what has come
			left = w.scaled(quietAfterLoss)
		case left <= 0:
			return true
		}
		if _, ok := w.pause(ctx, left, nil); !ok {
			return false
		}
	}
}

// next is when a check is due if nothing more comes; ok is false when there is
// nothing to check.
func (w *watch) next() (at time.Duration, ok bool) {
	quiet, since := w.quiet, time.Duration(0)
	if w.lost {
		quiet, since = w.scaled(quietAfterLoss), w.lostAt
	}
	latest := max(since, w.latest())
	for _, s := range w.both {
		p := &s.pulse
		if p.ended.Load() || !w.lost && !p.fresh.Load() {
			continue
		}
		due := min(latest+quiet, max(since, time.Duration(p.last.Load()))+oneSided*quiet)
		if !ok || due < at {
			at, ok = due, true
		}
	}
	return max(at, w.notBefore), ok
}

// latest is when something came last.
func (w *watch) latest() time.Duration {
	return time.Duration(max(w.both[0].pulse.last.Load(), w.both[1].pulse.last.Load()))
}

// never is a time that does not pass.
const never = time.Duration(math.MaxInt64)

// asked is what Ask gave.
type asked struct {
	found bool
	err   error
}

// pause waits until d has passed or something has happened. Ask's answer is
// given, nil for none. It is false when ctx has ended.
func (w *watch) pause(ctx context.Context, d time.Duration, result <-chan asked) (*asked, bool) {
	var over <-chan time.Time
	if d != never {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
	case <-w.news:
	case a := <-result:
		return &a, true
	case <-w.check.Lost:
		w.losses++
		w.lost, w.lostAt = true, w.now()
	case <-ctx.Done():
		return nil, false
	}
	return nil, true
}

// question is a check that waits for its answer.
type question struct {
	signs  [2]int64      // that had come before
	told   bool          // Ask has found out whether there is a wrapper
	toldAt time.Duration // when
}

// ask has the wrapper give its sign and waits for it on each output. Before that
// and before a verdict the connection has to work: the service may know already
// that it does not and have paused the agent, which would read the sign and then
// nothing more.
func (w *watch) ask(ctx context.Context) (got answer, found bool) {
	losses := w.losses
	if !w.alive(ctx) {
		return noVerdict, false
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	q := question{}
	for i, s := range w.both {
		q.signs[i] = s.pulse.signs.Load()
	}
	result := make(chan asked, 1)
	wg.Go(func() {
		var a asked
		defer func() { result <- a }()
		defer crash.Catch(&a.err)
		a.found, a.err = w.check.Ask(ctx)
	})
	for proved := false; ; { // that nothing is missing but the sign
		left := w.left(q)
		switch {
		case left > 0:
			proved = false
		case w.busy.Load():
			proved, left = false, w.scaled(readTime)
		case proved:
			return isUnheard, found
		default:
			if !w.alive(ctx) {
				return noVerdict, false
			}
			proved, left = true, w.scaled(readTime)
		}
		a, ok := w.pause(ctx, left, result)
		if a != nil {
			q.told, q.toldAt, found = true, w.now(), a.found
		}
		switch {
		case !ok, w.losses != losses:
			return noVerdict, false
		case q.told && w.answered(q, 0) && w.answered(q, 1):
			if w.late(q) {
				return isHeardLate, true
			}
			return isHeard, true
		case a != nil && permanent(a.err):
			return notToBe, false
		case a != nil && a.err != nil:
			return notAsked, false
		}
	}
}

// permanent tells an error that would come again for certain.
func permanent(err error) bool {
	p := (interface{ Permanent() bool })(nil)
	return errors.As(err, &p) && p.Permanent()
}

// answered tells whether the sign has come on an output, or is not needed.
func (w *watch) answered(q question, i int) bool {
	p := &w.both[i].pulse
	return p.ended.Load() || p.signs.Load() > q.signs[i]
}

// late tells whether an answer took so long that it proves little.
func (w *watch) late(q question) bool {
	limit := q.toldAt + w.scaled(promptTime)
	return time.Duration(max(w.both[0].pulse.signAt.Load(), w.both[1].pulse.signAt.Load())) > limit
}

// left is how long an answer is still waited for.
func (w *watch) left(q question) time.Duration {
	if !q.told {
		return never // Ask has its own limit
	}
	until := max(q.toldAt, w.latest()) + w.scaled(answerTime)
	for i, s := range w.both {
		if other := &w.both[1-i].pulse; w.answered(q, 1-i) && !w.answered(q, i) {
			since := time.Duration(max(s.pulse.last.Load(), other.signAt.Load()))
			until = min(until, max(q.toldAt, since)+w.scaled(answerLag))
		}
	}
	return until - w.now()
}

// alive tells whether the connection works, now.
func (w *watch) alive(ctx context.Context) bool {
	p, ok := w.peer.(prover)
	if !ok {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, w.scaled(aliveTime))
	defer cancel()
	return p.Alive(ctx) == nil
}
