package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/events"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// How long the service may take to be told that a session is over: less when it
// is known not to be reached, for whoever gives up wants to be gone.
const (
	terminateTimeout   = 5 * time.Second
	terminateInTrouble = 800 * time.Millisecond
)

// hold holds one session from StartSession to its end, whatever command it is
// for. body is what is done over it; its error wraps io.EOF after a good end, as
// a session kind's does.
func (o *opening) hold(ctx context.Context, e *env, body func(context.Context, session.Peer) error) (err error) {
	if o.target != localTarget {
		oneProcessor(e) // the emulator of "local" has work of its own
	}
	ctx, clock := newOpeningClock(ctx, o.name(), o.connectTimeout)
	defer clock.stop()
	svc, err := o.connect(ctx, e, clock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.close()) }()
	if o.prepare != nil {
		if err := o.prepare(ctx, svc.client.Load()); err != nil {
			return err
		}
	}
	grant, err := o.start(ctx, e, svc)
	if err != nil {
		return err
	}
	over := false // so that there is nothing to terminate
	end := func() {
		if !over {
			err = e.and(err, o.end(ctx, e, svc, grant.SessionID, err))
		}
		over = true
	}
	defer end()
	e.result.begin(grant.SessionID, time.Now())
	e.watch.Emit(events.Started{SessionID: grant.SessionID, Target: o.target, Document: o.document})
	o.announce(e, grant)

	config := o.streamConfig(e, svc, grant)
	teller := newTeller(e, o.escapes)
	defer teller.stop()
	config.Notify = func(n stream.Notice) {
		clock.notice(n)
		e.notice(n)
		teller.notice(n)
	}
	o.onceOnly(&config)
	clock.at("the data channel")
	channel := stream.Open(ctx, config)
	err = o.carry(ctx, e, channel, body)
	closed := (*stream.Closed)(nil)
	if over = errors.As(err, &closed); !over {
		if ofCommand(err) {
			end() // while the channel is there: an agent waits for it otherwise
			o.seeOut(ctx, channel)
		}
		if !o.told { // else the agent's word for it is on its way
			clock.end(err) // nothing is waited for any more
		}
	}
	if closeErr := channel.Close(); closeErr != nil && !errors.Is(err, closeErr) {
		err = e.and(err, closeErr)
	}
	e.result.stats, e.result.byRemote = channel.Stats(), closed != nil
	return e.conclude(err, closed, begun(ctx, channel))
}

// announce tells people which session it is, and how to leave it.
func (o *opening) announce(e *env, grant api.Grant) {
	switch {
	case o.unannounced:
		e.log.Debug("session", "id", grant.SessionID, "target", o.target)
	case e.texts != nil:
		e.texts.starting()
	case o.target == "":
		e.say("session %s%s", oneLine(grant.SessionID), o.escapeHint(e))
	default:
		e.say("session %s on %s%s", oneLine(grant.SessionID), oneLine(o.target), o.escapeHint(e))
	}
}

// and adds to err what failed on the way out. Nobody needs to know of that who has
// the command's own status.
func (e *env) and(err, late error) error {
	if late != nil && ofCommand(err) {
		e.log.Debug("failed after the command had ended", "error", late)
		return err
	}
	return errors.Join(err, late)
}

// ofCommand tells that a command has ended with a status of its own.
func ofCommand(err error) bool {
	status := (*session.Status)(nil)
	return errors.As(err, &status)
}

// seeOut waits until the agent of the built-in emulator, which has to end before
// we do, has ended a session that is terminated.
func (o *opening) seeOut(ctx context.Context, channel *stream.Channel) {
	if o.target != localTarget {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), terminateInTrouble)
	defer cancel()
	for {
		if _, _, err := channel.Recv(ctx); err != nil {
			return // as it should
		}
	}
}

// startGrace is how long a StartSession that is not wanted any more is waited
// for: what it grants has to be ended.
const startGrace = time.Second

// start asks for the session. The end of ctx does not leave behind a session that
// the service was just granting.
func (o *opening) start(ctx context.Context, e *env, svc *service) (api.Grant, error) {
	if o.given != nil {
		return *o.given, nil
	}
	call, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(startGrace):
			cancel(context.Cause(ctx))
		case <-call.Done():
		}
	})
	defer stop()
	grant, err := svc.client.Load().Start(call, o.request())
	if err != nil && ctx.Err() != nil {
		cause := context.Cause(ctx)
		if late := (*failure)(nil); call.Err() == nil {
			return api.Grant{}, cause // it is known that nothing was granted
		} else if errors.As(cause, &late) {
			return api.Grant{}, &failure{code: late.code, err: late.err,
				hint: late.hint + "; a session that was started all the same ends by its idle timeout"}
		}
		e.say("left without waiting for the service; a session that it started all the same ends by its idle timeout")
		return api.Grant{}, cause
	}
	return grant, err
}

// carry runs body over an open channel and tells when the session is ready.
func (o *opening) carry(ctx context.Context, e *env, channel *stream.Channel, body func(context.Context, session.Peer) error) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	told := make(chan struct{})
	wg.Go(func() {
		defer close(told)
		crash.Guard(cancel, func() { o.ready(ctx, e, channel) })
	})
	peer, rest := newIdler(&toldOf{Channel: channel, told: told}, e.collector)
	defer func() {
		rest()
		cancel(nil)
		wg.Wait()
	}()
	defer crash.Catch(&err)
	return body(ctx, peer)
}

// toldOf is a channel whose session has begun only once that was told: what a body
// says comes after it.
type toldOf struct {
	*stream.Channel
	told <-chan struct{}
}

// Started implements session.Peer.
func (t *toldOf) Started(ctx context.Context) (frame.Start, error) {
	start, err := t.Channel.Started(ctx)
	if err != nil {
		return start, err
	}
	select {
	case <-t.told:
		return start, nil
	case <-ctx.Done():
		return frame.Start{}, context.Cause(ctx)
	}
}

// ready tells that the session has begun, once it has.
func (o *opening) ready(ctx context.Context, e *env, channel *stream.Channel) {
	start, err := channel.Started(ctx)
	if err != nil {
		return // which body is told as well
	}
	e.watch.Emit(events.Ready{SessionType: string(start.SessionType), AgentVersion: start.AgentVersion, KMSKeyID: start.KMSKeyID})
	switch {
	case start.CustomerMessage == "":
	case o.unannounced: // stderr is a command's, or another program's
		e.log.Debug("the agent says", "message", start.CustomerMessage)
	case e.texts != nil && start.SessionType == frame.Port: // said before its bytes
	case e.texts != nil:
		e.texts.message(start.CustomerMessage)
	default:
		e.say("%s", oneLine(start.CustomerMessage))
	}
}

// notice passes on what happens to the data channel. It must return at once.
func (e *env) notice(n stream.Notice) {
	switch n.Kind {
	case stream.Reconnecting:
		e.troubled.Store(true)
		e.watch.Emit(events.Reconnecting{Attempt: n.Attempt, Reason: reasonOf(n.Err), For: n.For})
	case stream.Unanswered:
		e.troubled.Store(true)
	case stream.Answered:
		e.troubled.Store(false)
	case stream.Resumed:
		e.troubled.Store(false)
		e.watch.Emit(events.Resumed{After: n.For})
	case stream.Paused:
		e.watch.Emit(events.Paused{})
	}
	if e.noticed != nil {
		e.noticed(n)
	}
}

// begun tells whether the session had begun before its channel ended.
func begun(ctx context.Context, channel *stream.Channel) bool {
	_, err := channel.Started(context.WithoutCancel(ctx))
	return err == nil
}

// conclude says how the session ended and turns its end into the command's.
func (e *env) conclude(err error, closed *stream.Closed, begun bool) error {
	var (
		exit    *session.ExitError
		restore *terminalError
	)
	e.texts.closed(closed)
	switch {
	case ofCommand(err):
		return err // which is all there is to know
	case errors.Is(err, errDisconnected) && e.troubled.Load():
		return &failure{code: "SessionLost", err: errors.New("left while the session could not be reached")}
	case errors.Is(err, errDisconnected):
		e.say("disconnected")
		return nil
	case closed == nil:
		return err
	case closed.Refused != "":
		return &failure{code: "NotSupported",
			err: fmt.Errorf("the session was closed because this client could not do what it asked: %s", closed.Refused)}
	case closed.Incomplete:
		return &failure{code: "Incomplete",
			err: errors.New("the session was closed before all of its output had arrived")}
	case (!begun || e.texts == nil && errors.As(err, new(*notReadyError))) && closed.Output != "":
		// Without a word of the service's it is a command that had nothing to
		// say and ended before that was clear.
		return notBegun(closed.Output)
	case unfinished(err):
		return err // which has the service's words
	}
	if closed.Output != "" && e.texts == nil {
		e.say("session closed: %s", oneLine(closed.Output))
	}
	switch {
	case errors.As(err, &exit):
		return exit
	case errors.As(err, &restore):
		return restore
	}
	return nil
}

// notBegun is a session that was closed before it began, with the agent's words or
// the service's. Of the key of an encrypted session an agent passes on what KMS has
// told it.
func notBegun(output string) *failure {
	words := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(output), "----------ERROR-------"))
	f := &failure{code: "NotBegun", err: fmt.Errorf("the session was closed before it began: %s", words)}
	if !strings.Contains(words, "decrypting data key") {
		return f
	}
	f.code = "NoKey"
	switch {
	case strings.Contains(words, "AccessDenied"):
		f.hint = "the account encrypts its sessions: the role of the node needs kms:Decrypt on the key"
	case strings.Contains(words, "InvalidCiphertext"):
		f.hint = "the key is bound to the target: name it as its agent calls itself"
	}
	return f
}

// unfinished tells that a command's session closed without its status, for which
// no end is a good one.
func unfinished(err error) bool {
	var (
		incomplete *session.IncompleteError
		noShell    *session.NoShellError
		cannot     *session.CannotError
		signalled  *session.StatusError
	)
	return errors.As(err, &incomplete) || errors.As(err, &noShell) || errors.As(err, &cannot) ||
		errors.As(err, &signalled) || errors.Is(err, session.ErrNoStatus)
}

// patience is how long the end of a session may take.
func (e *env) patience() time.Duration {
	if e.troubled.Load() {
		return terminateInTrouble
	}
	return terminateTimeout
}

// terminate ends a session that has not ended by itself, whatever ended us, in
// a time of its own.
func terminate(ctx context.Context, client *api.Client, sessionID string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := client.Terminate(ctx, sessionID); err != nil {
		return &leftError{err}
	}
	return nil
}

// leftError is why a session was left behind.
type leftError struct{ err error }

func (l *leftError) Error() string {
	return "the session may live on until its idle timeout: " + l.err.Error()
}

func (l *leftError) Unwrap() error { return l.err }

// openingClock ends an opening that takes too long: the API call, the dial and
// the first message together.
type openingClock struct {
	limit time.Duration
	timer *time.Timer // nil for no limit
	stage atomic.Pointer[string]
	lost  atomic.Pointer[string] // why the connection was lost last
	end   context.CancelCauseFunc
}

// newOpeningClock starts the clock. The context ends, with a *failure as its
// cause, when limit is over; 0 is no limit.
func newOpeningClock(ctx context.Context, target string, limit time.Duration) (context.Context, *openingClock) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &openingClock{limit: limit, end: cancel}
	c.at(stageAPI)
	if limit > 0 {
		c.timer = time.AfterFunc(limit, func() { cancel(c.failure(target, limit)) })
	}
	return ctx, c
}

// stageAPI is the first thing that is waited for.
const stageAPI = "Systems Manager"

// at says from whom something is awaited now.
func (c *openingClock) at(stage string) { c.stage.Store(&stage) }

// asking lets a user take as long as they like over a question. It takes and
// gives nil where nobody can be asked.
func (c *openingClock) asking(prompt func(context.Context, string) (string, error)) func(context.Context, string) (string, error) {
	if prompt == nil || c.timer == nil {
		return prompt
	}
	return func(ctx context.Context, question string) (string, error) {
		if c.timer.Stop() {
			defer c.timer.Reset(c.limit)
		}
		return prompt(ctx, question)
	}
}

func (c *openingClock) failure(target string, limit time.Duration) error {
	why := ""
	if lost := c.lost.Load(); lost != nil {
		why = ": " + *lost
	}
	hint := "check that the node is online and its agent runs"
	if *c.stage.Load() == stageAPI {
		hint = "check the network, the endpoint and the proxy, if there is one"
	}
	return &failure{
		code: "ConnectTimeout",
		hint: hint + "; --connect-timeout sets the time",
		err:  fmt.Errorf("no answer from %s for %s within %s%s", *c.stage.Load(), target, limit, why),
	}
}

// notice takes what the data channel tells: its first message ends the opening.
// A handshake is part of it, and takes its time anew.
func (c *openingClock) notice(n stream.Notice) {
	switch n.Kind {
	case stream.Heard, stream.Began:
		if c.timer != nil {
			c.timer.Stop()
		}
	case stream.Asked:
		c.at("the agent")
		if c.timer != nil {
			c.timer.Reset(c.limit)
		}
	case stream.Reconnecting:
		if n.Err != nil {
			why := n.Err.Error()
			c.lost.Store(&why)
		}
	}
}

// stop ends the clock and its context.
func (c *openingClock) stop() {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.end(nil)
}
