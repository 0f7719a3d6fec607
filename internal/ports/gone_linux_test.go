package ports

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connection gives both ends of a connection to a listener of forward.
func connection(t *testing.T, l net.Listener, dial func() (net.Conn, error)) (program, accepted net.Conn) {
	t.Helper()
	program, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close(); accepted.Close() })
	return program, accepted
}

// mapped connects by a socket of IPv6 to an address of IPv4, as Java does.
func mapped(t *testing.T, port int) func() (net.Conn, error) {
	return func() (net.Conn, error) {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		conn := &fdConn{fd: fd}
		t.Cleanup(func() { conn.Close() })
		return conn, unix.Connect(fd, &unix.SockaddrInet6{Port: port, Addr: [16]byte{10: 0xff, 0xff, 127, 0, 0, 1}})
	}
}

// fdConn is as much of a connection as the test needs.
type fdConn struct {
	net.Conn
	fd int
}

func (c *fdConn) CloseWrite() error { return unix.Shutdown(c.fd, unix.SHUT_WR) }

func (c *fdConn) Close() error {
	if c.fd < 0 {
		return net.ErrClosed
	}
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

func TestGone(t *testing.T) {
	type way struct {
		name string
		l    net.Listener
		dial func() (net.Conn, error)
	}
	var ways []way
	for _, l := range listen(t, Forward{LocalPort: 0, Port: 80}) {
		addr := l.Addr().(*net.TCPAddr)
		ways = append(ways, way{addr.String(), l, func() (net.Conn, error) { return net.Dial("tcp", addr.String()) }})
		if addr.IP.To4() != nil && hasIPv6(t) {
			ways = append(ways, way{"mapped", l, mapped(t, addr.Port)})
		}
	}
	path := filepath.Join(t.TempDir(), "s")
	for _, l := range listen(t, Forward{Socket: path, Port: 80}) {
		ways = append(ways, way{"unix socket", l, func() (net.Conn, error) { return net.Dial("unix", path) }})
	}
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			program, accepted := connection(t, w.l, w.dial)
			if Gone(accepted) {
				t.Error("a program that is there has gone")
			}
			if err := program.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if n, err := accepted.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Fatalf("read %d, %v; want the end", n, err)
			}
			if Gone(accepted) {
				t.Error("a program that still reads has gone")
			}
			program.Close()
			awaitGone(t, "a program that read on", accepted)

			program, accepted = connection(t, w.l, w.dial)
			program.Close()
			if n, err := accepted.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Fatalf("read %d, %v; want the end", n, err)
			}
			awaitGone(t, "a program that did not", accepted)
		})
	}
}

// awaitGone waits until the program of a connection has gone: its end comes a moment
// before that.
func awaitGone(t *testing.T, who string, accepted net.Conn) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !Gone(accepted); {
		if time.Now().After(deadline) {
			t.Fatalf("%s has closed its connection, and not gone for a minute", who)
		}
		<-time.After(time.Millisecond)
	}
}

// What is not known has not gone.
func TestNotGone(t *testing.T) {
	a, b := net.Pipe()
	a.Close()
	if Gone(b) {
		t.Error("the end of a pipe, of which nothing is known, has gone")
	}
	l := listen(t, Forward{LocalPort: 0, Port: 80})[0]
	_, accepted := connection(t, l, func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) })
	accepted.Close()
	if Gone(accepted) {
		t.Error("the program of a connection that was closed here has gone")
	}
}
