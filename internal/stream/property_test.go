package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
	. "github.com/ssmsession/ssmsession/internal/stream/streamtest"
)

// TestNothingIsLostAndNothingComesTwice drives random bytes both ways over
// sockets that drop, repeat and reorder messages and are cut, against an agent
// that repeats as slowly as the real one: its oldest message, once in 100 ms.
// SOAK=1 tries fifty times as many cases.
func TestNothingIsLostAndNothingComesTwice(t *testing.T) {
	cases := uint64(200)
	if os.Getenv("SOAK") != "" {
		cases *= 50
	}
	for seed := range cases {
		synctest.Test(t, func(t *testing.T) { lossyCase(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func lossyCase(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 7))
	up, down := randomBytes(random), randomBytes(random)
	far := &lossyAgent{
		random:  random,
		chance:  random.Float64() * 0.2,
		fromUs:  make(chan []byte, 1<<12),
		sockets: make(chan *lossySocket, 1),
		late:    make(chan late, 1<<12),
		say:     down,
		early:   map[int64][]byte{},
		want:    len(up),
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	agentDone := make(chan struct{})
	go func() {
		defer close(agentDone)
		far.run(ctx)
	}()
	ch := stream.Open(ctx, stream.Config{
		Window: 1 << (10 + random.IntN(8)),
		Dial:   far.dial,
	})
	sent := make(chan error, 1)
	go func() { sent <- ch.Send(ctx, frame.Output, up) }()
	var got bytes.Buffer
	for {
		_, p, err := ch.Recv(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Errorf("Recv: %v", err)
			break
		}
		got.Write(p)
	}
	if err := <-sent; err != nil {
		t.Errorf("Send: %v", err)
	}
	if err := ch.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	cancel()
	<-agentDone
	if !bytes.Equal(got.Bytes(), down) {
		t.Errorf("of %d bytes down, %d arrived, or others", len(down), got.Len())
	}
	if !bytes.Equal(far.heard, up) {
		t.Errorf("of %d bytes up, %d arrived, or others", len(up), len(far.heard))
	}
}

func randomBytes(r *rand.Rand) []byte {
	b := make([]byte, 1+r.IntN(40_000))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// lossyAgent is the far end. It outlives its sockets.
type lossyAgent struct {
	random  *rand.Rand
	chance  float64 // of each misfortune, for each message
	fromUs  chan []byte
	sockets chan *lossySocket
	socket  *lossySocket
	late    chan late // held back

	say      []byte // what is left to send
	sequence int64
	unacked  [][]byte
	first    int64 // number of unacked[0]
	acked    map[int64]bool

	heard    []byte
	expected int64
	early    map[int64][]byte
	want     int
}

type late struct {
	socket  *lossySocket
	message []byte
}

func (a *lossyAgent) dial(ctx context.Context, _ bool) (stream.Socket, string, error) {
	s := &lossySocket{agent: a, toUs: make(chan []byte, 1<<12), stop: make(chan struct{})}
	select {
	case a.sockets <- s:
		return s, "token", nil
	case <-ctx.Done():
		return nil, "", context.Cause(ctx)
	}
}

func (a *lossyAgent) run(ctx context.Context) {
	a.acked = map[int64]bool{}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	work := time.NewTicker(time.Millisecond)
	defer work.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case a.socket = <-a.sockets:
		case p := <-a.fromUs:
			a.hear(p)
		case l := <-a.late:
			l.socket.deliver(l.message)
		case <-tick.C: // the head only, as the agent does
			if len(a.unacked) > 0 {
				a.send(a.unacked[0])
			}
			if a.socket != nil && a.random.Float64() < a.chance/4 {
				a.socket.cut()
			}
		case <-work.C:
			a.speak()
		}
	}
}

func (a *lossyAgent) speak() {
	switch {
	case len(a.say) > 0:
		n := min(len(a.say), 1+a.random.IntN(1024))
		m := Output(a.sequence, string(a.say[:n]))
		a.say = a.say[n:]
		a.sequence++
		a.unacked = append(a.unacked, m)
		a.send(m)
	case len(a.unacked) == 0 && len(a.heard) == a.want && a.socket != nil:
		a.socket.deliver(ChannelClosed(""))
	}
}

// send loses, repeats and holds back.
func (a *lossyAgent) send(m []byte) {
	if a.socket == nil || a.random.Float64() < a.chance {
		return
	}
	socket := a.socket
	if a.random.Float64() < a.chance {
		time.AfterFunc(time.Duration(a.random.IntN(20))*time.Millisecond, func() { a.late <- late{socket, m} })
		return
	}
	socket.deliver(m)
	if a.random.Float64() < a.chance {
		socket.deliver(m)
	}
}

func (a *lossyAgent) hear(p []byte) {
	m, err := frame.Parse(p)
	if err != nil || a.random.Float64() < a.chance {
		return // the opening frame, or lost
	}
	switch m.Type {
	case frame.Acknowledge:
		if n, err := frame.ParseAck(m.Payload); err == nil {
			a.acked[n] = true
		}
		for len(a.unacked) > 0 && a.acked[a.first] {
			a.unacked = a.unacked[1:]
			a.first++
		}
	case frame.InputStreamData:
		if m.Sequence >= a.expected {
			a.early[m.Sequence] = m.Payload
		}
		for a.early[a.expected] != nil {
			a.heard = append(a.heard, a.early[a.expected]...)
			delete(a.early, a.expected)
			a.expected++
		}
		a.send(Ack(m.Sequence))
	}
}

// lossySocket is one socket to it.
type lossySocket struct {
	agent *lossyAgent
	toUs  chan []byte
	stop  chan struct{}
	ended bool // with the agent's goroutine
}

func (s *lossySocket) cut() {
	if !s.ended {
		s.ended = true
		close(s.toUs)
		s.agent.socket = nil
	}
}

func (s *lossySocket) deliver(p []byte) {
	if s.agent.socket != s {
		return // what was held back for a socket that is gone is lost
	}
	select {
	case s.toUs <- p:
	default: // and so is what its buffer does not hold
	}
}

func (s *lossySocket) Receive(deliver func(*frame.Batch) *frame.Batch) error {
	b := deliver(nil)
	for b != nil {
		select {
		case p, ok := <-s.toUs:
			if !ok {
				return fmt.Errorf("cut")
			}
			b.Add(frame.Binary, p)
			b = deliver(b)
		case <-s.stop:
			return io.ErrClosedPipe
		}
	}
	return io.ErrClosedPipe
}

func (s *lossySocket) Send(b *frame.Batch) error {
	for i := range b.Len() {
		_, p := b.Message(i)
		select {
		case s.agent.fromUs <- bytes.Clone(p):
		case <-s.stop:
			return io.ErrClosedPipe
		}
	}
	return nil
}

func (s *lossySocket) Close() error {
	close(s.stop)
	return nil
}
