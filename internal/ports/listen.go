package ports

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

// samePortTries is how often to look for a port that is free on both loopbacks.
const samePortTries = 20

// InUseError is a local end that another program has.
type InUseError struct {
	Addr   string // address and port, or path
	Holder string // a program and its process id; empty when the system does not tell
	Err    error
}

func (e *InUseError) Error() string {
	if e.Holder == "" {
		return e.Addr + " is in use"
	}
	return e.Addr + " is in use by " + e.Holder
}

// Unwrap gives the cause.
func (e *InUseError) Unwrap() error { return e.Err }

// Listen opens the local end of f: for both loopbacks 127.0.0.1 and ::1 on the
// same port, or the one that there is; otherwise one listener. An IPv4 address,
// 0.0.0.0 too, is listened on by IPv4 only. A unix socket can be used by its owner
// only; one that nobody listens on any more is replaced. An end that another
// program has gives an *InUseError.
func Listen(ctx context.Context, f Forward) ([]net.Listener, error) {
	if f.Socket != "" {
		l, err := listenSocket(ctx, f.Socket)
		if err != nil {
			return nil, err
		}
		return []net.Listener{l}, nil
	}
	if !bothLoopbacks(f.Bind) {
		network, host := "tcp", f.Bind
		addr, err := netip.ParseAddr(host)
		switch {
		case host == AnyAddress:
			host = ""
		case err == nil && addr.Is4():
			network = "tcp4" // else 0.0.0.0 would be [::] too
		}
		l, err := listenTCP(ctx, network, host, f.LocalPort)
		if err != nil {
			return nil, err
		}
		return []net.Listener{l}, nil
	}
	for tries := 1; ; tries++ {
		listeners, err := listenLoopbacks(ctx, f.LocalPort)
		var used *InUseError
		if err == nil || f.LocalPort != 0 || tries == samePortTries || !errors.As(err, &used) {
			return listeners, err
		}
	}
}

// listenLoopbacks listens on both loopbacks. A family that the system has not is
// left out, but not both.
func listenLoopbacks(ctx context.Context, port int) (listeners []net.Listener, err error) {
	v4, err := listenTCP(ctx, "tcp4", "127.0.0.1", port)
	switch {
	case err == nil:
		listeners = append(listeners, v4)
		port = tcpPort(v4)
	case !noFamily(err):
		return nil, err
	}
	v6, err6 := listenTCP(ctx, "tcp6", "::1", port)
	switch {
	case err6 == nil:
		return append(listeners, v6), nil
	case noFamily(err6) && v4 != nil:
		return listeners, nil
	}
	if v4 != nil {
		return nil, errors.Join(err6, v4.Close())
	}
	return nil, err6
}

func tcpPort(l net.Listener) int {
	if addr, ok := l.Addr().(*net.TCPAddr); ok {
		return addr.Port
	}
	return 0
}

func listenTCP(ctx context.Context, network, host string, port int) (net.Listener, error) {
	var cfg net.ListenConfig
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	l, err := cfg.Listen(ctx, network, addr)
	switch {
	case err == nil:
		return l, nil
	case addressInUse(err):
		if host == "" {
			addr = "port " + strconv.Itoa(port)
		}
		return nil, &InUseError{Addr: addr, Holder: holder(port), Err: err}
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("cannot listen on %s: this user may not (ports below 1024 are often the administrator's): %w", addr, err)
	}
	return nil, fmt.Errorf("cannot listen: %w", err)
}
