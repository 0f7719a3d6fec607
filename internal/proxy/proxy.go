// Package proxy takes the API's calls and the data channel through the proxy
// that the environment names: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY as the
// fallback of both, NO_PROXY. It knows nothing of sessions, and of websockets
// only that wss is reached as https is.
//
// A proxy is spoken to over http, https, socks5 (names are resolved here) or
// socks5h (the proxy resolves them). Hosts that can only be this machine,
// localhost and the loopback addresses, are never reached through one.
package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// Config says where proxies are named and how they are reached. Its zero value
// is the process's environment, the system's roots and a net.Dialer.
type Config struct {
	// Getenv looks a variable up, "" when it is not set; nil for os.Getenv.
	Getenv func(string) string
	// TLS is for the connection to an https proxy, not for what goes through
	// it. It is cloned; nil for the system's roots. Its ServerName and
	// NextProtos are ours to set, and below TLS 1.2 is refused.
	TLS *tls.Config
	// Dial connects, to a proxy or to the target itself, and honours its
	// context; nil for net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Proxies knows the proxy of every URL. It does not change once made, and any
// number of goroutines may use it.
type Proxies struct {
	http, https *server // for URLs of these schemes; nil for none

	// proxied returns nil for the URLs, http or https, that no proxy is for.
	proxied func(*url.URL) (*url.URL, error)

	tls    *tls.Config
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// New reads the variables, once. Of two spellings the lower case counts, as it
// does for net/http and curl. A variable that counts and is not the URL of a
// proxy, or of one with another scheme, is an error that names the variable and
// quotes nothing of it: it may hold a password.
func New(cfg Config) (*Proxies, error) {
	getenv := cfg.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	p := &Proxies{tls: &tls.Config{}, dial: cfg.Dial, lookup: net.DefaultResolver.LookupNetIP}
	if cfg.TLS != nil {
		p.tls = cfg.TLS.Clone()
	}
	if p.dial == nil {
		p.dial = (&net.Dialer{}).DialContext
	}
	var err error
	if p.https, err = parse(first(getenv, "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")); err != nil {
		return nil, err
	}
	if p.http, err = parse(first(getenv, httpNames(getenv)...)); err != nil {
		return nil, err
	}
	// The rules are those that net/http goes by. They are asked about a proxy
	// that stands for any.
	const anyProxy = "http://any"
	noProxy := first(getenv, "no_proxy", "NO_PROXY").value
	p.proxied = (&httpproxy.Config{HTTPProxy: anyProxy, HTTPSProxy: anyProxy, NoProxy: noProxy}).ProxyFunc()
	return p, nil
}

// ForRequest returns the proxy of a request's URL, nil for none. It is meant
// for http.Transport.Proxy, which speaks to all four schemes by itself, but
// lets a socks5 proxy resolve names as a socks5h proxy does.
func (p *Proxies) ForRequest(r *http.Request) (*url.URL, error) {
	s, err := p.choose(r.URL.Scheme, r.URL.Host)
	if s == nil || err != nil {
		return nil, err
	}
	u := *s.url
	return &u, nil
}

// choose returns the proxy for a host, with or without a port; nil for none.
func (p *Proxies) choose(scheme, host string) (*server, error) {
	s := p.https
	switch scheme {
	case "https", "wss":
		scheme = "https"
	case "http", "ws":
		s, scheme = p.http, "http"
	default:
		return nil, fmt.Errorf("there is no proxy for the scheme %q", scheme)
	}
	through, err := p.proxied(&url.URL{Scheme: scheme, Host: strings.ToLower(host)})
	if err != nil || through == nil {
		return nil, err
	}
	return s, nil
}

// DialContext connects to addr, host:port, through the proxy of a URL with this
// scheme (wss or https, ws or http) and this host, or directly when it has
// none. The connection carries the target's bytes and nothing else: TLS with
// the target is the caller's. One goroutine at a time may read it. Closing it
// drops it without a goodbye to an https proxy, so that Close never waits.
//
// The end of ctx ends the attempt at once, whatever it is waiting for, and is
// answered with context.Cause; it no longer matters once DialContext has
// returned. How long a proxy may take is for ctx to say. A proxy that cannot be
// reached, refuses or does not speak as one is an *Error; without a proxy, the
// error is Dial's.
func (p *Proxies) DialContext(ctx context.Context, scheme, addr string) (net.Conn, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("cannot connect: %w", err)
	}
	s, err := p.choose(scheme, addr)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", addr, err)
	}
	conn, err := p.reach(ctx, s, addr)
	if err == nil {
		return conn, nil
	}
	if cause := ended(ctx); cause != nil {
		return nil, cause
	}
	if s == nil {
		return nil, err
	}
	return nil, newError(s, addr, err)
}

func (p *Proxies) reach(ctx context.Context, s *server, addr string) (net.Conn, error) {
	switch {
	case s == nil:
		return p.dial(ctx, "tcp", addr)
	case s.isSOCKS():
		return p.socks(ctx, s, addr)
	default:
		return p.through(ctx, s, func(conn net.Conn) (net.Conn, error) {
			return p.connect(ctx, s, conn, addr)
		})
	}
}

// through dials a proxy and lets talk agree with it on the way to the target.
// The end of ctx closes the connection, which ends talk wherever it is.
func (p *Proxies) through(ctx context.Context, s *server, talk func(net.Conn) (net.Conn, error)) (net.Conn, error) {
	conn, err := p.dial(ctx, "tcp", s.url.Host)
	if err != nil {
		return nil, err
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = conn.Close() // what it interrupts tells
	})
	way, err := talk(conn)
	if !stop() {
		<-closed
		return nil, context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close() // err tells why
		return nil, err
	}
	return way, nil
}

// ended returns the cause if ctx has ended, nil otherwise. The net package
// watches the deadline by itself and may notice a moment before ctx does.
func ended(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		<-ctx.Done()
	}
	return context.Cause(ctx)
}
