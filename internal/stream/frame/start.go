package frame

import (
	"encoding/json"
	"time"
)

// Start is what is known of a session once it has begun.
type Start struct {
	// SessionType is StandardStream where there was no handshake: the
	// wire then tells nothing (docs/protocol.md, "Handshake").
	SessionType SessionType
	// Properties of a port session, JSON; otherwise nil.
	Properties json.RawMessage
	// AgentVersion is empty where there was no handshake.
	AgentVersion string
	// KMSKeyID is the key that the session is encrypted with, empty where it
	// is not. It is remote-controlled.
	KMSKeyID string
	// CustomerMessage is for the user, often empty. It is remote-controlled.
	CustomerMessage string
	// HandshakeTime is how long the agent says its handshake took.
	HandshakeTime time.Duration
}
