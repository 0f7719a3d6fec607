package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// What the service is called where only a proxy finds it. Names and addresses are
// of those that are nobody's (RFC 2606, RFC 5737).
const (
	apiHost       = "service.test"
	streamHost    = "stream.test"
	privateHost   = "private.test"
	apiAddress    = "192.0.2.1"
	streamAddress = "192.0.2.2"

	proxyUser     = "person"
	proxyPassword = "ThePasswordThatNobodyMaySee"
)

// identity makes a certificate for everything that these tests call the service
// and its proxies, and a file that makes it trusted.
func identity(t *testing.T) (cert tls.Certificate, bundle string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{apiHost, streamHost, privateHost},
		IPAddresses:  []net.IP{net.ParseIP(apiAddress), net.ParseIP(streamAddress), net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	bundle = filepath.Join(t.TempDir(), "bundle.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, bundle
}

// testProxy is a proxy on loopback to whom every host is one and the same.
type testProxy struct {
	address string // of itself
	target  string // where everything goes
	login   bool   // it wants one
	refused string // the host that it does not connect to

	mu      sync.Mutex          // guards what follows
	relayed map[string][][]byte // the first bytes that went to an address, by address
}

// start takes connections as serve does, over TLS if there is a certificate.
func (p *testProxy) start(t *testing.T, cert *tls.Certificate, serve func(*testProxy, *bufio.ReadWriter) (string, bool)) {
	t.Helper()
	p.address = listen(t, func(c net.Conn) {
		defer c.Close()
		if cert != nil {
			c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}})
		}
		rw := bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
		address, ok := serve(p, rw)
		if rw.Flush() == nil && ok {
			p.relay(c, rw.Reader, address)
		}
	}).Addr().String()
}

// relay carries a connection to where everything goes, and notes how it begins.
func (p *testProxy) relay(c net.Conn, from *bufio.Reader, address string) {
	begin, err := from.Peek(3)
	p.mu.Lock()
	p.relayed[address] = append(p.relayed[address], slices.Clone(begin))
	p.mu.Unlock()
	if err != nil {
		return
	}
	target, err := net.Dial("tcp", p.target)
	if err != nil {
		return // the service has gone
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(c, target) // either end may go
		c.Close()
	})
	_, _ = io.Copy(target, from)
	target.Close()
	back.Wait()
}

// connects is a proxy of CONNECT.
func connects(p *testProxy, rw *bufio.ReadWriter) (string, bool) {
	r, err := http.ReadRequest(rw.Reader)
	if err != nil {
		return "", false
	}
	login := "Basic " + base64.StdEncoding.EncodeToString([]byte(proxyUser+":"+proxyPassword))
	host, _, _ := net.SplitHostPort(r.Host)
	answer := "200 Connection established"
	switch {
	case r.Method != http.MethodConnect:
		answer = "400 Bad Request"
	case p.login && r.Header.Get("Proxy-Authorization") != login:
		answer = "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"tea\""
	case host == p.refused:
		answer = "403 Forbidden"
	}
	fmt.Fprintf(rw, "HTTP/1.1 %s\r\n\r\n", answer)
	return r.Host, strings.HasPrefix(answer, "200")
}

// socks is a proxy of SOCKS5 (RFC 1928), with a login by RFC 1929 if it wants one.
func socks(p *testProxy, rw *bufio.ReadWriter) (string, bool) {
	methods, err := counted(rw, 1)
	if err != nil {
		return "", false
	}
	method := map[bool]byte{true: 2}[p.login]
	if !slices.Contains(methods, method) {
		rw.Write([]byte{5, 0xff})
		return "", false
	}
	rw.Write([]byte{5, method})
	if rw.Flush(); p.login {
		user, _ := counted(rw, 1)
		password, err := counted(rw, 0)
		if err != nil || string(user) != proxyUser || string(password) != proxyPassword {
			rw.Write([]byte{1, 1})
			return "", false
		}
		rw.Write([]byte{1, 0})
		rw.Flush()
	}
	head := make([]byte, 4) // version, command, reserved, kind of address
	if _, err := io.ReadFull(rw, head); err != nil {
		return "", false
	}
	var host []byte
	switch head[3] {
	case 1:
		host = make([]byte, net.IPv4len)
		_, err = io.ReadFull(rw, host)
		host = []byte(net.IP(host).String())
	case 3:
		host, err = counted(rw, 0)
	default:
		return "", false
	}
	port := make([]byte, 2)
	if _, portErr := io.ReadFull(rw, port); err != nil || portErr != nil {
		return "", false
	}
	ok := string(host) != p.refused
	rw.Write([]byte{5, map[bool]byte{false: 2}[ok], 0, 1, 0, 0, 0, 0, 0, 0}) // 2: not allowed
	return fmt.Sprintf("%s:%d", host, int(port[0])<<8|int(port[1])), ok
}

// counted reads bytes behind their number, and what is to be skipped before it.
func counted(r io.Reader, skip int) ([]byte, error) {
	head := make([]byte, skip+1)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	b := make([]byte, head[skip])
	_, err := io.ReadFull(r, b)
	return b, err
}

// answersNonsense is no proxy.
func answersNonsense(_ *testProxy, rw *bufio.ReadWriter) (string, bool) {
	_, _ = rw.Peek(1)
	_, _ = rw.WriteString("\x1b[2JSSH-2.0-tea\r\n\r\n")
	return "", false
}

// answersNothing is one that waits until the client goes.
func answersNothing(_ *testProxy, rw *bufio.ReadWriter) (string, bool) {
	_, _ = io.Copy(io.Discard, rw)
	return "", false
}

// proxiedRow is one way to the service.
type proxiedRow struct {
	name   string
	serve  func(*testProxy, *bufio.ReadWriter) (string, bool)
	secure bool   // the proxy speaks TLS itself
	login  bool   // and wants one
	refuse string // the host that it refuses

	// env and args lead to the proxy, which is written PROXY in them.
	env, args []string
	byAddress bool // the service has addresses instead of names
	untrusted bool // no AWS_CA_BUNDLE
	lost      bool // the session loses its connection once, and is resumed

	status int
	says   string   // a pattern of the line on stderr
	hints  string   // a part of the hint
	sees   []string // where the proxy is asked to connect to
}

// TestProxied leads the program to a service that only a proxy finds.
func TestProxied(t *testing.T) {
	cert, bundle := identity(t)
	for _, row := range slices.Concat(proxyRows(), noProxyRows(), endpointRows(bundle)) {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.test(t, cert, bundle)
		})
	}
}

// Where a session is seen to go.
func both() []string { return []string{apiHost + ":443", streamHost + ":443"} }

func proxyRows() []proxiedRow {
	const user, login = proxyUser, proxyUser + ":" + proxyPassword
	return []proxiedRow{
		{name: "HTTPS_PROXY", serve: connects, env: []string{"HTTPS_PROXY=http://PROXY"}, sees: both()},
		{name: "https_proxy", serve: connects, env: []string{"https_proxy=http://PROXY"}, sees: both()},
		{name: "ALL_PROXY", serve: connects, env: []string{"ALL_PROXY=http://PROXY"}, sees: both()},
		{name: "all_proxy", serve: connects, env: []string{"all_proxy=http://PROXY"}, sees: both()},
		{name: "HTTPS_PROXY before ALL_PROXY", serve: connects, env: []string{"HTTPS_PROXY=http://PROXY", "ALL_PROXY=http://TRAP"}, sees: both()},
		{name: "HTTP_PROXY is for http", serve: connects, env: []string{"HTTPS_PROXY=http://PROXY", "HTTP_PROXY=http://TRAP"}, sees: both()},
		{name: "a proxy without a scheme", serve: connects, env: []string{"HTTPS_PROXY=PROXY"}, sees: both()},
		{name: "an https proxy", serve: connects, secure: true, env: []string{"HTTPS_PROXY=https://PROXY"}, sees: both()},
		{name: "an http proxy with a login", serve: connects, login: true, env: []string{"HTTPS_PROXY=http://" + login + "@PROXY"}, sees: both()},
		{name: "an https proxy with a login", serve: connects, secure: true, login: true, env: []string{"HTTPS_PROXY=https://" + login + "@PROXY"}, sees: both()},
		{name: "a socks5h proxy", serve: socks, env: []string{"HTTPS_PROXY=socks5h://PROXY"}, sees: both()},
		{name: "a socks5h proxy with a login", serve: socks, login: true, env: []string{"ALL_PROXY=socks5h://" + login + "@PROXY"}, sees: both()},
		{name: "a socks5 proxy", serve: socks, byAddress: true, env: []string{"HTTPS_PROXY=socks5://PROXY"}, sees: []string{apiAddress + ":443", streamAddress + ":443"}},

		{name: "a session that is resumed", serve: connects, login: true, lost: true, env: []string{"HTTPS_PROXY=http://" + login + "@PROXY"}, sees: both()},
		{name: "a session that is resumed over socks5h", serve: socks, login: true, lost: true, env: []string{"HTTPS_PROXY=socks5h://" + login + "@PROXY"}, sees: both()},

		{name: "no login where one is wanted", serve: connects, login: true, env: []string{"HTTPS_PROXY=http://PROXY"},
			status: exitFailed, says: `proxy 127\.0\.0\.1:\d+.*407`},
		{name: "a wrong login", serve: connects, login: true, env: []string{"HTTPS_PROXY=http://" + user + ":x" + proxyPassword + "@PROXY"},
			status: exitFailed, says: `proxy 127\.0\.0\.1:\d+.*407`, hints: "user name and password"},
		{name: "no socks login where one is wanted", serve: socks, login: true, env: []string{"HTTPS_PROXY=socks5h://PROXY"},
			status: exitFailed, says: `proxy`},
		{name: "a wrong socks login", serve: socks, login: true, env: []string{"HTTPS_PROXY=socks5h://" + user + ":x" + proxyPassword + "@PROXY"},
			status: exitFailed, says: `proxy 127\.0\.0\.1:\d+: .*authentication failed`, hints: "user name and password"},
		{name: "a proxy that refuses the API", serve: connects, refuse: apiHost, env: []string{"HTTPS_PROXY=http://PROXY"},
			status: exitFailed, says: `proxy 127\.0\.0\.1:\d+.*403`},
		{name: "a proxy that refuses the data channel", serve: connects, refuse: streamHost, env: []string{"HTTPS_PROXY=http://PROXY"},
			status: exitFailed, says: `proxy 127\.0\.0\.1:\d+.*stream\.test.*403`, sees: both()[:1]},
		{name: "a socks5h proxy that refuses the data channel", serve: socks, refuse: streamHost, env: []string{"HTTPS_PROXY=socks5h://PROXY"},
			status: exitFailed, says: `proxy 127\.0\.0\.1:\d+.*stream\.test`, sees: both()[:1]},
		{name: "no proxy there", serve: connects, env: []string{"HTTPS_PROXY=http://NOBODY"},
			status: exitFailed, says: `proxy.*NOBODY.*refused`},
		{name: "a proxy that talks nonsense", serve: answersNonsense, env: []string{"HTTPS_PROXY=http://PROXY"},
			status: exitFailed, says: `proxy`},
		{name: "an https proxy that speaks no TLS", serve: connects, env: []string{"HTTPS_PROXY=https://PROXY"},
			status: exitFailed, says: `proxy`},
		{name: "a proxy that says nothing", serve: answersNothing, args: quickly()[1:], env: []string{"HTTPS_PROXY=http://PROXY"},
			status: exitFailed, says: late},
		{name: "a proxy that is no URL", serve: connects, env: []string{"HTTPS_PROXY=http://" + login + "@PROXY:x/%"},
			status: exitFailed, says: `HTTPS_PROXY`},
		{name: "a proxy of a scheme that nobody knows", serve: connects, env: []string{"ALL_PROXY=ftp://" + login + "@PROXY"},
			status: exitFailed, says: `ALL_PROXY.*socks5h`},
	}
}

func noProxyRows() []proxiedRow {
	rows := []proxiedRow{
		{name: "no proxy", says: `service\.test`},
		{name: "HTTP_PROXY alone", env: []string{"HTTP_PROXY=http://PROXY"}, says: `service\.test`},
		{name: "NO_PROXY names the API", env: []string{"HTTPS_PROXY=http://PROXY", "NO_PROXY=" + apiHost}, says: `service\.test`},
		{name: "no_proxy names all of .test", env: []string{"HTTPS_PROXY=http://PROXY", "no_proxy=other,.test"}, says: `service\.test`},
		{name: "NO_PROXY names everything", env: []string{"ALL_PROXY=socks5h://PROXY", "NO_PROXY=*"}, says: `service\.test`},
		{name: "NO_PROXY names the data channel", env: []string{"HTTPS_PROXY=http://PROXY", "NO_PROXY=other, " + streamHost}, says: `stream\.test`, sees: both()[:1]},
	}
	for i := range rows {
		rows[i].serve, rows[i].status = connects, exitFailed
	}
	return rows
}

// endpointRows are about the flags that go with it.
func endpointRows(bundle string) []proxiedRow {
	private := []string{apiHost + ":443", privateHost + ":443"}
	rows := []proxiedRow{
		{name: "--ca-bundle", untrusted: true, args: []string{"--ca-bundle", bundle}, sees: both()},
		{name: "--ca-bundle before AWS_CA_BUNDLE", untrusted: true, env: []string{"AWS_CA_BUNDLE=/nonexistent"}, args: []string{"--ca-bundle", bundle}, sees: both()},
		{name: "no --ca-bundle", untrusted: true, status: exitFailed, says: `certificate.*not trusted`, sees: both()[:1]},
		{name: "a --ca-bundle that is not there", args: []string{"--ca-bundle", "/nonexistent/bundle.pem"}, status: exitFailed, says: `/nonexistent/bundle\.pem`},
		{name: "a --ca-bundle of none", args: []string{"--ca-bundle", os.DevNull}, status: exitFailed, says: `no certificate`},
		{name: "--no-verify-ssl", untrusted: true, args: []string{"--no-verify-ssl"}, says: `warning: .*certificates`, sees: both()},
		{name: "--no-verify-ssl --quiet", untrusted: true, args: []string{"--no-verify-ssl", "--quiet"}, says: `warning: .*certificates`, sees: both()},
		{name: "--stream-endpoint", args: []string{"--stream-endpoint", "https://" + privateHost}, sees: private},
		{name: "--stream-endpoint with a port", args: []string{"--stream-endpoint", privateHost + ":8443"}, sees: []string{apiHost + ":443", privateHost + ":8443"}},
		{name: "AWS_ENDPOINT_URL_SSMMESSAGES", env: []string{"AWS_ENDPOINT_URL_SSMMESSAGES=https://" + privateHost}, sees: private},
		{name: "--stream-endpoint before AWS_ENDPOINT_URL_SSMMESSAGES", env: []string{"AWS_ENDPOINT_URL_SSMMESSAGES=https://other.test"}, args: []string{"--stream-endpoint", "wss://" + privateHost}, sees: private},
		{name: "--stream-endpoint in the clear", args: []string{"--stream-endpoint", "http://" + privateHost}, status: exitFailed, says: `private\.test.*wss`, sees: both()[:1]},
		{name: "--endpoint-url before AWS_ENDPOINT_URL", env: []string{"AWS_ENDPOINT_URL=https://other.test"}, args: []string{"--endpoint-url", "https://" + apiHost}, sees: both()},
	}
	for i := range rows {
		rows[i].serve, rows[i].env = connects, append(rows[i].env, "HTTPS_PROXY=http://PROXY")
	}
	return rows
}

func (row proxiedRow) test(t *testing.T, cert tls.Certificate, bundle string) {
	api, far := apiHost, streamHost
	if row.byAddress {
		api, far = apiAddress, streamAddress
	}
	const path = "/v1/data-channel/" + badSession + "?role=publish_subscribe"
	s := newBadService(t, &cert, func(s *badService) {
		s.grant = func(_ *badService, g *grant) { g.StreamURL = "wss://" + far + path }
		s.channel = (*farEnd).goOn
		if row.lost {
			s.resume = says(200, marshal(grant{badSession, "wss://" + far + path, badToken}))
			s.channel = func(f *farEnd) {
				if f.nth > 1 {
					f.sequence = 1
					f.goOn()
					return
				}
				f.send(frame.Output, "whole\n")
				f.settle(t)
			}
		}
	})
	var own *tls.Certificate
	if row.secure {
		own = &cert
	}
	p := &testProxy{target: s.host(), login: row.login, refused: row.refuse, relayed: map[string][][]byte{}}
	p.start(t, own, row.serve)
	nobody := listen(t, func(net.Conn) {})
	nobody.Close()
	fill := strings.NewReplacer("/PROXY", "/"+p.address, "@PROXY", "@"+p.address, "=PROXY", "="+p.address,
		"TRAP", s.trap.Addr().String(), "NOBODY", nobody.Addr().String())

	env := childEnv("AWS_ENDPOINT_URL=https://"+api, "AWS_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY="+badKey)
	if !row.untrusted {
		env = append(env, "AWS_CA_BUNDLE="+bundle)
	}
	for _, v := range row.env {
		env = append(env, fill.Replace(v))
	}
	e := endsInTime(t, badLimit, nil, env, append([]string{"ssmsession", "start", exampleTarget}, row.args...)...)

	if e.status != row.status {
		t.Errorf("it ends with status %d, want %d", e.status, row.status)
	}
	e.wantSays(t, fill.Replace(row.says))
	if _, hint, _ := strings.Cut(e.stderr, "\nhint: "); !strings.Contains(hint, row.hints) {
		t.Errorf("the hint is %q, want one about %q", hint, row.hints)
	}
	prints, dials := "", []string{path}
	if row.status == 0 {
		prints = "survived\n"
	}
	if row.lost {
		prints, dials = "whole\nsurvived\n", []string{path, path}
	}
	if e.stdout != prints {
		t.Errorf("stdout is %q, want %q", e.stdout, prints)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := slices.Sorted(maps.Keys(p.relayed)); !slices.Equal(got, slices.Sorted(slices.Values(row.sees))) {
		t.Errorf("the proxy was to connect to %q, want %q", got, row.sees)
	}
	for address, begins := range p.relayed {
		for _, b := range begins {
			// A record of a TLS handshake, of version 3.x (RFC 8446, section 5.1).
			if len(b) < 2 || b[0] != 0x16 || b[1] != 3 {
				t.Errorf("what goes to %s begins with %q, want a TLS hello", address, b)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trapped > 0 {
		t.Errorf("it went to a stranger %d times", s.trapped)
	}
	if row.status == 0 && !slices.Equal(s.asked, dials) {
		t.Errorf("it dials %q, want %q", s.asked, dials)
	}
	if calls := []string{"StartSession", "ResumeSession"}; row.lost && !slices.Equal(s.calls, calls) {
		t.Errorf("it calls %q, want %q", s.calls, calls)
	}
	if s.granted != "" && !s.closed && !slices.Equal(s.terminated, []string{badSession}) {
		t.Errorf("it ends the sessions %q at the service, want %q", s.terminated, badSession)
	}
}

// listen serves a loopback port until the test ends.
func listen(t *testing.T, serve func(net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // the test ends
			}
			conns.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return l
}

// ending is how a run of the program ended.
type ending struct {
	status         int
	stdout, stderr string
	cpu            time.Duration // processor time
	log, events    string
}

// endsInTime runs a program with somebody at its stdin who says nothing. One that
// hangs tells where. Ours, by its name on PATH, also tells all that it can.
func endsInTime(t *testing.T, limit time.Duration, started func(pid int), env []string, argv ...string) ending {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var out, errs bytes.Buffer
	log, events := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "events")
	if argv[0] == "ssmsession" {
		argv = slices.Insert(argv, 1, "--debug", "--log-file", log, "--events", events)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &errs
	cmd.Cancel = func() error {
		return errors.Join(os.ErrProcessDone, cmd.Process.Signal(syscall.SIGABRT))
	}
	cmd.WaitDelay = patience / 12
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("cannot start %q: %v", argv, err)
	}
	if started != nil {
		started(cmd.Process.Pid)
	}
	_ = cmd.Wait() // the status tells
	if ctx.Err() != nil {
		t.Fatalf("%q has not ended in %v; stdout:\n%.1000s\nstderr:\n%.8000s", argv, limit, &out, &errs)
	}
	t.Logf("stderr:\n%.1000s", &errs)
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return ending{cmd.ProcessState.ExitCode(), out.String(), errs.String(), cpu, written(t, log), written(t, events)}
}

// written is what a file has; nothing if it is not there.
func written(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	return string(data)
}

// Lines of stderr: those that tell of no failure, and what no line may have.
var (
	newsLine   = regexp.MustCompile(`^ssmsession: (session [^:]* on |connection lost \(|connected again after )`)
	programmer = regexp.MustCompile(`panic|goroutine|DATA RACE|\.go:\d|%!|<nil>|0x[0-9a-f]{8}`)
	unprinted  = regexp.MustCompile(`[\x00-\x09\x0b-\x1f\x7f-\x{9f}\x{2028}\x{2029}\x{202a}-\x{202e}\x{2066}-\x{2069}]`)
)

// wantSays checks stderr: one line of failure, or of parting, that matches a
// pattern, or none, and nothing that nobody should see.
func (e ending) wantSays(t *testing.T, pattern string) {
	t.Helper()
	shown := e.stderr
	if len(shown) > 2000 {
		shown = shown[:2000] + "…"
	}
	var failures []string
	for line := range strings.Lines(e.stderr) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "hint: "), newsLine.MatchString(line):
		case strings.HasPrefix(line, "ssmsession: "):
			failures = append(failures, line)
		default:
			t.Errorf("stderr has a line that is neither the program's nor a hint: %.200q", line)
		}
	}
	switch {
	case pattern == "" && len(failures) > 0:
		t.Errorf("it complains:\n%s", shown)
	case pattern != "" && len(failures) != 1:
		t.Errorf("it says %d things, want one:\n%s", len(failures), shown)
	case pattern != "" && !regexp.MustCompile(pattern).MatchString(failures[0]):
		t.Errorf("it says %.500q, which does not match %q", failures[0], pattern)
	}
	if m := programmer.FindString(e.stderr); m != "" {
		t.Errorf("stderr is for programmers, not for people: it has %q:\n%s", m, shown)
	}
	for where, text := range map[string]string{"stderr": e.stderr, "the log": e.log, "events": e.events} {
		if m := unprinted.FindString(text); m != "" {
			t.Errorf("%s: there is the character %q:\n%.2000s", where, m, text)
		}
	}
	login := base64.StdEncoding.EncodeToString([]byte(proxyUser + ":" + proxyPassword))
	for _, secret := range []string{badToken, badKey, proxyPassword, login} {
		for where, text := range map[string]string{"stdout": e.stdout, "stderr": e.stderr, "the log": e.log, "events": e.events} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: the secret %s is shown:\n%.2000s", where, secret, text)
			}
		}
	}
}

// TestFloodsTakeLittleMemory floods the program, built as it is released, and
// looks at the most memory that it ever had.
func TestFloodsTakeLittleMemory(t *testing.T) {
	program := released(t)
	messages, limit := int64(40_000), badLimit
	if os.Getenv("SOAK") != "" {
		messages, limit = 1_000_000, 10*badLimit
	}
	var numbers bytes.Buffer
	for n := range messages {
		fmt.Fprintln(&numbers, n)
	}
	for _, flood := range []struct {
		name    string
		channel func(*farEnd)
		status  int
		prints  string
		api     string // what an answer to StartSession begins with that never ends
		upgrade string // and one to the upgrade
	}{
		{name: "beyond a gap", channel: func(f *farEnd) {
			f.numbered(0, "0\n")
			for n := range messages {
				f.numbered(n+2, strings.Repeat("x", 1024))
			}
		}, status: exitFailed, prints: "0\n"},
		{name: "from far ahead backwards", channel: func(f *farEnd) {
			f.numbered(0, "0\n")
			for n := messages + 1; n > 1; n-- {
				f.numbered(n, strings.Repeat("x", 1024))
			}
		}, status: exitFailed, prints: "0\n"},
		{name: "neighbours changed about", channel: func(f *farEnd) {
			for n := range messages {
				f.numbered(n^1, strconv.FormatInt(n^1, 10)+"\n")
			}
		}, prints: numbers.String()},
		{name: "a repeated message", channel: func(f *farEnd) {
			for range messages / 10 {
				f.numbered(0, "0\n")
			}
		}, prints: "0\n"},
		{name: "handshakes", channel: func(f *farEnd) {
			f.send(frame.Output, "0\n")
			for range messages / 10 {
				f.send(frame.HandshakeRequest, "{}")
			}
		}, prints: "0\n"},
		{name: "large messages that are none", channel: func(f *farEnd) {
			for range messages / 1000 {
				f.binary(make([]byte, 250_000))
			}
			f.send(frame.Output, "0\n")
		}, prints: "0\n"},
		{name: "an answer without end", api: "HTTP/1.1 200 OK\r\n\r\n{\"SessionId\":\"", status: exitFailed},
		{name: "an upgrade without end", upgrade: "HTTP/1.1 101 Switching Protocols\r\nServer: ", status: exitFailed},
	} {
		t.Run(flood.name, func(t *testing.T) {
			pid := make(chan int, 1)
			look := sync.OnceFunc(func() { wantSmall(t, <-pid) })
			s := newBadService(t, nil, func(s *badService) {
				if flood.api != "" {
					s.api = answersRaw(flood.api+strings.Repeat("x", 100_000_000), look)
				}
				if flood.upgrade != "" {
					s.upgrade = answersRaw(flood.upgrade+strings.Repeat("x", 100_000_000), look)
				}
				s.channel = func(f *farEnd) {
					flood.channel(f)
					f.settle(t)
					look()
					f.end("")
				}
			})
			e := endsInTime(t, limit, func(p int) { pid <- p }, s.environment(), program, "start", exampleTarget)
			if e.status != flood.status {
				t.Errorf("it ends with status %d, want %d; stderr:\n%.1000s", e.status, flood.status, e.stderr)
			}
			if e.stdout != flood.prints {
				t.Errorf("it prints %d bytes, want %d; they begin with %.60q", len(e.stdout), len(flood.prints), e.stdout)
			}
		})
	}
}

// wantSmall looks at the most memory that a process ever had resident, where the
// system tells. What wait tells after its end will not do: it begins with what
// this process had when it forked.
func wantSmall(t *testing.T, pid int) {
	if runtime.GOOS != "linux" {
		return
	}
	kB := resident(t, pid)
	t.Logf("%d kB", kB)
	if kB == 0 || kB > 80_000 {
		t.Errorf("it took %d kB of memory, want fewer than 80000", kB)
	}
}

// released builds the program as it is released: without the race detector.
func released(t *testing.T) string {
	t.Helper()
	needTool(t, "go")
	program := filepath.Join(t.TempDir(), "ssmsession.exe")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the program: %v\n%s", err, out)
	}
	return program
}

// says answers with a status and a body.
func says(status int, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		w.Write(body)
	}
}

// refuses answers as the API refuses. The message may be empty.
func refuses(status int, code, message string) http.HandlerFunc {
	return says(status, marshal(struct {
		Type    string `json:"__type"`
		Message string `json:",omitempty"`
	}{code, message}))
}

// never answers.
func never(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // what the tests give can be marshalled
	}
	return b
}

// answersRaw answers with bytes that no server of ours would send. What comes then
// is done if the client takes all of them.
func answersRaw(answer string, then ...func()) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err) // it is a plain HTTP/1.1 server
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, answer); err != nil {
			return // the client has gone
		}
		for _, f := range then {
			f()
		}
	}
}

// TestStreamURLIsDialledAsItIs has the two forms of it: the documented one, and
// the one that the service gives.
func TestStreamURLIsDialledAsItIs(t *testing.T) {
	for _, address := range []string{
		"/v1/data-channel/" + badSession + "?stream=input",
		"/v1/data-channel/" + badSession + "?role=publish_subscribe",
		"/v1/data-channel/" + badSession + "?role=publish_subscribe&cell-number=AAEA%2fx%2B+y%3D%3d",
	} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			s := newBadService(t, nil, func(s *badService) {
				s.grant = func(s *badService, g *grant) { g.StreamURL = "ws://" + s.host() + address }
				s.channel = func(f *farEnd) {
					var open frame.OpenDataChannel
					select {
					case open = <-f.opened:
					case <-f.gone:
					}
					if open.TokenValue != badToken || open.MessageSchemaVersion != "1.0" {
						t.Errorf("it opens the data channel with schema version %q and the token %q", open.MessageSchemaVersion, open.TokenValue)
					}
					f.goOn()
				}
			})
			e := endsInTime(t, badLimit, nil, s.environment(), "ssmsession", "start", exampleTarget)
			if e.wantSays(t, ""); e.status != 0 || e.stdout != "survived\n" {
				t.Errorf("it ends with status %d and prints %q", e.status, e.stdout)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if !slices.Equal(s.asked, []string{address}) {
				t.Errorf("it dials %q, want %q", s.asked, address)
			}
		})
	}
}
