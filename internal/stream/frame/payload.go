package frame

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// OpenDataChannel is the first frame on a socket, sent by the client as text
// (docs/protocol.md, "Opening"). Nothing answers it; a token that is not
// accepted shows as a socket that closes.
type OpenDataChannel struct {
	MessageSchemaVersion string
	RequestID            string `json:"RequestId"`
	TokenValue           string // secret
	ClientID             string `json:"ClientId"` // the same for the life of a session
	ClientVersion        string `json:",omitempty"`
}

// String hides the token.
func (o OpenDataChannel) String() string { return "OpenDataChannel{request " + o.RequestID + "}" }

// GoString hides the token.
func (o OpenDataChannel) GoString() string { return o.String() }

// Ack names the message that is acknowledged.
type Ack struct {
	Type     MessageType
	ID       uuid.UUID
	Sequence int64
}

// The acknowledgement is on the path of every message, so its one canonical
// form (docs/protocol.md, "Acknowledgement") is written and recognised by hand.
const (
	ackType = `{"AcknowledgedMessageType":"`
	ackID   = `","AcknowledgedMessageId":"`
	ackSeq  = `","AcknowledgedMessageSequenceNumber":`
	ackEnd  = `,"IsSequentialMessage":true}`
)

// Append appends the JSON form of a to b.
func (a Ack) Append(b []byte) []byte {
	b = append(b, ackType...)
	b = append(b, a.Type...)
	b = append(b, ackID...)
	b = appendUUID(b, a.ID)
	b = append(b, ackSeq...)
	b = strconv.AppendInt(b, a.Sequence, 10)
	return append(b, ackEnd...)
}

// maxAck is the longest acknowledgement that is read, in bytes: agents and clients
// write some 190.
const maxAck = 512

// ParseAck reads the sequence number that p acknowledges. Receivers use nothing
// else of it.
func ParseAck(p []byte) (int64, error) {
	if n, ok := canonicalAck(p); ok {
		return n, nil
	}
	if len(p) > maxAck {
		return 0, fmt.Errorf("acknowledgement of %d bytes", len(p))
	}
	var v struct {
		Sequence *int64 `json:"AcknowledgedMessageSequenceNumber"`
	}
	if err := json.Unmarshal(p, &v); err != nil {
		return 0, fmt.Errorf("acknowledgement: %w", err)
	}
	if v.Sequence == nil {
		return 0, fmt.Errorf("acknowledgement without a sequence number")
	}
	return *v.Sequence, nil
}

// canonicalAck reads the form that Append writes, without allocating.
func canonicalAck(p []byte) (n int64, ok bool) {
	p, ok = bytes.CutPrefix(p, []byte(ackType))
	if !ok {
		return 0, false
	}
	typ, p, ok := bytes.Cut(p, []byte(ackID))
	if !ok || !plain(typ) {
		return 0, false
	}
	id, p, ok := bytes.Cut(p, []byte(ackSeq))
	if !ok || !plain(id) {
		return 0, false
	}
	p, ok = bytes.CutSuffix(p, []byte(ackEnd))
	if !ok || len(p) == 0 || len(p) > 18 || (p[0] == '0' && len(p) > 1) {
		return 0, false
	}
	for _, c := range p {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// plain tells whether p is made of the characters of message types and ids.
func plain(p []byte) bool {
	for _, c := range p {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func appendUUID(b []byte, id uuid.UUID) []byte {
	const hex = "0123456789abcdef"
	for i, c := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, hex[c>>4], hex[c&15])
	}
	return b
}

// TerminalSize is the payload of a Size message.
type TerminalSize struct {
	Cols int `json:"cols"`
	Rows int `json:"rows"`
}

// SessionType is the kind of session that a document asks for.
type SessionType string

// The session types (docs/protocol.md, "Session types").
const (
	StandardStream         SessionType = "Standard_Stream"
	InteractiveCommands    SessionType = "InteractiveCommands"
	NonInteractiveCommands SessionType = "NonInteractiveCommands"
	Port                   SessionType = "Port"
)

// ActionType names what an agent asks of the client in a handshake.
type ActionType string

// The actions of a handshake.
const (
	ActionSessionType   ActionType = "SessionType"
	ActionKMSEncryption ActionType = "KMSEncryption"
)

// HandshakeRequestPayload is what an agent opens a handshake with.
type HandshakeRequestPayload struct {
	AgentVersion           string
	RequestedClientActions []RequestedAction
}

// RequestedAction is one thing asked of the client. Parameters is a
// SessionTypeRequest or a KMSEncryptionRequest, by type.
type RequestedAction struct {
	ActionType ActionType
	Parameters json.RawMessage `json:"ActionParameters"`
}

// SessionTypeRequest is the parameters of ActionSessionType. Properties is null
// but for port sessions.
type SessionTypeRequest struct {
	SessionType SessionType
	Properties  json.RawMessage
}

// KMSEncryptionRequest is the parameters of ActionKMSEncryption. Older agents
// send no challenge.
type KMSEncryptionRequest struct {
	KMSKeyID  string `json:"KMSKeyId"`
	Challenge string `json:",omitempty"`
}

// KMSEncryptionResponse is the ActionResult of ActionKMSEncryption.
type KMSEncryptionResponse struct {
	// CipherTextKey is the data key as KMS has encrypted it.
	CipherTextKey []byte `json:"KMSCipherTextKey"`
	// CipherTextHash is not read by agents; AWS's client leaves it null.
	CipherTextHash []byte `json:"KMSCipherTextHash"`
	// ChallengeAcknowledgement tells that the request's challenge is part of
	// the encryption context.
	ChallengeAcknowledgement bool `json:",omitempty"`
}

// EncChallengePayload is the agent's challenge, and the client's answer: the
// same bytes, sealed for either direction (docs/protocol.md, "Encryption").
type EncChallengePayload struct{ Challenge []byte }

// ActionStatus is the client's answer to one action.
type ActionStatus int

// The answers. An agent ends the session on anything but ActionSuccess.
const (
	ActionSuccess     ActionStatus = 1
	ActionFailed      ActionStatus = 2
	ActionUnsupported ActionStatus = 3
)

// HandshakeResponsePayload is the client's answer, one entry for each action
// asked, in order.
type HandshakeResponsePayload struct {
	ClientVersion          string
	ProcessedClientActions []ProcessedAction
	Errors                 []string
}

// ProcessedAction is the outcome of one action.
type ProcessedAction struct {
	ActionType   ActionType
	ActionStatus ActionStatus
	ActionResult any
	Error        string
}

// HandshakeCompletePayload ends a handshake.
type HandshakeCompletePayload struct {
	HandshakeTimeToComplete int64  // nanoseconds
	CustomerMessage         string // for the user, often empty
}

// ChannelClosedPayload ends a session. Output is for the user, often empty.
type ChannelClosedPayload struct {
	MessageType   string
	MessageID     string `json:"MessageId"`
	DestinationID string `json:"DestinationId"`
	SessionID     string `json:"SessionId"`
	SchemaVersion int
	CreatedDate   string
	Output        string
}

// FlagValue is the payload of a Flag message.
type FlagValue uint32

// The flags (docs/protocol.md, "Payload types").
const (
	DisconnectToPort   FlagValue = 1 // client to agent
	TerminateSession   FlagValue = 2 // client to agent
	ConnectToPortError FlagValue = 3 // agent to client
)

// Append appends the four bytes of f to b.
func (f FlagValue) Append(b []byte) []byte { return binary.BigEndian.AppendUint32(b, uint32(f)) }

// ParseFlag reads the payload of a Flag message.
func ParseFlag(p []byte) (FlagValue, error) {
	if len(p) != 4 {
		return 0, fmt.Errorf("flag of %d bytes, not 4", len(p))
	}
	return FlagValue(binary.BigEndian.Uint32(p)), nil
}

const exitCodePrefix = "EXIT_CODE: "

// AppendExitCode appends the payload of an ExitCode message to b.
func AppendExitCode(b []byte, code int64) []byte {
	return strconv.AppendInt(append(b, exitCodePrefix...), code, 10)
}

// ParseExitCode reads the payload of an ExitCode message. An agent reports a
// death by signal as -1, and nothing below; one on Windows has codes of 32 bits.
func ParseExitCode(p []byte) (int64, error) {
	text, ok := strings.CutPrefix(string(p), exitCodePrefix)
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if !ok || err != nil || n < -1 {
		return 0, fmt.Errorf("exit code payload %.40q is not %q and a number", p, exitCodePrefix)
	}
	return n, nil
}

// AgentSessionStatePayload is what an agent tells the service of itself.
type AgentSessionStatePayload struct {
	SchemaVersion int
	SessionState  string // "Connected" or "Terminating"
	SessionID     string `json:"SessionId"`
}
