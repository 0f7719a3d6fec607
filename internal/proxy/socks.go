package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/proxy"
)

// socks asks a SOCKS5 proxy (RFC 1928) for a connection to addr. A socks5 proxy
// is asked for each of the target's addresses in turn, until it reaches one.
func (p *Proxies) socks(ctx context.Context, s *server, addr string) (net.Conn, error) {
	targets := []string{addr}
	if s.url.Scheme == "socks5" {
		var err error
		if targets, err = p.resolve(ctx, addr); err != nil {
			return nil, err
		}
	}
	var failed error // by the first address, which is the likeliest
	for _, target := range targets {
		conn, err := p.through(ctx, s, func(conn net.Conn) (net.Conn, error) {
			return s.socksConnect(conn, target)
		})
		if err == nil {
			return conn, nil
		}
		if failed == nil {
			failed = err
		}
		// Anything but a refused address will be the same for the next.
		if no := (*refusal)(nil); !errors.As(err, &no) || no.login {
			break
		}
	}
	return nil, failed
}

// resolve returns addr with each address of its host, IPv4 first: a proxy
// without IPv6 may take long to say so.
func (p *Proxies) resolve(ctx context.Context, addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{addr}, nil
	}
	ips, err := p.lookup(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("%w (a proxy of the scheme socks5h would look it up itself)", err)
	}
	if len(ips) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	var v4, v6 []string
	for _, ip := range ips {
		ip = ip.Unmap()
		if a := net.JoinHostPort(ip.String(), port); ip.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	return slices.Concat(v4, v6), nil
}

// socksConnect asks for a connection to target, a name or an address with a
// port. It ends when conn is closed.
func (s *server) socksConnect(conn net.Conn, target string) (net.Conn, error) {
	var auth *proxy.Auth
	if user, password, ok := s.login(); ok {
		auth = &proxy.Auth{User: user, Password: password}
	}
	client, err := proxy.SOCKS5("tcp", s.url.Host, auth, dialed{conn})
	if err != nil {
		return nil, err
	}
	way, err := client.Dial("tcp", target)
	if err != nil {
		return nil, s.socksError(err)
	}
	return way, nil
}

// socksError puts an error of the SOCKS client, which has no types but only
// texts, into one of ours. They are constant but for numbers.
func (s *server) socksError(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err // op repeats the addresses
	}
	text := err.Error()
	if reason, ok := strings.CutPrefix(text, "unknown error "); ok {
		return &refusal{reason: reason}
	}
	switch text {
	case "no acceptable authentication methods":
		_, _, tried := s.login()
		return &refusal{reason: s.loginHint(!tried), login: true}
	case "username/password authentication failed", "invalid username/password":
		return &refusal{reason: s.loginHint(true), login: true}
	}
	return unanswered(err, "SOCKS5")
}

// dialed gives the SOCKS client the connection that it is to use. The client
// could dial and watch a context itself; here both are through's, as for the
// other proxies.
type dialed struct{ conn net.Conn }

// Dial implements proxy.Dialer.
func (d dialed) Dial(_, _ string) (net.Conn, error) { return d.conn, nil }

// DialContext implements proxy.ContextDialer, without which the client would
// start a goroutine to call Dial.
func (d dialed) DialContext(context.Context, string, string) (net.Conn, error) { return d.conn, nil }
