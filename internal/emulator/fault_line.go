package emulator

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Bounds of what faults hold back.
const (
	// heldLimit is in bytes, for each direction: at 25 ms it is 160 MB/s. Then who
	// sends must wait, as with any long line.
	heldLimit = 4 << 20
	// reorderLimit is how long a frame waits for one to overtake it.
	reorderLimit = 100 * time.Millisecond
	// heldDrain is how long the end of a session waits for frames that are late.
	heldDrain = 5 * time.Second
)

// faultLine is one direction between the legs of a session, where frames meet their
// faults. What is late is handed on by a goroutine of its own, which is there only
// while something is.
//
// Every fault has dice of its own, thrown for every frame, hit or miss. They are
// seeded with the seed, the session's number, the direction and the fault's place:
// what happens to the n-th frame depends on nothing else.
type faultLine struct {
	toward  Direction
	session int // number
	deliver func(context.Context, []byte) error
	ctx     context.Context // for what is late; ends with close
	end     context.CancelFunc
	running sync.WaitGroup
	wake    chan struct{} // holds a token when an earlier frame is held
	room    chan struct{} // holds a token when less is held

	mu      sync.Mutex // guards the rest
	set     *faultSet  // that the dice are for
	dice    []*rand.Rand
	held    heldFrames
	size    int // of held, in bytes
	swapped int // of held, how many wait to be overtaken
	next    uint64
	idle    chan struct{} // closed when nothing is held any more; nil when nothing is
	closed  bool
}

// newFaultLine makes a line that hands on to deliver.
func newFaultLine(toward Direction, session int, deliver func(context.Context, []byte) error) *faultLine {
	l := &faultLine{
		toward:  toward,
		session: session,
		deliver: deliver,
		wake:    make(chan struct{}, 1),
		room:    make(chan struct{}, 1),
	}
	l.ctx, l.end = context.WithCancel(context.Background())
	return l
}

// fate is what faults do to one frame.
type fate struct {
	drop, swap bool
	copies     int
	delay      time.Duration
	corrupt    []uint64 // places of bits
}

// pass hands a frame on as the faults of set have it, now or later. The windows of
// faults are counted from when the session was opened, or they were set if that was
// later. Who passes is held up by a line that is full; ctx ends that.
func (l *faultLine) pass(ctx context.Context, set *faultSet, opened time.Time, message []byte) error {
	l.mu.Lock()
	f := l.decide(set, opened, message)
	var overtaken []*heldFrame
	if !f.drop && !f.swap {
		overtaken = l.takeSwapped()
	}
	l.mu.Unlock()
	if f.drop {
		return nil
	}
	if len(f.corrupt) > 0 {
		message = corrupted(message, f.corrupt)
	}
	for range f.copies {
		if err := l.send(ctx, message, f); err != nil {
			return err
		}
	}
	for _, h := range overtaken {
		if err := l.send(ctx, h.message, fate{delay: h.delay}); err != nil {
			return err
		}
	}
	return nil
}

// send hands one frame on, or holds it.
func (l *faultLine) send(ctx context.Context, message []byte, f fate) error {
	if f.delay == 0 && !f.swap {
		return l.deliver(ctx, message)
	}
	h := &heldFrame{message: bytes.Clone(message), delay: f.delay, swap: f.swap, due: time.Now().Add(f.delay)}
	if f.swap {
		h.due = h.due.Add(reorderLimit)
	}
	for !l.hold(h) {
		select {
		case <-l.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// decide throws the dice for one frame.
func (l *faultLine) decide(set *faultSet, opened time.Time, message []byte) fate {
	if l.set != set {
		l.set, l.dice = set, newDice(set, l.session, l.toward)
	}
	now, from := time.Now(), set.since
	if opened.After(from) {
		from = opened
	}
	decided := fate{copies: 1}
	for i, f := range set.faults {
		hit, place := l.dice[i].Float64()*100 < f.chance(), l.dice[i].Uint64()
		if !hit || !f.goes(l.toward) || !f.open(now, from) {
			continue
		}
		switch f.Kind {
		case FaultDrop, FaultSilentAgent:
			decided.drop = true
		case FaultLoseAcks:
			decided.drop = decided.drop || isType(message, frame.Acknowledge)
		case FaultDuplicate:
			decided.copies++
		case FaultReorder:
			decided.swap = true
		case FaultDelay:
			decided.delay += f.Delay
		case FaultCorrupt:
			decided.corrupt = append(decided.corrupt, place)
		default: // not of frames
		}
	}
	return decided
}

// newDice makes the dice of a set's faults. The hash is for seeds that are alike.
func newDice(set *faultSet, session int, toward Direction) []*rand.Rand {
	dice := make([]*rand.Rand, len(set.faults))
	for i := range dice {
		seed := binary.BigEndian.AppendUint64(nil, set.seed)
		seed = binary.BigEndian.AppendUint64(seed, uint64(session))
		seed = binary.BigEndian.AppendUint64(seed, uint64(i))
		hash := sha256.Sum256(append(seed, toward...))
		dice[i] = rand.New(rand.NewPCG(binary.BigEndian.Uint64(hash[:]), binary.BigEndian.Uint64(hash[8:])))
	}
	return dice
}

// corrupted gives a copy with bits of the payload inverted: the digest covers
// nothing else, so a receiver could not tell. Of what has no payload, any bit.
func corrupted(message []byte, places []uint64) []byte {
	wrong := bytes.Clone(message)
	payload := wrong
	if len(wrong) > frame.Overhead {
		payload = wrong[frame.Overhead:]
	}
	for _, place := range places {
		if len(payload) > 0 {
			payload[place/8%uint64(len(payload))] ^= 1 << (place % 8)
		}
	}
	return wrong
}

// heldFrame is a frame that is late.
type heldFrame struct {
	message []byte
	delay   time.Duration
	swap    bool // it waits to be overtaken
	due     time.Time
	order   uint64 // of arrival, for those that are due together
}

// heldFrames is a heap of them, the next one first. It implements heap.Interface.
type heldFrames []*heldFrame

func (h heldFrames) Len() int      { return len(h) }
func (h heldFrames) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h heldFrames) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].order < h[j].order
	}
	return h[i].due.Before(h[j].due)
}

// Push implements heap.Interface.
func (h *heldFrames) Push(x any) { *h = append(*h, x.(*heldFrame)) }

// Pop implements heap.Interface.
func (h *heldFrames) Pop() any {
	last := len(*h) - 1
	frame := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return frame
}

// hold keeps a frame until it is due, if there is room. A line that is closed takes
// all and keeps none.
func (l *faultLine) hold(h *heldFrame) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return true
	}
	if len(l.held) > 0 && l.size+len(h.message) > heldLimit {
		return false
	}
	h.order = l.next
	l.next++
	l.size += len(h.message)
	if h.swap {
		l.swapped++
	}
	heap.Push(&l.held, h)
	switch {
	case l.idle == nil:
		l.idle = make(chan struct{})
		l.running.Go(l.release)
	case l.held[0] == h:
		signal(l.wake)
	}
	return true
}

// takeSwapped takes out the frames that wait to be overtaken, in order.
func (l *faultLine) takeSwapped() []*heldFrame {
	var taken []*heldFrame
	for l.swapped > 0 {
		i := slices.IndexFunc(l.held, func(h *heldFrame) bool { return h.swap })
		taken = append(taken, l.remove(i))
	}
	slices.SortFunc(taken, func(a, b *heldFrame) int { return cmp.Compare(a.order, b.order) })
	return taken
}

// remove takes out one frame.
func (l *faultLine) remove(i int) *heldFrame {
	h := heap.Remove(&l.held, i).(*heldFrame)
	l.size -= len(h.message)
	if h.swap {
		l.swapped--
	}
	return h
}

// release hands on what is held when it is due, until nothing is.
func (l *faultLine) release() {
	for {
		h, wait := l.due()
		if h != nil {
			// It was on the way: a leg that is gone loses it, and nobody waits for it.
			_ = l.deliver(l.ctx, h.message)
			continue
		}
		if wait == 0 {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.wake:
		case <-l.ctx.Done():
		}
		timer.Stop()
	}
}

// due takes out the next frame if it is due, or else says how long until it is.
// When nothing is held, or the line is closed, that is zero and the goroutine's end.
func (l *faultLine) due() (*heldFrame, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held) == 0 || l.closed {
		close(l.idle)
		l.idle, l.held, l.size, l.swapped = nil, nil, 0, 0
		signal(l.room)
		return nil, 0
	}
	if wait := time.Until(l.held[0].due); wait > 0 {
		return nil, wait
	}
	signal(l.room)
	return l.remove(0), 0
}

// drain waits until nothing is held, for a while, or until stop is closed.
func (l *faultLine) drain(stop <-chan struct{}) {
	l.mu.Lock()
	idle := l.idle
	l.mu.Unlock()
	if idle == nil {
		return
	}
	select {
	case <-idle:
	case <-stop:
	case <-time.After(heldDrain):
	}
}

// close lets go of what is held, and returns when the goroutine is gone.
func (l *faultLine) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.end()
	l.running.Wait()
}
