package emulator

import (
	"container/list"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
)

// lobbyLimit is how many connections there may be that have shown no key and no
// token. Each costs up to some 60 KiB.
const lobbyLimit = 1000

// lobby holds the connections that have shown no key and no token yet. Who can open
// sockets, and nothing else, gets no further than this; and as the oldest has to go
// when there are too many, he keeps nobody out either: who has a key shows it within
// milliseconds.
type lobby struct {
	log *slog.Logger

	mu     sync.Mutex // guards the rest
	order  *list.List // of net.Conn, oldest first
	places map[net.Conn]*list.Element
}

func newLobby(log *slog.Logger) *lobby {
	return &lobby{log: log, order: list.New(), places: map[net.Conn]*list.Element{}}
}

// lobbyKey is the place of a request's connection in its context.
type lobbyKey struct{}

// enter is for a connection that was just accepted. It implements
// http.Server.ConnContext.
func (l *lobby) enter(ctx context.Context, conn net.Conn) context.Context {
	l.mu.Lock()
	l.places[conn] = l.order.PushBack(conn)
	var oldest net.Conn
	if l.order.Len() > lobbyLimit {
		oldest = l.order.Remove(l.order.Front()).(net.Conn)
		delete(l.places, oldest)
	}
	l.mu.Unlock()
	if oldest != nil {
		l.log.Info("too many connections without a key: the oldest is closed", "from", oldest.RemoteAddr())
		closeAtOnce(oldest)
	}
	return context.WithValue(ctx, lobbyKey{}, conn)
}

// closeAtOnce closes a connection without a word, which could take its time.
func closeAtOnce(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	_ = conn.Close() // whoever serves it sees it; it may have been closed before
}

// admit lets the connection of a request out: it has shown a key or a token, or it
// is closed.
func (l *lobby) admit(r *http.Request) {
	conn, _ := r.Context().Value(lobbyKey{}).(net.Conn) // set by enter
	l.leave(conn)
}

// leave forgets a connection.
func (l *lobby) leave(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if place, ok := l.places[conn]; ok {
		l.order.Remove(place)
		delete(l.places, conn)
	}
}

// changed forgets a connection that net/http has closed. It implements
// http.Server.ConnState.
func (l *lobby) changed(conn net.Conn, state http.ConnState) {
	if state == http.StateClosed {
		l.leave(conn)
	}
}
