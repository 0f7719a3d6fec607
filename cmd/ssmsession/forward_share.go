package main

import "sync"

// sharing is one way to the service for several sessions, so that credentials are
// looked for, and people asked for them, once.
type sharing struct {
	mu    sync.Mutex
	have  *service // nil for none yet
	close []func() error
}

// get gives the service that connect makes if there is none. Its close does nothing:
// end's counts.
func (s *sharing) get(connect func() (*service, error)) (*service, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.have == nil {
		made, err := connect()
		if err != nil {
			return nil, err
		}
		s.close = append(s.close, made.close)
		made.close = func() error { return nil }
		s.have = made
	}
	return s.have, nil
}

// forget makes the next session connect anew: the credentials have expired.
func (s *sharing) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have = nil
}

// end closes what was made. No session may be left.
func (s *sharing) end() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, closeIt := range s.close {
		errs = append(errs, closeIt())
	}
	return errs
}
