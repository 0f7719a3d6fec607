package emulator

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

func textLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestBadConfigs(t *testing.T) {
	for name, test := range map[string]struct {
		cfg  Config
		want string
	}{
		"all interfaces":          {Config{Listen: ":0"}, "not a loopback address"},
		"another address":         {Config{Listen: "192.0.2.1:0"}, "not a loopback address"},
		"no address":              {Config{Listen: "nowhere"}, "listen on nowhere"},
		"an unknown pace":         {Config{Pace: "slow"}, "pace"},
		"a version that is none":  {Config{AgentVersion: "latest"}, "agent version"},
		"a target without an id":  {Config{Targets: []Target{{}}}, "target"},
		"a key that is an alias":  {Config{KMSKeys: []string{"arn:aws:kms:us-east-1:111122223333:alias/x"}}, "KMS key"},
		"a key twice":             {Config{KMSKeys: []string{kmsKey, kmsKey}}, "given twice"},
		"a document without type": {Config{Documents: []Document{{Name: "Doc"}}}, "sessionType"},
	} {
		s, err := Start(context.Background(), test.cfg)
		if err == nil {
			t.Errorf("%s: the server starts", name)
			s.Close()
		} else if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
}

func TestTwoServersOnOnePort(t *testing.T) {
	s := startServer(t, Config{})
	if _, err := Start(context.Background(), Config{Listen: strings.TrimPrefix(s.URL(), "http://")}); err == nil {
		t.Error("a second server starts on the same port")
	}
}

func TestRemoteIsReachedByItsAddress(t *testing.T) {
	s := startWith(t, Config{Listen: "0.0.0.0:0", AllowRemote: true}, echo)
	if !strings.HasPrefix(s.URL(), "http://127.0.0.1:") {
		t.Errorf("the URL is %s", s.URL())
	}
	connect(t, s, mustStart(t, s, `{"Target":"local"}`)).wantOutput("<start_publication>")
	addr := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 80}
	for host, want := range map[string]bool{
		"10.0.0.7:80": true, "10.0.0.8:80": false, "emulator:80": false, "[::1]:80": true, "[::1]": true, "localhost": true, "localhost.evil.example:80": false, "127.0.0.1": true, "": false,
	} {
		if isOwnHost(host, addr) != want {
			t.Errorf("the host %q on %v is taken for our own: %v", host, addr, !want)
		}
	}
}

func TestTLS(t *testing.T) {
	s := startWith(t, Config{TLS: true}, echo)
	info, err := os.Stat(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the authority's file has mode %v", info.Mode())
	}
	g := mustStart(t, s, `{"Target":"local"}`)
	if !strings.HasPrefix(s.URL(), "https://") || !strings.HasPrefix(g.StreamURL, "wss://") {
		t.Errorf("with TLS the addresses are %s and %s", s.URL(), g.StreamURL)
	}
	p := connect(t, s, g)
	p.send(frame.Output, []byte("hello"))
	p.wantOutput("hello")
	p.send(frame.Output, []byte("exit"))
	p.wantClosed()
	if env := ExportLines(s.Environment()); !strings.Contains(env, "export AWS_CA_BUNDLE='"+s.CAFile()+"'\n") {
		t.Errorf("the environment does not name the authority: %s", env)
	}
}

func TestEnvFile(t *testing.T) {
	s := startServer(t, Config{Region: "eu-west-1"})
	dir := t.TempDir()
	path := filepath.Join(dir, "env")
	for range 2 { // the second replaces the first
		if err := WriteEnvFile(path, s.Environment()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	id, secret := s.Credentials()
	want := "export AWS_ENDPOINT_URL='" + s.URL() + "'\nexport AWS_REGION='eu-west-1'\n" +
		"export AWS_ACCESS_KEY_ID='" + id + "'\nexport AWS_SECRET_ACCESS_KEY='" + secret + "'\n"
	if string(got) != want {
		t.Errorf("the file is\n%s, not\n%s", got, want)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	if err := WriteEnvFile(filepath.Join(dir, "none", "env"), nil); err == nil {
		t.Error("a file in a directory that is not there was written")
	}
	if err := os.Mkdir(filepath.Join(dir, "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteEnvFile(filepath.Join(dir, "directory"), nil); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("%d files are left, %v", len(left), err)
	}
	if line := ExportLines([][2]string{{"A", "it's"}}); line != `export A='it'\''s'`+"\n" {
		t.Errorf("a quote is written as %s", line)
	}
}

// TestCloseLeavesNothing has sessions in every state when the server closes.
func TestCloseLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	s, err := Start(context.Background(), Config{TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	s.play = echo
	start := func() grant { return mustStart(t, s, `{"Target":"local"}`) }
	start() // never opened
	p := connect(t, s, start())
	p.wantOutput("<start_publication>")
	connect(t, s, start()).conn.Close()
	silent, _, err := dial(t, s, start().StreamURL, nil) // no opening
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	deaf := connect(t, s, start()) // reads nothing, not even the end
	defer deaf.conn.Close()
	deaf.wantOutput("<start_publication>")
	told := make(chan string)
	go func() {
		defer close(told)
		for p.closed == nil {
			if _, err := p.receive(); err != nil {
				return
			}
		}
		p.conn.Close()
		told <- p.closed.Output
	}()
	ca := s.CAFile()
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Errorf("closing fails: %v", err)
	}
	if took := time.Since(begin); took > patience {
		t.Errorf("closing took %v", took)
	}
	if output := <-told; output != "The local Session Manager was stopped." {
		t.Errorf("a client is told %q", output)
	}
	if _, err := os.Stat(ca); !os.IsNotExist(err) {
		t.Errorf("the authority's file is left: %v", err)
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "https://")); err == nil {
		t.Error("the port still answers")
	}
	silent.Close()
	deaf.conn.Close()
	noMoreGoroutinesThan(t, before)
}

// TestCloseDoesNotWaitForASlowDial: on order the answer to it takes two minutes.
func TestCloseDoesNotWaitForASlowDial(t *testing.T) {
	s, err := Start(t.Context(), Config{Faults: faultsOf(t, "slow=1")})
	if err != nil {
		t.Fatal(err)
	}
	conn := knock(t, s)
	if _, err := io.WriteString(conn, upgrade); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the dial is not answered: %v", err)
	}
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("closing waits for the answer to a dial")
		conn.Close()
		<-closed
	}
}

// noMoreGoroutinesThan gives net/http's own a moment to return: it does not tell
// when they have.
func noMoreGoroutinesThan(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			var stacks bytes.Buffer
			buf := make([]byte, 1<<20)
			stacks.Write(buf[:runtime.Stack(buf, true)])
			t.Fatalf("%d goroutines are left, not %d:\n%s", runtime.NumGoroutine(), before, stacks.String())
		}
	}
}

func TestContextEndsSessions(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s, err := Start(ctx, Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.play = echo
	p := connect(t, s, mustStart(t, s, `{"Target":"local"}`))
	p.wantOutput("<start_publication>")
	cancel()
	p.wantClosed()
	p.conn.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
