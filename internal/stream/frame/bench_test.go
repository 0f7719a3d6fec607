package frame

import (
	"testing"
	"time"

	"github.com/google/uuid"
)

func benchMessage() Message {
	return Message{Type: OutputStreamData, Created: time.Now(), Sequence: 1, ID: uuid.New(), PayloadType: Output, Payload: make([]byte, 1024)}
}

func BenchmarkEncode(b *testing.B) {
	m, buf := benchMessage(), make([]byte, 0, 2048)
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Append(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeAndVerify(b *testing.B) {
	m := benchMessage()
	wire, err := m.Append(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		got, err := Parse(wire)
		if err == nil {
			err = got.Verify()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAcknowledge(b *testing.B) {
	m, payload, buf := benchMessage(), make([]byte, 0, 256), make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		payload = Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence}.Append(payload[:0])
		ack := Message{Type: Acknowledge, Created: m.Created, Flags: FlagSYN | FlagFIN, ID: m.ID, Payload: payload}
		if _, err := ack.Append(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseAck(b *testing.B) {
	p := Ack{Type: OutputStreamData, ID: uuid.New(), Sequence: 123456}.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseAck(p); err != nil {
			b.Fatal(err)
		}
	}
}
