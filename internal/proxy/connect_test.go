package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode"
)

// after has a proxy read a CONNECT and then say something and hang up.
func after(answer string) func(net.Conn) {
	return func(conn net.Conn) {
		if takesRequest(conn) == "" {
			return
		}
		io.WriteString(conn, answer)
	}
}

// takesRequest reads a request's header.
func takesRequest(conn net.Conn) string {
	var header []byte
	for b := make([]byte, 1); !bytes.HasSuffix(header, []byte("\r\n\r\n")); {
		if _, err := io.ReadFull(conn, b); err != nil {
			return ""
		}
		header = append(header, b...)
	}
	return string(header)
}

func TestTheRequest(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		login      bool
	}{
		{"without a login", "CONNECT target.test:443 HTTP/1.1\r\nHost: target.test:443\r\nUser-Agent: Go-http-client/1.1\r\n\r\n", false},
		{"with a login", "CONNECT target.test:443 HTTP/1.1\r\nHost: target.test:443\r\nUser-Agent: Go-http-client/1.1\r\n" +
			"Proxy-Authorization: Basic dXNlci1zM2NyZXQ6aHVudGVyMjpALyBzM2NyZXQ=\r\n\r\n", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			settled(t)
			asked := make(chan string, 1)
			addr := listen(t, func(conn net.Conn) { asked <- takesRequest(conn) })
			p := via(t, "http", tt.login, names{"proxy.test:3128": addr}, nil)
			if _, err := p.DialContext(within(t), "wss", "target.test:443"); err == nil {
				t.Error("a proxy that hangs up gave a connection")
			}
			if got := next(t, asked, "the request"); got != tt.want {
				t.Errorf("the proxy was asked\n%q, want\n%q", got, tt.want)
			}
		})
	}
}

// The target's first bytes may arrive with the proxy's answer, in any pieces.
func TestBytesBehindTheAnswerAreTheTargets(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 10_000)
	for _, tt := range []struct {
		name  string
		parts []string
		want  string
	}{
		{"at once", []string{"HTTP/1.1 200 OK\r\n\r\nhello"}, "hello"},
		{"an old proxy", []string{"HTTP/1.0 200 Connection established\r\n\r\nhello"}, "hello"},
		{"lines without CR", []string{"HTTP/1.1 200 OK\n\nhello"}, "hello"},
		{"afterwards", []string{"HTTP/1.1 200 OK\r\n\r\n", "hello"}, "hello"},
		{"some with the answer", []string{"HTTP/1.1 200 OK\r\n\r\nhe", "llo"}, "hello"},
		{"the answer in pieces", []string{"HT", "TP/1.1 2", "00 OK\r", "\n\r", "\nhello"}, "hello"},
		{"announced", []string{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello"}, "hello"},
		{"a length, which means nothing in a 200", []string{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhello"}, "hello"},
		{"chunks, which mean nothing in a 200", []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello"}, "hello"},
		{"more than a buffer", []string{"HTTP/1.1 200 OK\r\n\r\n" + long}, long},
		{"a header just within bounds", []string{"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxAnswer-30) + "\r\n\r\n" + long}, long},
		{"what looks like another answer", []string{"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 403 Forbidden\r\n\r\n"}, "HTTP/1.1 403 Forbidden\r\n\r\n"},
	} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(tt.name+" over "+scheme, func(t *testing.T) {
				settled(t)
				cert, roots := identity(t, "proxy.test")
				serve := func(conn net.Conn) {
					takesRequest(conn)
					for _, part := range tt.parts {
						io.WriteString(conn, part)
					}
				}
				if scheme == "https" {
					serve = overTLS(cert, serve)
				}
				p := via(t, scheme, false, names{"proxy.test:3128": listen(t, serve)}, roots)
				conn, err := p.DialContext(within(t), "wss", "target.test:443")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if got, err := io.ReadAll(conn); err != nil || string(got) != tt.want {
					t.Errorf("read %d bytes, %.40q, %v, want %d", len(got), got, err, len(tt.want))
				}
			})
		}
	}
}

func TestAProxyThatRefuses(t *testing.T) {
	const refused = "the proxy proxy.test:3128 refused to connect to target.test:443: "
	for _, tt := range []struct {
		name, answer string
		login        bool
		status       int
		want         string
	}{
		{"forbidden", "HTTP/1.1 403 Forbidden\r\n\r\n", true, 403, "403 Forbidden"},
		{"with words of its own", "HTTP/1.1 403 \x1b[31mhunter2\r\n\r\n", true, 403, "403 Forbidden"},
		{"with a page", "HTTP/1.1 503 No\r\nContent-Length: 1000000\r\n\r\n<html>", true, 503, "503 Service Unavailable"},
		{"no way there", "HTTP/1.1 502 Bad Gateway\r\n\r\n", true, 502, "502 Bad Gateway"},
		{"a status without a name", "HTTP/1.1 799 hunter2\r\n\r\n", true, 799, "799"},
		{"a redirection", "HTTP/1.1 302 Found\r\nLocation: http://login.test/\r\n\r\n", true, 302, "302 Found"},
		{"a protocol that nobody asked for", "HTTP/1.1 101 x\r\n\r\n", true, 101, "101 Switching Protocols"},
		{"a success that is none", "HTTP/1.1 204 No Content\r\n\r\n", true, 204, "204 No Content"},

		{"a login is missing", "HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: Basic realm=\"corp\"\r\n\r\n", false, 407,
			"407 Proxy Authentication Required: put a user name and password into ALL_PROXY, as in http://user:password@proxy.test:3128"},
		{"a login is missing, no kind named", "HTTP/1.1 407 x\r\n\r\n", false, 407,
			"407 Proxy Authentication Required: put a user name and password into ALL_PROXY, as in http://user:password@proxy.test:3128"},
		{"a wrong login", "HTTP/1.1 407 x\r\nProxy-Authenticate: BASIC realm=\"corp\"\r\n\r\n", true, 407,
			"407 Proxy Authentication Required: the user name and password in ALL_PROXY are not accepted"},
		{"a login of another kind", "HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate, NTLM\r\n\r\n", true, 407,
			"407 Proxy Authentication Required: it wants a login of another kind than user name and password, which is not supported"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			settled(t)
			gone := make(chan struct{})
			addr := listen(t, func(conn net.Conn) {
				defer close(gone)
				after(tt.answer)(conn)
				hold(conn)
			})
			p := via(t, "http", tt.login, names{"proxy.test:3128": addr}, nil)
			_, err := p.DialContext(within(t), "wss", "target.test:443")
			proxyError(t, err, tt.status, refused+tt.want)
			next(t, gone, "the connection to the proxy to be closed")
		})
	}
}

func TestAProxyThatIsNone(t *testing.T) {
	const (
		through  = "cannot connect to target.test:443 through the proxy proxy.test:3128: "
		closed   = "it closed the connection before it had answered"
		tooLong  = "its answer is longer than 64 KiB"
		notHTTP  = "it does not answer as HTTP proxies do"
		notSOCKS = "it does not answer as SOCKS5 proxies do"
	)
	endless := func(start, more string) func(net.Conn) {
		return func(conn net.Conn) {
			takesRequest(conn)
			for _, err := io.WriteString(conn, start); err == nil; {
				_, err = io.WriteString(conn, more)
			}
		}
	}
	cert, roots := identity(t, "proxy.test")
	untrusted, _ := identity(t, "untrusted.test", "proxy.test")
	misnamed, _ := identity(t, "elsewhere.test")
	roots.AddCert(misnamed.Leaf)
	for _, tt := range []struct {
		name, scheme string
		serve        func(net.Conn)
		want         string
	}{
		{"hangs up after the request", "http", after(""), closed},
		{"hangs up within the answer", "http", after("HTTP/1.1 200 OK\r\nVia: x\r\n"), closed},
		{"hangs up within the status", "http", after("HTTP/1.1 20"), notHTTP},
		{"hangs up after an announcement", "http", after("HTTP/1.1 100 Continue\r\n\r\n"), closed},
		{"garbage", "http", after("\x00\xff\x1b[2J hunter2\r\n\r\n"), notHTTP},
		{"an ssh server", "http", after("SSH-2.0-OpenSSH_9.9\r\n"), notHTTP},
		{"a status that is no number", "http", after("HTTP/1.1 yes hunter2\r\n\r\n"), notHTTP},
		{"a header without a colon", "http", after("HTTP/1.1 200 OK\r\n\x1b]0;hunter2\r\n\r\n"), notHTTP},
		{"a SOCKS proxy", "http", after("\x05\xff\r\n"), notHTTP},
		{"a header without end", "http", endless("HTTP/1.1 200 OK\r\nX: ", strings.Repeat("x", 1000)), tooLong},
		{"headers without end", "http", endless("HTTP/1.1 200 OK\r\n", "X: y\r\n"), tooLong},
		{"a status without end", "http", endless("HTTP/1.1 200 ", strings.Repeat("x", 1000)), tooLong},
		{"a line without end", "http", endless("", strings.Repeat("x", 1000)), tooLong},
		{"announcements without end", "http", endless("", "HTTP/1.1 100 Continue\r\n\r\n"), tooLong},

		{"no TLS", "https", func(conn net.Conn) {
			takes(conn, 10)
			io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
		}, "tls: first record does not look like a TLS handshake"},
		{"a certificate that nobody trusts", "https", overTLS(untrusted, echo), "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{"a certificate for another", "https", overTLS(misnamed, echo),
			"tls: failed to verify certificate: x509: certificate is valid for elsewhere.test, not proxy.test"},
		{"hangs up within TLS", "https", overTLS(cert, after("")), closed},
		{"TLS where none is expected", "http", overTLS(cert, echo), closed},

		{"hangs up after the SOCKS greeting", "socks5h", func(conn net.Conn) { takes(conn, 4) }, closed},
		{"an http proxy", "socks5h", func(conn net.Conn) {
			takes(conn, 4)
			io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
		}, notSOCKS},
		{"SOCKS 4", "socks5", func(conn net.Conn) {
			takes(conn, 4)
			io.WriteString(conn, "\x00\x5b\x00\x00\x00\x00\x00\x00")
		}, notSOCKS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			settled(t)
			p := via(t, tt.scheme, true, names{"proxy.test:3128": listen(t, tt.serve)}, roots)
			_, err := p.DialContext(within(t), "wss", "target.test:443")
			proxyError(t, err, 0, through+tt.want)
		})
	}
}

// Whatever the given configuration says about its own connections, the one to
// the proxy is for the proxy's name, HTTP/1.1 and at least TLS 1.2.
func TestTLSToTheProxy(t *testing.T) {
	settled(t)
	cert, roots := identity(t, "proxy.test")
	hello := make(chan *tls.ClientHelloInfo, 1)
	addr := listen(t, func(conn net.Conn) {
		tls.Server(conn, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			hello <- h
			return &tls.Config{Certificates: []tls.Certificate{cert}}, nil
		}}).Handshake()
	})
	cfg := &tls.Config{ServerName: "target.test", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS10, RootCAs: roots}
	p, err := New(Config{
		Getenv: environment(vars{"HTTPS_PROXY": "https://proxy.test:3128"}),
		TLS:    cfg,
		Dial:   names{"proxy.test:3128": addr}.Dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.DialContext(within(t), "wss", "target.test:443"); err == nil {
		t.Error("a proxy that hangs up gave a connection")
	}
	h := next(t, hello, "the hello")
	if h.ServerName != "proxy.test" || len(h.SupportedProtos) != 0 {
		t.Errorf("the hello is for %q with the protocols %v, want proxy.test with none", h.ServerName, h.SupportedProtos)
	}
	for _, v := range h.SupportedVersions {
		if v < tls.VersionTLS12 {
			t.Errorf("the hello offers %s", tls.VersionName(v))
		}
	}
	if cfg.ServerName != "target.test" || len(cfg.NextProtos) != 1 {
		t.Error("the caller's configuration was changed")
	}
}

// A certificate is what it likes to be, and its names are in the error.
func TestACertificateDoesNotCommandTheTerminal(t *testing.T) {
	settled(t)
	cert, roots := identity(t, "elsewhere.test\n\x1b[2J")
	addr := listen(t, func(conn net.Conn) {
		tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake()
	})
	p, err := New(Config{
		Getenv: environment(vars{"HTTPS_PROXY": "https://proxy.test:3128"}),
		TLS:    &tls.Config{RootCAs: roots},
		Dial:   names{"proxy.test:3128": addr}.Dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.DialContext(within(t), "wss", "target.test:443")
	proxyError(t, err, 0, "cannot connect to target.test:443 through the proxy proxy.test:3128: "+
		"tls: failed to verify certificate: x509: certificate is valid for elsewhere.test[2J, not proxy.test")
	if name := (x509.HostnameError{}); !errors.As(err, &name) {
		t.Errorf("the cause of %v is lost", err)
	}
}

// stuckConn is a connection whose peer, once told, takes nothing more.
type stuckConn struct {
	net.Conn
	stuck  atomic.Bool
	once   sync.Once
	closed chan struct{}
}

func (c *stuckConn) Write(p []byte) (int, error) {
	if c.stuck.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c *stuckConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TLS's own Close writes an alert, for which a proxy that takes nothing would
// have it wait.
func TestCloseDoesNotWait(t *testing.T) {
	settled(t)
	cert, roots := identity(t, "proxy.test")
	hosts := names{"proxy.test:3128": listen(t, overTLS(cert, func(conn net.Conn) {
		after("HTTP/1.1 200 OK\r\n\r\n")(conn)
		hold(conn)
	}))}
	tcp := &stuckConn{closed: make(chan struct{})}
	p, err := New(Config{
		Getenv: environment(vars{"ALL_PROXY": "https://proxy.test:3128"}),
		TLS:    &tls.Config{RootCAs: roots},
		Dial: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			tcp.Conn, err = hosts.Dial(ctx, network, addr)
			return tcp, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := p.DialContext(within(t), "wss", "target.test:443")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	tcp.stuck.Store(true)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		conn.Close()
	}()
	next(t, closed, "Close")
}

// FuzzReadAnswer: whatever a proxy says, no byte of the target's is lost or
// made up, and no word of the proxy's gets into an error.
func FuzzReadAnswer(f *testing.F) {
	for _, seed := range []string{
		"", "HTTP/1.1 200 OK\r\n\r\nhello", "HTTP/1.0 200\r\n\r\n", "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 407 x\r\nA: b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhello", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", "SSH-2.0-x\r\n",
		"HTTP/1.1 101 x\r\n\r\nx", "HTTP/1.1 200 OK\nX: y\n z\n\nx", "\x16\x03\x01\x02\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		conn := bytes.NewReader(said)
		a, early, err := readAnswer(conn, &http.Request{Method: http.MethodConnect})
		if err != nil {
			if len(err.Error()) > 60 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsPrint(r) }) {
				t.Errorf("the error is %q", err.Error())
			}
			return
		}
		if a.status < 200 && a.status != http.StatusSwitchingProtocols {
			t.Errorf("%d was taken for an answer", a.status)
		}
		rest := append(early, said[len(said)-conn.Len():]...)
		header, ok := bytes.CutSuffix(said, rest)
		if !ok || !bytes.HasSuffix(header, []byte("\n")) {
			t.Errorf("behind the answer remain %q of %q", rest, said)
		}
	})
}
