package stream

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

const (
	redialBase = 100 * time.Millisecond
	redialCap  = 5 * time.Second
	// A link that has held for so long was of use, though nothing may have been to say.
	usefulAfter = time.Second
	firstDials  = 5 // attempts to get the first socket: three seconds at most, without what they take
)

// backoff is the wait before the n-th attempt to get a socket, n from 0:
// full jitter over an exponentially growing span, so that many clients cut at
// one moment do not come back at one moment. The first attempt is at once.
func backoff(attempt int) time.Duration {
	if attempt == 0 {
		return 0
	}
	span := redialCap
	if attempt < 7 {
		span = min(redialCap, redialBase<<attempt)
	}
	return rand.N(span)
}

// passing tells whether the reason why there is no first socket may be gone in a
// moment: the server is just being replaced, or too busy. A refusal, a certificate or
// a name that does not exist will not be.
func passing(err error) bool {
	dial, name, network := (*DialError)(nil), (*net.DNSError)(nil), (*net.OpError)(nil)
	switch {
	case !errors.As(err, &dial) || dial.Refused:
		return false
	case dial.Status != 0:
		return dial.Status >= http.StatusInternalServerError
	case errors.Is(err, errHungUp):
		return true
	case errors.As(err, &name):
		return name.IsTemporary
	}
	// Of TLS's own errors one is a net.OpError, too: the alert of a server.
	return errors.As(err, &network) && (network.Op == "dial" || network.Op == "read") && !network.Timeout()
}

// permanent tells whether an error of Config.Dial will not get better: it says
// so itself.
func permanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}
