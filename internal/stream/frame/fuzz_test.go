package frame

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"testing"
)

// FuzzParse: whatever comes, no panic; what parses keeps its payload within the
// input, and what we would send reads back as it was.
func FuzzParse(f *testing.F) {
	for _, v := range vectors() {
		wire, err := v.message.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
		f.Add(wire[:len(wire)/2])
	}
	short, err := hex.DecodeString(v8)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(short)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		if len(m.Payload) != len(b)-m.HeaderLength-4 {
			t.Fatalf("a payload of %d bytes from %d", len(m.Payload), len(b))
		}
		verified := m.Verify() // must not panic either
		again, err := m.Append(nil)
		if err != nil {
			return // empty
		}
		back, err := Parse(again)
		if err != nil {
			t.Fatalf("what was parsed and written does not parse: %v", err)
		}
		if back.Type != m.Type || back.Sequence != m.Sequence || back.Flags != m.Flags || back.ID != m.ID ||
			back.PayloadType != m.PayloadType || back.Created.UnixMilli() != m.Created.UnixMilli() || !bytes.Equal(back.Payload, m.Payload) {
			t.Fatalf("%+v became %+v", m, back)
		}
		if err := back.Verify(); err != nil {
			t.Fatalf("our own digest is wrong (it was: %v)", verified)
		}
	})
}

// FuzzParseAck: the hand-written reader agrees with the JSON one.
func FuzzParseAck(f *testing.F) {
	f.Add(Ack{Type: OutputStreamData, Sequence: 42}.Append(nil))
	f.Add([]byte(`{"AcknowledgedMessageSequenceNumber": 1}`))
	f.Add([]byte(`{"AcknowledgedMessageType":"","AcknowledgedMessageSequenceNumber":1,"AcknowledgedMessageSequenceNumber":2,"IsSequentialMessage":true}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		got, err := ParseAck(p)
		if err != nil {
			return
		}
		var v struct {
			AcknowledgedMessageSequenceNumber *int64
		}
		if json.Unmarshal(p, &v) != nil || v.AcknowledgedMessageSequenceNumber == nil {
			t.Fatalf("%q is read as %d, and is not an acknowledgement", p, got)
		}
		if *v.AcknowledgedMessageSequenceNumber != got {
			t.Fatalf("%q is read as %d, not %d", p, got, *v.AcknowledgedMessageSequenceNumber)
		}
	})
}

// FuzzPayloads: the small decoders never panic, and what they write they read.
func FuzzPayloads(f *testing.F) {
	f.Add([]byte("EXIT_CODE: 7"))
	f.Add([]byte{0, 0, 0, 2})
	f.Add([]byte(`{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port"}}]}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		if code, err := ParseExitCode(p); err == nil {
			if again, err := ParseExitCode(AppendExitCode(nil, code)); err != nil || again != code {
				t.Fatalf("exit code %d became %d, %v", code, again, err)
			}
		}
		if flag, err := ParseFlag(p); err == nil && !bytes.Equal(flag.Append(nil), p) {
			t.Fatalf("flag %x became %x", p, flag.Append(nil))
		}
		var request HandshakeRequestPayload
		var closed ChannelClosedPayload
		// Any error will do; a panic will not.
		_ = json.Unmarshal(p, &request)
		_ = json.Unmarshal(p, &closed)
	})
}
