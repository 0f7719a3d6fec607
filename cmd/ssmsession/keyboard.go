package main

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// keyboard is the terminal as a session.Input. The terminal becomes raw when the
// session begins and not before: until then Ctrl-C ends this program, as anywhere,
// and what is typed ahead waits where the shell finds it if nothing comes of the
// session.
type keyboard struct {
	env      *env
	terminal *tty.Terminal
	peer     session.Peer
	escapes  *tty.Escapes
	leave    func()

	in   *input        // nil before the first Read has made the terminal raw
	pass func()        // opens the gate
	open chan struct{} // closed then

	mu   sync.Mutex // guards undo
	undo func() error
}

func newKeyboard(e *env, t *tty.Terminal, peer session.Peer, escapes *tty.Escapes, leave func()) *keyboard {
	k := &keyboard{env: e, terminal: t, peer: peer, escapes: escapes, leave: leave, open: make(chan struct{})}
	k.pass = sync.OnceFunc(func() { close(k.open) })
	return k
}

// Read gives what was typed next, but for the escapes.
func (k *keyboard) Read(ctx context.Context) ([]byte, error) {
	if k.in == nil {
		if _, err := k.peer.Started(ctx); err != nil {
			k.pass() // there may be output all the same
			return nil, err
		}
		if err := k.makeRaw(); err != nil {
			return nil, err
		}
		k.pass()
		k.in = newInput(k.env.in, k.escapes, k.act)
	}
	return k.in.Read(ctx)
}

func (k *keyboard) act(a tty.Action) {
	switch a {
	case tty.Disconnect:
		k.leave()
	case tty.Help:
		if k.env.status != nil {
			_, _ = io.WriteString(k.env.status, k.escapes.Help()) // as to people
			return
		}
		k.env.people.printf("%s", k.escapes.Help())
	}
}

func (k *keyboard) makeRaw() error {
	undo, err := k.terminal.Raw()
	if err != nil {
		return &terminalError{fmt.Errorf("cannot set up the terminal: %w", err)}
	}
	k.mu.Lock()
	k.undo = undo
	k.mu.Unlock()
	k.env.people.raw.Store(true)
	return nil
}

// restore puts the terminal back. Nothing of the session may run any more that
// could still make it raw.
func (k *keyboard) restore() error {
	k.mu.Lock()
	undo := k.undo
	k.mu.Unlock()
	if undo == nil {
		return nil
	}
	k.env.people.raw.Store(false)
	if err := undo(); err != nil {
		return &terminalError{err}
	}
	return nil
}

// gate holds the session's output back until the terminal is raw: it is meant for
// one that changes nothing in it.
func (k *keyboard) gate(ctx context.Context, out io.Writer) io.Writer {
	return &gated{Writer: out, open: k.open, ended: ctx.Done()}
}

type gated struct {
	io.Writer
	open, ended <-chan struct{}
}

// Write implements io.Writer.
func (g *gated) Write(p []byte) (int, error) {
	select {
	case <-g.open:
	case <-g.ended: // it will never be raw, and this is all there is
	}
	return g.Writer.Write(p)
}

// terminalError is a terminal that could not be set up or put back.
type terminalError struct{ err error }

func (e *terminalError) Error() string { return e.err.Error() }
func (e *terminalError) Unwrap() error { return e.err }
