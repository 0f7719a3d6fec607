package ports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

func addressInUse(err error) bool {
	// The second is another program's exclusive use.
	return errors.Is(err, windows.WSAEADDRINUSE) || errors.Is(err, windows.WSAEACCES)
}

// noFamily tells whether err says that the system has no such address.
func noFamily(err error) bool {
	return errors.Is(err, windows.WSAEADDRNOTAVAIL) || errors.Is(err, windows.WSAEAFNOSUPPORT)
}

// listenSocket makes the socket at path. Its directory says who may use it: a
// mode is not kept here.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("cannot make the socket %s: there is something else of that name", path)
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return nil, &InUseError{Addr: path, Err: errors.Join(syscall.EADDRINUSE, conn.Close())}
		}
		if !errors.Is(err, windows.WSAECONNREFUSED) {
			return nil, fmt.Errorf("cannot make the socket %s: there is something of that name: %w", path, err)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot replace the socket: %w", err)
		}
	}
	var cfg net.ListenConfig
	l, err := cfg.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot make the socket: %w", err)
	}
	return l, nil
}
