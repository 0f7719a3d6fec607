package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

const (
	handshakeTimeout = 15 * time.Second
	// lastWithoutSeparate is the last client that cannot tell the streams apart.
	lastWithoutSeparate = "1.2.295"
	updateClient        = "Please update session manager plugin version (minimum required version 1.2.312.0) " +
		"for fully support of separate StdOut/StdErr output.\r\n"
)

const errHandshakeTimeout = agentError("Handshake timed out. " +
	"Please ensure that you have the latest version of the session manager plugin.")

// errRefused is in what an agent says of a client that refused an action.
var errRefused = errors.New("failed on client")

// response is what the client answered in a handshake. Acked is closed once the
// answer has been acknowledged.
type response struct {
	clientVersion string
	err           error
	acked         <-chan struct{}
}

// handshake tells the client the session type and waits for its consent
// (docs/protocol.md, "Handshake").
func (s *session) handshake(ctx context.Context) error {
	start := time.Now()
	if err := s.requestHandshake(); err != nil {
		return err
	}
	timeout := time.NewTimer(handshakeTimeout)
	defer timeout.Stop()
	var answer response
	select {
	case answer = <-s.channel.responses:
	case <-timeout.C:
		return errHandshakeTimeout
	case <-ctx.Done():
		// AWS's agent notices only after the timeout.
		return context.Cause(ctx)
	}
	// In AWS's agent the acknowledgement races with what follows, the end of
	// the session or HandshakeComplete; in this order no client is surprised.
	select {
	case <-answer.acked:
	case <-s.channel.link.Done():
		return context.Cause(s.channel.link)
	}
	if answer.err != nil {
		return answer.err
	}
	s.clientVersion = answer.clientVersion
	complete := frame.HandshakeCompletePayload{HandshakeTimeToComplete: time.Since(start).Nanoseconds()}
	if s.separate() && compareVersions(answer.clientVersion, lastWithoutSeparate) <= 0 {
		complete.CustomerMessage = updateClient
	}
	// AWS's agent opens after the message, and input that is faster than that
	// is lost. Over a memory leg that would be more than a theory.
	s.channel.open()
	return s.sendJSON(frame.HandshakeComplete, complete)
}

func (s *session) requestHandshake() error {
	parameters, err := json.Marshal(frame.SessionTypeRequest{
		SessionType: s.cfg.Document.SessionType,
		Properties:  s.cfg.Document.Properties,
	})
	if err != nil {
		return fmt.Errorf("encode the session type: %w", err)
	}
	return s.sendJSON(frame.HandshakeRequest, frame.HandshakeRequestPayload{
		AgentVersion: s.cfg.Version,
		RequestedClientActions: []frame.RequestedAction{
			{ActionType: frame.ActionSessionType, Parameters: parameters},
		},
	})
}

func (s *session) sendJSON(t frame.PayloadType, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode payload of type %d: %w", t, err)
	}
	return s.channel.send(t, payload)
}

// respond passes a handshake response on. When nobody waits for one (it is
// late, or was not asked for) it blocks, and with it all input, as in AWS's
// agent.
func (c *channel) respond(payload []byte) error {
	var p frame.HandshakeResponsePayload
	if err := json.Unmarshal(payload, &p); err != nil {
		return fmt.Errorf("handshake response: %w", err)
	}
	acked := make(chan struct{})
	answer := response{clientVersion: p.ClientVersion, acked: acked}
	for _, action := range p.ProcessedClientActions {
		if action.ActionStatus != frame.ActionSuccess {
			answer.err = fmt.Errorf("%s %w with status %d error: %s",
				action.ActionType, errRefused, action.ActionStatus, action.Error)
		}
	}
	select {
	case c.responses <- answer:
		c.answered = acked
		return nil
	case <-c.link.Done():
		return context.Cause(c.link)
	}
}
