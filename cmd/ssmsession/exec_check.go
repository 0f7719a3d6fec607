package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/remote"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream"
)

// checkLimit is how long the session of a check may take, from StartSession to its
// end.
const checkLimit = time.Minute

// checkTries is how often it is tried at once when its session tells no status.
const checkTries = 3

// untold tells a session that was ended in order, without a status.
func untold(err error) bool {
	closed := (*stream.Closed)(nil)
	return errors.Is(err, session.ErrNoStatus) && errors.As(err, &closed)
}

// errCheckLimit is why one took too long.
var errCheckLimit = fmt.Errorf("no answer within %s", checkLimit)

// losses holds a token when the data channel has lost its connection.
type losses chan struct{}

// notice takes what happens to the data channel.
func (c losses) notice(n stream.Notice) {
	if n.Kind == stream.Reconnecting {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// checks has sessions of its own ask the wrapper of one command for a sign.
type checks struct {
	env   *env
	open  opening // a copy
	nonce string
	once  sync.Once // for what people are told
}

// newChecks makes those of a command that is held by c.open. There are none on
// "local", where nothing gets lost between two ends.
func (c *execCommand) newChecks(nonce string, lost losses) session.Check {
	if c.open.target == localTarget {
		return session.Check{}
	}
	k := &checks{env: c.env, open: c.open, nonce: nonce}
	k.open.unannounced = true
	k.open.document = cmp.Or(c.document, documentStreams)
	k.open.parsed = map[string][]string{"command": {remote.Probe(nonce)}, "separateOutputStream": {"true"}}
	maps.Copy(k.open.parsed, c.parameters)
	return session.Check{Ask: k.ask, Lost: lost, Haste: c.env.haste}
}

// ask is for session.Check. People hear of the first failure only.
func (k *checks) ask(ctx context.Context) (found bool, err error) {
	k.env.log.Debug("checking whether the output still comes")
	status, err := k.hold(ctx)
	for try := 1; untold(err) && try < checkTries && ctx.Err() == nil; try++ {
		status, err = k.hold(ctx)
	}
	if untold(err) && ctx.Err() == nil {
		// It has run each time: only its status was lost, as it is when the
		// service pauses its agent, too. An output that is read has the sign.
		k.env.log.Debug("checked, without a status", "error", err)
		return true, nil
	}
	if expired := (*api.Error)(nil); errors.As(err, &expired) && expired.Expired() {
		k.open.shared.forget() // the user may have logged in meanwhile
		status, err = k.hold(ctx)
	}
	if err == nil && status != remote.ProbeAsked && status != remote.ProbeNobody {
		err = errors.New("the target has no way to look for it")
	}
	k.env.log.Debug("checked", "status", status, "error", err)
	if err != nil && ctx.Err() == nil {
		k.once.Do(func() {
			why := err.Error()
			if p := explain(err); p != nil {
				why = p.message
			}
			k.env.warn("cannot check whether the output still comes: %s; --timeout bounds the wait", oneLine(why))
		})
	}
	return status == remote.ProbeAsked, err
}

// hold holds the session of one check, of which nobody is told.
func (k *checks) hold(ctx context.Context) (status int64, err error) {
	defer crash.Catch(&err)
	ctx, cancel := context.WithTimeoutCause(ctx, checkLimit, errCheckLimit)
	defer cancel()
	e := k.env.reporting(&report{people: &people{out: io.Discard}, quiet: true, log: k.env.log.With("of", "a check"), result: &result{}})
	open := k.open
	err = open.hold(context.WithValue(ctx, unattended{}, true), e, func(ctx context.Context, peer session.Peer) error {
		return session.Exec{Mode: session.Plain, Out: io.Discard, Err: io.Discard}.Run(ctx, peer)
	})
	if told := (*session.Status)(nil); errors.As(err, &told) {
		return told.Code, nil
	}
	if err == nil {
		err = session.ErrNoStatus
	}
	return 0, err
}
