package main

import (
	"fmt"
	"net"
	"sync/atomic"

	"github.com/ssmsession/ssmsession/internal/events"
	"github.com/ssmsession/ssmsession/internal/ports"
)

// counters count what goes through one tunnel, in all of its sessions.
type counters struct {
	open, opened, refused atomic.Int64 // connections
	in, out               atomic.Int64 // bytes from and to the remote end
	reconnects, sessions  atomic.Int64
}

// traffic is a snapshot.
func (c *counters) traffic(remote string) events.Traffic {
	return events.Traffic{
		Remote:     remote,
		Open:       c.open.Load(),
		Opened:     c.opened.Load(),
		Refused:    c.refused.Load(),
		BytesIn:    c.in.Load(),
		BytesOut:   c.out.Load(),
		Reconnects: c.reconnects.Load(),
		Sessions:   c.sessions.Load(),
	}
}

// countingConn counts the bytes of a local connection while they pass.
type countingConn struct {
	net.Conn
	count  *counters
	opened bool // it is being carried; of the goroutine that tells of it
}

// Read gives what goes out.
func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.count.out.Add(int64(n))
	return n, err
}

// Write takes what came in.
func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.count.in.Add(int64(n))
	return n, err
}

// CloseWrite tells the local program that nothing more comes.
func (c *countingConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Gone tells whether the local program has closed the connection altogether, where
// the system knows.
func (c *countingConn) Gone() bool { return ports.Gone(c.Conn) }

// from names who connected; a client of a unix socket has no name.
func (c *countingConn) from() string {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.String()
	}
	return ""
}

// size is a number of bytes as people read it.
func size(n int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB"}
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n) / (1 << 10)
	unit := 0
	for f >= 1<<10 && unit < len(units)-1 {
		f /= 1 << 10
		unit++
	}
	return fmt.Sprintf("%.1f %s", f, units[unit])
}

// many is a number of things.
func many(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// summary is one line for people.
func summary(t events.Traffic) string {
	text := many(t.Opened, "connection")
	if t.Refused > 0 {
		text += fmt.Sprintf(", %d refused", t.Refused)
	}
	text += fmt.Sprintf(", %s in, %s out", size(t.BytesIn), size(t.BytesOut))
	if t.Reconnects > 0 {
		text += ", " + many(t.Reconnects, "reconnect")
	}
	if t.Sessions > 1 {
		text += ", " + many(t.Sessions, "session")
	}
	return text
}
