package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
)

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, s := range texts {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func TestWhatASOCKSProxyIsAskedFor(t *testing.T) {
	for _, tt := range []struct {
		name, scheme, addr string
		addresses          []netip.Addr // of the name
		reached            string       // what the proxy can connect to
		want               []string     // what it is asked for, in order
	}{
		{"socks5h: the name", "socks5h", "target.test:443", nil, "target.test:443", []string{"target.test:443"}},
		{"socks5: the address", "socks5", "target.test:443", addrs("192.0.2.7"), "192.0.2.7:443", []string{"192.0.2.7:443"}},
		{"socks5: an IPv6 address", "socks5", "target.test:443", addrs("2001:db8::7"), "[2001:db8::7]:443", []string{"[2001:db8::7]:443"}},
		{"socks5: an IPv4 address written as IPv6", "socks5", "target.test:443", addrs("::ffff:192.0.2.7"), "192.0.2.7:443", []string{"192.0.2.7:443"}},
		{"socks5: IPv4 first", "socks5", "target.test:443", addrs("2001:db8::7", "192.0.2.7"), "192.0.2.7:443", []string{"192.0.2.7:443"}},
		{"socks5: the next address", "socks5", "target.test:443", addrs("2001:db8::7", "192.0.2.7", "192.0.2.8"), "[2001:db8::7]:443",
			[]string{"192.0.2.7:443", "192.0.2.8:443", "[2001:db8::7]:443"}},
		{"socks5: no lookup for an address", "socks5", "192.0.2.9:80", nil, "192.0.2.9:80", []string{"192.0.2.9:80"}},
		{"socks5h: an address stays one", "socks5h", "192.0.2.9:80", nil, "192.0.2.9:80", []string{"192.0.2.9:80"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			settled(t)
			far := newTestProxy(names{tt.reached: listen(t, echo)}, false)
			p := via(t, tt.scheme, false, names{"proxy.test:3128": listen(t, far.SOCKS)}, nil)
			p.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
				if tt.addresses == nil || host != "target.test" {
					t.Errorf("%s was looked up here", host)
				}
				return tt.addresses, nil
			}
			conn, err := p.DialContext(within(t), "wss", tt.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, ok := conn.(*net.TCPConn); !ok {
				t.Errorf("the connection is a %T, want the TCP connection as it is", conn)
			}
			var asked []string
			for range tt.want {
				asked = append(asked, next(t, far.requests, "a request").target)
			}
			if !slices.Equal(asked, tt.want) || len(far.requests) > 0 {
				t.Errorf("the proxy was asked for %v, want %v", asked, tt.want)
			}
		})
	}
}

func TestANameWithoutAddress(t *testing.T) {
	settled(t)
	p := via(t, "socks5", true, names{}, nil)
	p.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	_, err := p.DialContext(within(t), "wss", "target.test:443")
	proxyError(t, err, 0, "cannot connect to target.test:443 through the proxy proxy.test:3128: "+
		"lookup target.test: no such host (a proxy of the scheme socks5h would look it up itself)")
	if dns := (*net.DNSError)(nil); !errors.As(err, &dns) {
		t.Errorf("the cause of %v is lost", err)
	}

	p.lookup = func(context.Context, string, string) ([]netip.Addr, error) { return nil, nil }
	_, err = p.DialContext(within(t), "wss", "target.test:443")
	proxyError(t, err, 0, "cannot connect to target.test:443 through the proxy proxy.test:3128: target.test has no address")
}

func TestASOCKSProxyThatRefuses(t *testing.T) {
	const refused = "the proxy proxy.test:3128 refused to connect to target.test:443: "
	for code, want := range []string{
		1: "general SOCKS server failure",
		2: "connection not allowed by ruleset",
		3: "network unreachable",
		4: "host unreachable",
		5: "connection refused",
		6: "TTL expired",
		7: "command not supported",
		8: "address type not supported",
		9: "unknown code: 9",
	} {
		if code == 0 {
			continue
		}
		t.Run(fmt.Sprintf("code %d", code), func(t *testing.T) {
			settled(t)
			addr := listen(t, func(conn net.Conn) {
				takes(conn, 4)
				conn.Write([]byte{5, 0})
				takes(conn, 5)
				conn.Write([]byte{5, byte(code), 0, 1, 0, 0, 0, 0, 0, 0})
				io.Copy(io.Discard, conn)
			})
			p := via(t, "socks5", true, names{"proxy.test:3128": addr}, nil)
			_, err := p.DialContext(within(t), "wss", "target.test:443")
			proxyError(t, err, 0, refused+want)
		})
	}
}

// A login that is refused is not tried again with the target's next address:
// some proxies lock whoever errs too often.
func TestASOCKSProxyThatWantsALogin(t *testing.T) {
	const refused = "the proxy proxy.test:3128 refused to connect to target.test:443: "
	for _, tt := range []struct {
		name   string
		login  bool
		answer []string // to the greeting, to the login
		want   string
	}{
		{"and is given none", false, []string{"\x05\xff"},
			"put a user name and password into ALL_PROXY, as in socks5://user:password@proxy.test:3128"},
		{"and does not accept ours", true, []string{"\x05\x02", "\x01\x01"},
			"the user name and password in ALL_PROXY are not accepted"},
		{"of another kind", true, []string{"\x05\xff"},
			"it wants a login of another kind than user name and password, which is not supported"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			settled(t)
			tries := make(chan struct{}, 10)
			addr := listen(t, func(conn net.Conn) {
				tries <- struct{}{}
				for _, a := range tt.answer {
					takes(conn, 3)
					io.WriteString(conn, a)
				}
				io.Copy(io.Discard, conn)
			})
			p := via(t, "socks5", tt.login, names{"proxy.test:3128": addr}, nil)
			p.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
				return addrs("192.0.2.7", "192.0.2.8", "2001:db8::7"), nil
			}
			_, err := p.DialContext(within(t), "wss", "target.test:443")
			proxyError(t, err, 0, refused+tt.want)
			if len(tries) != 1 {
				t.Errorf("the proxy was tried %d times, want once", len(tries))
			}
		})
	}
}
