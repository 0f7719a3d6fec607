package agent

import (
	"bytes"
	"context"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// fastLeg is a leg as fast as the codec: the client at its end acknowledges all
// it gets, in order, and posts what input it is told to.
type fastLeg struct {
	mu      sync.Mutex
	more    *sync.Cond
	waiting []frame.Ack // for Receive to encode
	bytes   int64       // of output
	acked   int64       // messages of input
	toSend  int64       // messages of input

	// Of the goroutine in Receive.
	taken   []frame.Ack
	next    int
	input   frame.Message
	payload []byte
	message []byte
}

func newFastLeg() *fastLeg {
	l := &fastLeg{input: frame.Message{
		Type: frame.InputStreamData, Created: time.Now(), ID: uuid.New(), PayloadType: frame.Output,
		Payload: bytes.Repeat([]byte("input  \n"), payloadSize/8),
	}}
	l.more = sync.NewCond(&l.mu)
	return l
}

func (l *fastLeg) Send(_ context.Context, message []byte) error {
	m, err := frame.Parse(message)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Type == frame.OutputStreamData {
		l.bytes += int64(len(m.Payload))
		l.waiting = append(l.waiting, frame.Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence})
	} else {
		l.acked++
	}
	l.more.Broadcast()
	return nil
}

func (l *fastLeg) Receive(ctx context.Context) ([]byte, error) {
	if l.next == len(l.taken) {
		if post, err := l.wait(ctx); err != nil {
			return nil, err
		} else if post {
			return l.encode(&l.input, l.input.Sequence+1)
		}
	}
	ack := l.taken[l.next]
	l.next++
	l.payload = ack.Append(l.payload[:0])
	m := frame.Message{Type: frame.Acknowledge, Created: l.input.Created, ID: ack.ID, Payload: l.payload}
	return l.encode(&m, 0)
}

// wait waits for acknowledgements to pass on, or tells that input is due.
func (l *fastLeg) wait(ctx context.Context) (post bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.more.Broadcast()
	})()
	for len(l.waiting) == 0 {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if l.input.Sequence < l.toSend && l.input.Sequence-l.acked < 256 {
			return true, nil
		}
		l.more.Wait()
	}
	l.taken, l.waiting, l.next = l.waiting, l.taken[:0], 0
	return false, nil
}

func (l *fastLeg) encode(m *frame.Message, next int64) (b []byte, err error) {
	l.message, err = m.Append(l.message[:0])
	m.Sequence = next
	return l.message, err
}

func benchChannel(b *testing.B, leg Leg) (*channel, func()) {
	c, _ := newChannel(b.Context(), leg, current, slog.New(slog.DiscardHandler))
	c.open()
	var owned sync.WaitGroup
	owned.Go(c.receive)
	owned.Go(c.process)
	owned.Go(c.resend)
	return c, func() {
		c.end(errOver)
		owned.Wait()
	}
}

// BenchmarkOutput is the way of program output: repaired, numbered, recorded,
// sent, acknowledged, retired.
func BenchmarkOutput(b *testing.B) {
	leg := newFastLeg()
	c, stop := benchChannel(b, leg)
	defer stop()
	payload := bytes.Repeat([]byte("output \n"), payloadSize/8)
	b.SetBytes(payloadSize)
	b.ReportAllocs()
	for b.Loop() {
		out, _ := repair(payload)
		if err := c.send(frame.Output, out); err != nil {
			b.Fatal(err)
		}
	}
	c.drain()
}

// BenchmarkInput is the way of input to a program that takes it at once.
func BenchmarkInput(b *testing.B) {
	leg := newFastLeg()
	c, stop := benchChannel(b, leg)
	defer stop()
	total := int64(0)
	c.handle(func(_ frame.PayloadType, p []byte) error { total += int64(len(p)); return nil })
	b.SetBytes(payloadSize)
	b.ReportAllocs()
	b.ResetTimer()
	leg.mu.Lock()
	defer leg.mu.Unlock()
	leg.toSend = int64(b.N)
	leg.more.Broadcast()
	for leg.acked < int64(b.N) {
		leg.more.Wait()
	}
	if want := int64(b.N) * payloadSize; total != want {
		b.Errorf("the program got %d bytes, want %d", total, want)
	}
}

// benchSession runs a command that writes b.N KiB.
func benchSession(b *testing.B, document Document) {
	needPTY(b)
	b.SetBytes(payloadSize)
	b.ReportAllocs()
	leg := newFastLeg()
	result := Run(b.Context(), Config{SessionID: "s", Version: current, Document: document}, leg)
	if result.Status != StatusSuccess {
		b.Fatalf("the session ended with %+v", result)
	}
	if want := int64(b.N) * payloadSize; leg.bytes < want {
		b.Fatalf("%d bytes came, want %d", leg.bytes, want)
	}
}

// BenchmarkPTY is a program's output through a real pty.
func BenchmarkPTY(b *testing.B) {
	benchSession(b, Document{
		SessionType: frame.InteractiveCommands,
		Command:     "stty raw; tr '\\0' x < /dev/zero | head -c " + strconv.Itoa(b.N*payloadSize),
	})
}
