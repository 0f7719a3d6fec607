package frame

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"

	"github.com/google/uuid"
)

// The golden vectors of docs/protocol.md, "Vectors": produced by AWS's own
// serialisers. The long ones are given by their SHA-256.

const (
	vectorTime = 1503434274948 // milliseconds
	dataID     = "dd01e56b-ff48-483e-a508-b5f073f31b16"
	ackIDText  = "812ef34f-87bd-449e-a3de-282f478ba6e6"
)

func vectors() []vector {
	at := time.UnixMilli(vectorTime)
	id := uuid.MustParse(dataID)
	return []vector{
		{
			name:    "V1 keys",
			message: Message{Type: InputStreamData, Created: at, Sequence: 7, ID: id, PayloadType: Output, Payload: []byte("ls\r")},
			hex: "00000074696e7075745f73747265616d5f64617461202020202020202020202020202020000000010000015e0baa7884000000000000000700000000" +
				"00000000a508b5f073f31b16dd01e56bff48483e1d887ce0f8672e4914d9000e801cd74ecd805dd9366c0bc42dc16adc0197dc2f00000001000000036c730d",
			length: 123,
			sum:    "445be6f6a5f8c7c536050c86b6b35c5439b47558fb77bf6c65fa856fb6d881b2",
		},
		{
			name: "V2 acknowledgement",
			message: Message{Type: Acknowledge, Created: at, Flags: FlagSYN | FlagFIN, ID: uuid.MustParse(ackIDText),
				Payload: Ack{Type: OutputStreamData, ID: id, Sequence: 42}.Append(nil)},
			length: 297,
			sum:    "eb9eaeb08e7c97a492b9ac8e30d27534917b5a99d8994feb5816c4590b1a4afc",
		},
		{
			name: "V3 size",
			message: Message{Type: InputStreamData, Created: at, ID: id, PayloadType: Size,
				Payload: marshal(TerminalSize{Cols: 80, Rows: 24})},
			length: 141,
			sum:    "141ccbc181a2e17fb4d396b54c22788360a3c6c6ad87863c73d3fc1e4e68213f",
		},
		{
			name: "V4 handshake response",
			message: Message{Type: InputStreamData, Created: at, ID: id, PayloadType: HandshakeResponse,
				Payload: marshal(HandshakeResponsePayload{
					ClientVersion:          "1.2.0.0",
					ProcessedClientActions: []ProcessedAction{{ActionType: ActionSessionType, ActionStatus: ActionSuccess}},
				})},
			length: 265,
			sum:    "56426d0ee086569deb0937809df882e99d2b53e4c4901d98b466432d16024e6e",
		},
		{
			name: "V5 terminate flag",
			message: Message{Type: InputStreamData, Created: at, Sequence: 9, ID: id, PayloadType: Flag,
				Payload: TerminateSession.Append(nil)},
			hex: "00000074696e7075745f73747265616d5f64617461202020202020202020202020202020000000010000015e0baa7884000000000000000900000000" +
				"00000000a508b5f073f31b16dd01e56bff48483e433ebf5bc03dffa38536673207a21281612cef5faa9bc7a4d5b9be2fdb12cf1a0000000a0000000400000002",
			length: 124,
		},
		{
			name: "V6 handshake request",
			message: Message{Type: OutputStreamData, Created: at, Flags: FlagSYN, ID: id, PayloadType: HandshakeRequest,
				Payload: []byte(`{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":` +
					`{"SessionType":"Port","Properties":{"localPortNumber":"0","portNumber":"80","type":"LocalPortForwarding"}}}]}`)},
			length: 328,
			sum:    "6048eb4740235318ba6428a59ae6e681ded6b7952f12ea4c72c8921d7babbcf2",
		},
		{
			name: "V7 handshake complete",
			message: Message{Type: OutputStreamData, Created: at, Sequence: 1, ID: id, PayloadType: HandshakeComplete,
				Payload: marshal(HandshakeCompletePayload{HandshakeTimeToComplete: 1234567})},
			hex: "000000746f75747075745f73747265616d5f646174612020202020202020202020202020000000010000015e0baa7884000000000000000100000000" +
				"00000000a508b5f073f31b16dd01e56bff48483ea75a09c1c0bc3079ca69a3863f1bc537c7a182f1c07242f32001da9a40929b400000000700000038" +
				"7b2248616e647368616b6554696d65546f436f6d706c657465223a313233343536372c22437573746f6d65724d657373616765223a22227d",
			length: 176,
		},
	}
}

type vector struct {
	name    string
	message Message
	hex     string // whole, where it is short
	length  int
	sum     string // SHA-256 of the whole
}

func TestVectors(t *testing.T) {
	for _, v := range vectors() {
		t.Run(v.name, func(t *testing.T) {
			wire, err := v.message.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(wire) != v.length {
				t.Errorf("it is %d bytes long, not %d", len(wire), v.length)
			}
			if v.hex != "" && hex.EncodeToString(wire) != v.hex {
				t.Errorf("the bytes differ:\n got %x\nwant %s", wire, v.hex)
			}
			if sum := sha256.Sum256(wire); v.sum != "" && hex.EncodeToString(sum[:]) != v.sum {
				t.Errorf("its SHA-256 is %x, not %s", sum, v.sum)
			}
			back, err := Parse(wire)
			if err != nil {
				t.Fatal(err)
			}
			if err := back.Verify(); err != nil {
				t.Error(err)
			}
			want := v.message
			if back.Type != want.Type || !back.Created.Equal(want.Created) || back.Sequence != want.Sequence ||
				back.Flags != want.Flags || back.ID != want.ID || back.PayloadType != want.PayloadType ||
				!bytes.Equal(back.Payload, want.Payload) || back.HeaderLength != HeaderLen {
				t.Errorf("it reads back as %+v", back)
			}
		})
	}
}

// V8 is what the service sends: a short header, NUL padding, no digest.
const v8 = "0000007073746172745f7075626c69636174696f6e000000000000000000000000000000000000010000015e0baa7884000000000000000000000000" +
	"00000000a508b5f073f31b16dd01e56bff48483e00000000000000000000000000000000000000000000000000000000000000000000001173746172745f7075626c69636174696f6e"

func TestShortHeaderVector(t *testing.T) {
	wire, err := hex.DecodeString(v8)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(wire)
	if err != nil {
		t.Fatal(err)
	}
	if m.Type != StartPublication || m.HeaderLength != ShortHeaderLen || m.PayloadType != NoPayloadType ||
		string(m.Payload) != "start_publication" || m.ID.String() != dataID {
		t.Errorf("V8 reads as %+v", m)
	}
	if err := m.Verify(); err != nil {
		t.Errorf("the digest of a publication message is not to be checked: %v", err)
	}
}
