package emulator

import (
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
)

// startSessionInput is the input of StartSession.
type startSessionInput struct {
	Target       *string
	DocumentName *string
	Reason       *string
	Parameters   map[string][]string
}

// validate implements input. Without the reason's own length check an empty one
// would be told of by its pattern alone.
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

// startSession is StartSession. The permission for the document is asked before
// whether there is one, so that who may not use it learns nothing.
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
	target, ok := s.target(*in.Target)
	if !ok || target.Offline {
		return nil, modelled("TargetNotConnected", *in.Target+" is not connected.")
	}
	request := sessionRequest{id: newSessionID(), target: target, document: document, parameters: in.Parameters}
	if in.Reason != nil {
		request.reason = *in.Reason
	}
	g, err := s.begin(c, request)
	if err != nil {
		return nil, err
	}
	return g, nil
}

// sessionRequest is a session that the caller may start, on a target that is
// there.
type sessionRequest struct {
	id         string
	target     Target
	document   Document
	parameters map[string][]string
	reason     string
}

// begin starts a session, if its parameters fit the document.
func (s *Server) begin(c caller, request sessionRequest) (grant, error) {
	document := request.document
	resolved, err := document.resolve(request.parameters)
	if err != nil {
		return grant{}, err
	}
	limits, err := document.limits()
	if err != nil {
		return grant{}, document.invalid("inputs", err)
	}
	limits.attach = s.cfg.Limits.Attach
	spec := sessionSpec{
		id:           request.id,
		target:       request.target.ID,
		documentName: document.Name,
		reason:       request.reason,
		owner:        s.callerARN(),
		limits:       limits,
		rateLimited:  s.cfg.Pace == PaceReal,
		play:         s.play,
		faults:       s.faults,
	}
	spec.agent = s.agentConfig(spec.id, resolved)
	spec.agent.TargetID, spec.agent.KMS = spec.target, node{s, spec.target}
	spec.agent.ContainerMode = request.target.container
	one, err := s.sessions.start(s.ctx, spec)
	if err != nil {
		return grant{}, err
	}
	s.log.Info("session started", "session", one.id, "target", one.target, "document", one.documentName)
	token, _ := one.newToken(s.tokenLife(one.id)) // there always is one for a new session
	return grant{one.id, token, s.streamURL(c.host, one.id)}, nil
}

// agentConfig says how the agent of a session is to be played.
func (s *Server) agentConfig(sessionID string, document agent.Document) agent.Config {
	cfg := agent.Config{
		SessionID: sessionID,
		Version:   s.cfg.AgentVersion,
		Document:  document,
		Shell:     s.cfg.Shell,
		Faults:    s.agentFaults(sessionID),
		Log:       s.log,
	}
	if len(s.cfg.KMSKeys) > 0 {
		cfg.KMSKeyID = s.cfg.KMSKeys[0]
	}
	if s.cfg.Pace == PaceReal {
		cfg.Pace = agent.RealPace
	}
	return cfg
}

// sessionIDInput is the input of ResumeSession and TerminateSession.
type sessionIDInput struct{ SessionId *string }

// validate implements input.
func (in *sessionIDInput) validate(v *validation) { v.sessionID(in.SessionId) }

// resumeSession is ResumeSession: a new token for a session that goes on. For one
// that is over the answer has no token, which tells clients so.
func (s *Server) resumeSession(c caller, in *sessionIDInput) (any, error) {
	one := s.sessions.find(*in.SessionId)
	if one == nil {
		return nil, errNoSession(*in.SessionId)
	}
	if err := s.resumeFault(one.id); err != nil {
		return nil, err
	}
	token, ok := one.newToken(s.tokenLife(one.id))
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
