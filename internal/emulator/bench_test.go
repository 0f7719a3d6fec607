package emulator

import (
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"
)

// BenchmarkToClient is the rate at which a client that only reads gets output
// messages of 1024 bytes through the gateway.
func BenchmarkToClient(b *testing.B) {
	var sent atomic.Int64
	s := startWith(b, Config{}, flood(&sent))
	p := connect(b, s, mustStart(b, s, `{"Target":"local"}`))
	if _, err := p.receive(); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 2048)
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		_, r, err := p.conn.NextReader()
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = r.Read(buf)
		}
	}
}

// BenchmarkToAgent is the rate at which input messages of 1024 bytes go to the
// agent.
func BenchmarkToAgent(b *testing.B) {
	s := startWith(b, Config{}, discard)
	p := connect(b, s, mustStart(b, s, `{"Target":"local"}`))
	m := inputMessage(0, 1, make([]byte, 1024))
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.conn.WriteMessage(websocket.BinaryMessage, m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRoundTrip is a keystroke there and its echo back, through the gateway.
func BenchmarkRoundTrip(b *testing.B) {
	s := startWith(b, Config{}, echo)
	p := connect(b, s, mustStart(b, s, `{"Target":"local"}`))
	p.wantOutput("<start_publication>")
	m := inputMessage(0, 1, []byte("x"))
	for b.Loop() {
		if err := p.conn.WriteMessage(websocket.BinaryMessage, m); err != nil {
			b.Fatal(err)
		}
		if _, _, err := p.conn.ReadMessage(); err != nil {
			b.Fatal(err)
		}
	}
}
