package main

import (
	"bytes"
	"cmp"
	"time"
	"unicode/utf8"

	"github.com/ssmsession/ssmsession/internal/events"
	"github.com/ssmsession/ssmsession/internal/stream"
)

// maxCapture is how much of each output a result keeps if nobody says otherwise,
// in bytes.
const maxCapture = 64 << 20

// result is how a session went: the document of --output json, and the exit
// event. One is made before anything can fail, so that a failure is a result,
// too.
type result struct {
	Target          string       `json:"target"`
	Document        string       `json:"document,omitempty"`
	SessionID       string       `json:"session_id,omitempty"`
	Started         *time.Time   `json:"started,omitempty"`
	DurationMS      int64        `json:"duration_ms"`
	ExitCode        int          `json:"exit_code"`
	ExitBy          events.By    `json:"exit_by,omitempty"`
	EndedBy         events.By    `json:"ended_by"`
	Error           *resultError `json:"error,omitempty"`
	Stdout          *string      `json:"stdout,omitempty"`
	StdoutBase64    []byte       `json:"stdout_base64,omitempty"`
	Stderr          *string      `json:"stderr,omitempty"`
	StderrBase64    []byte       `json:"stderr_base64,omitempty"`
	Truncated       bool         `json:"truncated,omitempty"`
	BytesIn         int64        `json:"bytes_in"`
	BytesOut        int64        `json:"bytes_out"`
	RoundTripMS     float64      `json:"round_trip_ms"`
	Retransmissions int64        `json:"retransmissions"`
	Resumes         int64        `json:"resumes"`

	made     time.Time
	asked    bool // for the document
	command  bool // one with outputs of its own, which are told even if empty
	limit    int  // of each output, in bytes; 0 for maxCapture
	stats    stream.Stats
	byRemote bool // the service closed the session
	out, err capture
}

type resultError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// begin notes that the service has granted a session.
func (r *result) begin(sessionID string, now time.Time) {
	now = now.UTC()
	r.SessionID, r.Started = sessionID, &now
	limit := cmp.Or(r.limit, maxCapture)
	r.out, r.err = capture{limit: limit}, capture{limit: limit}
}

// end fills in what is known at the end.
func (r *result) end(x exit, p *problem) {
	since := r.made // where no session was had, or forward's were
	if r.Started != nil {
		since = *r.Started
	}
	r.DurationMS = time.Since(since).Milliseconds()
	r.ExitCode, r.ExitBy, r.EndedBy = x.code, x.owner, x.by()
	if r.byRemote && r.EndedBy != events.BySignal {
		r.EndedBy = events.ByRemote
	}
	if p != nil {
		r.Error = &resultError{Code: p.code, Message: p.message, Hint: p.hint}
	}
	always := r.command && r.Started != nil
	r.Stdout, r.StdoutBase64 = r.out.text(always)
	r.Stderr, r.StderrBase64 = r.err.text(always)
	r.Truncated = r.out.cut || r.err.cut
	r.BytesIn, r.BytesOut = r.stats.BytesIn, r.stats.BytesOut
	r.RoundTripMS = float64(r.stats.RoundTrip.Microseconds()) / 1000
	r.Retransmissions, r.Resumes = r.stats.Retransmissions, r.stats.Resumes
}

// exit is the event that ends the session's.
func (r *result) exit() events.Event {
	return events.Exit{
		Code: r.ExitCode, By: r.EndedBy,
		BytesIn: r.stats.BytesIn, BytesOut: r.stats.BytesOut,
		RoundTrip:       r.stats.RoundTrip,
		Retransmissions: r.stats.Retransmissions,
		Resumes:         r.stats.Resumes,
	}
}

// capture keeps the beginning of an output.
type capture struct {
	buf   bytes.Buffer
	limit int // bytes
	cut   bool
}

// Write takes everything and keeps what fits.
func (c *capture) Write(p []byte) (int, error) {
	keep := min(len(p), c.limit-c.buf.Len())
	c.cut = c.cut || keep < len(p)
	_, _ = c.buf.Write(p[:keep]) // never fails
	return len(p), nil
}

// text gives what was kept as text, or as it is where it is none. Both are nil
// when there was nothing, unless that is to be told.
func (c *capture) text(always bool) (*string, []byte) {
	switch {
	case c.buf.Len() == 0 && !always:
		return nil, nil
	case utf8.Valid(c.buf.Bytes()):
		s := c.buf.String()
		return &s, nil
	}
	return nil, c.buf.Bytes()
}
