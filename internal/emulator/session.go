package emulator

import (
	"context"
	"crypto/subtle"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// sessionStatus is a state of a session as DescribeSessions names it
// (docs/protocol.md, "Sessions of the service").
type sessionStatus string

// The states. A session goes from Connecting to Connected, to and fro between
// Connected and Disconnected, and ends as Terminated or Failed.

const (
	statusConnecting   sessionStatus = "Connecting"   // started, no client yet
	statusConnected    sessionStatus = "Connected"    // a client leg is there
	statusDisconnected sessionStatus = "Disconnected" // it was, and may come back
	statusTerminating  sessionStatus = "Terminating"  // TerminateSession was called
	statusTerminated   sessionStatus = "Terminated"
	statusFailed       sessionStatus = "Failed" // the agent says so, or no client came
)

// over tells whether nothing can come after s.
func (s sessionStatus) over() bool { return s == statusTerminated || s == statusFailed }

// ending is why the service ends a session that would have gone on. Output is
// what channel_closed says to the user.
type ending struct{ reason, output string }

func (e *ending) Error() string { return e.reason }

// The endings. The text for an idle session is the real service's; for the other
// two no real one is known. TerminateSession says nothing to the user.
var (
	errTerminated    = &ending{reason: "terminated by TerminateSession"}
	errIdle          = &ending{"idle for too long", "Your session timed out due to inactivity and has been terminated."}
	errMaxDuration   = &ending{"maximum duration reached", "Your session has reached its maximum duration and has been terminated."}
	errNeverAttached = &ending{reason: "no client opened the data channel"}
	errStopped       = &ending{"the emulator stops", "The local Session Manager was stopped."}
)

// Bounds of a session.
const (
	// toAgentLimit is how many bytes wait for an agent that reads slowly. It is
	// above the window of a sane client, so that its pings are read meanwhile.
	toAgentLimit = 1 << 20
	// drainLimit is the time for a client to take what is left at the end, and to
	// go. A client that knows that the session is over goes at once.
	drainLimit = time.Minute
	// stopGrace is the same when the emulator stops.
	stopGrace = 2 * time.Second
)

// session is one session, from StartSession to channel_closed. See the package
// comment for its goroutines.
//
// Its agent begins with the first client, not with StartSession: the real one may
// be earlier, but says nothing that a client without a socket could miss, as it
// repeats what is not acknowledged.
type session struct {
	sessionSpec
	number  int // its place among all sessions
	started time.Time
	log     *slog.Logger

	ctx      context.Context // ends with the session; the cause is an *ending
	cancel   context.CancelCauseFunc
	stop     <-chan struct{} // the server stops
	done     chan struct{}   // closed when nothing of the session is left
	toAgent  *queue
	attached chan struct{} // closed when the first client is there
	overRate chan struct{} // holds a token when the client has been paused
	active   atomic.Int64  // when stream data last passed, in Unix nanoseconds
	opened   atomic.Int64  // when the first client was there, likewise

	toAgentLine, toClientLine *faultLine // for frames that meet faults

	mu           sync.Mutex // guards the rest
	status       sessionStatus
	ended        time.Time
	token        string // the one that opens the data channel; empty once used
	tokenExpires time.Time
	leg          *leg // the client's, nil while there is none
	meter        meter
}

// sessionSpec is what a session is started with.
type sessionSpec struct {
	id, target, documentName, reason, owner string
	limits                                  sessionLimits
	rateLimited                             bool
	agent                                   agent.Config
	play                                    playFunc
	faults                                  *faultSwitch
}

// playFunc plays the agent of a session: agent.Run, but in tests of the gateway.
type playFunc func(context.Context, agent.Config, agent.Leg) agent.Result

// sessionLimits are the service's: zero is no limit.
type sessionLimits struct {
	attach, idle, maximum time.Duration
}

// run plays the session: waits for the first client, plays the agent until its
// program ends or the service ends it, says so. It returns when the agent and the client's leg are gone.
func (s *session) run() {
	defer close(s.done)
	var clock sync.WaitGroup
	clock.Go(s.watch)
	defer clock.Wait()
	defer s.cancel(nil)
	defer s.toAgentLine.close()
	defer s.toClientLine.close()

	var result agent.Result
	select {
	case <-s.attached:
		result = s.play(s.ctx, s.agent, &agentLeg{session: s})
	case <-s.ctx.Done():
	}
	s.finish(result)
}

// watch ends the session when one of its limits is reached. It sleeps until the
// next of them: when stream data passes, only a time is noted, and what is left of
// the idle time is found out when it would have been over.
func (s *session) watch() {
	attach := after(s.limits.attach)
	maximum := after(s.limits.maximum)
	var idle <-chan time.Time // runs from the first attach on
	var lift <-chan time.Time // after a pause for the rate
	attached := s.attached
	for {
		select {
		case <-attached:
			attached, attach, idle = nil, nil, after(s.limits.idle)
		case <-attach:
			s.cancel(errNeverAttached)
		case <-maximum:
			s.cancel(errMaxDuration)
		case <-idle:
			quiet := time.Since(time.Unix(0, s.active.Load()))
			if quiet >= s.limits.idle {
				s.cancel(errIdle)
			}
			idle = after(s.limits.idle - quiet)
		case <-s.overRate:
			lift = after(ratePause)
		case <-lift:
			s.liftPause()
		case <-s.ctx.Done():
			return
		}
	}
}

// after is time.After with no limit for zero and less.
func after(d time.Duration) <-chan time.Time {
	if d <= 0 {
		return nil
	}
	return time.After(d)
}

// finish tells the client that the session is over, once it has everything that
// came before, and waits for it to go. Of two reasons to end, the service's counts.
//
// A client that is not there is not waited for: its ResumeSession will get no
// token, and it has the agent's last words only as far as they were acknowledged.
func (s *session) finish(result agent.Result) {
	status, output := statusTerminated, result.Output
	if result.Status == agent.StatusFailed {
		status = statusFailed
	}
	var why *ending
	if errors.As(context.Cause(s.ctx), &why) {
		status, output = statusTerminated, why.output
		if why == errNeverAttached {
			status = statusFailed
		}
	}
	s.mu.Lock()
	s.status, s.ended, s.token = status, time.Now(), ""
	l := s.leg
	s.mu.Unlock()
	s.toClientLine.drain(s.stop)
	s.toAgent.discard() // the session itself is remembered for long
	s.log.Info("session ended", "session", s.id, "status", status, "output", output)
	if l == nil {
		return
	}
	l.finish(channelClosed(s.id, output))
	select {
	case <-l.done:
	case <-time.After(drainLimit):
	case <-s.stop:
		select {
		case <-l.done:
		case <-time.After(stopGrace):
		}
	}
	l.close()
	<-l.done
}

// terminate ends the session as TerminateSession does. It does not wait.
func (s *session) terminate() {
	s.mu.Lock()
	if !s.status.over() {
		s.status = statusTerminating
	}
	s.mu.Unlock()
	s.cancel(errTerminated)
}

// newToken makes a token that opens the data channel once, instead of any earlier
// one. A session that is over, or about to be, has none.
func (s *session) newToken(life time.Duration) (token string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.over() || s.status == statusTerminating {
		return "", false
	}
	s.token, s.tokenExpires = randomToken(), time.Now().Add(life)
	return s.token, true
}

// The reasons to refuse a client's leg. The client sees only that its socket is
// closed.
var (
	errOver     = errors.New("session is over")
	errBadToken = errors.New("token is not valid")
)

// attach makes l the client's leg if token opens the channel now. A leg that was
// there before is closed.
func (s *session) attach(l *leg, token string) error {
	old, err := s.swapLeg(l, token)
	if old != nil {
		old.close()
	}
	return err
}

// swapLeg is attach but for closing the older leg, which may take a moment and is
// not to be done under the lock. Both ends learn that the other one is there before
// they get anything else.
func (s *session) swapLeg(l *leg, token string) (old *leg, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.over() || s.ctx.Err() != nil {
		return nil, errOver
	}
	good := subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) == 1
	if !good || s.token == "" || time.Now().After(s.tokenExpires) {
		return nil, errBadToken
	}
	old = s.leg
	s.token, s.leg, s.status, s.meter = "", l, statusConnected, meter{}
	s.touch()
	l.out.force(publication(frame.StartPublication))
	s.toAgent.force(publication(frame.StartPublication))
	select {
	case <-s.attached:
	default:
		s.opened.Store(time.Now().UnixNano())
		close(s.attached)
	}
	return old, nil
}

// detach takes the leg away that has lost its socket, unless a newer one has
// replaced it. The agent is told to pause, which a real agent is, too.
func (s *session) detach(l *leg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leg != l {
		return
	}
	s.leg = nil
	if s.status == statusConnected {
		s.status = statusDisconnected
	}
	s.toAgent.force(publication(frame.PausePublication))
}

// currentLeg is the client's leg, nil while there is none.
func (s *session) currentLeg() *leg {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leg
}

// touch notes that stream data passes now.
func (s *session) touch() { s.active.Store(time.Now().UnixNano()) }

// relayToAgent passes on one message of the client, unchanged unless by a fault.
// Every message in this direction comes through here. It waits while the agent takes
// nothing; ctx is the leg's.
func (s *session) relayToAgent(ctx context.Context, l *leg, message []byte) error {
	set := s.faults.get()
	if set == nil {
		return s.putToAgent(ctx, message)
	}
	if l.takesNothing() {
		return nil
	}
	err := s.toAgentLine.pass(ctx, set, time.Unix(0, s.opened.Load()), message)
	s.count(l, set)
	return err
}

// putToAgent is relayToAgent behind the faults.
func (s *session) putToAgent(ctx context.Context, message []byte) error {
	if isType(message, frame.InputStreamData) {
		s.touch()
	}
	err := s.toAgent.put(ctx, frame.Binary, message)
	if errors.Is(err, errQueueClosed) {
		return nil // the agent is gone: dropped
	}
	return err
}

// relayToClient passes on one message of the agent, unchanged unless by a fault.
// Every message in this direction comes through here. While no client is there, it
// is dropped: the agent sends it again. It waits while the client reads nothing,
// until that reads, goes, or is replaced; ctx is the agent's.
func (s *session) relayToClient(ctx context.Context, message []byte) error {
	if isType(message, frame.AgentSessionState) {
		return nil // it is for the service
	}
	set := s.faults.get()
	if set == nil {
		return s.putToClient(ctx, message)
	}
	l := s.currentLeg()
	if l == nil {
		return context.Cause(ctx)
	}
	err := s.toClientLine.pass(ctx, set, time.Unix(0, s.opened.Load()), message)
	s.count(l, set)
	return err
}

// putToClient is relayToClient behind the faults.
func (s *session) putToClient(ctx context.Context, message []byte) error {
	l := s.currentLeg()
	if l == nil {
		return context.Cause(ctx)
	}
	if isType(message, frame.OutputStreamData) {
		s.touch()
	}
	err := l.out.put(ctx, frame.Binary, message)
	if errors.Is(err, errQueueClosed) {
		return nil // it went with its leg
	}
	return err
}

// agentLeg is the agent's data channel. It implements agent.Leg. The agent receives
// one message at a time; they are taken from the queue all at once.
type agentLeg struct {
	session *session
	batch   frame.Batch
	next    int
}

// Send implements agent.Leg.
func (a *agentLeg) Send(ctx context.Context, message []byte) error {
	return a.session.relayToClient(ctx, message)
}

// Receive implements agent.Leg.
func (a *agentLeg) Receive(ctx context.Context) ([]byte, error) {
	if a.next == a.batch.Len() {
		a.next = 0
		if err := a.session.toAgent.take(ctx, &a.batch); err != nil {
			return nil, err
		}
	}
	_, message := a.batch.Message(a.next)
	a.next++
	return message, nil
}
