package agent

import (
	"math"
	"time"
)

// Constants of the retransmission timeout (docs/protocol.md, "Retransmission").
const (
	initialRTT  = 100 * time.Millisecond
	initialRTO  = 200 * time.Millisecond
	maxRTO      = time.Second
	granularity = 10 * time.Millisecond
	alpha       = 1.0 / 8
	beta        = 1.0 / 4
)

// rto estimates how long an acknowledgement may take. It is pure: it reads no
// clock. Unlike TCP's it takes samples of repeated messages as well.
type rto struct {
	rtt, variation float64 // nanoseconds
	timeout        time.Duration
}

func newRTO() rto { return rto{rtt: float64(initialRTT), timeout: initialRTO} }

// sample takes one round trip into account.
func (r *rto) sample(trip time.Duration) {
	d := float64(trip)
	r.variation = (1-beta)*r.variation + beta*math.Abs(r.rtt-d)
	r.rtt = (1-alpha)*r.rtt + alpha*d
	r.timeout = min(maxRTO, time.Duration(r.rtt+math.Max(float64(granularity), 4*r.variation)))
}
