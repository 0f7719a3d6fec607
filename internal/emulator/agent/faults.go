package agent

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Faults are what the agent does wrong on order, so that clients can be tried with
// it. Of all of it AWS's has the late opening alone, and a shorter one.
type Faults struct {
	// LateOpening is for how long after HandshakeComplete input is still
	// acknowledged and thrown away.
	LateOpening time.Duration
	// BadChallenge has the encryption challenge be one that does not decrypt.
	BadChallenge bool
	// BadOutput is which message of encrypted output does not decrypt, from 1; its
	// repetitions do not either. 0: none.
	BadOutput int
	// LateEncryption is the message of output after which the agent asks for
	// encryption, in the middle of the session, from 1. 0: it does not.
	LateEncryption int
}

// lateKey is the key that an agent without one asks for late.
const lateKey = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"

// lateRequest is a handshake request that comes when none is due. The zero value
// never comes.
type lateRequest struct {
	payload []byte
	left    int // messages of output before it
}

func newLateRequest(cfg Config) (lateRequest, error) {
	if cfg.Faults.LateEncryption == 0 {
		return lateRequest{}, nil
	}
	request, err := newHandshakeRequest(cfg)
	if err != nil {
		return lateRequest{}, err
	}
	action, err := newEncryptionRequest(cmp.Or(cfg.KMSKeyID, lateKey), newRandomChallenge())
	if err != nil {
		return lateRequest{}, err
	}
	request.RequestedClientActions = append(request.RequestedClientActions, action)
	payload, err := json.Marshal(request)
	if err != nil {
		return lateRequest{}, fmt.Errorf("encode a late handshake request: %w", err)
	}
	return lateRequest{payload, cfg.Faults.LateEncryption}, nil
}

// due counts a message that was sent, and tells whether the request comes now.
func (l *lateRequest) due(sent frame.PayloadType) bool {
	if l.left == 0 || !hides(sent) {
		return false
	}
	l.left--
	return l.left == 0
}
