package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// via returns Proxies whose every URL goes through a proxy of this scheme at
// proxy.test:3128, with or without a login. target.test has the address
// 192.0.2.7.
func via(t *testing.T, scheme string, login bool, hosts names, roots *x509.CertPool) *Proxies {
	t.Helper()
	u := url.URL{Scheme: scheme, Host: "proxy.test:3128"}
	if login {
		u.User = url.UserPassword(user, password)
	}
	p, err := New(Config{
		Getenv: environment(vars{"ALL_PROXY": u.String()}),
		TLS:    &tls.Config{RootCAs: roots},
		Dial:   hosts.Dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if host != "target.test" {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return []netip.Addr{netip.MustParseAddr("192.0.2.7")}, nil
	}
	return p
}

// serveAs makes the proxy speak what its scheme says.
func serveAs(scheme string, p *testProxy, cert tls.Certificate) func(net.Conn) {
	switch scheme {
	case "http":
		return p.HTTP
	case "https":
		return overTLS(cert, p.HTTP)
	default:
		return p.SOCKS
	}
}

// schemes is every way through a proxy, and how target.test is named to it.
var schemes = []struct{ scheme, target string }{
	{"http", "target.test:443"},
	{"https", "target.test:443"},
	{"socks5", "192.0.2.7:443"},
	{"socks5h", "target.test:443"},
}

// throughEach runs a test with a working proxy of each scheme, with and without
// a login, and a target that says what it is told, over TLS.
func throughEach(t *testing.T, test func(t *testing.T, p *Proxies, roots *x509.CertPool, far *testProxy, want seen)) {
	for _, tt := range schemes {
		for _, login := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, login %v", tt.scheme, login), func(t *testing.T) {
				settled(t)
				cert, roots := identity(t, "target.test", "proxy.test")
				target := listen(t, overTLS(cert, echo))
				far := newTestProxy(names{tt.target: target}, login)
				proxy := listen(t, serveAs(tt.scheme, far, cert))
				want := seen{target: tt.target}
				if login {
					want.user, want.password = user, password
				}
				test(t, via(t, tt.scheme, login, names{"proxy.test:3128": proxy}, roots), roots, far, want)
			})
		}
	}
}

// greet says something through a TLS connection to target.test and expects it
// back.
func greet(t *testing.T, conn net.Conn, roots *x509.CertPool) {
	t.Helper()
	secure := tls.Client(conn, &tls.Config{ServerName: "target.test", RootCAs: roots})
	defer secure.Close()
	said := strings.Repeat("to the target and back ", 5000)
	var all sync.WaitGroup
	all.Go(func() { io.WriteString(secure, said) })
	heard := make([]byte, len(said))
	if _, err := io.ReadFull(secure, heard); err != nil || string(heard) != said {
		t.Errorf("the target does not answer with what it was told: %v", err)
	}
	all.Wait()
}

func TestThroughAProxy(t *testing.T) {
	throughEach(t, func(t *testing.T, p *Proxies, roots *x509.CertPool, far *testProxy, want seen) {
		conn, err := p.DialContext(within(t), "wss", "target.test:443")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		greet(t, conn, roots)
		if got := next(t, far.requests, "the request"); got != want {
			t.Errorf("the proxy was asked for %+v, want %+v", got, want)
		}
		// 0x16 is a handshake record, 0x03 the major version of all TLS.
		if got := next(t, far.relayed, "the first bytes"); string(got) != "\x16\x03" {
			t.Errorf("the first bytes that the proxy relayed are % x, want a TLS hello: 16 03", got)
		}
	})
}

// The API's calls go through http.Transport, which is given the same proxies.
func TestTransportThroughAProxy(t *testing.T) {
	for _, tt := range schemes {
		for _, login := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, login %v", tt.scheme, login), func(t *testing.T) {
				settled(t)
				cert, roots := identity(t, "target.test", "proxy.test")
				api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.WriteString(w, "hello "+r.Host)
				}))
				api.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
				api.StartTLS()
				t.Cleanup(api.Close)
				// net/http lets a socks5 proxy resolve the name.
				far := newTestProxy(names{"target.test:443": api.Listener.Addr().String()}, login)
				hosts := names{"proxy.test:3128": listen(t, serveAs(tt.scheme, far, cert))}
				p := via(t, tt.scheme, login, hosts, roots)

				transport := &http.Transport{Proxy: p.ForRequest, DialContext: hosts.Dial, TLSClientConfig: &tls.Config{RootCAs: roots}}
				t.Cleanup(transport.CloseIdleConnections)
				r, err := http.NewRequestWithContext(within(t), http.MethodGet, "https://target.test/", nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := (&http.Client{Transport: transport}).Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello target.test" {
					t.Errorf("the API answers %q, %v", body, err)
				}
				if got := next(t, far.requests, "the request"); got.target != "target.test:443" {
					t.Errorf("the proxy was asked for %s, want target.test:443", got.target)
				}
			})
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	throughEach(t, func(t *testing.T, p *Proxies, roots *x509.CertPool, _ *testProxy, _ seen) {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				conn, err := p.DialContext(within(t), "https", "target.test:443")
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				greet(t, conn, roots)
			})
		}
		all.Wait()
	})
}

// A session outlives the dial, whose context has a timeout.
func TestAContextThatEndsAfterTheDialDoesNotMatter(t *testing.T) {
	throughEach(t, func(t *testing.T, p *Proxies, roots *x509.CertPool, _ *testProxy, _ seen) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		conn, err := p.DialContext(ctx, "wss", "target.test:443")
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		greet(t, conn, roots)
	})
}

func TestWithoutAProxy(t *testing.T) {
	settled(t)
	hosts := names{"target.test:443": listen(t, echo)}
	for _, tt := range []struct {
		name   string
		env    vars
		scheme string
	}{
		{"none set", nil, "wss"},
		{"NO_PROXY", vars{"ALL_PROXY": "http://proxy.test:3128", "NO_PROXY": "target.test,elsewhere.test"}, "wss"},
		{"only one for http", vars{"HTTP_PROXY": "http://proxy.test:3128"}, "wss"},
		{"only one for https", vars{"HTTPS_PROXY": "http://proxy.test:3128"}, "ws"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(Config{Getenv: environment(tt.env), Dial: hosts.Dial})
			if err != nil {
				t.Fatal(err)
			}
			conn, err := p.DialContext(within(t), tt.scheme, "target.test:443")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, ok := conn.(*net.TCPConn); !ok {
				t.Errorf("a direct connection is a %T, want the TCP connection as it is", conn)
			}
			io.WriteString(conn, "x")
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				t.Errorf("the target does not answer: %v", err)
			}

			_, err = p.DialContext(within(t), tt.scheme, "elsewhere.test:443")
			var proxyError *Error
			if dns := (*net.DNSError)(nil); !errors.As(err, &dns) || errors.As(err, &proxyError) {
				t.Errorf("the error of a direct connection is %v, want Dial's", err)
			}
		})
	}
}

func TestLoopbackIsReachedDirectly(t *testing.T) {
	settled(t)
	addr := listen(t, echo)
	p, err := New(Config{Getenv: environment(vars{"ALL_PROXY": "http://proxy.test:3128"})})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := p.DialContext(within(t), "ws", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestWhatCannotBeDialled(t *testing.T) {
	p, err := New(Config{Getenv: environment(nil)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ scheme, addr, want string }{
		{"wss", "target.test", "cannot connect: address target.test: missing port in address"},
		{"wss", "", "cannot connect: missing port in address"},
		{"ftp", "target.test:21", `cannot connect to target.test:21: there is no proxy for the scheme "ftp"`},
	} {
		if conn, err := p.DialContext(within(t), tt.scheme, tt.addr); err == nil || err.Error() != tt.want {
			t.Errorf("dialling %q over %s gives %v, %v, want %s", tt.addr, tt.scheme, conn, err, tt.want)
		}
	}
}

// stage is something that a proxy does for ever. It tells when it is there.
type stage struct {
	name, scheme string
	serve        func(conn net.Conn, there func())
}

// hold waits until the client has gone.
func hold(conn net.Conn) { io.Copy(io.Discard, conn) }

// takes reads n bytes, or what there is.
func takes(conn net.Conn, n int) { io.ReadFull(conn, make([]byte, n)) }

// stages is every point at which a proxy can leave us waiting.
func stages(cert tls.Certificate) []stage {
	silent := func(conn net.Conn, there func()) {
		takes(conn, 3)
		there()
		hold(conn)
	}
	says := func(answers ...string) func(net.Conn, func()) {
		return func(conn net.Conn, there func()) {
			for _, a := range answers {
				takes(conn, 3)
				io.WriteString(conn, a)
			}
			there()
			hold(conn)
		}
	}
	drips := func(conn net.Conn, there func()) {
		takes(conn, 3)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: ")
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			if _, err := io.WriteString(conn, "a"); err != nil {
				return
			}
			if i == 3 {
				there()
			}
			<-tick.C
		}
	}
	secure := func(serve func(net.Conn, func())) func(net.Conn, func()) {
		return func(conn net.Conn, there func()) {
			overTLS(cert, func(conn net.Conn) { serve(conn, there) })(conn)
		}
	}
	return []stage{
		{"CONNECT is not answered", "http", silent},
		{"half an answer", "http", says("HTTP/1.1 200 OK\r\nVia")},
		{"an answer in drips", "http", drips},
		{"only announcements of an answer", "http", says("HTTP/1.1 103 Early Hints\r\n\r\n")},
		{"the TLS hello is not answered", "https", silent},
		{"half a TLS hello", "https", says("\x16\x03\x03\x00\x40\x02")},
		{"CONNECT is not answered within TLS", "https", secure(silent)},
		{"an answer in drips within TLS", "https", secure(drips)},
		{"the SOCKS greeting is not answered", "socks5h", silent},
		{"half an answer to the SOCKS greeting", "socks5h", says("\x05")},
		{"the SOCKS login is not answered", "socks5h", says("\x05\x02")},
		{"the SOCKS request is not answered", "socks5h", says("\x05\x00")},
		{"half an answer to the SOCKS request", "socks5", says("\x05\x00", "\x05\x00\x00\x01\x00")},
	}
}

func TestCancelledWhileTheProxyKeepsUsWaiting(t *testing.T) {
	cert, roots := identity(t, "proxy.test")
	for _, tt := range stages(cert) {
		t.Run(tt.name, func(t *testing.T) {
			settled(t)
			there, gone := make(chan struct{}), make(chan struct{})
			addr := listen(t, func(conn net.Conn) {
				defer close(gone)
				tt.serve(conn, func() { close(there) })
			})
			p := via(t, tt.scheme, true, names{"proxy.test:3128": addr}, roots)
			cause := errors.New("the user has left")
			ctx, cancel := context.WithCancelCause(t.Context())
			failed := make(chan error, 1)
			go func() {
				conn, err := p.DialContext(ctx, "wss", "target.test:443")
				if conn != nil {
					conn.Close()
				}
				failed <- err
			}()
			next(t, there, "the proxy to keep us waiting")
			select {
			case err := <-failed:
				t.Fatalf("the dial did not wait: %v", err)
			default:
			}
			cancel(cause)
			if err := next(t, failed, "the dial to end"); err != cause {
				t.Errorf("the error is %v, want the cause of the context as it is", err)
			}
			next(t, gone, "the connection to the proxy to be closed")
		})
	}
}

func TestADeadlineGivesItsCause(t *testing.T) {
	cert, roots := identity(t, "proxy.test")
	for _, tt := range stages(cert) {
		t.Run(tt.name, func(t *testing.T) {
			settled(t)
			addr := listen(t, func(conn net.Conn) { tt.serve(conn, func() {}) })
			p := via(t, tt.scheme, true, names{"proxy.test:3128": addr}, roots)
			cause := errors.New("no connection within 30 seconds")
			ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, cause)
			defer cancel()
			if _, err := p.DialContext(ctx, "wss", "target.test:443"); err != cause {
				t.Errorf("the error is %v, want the cause of the context as it is", err)
			}
		})
	}
}

// lastRead is a connection that calls a function when something was read.
type lastRead struct {
	net.Conn
	then func()
}

func (c *lastRead) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.then()
	return n, err
}

// Between the proxy's yes and the return of the dial, the context still counts:
// whoever cancelled must not be left with an open connection.
func TestCancelledAtTheVeryEnd(t *testing.T) {
	settled(t)
	gone := make(chan struct{})
	hosts := names{"proxy.test:3128": listen(t, func(conn net.Conn) {
		defer close(gone)
		takesRequest(conn)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		hold(conn)
	})}
	cause := errors.New("the user has left")
	ctx, cancel := context.WithCancelCause(t.Context())
	p, err := New(Config{
		Getenv: environment(vars{"ALL_PROXY": "http://proxy.test:3128"}),
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := hosts.Dial(ctx, network, addr)
			return &lastRead{conn, func() { cancel(cause) }}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := p.DialContext(ctx, "wss", "target.test:443"); conn != nil || err != cause {
		t.Errorf("the dial gives %v, %v, want only the cause of the context", conn, err)
	}
	next(t, gone, "the connection to the proxy to be closed")
}

// Dialling and looking up take their own time, and report a deadline or a
// cancellation in their own words.
func TestCancelledWhileDiallingOrLookingUp(t *testing.T) {
	cause := errors.New("the user has left")
	for _, tt := range []struct {
		name string
		env  vars
	}{
		{"the target itself", nil},
		{"an http proxy", vars{"ALL_PROXY": "http://proxy.test"}},
		{"an https proxy", vars{"ALL_PROXY": "https://proxy.test"}},
		{"a socks5h proxy", vars{"ALL_PROXY": "socks5h://proxy.test"}},
		{"a name for a socks5 proxy", vars{"ALL_PROXY": "socks5://proxy.test"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			settled(t)
			waiting := make(chan struct{}, 1)
			ends := func(ctx context.Context) error {
				waiting <- struct{}{}
				<-ctx.Done()
				return &net.OpError{Op: "dial", Err: errors.New("operation was canceled")}
			}
			p, err := New(Config{
				Getenv: environment(tt.env),
				Dial:   func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, ends(ctx) },
			})
			if err != nil {
				t.Fatal(err)
			}
			p.lookup = func(ctx context.Context, _, _ string) ([]netip.Addr, error) { return nil, ends(ctx) }

			ctx, cancel := context.WithCancelCause(t.Context())
			failed := make(chan error, 1)
			go func() {
				_, err := p.DialContext(ctx, "wss", "target.test:443")
				failed <- err
			}()
			next(t, waiting, "the dial to begin")
			cancel(cause)
			if err := next(t, failed, "the dial to end"); err != cause {
				t.Errorf("cancelled, the error is %v, want the cause", err)
			}
		})
	}
}

// The net package has a timer of its own for the deadline.
func TestADeadlineThatTheDialerNoticesFirst(t *testing.T) {
	cause := errors.New("no connection within 30 seconds")
	p, err := New(Config{
		Getenv: environment(vars{"ALL_PROXY": "http://proxy.test"}),
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			deadline, _ := ctx.Deadline()
			<-time.After(time.Until(deadline))
			return nil, &net.OpError{Op: "dial", Err: errors.New("i/o timeout")}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, cause)
		_, err := p.DialContext(ctx, "wss", "target.test:443")
		cancel()
		if err != cause {
			t.Fatalf("the error is %v, want the cause", err)
		}
	}
}

func TestAProxyThatIsNotThere(t *testing.T) {
	settled(t)
	for _, tt := range schemes {
		p := via(t, tt.scheme, true, names{}, nil)
		_, err := p.DialContext(within(t), "wss", "target.test:443")
		proxyError(t, err, 0, "cannot connect to target.test:443 through the proxy proxy.test:3128: "+
			"dial tcp: lookup proxy.test:3128: no such host")
		if dns := (*net.DNSError)(nil); !errors.As(err, &dns) {
			t.Errorf("the cause of %v is lost", err)
		}
	}
}

// proxyError checks an *Error about target.test.
func proxyError(t *testing.T, err error, status int, want string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("the error is %v, want an *Error: %s", err, want)
	}
	discreet(t, err)
	if e.Proxy != "proxy.test:3128" || e.Target != "target.test:443" || e.Status != status || e.Err == nil {
		t.Errorf("the error is %+v, want it about target.test:443, proxy.test:3128 and the status %d", e, status)
	}
	if err.Error() != want {
		t.Errorf("the error is\n%v, want\n%v", err, want)
	}
}
