package stream

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// handshake answers the agent's handshake. It is pure.
type handshake struct {
	clientVersion string
	asked         bool // a request was seen
	start         frame.Start
	refused       string // why we could not do what was asked
}

// request takes a HandshakeRequest and gives the payload of the answer.
func (h *handshake) request(payload []byte) ([]byte, error) {
	var req frame.HandshakeRequestPayload
	if err := json.Unmarshal(payload, &req); err != nil {
		// The library speaks of Go's types.
		return nil, errors.New("the agent's handshake request cannot be read")
	}
	h.asked = true
	h.start.AgentVersion = req.AgentVersion
	answer := frame.HandshakeResponsePayload{
		ClientVersion:          h.clientVersion,
		ProcessedClientActions: make([]frame.ProcessedAction, 0, len(req.RequestedClientActions)),
	}
	for _, action := range req.RequestedClientActions {
		done := h.process(action)
		if done.ActionStatus != frame.ActionSuccess {
			answer.Errors = append(answer.Errors, done.Error)
			h.refused = done.Error
		}
		answer.ProcessedClientActions = append(answer.ProcessedClientActions, done)
	}
	return json.Marshal(answer)
}

func (h *handshake) process(action frame.RequestedAction) frame.ProcessedAction {
	done := frame.ProcessedAction{ActionType: action.ActionType, ActionStatus: frame.ActionSuccess}
	switch action.ActionType {
	case frame.ActionSessionType:
		var p frame.SessionTypeRequest
		err := json.Unmarshal(action.Parameters, &p)
		if err == nil && !knownSessionType(p.SessionType) {
			err = fmt.Errorf("unknown session type %q", p.SessionType)
		}
		if err != nil {
			done.ActionStatus = frame.ActionFailed
			done.Error = fmt.Sprintf("Failed to process action %s: %s", action.ActionType, err)
			return done
		}
		h.start.SessionType = p.SessionType
		if string(p.Properties) != "null" {
			h.start.Properties = p.Properties
		}
	default:
		done.ActionStatus = frame.ActionUnsupported
		done.Error = fmt.Sprintf("Unsupported action %s", action.ActionType)
	}
	return done
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
	if !h.asked {
		return frame.Start{}, fmt.Errorf("the agent completed a handshake that it never began")
	}
	if h.start.SessionType == "" {
		return frame.Start{}, errors.New("the agent's handshake named no session type")
	}
	var p frame.HandshakeCompletePayload
	if err := json.Unmarshal(payload, &p); err != nil {
		return frame.Start{}, errors.New("the end of the agent's handshake cannot be read")
	}
	h.start.CustomerMessage = p.CustomerMessage
	h.start.HandshakeTime = time.Duration(p.HandshakeTimeToComplete)
	return h.start, nil
}
