package stream

import (
	"errors"
	"math/rand/v2"
	"time"
)

const (
	redialBase = 100 * time.Millisecond
	redialCap  = 5 * time.Second
)

// backoff is the wait before the n-th attempt to get a socket back, n from 0:
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

// permanent tells whether an error of Config.Dial will not get better: it says
// so itself.
func permanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}
