package emulator

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"sync"
	"time"
)

// historyLimit is how many sessions that are over are remembered. The service has
// them for 30 days.
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

// find gives a session by its id, nil if there is none.
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
// is errStopped: a session that began while the server stops would be missed.
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
	one.toAgentLine = newFaultLine(ToAgent, one.number, one.putToAgent)
	one.toClientLine = newFaultLine(ToClient, one.number, one.putToClient)
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
		one.faults.get().forget(one.id)
		return true
	})
}

// randomToken makes a token. It is opaque to clients; this is how the real ones
// look: some 340 characters of base64 that begin with AAEA.
func randomToken() string {
	raw := make([]byte, 258)
	rand.Read(raw) // never fails
	copy(raw, []byte{0, 1, 0})
	return base64.StdEncoding.EncodeToString(raw)
}

// newSessionID is the caller's name and 17 hexadecimal digits, as the service has
// it (docs/protocol.md, "Control API").
func newSessionID() string {
	raw := make([]byte, 9)
	rand.Read(raw) // never fails
	return userName + "-" + hex.EncodeToString(raw)[:17]
}
