package events

import (
	"strconv"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// schema is the version of the lines, their member "v". A member or an event
// that is new does not change it: only taking one away or giving it another
// meaning would (docs/events.md, "Promises").
const schema = 1

// maxText is the most bytes of one text that a line carries: much of it comes
// from the far end, and the queue has to have an end in memory too.
const maxText = 1024

// Event is something that happened in a session: one of the types of this
// package, and no other. They have no member for a token, a key or a stream
// URL, nor one that takes anything, so that none can get in.
type Event interface {
	name() string
	members(l *line) // in the order that docs/events.md promises
}

// Started is a session that the service has granted.
type Started struct {
	SessionID string
	Target    string
	Document  string // empty for the account's shell preferences
}

// Ready is a session that both ends are ready for: input is taken from now on.
type Ready struct {
	SessionType  string
	AgentVersion string // empty where there was no handshake
	KMSKeyID     string // of an encrypted session; empty of any other
}

// Reconnecting is an attempt to get a lost link back.
type Reconnecting struct {
	Attempt int           // from 1, anew for each loss
	Reason  string        // why the link, or the attempt before, was lost
	For     time.Duration // since the loss
}

// Resumed is a link that is back. Nothing was lost or doubled.
type Resumed struct {
	After time.Duration // since the loss
}

// Paused is the service's word to send no data for now. There is no event for
// the end of it: sending goes on within seconds.
type Paused struct{}

// Error is a failure, as it is told to the user.
type Error struct {
	Code    string
	Message string
	Hint    string // what to do next; may be empty
}

// By is who ended a session.
type By string

// Who ends sessions.
const (
	ByRemote By = "remote" // the far end or the service
	ByClient By = "client" // the user's escape, or this program's failure
	BySignal By = "signal" // a signal to this program
)

// Exit is the last event: the end of the program's work on a session.
type Exit struct {
	Code              int // the program's own, docs/exit-status.md
	By                By
	BytesIn, BytesOut int64         // payload
	RoundTrip         time.Duration // smoothed; 0 where none was measured
	Retransmissions   int64         // messages sent again
	Resumes           int64         // links that were lost and got back
}

func (Started) name() string      { return "started" }
func (Ready) name() string        { return "ready" }
func (Reconnecting) name() string { return "reconnecting" }
func (Resumed) name() string      { return "resumed" }
func (Paused) name() string       { return "paused" }
func (Error) name() string        { return "error" }
func (Exit) name() string         { return "exit" }

func (e Started) members(l *line) {
	l.text("session_id", e.SessionID)
	l.text("target", e.Target)
	l.text("document", e.Document)
}

func (e Ready) members(l *line) {
	l.text("session_type", e.SessionType)
	l.text("agent_version", e.AgentVersion)
	l.text("kms_key_id", e.KMSKeyID)
}

func (e Reconnecting) members(l *line) {
	l.number("attempt", int64(e.Attempt))
	l.text("reason", e.Reason)
	l.number("for_ms", e.For.Milliseconds())
}

func (e Resumed) members(l *line) { l.number("after_ms", e.After.Milliseconds()) }

func (Paused) members(*line) {}

func (e Error) members(l *line) {
	l.text("code", e.Code)
	l.text("message", e.Message)
	l.text("hint", e.Hint)
}

func (e Exit) members(l *line) {
	l.number("code", int64(e.Code))
	l.text("by", string(e.By))
	l.number("bytes_in", e.BytesIn)
	l.number("bytes_out", e.BytesOut)
	l.fraction("round_trip_ms", float64(e.RoundTrip.Microseconds())/1000)
	l.number("retransmissions", e.Retransmissions)
	l.number("resumes", e.Resumes)
}

// encode gives the line of e, its line feed included.
func encode(now time.Time, dropped int64, e Event) []byte {
	l := &line{buf: []byte{'{'}}
	l.number("v", schema)
	l.text("time", now.UTC().Format("2006-01-02T15:04:05.000000Z"))
	l.text("event", e.name())
	if dropped > 0 {
		l.number("dropped", dropped)
	}
	e.members(l)
	return append(l.buf, '}', '\n')
}

// line is one JSON object in the making. It is written by hand so that the
// order of the members stands in the code, and for text's escapes.
type line struct{ buf []byte }

func (l *line) key(name string) {
	if len(l.buf) > 1 {
		l.buf = append(l.buf, ',')
	}
	l.buf = append(l.buf, '"')
	l.buf = append(l.buf, name...)
	l.buf = append(l.buf, '"', ':')
}

func (l *line) number(name string, n int64) {
	l.key(name)
	l.buf = strconv.AppendInt(l.buf, n, 10)
}

func (l *line) fraction(name string, f float64) {
	l.key(name)
	l.buf = strconv.AppendFloat(l.buf, f, 'f', -1, 64)
}

// text adds a string that may come from the far end. What cannot be printed is
// escaped, which is more than JSON asks for: the line may go to a terminal, and
// there U+009B begins a control sequence and U+202E turns the text around. What
// is no UTF-8 becomes U+FFFD.
func (l *line) text(name, s string) {
	l.key(name)
	s, more := clip(s)
	l.buf = append(l.buf, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			l.buf = append(l.buf, '\\', byte(r))
		case unicode.IsPrint(r):
			l.buf = utf8.AppendRune(l.buf, r)
		default:
			for _, unit := range utf16.AppendRune(nil, r) {
				l.buf = append(l.buf, '\\', 'u')
				for shift := 12; shift >= 0; shift -= 4 {
					l.buf = append(l.buf, "0123456789abcdef"[unit>>shift&0xf])
				}
			}
		}
	}
	l.buf = append(l.buf, more...)
	l.buf = append(l.buf, '"')
}

// clip cuts s to maxText bytes, between two characters, and tells by what.
func clip(s string) (kept, more string) {
	if len(s) <= maxText {
		return s, ""
	}
	n := maxText
	for n > maxText-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n], "…"
}
