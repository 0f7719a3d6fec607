package emulator

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
)

// historyLimit is how many sessions that are over are remembered.
const historyLimit = 1000

// sessions are all sessions of a server, those that are over included.
type sessions struct {
	running sync.WaitGroup

	mu     sync.Mutex // guards the rest
	byID   map[string]*session
	order  []*session // oldest first
	next   int
	closed bool
}

func (s *sessions) find(id string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

// all gives every session, newest first.
func (s *sessions) all() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.order)
	slices.Reverse(all)
	return all
}

// start adds a session and lets it run, until ctx ends or its own end. The error
// is errStopped.
func (s *sessions) start(ctx context.Context, spec sessionSpec) (*session, error) {
	one := &session{
		sessionSpec: spec,
		started:     time.Now(),
		log:         spec.agent.Log,
		stop:        ctx.Done(),
		done:        make(chan struct{}),
		toAgent:     newQueue(toAgentLimit),
		attached:    make(chan struct{}),
		overRate:    make(chan struct{}, 1),
		status:      statusConnecting,
	}
	one.ctx, one.cancel = context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		one.cancel(errStopped)
		return nil, errStopped
	}
	s.next++
	one.number = s.next
	s.byID[one.id] = one
	s.order = append(s.order, one)
	s.forget()
	s.running.Go(one.run)
	return one, nil
}

// close lets no more sessions start, and waits for the end of those there are.
func (s *sessions) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
}

// forget drops the oldest sessions that are over, above the limit.
func (s *sessions) forget() {
	excess := -historyLimit
	for _, one := range s.order {
		if one.isOver() {
			excess++
		}
	}
	if excess <= 0 {
		return
	}
	s.order = slices.DeleteFunc(s.order, func(one *session) bool {
		if excess == 0 || !one.isOver() {
			return false
		}
		excess--
		delete(s.byID, one.id)
		return true
	})
}

// randomToken is opaque to clients; this is how the real ones look.
func randomToken() string {
	raw := make([]byte, 258)
	rand.Read(raw) // never fails
	copy(raw, []byte{0, 1, 0})
	return base64.StdEncoding.EncodeToString(raw)
}

// newSessionID is the caller's name and 17 hexadecimal digits.
func newSessionID() string {
	raw := make([]byte, 9)
	rand.Read(raw) // never fails
	return userName + "-" + hex.EncodeToString(raw)[:17]
}

type startSessionInput struct {
	Target       *string
	DocumentName *string
	Reason       *string
	Parameters   map[string][]string
}

func (in *startSessionInput) validate(v *validation) {
	v.sessionTarget(in.Target)
	if in.DocumentName != nil {
		v.pattern("documentName", *in.DocumentName, regexp.MustCompile(`^[a-zA-Z0-9_\-.:/]{3,128}$`))
	}
	if in.Reason != nil {
		v.length("reason", *in.Reason, 1, 256)
		if *in.Reason != "" {
			v.pattern("reason", *in.Reason, regexp.MustCompile(`^.{1,256}$`))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(in.Parameters)) {
		v.length("parameters.key", name, 1, 255)
		for i, value := range in.Parameters[name] {
			v.length(fmt.Sprintf("parameters.%s.member.%d.member", name, i+1), value, 1, 65535)
		}
	}
}

// grant is the answer of StartSession and ResumeSession. Of a session that is
// over there is only the id.
type grant struct {
	SessionID  string `json:"SessionId"`
	TokenValue string `json:",omitempty"` // secret
	StreamURL  string `json:"StreamUrl,omitempty"`
}

// startSession is StartSession.
func (s *Server) startSession(c caller, in *startSessionInput) (any, error) {
	name := defaultDocument
	if in.DocumentName != nil {
		name = *in.DocumentName
	}
	document, ok := s.documents.find(name)
	if s.denied(name) || s.denied(document.Name) {
		return nil, s.accessDenied("ssm:StartSession", s.documentARN(name))
	}
	if !ok {
		return nil, errInvalidDocument(name)
	}
	if t, ok := s.target(*in.Target); !ok || t.Offline {
		return nil, modelled("TargetNotConnected", *in.Target+" is not connected.")
	}
	resolved, err := document.resolve(in.Parameters)
	if err != nil {
		return nil, err
	}
	limits, err := document.limits()
	if err != nil {
		return nil, document.invalid("inputs", err)
	}
	limits.attach = s.cfg.Limits.Attach
	spec := sessionSpec{
		id:           newSessionID(),
		target:       *in.Target,
		documentName: document.Name,
		owner:        s.callerARN(),
		limits:       limits,
		rateLimited:  s.cfg.Pace == PaceReal,
		play:         s.play,
	}
	if in.Reason != nil {
		spec.reason = *in.Reason
	}
	spec.agent = s.agentConfig(spec.id, resolved)
	one, err := s.sessions.start(s.ctx, spec)
	if err != nil {
		return nil, err
	}
	s.log.Info("session started", "session", one.id, "target", one.target, "document", one.documentName)
	token, _ := one.newToken(s.cfg.Limits.Token) // there always is one for a new session
	return grant{one.id, token, s.streamURL(c.host, one.id)}, nil
}

func (s *Server) agentConfig(sessionID string, document agent.Document) agent.Config {
	cfg := agent.Config{
		SessionID: sessionID,
		Version:   s.cfg.AgentVersion,
		Document:  document,
		Shell:     s.cfg.Shell,
		Log:       s.log,
	}
	if s.cfg.Pace == PaceReal {
		cfg.Pace = agent.RealPace
	}
	return cfg
}

type sessionIDInput struct{ SessionId *string } //nolint:revive,staticcheck // the member's name

func (in *sessionIDInput) validate(v *validation) { v.sessionID(in.SessionId) }

// resumeSession is ResumeSession: a new token for a session that goes on.
func (s *Server) resumeSession(c caller, in *sessionIDInput) (any, error) {
	one := s.sessions.find(*in.SessionId)
	if one == nil {
		return nil, modelled("DoesNotExistException", fmt.Sprintf("Session %s does not exist.", *in.SessionId))
	}
	token, ok := one.newToken(s.cfg.Limits.Token)
	if !ok {
		return grant{SessionID: one.id}, nil
	}
	return grant{one.id, token, s.streamURL(c.host, one.id)}, nil
}

// terminateSession is TerminateSession. A session that is over, or was never
// there, is no error.
func (s *Server) terminateSession(_ caller, in *sessionIDInput) (any, error) {
	if one := s.sessions.find(*in.SessionId); one != nil {
		one.terminate()
	}
	return grant{SessionID: *in.SessionId}, nil
}
