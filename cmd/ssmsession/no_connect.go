package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ssmsession/ssmsession/internal/events"
	"github.com/ssmsession/ssmsession/internal/plugin"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// handOn is what start does with --no-connect: it prints the response that opens
// the session, and holds none.
type handOn struct {
	asked     bool
	showToken bool
}

func (h *handOn) addFlags(f *pflag.FlagSet) {
	f.BoolVar(&h.asked, "no-connect", false, "with --output json: start the session and print what opens it, for ssmsession connect")
	f.BoolVar(&h.showToken, "show-token", false, "with --no-connect: print it on a terminal, too")
}

// complete refuses what cannot be meant.
func (h *handOn) complete(cmd *cobra.Command, e *env, o *opening) error {
	switch {
	case h.showToken && !h.asked:
		return usage(cmd, errors.New("--show-token is of --no-connect, and nothing else shows one"))
	case !h.asked:
		return nil
	case o.output != outputJSON:
		return usage(cmd, errors.New("--no-connect prints a document: add --output json"))
	case o.target == localTarget:
		return usage(cmd, fmt.Errorf("a session on %s ends with this program: nobody can connect to it", localTarget))
	case !h.showToken && tty.New(e.in, e.out).OutIsTerminal():
		return usage(cmd, errors.New("the response holds a token, whoever has it gets the session: pipe it, or add --show-token"))
	}
	return nil
}

// start starts a session and prints the response. A session whose response nobody
// got is ended.
func (h *handOn) start(ctx context.Context, e *env, o *opening) (err error) {
	ctx, clock := newOpeningClock(ctx, o.name(), o.connectTimeout)
	defer clock.stop()
	svc, err := o.connect(ctx, e, clock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.close()) }()
	grant, err := o.start(ctx, e, svc)
	if err != nil {
		return err
	}
	e.result.begin(grant.SessionID, time.Now())
	e.watch.Emit(events.Started{SessionID: grant.SessionID, Target: o.target, Document: o.document})
	document, err := plugin.NewResponse(grant.SessionID, grant.Token.Reveal(), grant.StreamURL, o.target).Document()
	if err == nil {
		e.result.asked = false // the response is the document
		if _, writeErr := e.out.Write(document); writeErr != nil {
			err = &session.WriteError{Err: writeErr}
		}
	}
	if err != nil {
		return errors.Join(err, terminate(ctx, svc.client.Load(), grant.SessionID, e.patience()))
	}
	e.say("session %s on %s waits to be connected to", oneLine(grant.SessionID), oneLine(o.target))
	return nil
}
