package proxy

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Error is a target that was not reached through its proxy. Its text is one
// line and holds neither a user name or password nor a word of the proxy's
// answer.
type Error struct {
	Proxy  string // host:port
	Target string // host:port
	Status int    // the HTTP status that refused CONNECT, or 0
	Err    error
}

func newError(s *server, addr string, err error) *Error {
	e := &Error{Proxy: s.url.Host, Target: addr, Err: err}
	if no := (*refusal)(nil); errors.As(err, &no) {
		e.Status = no.status
	}
	return e
}

func (e *Error) Error() string {
	if no := (*refusal)(nil); errors.As(e.Err, &no) {
		return fmt.Sprintf("the proxy %s refused to connect to %s: %v", e.Proxy, e.Target, e.Err)
	}
	return fmt.Sprintf("cannot connect to %s through the proxy %s: %s", e.Target, e.Proxy, oneLine(e.Err.Error()))
}

// oneLine leaves out what a terminal would obey: the names in a certificate are for
// whoever answers to choose.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// refusal is a proxy's no.
type refusal struct {
	status int // of HTTP, or 0
	reason string
	login  bool // it is about who we are, not about the target
}

func (r *refusal) Error() string { return r.reason }

// loginHint says what to do when a proxy does not let us in. supported tells
// whether it takes a user name and password at all.
func (s *server) loginHint(supported bool) string {
	_, _, tried := s.login()
	switch {
	case !supported:
		return "it wants a login of another kind than user name and password, which is not supported"
	case tried:
		return "the user name and password in " + s.variable + " are not accepted"
	default:
		return fmt.Sprintf("put a user name and password into %s, as in %s://user:password@%s",
			s.variable, s.url.Scheme, s.url.Host)
	}
}
