package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// forwardStatus is the line at the bottom of a terminal that tells what goes
// through the tunnels. While none carries anything, it stands still and costs
// nothing.
type forwardStatus struct {
	line  *tty.StatusLine
	woken chan struct{}
	quit  chan struct{}
	wg    sync.WaitGroup
}

// statusEvery is how often the line is drawn while something is carried.
const statusEvery = time.Second

// showStatus starts the line, where there is a terminal for it, and gives what
// ends it. What people are told goes above the line. A mistake of ours in it is
// given to end.
func (c *forwardCommand) showStatus(tunnels []*tunnel, end func(error)) (stop func()) {
	e := c.env
	terminal := tty.New(e.in, e.err)
	term := e.getenv("TERM")
	_, _, err := terminal.Size()
	if !terminal.OutIsTerminal() || err != nil || e.quiet || e.debug || c.background || len(c.command) > 0 || term == "dumb" {
		return func() {}
	}
	undo, err := terminal.Obey()
	if err != nil {
		e.log.Debug("there is no status line", "error", err)
		return func() {}
	}
	s := &forwardStatus{
		line:  tty.NewStatusLine(tty.NewWriter(e.err), terminal.Size),
		woken: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	plain := e.people.set(s)
	c.status = s
	s.wg.Go(func() { crash.Guard(end, func() { s.run(tunnels) }) })
	return func() {
		close(s.quit)
		s.wg.Wait()
		s.line.Show("")
		e.people.set(plain)
		if err := undo(); err != nil {
			e.log.Debug("the terminal keeps a setting of ours", "error", err)
		}
	}
}

// Write tells people something above the line, which that takes away for a moment.
func (s *forwardStatus) Write(p []byte) (int, error) {
	defer s.wake()
	return s.line.Write(p)
}

// wake tells that there is something new to show. It returns at once.
func (s *forwardStatus) wake() {
	if s == nil {
		return
	}
	select {
	case s.woken <- struct{}{}:
	default: // it is awake
	}
}

func (s *forwardStatus) run(tunnels []*tunnel) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	var before reading
	for {
		select {
		case <-s.woken:
			tick.Reset(statusEvery)
		case <-tick.C:
		case <-s.quit:
			return
		}
		now := read(tunnels)
		if before.at.IsZero() || now.at.Sub(before.at) >= statusEvery/2 {
			s.line.Show(now.since(before))
			if now.open == 0 && now.in == before.in && now.out == before.out {
				tick.Stop()
			}
			before = now
		}
	}
}

// reading is the counters of all tunnels at a time.
type reading struct {
	at                               time.Time
	open, opened, in, out, lost, cut int64
}

func read(tunnels []*tunnel) reading {
	r := reading{at: time.Now()}
	for _, t := range tunnels {
		if t == nil {
			continue
		}
		r.open += t.count.open.Load()
		r.opened += t.count.opened.Load()
		r.in += t.count.in.Load()
		r.out += t.count.out.Load()
		r.lost += t.count.reconnects.Load()
		if t.env.troubled.Load() {
			r.cut++
		}
	}
	return r
}

// since is the text of the line: what is, what was, and how fast it is.
func (r reading) since(before reading) string {
	text := fmt.Sprintf("%d open of %s, in %s", r.open, many(r.opened, "connection"), size(r.in))
	took := r.at.Sub(before.at).Seconds()
	if before.at.IsZero() || took <= 0 {
		took = 1
		before.in, before.out = r.in, r.out
	}
	text += fmt.Sprintf(" (%s/s), out %s (%s/s)", size(int64(float64(r.in-before.in)/took)),
		size(r.out), size(int64(float64(r.out-before.out)/took)))
	if r.lost > 0 {
		text += ", " + many(r.lost, "reconnect")
	}
	if r.cut > 0 {
		text += ", reconnecting"
	}
	return text
}

// set makes out the place where people are told, and gives the one before.
func (p *people) set(out io.Writer) (before io.Writer) {
	before, p.out = p.out, out
	return before
}
