// Package ports is the local end of a tunnel: what is asked to be forwarded, the
// listeners for it, and the multiplexer that carries many connections over one
// stream of bytes.
//
// It knows nothing of sessions, AWS or frames. Only mux.go knows the library
// that multiplexes.
package ports

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// AnyAddress is the Bind that stands for every address of this machine.
const AnyAddress = "*"

// Forward is one port to be forwarded.
type Forward struct {
	Bind      string // local address or name, or AnyAddress; empty or "localhost" for both loopbacks
	LocalPort int    // 0 for one that the system chooses
	Socket    string // path of a local unix socket, in place of Bind and LocalPort
	Host      string // remote host as the target resolves it; empty for the target itself
	Port      int    // remote port
}

// String gives the form that ParseForward reads, with every part that counts.
func (f Forward) String() string {
	remote := strconv.Itoa(f.Port)
	if f.Host != "" {
		remote = bracketed(f.Host) + ":" + remote
	}
	if f.Socket != "" {
		return f.Socket + ":" + remote
	}
	local := strconv.Itoa(f.LocalPort)
	if f.Bind != "" {
		// Of three parts, the first would be taken for a port or a host.
		if f.Host == "" {
			return bracketed(f.Bind) + ":" + local + ":localhost:" + remote
		}
		local = bracketed(f.Bind) + ":" + local
	}
	return local + ":" + remote
}

func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// ParseForward reads the argument of -L: port, port:port, port:host:port,
// bind:port:port or bind:port:host:port; or path:port or path:host:port for a
// local unix socket, whose path has a slash. Of three parts, a first number
// means port:host:port. An IPv6 address stands in brackets. A remote host
// "localhost" is the target itself. The error says in words what is wrong.
func ParseForward(s string) (Forward, error) {
	f, err := parseForward(s)
	if err != nil {
		return Forward{}, fmt.Errorf("cannot forward %q: %w", s, err)
	}
	return f, nil
}

func parseForward(s string) (f Forward, err error) {
	for _, r := range s {
		if unicode.IsControl(r) || unicode.IsSpace(r) {
			return f, fmt.Errorf("there is a blank or a control character in it")
		}
	}
	path, rest := cutSocket(s)
	parts, err := split(rest)
	if err != nil {
		return f, err
	}
	if path != "" {
		return parseSocket(path, parts)
	}
	var local, remote, host string
	switch len(parts) {
	case 1:
		local, remote = parts[0], parts[0]
	case 2:
		local, remote = parts[0], parts[1]
	case 3:
		if digits(parts[0]) {
			local, host, remote = parts[0], parts[1], parts[2]
		} else {
			f.Bind, local, remote = parts[0], parts[1], parts[2]
		}
	case 4:
		f.Bind, local, host, remote = parts[0], parts[1], parts[2], parts[3]
	default:
		return f, fmt.Errorf("it has %d parts, at most bind:port:host:port are four; an IPv6 address stands in brackets", len(parts))
	}
	if f.LocalPort, err = port(local, 0); err != nil {
		return f, fmt.Errorf("local port: %w", err)
	}
	return f.withRemote(host, remote)
}

func parseSocket(path string, parts []string) (f Forward, err error) {
	f.Socket = path
	switch len(parts) {
	case 1:
		return f.withRemote("", parts[0])
	case 2:
		return f.withRemote(parts[0], parts[1])
	}
	return f, fmt.Errorf("after the path of a socket there are %d parts, at most host:port are two; an IPv6 address stands in brackets", len(parts))
}

func (f Forward) withRemote(host, remote string) (_ Forward, err error) {
	if f.Port, err = port(remote, 1); err != nil {
		return f, fmt.Errorf("remote port: %w", err)
	}
	if strings.ContainsAny(host, `/\`) || host == AnyAddress {
		return f, fmt.Errorf("%q is no host", host)
	}
	if !strings.EqualFold(host, "localhost") {
		f.Host = host
	}
	return f, nil
}

// cutSocket gives the path that s begins with, if it does: with a slash before
// the first colon, that of a Windows drive aside.
func cutSocket(s string) (path, rest string) {
	from := 0
	if len(s) > 2 && s[1] == ':' && strings.ContainsRune(`/\`, rune(s[2])) && unicode.IsLetter(rune(s[0])) {
		from = 2
	}
	end := strings.IndexByte(s[from:], ':')
	if end < 0 {
		end = len(s) - from
	}
	path = s[:from+end]
	if !strings.ContainsAny(path, `/\`) || strings.HasPrefix(path, "[") {
		return "", s
	}
	return path, strings.TrimPrefix(s[from+end:], ":")
}

// split cuts s at its colons, but for those in brackets, which it takes away. No
// part is empty.
func split(s string) (parts []string, err error) {
	for {
		var part string
		var more bool
		if strings.HasPrefix(s, "[") {
			part, s, more = strings.Cut(s[1:], "]")
			if !more {
				return nil, fmt.Errorf("a bracket is not closed")
			}
			if _, err := netip.ParseAddr(part); err != nil {
				return nil, fmt.Errorf("%q in brackets is no IP address", part)
			}
			if more = strings.HasPrefix(s, ":"); !more && s != "" {
				return nil, fmt.Errorf("after a bracket comes %q, not a colon", s)
			}
			s = strings.TrimPrefix(s, ":")
		} else {
			part, s, more = strings.Cut(s, ":")
			if strings.ContainsAny(part, "[]") {
				return nil, fmt.Errorf("there is a bracket inside %q", part)
			}
		}
		if part == "" {
			return nil, fmt.Errorf("a part of it is empty; %q stands for every address", AnyAddress)
		}
		if parts = append(parts, part); !more {
			return parts, nil
		}
	}
}

func digits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// port reads a port number from least up.
func port(s string, least int) (int, error) {
	const most = 65535
	if !digits(s) {
		return 0, fmt.Errorf("%q is no number", s)
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s is not between %d and %d", s, least, most)
	}
	return n, nil
}

// Loopback tells whether only programs of this machine can reach the local end.
// Of a name other than localhost that is not known, and it is false.
func Loopback(f Forward) bool {
	if f.Socket != "" || bothLoopbacks(f.Bind) {
		return true
	}
	ip := net.ParseIP(f.Bind)
	return ip != nil && ip.IsLoopback()
}

func bothLoopbacks(bind string) bool { return bind == "" || strings.EqualFold(bind, "localhost") }
