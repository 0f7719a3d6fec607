package emulator

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
)

// faultLimit is how many faults can be set at a time.
const faultLimit = 100

// faultSwitch holds the faults that are set now. Where they could happen it is
// asked; with none set that is one load of a pointer.
type faultSwitch struct {
	seed    uint64
	current atomic.Pointer[faultSet] // nil: none

	mu      sync.Mutex    // guards changed, and current against two writers
	changed chan struct{} // closed when current changes
}

// newFaultSwitch makes a switch with a seed; for zero, one is drawn.
func newFaultSwitch(seed uint64) *faultSwitch {
	for seed == 0 {
		seed = rand.Uint64()
	}
	return &faultSwitch{seed: seed, changed: make(chan struct{})}
}

// get gives the faults that are set, nil if there are none.
func (w *faultSwitch) get() *faultSet { return w.current.Load() }

// watch gives the faults that are set, and what is closed when that changes.
func (w *faultSwitch) watch() (*faultSet, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current.Load(), w.changed
}

// set replaces all faults. Their windows, counts and dice begin now.
func (w *faultSwitch) set(faults []Fault) error {
	if len(faults) > faultLimit {
		return &ConfigError{fmt.Errorf("%d faults at a time are too many; %d are taken", len(faults), faultLimit)}
	}
	for _, f := range faults {
		if err := f.check(); err != nil {
			return err
		}
	}
	var next *faultSet
	if len(faults) > 0 {
		next = &faultSet{
			faults: append([]Fault(nil), faults...),
			seed:   w.seed,
			since:  time.Now(),
			counts: map[faultCount]int{},
			calls:  map[int][]time.Time{},
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current.Store(next)
	close(w.changed)
	w.changed = make(chan struct{})
	return nil
}

// faultSet is faults that were set together. A nil set has none.
type faultSet struct {
	faults []Fault
	seed   uint64
	since  time.Time

	mu     sync.Mutex // guards the rest
	counts map[faultCount]int
	calls  map[int][]time.Time // within the last second, of a throttle
}

// faultCount is what happenings are counted for: a fault and a session.
type faultCount struct {
	fault   int
	session string
}

// all gives the faults.
func (s *faultSet) all() []Fault {
	if s == nil {
		return nil
	}
	return s.faults
}

// allowed counts one happening of a fault for a session, unless it has happened
// often enough.
func (s *faultSet) allowed(fault int, session string) bool {
	times := s.faults[fault].Times
	if times == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	count := faultCount{fault, session}
	if s.counts[count] >= times {
		return false
	}
	s.counts[count]++
	return true
}

// forget drops what was counted for a session.
func (s *faultSet) forget(session string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.faults {
		delete(s.counts, faultCount{i, session})
	}
}

// happens gives the first fault of a kind that happens to a session now, and counts
// it. The windows of these faults are counted from when they were set.
func (s *faultSet) happens(kind FaultKind, session string) (Fault, bool) {
	for i, f := range s.all() {
		if f.Kind == kind && f.open(time.Now(), s.since) && s.allowed(i, session) {
			return f, true
		}
	}
	return Fault{}, false
}

// rate gives the bytes a second that a socket carries in a direction; zero is no
// limit.
func (s *faultSet) rate(toward Direction) int {
	for _, f := range s.all() {
		if f.Kind == FaultSlow && f.goes(toward) && f.open(time.Now(), s.since) {
			return f.Rate
		}
	}
	return 0
}

// expired tells whether a fault makes a key expired that was given at a time.
func (s *faultSet) expired(issued time.Time) bool {
	for _, f := range s.all() {
		if f.Kind == FaultExpireCredentials && f.open(time.Now(), s.since) && issued.Before(s.since.Add(f.After)) {
			return true
		}
	}
	return false
}

// throttled counts one call, and tells whether it is one too many.
func (s *faultSet) throttled() bool {
	now := time.Now()
	for i, f := range s.all() {
		if f.Kind != FaultThrottle || !f.open(now, s.since) {
			continue
		}
		if f.Rate == 0 && s.allowed(i, "") || f.Rate != 0 && !s.withinRate(i, now) {
			return true
		}
	}
	return false
}

// withinRate tells whether there is room within the last second for a call.
func (s *faultSet) withinRate(fault int, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls[fault]
	for len(calls) > 0 && now.Sub(calls[0]) >= time.Second {
		calls = calls[1:]
	}
	within := len(calls) < s.faults[fault].Rate
	if within {
		calls = append(calls, now)
	}
	s.calls[fault] = calls
	return within
}

// SetFaults replaces all faults that are set; without any, all is well again. It may
// be called at any time. Dice, counts and times start anew. The error is a
// *ConfigError, and then nothing has changed.
func (s *Server) SetFaults(faults ...Fault) error {
	if err := s.faults.set(faults); err != nil {
		return err
	}
	s.log.Info("faults set", "faults", faults, "seed", s.faults.seed)
	return nil
}

// FaultSeed is what the dice of faults are seeded with: Config.FaultSeed, or what
// was drawn instead.
func (s *Server) FaultSeed() uint64 { return s.faults.seed }

// errThrottled is what a call gets that is one too many, in AWS's words.
var errThrottled = common("ThrottlingException", "Rate exceeded")

// callFault makes a call fail that is to: the error is what it is answered with. Who
// has not signed has no key that could have expired.
func (s *Server) callFault(who principal) error {
	set := s.faults.get()
	switch {
	case set == nil:
		return nil
	case set.throttled():
		return errThrottled
	case who.key.AccessKeyID != "" && set.expired(who.issued):
		return errExpiredToken
	}
	return nil
}

// faultFor gives the fault of a kind that happens to a session now. What callers take
// for one is of their choice: sessions that are not known are counted together.
func (s *Server) faultFor(kind FaultKind, sessionID string) (Fault, bool) {
	set := s.faults.get()
	if set != nil && s.sessions.find(sessionID) == nil {
		sessionID = ""
	}
	return set.happens(kind, sessionID)
}

// resumeFault makes a ResumeSession fail that is to.
func (s *Server) resumeFault(sessionID string) error {
	f, happens := s.faultFor(FaultResume, sessionID)
	if !happens {
		return nil
	}
	switch f.Code {
	case "InternalServerError":
		return asAPIError(nil)
	case "ServiceUnavailable":
		return &apiError{http.StatusServiceUnavailable, f.Code, "message", "Service is unable to handle request."}
	case "AccessDeniedException":
		return s.accessDenied("ssm:ResumeSession", "arn:aws:ssm:"+s.cfg.Region+":"+s.cfg.AccountID+":session/"+sessionID)
	case "DoesNotExistException":
		return errNoSession(sessionID)
	case "ExpiredTokenException":
		return errExpiredToken
	case "ThrottlingException":
		return errThrottled
	case "UnrecognizedClientException":
		return errUnrecognizedClient
	}
	return common(f.Code, "Failed on order.")
}

// agentFaults are the faults that the agent of a session is to have. They are those
// that are set when it starts.
func (s *Server) agentFaults(sessionID string) agent.Faults {
	var faults agent.Faults
	for _, f := range s.faults.get().all() {
		switch f.Kind {
		case FaultBadChallenge:
			faults.BadChallenge = true
		case FaultBadOutput:
			faults.BadOutput = f.Messages + 1
		case FaultLateEncryption:
			faults.LateEncryption = f.Messages
		case FaultLateOpen:
			faults.LateOpening = f.Delay
		default: // not the agent's
			continue
		}
		s.log.Info("fault", "session", sessionID, "fault", f)
	}
	return faults
}

// tokenLife is how long a token is good for that is given to a session now. Below
// zero it has expired already.
func (s *Server) tokenLife(sessionID string) time.Duration {
	f, happens := s.faultFor(FaultExpireTokens, sessionID)
	switch {
	case !happens:
		return s.cfg.Limits.Token
	case f.Delay == 0:
		return -1
	}
	return f.Delay
}
