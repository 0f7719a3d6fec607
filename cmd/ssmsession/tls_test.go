package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// authority issues certificates, and has a file of its own one.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, file: filepath.Join(t.TempDir(), "authority.pem")}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes a certificate of a server at 127.0.0.1, but for what change does; nil
// for nothing.
func (a *authority) issue(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(about)
	}
	der, err := x509.CreateCertificate(rand.Reader, about, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tlsEnd speaks TLS in front of a service that does not.
type tlsEnd struct {
	*httptest.Server
	host string
}

// newTLSEnd has the address of one; serve starts it.
func newTLSEnd(t *testing.T, cfg *tls.Config) tlsEnd {
	e := tlsEnd{Server: httptest.NewUnstartedServer(nil)}
	e.host = e.Listener.Addr().String()
	e.TLS, e.Config.ErrorLog = cfg, log.New(io.Discard, "", 0)
	t.Cleanup(e.Close)
	return e
}

func (e tlsEnd) serve(t *testing.T, service string) {
	t.Helper()
	to, err := url.Parse(service)
	if err != nil {
		t.Fatal(err)
	}
	e.Config.Handler = &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ErrorLog: log.New(io.Discard, "", 0), // of clients that hang up
	}
	e.StartTLS()
}

// tlsRow is something that one end of TLS does, and what comes of it.
type tlsRow struct {
	name string
	do   func(*tls.Config) // to a good server
	// says is a pattern of the line on stderr; empty: it is good. unchecked is the
	// same with --no-verify-ssl.
	says, unchecked string
	hint            string // a part of it
}

// tlsRows are what servers do. stranger is an authority that nobody trusts.
func tlsRows(t *testing.T, known, stranger *authority) []tlsRow {
	certificate := func(by *authority, change func(*x509.Certificate)) func(*tls.Config) {
		cert := by.issue(t, change)
		return func(c *tls.Config) { c.Certificates = []tls.Certificate{cert} }
	}
	versions := func(from, to uint16) func(*tls.Config) {
		return func(c *tls.Config) { c.MinVersion, c.MaxVersion = from, to }
	}
	const old = `protocol version`
	const bundle, clock, stray = "AWS_CA_BUNDLE", "clock", "somebody else"
	return []tlsRow{
		{name: "TLS 1.0", do: versions(tls.VersionTLS10, tls.VersionTLS10), says: old, unchecked: old},
		{name: "TLS 1.1", do: versions(tls.VersionTLS10, tls.VersionTLS11), says: old, unchecked: old},
		{name: "TLS 1.2", do: versions(tls.VersionTLS12, tls.VersionTLS12)},
		{name: "TLS 1.3", do: versions(tls.VersionTLS13, tls.VersionTLS13)},
		{name: "a certificate of a stranger", do: certificate(stranger, nil), says: `unknown authority`, hint: bundle},
		{name: "a certificate for another host", do: certificate(known, func(c *x509.Certificate) {
			c.IPAddresses, c.DNSNames = nil, []string{apiHost}
		}), says: `127\.0\.0\.1`, hint: stray},
		{name: "a certificate for another address", do: certificate(known, func(c *x509.Certificate) {
			c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)}
		}), says: `valid for 127\.0\.0\.2, not 127\.0\.0\.1`, hint: stray},
		{name: "a certificate that has expired", do: certificate(known, func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Minute)
		}), says: `expired`, hint: clock},
		{name: "a certificate of tomorrow", do: certificate(known, func(c *x509.Certificate) {
			c.NotBefore = time.Now().Add(time.Minute)
		}), says: `not yet valid`, hint: clock},
		{name: "a certificate for clients", do: certificate(known, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), says: `key usage`},
	}
}

// TestTLS has each of the two connections end at servers with something wrong, while
// the other one is good. AWS_CA_BUNDLE is what makes both good.
func TestTLS(t *testing.T) {
	known, stranger := newAuthority(t), newAuthority(t)
	good := known.issue(t, nil)
	for _, row := range tlsRows(t, known, stranger) {
		for _, faulty := range []string{"API", "data channel"} {
			for _, unchecked := range []bool{false, true} {
				name := row.name + ", " + faulty
				if unchecked {
					name += ", --no-verify-ssl"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					row.test(t, known, good, faulty == "API", unchecked)
				})
			}
		}
	}
}

func (row tlsRow) test(t *testing.T, known *authority, good tls.Certificate, atAPI, unchecked bool) {
	config := func(faulty bool) *tls.Config {
		c := &tls.Config{Certificates: []tls.Certificate{good}}
		if faulty {
			row.do(c)
		}
		return c
	}
	api, channel := newTLSEnd(t, config(atAPI)), newTLSEnd(t, config(!atAPI))
	const path = "/v1/data-channel/" + badSession + "?role=publish_subscribe"
	s := newBadService(t, nil, func(s *badService) {
		s.grant = func(_ *badService, g *grant) { g.StreamURL = "wss://" + channel.host + path }
		s.channel = (*farEnd).goOn
	})
	api.serve(t, s.server.URL)
	channel.serve(t, s.server.URL)

	env := append(s.environment(), "AWS_ENDPOINT_URL="+api.URL, "AWS_CA_BUNDLE="+known.file)
	args := []string{"ssmsession", "start", exampleTarget}
	says := row.says
	if unchecked {
		args, says = append(args, "--no-verify-ssl"), row.unchecked
	}
	e := endsInTime(t, badLimit, nil, env, args...)
	var said strings.Builder // without the warning
	for line := range strings.Lines(e.stderr) {
		if !strings.HasPrefix(line, "ssmsession: warning: certificates are not checked") {
			said.WriteString(line)
		} else if !unchecked {
			t.Errorf("it does not check certificates")
		}
	}
	e.stderr = said.String()

	s.mu.Lock()
	defer s.mu.Unlock()
	if says == "" {
		if e.wantSays(t, ""); e.status != 0 || e.stdout != "survived\n" {
			t.Errorf("it ends with status %d and prints %q", e.status, e.stdout)
		}
		return
	}
	host := channel.host
	if atAPI {
		host = api.host
	}
	e.wantSays(t, strings.ReplaceAll(host, ".", `\.`)+`.*(?:`+says+`)`)
	if e.status != exitFailed || e.stdout != "" {
		t.Errorf("it ends with status %d and prints %q", e.status, e.stdout)
	}
	if _, hint, _ := strings.Cut(e.stderr, "\nhint: "); !strings.Contains(hint, row.hint) {
		t.Errorf("the hint is %q, want one about %q", hint, row.hint)
	}
	switch {
	case len(s.asked) > 0:
		t.Errorf("a data channel was opened all the same: %q", s.asked)
	case atAPI && len(s.calls) > 0:
		t.Errorf("the API was called all the same: %q", s.calls)
	case !atAPI && len(s.terminated) == 0:
		t.Error("the session was left behind")
	}
}

// TestTheOldServersOfTheTestsWork sees that what is refused is the version.
func TestTheOldServersOfTheTestsWork(t *testing.T) {
	known := newAuthority(t)
	end := newTLSEnd(t, &tls.Config{Certificates: []tls.Certificate{known.issue(t, nil)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	end.serve(t, "http://127.0.0.1:0")
	roots := x509.NewCertPool()
	roots.AddCert(known.cert)
	conn, err := tls.Dial("tcp", end.host, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS10})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if v := conn.ConnectionState().Version; v != tls.VersionTLS11 {
		t.Errorf("it speaks %s", tls.VersionName(v))
	}
}

// TestAStrangerInTheWayOfASessionIsToldNothing has somebody else answer when the
// connection of a session was lost: for the API first, then for the data channel.
func TestAStrangerInTheWayOfASessionIsToldNothing(t *testing.T) {
	known, stranger := newAuthority(t), newAuthority(t)
	good, bad := known.issue(t, nil), stranger.issue(t, nil)
	for _, atAPI := range []bool{true, false} {
		name := "the data channel"
		if atAPI {
			name = "the API"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			lost := false // the session has lost its connection
			config := func(faulty bool) *tls.Config {
				return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
					mu.Lock()
					defer mu.Unlock()
					if faulty && lost {
						return &tls.Config{Certificates: []tls.Certificate{bad}}, nil
					}
					return &tls.Config{Certificates: []tls.Certificate{good}}, nil
				}}
			}
			api, channel := newTLSEnd(t, config(atAPI)), newTLSEnd(t, config(!atAPI))
			s := newBadService(t, nil, func(s *badService) {
				at := "wss://" + channel.host + "/v1/data-channel/" + badSession + "?role=publish_subscribe"
				s.grant = func(_ *badService, g *grant) { g.StreamURL = at }
				s.resume = says(200, marshal(grant{badSession, at, badToken}))
				s.channel = func(f *farEnd) {
					f.send(frame.Output, "whole\n")
					f.settle(t)
					mu.Lock()
					lost = true
					mu.Unlock()
				}
			})
			api.serve(t, s.server.URL)
			channel.serve(t, s.server.URL)
			env := append(s.environment(), "AWS_ENDPOINT_URL="+api.URL, "AWS_CA_BUNDLE="+known.file)
			e := endsInTime(t, badLimit, nil, env, "ssmsession", "start", exampleTarget, "--reconnect-timeout", "2s")
			e.wantSays(t, `certificate`)
			if e.status != exitFailed || e.stdout != "whole\n" {
				t.Errorf("it ends with status %d and prints %q", e.status, e.stdout)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.asked) != 1 {
				t.Errorf("data channels were opened at %q, want one", s.asked)
			}
			if atAPI && len(s.calls) != 1 {
				t.Errorf("the stranger was called: %q", s.calls)
			}
		})
	}
}
