// Package frame is the codec of the data channel: the binary AgentMessage that
// every websocket message carries after the first, and the JSON payloads inside
// it. See docs/protocol.md, "Messages".
//
// It knows bytes and nothing else: no socket, no clock, no sequence rules. Both
// ends use it, the client in internal/stream and the emulated service in
// internal/emulator; it is the only code those two share.
package frame

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// MessageType says what a message is for. On the wire it is 32 bytes of ASCII,
// padded; a type that is not listed here is carried as it came.
type MessageType string

// The message types of a data channel (docs/protocol.md, "Message types").
const (
	InputStreamData   MessageType = "input_stream_data"  // client to agent, sequenced
	OutputStreamData  MessageType = "output_stream_data" // agent to client, sequenced
	Acknowledge       MessageType = "acknowledge"        // both ways, never acknowledged itself
	ChannelClosed     MessageType = "channel_closed"     // from the service: the session is over
	StartPublication  MessageType = "start_publication"  // from the service: the other leg is there
	PausePublication  MessageType = "pause_publication"  // from the service: stop sending data
	AgentSessionState MessageType = "agent_session_state"
)

// PayloadType says what the payload of a sequenced message is.
type PayloadType uint32

// The payload types (docs/protocol.md, "Payload types"). 2 and 4 are declared
// by AWS and never sent.
const (
	NoPayloadType        PayloadType = 0
	Output               PayloadType = 1 // raw bytes: keystrokes, stdout, tunnelled data
	Size                 PayloadType = 3 // JSON TerminalSize
	HandshakeRequest     PayloadType = 5 // JSON HandshakeRequestPayload
	HandshakeResponse    PayloadType = 6 // JSON HandshakeResponsePayload
	HandshakeComplete    PayloadType = 7 // JSON HandshakeCompletePayload
	EncChallengeRequest  PayloadType = 8
	EncChallengeResponse PayloadType = 9
	Flag                 PayloadType = 10 // FlagValue, 4 bytes
	StdErr               PayloadType = 11 // raw bytes
	ExitCode             PayloadType = 12 // text "EXIT_CODE: n"
)

// Flags of the header. No receiver acts on them.
const (
	FlagSYN uint64 = 1
	FlagFIN uint64 = 2
)

// Sizes of the wire form, in bytes. A header length counts from the start of
// the message to the payload's length field, which follows it.
const (
	HeaderLen      = 116           // what client and agent write
	ShortHeaderLen = 112           // what the service writes: no payload type
	Overhead       = HeaderLen + 4 // bytes before the payload in a message of ours
)

const (
	offType          = 4
	offSchemaVersion = 36
	offCreated       = 40
	offSequence      = 48
	offFlags         = 56
	offID            = 64
	offDigest        = 80
	offPayloadType   = 112
	typeLen          = offSchemaVersion - offType
	schemaVersion    = 1
)

// Errors of Parse and Verify, to be compared with errors.Is.
var (
	ErrTruncated    = errors.New("message is shorter than its header")
	ErrHeaderLength = errors.New("message has an impossible header length")
	ErrNoType       = errors.New("message has no type")
	ErrDigest       = errors.New("payload does not match its digest")
	ErrEmptyPayload = errors.New("a message without a payload cannot be sent")
)

// Message is one AgentMessage. A Message from Parse aliases the bytes it was
// parsed from.
type Message struct {
	Type        MessageType
	Created     time.Time // milliseconds are kept
	Sequence    int64
	Flags       uint64
	ID          uuid.UUID
	Digest      [sha256.Size]byte // of the payload as it travels; set by Parse
	PayloadType PayloadType
	Payload     []byte

	// HeaderLength is HeaderLen or ShortHeaderLen. Append takes zero for
	// HeaderLen.
	HeaderLength int
	// PayloadLength is the length field as it came. It is informative only:
	// a payload reaches from the header to the end of the message.
	PayloadLength uint32
}

// Append appends the wire form of m to b. The digest is computed. Neither of
// AWS's own serialisers can encode an empty payload, so it is refused here.
func (m *Message) Append(b []byte) ([]byte, error) {
	if len(m.Payload) == 0 {
		return b, ErrEmptyPayload
	}
	if len(m.Type) > typeLen {
		return b, fmt.Errorf("message type %q is longer than %d bytes", m.Type, typeLen)
	}
	header := m.HeaderLength
	if header == 0 {
		header = HeaderLen
	}
	b = binary.BigEndian.AppendUint32(b, uint32(header))
	b = append(b, m.Type...)
	for i := len(m.Type); i < typeLen; i++ {
		b = append(b, ' ')
	}
	b = binary.BigEndian.AppendUint32(b, schemaVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Created.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Sequence))
	b = binary.BigEndian.AppendUint64(b, m.Flags)
	// The two halves of the id travel swapped.
	b = append(b, m.ID[8:]...)
	b = append(b, m.ID[:8]...)
	digest := sha256.Sum256(m.Payload)
	b = append(b, digest[:]...)
	if header != ShortHeaderLen {
		b = binary.BigEndian.AppendUint32(b, uint32(m.PayloadType))
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.Payload)))
	return append(b, m.Payload...), nil
}

// Parse reads one message, with either header length, and tells nothing of the
// digest: see Verify. Its errors wrap ErrTruncated, ErrHeaderLength or ErrNoType.
func Parse(b []byte) (Message, error) {
	var m Message
	if len(b) < ShortHeaderLen+4 {
		return m, fmt.Errorf("%w: %d bytes", ErrTruncated, len(b))
	}
	header := uint64(binary.BigEndian.Uint32(b))
	if header != HeaderLen && header != ShortHeaderLen {
		return m, fmt.Errorf("%w: %d", ErrHeaderLength, header)
	}
	if uint64(len(b)) < header+4 {
		return m, fmt.Errorf("%w: %d bytes", ErrTruncated, len(b))
	}
	m.HeaderLength = int(header)
	m.Type = messageType(b[offType:offSchemaVersion])
	if m.Type == "" {
		return m, ErrNoType
	}
	m.Created = time.UnixMilli(int64(binary.BigEndian.Uint64(b[offCreated:])))
	m.Sequence = int64(binary.BigEndian.Uint64(b[offSequence:]))
	m.Flags = binary.BigEndian.Uint64(b[offFlags:])
	copy(m.ID[8:], b[offID:offID+8])
	copy(m.ID[:8], b[offID+8:offDigest])
	copy(m.Digest[:], b[offDigest:offPayloadType])
	if header == HeaderLen {
		m.PayloadType = PayloadType(binary.BigEndian.Uint32(b[offPayloadType:]))
	}
	m.PayloadLength = binary.BigEndian.Uint32(b[header:])
	m.Payload = b[header+4:]
	return m, nil
}

// Verify checks the payload against the digest, as AWS's client does: not for
// the publication messages, whose digests the service leaves wrong, and not
// when the length field is zero. The error is ErrDigest.
func (m *Message) Verify() error {
	if m.Type == StartPublication || m.Type == PausePublication || m.PayloadLength == 0 {
		return nil
	}
	if sha256.Sum256(m.Payload) != m.Digest {
		return ErrDigest
	}
	return nil
}

// messageType strips the padding (spaces from client and agent, NULs from the
// service, on either side) and gives the constant for a known type, so that
// reading one allocates nothing.
func messageType(field []byte) MessageType {
	name := bytes.Trim(field, "\x00 \t\r\n\v\f")
	for _, known := range [...]MessageType{
		OutputStreamData, Acknowledge, InputStreamData, ChannelClosed,
		StartPublication, PausePublication, AgentSessionState,
	} {
		if string(name) == string(known) {
			return known
		}
	}
	return MessageType(name)
}
