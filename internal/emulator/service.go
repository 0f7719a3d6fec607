package emulator

import (
	"crypto/sha256"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Where a message's type and digest are (docs/protocol.md, "Messages").
const (
	typeStart, typeEnd     = 4, 36
	digestStart, digestEnd = 80, 80 + sha256.Size
)

// isType tells whether an encoded message is of type t, without parsing it: what
// goes through the gateway goes through unread. The type begins the field and is
// padded; the one client that pads in front is not recognised, only relayed.
func isType(message []byte, t frame.MessageType) bool {
	if len(message) < typeEnd || string(message[typeStart:typeStart+len(t)]) != string(t) {
		return false
	}
	next := message[typeStart+len(t)]
	return next == ' ' || next == 0
}

// serviceMessage encodes a message that the gateway itself originates: with the
// short header, and a type that is padded with NULs. The payload is not empty.
func serviceMessage(t frame.MessageType, payload []byte) []byte {
	m := frame.Message{
		Type:         t,
		Created:      time.Now(),
		ID:           uuid.New(),
		HeaderLength: frame.ShortHeaderLen,
		Payload:      payload,
	}
	b, err := m.Append(nil)
	if err != nil {
		panic("emulator: a message of our own: " + err.Error())
	}
	clear(b[typeStart+len(t) : typeEnd])
	return b
}

// publication encodes start_publication or pause_publication. The service leaves
// their digests empty; AWS's client needs a payload of at least four bytes
// (docs/protocol.md, "Messages of the service").
func publication(t frame.MessageType) []byte {
	b := serviceMessage(t, []byte(t))
	clear(b[digestStart:digestEnd])
	return b
}

// channelClosed encodes the message that ends a session. Output is shown to the
// user.
func channelClosed(sessionID, output string) []byte {
	payload, err := json.Marshal(frame.ChannelClosedPayload{
		MessageType:   string(frame.ChannelClosed),
		MessageID:     uuid.NewString(),
		DestinationID: sessionID,
		SessionID:     sessionID,
		SchemaVersion: 1,
		CreatedDate:   time.Now().UTC().Format(time.RFC3339Nano),
		Output:        output,
	})
	if err != nil {
		panic("emulator: a payload of our own: " + err.Error()) // it is strings and a number
	}
	return serviceMessage(frame.ChannelClosed, payload)
}
