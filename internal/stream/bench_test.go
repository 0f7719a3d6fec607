package stream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// The receive path, beside a bare client that only reads and acknowledges. An
// operation is one message of 1024 bytes.

func BenchmarkReceiveBare(b *testing.B) {
	url := startFarEnd(b)
	measure(b, func() {
		conn, _, err := websocket.DefaultDialer.Dial(fmt.Sprintf("%s/?messages=%d", url, b.N), nil)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		if err := conn.WriteMessage(websocket.TextMessage, []byte("{}")); err != nil {
			b.Fatal(err)
		}
		var ack, payload []byte
		for got := 0; ; got++ {
			_, p, err := conn.ReadMessage()
			if err != nil {
				b.Fatal(err)
			}
			m, err := frame.Parse(p)
			if err != nil {
				b.Fatal(err)
			}
			if m.Type == frame.ChannelClosed {
				if got != b.N {
					b.Fatalf("%d messages of %d", got, b.N)
				}
				return
			}
			payload = frame.Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence}.Append(payload[:0])
			answer := frame.Message{Type: frame.Acknowledge, Created: m.Created, Flags: 3, ID: uuid.UUID{}, Payload: payload}
			if ack, err = answer.Append(ack[:0]); err != nil {
				b.Fatal(err)
			}
			if err := conn.WriteMessage(websocket.BinaryMessage, ack); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkReceive(b *testing.B) { benchmarkReceive(b, io.Discard) }

func BenchmarkReceiveIntoPipe(b *testing.B) {
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	cat := exec.Command("cat")
	cat.Stdin = r
	if err := cat.Start(); err != nil {
		b.Fatal(err)
	}
	r.Close()
	benchmarkReceive(b, w)
	w.Close()
	if err := cat.Wait(); err != nil {
		b.Error(err)
	}
}

func benchmarkReceive(b *testing.B, out io.Writer) {
	url := startFarEnd(b)
	measure(b, func() {
		ch := open(b, fmt.Sprintf("%s/?messages=%d", url, b.N), stream.Config{})
		got := 0
		for {
			_, p, err := ch.Recv(b.Context())
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			if _, err := out.Write(p); err != nil {
				b.Fatal(err)
			}
			got += len(p)
		}
		if got != b.N*1024 {
			b.Fatalf("%d bytes of %d", got, b.N*1024)
		}
		if err := ch.Close(); err != nil {
			b.Fatal(err)
		}
	})
}

// measure runs f once for b.N messages of 1024 bytes and reports this process's
// processor time for 100 MB beside the rate.
func measure(b *testing.B, f func()) {
	b.SetBytes(1024)
	b.ReportAllocs()
	before := cpuSeconds()
	b.ResetTimer()
	f()
	b.StopTimer()
	b.ReportMetric((cpuSeconds()-before)*100e6/(float64(b.N)*1024), "cpu-s/100MB")
}

func open(b *testing.B, url string, cfg stream.Config) *stream.Channel {
	cfg.Dial = func(ctx context.Context, _ bool) (stream.Socket, string, error) {
		s, err := stream.DialWebSocket(ctx, url, stream.DialConfig{})
		return s, "token", err
	}
	return stream.Open(b.Context(), cfg)
}

// BenchmarkSend sends and gets back: an operation is one message of 1024 bytes
// in each direction.
func BenchmarkSend(b *testing.B) {
	url := startFarEnd(b)
	ch := open(b, url+"/echo", stream.Config{})
	defer ch.Close()
	if _, err := ch.Started(b.Context()); err != nil {
		b.Fatal(err)
	}
	measure(b, func() {
		sent := make(chan error, 1)
		go func() {
			p := make([]byte, 16<<10)
			for left := b.N * 1024; left > 0; left -= len(p) {
				p = p[:min(len(p), left)]
				if err := ch.Send(b.Context(), frame.Output, p); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		for got := 0; got < b.N*1024; {
			_, p, err := ch.Recv(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			got += len(p)
			if got == 1+b.N*1024 { // the first "$"
				break
			}
		}
		if err := <-sent; err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkEcho is one byte there and back.
func BenchmarkEcho(b *testing.B) {
	url := startFarEnd(b)
	ch := open(b, url+"/echo", stream.Config{})
	defer ch.Close()
	if _, _, err := ch.Recv(b.Context()); err != nil {
		b.Fatal(err)
	}
	before := cpuSeconds()
	b.ReportAllocs()
	for b.Loop() {
		if err := ch.Send(b.Context(), frame.Output, []byte("x")); err != nil {
			b.Fatal(err)
		}
		if _, _, err := ch.Recv(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric((cpuSeconds()-before)*1e6/float64(b.N), "cpu-µs/op")
}
