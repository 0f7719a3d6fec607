package events

// Listening is a local end of a tunnel that accepts connections.
type Listening struct {
	Local  string // address and port, or the path of a socket
	Remote string // host and port
}

// Outcome is what became of a connection.
type Outcome string

// What becomes of connections.
const (
	Opened  Outcome = "opened"
	Refused Outcome = "refused"
	Ended   Outcome = "ended"
)

// Connection is what became of one connection through a tunnel.
type Connection struct {
	Remote            string // of the tunnel
	From              string // who connected; empty for a unix socket
	Outcome           Outcome
	Reason            string // why it was refused or broke; else empty
	BytesIn, BytesOut int64  // payload; in is from the remote end
}

// Traffic is the counters of one tunnel, since it began to listen.
type Traffic struct {
	Remote            string
	Open              int64 // connections now
	Opened            int64 // connections that were carried, or are
	Refused           int64
	BytesIn, BytesOut int64 // payload
	Reconnects        int64 // links that were lost
	Sessions          int64 // sessions started, the first included
}

func (Listening) name() string  { return "listening" }
func (Connection) name() string { return "connection" }
func (Traffic) name() string    { return "traffic" }

func (e Listening) members(l *line) {
	l.text("local", e.Local)
	l.text("remote", e.Remote)
}

func (e Connection) members(l *line) {
	l.text("remote", e.Remote)
	l.text("from", e.From)
	l.text("outcome", string(e.Outcome))
	l.text("reason", e.Reason)
	l.number("bytes_in", e.BytesIn)
	l.number("bytes_out", e.BytesOut)
}

func (e Traffic) members(l *line) {
	l.text("remote", e.Remote)
	l.number("open", e.Open)
	l.number("opened", e.Opened)
	l.number("refused", e.Refused)
	l.number("bytes_in", e.BytesIn)
	l.number("bytes_out", e.BytesOut)
	l.number("reconnects", e.Reconnects)
	l.number("sessions", e.Sessions)
}
