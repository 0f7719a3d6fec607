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

// response is what the client answered in a handshake: first to the request, then
// to the encryption challenge. Acked is closed once the answer has been acknowledged.
type response struct {
	clientVersion string // of the first one
	err           error
	acked         <-chan struct{}
}

// handshake tells the client the session type and waits for its consent. In an
// encrypted session both then show that they have the same key (docs/protocol.md,
// "Handshake", "Encryption").
func (s *session) handshake(ctx context.Context) error {
	start := time.Now()
	request, err := newHandshakeRequest(s.cfg)
	if err != nil {
		return err
	}
	encryption := s.channel.encryption
	if encryption != nil {
		action, err := newEncryptionRequest(encryption.keyID, encryption.randomChallenge)
		if err != nil {
			return err
		}
		request.RequestedClientActions = append(request.RequestedClientActions, action)
	}
	if err := s.sendJSON(frame.HandshakeRequest, request); err != nil {
		return err
	}
	answer, err := s.await(ctx, s.channel.responses, errHandshakeTimeout)
	if err != nil {
		return err
	}
	s.clientVersion = answer.clientVersion
	if encryption != nil {
		if !encryption.ready() {
			return errNoDataKey
		}
		if err := s.challenge(ctx); err != nil {
			return err
		}
	}
	complete := frame.HandshakeCompletePayload{HandshakeTimeToComplete: time.Since(start).Nanoseconds()}
	if s.separate() && compareVersions(answer.clientVersion, lastWithoutSeparate) <= 0 {
		complete.CustomerMessage = updateClient
	}
	if encryption != nil {
		complete.CustomerMessage += encryptedMessage
	}
	// AWS's agent opens after the message, and input that is faster than that
	// is lost. Over a memory leg that would be most of it.
	late := s.cfg.Faults.LateOpening
	if late == 0 {
		s.channel.open()
	}
	if err := s.sendJSON(frame.HandshakeComplete, complete); err != nil || late == 0 {
		return err
	}
	defer s.channel.open()
	return sleep(ctx, late)
}

// await waits for an answer of the client.
func (s *session) await(ctx context.Context, answers <-chan response, late error) (response, error) {
	timeout := time.NewTimer(handshakeTimeout)
	defer timeout.Stop()
	var answer response
	select {
	case answer = <-answers:
	case <-timeout.C:
		return answer, late
	case <-ctx.Done():
		// AWS's agent notices only after the timeout.
		return answer, context.Cause(ctx)
	}
	// In AWS's agent the acknowledgement races with what follows, the end of
	// the session or HandshakeComplete; in this order no client is surprised.
	select {
	case <-answer.acked:
	case <-s.channel.link.Done():
		return answer, context.Cause(s.channel.link)
	}
	return answer, answer.err
}

// challenge lets the client show that it has the data key.
func (s *session) challenge(ctx context.Context) error {
	s.channel.sending.Lock()
	request := s.channel.encryption.challengeRequest()
	s.channel.sending.Unlock()
	if err := s.sendJSON(frame.EncChallengeRequest, request); err != nil {
		return err
	}
	_, err := s.await(ctx, s.channel.confirmed, errChallengeTimeout)
	return err
}

// newHandshakeRequest makes the request of a session without encryption.
func newHandshakeRequest(cfg Config) (frame.HandshakeRequestPayload, error) {
	parameters, err := json.Marshal(frame.SessionTypeRequest{
		SessionType: cfg.Document.SessionType,
		Properties:  cfg.Document.Properties,
	})
	if err != nil {
		return frame.HandshakeRequestPayload{}, fmt.Errorf("encode the session type: %w", err)
	}
	return frame.HandshakeRequestPayload{
		AgentVersion: cfg.Version,
		RequestedClientActions: []frame.RequestedAction{
			{ActionType: frame.ActionSessionType, Parameters: parameters},
		},
	}, nil
}

// newEncryptionRequest makes the action that asks for encryption.
func newEncryptionRequest(keyID, randomChallenge string) (frame.RequestedAction, error) {
	parameters, err := json.Marshal(frame.KMSEncryptionRequest{KMSKeyID: keyID, Challenge: randomChallenge})
	if err != nil {
		return frame.RequestedAction{}, fmt.Errorf("encode the encryption request: %w", err)
	}
	return frame.RequestedAction{ActionType: frame.ActionKMSEncryption, Parameters: parameters}, nil
}

func (s *session) sendJSON(t frame.PayloadType, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode payload of type %d: %w", t, err)
	}
	return s.channel.send(t, payload)
}

// handshakeResponse is a client's answer as the agent reads it.
type handshakeResponse struct {
	ClientVersion          string
	ProcessedClientActions []struct {
		ActionType   frame.ActionType
		ActionStatus frame.ActionStatus
		ActionResult json.RawMessage
		Error        string
	}
}

// respond takes a handshake response and passes on what it says. When nobody waits
// for one (it is late, or was not asked for) it blocks, and with it all input, as in
// AWS's agent. Of several things that are wrong, the last one is told.
func (c *channel) respond(payload []byte) error {
	var p handshakeResponse
	if err := json.Unmarshal(payload, &p); err != nil {
		return fmt.Errorf("handshake response: %w", err)
	}
	answer := response{clientVersion: p.ClientVersion}
	for _, action := range p.ProcessedClientActions {
		var err error
		switch {
		case action.ActionStatus != frame.ActionSuccess:
			err = fmt.Errorf("%s %w with status %d error: %s",
				action.ActionType, errRefused, action.ActionStatus, action.Error)
		case action.ActionType == frame.ActionKMSEncryption:
			err = c.encryption.accept(c.link, action.ActionResult)
		}
		if err != nil {
			answer.err = err
		}
	}
	return c.pass(c.responses, answer)
}

// confirm takes an answer to the encryption challenge. One that is wrong is not
// acknowledged; a right one after it does not help any more.
func (c *channel) confirm(payload []byte) error {
	if c.encryption == nil {
		return errNoKMS
	}
	if err := c.encryption.verify(payload); err != nil {
		return err
	}
	return c.pass(c.confirmed, response{err: c.encryption.failed})
}

// pass hands an answer to the handshake that waits for it.
func (c *channel) pass(answers chan<- response, answer response) error {
	acked := make(chan struct{})
	answer.acked = acked
	select {
	case answers <- answer:
		c.answered = acked
		return nil
	case <-c.link.Done():
		return context.Cause(c.link)
	}
}
