package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/events"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// trafficEvery is how often counters are written as events, if they have changed.
const trafficEvery = 10 * time.Second

// run listens, opens the sessions and carries connections until something ends
// that.
func (c *forwardCommand) run(ctx context.Context) (err error) {
	if len(c.command) > 0 {
		if _, err := exec.LookPath(c.command[0]); err != nil {
			return c.cannotRun(err)
		}
	}
	c.open.shared = &sharing{}
	defer func() { err = afterwards(err, errors.Join(c.open.shared.end()...)) }()
	// With a command, signals are the command's: what they end is not ctx's.
	held, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	release := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	defer release()

	tunnels, err := c.listen(held)
	if err != nil {
		return err
	}
	stopStatus := c.showStatus(tunnels, cancel)
	var wg sync.WaitGroup
	c.start(held, cancel, &wg, tunnels)
	wg.Go(func() { crash.Guard(cancel, func() { c.report(held, tunnels) }) })
	end := func(cause error) error {
		cancel(cause)
		wg.Wait()
		stopStatus()
		return c.conclude(context.Cause(held), tunnels)
	}
	up, err := c.await(held, tunnels)
	if err != nil {
		return end(err)
	}
	remove, err := c.writePidFile() // which whoever reads the lines may look for
	if err != nil {
		return end(err)
	}
	defer remove()
	if err := c.announce(up); err != nil {
		return end(err)
	}
	if err := c.detach(); err != nil {
		return end(err)
	}
	if len(c.command) > 0 {
		return end(c.runCommand(held, release, up))
	}
	<-held.Done()
	return end(nil)
}

// listen opens all listeners, before any session: a port that is in use costs
// none. With --best-effort the others are enough.
func (c *forwardCommand) listen(ctx context.Context) ([]*tunnel, error) {
	var tunnels []*tunnel
	for _, f := range c.forwards {
		t, err := newTunnel(ctx, c, f)
		switch {
		case err == nil:
			tunnels = append(tunnels, t)
		case c.bestEffort:
			c.env.fail("%s: %s", oneLine(remoteName(f, c.open.target)), oneLine(err.Error()))
			tunnels = append(tunnels, nil)
		default:
			for _, t := range tunnels {
				t.close()
			}
			return nil, err
		}
	}
	return tunnels, nil
}

// start runs the tunnels. Where somebody may be asked for a code, the others wait
// for the first: its clock stands still meanwhile, theirs would not.
func (c *forwardCommand) start(ctx context.Context, cancel context.CancelCauseFunc, wg *sync.WaitGroup, tunnels []*tunnel) {
	var before *tunnel
	for _, t := range tunnels {
		if t == nil {
			continue
		}
		first := before
		wg.Go(func() {
			if first != nil {
				select {
				case <-first.ready:
				case <-first.done:
				}
			}
			err := t.run(ctx)
			if !isClosed(t.ready) && c.bestEffort && ctx.Err() == nil {
				t.env.fail("%s", oneLine(err.Error()))
				t.told = true
				return
			}
			cancel(err)
		})
		if before == nil && c.env.prompt() != nil {
			before = t
		}
	}
}

// await waits until each tunnel is ready or given up, and gives those that are
// ready: nil in the place of one that is not.
func (c *forwardCommand) await(ctx context.Context, tunnels []*tunnel) (up []*tunnel, err error) {
	n := 0
	up = make([]*tunnel, len(tunnels))
	for i, t := range tunnels {
		if t == nil {
			continue
		}
		select {
		case <-t.ready:
			up[i] = t
			n++
		case <-t.done:
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case n == 0:
		return nil, &failure{code: "NotBegun", err: errors.New("nothing could be forwarded")}
	}
	return up, nil
}

// readyLine is one local end, in the array of --output json.
type readyLine struct {
	Local      string `json:"local"`
	Port       int    `json:"port,omitempty"`
	Socket     string `json:"socket,omitempty"`
	Remote     string `json:"remote"`
	Target     string `json:"target"`
	RemoteHost string `json:"remote_host,omitempty"`
	RemotePort int    `json:"remote_port"`
}

// announce tells that all is ready. Nothing else is on stdout, and with a command
// nothing at all.
func (c *forwardCommand) announce(up []*tunnel) error {
	var (
		lines []readyLine
		text  []byte
	)
	for _, t := range up {
		if t == nil {
			continue
		}
		for _, l := range t.listeners {
			local := localName(l)
			lines = append(lines, readyLine{
				Local: local, Port: localPortOf(l), Socket: t.forward.Socket,
				Remote: t.remote, Target: c.open.target, RemoteHost: t.forward.Host, RemotePort: t.forward.Port,
			})
			text = fmt.Appendf(text, "%s -> %s\n", oneLine(local), oneLine(t.remote))
			c.env.watch.Emit(events.Listening{Local: local, Remote: t.remote})
		}
	}
	if c.asJSON {
		doc, err := json.MarshalIndent(lines, "", "  ")
		if err != nil {
			return fmt.Errorf("cannot make the list: %w", err)
		}
		text = append(doc, '\n')
	}
	if _, err := c.readyOut().Write(text); err != nil {
		return &session.WriteError{Err: err}
	}
	c.env.result.asked = false // that was the document
	return nil
}

// readyOut is where the ready lines go.
func (c *forwardCommand) readyOut() io.Writer {
	onTerminal := tty.New(c.env.in, c.env.out).OutIsTerminal()
	switch {
	case len(c.command) > 0 && c.env.quiet:
		return io.Discard
	case len(c.command) > 0 || c.status != nil && onTerminal:
		return c.env.people // the status line would be in the way of others
	}
	return c.env.out
}

// report writes counters as events, until ctx ends.
func (c *forwardCommand) report(ctx context.Context, tunnels []*tunnel) {
	if c.env.watch == nil {
		return
	}
	told := map[*tunnel]events.Traffic{}
	for wait(ctx, trafficEvery) {
		for _, t := range tunnels {
			if t == nil {
				continue
			}
			if now := t.count.traffic(t.remote); now != told[t] {
				c.env.watch.Emit(now)
				told[t] = now
			}
		}
	}
}

// conclude sums up what the tunnels did, and joins to cause what failed on the
// way out.
func (c *forwardCommand) conclude(cause error, tunnels []*tunnel) error {
	stats := &c.env.result.stats
	for _, t := range tunnels {
		if t == nil {
			continue
		}
		stats.BytesIn += t.stats.BytesIn
		stats.BytesOut += t.stats.BytesOut
		stats.Retransmissions += t.stats.Retransmissions
		stats.Resumes += t.stats.Resumes
		stats.RoundTrip = max(stats.RoundTrip, t.stats.RoundTrip)
		traffic := t.count.traffic(t.remote)
		c.env.watch.Emit(traffic)
		if isClosed(t.ready) {
			t.env.say("%s", summary(traffic))
		}
		if !t.told {
			cause = afterwards(cause, t.err)
		}
	}
	return cause
}

// afterwards joins to err what the service said on the way out: only that is news.
func afterwards(err, more error) error {
	call := (*api.Error)(nil)
	if more == nil || errors.Is(err, more) || !errors.As(more, &call) && err != nil {
		return err
	}
	if own := (*localStatus)(nil); errors.As(err, &own) {
		return err // which is all there is to know
	}
	if errors.As(err, new(*api.Error)) {
		return err
	}
	return errors.Join(err, more)
}
