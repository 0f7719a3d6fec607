//go:build unix

package ports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

func addressInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// noFamily tells whether err says that the system has no such address.
func noFamily(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// socketListener is a listener on a unix socket that was moved to path.
type socketListener struct {
	*net.UnixListener
	path string
	made fs.FileInfo
	once sync.Once
}

// Addr is where the socket can be reached.
func (l *socketListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close removes the socket, unless another has taken its place.
func (l *socketListener) Close() (err error) {
	l.once.Do(func() {
		if now, statErr := os.Lstat(l.path); statErr == nil && os.SameFile(now, l.made) {
			err = os.Remove(l.path)
		}
	})
	return errors.Join(l.UnixListener.Close(), err)
}

// listenSocket makes the socket in a directory that is only ours and moves it to
// path: so nobody else can connect before its mode is set, and an old one is
// replaced in one step.
func listenSocket(ctx context.Context, path string) (_ net.Listener, err error) {
	if most := len(syscall.RawSockaddrUnix{}.Path) - 1; len(path) > most {
		return nil, fmt.Errorf("cannot make the socket %s: its path has %d bytes, and %d are all that the system takes", path, len(path), most)
	}
	if err := socketFree(ctx, path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("cannot make the socket %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	temp := filepath.Join(dir, "s")
	var cfg net.ListenConfig
	l, err := cfg.Listen(ctx, "unix", temp)
	if err != nil {
		if errors.Is(err, syscall.EINVAL) {
			err = fmt.Errorf("its path is too long: %w", err)
		}
		return nil, fmt.Errorf("cannot make the socket %s: %w", path, err)
	}
	unix := l.(*net.UnixListener)
	unix.SetUnlinkOnClose(false) // it will not be there
	made, err := moveSocket(temp, path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make the socket %s: %w", path, err), unix.Close())
	}
	return &socketListener{UnixListener: unix, path: path, made: made}, nil
}

// moveSocket moves a socket to path, for its owner only, or removes it.
func moveSocket(temp, path string) (made fs.FileInfo, err error) {
	if err = os.Chmod(temp, 0o600); err == nil {
		made, err = os.Lstat(temp)
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(temp))
	}
	return made, err
}

// socketFree refuses a path where something is that is not a dead socket.
func socketFree(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot make the socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("cannot make the socket %s: there is something else of that name", path)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return &InUseError{Addr: path, Err: errors.Join(syscall.EADDRINUSE, conn.Close())}
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil
	}
	return fmt.Errorf("cannot tell whether the socket %s is in use: %w", path, err)
}
