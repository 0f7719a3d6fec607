package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	crand "crypto/rand"

	"github.com/google/uuid"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// loop owns all state of a Channel. Its methods run on one goroutine.
type loop struct {
	ch  *Channel
	cfg Config

	snd     *sender
	rcv     *receiver
	hand    handshake
	ciphers *ciphers // nil where nothing is encrypted

	dialCtx context.Context // of what this has others do: to dial, to fetch a key
	keyed   chan keyed      // nil while no data key is fetched
	given   int64           // pieces that came from Send

	link    *link
	pending *frame.Batch // what goes to the socket next; not nil while there is a link
	spare   *frame.Batch // empty, the next pending; nil while it is with the writer, or in done
	muteAt  time.Time    // when the writer failed; zero while it works
	pingAt  time.Time    // when to ping next
	asked   *ping        // by Alive, and not yet answered; nil for none
	dialed  chan dialed  // nil while no dial is under way
	tries   int          // dials since a link was of use, for the backoff
	linkAt  time.Time    // when there was a link last
	before  int64        // what progress was then
	proven  bool         // the link works
	lostAt  time.Time    // when the last link that had worked has ended, or the first; zero before
	redials int          // since then
	lastErr error        // why the last attempt failed

	failedAt   time.Time // when the handshake was answered with a refusal of our own
	heard      bool      // something has come from the far end
	strayAt    time.Time // when it first spoke from the middle of a session; zero before
	crowdedAt  time.Time // when our reader last was what the socket waited for
	unanswered bool      // the agent leaves something unacknowledged, and was told of
	started    bool
	probeAt    time.Time // when to ask whether somebody is there
	silent     bool      // it was taken to have begun, and nothing has come yet
	silentAt   time.Time // when a silent session has begun; zero before an acknowledgement
	flushing   time.Time // when Close was called; zero before
	end        error     // why the Channel is over; what is kept is still read
	endTold    bool      // Ending is closed
	readAt     time.Time // when the socket was last read
	turnAt     time.Time // when the loop last turned
	wakeAt     time.Time // when its timer was to wake it

	clientID uuid.UUID
	ids      *rand.ChaCha8
	resumes  int64
	bytesOut int64

	ackPayload []byte // reused
	acks       [recentAcks]acked
	ackCount   int // of all so far
}

// acked is an acknowledgement that was sent.
type acked struct {
	id       uuid.UUID
	sequence int64
	at       time.Time
}

type dialed struct {
	sock  Socket
	token string
	err   error
}

// drop closes the socket, if there is one: it was never used.
func (d dialed) drop() {
	if d.sock != nil {
		_ = d.sock.Close()
	}
}

func newLoop(c *Channel) *loop {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails (crypto/rand)
	l := &loop{
		ch:       c,
		cfg:      c.cfg,
		snd:      newSender(c.cfg.Window, c.cfg.Rate),
		rcv:      newReceiver(),
		hand:     handshake{clientVersion: c.cfg.ClientVersion, encrypts: c.cfg.DataKey != nil},
		clientID: uuid.New(),
		ids:      rand.NewChaCha8(seed),
	}
	l.rcv.deliver = l.deliver
	return l
}

// run is the loop. It returns why the Channel ended, once every goroutine that
// it started is gone and everything kept was read, or nobody will read it.
func (l *loop) run(ctx context.Context) error {
	var stop func()
	l.dialCtx, stop = context.WithCancel(ctx)
	defer l.teardown(stop)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	flush := l.ch.flush
	l.dial()
	for {
		now := time.Now()
		l.noticeSleep(now)
		if err := l.dead(now); err != nil {
			l.unlink(now, err)
			l.dial()
		}
		l.watchStart(now)
		if l.over(now) {
			return l.end
		}
		l.watchAnswers(now)
		var (
			in, done <-chan *frame.Batch
			out      chan<- *frame.Batch
			lost     <-chan error
			mute     <-chan error
			write    <-chan *piece
			read     chan<- *chunk
		)
		if l.link != nil {
			lost, mute = l.link.lost, l.link.mute
			if !l.flushing.IsZero() {
				done = l.link.done
			}
			l.fill(now)
			if !now.Before(l.holdUntil()) {
				in = l.link.in
			}
			if l.pending.Len() > 0 && l.muteAt.IsZero() {
				out = l.link.out
			}
		}
		if l.accepting() {
			write = l.ch.write
		}
		head := l.rcv.head()
		if head != nil {
			read = l.ch.read
		}
		l.arm(timer, now)
		l.ch.settled.Store(l.settled())

		select {
		case b := <-in:
			l.handle(time.Now(), b)
		case p := <-write:
			l.push(p)
		case out <- l.pending:
			l.swap()
		case l.spare = <-done:
			l.spare.Reset(keepBuffer)
		case read <- head:
			if l.rcv.crowded() {
				l.crowdedAt = time.Now()
			}
			l.rcv.pop()
		case err := <-lost:
			l.unlink(time.Now(), err)
			l.dial()
		case err := <-mute:
			l.muteAt, l.lastErr = time.Now(), err
		case d := <-l.dialed:
			l.adopt(time.Now(), d)
			if l.link == nil {
				l.dial()
			}
		case k := <-l.keyed:
			l.takeKey(time.Now(), k)
		case l.asked = <-l.ch.pings:
			l.ask()
		case <-flush:
			flush = nil
			l.flushing = time.Now()
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// settled is how many pieces are acknowledged, with all before them; -1 without a link.
func (l *loop) settled() int64 {
	oldest := l.snd.oldest()
	switch {
	case l.link == nil:
		return -1
	case oldest == nil:
		return l.given
	}
	return oldest.behind
}

// over tells whether the Channel has ended and nothing is left to read, or
// nobody to read it.
func (l *loop) over(now time.Time) bool {
	closing := !l.flushing.IsZero()
	if l.end == nil {
		l.end = l.lost(now)
	}
	if l.end == nil && closing &&
		(l.link == nil || l.snd.empty() && l.written() || !now.Before(l.flushing.Add(flushGrace))) {
		l.end = ErrClosed
	}
	if l.end != nil {
		l.tellEnd()
	}
	return l.end != nil && (closing || l.rcv.head() == nil)
}

// tellEnd tells those who have stopped reading that there is an end.
func (l *loop) tellEnd() {
	if !l.endTold {
		l.endTold = true
		close(l.ch.ending)
	}
}

// lost tells why the session cannot be carried on, nil while it can.
func (l *loop) lost(now time.Time) error {
	if since := l.unansweredSince(); l.link != nil && !since.IsZero() && now.Sub(since) >= l.cfg.GiveUp {
		return fmt.Errorf("%w: the target has not answered for %s", ErrLost, l.cfg.GiveUp)
	}
	if fail := l.failDeadline(); !fail.IsZero() && !now.Before(fail) {
		return l.hand.failed
	}
	if stray := l.strayDeadline(); !stray.IsZero() && !now.Before(stray) {
		return ErrBegunElsewhere
	}
	if l.link != nil || l.lostAt.IsZero() {
		return nil
	}
	if l.cfg.NoRedial {
		return fmt.Errorf("%w: %w", ErrLost, l.lastErr)
	}
	if l.cfg.RedialFor > 0 && now.Sub(l.lostAt) >= l.cfg.RedialFor {
		return fmt.Errorf("%w: no connection for %s: %w", ErrLost, l.cfg.RedialFor, l.lastErr)
	}
	return nil
}

// written tells whether nothing is with the writer or waits for it.
func (l *loop) written() bool { return l.spare != nil && l.pending.Len() == 0 }

// swap replaces the batch that the writer has just taken. There are two, and the
// writer gives one back before it takes the other, so this never waits.
func (l *loop) swap() {
	if l.spare == nil {
		l.spare = <-l.link.done
		l.spare.Reset(keepBuffer)
	}
	l.pending, l.spare = l.spare, nil
}

// deadAt is when the link has to be given up although its reader has not ended,
// zero for never: the socket takes nothing more, or has been silent for too long.
// Not while we are the ones who leave the socket unread.
func (l *loop) deadAt() (at time.Time) {
	if l.link == nil || l.rcv.crowded() {
		return at
	}
	if !l.muteAt.IsZero() {
		at = l.muteAt.Add(muteGrace)
	}
	if limit := l.silence(); limit > 0 {
		at = earlier(at, l.readAt.Add(limit))
	}
	return at
}

// dead tells why the link has to be given up, nil while it need not be.
func (l *loop) dead(now time.Time) error {
	at := l.deadAt()
	switch {
	case at.IsZero() || now.Before(at):
		return nil
	case !l.muteAt.IsZero():
		return l.lastErr
	}
	return fmt.Errorf("nothing heard for %s", l.silence())
}

// silence is how long a link may give nothing, zero for ever.
func (l *loop) silence() time.Duration {
	return time.Duration(l.cfg.AliveCount) * max(0, l.cfg.AliveInterval)
}

// accepting tells whether a Send may hand over a piece.
func (l *loop) accepting() bool {
	return l.end == nil && l.flushing.IsZero() && !l.hand.underway() &&
		l.snd.room() >= min(sendPiece, l.cfg.Window, l.snd.window)
}

// arm sets the one timer to the earliest deadline of the parts. None may have passed
// and stay: the loop would turn without end.
func (l *loop) arm(timer *time.Timer, now time.Time) {
	next := l.deadAt()
	if hold := l.holdUntil(); now.Before(hold) {
		next = earlier(next, hold)
	}
	if l.link != nil && l.cfg.AliveInterval > 0 {
		next = earlier(next, l.pingAt)
	}
	if !l.flushing.IsZero() {
		next = earlier(next, l.flushing.Add(flushGrace))
	}
	if l.end == nil {
		next = earlier(next, l.openDeadline(now))
	}
	l.wakeAt = next
	if next.IsZero() {
		timer.Stop()
		return
	}
	timer.Reset(next.Sub(now))
}

// openDeadline is that of what is done until there is an end. While a batch waits to
// be written, what is in it has no deadline.
func (l *loop) openDeadline(now time.Time) time.Time {
	next := earlier(l.startDeadline(), earlier(l.strayDeadline(), l.failDeadline()))
	if l.link == nil {
		if !l.lostAt.IsZero() && l.cfg.RedialFor > 0 {
			next = earlier(next, l.lostAt.Add(l.cfg.RedialFor))
		}
		return next
	}
	if l.pending.Len() == 0 {
		next = earlier(next, l.snd.deadline(now))
	}
	if since := l.unansweredSince(); !since.IsZero() {
		next = earlier(next, since.Add(l.cfg.GiveUp))
		if !l.unanswered {
			next = earlier(next, since.Add(unansweredAfter))
		}
	}
	return next
}

// fill adds to the pending batch what the sender has due, and a ping when it is
// time for one. Pings prove only the service, never the agent.
func (l *loop) fill(now time.Time) {
	if l.cfg.AliveInterval > 0 && !now.Before(l.pingAt) {
		l.pingAt = now.Add(l.cfg.AliveInterval)
		if l.canAnswer() {
			l.pending.Add(frame.Ping, []byte("keepalive"))
		}
	}
	if l.end == nil {
		l.snd.fill(now, l.pending)
	}
}

// errNoLink is what Alive is told where there is none.
var errNoLink = errors.New("there is no connection")

// ask sends the ping of an Alive.
func (l *loop) ask() {
	if l.link == nil {
		l.answerAlive(errNoLink)
		return
	}
	l.pending.Add(frame.Ping, l.asked.payload)
}

// answerAlive answers the Alive that waits, if one does.
func (l *loop) answerAlive(err error) {
	if l.asked != nil {
		l.asked.answered <- err
		l.asked = nil
	}
}

// dial begins one attempt to get a link, unless the session is over.
func (l *loop) dial() {
	if l.end != nil || l.cfg.NoRedial && !l.lostAt.IsZero() {
		return
	}
	wait, resume := backoff(l.tries), !l.lostAt.IsZero()
	l.tries++
	if resume {
		l.redials++
		l.cfg.Notify(Notice{Kind: Reconnecting, Attempt: l.redials, For: time.Since(l.lostAt), Err: l.lastErr})
	}
	result := make(chan dialed, 1)
	l.dialed = result
	ctx := l.dialCtx
	go func() {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			result <- dialed{err: context.Cause(ctx)}
			return
		}
		result <- l.connect(ctx, resume)
	}()
}

// errAttempt ends an attempt to reconnect that takes too long.
var errAttempt = errors.New("no answer")

// connect is one attempt.
func (l *loop) connect(ctx context.Context, resume bool) (d dialed) {
	defer crash.Catch(&d.err)
	if resume {
		// One that hangs, on a route that is gone, must not keep the next from
		// being tried.
		whole := ctx
		limited, cancel := context.WithTimeoutCause(ctx, attemptLimit, errAttempt)
		defer cancel()
		defer func() {
			if d.err != nil && limited.Err() != nil && whole.Err() == nil {
				d.err = errAttempt // not what its parts make of it: the next may work
			}
		}()
		ctx = limited
	}
	d.sock, d.token, d.err = l.cfg.Dial(ctx, resume)
	return d
}

// adopt makes a dialled socket the link, or notes why there is none. Whoever waits
// for a session wants to hear soon that there will be none.
func (l *loop) adopt(now time.Time, d dialed) {
	l.dialed = nil
	switch first := l.lostAt.IsZero(); {
	case l.end != nil: // it was given up meanwhile
		d.drop()
		return
	case d.err != nil && (permanent(d.err) || first && (l.tries >= firstDials || !passing(d.err))):
		l.end = d.err
		return
	case d.err != nil:
		l.lastErr = d.err
		l.cfg.Log.Debug("dialling failed", "attempt", l.tries, "error", d.err)
		return
	}
	open, err := json.Marshal(frame.OpenDataChannel{
		MessageSchemaVersion: "1.0",
		RequestID:            uuid.NewString(),
		TokenValue:           d.token,
		ClientID:             l.clientID.String(),
		ClientVersion:        l.cfg.ClientVersion,
	})
	if err != nil {
		l.end = fmt.Errorf("opening the data channel: %w", err)
		d.drop()
		return
	}
	l.link, l.linkAt, l.before = newLink(d.sock), now, l.progress()
	// Two batches: one fills while the other is written.
	l.pending, l.spare = &frame.Batch{}, &frame.Batch{}
	l.pending.Add(frame.Text, open)
	l.acknowledgeAgain(now)
	l.muteAt, l.readAt, l.pingAt = time.Time{}, now, now.Add(l.cfg.AliveInterval)
	l.probeAt = now.Add(probeAfter)
	l.snd.relink()
	l.cfg.Log.Debug("data channel open", "resumes", l.resumes)
}

// unlink ends the link. That is not the end of the Channel.
func (l *loop) unlink(now time.Time, why error) {
	l.link.close()
	l.link, l.pending, l.spare = nil, nil, nil
	l.answerAlive(why)
	l.lastErr = why
	if l.progress() > l.before || now.Sub(l.linkAt) >= usefulAfter {
		l.tries = 0
	}
	if l.proven || l.lostAt.IsZero() {
		l.proven, l.lostAt, l.redials = false, now, 0
	}
	if permanent(why) && l.end == nil {
		l.end = why
	}
	l.cfg.Log.Debug("connection lost", "error", why)
}

// progress grows with what has come in order and with what is acknowledged. A link
// over which it has not is dialled anew ever more seldom: the far end that drops it
// may do so because of what is sent over it.
func (l *loop) progress() int64 {
	return l.rcv.expected + l.snd.next - int64(len(l.snd.open))
}

// teardown leaves no goroutine behind.
func (l *loop) teardown(stop func()) {
	stop()
	l.ciphers = nil
	if l.keyed != nil {
		k := <-l.keyed
		k.key.Plaintext.wipe()
	}
	if l.dialed != nil {
		d := <-l.dialed
		d.drop()
	}
	if l.link != nil {
		l.link.close()
	}
}

// handle takes one batch from the socket.
func (l *loop) handle(now time.Time, b *frame.Batch) {
	for i := range b.Len() {
		kind, p := b.Message(i)
		switch kind {
		case frame.Ping:
			if l.canAnswer() {
				l.pending.Add(frame.Pong, p)
			}
		case frame.Pong:
			if l.asked != nil && bytes.Equal(p, l.asked.payload) {
				l.answerAlive(nil)
			}
		default:
			l.message(now, p)
		}
	}
	l.readAt = now
	l.link.free <- b
}

// holdUntil is until when the socket is left unread, so that the far end feels
// what is slow here as TCP lets it feel it: a caller that does not read, or
// acknowledgements that do not get out. Not for ever: the service's own words
// are to be heard, and two ends that each wait for the other to read would never
// move again.
func (l *loop) holdUntil() time.Time {
	switch {
	case l.link == nil:
		return time.Time{}
	case l.rcv.crowded() && l.flushing.IsZero(): // at the end it is acknowledgements that count
		return l.readAt.Add(crowdedRead)
	case l.pending.Size() >= backlog:
		return l.readAt.Add(backlogRead)
	}
	return time.Time{}
}

// canAnswer tells whether the pending batch has room for an acknowledgement or
// a pong. When it has not they are left out: the agent repeats what is not
// acknowledged.
func (l *loop) canAnswer() bool {
	return l.pending.Size() < backlogLimit
}

// push numbers what a Send handed over.
func (l *loop) push(p *piece) {
	limit, seal := maxPayload, l.ciphers != nil && p.typ == frame.Output
	if seal {
		limit -= sealOverhead
	}
	for b := p.buf; len(b) > 0; {
		n := min(limit, len(b))
		payload := b[:n]
		if seal {
			payload = l.ciphers.seal(payload)
		}
		if err := l.number(p.typ, payload); err != nil {
			l.end = err
			break
		}
		l.bytesOut += int64(n)
		b = b[n:]
	}
	l.given++
	l.ch.pieces.Put(p)
}

// number gives one input message its number and queues it.
func (l *loop) number(typ frame.PayloadType, payload []byte) error {
	err := l.snd.push(len(payload), l.given, func(wire []byte, sequence int64) ([]byte, error) {
		m := frame.Message{
			Type:        frame.InputStreamData,
			Created:     time.Now(),
			Sequence:    sequence,
			ID:          l.messageID(),
			PayloadType: typ,
			Payload:     payload,
		}
		return m.Append(wire)
	})
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}

func (l *loop) stats() Stats {
	rtt := l.snd.srtt
	if !l.snd.sampled {
		rtt = 0
	}
	return Stats{
		BytesIn: l.rcv.bytes, BytesOut: l.bytesOut,
		RoundTrip:       rtt,
		Retransmissions: l.snd.retransmissions,
		Resumes:         l.resumes,
	}
}
