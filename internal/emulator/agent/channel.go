package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Times and limits of the data channel (docs/protocol.md, "Constants").
const (
	resendTick    = 100 * time.Millisecond
	drainTime     = 2 * time.Second
	goodbyeTime   = drainTime + time.Second // with the time it takes to kill
	earlyCapacity = 100_000                 // messages
	// earlyBytes bounds what AWS's agent leaves unbounded: the size of early
	// messages. It is room for all of them at the size clients send.
	earlyBytes = 128 << 20
	inboxLen   = 1024 // messages received and not yet processed
)

var (
	errNotReady = errors.New("the program is not there yet")
	errLegLost  = errors.New("the data channel of the agent is lost")
	errClosed   = errors.New("the service closed the data channel")
	errNoKMS    = errors.New("an answer to an encryption challenge that was not sent")
)

// handler processes one message of input. The message is acknowledged unless
// an error is returned; the client repeats it then.
type handler func(t frame.PayloadType, payload []byte) error

// channel is the agent's end of the data channel: sequence numbers,
// acknowledgements and retransmission (docs/protocol.md, "Sequencing").
type channel struct {
	link           context.Context         // the time in which messages may be sent
	cut            context.CancelCauseFunc // ends it
	cancel         context.CancelCauseFunc // cancels the session
	leg            Leg
	log            *slog.Logger
	reacknowledges bool

	inbox     chan frame.Message // input, from receive to process
	responses chan response      // handshake responses, from process to handshake
	confirmed chan response      // answers to the encryption challenge, likewise

	encryption *encryption // nil: none; see there whose it is

	// Owned by process.
	expected  int64
	early     map[int64]frame.Message
	earlySize int
	answered  chan struct{} // closed once the response being processed is acknowledged

	// sending is held while a message is made and written, so that they leave
	// in the order of their numbers. It is taken before mu.
	sending sync.Mutex
	next    int64 // sequence number of the next message of output
	id      uuid.UUID
	control []byte
	payload []byte
	sealed  []byte
	late    lateRequest

	mu      sync.Mutex
	changed *sync.Cond // paused, or whether out is empty
	out     outgoing
	rto     rto
	paused  bool
	opened  bool // the handshake is complete, or there is none
	handler handler
}

// newChannel makes the channel of a session and the context that the session
// runs in: it ends with ctx, on channel_closed, and with the leg. The channel
// itself outlives ctx, for the goodbyes.
func newChannel(ctx context.Context, leg Leg, version string, log *slog.Logger) (c *channel, running context.Context) {
	c = &channel{
		leg:            leg,
		log:            log,
		reacknowledges: since(version, reacknowledging),
		inbox:          make(chan frame.Message, inboxLen),
		responses:      make(chan response),
		confirmed:      make(chan response),
		early:          make(map[int64]frame.Message),
		rto:            newRTO(),
	}
	running, c.cancel = context.WithCancelCause(ctx)
	c.link, c.cut = context.WithCancelCause(context.WithoutCancel(ctx))
	c.changed = sync.NewCond(&c.mu)
	return c, running
}

// handle sets who gets the input. Before that no input is acknowledged.
func (c *channel) handle(h handler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handler = h
}

// open ends the time in which input is acknowledged and thrown away.
func (c *channel) open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = true
}

// fail ends the session because of the leg. AWS's agent would connect anew; a
// leg here is part of the same process and does not come back.
func (c *channel) fail(err error) {
	c.end(fmt.Errorf("%w: %w", errLegLost, err))
}

// end cancels the session and stops all sending. Only the first cause counts.
func (c *channel) end(cause error) {
	c.cancel(cause)
	c.cut(cause)
}

// limit cuts the link some time after the session was cancelled: by then
// everything has been said, or the gateway takes nothing.
func (c *channel) limit(running context.Context) {
	select {
	case <-running.Done():
		if sleep(c.link, goodbyeTime) == nil {
			c.cut(context.Cause(running))
		}
	case <-c.link.Done():
	}
}

// send sends one message of output, encrypted if it is to be. Empty payloads are
// skipped. While publication is paused the message is only recorded.
//
// AWS's agent writes first and records after; an acknowledgement that comes in
// between is lost and the message sent again. On loopback that would happen
// all the time, so here the record comes first.
func (c *channel) send(t frame.PayloadType, payload []byte) error {
	if len(payload) == 0 {
		return nil
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	if c.encryption != nil && hides(t) {
		var err error
		if c.sealed, err = c.encryption.sealOutput(c.sealed[:0], payload); err != nil {
			return fmt.Errorf("encrypt message %d of output: %w", c.next, err)
		}
		payload = c.sealed
	}
	if err := c.sendNext(t, payload); err != nil || !c.late.due(t) {
		return err
	}
	return c.sendNext(frame.HandshakeRequest, c.late.payload)
}

// sendNext sends a payload as it is, as the next message of output. The caller holds
// sending.
func (c *channel) sendNext(t frame.PayloadType, payload []byte) error {
	m := frame.Message{
		Type:        frame.OutputStreamData,
		Created:     time.Now(),
		Sequence:    c.next,
		ID:          c.newID(),
		PayloadType: t,
		Payload:     payload,
	}
	if m.Sequence == 0 {
		m.Flags = frame.FlagSYN
	}
	c.mu.Lock()
	s := c.out.entry()
	c.mu.Unlock()
	var err error
	if s.message, err = m.Append(s.message[:0]); err != nil {
		return fmt.Errorf("encode message %d of output: %w", m.Sequence, err)
	}
	s.sequence, s.at = m.Sequence, m.Created
	c.next++

	c.mu.Lock()
	recorded := c.out.record(s)
	paused := c.paused
	if c.out.front == s {
		c.changed.Broadcast()
	}
	c.mu.Unlock()
	// An acknowledgement may release s from here on; only the holder of
	// sending reuses it.
	if !paused {
		err = c.write(s.message)
	}
	if !recorded {
		c.mu.Lock()
		c.out.release(s)
		c.mu.Unlock()
	}
	return err
}

// acknowledge tells the client that m was taken.
func (c *channel) acknowledge(m *frame.Message) {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.payload = frame.Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence}.Append(c.payload[:0])
	c.writeControl(frame.Acknowledge)
}

// sendState tells the service how the session is.
func (c *channel) sendState(sessionID, state string) {
	payload, err := json.Marshal(frame.AgentSessionStatePayload{
		SchemaVersion: 1, SessionState: state, SessionID: sessionID,
	})
	if err != nil {
		c.log.Error("cannot tell the state of the session", "state", state, "err", err)
		return
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	c.payload = append(c.payload[:0], payload...)
	c.writeControl(frame.AgentSessionState)
}

// writeControl sends c.payload in a message outside the sequence. The caller
// holds sending. A failure has ended the session and is told by it.
func (c *channel) writeControl(t frame.MessageType) {
	m := frame.Message{
		Type:    t,
		Created: time.Now(),
		Flags:   frame.FlagSYN | frame.FlagFIN,
		ID:      c.newID(),
		Payload: c.payload,
	}
	var err error
	if c.control, err = m.Append(c.control[:0]); err != nil {
		c.log.Error("cannot encode a message", "type", t, "err", err)
		return
	}
	if err := c.write(c.control); err != nil {
		c.log.Debug("message not sent", "type", t, "err", err)
	}
}

// newID makes a random id. The caller holds sending. uuid.New would do the same
// with an allocation.
func (c *channel) newID() uuid.UUID {
	rand.Read(c.id[:]) // never fails
	c.id[6] = c.id[6]&0x0f | 0x40
	c.id[8] = c.id[8]&0x3f | 0x80
	return c.id
}

// write passes one message to the leg. The caller holds sending.
func (c *channel) write(message []byte) error {
	if err := context.Cause(c.link); err != nil {
		return err
	}
	err := c.leg.Send(c.link, message)
	if err != nil {
		c.fail(err)
	}
	return err
}

// receive takes messages off the leg until it ends. Input is only queued, so
// that a program that reads nothing cannot keep acknowledgements from being
// processed. AWS's agent does that: its one reader is stuck in the write to
// the pty. The client sees the same, input that is not acknowledged, until the
// queue is full; then this reader is stuck as well.
func (c *channel) receive() {
	for {
		message, err := c.leg.Receive(c.link)
		if err != nil {
			c.fail(err)
			return
		}
		// The digest is not looked at.
		m, err := frame.Parse(message)
		if err == nil && m.Created.UnixMilli() == 0 {
			err = errors.New("message has no date")
		}
		if err != nil {
			c.log.Warn("message dropped", "err", err)
			continue
		}
		switch m.Type {
		case frame.InputStreamData:
			c.pause(false)
			if !c.queue(m) {
				return
			}
		case frame.Acknowledge:
			c.pause(false)
			c.acknowledged(m.Payload)
		case frame.PausePublication:
			c.pause(true)
		case frame.StartPublication:
			c.pause(false)
		case frame.ChannelClosed:
			c.closed(m.Payload)
		default:
			c.log.Warn("message of an unknown type dropped", "type", m.Type)
		}
	}
}

// queue hands a copy of m to process.
func (c *channel) queue(m frame.Message) bool {
	m.Payload = bytes.Clone(m.Payload)
	select {
	case c.inbox <- m:
		return true
	case <-c.link.Done():
		return false
	}
}

// pause sets whether output is held back.
func (c *channel) pause(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused != on {
		c.paused = on
		c.changed.Broadcast()
	}
}

// acknowledged retires the message that payload names.
func (c *channel) acknowledged(payload []byte) {
	sequence, err := frame.ParseAck(payload)
	if err != nil {
		c.log.Warn("acknowledgement dropped", "err", err)
		return
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.out.retire(sequence)
	if !ok {
		return
	}
	c.rto.sample(now.Sub(at))
	if c.out.front == nil {
		c.changed.Broadcast()
	}
}

// closed cancels the session, if payload is what it should be.
func (c *channel) closed(payload []byte) {
	var p frame.ChannelClosedPayload
	if err := json.Unmarshal(payload, &p); err != nil {
		c.log.Warn("channel_closed dropped", "err", err)
		return
	}
	c.cancel(errClosed)
}

// process puts input in order and has it handled, until the link is cut.
func (c *channel) process() {
	for {
		select {
		case m := <-c.inbox:
			c.arrived(m)
		case <-c.link.Done():
			return
		}
	}
}

// arrived takes one message of input, by its place in the sequence.
func (c *channel) arrived(m frame.Message) {
	switch {
	case m.Sequence < c.expected:
		if c.reacknowledges {
			c.acknowledge(&m)
		}
	case m.Sequence > c.expected:
		c.arrivedEarly(m)
	default:
		if !c.deliver(&m) {
			return
		}
		c.acknowledge(&m)
		c.taken()
		c.catchUp()
	}
}

// arrivedEarly keeps m for its turn and acknowledges it at once. Without room
// it is dropped, and the client repeats it.
func (c *channel) arrivedEarly(m frame.Message) {
	if len(c.early) >= earlyCapacity || c.earlySize+len(m.Payload) > earlyBytes {
		return
	}
	c.acknowledge(&m)
	c.earlySize += len(m.Payload) - len(c.early[m.Sequence].Payload)
	c.early[m.Sequence] = m
}

// catchUp delivers the early messages whose turn has come. They have been
// acknowledged: one that fails now is never repeated, and all input stops
// there, in AWS's agent as well.
func (c *channel) catchUp() {
	for {
		m, ok := c.early[c.expected]
		if !ok || !c.deliver(&m) {
			return
		}
		delete(c.early, m.Sequence)
		c.earlySize -= len(m.Payload)
		c.taken()
	}
}

// taken moves on to the next message.
func (c *channel) taken() {
	c.expected++
	if c.answered != nil {
		close(c.answered)
		c.answered = nil
	}
}

// deliver has m handled and tells whether it was. Of input only the program's is
// encrypted.
func (c *channel) deliver(m *frame.Message) bool {
	payload, err := m.Payload, error(nil)
	if c.encryption != nil && m.PayloadType == frame.Output {
		payload, err = c.encryption.open(payload)
	}
	if err == nil {
		err = c.dispatch(m.PayloadType, payload)
	}
	if err != nil {
		c.log.Debug("input not processed", "sequence", m.Sequence, "payload type", m.PayloadType, "err", err)
	}
	return err == nil
}

// dispatch gives a payload to whom it is for.
func (c *channel) dispatch(t frame.PayloadType, payload []byte) error {
	switch t {
	case frame.HandshakeResponse:
		return c.respond(payload)
	case frame.EncChallengeResponse:
		return c.confirm(payload)
	}
	c.mu.Lock()
	opened, handler := c.opened, c.handler
	c.mu.Unlock()
	switch {
	case !opened:
		return nil // acknowledged and thrown away
	case handler == nil:
		return errNotReady
	default:
		return handler(t, payload)
	}
}

// wait waits until ok, which is called with mu held, or for the end of ctx,
// whose cause it returns.
func (c *channel) wait(ctx context.Context, ok func() bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ok() {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})
	defer stop()
	for !ok() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.changed.Wait()
	}
	return nil
}

// active tells whether output may flow.
func (c *channel) active() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.paused
}

// awaitActive waits until output may flow.
func (c *channel) awaitActive(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return c.wait(ctx, func() bool { return !c.paused })
}

// drain waits until all output is acknowledged, for two seconds at most.
func (c *channel) drain() {
	ctx, cancel := context.WithTimeout(c.link, drainTime)
	defer cancel()
	if err := c.wait(ctx, func() bool { return c.out.front == nil }); err != nil {
		c.log.Debug("not all output was acknowledged", "err", err)
	}
}

// resend repeats the front message when its time has come: at every tick that
// one only, without a limit of attempts, not while paused. The backlog of a
// pause drains that way as well, one message a tick. AWS's agent ticks all its
// life; this one only while there is something to repeat.
func (c *channel) resend() {
	due := func() bool { return c.out.front != nil && !c.paused }
	for c.wait(c.link, due) == nil {
		if sleep(c.link, resendTick) != nil {
			return
		}
		c.resendFront()
	}
}

func (c *channel) resendFront() {
	c.sending.Lock()
	defer c.sending.Unlock()
	now := time.Now()
	c.mu.Lock()
	front := c.out.front
	if front == nil || c.paused || now.Sub(front.at) <= c.rto.timeout {
		c.mu.Unlock()
		return
	}
	front.at = now
	c.mu.Unlock()
	if err := c.write(front.message); err != nil {
		c.log.Debug("message not repeated", "err", err)
	}
}
