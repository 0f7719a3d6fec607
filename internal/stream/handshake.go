package stream

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// maxRequest is the longest request for a handshake that is read, in bytes. Agents
// write less than 1 kB, or 3 kB where a key has the longest name. An answer is
// several times as long.
const maxRequest = 16 << 10

// handshake answers the agent's handshake. It is pure.
type handshake struct {
	clientVersion string
	encrypts      bool // a data key can be had

	asked     bool // a request was seen
	completed bool
	start     frame.Start
	reply     frame.HandshakeResponsePayload
	key       *KeyRequest // what the data key is made with; nil where nothing is encrypted
	keyAction int         // which action of the reply waits for it
	proved    bool        // the challenge was answered
	refused   string      // why we could not do what was asked
	failed    error       // what is said to the user of that
}

// request takes a HandshakeRequest. When it asks for encryption, the response
// waits for keyed.
func (h *handshake) request(payload []byte) error {
	if len(payload) > maxRequest {
		return fmt.Errorf("the agent's handshake request has %d bytes, and %d are all that is read", len(payload), maxRequest)
	}
	var req frame.HandshakeRequestPayload
	if err := json.Unmarshal(payload, &req); err != nil {
		// The library speaks of Go's types.
		return errors.New("the agent's handshake request cannot be read")
	}
	h.asked = true
	h.start.AgentVersion = req.AgentVersion
	h.reply = frame.HandshakeResponsePayload{
		ClientVersion:          h.clientVersion,
		ProcessedClientActions: make([]frame.ProcessedAction, 0, len(req.RequestedClientActions)),
	}
	for i, action := range req.RequestedClientActions {
		done := frame.ProcessedAction{ActionType: action.ActionType, ActionStatus: frame.ActionSuccess}
		var err error
		switch {
		case action.ActionType == frame.ActionSessionType:
			err = h.sessionType(action.Parameters)
		case action.ActionType == frame.ActionKMSEncryption && h.encrypts:
			h.keyAction = i
			err = h.encryption(action.Parameters)
		default:
			done.ActionStatus = frame.ActionUnsupported
			done.Error = fmt.Sprintf("Unsupported action %s", action.ActionType)
			h.refuse(done)
		}
		h.reply.ProcessedClientActions = append(h.reply.ProcessedClientActions, done)
		if err != nil {
			h.fail(i, err)
		}
	}
	return nil
}

// refuse notes an action that was not done.
func (h *handshake) refuse(done frame.ProcessedAction) {
	h.reply.Errors = append(h.reply.Errors, done.Error)
	h.refused = done.Error
}

// fail makes an action that was asked for one that failed.
func (h *handshake) fail(i int, err error) {
	done := &h.reply.ProcessedClientActions[i]
	done.ActionStatus, done.ActionResult = frame.ActionFailed, nil
	done.Error = fmt.Sprintf("Failed to process action %s: %s", done.ActionType, err)
	h.refuse(*done)
}

func (h *handshake) sessionType(parameters json.RawMessage) error {
	var p frame.SessionTypeRequest
	if err := json.Unmarshal(parameters, &p); err != nil {
		return err
	}
	if !knownSessionType(p.SessionType) {
		return fmt.Errorf("unknown session type %q", p.SessionType)
	}
	h.start.SessionType = p.SessionType
	if string(p.Properties) != "null" {
		h.start.Properties = p.Properties
	}
	return nil
}

func (h *handshake) encryption(parameters json.RawMessage) error {
	var p frame.KMSEncryptionRequest
	if err := json.Unmarshal(parameters, &p); err != nil {
		return err
	}
	switch {
	case h.key != nil:
		return errors.New("asked twice")
	case p.KMSKeyID == "" || len(p.KMSKeyID) > maxKeyID:
		return fmt.Errorf("a key's name has 1 to %d bytes, not %d", maxKeyID, len(p.KMSKeyID))
	}
	h.key = &KeyRequest{KeyID: p.KMSKeyID, Challenge: p.Challenge}
	h.start.KMSKeyID = p.KMSKeyID
	return nil
}

// keyed takes what the response waits for: the data key as the agent gets it, or
// why there is none. The agent learns only that: what KMS has said is the user's.
func (h *handshake) keyed(ciphertext []byte, err error) {
	if err != nil {
		h.failed = &KeyError{err}
		h.fail(h.keyAction, errors.New("no data key"))
		return
	}
	h.reply.ProcessedClientActions[h.keyAction].ActionResult = frame.KMSEncryptionResponse{
		CipherTextKey:            ciphertext,
		ChallengeAcknowledgement: h.key.Challenge != "",
	}
}

// response gives the payload of the answer.
func (h *handshake) response() ([]byte, error) { return json.Marshal(h.reply) }

// challenge takes an EncChallengeRequest and gives the payload of the answer.
func (h *handshake) challenge(payload []byte, c *ciphers) ([]byte, error) {
	var p frame.EncChallengePayload
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, errors.New("the agent's encryption challenge cannot be read")
	}
	plain, err := c.open(p.Challenge)
	if err != nil || len(plain) != challengeBytes {
		return nil, &KeyError{errNoKey}
	}
	h.proved = true
	plain = append([]byte(nil), plain...) // seal takes its place
	return json.Marshal(frame.EncChallengePayload{Challenge: c.seal(plain)})
}

func knownSessionType(t frame.SessionType) bool {
	switch t {
	case frame.StandardStream, frame.InteractiveCommands, frame.NonInteractiveCommands, frame.Port:
		return true
	}
	return false
}

// complete takes a HandshakeComplete.
func (h *handshake) complete(payload []byte) (frame.Start, error) {
	switch {
	case !h.asked:
		return frame.Start{}, fmt.Errorf("the agent completed a handshake that it never began")
	case h.start.SessionType == "":
		return frame.Start{}, errors.New("the agent's handshake named no session type")
	case h.key != nil && !h.proved:
		return frame.Start{}, errors.New("the agent completed the handshake without proof that it has the session's key")
	}
	var p frame.HandshakeCompletePayload
	if err := json.Unmarshal(payload, &p); err != nil {
		return frame.Start{}, errors.New("the end of the agent's handshake cannot be read")
	}
	h.completed = true
	h.start.CustomerMessage = p.CustomerMessage
	h.start.HandshakeTime = time.Duration(p.HandshakeTimeToComplete)
	return h.start, nil
}

// underway tells whether input has to wait for the end of an encryption's
// handshake: it must not go in the clear.
func (h *handshake) underway() bool { return h.key != nil && !h.completed }
