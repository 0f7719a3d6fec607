package ports

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

func listen(t *testing.T, f Forward) []net.Listener {
	t.Helper()
	listeners, err := Listen(t.Context(), f)
	if err != nil {
		t.Fatalf("%+v cannot be had: %v", f, err)
	}
	t.Cleanup(func() {
		for _, l := range listeners {
			l.Close()
		}
	})
	return listeners
}

// hasIPv6 tells whether the system has ::1.
func hasIPv6(t *testing.T) bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Logf("no ::1 here: %v", err)
		return false
	}
	l.Close()
	return true
}

func TestListenOnBothLoopbacks(t *testing.T) {
	want := 1
	if hasIPv6(t) {
		want = 2
	}
	for _, bind := range []string{"", "localhost"} {
		listeners := listen(t, Forward{Bind: bind})
		if len(listeners) != want {
			t.Fatalf("bind %q: %d listeners, want %d", bind, len(listeners), want)
		}
		port := tcpPort(listeners[0])
		for i, host := range []string{"127.0.0.1", "::1"}[:want] {
			addr := net.JoinHostPort(host, strconv.Itoa(port))
			if got := listeners[i].Addr().String(); got != addr {
				t.Errorf("bind %q: listener %d has %s, want %s", bind, i, got, addr)
			}
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Errorf("bind %q: %v", bind, err)
				continue
			}
			c.Close()
		}
	}
}

func TestListenOnOneAddress(t *testing.T) {
	listeners := listen(t, Forward{Bind: "127.0.0.1"})
	if len(listeners) != 1 || !strings.HasPrefix(listeners[0].Addr().String(), "127.0.0.1:") {
		t.Errorf("127.0.0.1 gives %d listeners, the first on %v", len(listeners), listeners[0].Addr())
	}
	listeners = listen(t, Forward{Bind: AnyAddress})
	if len(listeners) != 1 || !listeners[0].Addr().(*net.TCPAddr).IP.IsUnspecified() {
		t.Errorf("every address gives %d listeners, the first on %v", len(listeners), listeners[0].Addr())
	}
}

func TestListenOnAnIPv4AddressIsByIPv4Only(t *testing.T) {
	for _, bind := range []string{"0.0.0.0", "127.0.0.1"} {
		l := listen(t, Forward{Bind: bind})[0]
		port := strconv.Itoa(tcpPort(l))
		if got, want := l.Addr().String(), bind+":"+port; got != want {
			t.Errorf("%s is listened on as %s, want %s", bind, got, want)
		}
		c, err := net.Dial("tcp4", "127.0.0.1:"+port)
		if err != nil {
			t.Errorf("%s does not take a connection to 127.0.0.1: %v", bind, err)
			continue
		}
		c.Close()
		if !hasIPv6(t) {
			continue
		}
		if c, err := net.Dial("tcp6", "[::1]:"+port); err == nil {
			c.Close()
			t.Errorf("%s takes a connection to ::1", bind)
		}
	}
}

func TestListenOnAPortInUse(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		if host == "::1" && !hasIPv6(t) {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, err = Listen(t.Context(), Forward{LocalPort: tcpPort(l)})
		var used *InUseError
		if !errors.As(err, &used) || used.Addr != l.Addr().String() {
			t.Fatalf("a port in use at %s gives %v, want an InUseError with it", l.Addr(), err)
		}
		pid := "pid " + strconv.Itoa(os.Getpid())
		if runtime.GOOS == "linux" && !strings.Contains(err.Error(), pid) {
			t.Errorf("the error is %q, want who has the port: %s", err, pid)
		}
	}
}

// One family's port may be free where the other's is not: another is taken.
func TestListenLeavesNothingOpen(t *testing.T) {
	if !hasIPv6(t) {
		t.Skip("there is one loopback only")
	}
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := tcpPort(l)
	if _, err := Listen(t.Context(), Forward{LocalPort: port}); err == nil {
		t.Fatal("a port that is in use on ::1 was had")
	}
	v4, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatalf("the listener on 127.0.0.1 was left open: %v", err)
	}
	v4.Close()
}

func TestListenOnNoAddress(t *testing.T) {
	for _, bind := range []string{"203.0.113.1", "no.such.host.invalid"} {
		_, err := Listen(t.Context(), Forward{Bind: bind, LocalPort: 1})
		var used *InUseError
		if err == nil || errors.As(err, &used) || !strings.Contains(err.Error(), bind) {
			t.Errorf("%s gives %v, want an error that names it", bind, err)
		}
	}
}

func TestListenOnASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	f := Forward{Socket: path}
	l := listen(t, f)[0]
	if got := l.Addr().String(); got != path {
		t.Errorf("its address is %s, want %s", got, path)
	}
	if runtime.GOOS != "windows" {
		info, err := os.Lstat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("its mode is %v, %v; want 0600", info.Mode(), err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("beside the socket there are %v, %v", left, err)
	}
	go func() {
		if c, err := l.Accept(); err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "x")
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("through the socket came %d bytes, %v", n, err)
	}

	var used *InUseError
	if _, err := Listen(t.Context(), f); !errors.As(err, &used) || used.Addr != path {
		t.Errorf("a socket in use gives %v, want an InUseError with its path", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("closing it: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after its end the socket is still there: %v", err)
	}
}

func TestListenOnAnOldSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	first := listen(t, Forward{Socket: path})[0]
	// Another process replaces it; the first does not remove what is not its own.
	if runtime.GOOS == "windows" {
		return
	}
	os.Remove(path)
	listen(t, Forward{Socket: path})
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a listener removed the socket of another: %v", err)
	}
}

func TestListenOnWhatIsNoSocket(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, path := range map[string]string{
		"a file":                     file,
		"a directory":                dir,
		"a directory that is not":    filepath.Join(dir, "none", "s"),
		"a path that is too long":    filepath.Join(dir, strings.Repeat("x", 300)),
		"a path that is just longer": filepath.Join(dir, strings.Repeat("x", 120)),
	} {
		if l, err := Listen(t.Context(), Forward{Socket: path}); err == nil {
			l[0].Close()
			// A long name is no harm where the move makes it possible, but nobody
			// could connect to it.
			t.Errorf("%s was taken for a socket", what)
		}
	}
	if got, err := os.ReadFile(file); string(got) != "precious" {
		t.Errorf("the file has %q, %v", got, err)
	}
}
