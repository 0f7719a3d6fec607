package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/events"
	"github.com/ssmsession/ssmsession/internal/ports"
	"github.com/ssmsession/ssmsession/internal/session"
)

// forwardOf reads a command line of forward as the program does, without running
// it.
func forwardOf(t *testing.T, args ...string) (*forwardCommand, error) {
	t.Helper()
	e := &env{in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: func(string) string { return "" }, report: newReport(io.Discard)}
	cmd := newForward(e)
	c := &forwardCommand{env: e}
	cmd.ResetFlags()
	c.addFlags(cmd.Flags())
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatalf("the command line %q cannot be parsed: %v", args, err)
	}
	return c, c.complete(cmd, cmd.Flags().Args())
}

func TestForwardsOfACommandLine(t *testing.T) {
	for _, tt := range []struct {
		name string
		args string
		want []ports.Forward
	}{
		{"one", "i-0abc -L 8080:80", []ports.Forward{{LocalPort: 8080, Port: 80}}},
		{"several keep their order", "-t i-0abc -L 8080:80 -L 0:db:5432",
			[]ports.Forward{{LocalPort: 8080, Port: 80}, {Host: "db", Port: 5432}}},
		{"by flags, as AWS spells them", "-t i-0abc --local-port 9000 --remote-port 80 --remote-host web",
			[]ports.Forward{{LocalPort: 9000, Host: "web", Port: 80}}},
		{"a local port need not be named", "-t i-0abc --remote-port 80", []ports.Forward{{Port: 80}}},
		{"both ways: -L comes first", "-t i-0abc --remote-port 80 -L 22", []ports.Forward{{LocalPort: 22, Port: 22}, {Port: 80}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := forwardOf(t, strings.Fields(tt.args)...)
			if err != nil {
				t.Fatalf("%s is refused: %v", tt.args, err)
			}
			if !reflect.DeepEqual(c.forwards, tt.want) {
				t.Errorf("%s forwards %+v, want %+v", tt.args, c.forwards, tt.want)
			}
		})
	}
}

func TestCommandLinesOfForwardThatCannotBeMeant(t *testing.T) {
	for _, tt := range []struct{ name, args, says string }{
		{"nothing to forward", "i-0abc", "nothing to forward"},
		{"no target", "-L 80", "no target"},
		{"two targets", "i-0abc i-0def -L 80 -- true", "more than one target"},
		{"a forward without -L", "i-0abc 8080:80", "goes behind -L"},
		{"no command behind the dashes", "i-0abc -L 80 --", "no command"},
		{"the background and a command", "i-0abc -L 80 -f -- true", "do not go together"},
		{"a local port alone", "i-0abc --local-port 80", "go with --remote-port"},
		{"a remote host alone", "i-0abc -L 80 --remote-host db", "go with --remote-port"},
		{"no remote port", "i-0abc --remote-port 0", "from 1 to 65535"},
		{"a remote port too high", "i-0abc --remote-port 65536", "from 1 to 65535"},
		{"a local port below 0", "i-0abc --remote-port 80 --local-port -1", "from 0 to 65535"},
		{"a local port too high", "i-0abc --remote-port 80 --local-port 65536", "from 0 to 65535"},
		{"a bad -L is named", "i-0abc -L 80:x:y:z", "-L: "},
		{"a parameter of forward's own", "i-0abc -L 80 --parameters host=db", `"host", which forward sets`},
		{"a wait below 0", "i-0abc -L 80 --half-close-wait -1s", "--half-close-wait"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := forwardOf(t, strings.Fields(tt.args)...)
			if use := (*usageError)(nil); !errors.As(err, &use) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s gives %v, want a usage error that says %q", tt.args, err, tt.says)
			}
		})
	}
}

func TestTheSessionOfAForward(t *testing.T) {
	port := map[string][]string{"portNumber": {"80"}, "localPortNumber": {"4711"}}
	host := map[string][]string{"portNumber": {"5432"}, "localPortNumber": {"4711"}, "host": {"db"}}
	for _, tt := range []struct {
		name, args, document string
		parameters           map[string][]string
	}{
		{"the target itself", "i-0abc -L 80", documentPort, port},
		{"a host behind it", "i-0abc -L 0:db:5432", documentRemoteHost, host},
		{"a document of one's own", "i-0abc -L 0:db:5432 --document-name Mine", "Mine", host},
		{"with parameters of its own", "i-0abc -L 80 --parameters team=blue", documentPort,
			map[string][]string{"portNumber": {"80"}, "localPortNumber": {"4711"}, "team": {"blue"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := forwardOf(t, strings.Fields(tt.args)...)
			if err != nil {
				t.Fatal(err)
			}
			request := c.opening(c.forwards[0], 4711).request()
			if request.DocumentName != tt.document || !reflect.DeepEqual(request.Parameters, tt.parameters) {
				t.Errorf("%s asks for %s with %v, want %s with %v", tt.args, request.DocumentName, request.Parameters, tt.document, tt.parameters)
			}
			if request.Target != "i-0abc" {
				t.Errorf("%s asks for a session on %s", tt.args, request.Target)
			}
		})
	}
}

// listenOn opens a listener until the test ends.
func listenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestWhatACommandIsToldOfTheTunnels(t *testing.T) {
	one, all := listenOn(t, "tcp", "127.0.0.1:0"), listenOn(t, "tcp", ":0")
	socket := listenOn(t, "unix", filepath.Join(t.TempDir(), "s"))
	_, p1, _ := net.SplitHostPort(one.Addr().String())
	_, p2, _ := net.SplitHostPort(all.Addr().String())
	of := func(l net.Listener) *tunnel { return &tunnel{listeners: []net.Listener{l}} }
	for _, tt := range []struct {
		name string
		up   []*tunnel
		want []string
	}{
		{"one", []*tunnel{of(one)}, []string{"ADDR=127.0.0.1:" + p1, "ADDR_1=127.0.0.1:" + p1, "PORT=" + p1, "PORT_1=" + p1}},
		{"one that is not up keeps its number", []*tunnel{nil, of(one)},
			[]string{"ADDR=127.0.0.1:" + p1, "ADDR_2=127.0.0.1:" + p1, "PORT=" + p1, "PORT_2=" + p1}},
		{"all addresses are reached on loopback", []*tunnel{of(all)},
			[]string{"ADDR=127.0.0.1:" + p2, "ADDR_1=127.0.0.1:" + p2, "PORT=" + p2, "PORT_1=" + p2}},
		{"a socket has no port", []*tunnel{of(socket)},
			[]string{"ADDR=" + socket.Addr().String(), "ADDR_1=" + socket.Addr().String()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := commandEnv(tt.up)
			slices.Sort(got)
			for i, v := range got {
				got[i] = strings.TrimPrefix(v, "SSMSESSION_")
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("the command gets %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTheStatusOfACommandIsOurs(t *testing.T) {
	for _, tt := range []struct {
		script string
		want   int
	}{{"exit 0", 0}, {"exit 7", 7}, {"exit 255", 255}, {"kill -9 $$", 137}, {"kill -15 $$", 143}} {
		if runtime.GOOS == "windows" {
			t.Skip("nothing dies of a signal here")
		}
		err := statusOf(exec.Command("sh", "-c", tt.script).Run())
		if got := exitOf(err); got.code != tt.want || got.signal != nil || got.owner != events.ByClient {
			t.Errorf("%s makes us exit %+v, want code %d, which is ours", tt.script, got, tt.want)
		}
		if p := explain(err); p != nil {
			t.Errorf("%s is told as a problem of ours: %s", tt.script, p.message)
		}
	}
}

func TestSizesAsPeopleReadThem(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB",
		1 << 20: "1.0 MiB", 5 << 30: "5.0 GiB", 3 << 40: "3.0 TiB", 1 << 52: "4096.0 TiB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d bytes are shown as %s, want %s", n, got, want)
		}
	}
}

func TestTheSummaryNamesOnlyWhatHappened(t *testing.T) {
	for _, tt := range []struct {
		traffic events.Traffic
		want    string
	}{
		{events.Traffic{Sessions: 1}, "0 connections, 0 B in, 0 B out"},
		{events.Traffic{Opened: 1, BytesIn: 2048, BytesOut: 3, Sessions: 1}, "1 connection, 2.0 KiB in, 3 B out"},
		{events.Traffic{Opened: 12, Refused: 3, Reconnects: 1, Sessions: 2}, "12 connections, 3 refused, 0 B in, 0 B out, 1 reconnect, 2 sessions"},
	} {
		if got := summary(tt.traffic); got != tt.want {
			t.Errorf("%+v is summed up as\n%s\nwant\n%s", tt.traffic, got, tt.want)
		}
	}
}

func TestTheStatusLineCountsAndHasARate(t *testing.T) {
	start := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	before := reading{at: start, opened: 1, in: 1 << 20}
	for _, tt := range []struct {
		name        string
		before, now reading
		want        string
	}{
		{"at first there is no rate", reading{}, reading{at: start, open: 1, opened: 1, in: 10},
			"1 open of 1 connection, in 10 B (0 B/s), out 0 B (0 B/s)"},
		{"then there is", before, reading{at: start.Add(2 * time.Second), open: 2, opened: 3, in: 3 << 20, out: 512},
			"2 open of 3 connections, in 3.0 MiB (1.0 MiB/s), out 512 B (256 B/s)"},
		{"trouble is named", before, reading{at: start.Add(time.Second), in: 1 << 20, lost: 2, cut: 1},
			"0 open of 0 connections, in 1.0 MiB (0 B/s), out 0 B (0 B/s), 2 reconnects, reconnecting"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.now.since(tt.before); got != tt.want {
				t.Errorf("the line is\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// tunnelForTest is one that holds no session.
func tunnelForTest(said io.Writer) *tunnel {
	e := &env{getenv: func(string) string { return "" }, report: newReport(said)}
	t := &tunnel{command: &forwardCommand{env: e}, remote: "db:5432", accepted: make(chan net.Conn),
		ready: make(chan struct{}), done: make(chan struct{})}
	t.env = e.ofOne(t.remote, t.notice)
	return t
}

func TestConnectionsAreCountedByWhatBecomesOfThem(t *testing.T) {
	said := &strings.Builder{}
	tun := tunnelForTest(said)
	conn := func() *countingConn {
		near, far := net.Pipe()
		t.Cleanup(func() { near.Close(); far.Close() })
		return &countingConn{Conn: near, count: &tun.count}
	}
	carried, late, atOnce := conn(), conn(), conn()
	refusal := errors.New("the target could not connect")
	for _, ev := range []session.TunnelEvent{
		{Kind: session.TunnelReady},
		{Kind: session.TunnelOpened, Conn: carried},
		{Kind: session.TunnelOpened, Conn: late},
		{Kind: session.TunnelRefused, Conn: late, Err: refusal},
		{Kind: session.TunnelRefused, Conn: atOnce, Err: refusal},
	} {
		tun.happened(ev)
	}
	if got, want := tun.count.traffic("db:5432"), (events.Traffic{Remote: "db:5432", Open: 1, Opened: 1, Refused: 2}); got != want {
		t.Errorf("the counters are %+v, want %+v", got, want)
	}
	tun.happened(session.TunnelEvent{Kind: session.TunnelEnded, Conn: carried})
	if got, want := tun.count.traffic("db:5432"), (events.Traffic{Remote: "db:5432", Opened: 1, Refused: 2}); got != want {
		t.Errorf("after the end the counters are %+v, want %+v", got, want)
	}
	if !isClosed(tun.ready) {
		t.Error("a session that was ready has not made the tunnel so")
	}
	want := "ssmsession: db:5432: a connection was refused: the target could not connect\n"
	if said.String() != want+want {
		t.Errorf("people are told\n%s\nwant twice\n%s", said, want)
	}
}

func TestACountingConnCountsBothWaysAndEndsOne(t *testing.T) {
	l := listenOn(t, "tcp", "127.0.0.1:0")
	far := make(chan net.Conn, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			far <- conn
		}
	}()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other := <-far
	t.Cleanup(func() { near.Close(); other.Close() })
	var count counters
	conn := &countingConn{Conn: near, count: &count}
	if _, err := other.Write([]byte("12345")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("123")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(other); err != nil || string(got) != "123" {
		t.Errorf("the other side reads %q, %v after the end of ours, want 123", got, err)
	}
	if got, want := count.traffic(""), (events.Traffic{BytesIn: 3, BytesOut: 5}); got != want {
		t.Errorf("the counters are %+v, want %+v", got, want)
	}
}

// What a session does not take is there for the next one.
func TestAConnectionThatNoSessionTookWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tun := tunnelForTest(io.Discard)
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { tun.feed(ctx, make(chan net.Conn)) })
		tun.accepted <- near
		synctest.Wait()
		cancel()
		wg.Wait()
		if tun.pending != near {
			t.Fatal("a connection that the session did not take is lost")
		}
		conns := make(chan net.Conn)
		ctx, cancel = context.WithCancel(t.Context())
		wg.Go(func() { tun.feed(ctx, conns) })
		if got := <-conns; got != near {
			t.Error("the next session gets another connection")
		}
		cancel()
		wg.Wait()
		if tun.pending != nil {
			t.Error("a connection that a session took is still waiting")
		}
	})
}

func TestADroppedConnectionIsClosedAndTold(t *testing.T) {
	said := &strings.Builder{}
	tun := tunnelForTest(said)
	near, far := net.Pipe()
	defer far.Close()
	tun.pending = &countingConn{Conn: near, count: &tun.count}
	tun.drop(errors.New("no session"))
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a dropped connection is not closed: %v", err)
	}
	if tun.pending != nil || tun.count.refused.Load() != 1 || !strings.Contains(said.String(), "no session") {
		t.Errorf("a dropped connection counts %d times, and people are told %q", tun.count.refused.Load(), said)
	}
}

func TestWhatFailsAfterwardsIsNewsOnlyFromTheService(t *testing.T) {
	stopped, call, other := &signalError{os.Interrupt}, &api.Error{Code: "Network", Message: "no route"}, errors.New("closed")
	for _, tt := range []struct {
		name      string
		err, more error
		joined    bool
	}{
		{"nothing", stopped, nil, false},
		{"a word of the service's", stopped, call, true},
		{"the same again", stopped, stopped, false},
		{"something of ours", stopped, other, false},
		{"after a command's status", &localStatus{3}, call, false},
		{"a second word of the service's", call, &api.Error{Code: "Timeout"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := afterwards(tt.err, tt.more)
			if !errors.Is(got, tt.err) {
				t.Errorf("the error %v is lost: %v", tt.err, got)
			}
			if joined := got != tt.err; joined != tt.joined {
				t.Errorf("%v after %v is told: %t, want %t", tt.more, tt.err, joined, tt.joined)
			}
		})
	}
	if got := afterwards(nil, other); !errors.Is(got, other) {
		t.Errorf("the only error is lost: %v", got)
	}
}

func TestSessionsShareTheWayToTheService(t *testing.T) {
	made, closed := 0, 0
	connect := func() (*service, error) {
		made++
		return &service{close: func() error { closed++; return nil }}, nil
	}
	s := &sharing{}
	if _, err := s.get(func() (*service, error) { return nil, errors.New("no network") }); err == nil {
		t.Error("a service that could not be had is no error")
	}
	one, err := s.get(connect)
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.get(connect)
	if err != nil {
		t.Fatal(err)
	}
	if made != 1 || one != two {
		t.Errorf("two sessions made %d services, want one", made)
	}
	if err := errors.Join(one.close(), two.close()); err != nil || closed != 0 {
		t.Errorf("the end of a session closes what is shared: %v", err)
	}
	s.forget()
	if _, err := s.get(connect); err != nil || made != 2 {
		t.Errorf("after it was forgotten there are %d services (%v), want a second", made, err)
	}
	if err := errors.Join(s.end()...); err != nil || closed != 2 {
		t.Errorf("at the end %d services are closed (%v), want both", closed, err)
	}
}

func TestTheCollectorRestsOnlyWhileAllSessionsAreIdle(t *testing.T) {
	before := gcPercent()
	c := &collector{}
	want := func(why string, resting bool) {
		t.Helper()
		if got := gcPercent() == -1; got != resting {
			t.Errorf("%s: the collector rests: %t, want %t", why, got, resting)
		}
	}
	c.change(2, 0)
	want("two are busy", false)
	c.change(0, 1)
	want("one is idle", false)
	c.change(0, 1)
	want("both are idle", true)
	c.change(0, -1)
	want("one is busy again", false)
	c.change(-1, 0)
	want("that one has ended, the other is idle", true)
	c.change(0, -1)
	c.change(-1, 0)
	want("all have ended", false)
	if got := gcPercent(); got != before {
		t.Errorf("the collector is set to %d at the end, and was to %d", got, before)
	}
}

func TestAPidFileIsRemovedByItsOwnerOnly(t *testing.T) {
	c := &forwardCommand{env: &env{report: newReport(io.Discard)}, pidFile: filepath.Join(t.TempDir(), "pid")}
	remove, err := c.writePidFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.pidFile, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	remove()
	if _, err := os.Stat(c.pidFile); err != nil {
		t.Errorf("the file of another process is gone: %v", err)
	}
	if remove, err = c.writePidFile(); err != nil {
		t.Fatal(err)
	}
	remove()
	if _, err := os.Stat(c.pidFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	c.pidFile = filepath.Join(t.TempDir(), "no", "such")
	if _, err := c.writePidFile(); explain(err) == nil || explain(err).code != "NoPidFile" {
		t.Errorf("a file that cannot be written gives %v", err)
	}
}
