package emulator

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
)

// dataChannelPath is where data channels are, as at the real gateway
// (docs/protocol.md, "Control API").
const dataChannelPath = "/v1/data-channel/"

// streamURL is the address of a session's data channel, at the host by which the
// caller reached this server.
func (s *Server) streamURL(host, sessionID string) string {
	scheme := "ws"
	if s.cfg.TLS {
		scheme = "wss"
	}
	return scheme + "://" + host + dataChannelPath + sessionID + "?role=publish_subscribe"
}

// dataChannel serves the data channel of one client, from the upgrade to the end
// of the socket. Who has no valid token learns nothing: not whether the session
// exists, only that the socket closes.
func (s *Server) dataChannel(w http.ResponseWriter, r *http.Request) {
	if s.refuse(w, r) {
		return
	}
	hijack := &corkedWriter{ResponseWriter: w, faults: s.faults}
	defer func() {
		if hijack.conn != nil { // of whose end net/http does not tell
			s.lobby.admit(r)
		}
	}()
	upgrader := websocket.Upgrader{
		ReadBufferSize:  readBuffer,
		WriteBufferSize: writeBuffer,
		CheckOrigin:     func(*http.Request) bool { return true }, // door has checked it
	}
	conn, err := upgrader.Upgrade(hijack, r, nil)
	if err != nil {
		s.log.Debug("data channel refused", "error", err)
		return
	}
	l := newLeg(conn, hijack.conn)
	// A leg that is not open yet ends with the server; an open one is ended by its
	// session, which has something to say first.
	opening := context.AfterFunc(s.ctx, l.close)
	defer opening()
	defer close(l.done)
	var writer sync.WaitGroup
	defer writer.Wait()
	defer l.close()
	if err := l.cork.flush(); err != nil { // the answer to the upgrade
		s.log.Debug("data channel lost", "error", err)
		return
	}
	writer.Go(func() {
		defer close(l.written)
		if err := l.write(); err != nil {
			l.close()
		}
	})
	s.serveLeg(r, l, opening)
}

// serveLeg opens the leg of a session and relays what it reads until it ends. Opened
// is called when it is open.
func (s *Server) serveLeg(r *http.Request, l *leg, opened func() bool) {
	sessionID := r.PathValue("session")
	log := s.log.With("session", sessionID)
	open, err := l.open(s.cfg.Limits.Open)
	opened()
	if err != nil {
		log.Debug("data channel not opened", "error", err)
		return
	}
	session := s.sessions.find(sessionID)
	if session == nil {
		log.Debug("data channel of an unknown session")
		return
	}
	if err := session.attach(l, open.TokenValue); err != nil {
		log.Info("data channel refused", "error", err)
		return
	}
	s.lobby.admit(r)
	log.Info("client attached", "client version", open.ClientVersion)
	var faults sync.WaitGroup
	defer faults.Wait()
	defer l.close()
	faults.Go(func() { session.watchFaults(l) })
	err = l.read(session.fromClient(l))
	session.detach(l)
	log.Info("client detached", "error", err)
}

// door keeps web pages out. A browser names the page that asks, which no client of
// ours does; and one that has rebound its own name to an address of ours still asks
// for that name: only requests that name this machine are let through.
func door(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr) // set by net/http
		_, page := r.Header["Origin"]
		switch {
		case !isOwnHost(r.Host, local):
			http.Error(w, "this server does not go by that name", http.StatusForbidden)
		case page:
			http.Error(w, "this server is not for web pages", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isOwnHost tells whether a Host header is loopback, or the very address that the
// connection came in by.
func isOwnHost(hostport string, local net.Addr) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]") // no port
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if ip.IsLoopback() {
		return true
	}
	own, ok := local.(*net.TCPAddr)
	return ok && own.AddrPort().Addr().Unmap() == ip.Unmap()
}

// corkedWriter hands out the connection of a request as a corkConn: the websocket
// library takes whatever it gets from Hijack.
type corkedWriter struct {
	http.ResponseWriter
	faults *faultSwitch
	conn   *corkConn
}

// Hijack implements http.Hijacker.
func (w *corkedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.conn = newCorkConn(conn, w.faults)
	return w.conn, rw, nil
}
