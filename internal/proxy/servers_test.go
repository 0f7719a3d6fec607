package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The user and the password of every proxy that wants them; they must never
// show up in an error.
const user, password = "user-s3cret", "hunter2:@/ s3cret"

// patience bounds what a test waits for; nothing takes anywhere near as long.
const patience = 20 * time.Second

// names are the hosts of a test, host:port, and where they listen. None can be
// a loopback name or address: those are never proxied.
type names map[string]string

// Dial connects to a name.
func (n names) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	real, ok := n[addr]
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}}
	}
	return (&net.Dialer{}).DialContext(ctx, network, real)
}

// settled fails a test that leaves goroutines behind. It has to be called
// before anything else of the test is cleaned up later.
func settled(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; <-tick.C {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("%d goroutines became %d:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
}

// listen serves connections on loopback until the test ends, and closes each
// when it was served.
func listen(t *testing.T, serve func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			all.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// identity is a certificate for hosts and who trusts it.
func identity(t *testing.T, hosts ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: hosts[0]},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     hosts,
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, pool
}

// overTLS serves what is inside.
func overTLS(cert tls.Certificate, serve func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}})
		defer secure.Close()
		if secure.Handshake() == nil {
			serve(secure)
		}
	}
}

func echo(conn net.Conn) { io.Copy(conn, conn) }

// seen is what a proxy was asked.
type seen struct{ target, user, password string }

// testProxy is a proxy that works. It reaches the hosts that it knows.
type testProxy struct {
	hosts    names
	login    bool // wants user and password
	requests chan seen
	relayed  chan []byte // the first two bytes for the target
}

func newTestProxy(hosts names, login bool) *testProxy {
	return &testProxy{hosts: hosts, login: login, requests: make(chan seen, 100), relayed: make(chan []byte, 100)}
}

func (p *testProxy) admits(s seen) bool {
	return !p.login || (s.user == user && s.password == password)
}

// HTTP takes CONNECT.
func (p *testProxy) HTTP(conn net.Conn) {
	r := bufio.NewReader(conn)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	s := seen{target: req.Host}
	if a := req.Header.Get("Proxy-Authorization"); a != "" {
		s.user, s.password, _ = (&http.Request{Header: http.Header{"Authorization": {a}}}).BasicAuth()
	}
	p.requests <- s
	switch {
	case req.Method != http.MethodConnect || req.RequestURI != req.Host:
		io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
	case !p.admits(s):
		io.WriteString(conn, "HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n")
	default:
		target, err := p.hosts.Dial(context.Background(), "tcp", req.Host)
		if err != nil {
			io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
		p.relay(r, conn, target)
	}
}

// SOCKS speaks SOCKS5.
func (p *testProxy) SOCKS(conn net.Conn) {
	r := bufio.NewReader(conn)
	var s seen
	methods := readCounted(r, 1)
	switch {
	case p.login && !bytes.Contains(methods, []byte{2}):
		conn.Write([]byte{5, 0xff})
		return
	case p.login:
		conn.Write([]byte{5, 2})
		s.user, s.password = string(readCounted(r, 1)), string(readCounted(r, 0))
		if !p.admits(s) {
			conn.Write([]byte{1, 1})
			return
		}
		conn.Write([]byte{1, 0})
	default:
		conn.Write([]byte{5, 0})
	}
	s.target = readSOCKSTarget(r)
	p.requests <- s
	target, err := p.hosts.Dial(context.Background(), "tcp", s.target)
	if err != nil {
		conn.Write([]byte{5, 4, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	p.relay(r, conn, target)
}

// readCounted skips some bytes, reads a length and then as much.
func readCounted(r *bufio.Reader, skip int) []byte {
	r.Discard(skip)
	n, _ := r.ReadByte()
	b := make([]byte, n)
	io.ReadFull(r, b)
	return b
}

func readSOCKSTarget(r *bufio.Reader) string {
	head := make([]byte, 4)
	io.ReadFull(r, head)
	var host string
	switch head[3] {
	case 1:
		ip := make(net.IP, 4)
		io.ReadFull(r, ip)
		host = ip.String()
	case 4:
		ip := make(net.IP, 16)
		io.ReadFull(r, ip)
		host = ip.String()
	case 3:
		host = string(readCounted(r, 0))
	}
	port := make([]byte, 2)
	io.ReadFull(r, port)
	return net.JoinHostPort(host, strconv.Itoa(int(port[0])<<8|int(port[1])))
}

// relay copies both ways until both ends are done.
func (p *testProxy) relay(r *bufio.Reader, client, target net.Conn) {
	defer target.Close()
	if start, err := r.Peek(2); err == nil {
		p.relayed <- bytes.Clone(start)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(client, target)
		client.Close()
	}()
	io.Copy(target, r)
	target.Close()
	<-done
}

// next waits for something on a channel.
func next[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
		panic("unreachable")
	}
}

// within is a context that no test should see the end of.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// environment makes a Getenv.
func environment(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

// discreet fails when an error holds a secret or more than one line.
func discreet(t *testing.T, err error) {
	t.Helper()
	for _, secret := range []string{"s3cret", "hunter2", "dXNlci1z"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error tells the user name or password: %v", err)
		}
	}
	if strings.ContainsAny(err.Error(), "\r\n\x1b") || len(err.Error()) > 400 {
		t.Errorf("the error is no line to show to people: %q", err.Error())
	}
}
