package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// maxAnswer bounds what a proxy may answer to CONNECT, in bytes.
const maxAnswer = 64 << 10

// connect asks an http or https proxy for a tunnel to addr (CONNECT, RFC 9110,
// section 9.3.6).
func (p *Proxies) connect(ctx context.Context, s *server, tcp net.Conn, addr string) (net.Conn, error) {
	conn := tcp
	if s.url.Scheme == "https" {
		secure := tls.Client(tcp, p.tlsFor(s.url.Hostname()))
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secure
	}
	request := &http.Request{
		Method: http.MethodConnect,
		URL:    &url.URL{Opaque: addr},
		Host:   addr,
		Header: http.Header{},
	}
	if user, password, ok := s.login(); ok {
		basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
		request.Header.Set("Proxy-Authorization", "Basic "+basic)
	}
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	answer, early, err := readAnswer(conn, request)
	if err != nil {
		return nil, err
	}
	if answer.status != http.StatusOK {
		return nil, s.refused(answer)
	}
	if conn == tcp && len(early) == 0 {
		return tcp, nil
	}
	return &tunnel{Conn: conn, tcp: tcp, early: early}, nil
}

func (p *Proxies) tlsFor(host string) *tls.Config {
	cfg := p.tls.Clone()
	cfg.ServerName = host
	cfg.NextProtos = nil // HTTP/1.1, the only one that connect speaks
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	return cfg
}

// answer is a proxy's to CONNECT, without what a body would be.
type answer struct {
	status int
	header http.Header
}

// readAnswer reads a proxy's answer and returns, with it, the bytes that came
// right behind: they are the target's. What an answer says is the proxy's to
// choose, so none of it becomes part of an error.
func readAnswer(conn io.Reader, request *http.Request) (a answer, early []byte, err error) {
	bounded := &io.LimitedReader{R: conn, N: maxAnswer}
	r := bufio.NewReader(bounded)
	for {
		resp, err := http.ReadResponse(r, request) //nolint:bodyclose // closing reads it, and behind a 200 it is the tunnel
		switch {
		case err != nil && bounded.N <= 0:
			return answer{}, nil, fmt.Errorf("its answer is longer than %d KiB", maxAnswer>>10)
		case err != nil:
			return answer{}, nil, unanswered(err, "HTTP")
		case resp.StatusCode >= http.StatusOK || resp.StatusCode == http.StatusSwitchingProtocols:
			early, err := r.Peek(r.Buffered())
			return answer{resp.StatusCode, resp.Header}, slices.Clone(early), err
		}
		// Anything else below 200 announces an answer.
	}
}

// refused says why there is no tunnel, with what to do about a login.
func (s *server) refused(a answer) error {
	reason := strings.TrimSpace(fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)))
	if a.status == http.StatusProxyAuthRequired {
		// No header is taken for Basic, which is the common one.
		offers := strings.ToLower(strings.Join(a.header.Values("Proxy-Authenticate"), ","))
		reason += ": " + s.loginHint(offers == "" || strings.Contains(offers, "basic"))
	}
	return &refusal{status: a.status, reason: reason, login: a.status == http.StatusProxyAuthRequired}
}

// tunnel is a connection through a proxy.
type tunnel struct {
	net.Conn          // TCP to the proxy, or TLS
	tcp      net.Conn // beneath it
	early    []byte   // the target's first bytes, read with the proxy's answer; owned by the reader
}

// Read implements net.Conn.
func (t *tunnel) Read(p []byte) (int, error) {
	if len(t.early) == 0 {
		return t.Conn.Read(p)
	}
	n := copy(p, t.early)
	if t.early = t.early[n:]; len(t.early) == 0 {
		t.early = nil
	}
	return n, nil
}

// Close implements net.Conn. TLS would first write an alert, and wait up to
// five seconds for a peer that takes nothing.
func (t *tunnel) Close() error { return t.tcp.Close() }

// unanswered says what came instead of an answer in the protocol.
func unanswered(err error, protocol string) error {
	var network net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it closed the connection before it had answered")
	case errors.As(err, &network):
		return err
	default:
		return fmt.Errorf("it does not answer as %s proxies do", protocol)
	}
}
