package stream

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// message takes one message. What cannot be read or is of no known type is
// dropped without an acknowledgement, as AWS's client does.
func (l *loop) message(now time.Time, p []byte) {
	m, err := frame.Parse(p)
	if err == nil {
		err = m.Verify()
	}
	if err != nil {
		l.cfg.Log.Debug("message dropped", "type", string(m.Type), "length", len(p), "error", err)
		return
	}
	l.proved(now)
	switch m.Type {
	case frame.OutputStreamData:
		l.snd.resume()
		l.snd.agentSeen = true
		l.noteStray(now, m.Sequence)
		if l.end == nil && l.rcv.accept(&m) {
			l.acknowledge(now, &m)
		}
	case frame.Acknowledge:
		sequence, err := frame.ParseAck(m.Payload)
		if err != nil {
			l.cfg.Log.Debug("message dropped", "type", string(m.Type), "error", err)
			return
		}
		l.snd.acked(now, sequence)
		if l.silentAt.IsZero() {
			l.silentAt = now.Add(silentStart)
		}
	case frame.PausePublication:
		l.cfg.Log.Debug("paused by the service")
		l.cfg.Notify(Notice{Kind: Paused})
		l.snd.pause(now)
	case frame.StartPublication:
		l.snd.resume()
	case frame.ChannelClosed:
		l.channelClosed(m.Payload)
	default:
		l.cfg.Log.Debug("message of unknown type dropped", "type", string(m.Type))
	}
}

// proved notes that the link works: something came over it that the service or
// the agent had to say.
func (l *loop) proved(now time.Time) {
	if l.proven {
		return
	}
	l.proven = true
	if !l.heard {
		l.heard = true
		l.cfg.Notify(Notice{Kind: Heard})
	}
	if !l.lostAt.IsZero() {
		l.resumes++
		l.cfg.Notify(Notice{Kind: Resumed, For: now.Sub(l.lostAt)})
	}
}

func (l *loop) channelClosed(payload []byte) {
	if l.end != nil {
		return
	}
	if l.hand.failed != nil {
		l.end = l.hand.failed // as we asked for
		return
	}
	var p frame.ChannelClosedPayload
	if err := json.Unmarshal(payload, &p); err != nil {
		// It is closed all the same; there is just nothing to tell.
		l.cfg.Log.Debug("channel_closed without a readable payload", "error", err)
	}
	l.end = &Closed{Output: p.Output, Incomplete: l.rcv.gap(), Refused: l.hand.refused}
}

func (l *loop) acknowledge(now time.Time, m *frame.Message) {
	if !l.canAnswer() {
		return
	}
	l.acks[l.ackCount%recentAcks] = acked{m.ID, m.Sequence, now}
	l.ackCount++
	l.ackPayload = frame.Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence}.Append(l.ackPayload[:0])
	ack := frame.Message{
		Type:    frame.Acknowledge,
		Created: now,
		Flags:   frame.FlagSYN | frame.FlagFIN,
		ID:      l.messageID(),
		Payload: l.ackPayload,
	}
	if err := l.pending.AddMessage(&ack); err != nil {
		l.end = fmt.Errorf("acknowledging: %w", err)
	}
}

// acknowledgeAgain repeats on a new link what may have been lost with the old
// one: what was sent shortly before it was last heard of, or after. The agent
// repeats one message each 100 ms, the oldest, so that a few lost
// acknowledgements would else keep it for seconds from what is really missing.
func (l *loop) acknowledgeAgain(now time.Time) {
	since := l.readAt.Add(-ackDoubt)
	begin := max(0, l.ackCount-recentAcks)
	var again []acked
	for i := begin; i < l.ackCount; i++ {
		if a := l.acks[i%recentAcks]; !a.at.Before(since) {
			again = append(again, a)
		}
	}
	l.ackCount = 0
	for _, a := range again {
		l.acknowledge(now, &frame.Message{Type: frame.OutputStreamData, ID: a.id, Sequence: a.sequence})
	}
}

// messageID makes a version 4 UUID from a generator that costs no system call.
func (l *loop) messageID() uuid.UUID {
	var id uuid.UUID
	_, _ = l.ids.Read(id[:]) // never fails (math/rand/v2)
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// deliver takes the messages of the agent in order, each once. The handshake's
// are dispatched here, whether they came in order or out of the early ones.
func (l *loop) deliver(typ frame.PayloadType, payload []byte) {
	switch typ {
	case frame.HandshakeRequest:
		if l.hand.asked || l.started && !l.silent {
			l.cfg.Log.Debug("a second or late handshake request ignored")
			return
		}
		l.request(payload)
	case frame.HandshakeComplete:
		if l.hand.completed || l.started && !l.hand.asked {
			return
		}
		start, err := l.hand.complete(payload)
		if err != nil {
			l.end = err
			return
		}
		if !l.started {
			l.begin(start)
		}
	case frame.EncChallengeRequest:
		if l.ciphers == nil || l.hand.proved || l.hand.completed {
			l.cfg.Log.Debug("an encryption challenge that is not due ignored")
			return
		}
		l.challenge(payload)
	case frame.HandshakeResponse, frame.EncChallengeResponse:
		l.cfg.Log.Debug("unexpected handshake message ignored", "payload type", uint32(typ))
	default:
		if !l.started && !l.hand.asked && typ == frame.Output {
			l.begin(frame.Start{SessionType: frame.StandardStream})
		}
		if l.end != nil {
			return
		}
		payload, ok := l.opened(typ, payload)
		if !ok {
			return
		}
		l.silent = false
		l.reclaim()
		l.rcv.queue(typ, payload)
	}
}

// request takes the agent's request for a handshake.
func (l *loop) request(payload []byte) {
	l.cfg.Notify(Notice{Kind: Asked})
	if err := l.hand.request(payload); err != nil {
		l.end = err
		return
	}
	switch {
	case l.hand.key != nil && l.hand.refused == "":
		l.fetchKey(*l.hand.key)
	case l.hand.key == nil && l.cfg.RequireEncryption:
		l.end = ErrNotEncrypted
	default:
		l.answer(time.Now())
	}
}

// reclaim takes back the chunks that the caller of Recv is done with.
func (l *loop) reclaim() {
	for {
		select {
		case c := <-l.ch.spent:
			l.rcv.reuse(c)
		default:
			return
		}
	}
}

func (l *loop) begin(s frame.Start) {
	if l.cfg.RequireEncryption && l.ciphers == nil {
		l.end = ErrNotEncrypted
		return
	}
	l.started = true
	l.ch.start = s
	close(l.ch.started)
	l.cfg.Notify(Notice{Kind: Began})
}
