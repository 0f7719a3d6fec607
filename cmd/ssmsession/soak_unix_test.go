//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/emulator"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// soakPiece is what a soak sends at once, in bytes: what fits one message.
const soakPiece = 1024

// soakFlight is how many pieces of a session may be under way, there and back.
// The agent knows no window: whatever it has sent when something is lost it
// leaves to its one repetition a tick.
const soakFlight = 64

// soakKey is the key of KMS that a soak's sessions are encrypted with, but for
// tunnels.
const soakKey = "arn:aws:kms:us-east-1:111122223333:key/soak"

// soakFaults are a bad day, the same in both directions. Each session loses its
// socket in each way there is.
//
// How fast a session then is, is the agent's doing: it repeats one message per
// 100 ms, and it has to for each that is lost on its way (5 %) and for each whose
// acknowledgement is (5 % as any frame, 5 % as an acknowledgement). That is every
// seventh, so that at best 70 messages a second come through, or 140 kB with both
// directions counted; with what the cuts lose, 90 kB are left. Our own repetitions
// cost next to nothing.
func soakFaults() []string {
	return []string{
		"drop=5%", "duplicate=5%", "reorder=5%", "lose-acks=5%",
		"cut=after:400,reset,times:3", "cut=after:600,close,times:3", "cut=after:4s",
	}
}

// soakSize is how much to move, in bytes, both directions counted, and over how
// many sessions.
func soakSize(t *testing.T) (total, sessions int) {
	megabytes, sessions := 20, 8
	if os.Getenv("SOAK") != "" {
		megabytes, sessions = 1000, 32
	}
	if s := os.Getenv("SOAK_MB"); s != "" {
		var err error
		if megabytes, err = strconv.Atoi(s); err != nil || megabytes < 1 {
			t.Fatalf("SOAK_MB is %q, not a number from 1", s)
		}
	}
	return megabytes * 1e6, sessions
}

// TestSoak moves data through sessions on a bad day: to a program that gives back
// what it gets, so that what comes is right only if both directions were. Half of
// the sessions are terminals and a quarter each commands of exec and tunnels of
// forward, all of them of this process; terminals and commands are encrypted.
// Nothing may be missing or doubled, no goroutine left, and the heap does not grow.
func TestSoak(t *testing.T) {
	if err := emulator.ShellSupported(); err != nil {
		t.Fatal(err) // every Unix has a pty
	}
	total, sessions := soakSize(t)
	// The first use of signals leaves a goroutine of the library's for good.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGURG)
	signal.Stop(signals)
	before := runtime.NumGoroutine()
	s := &soak{t: t, total: int64(total / 2)}
	s.run(sessions, total/2/sessions)
	eventually(t, fmt.Sprintf("as many goroutines are there as before, %d", before), func() bool {
		return runtime.NumGoroutine() <= before
	})
}

// soak is one run of it.
type soak struct {
	t        *testing.T
	total    int64        // bytes that shall come back
	received atomic.Int64 // bytes that did
	longest  atomic.Int64 // that a link was lost, in nanoseconds

	server *emulator.Server
	echo   net.Listener // where the tunnels lead

	mu    sync.Mutex // guards heaps
	heaps []uint64   // at each quarter
}

// lane is one session of a soak. What is sent into it comes back.
type lane struct {
	binary bool // it carries any bytes, and not only text
	send   func(ctx context.Context, p []byte) error
	recv   func(ctx context.Context) ([]byte, error) // valid until the next call
	// end ends the session, in which nothing may come any more.
	end func(ctx context.Context) (stream.Stats, error)
}

// text is what the lane of a number has to carry.
func (l *lane) text(number int) *text {
	x := newText(uint64(number))
	x.binary = l.binary
	return x
}

// run opens the sessions, lets each move its bytes and ends them.
func (s *soak) run(sessions, each int) {
	s.server = startServer(s.t, emulator.Config{KMSKeys: []string{soakKey}}, soakFaults()...)
	key, secret := s.server.Credentials()
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": s.server.URL(), "AWS_REGION": emulator.DefaultRegion,
		"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_CA_BUNDLE": "", "HOME": "/nonexistent",
	} {
		s.t.Setenv(name, value)
	}
	stop := s.serveEcho()
	s.t.Logf("the faults are %q, their seed is %d", soakFaults(), s.server.FaultSeed())
	kinds := []struct {
		name string
		open func(context.Context) (*lane, error)
	}{
		{"terminal", s.terminal}, {"command", s.command}, {"terminal", s.terminal}, {"tunnel", s.tunnel},
	}
	name := func(i int) string {
		return fmt.Sprintf("session %d of %d, a %s", i, sessions, kinds[i%len(kinds)].name)
	}
	begin := time.Now()
	var wg sync.WaitGroup
	open := make([]*lane, sessions)
	took := make([]time.Duration, sessions)
	for i := range open {
		wg.Go(func() {
			l, err := kinds[i%len(kinds)].open(s.t.Context())
			if err == nil {
				open[i] = l
				err = s.move(l, i, each)
			}
			if err != nil {
				s.t.Errorf("%s: %v", name(i), err)
			}
			took[i] = time.Since(begin)
		})
	}
	wg.Wait()
	if err := s.server.SetFaults(); err != nil {
		s.t.Error(err)
	}
	var again, resumes int64
	slowest := map[string]time.Duration{}
	for i, l := range open {
		if l == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), patience)
		stats, err := l.end(ctx)
		cancel()
		if err != nil {
			s.t.Errorf("%s, does not end well: %v", name(i), err)
		}
		again, resumes = again+stats.Retransmissions, resumes+stats.Resumes
		kind := kinds[i%len(kinds)].name
		slowest[kind] = max(slowest[kind], took[i].Round(time.Second))
	}
	if err := s.server.Close(); err != nil {
		s.t.Errorf("the emulator does not stop: %v", err)
	}
	stop()
	whole := slices.Max(took)
	s.t.Logf("%.1f MB in %v over %d sessions: %.2f MB/s; %d times reconnected, at most %v; %d messages sent again; heap %v; the slowest took %v",
		2*float64(s.received.Load())/1e6, whole.Round(time.Millisecond), sessions, 2*float64(s.received.Load())/1e6/whole.Seconds(),
		resumes, time.Duration(s.longest.Load()).Round(time.Millisecond), again, s.heaps, slowest)
	s.wantFlatHeap()
}

func (s *soak) wantFlatHeap() {
	for i, heap := range s.heaps {
		if heap > 2*s.heaps[0]+16<<20 {
			s.t.Errorf("the heap has %d bytes after quarter %d, and had %d after the first", heap, i+1, s.heaps[0])
		}
	}
}

func (s *soak) notice(n stream.Notice) {
	if n.Kind != stream.Resumed {
		return
	}
	for longest := s.longest.Load(); int64(n.For) > longest; longest = s.longest.Load() {
		if s.longest.CompareAndSwap(longest, int64(n.For)) {
			return
		}
	}
}

// terminal is a program on a raw terminal.
func (s *soak) terminal(ctx context.Context) (*lane, error) {
	e, err := openEcho(ctx, s.server, "cat", s.notice)
	if err != nil {
		return nil, err
	}
	l := &lane{
		send: func(ctx context.Context, p []byte) error { return e.channel.Send(ctx, frame.Output, p) },
		recv: func(ctx context.Context) ([]byte, error) {
			typ, p, err := e.channel.Recv(ctx)
			if err == nil && typ != frame.Output {
				err = fmt.Errorf("a message of type %d came", typ)
			}
			return p, err
		},
		end: func(ctx context.Context) (stream.Stats, error) {
			err := e.end(ctx)
			return e.channel.Stats(), err
		},
	}
	start, err := e.channel.Started(ctx)
	if err == nil && start.KMSKeyID != soakKey {
		err = fmt.Errorf("it is encrypted with the key %q, want %q", start.KMSKeyID, soakKey)
	}
	if err != nil {
		return nil, errors.Join(err, e.end(ctx))
	}
	return l, nil
}

// command is a command of exec that copies its input.
func (s *soak) command(context.Context) (*lane, error) {
	p, err := s.startProgram("exec", exampleTarget, "--require-encryption", "-i", "--", "sh", "-c", "cat; exit 5")
	if err != nil {
		return nil, err
	}
	l := p.lane(p.in, p.out)
	l.end = func(ctx context.Context) (stream.Stats, error) {
		p.in.Close()
		rest, err := l.recv(ctx)
		switch {
		case errors.Is(err, io.EOF):
			err = nil
		case err == nil:
			err = fmt.Errorf("%d bytes too many came: %.80q", len(rest), rest)
		}
		stats, ended := p.end(ctx, 5)
		return stats, errors.Join(err, ended)
	}
	return l, nil
}

// tunnel is a connection through forward, which ends with the command it runs.
func (s *soak) tunnel(ctx context.Context) (*lane, error) {
	_, port, err := net.SplitHostPort(s.echo.Addr().String())
	if err != nil {
		return nil, err
	}
	p, err := s.startProgram("forward", exampleTarget, "-L", "127.0.0.1:0:localhost:"+port, "--",
		"sh", "-c", `echo "$SSMSESSION_ADDR"; read line; exit 6`)
	if err != nil {
		return nil, err
	}
	said, err := p.lane(p.in, p.out).recv(ctx) // echo writes all at once
	if err != nil {
		return nil, errors.Join(err, p.failed())
	}
	conn, err := net.Dial("tcp", strings.TrimSpace(string(said)))
	if err != nil {
		return nil, errors.Join(err, p.failed())
	}
	l := p.lane(conn, conn)
	l.end = func(ctx context.Context) (stream.Stats, error) {
		// What was doubled would come before the last.
		last := []byte("last")
		err := l.send(ctx, last)
		if err == nil {
			var got []byte
			if got, err = l.recv(ctx); err == nil && !bytes.Equal(got, last) {
				err = fmt.Errorf("%.80q came at the end, want %q", got, last)
			}
		}
		conn.Close()
		p.in.Close()
		stats, ended := p.end(ctx, 6)
		return stats, errors.Join(err, ended)
	}
	return l, nil
}

// serveEcho gives back what comes over connections. stop waits for all of them.
func (s *soak) serveEcho() (stop func()) {
	var err error
	if s.echo, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		s.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := s.echo.Accept()
			if err != nil {
				return // it is closed
			}
			wg.Go(func() {
				defer conn.Close()
				_ = serveEcho(conn) // what is missing the other end tells
			})
		}
	})
	return func() {
		s.echo.Close()
		wg.Wait()
	}
}

// soakProgram is this program, in this process.
type soakProgram struct {
	env     *env
	in, out *os.File // our ends
	stderr  *meter
	ended   chan int // its exit code
}

// startProgram runs it.
func (s *soak) startProgram(args ...string) (*soakProgram, error) {
	var ends [6]*os.File
	for i := 0; i < len(ends); i += 2 {
		var err error
		if ends[i], ends[i+1], err = os.Pipe(); err != nil {
			return nil, err
		}
	}
	stderr := ends[5]
	p := &soakProgram{in: ends[1], out: ends[2], stderr: newMeter(), ended: make(chan int, 1)}
	p.env = &env{
		in: ends[0], out: ends[3], err: stderr, version: "test", commit: "none", report: newReport(stderr),
		getenv: func(name string) string {
			if name == "GOMAXPROCS" {
				return strconv.Itoa(runtime.GOMAXPROCS(0)) // which is everybody's here
			}
			return os.Getenv(name)
		},
	}
	p.env.noticed = s.notice
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		p.stderr.drain(ends[4], 0)
	}()
	go func() {
		code := run(append([]string{"--quiet"}, args...), p.env).code
		for _, f := range []*os.File{ends[0], ends[3], stderr} {
			f.Close()
		}
		<-drained
		p.ended <- code
	}()
	return p, nil
}

// lane gives what its bytes are carried over.
func (p *soakProgram) lane(w io.Writer, r io.Reader) *lane {
	buf := make([]byte, 32<<10)
	// hurry ends a read or a write with ctx.
	hurry := func(ctx context.Context, set func(time.Time) error) (stop func() bool) {
		return context.AfterFunc(ctx, func() { _ = set(time.Now()) }) // it may be closed
	}
	return &lane{
		binary: true,
		send: func(ctx context.Context, data []byte) error {
			defer hurry(ctx, w.(interface{ SetWriteDeadline(time.Time) error }).SetWriteDeadline)()
			_, err := w.Write(data)
			return because(ctx, err)
		},
		recv: func(ctx context.Context) ([]byte, error) {
			defer hurry(ctx, r.(interface{ SetReadDeadline(time.Time) error }).SetReadDeadline)()
			n, err := r.Read(buf)
			if n > 0 {
				err = nil
			}
			return buf[:n], because(ctx, err)
		},
	}
}

// because is why ctx ended, in the place of what came of that.
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// end waits for its end, with this exit code and without a word.
func (p *soakProgram) end(ctx context.Context, want int) (stats stream.Stats, err error) {
	select {
	case code := <-p.ended:
		p.out.Close()
		if said := p.stderr.bytes(); code != want || len(said) > 0 {
			err = fmt.Errorf("it ends with %d, want %d, and says %q", code, want, said)
		}
		return p.env.result.stats, err
	case <-ctx.Done():
		return stats, errors.Join(fmt.Errorf("it does not end: %w", context.Cause(ctx)), p.failed())
	}
}

// failed gives what it has said so far.
func (p *soakProgram) failed() error { return fmt.Errorf("stderr: %q", p.stderr.bytes()) }

// move sends bytes that only their number and the session's determine, and
// compares what comes back.
func (s *soak) move(l *lane, number, size int) error {
	ctx, cancel := context.WithCancelCause(s.t.Context())
	defer cancel(nil)
	stalled := time.AfterFunc(patience, func() { cancel(fmt.Errorf("nothing came for %v", patience)) })
	defer stalled.Stop()
	flight := make(chan struct{}, soakFlight)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		if err := sendSoak(ctx, l.send, l.text(number), size, flight); err != nil {
			cancel(fmt.Errorf("cannot send: %w", err))
		}
	})
	want := l.text(number)
	for got, landed := 0, 0; got < size; {
		p, err := l.recv(ctx)
		if err != nil {
			return fmt.Errorf("after %d bytes of %d: %w", got, size, err)
		}
		if expected := want.next(len(p)); !bytes.Equal(p, expected) {
			return fmt.Errorf("of %d bytes that came after %d, the first %d are right: came %.80q, want %.80q",
				len(p), got, common(p, expected), p, expected)
		}
		stalled.Reset(patience)
		got += len(p)
		if got > size {
			return fmt.Errorf("%d bytes came, %d were sent", got, size)
		}
		for ; landed < got/soakPiece; landed++ {
			<-flight
		}
		s.count(len(p))
	}
	return nil
}

// sendSoak sends size bytes of a text, piece by piece, as flight lets it.
func sendSoak(ctx context.Context, send func(context.Context, []byte) error, text *text, size int, flight chan<- struct{}) error {
	for left := size; left > 0; {
		select {
		case flight <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		p := text.next(min(soakPiece, left))
		if err := send(ctx, p); err != nil {
			return err
		}
		left -= len(p)
	}
	return nil
}

// count looks at the heap each time that another quarter of all has come.
func (s *soak) count(n int) {
	now := s.received.Add(int64(n))
	if quarter := s.total / 4; now/quarter != (now-int64(n))/quarter {
		s.quarter()
	}
}

func (s *soak) quarter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.heaps = append(s.heaps, m.HeapAlloc)
}

// text is an endless text in which no two places look alike: of printable ASCII,
// which an agent leaves as it is, or of any bytes.
type text struct {
	binary bool
	dice   *rand.ChaCha8
	buf    []byte
}

func newText(seed uint64) *text {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	return &text{dice: rand.NewChaCha8(key)}
}

// next gives the next n bytes. They are valid until the next call.
func (x *text) next(n int) []byte {
	x.buf = append(x.buf[:0], make([]byte, n)...)
	// ChaCha8's Read never fails, and gives the same however it is cut up.
	_, _ = x.dice.Read(x.buf)
	for i := range x.buf {
		if x.binary {
			break
		}
		x.buf[i] = ' ' + x.buf[i]%('~'-' '+1)
	}
	return x.buf
}

// common is how many bytes at the beginning are the same.
func common(a, b []byte) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// startFaulty starts an emulator in this process. It has to be closed.
func startFaulty(t testing.TB, specs ...string) *emulator.Server {
	t.Helper()
	return startServer(t, emulator.Config{}, specs...)
}

// startServer is the same with more in its configuration.
func startServer(t testing.TB, cfg emulator.Config, specs ...string) *emulator.Server {
	t.Helper()
	faults, err := emulator.ParseFaults(specs...)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Targets, cfg.Faults = []emulator.Target{{ID: exampleTarget}}, faults
	server, err := emulator.Start(context.WithoutCancel(t.Context()), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// echo is a session with a program on a raw terminal, held as a command holds
// one.
type echo struct {
	service *service
	grant   api.Grant
	channel *stream.Channel
}

// openEcho opens a session and waits for the program.
func openEcho(ctx context.Context, server *emulator.Server, program string, notify func(stream.Notice)) (*echo, error) {
	e := newEcho(server)
	return e, e.open(ctx, program, notify)
}

// newEcho is a session that is not open yet.
func newEcho(server *emulator.Server) *echo {
	key, secret := server.Credentials()
	return &echo{service: &service{
		renew: func(ctx context.Context) (*api.Client, error) {
			return api.New(ctx, api.Config{
				Region: emulator.DefaultRegion, EndpointURL: server.URL(),
				Keys: &api.Keys{AccessKeyID: key, SecretAccessKey: api.NewSecret(secret)},
			})
		},
		dial: func(ctx context.Context, streamURL string) (stream.Socket, error) {
			return stream.DialWebSocket(ctx, streamURL, stream.DialConfig{})
		},
	}}
}

// open opens it and waits for the program.
func (e *echo) open(ctx context.Context, program string, notify func(stream.Notice)) (err error) {
	client, err := e.service.renew(ctx)
	if err != nil {
		return err
	}
	e.service.client.Store(client)
	o := &opening{
		target: exampleTarget, document: "AWS-StartInteractiveCommand",
		parsed:    map[string][]string{"command": {"stty raw -echo; echo ready; exec " + program}},
		perSecond: -1, reconnectFor: patience, aliveInterval: stream.DefaultAliveInterval,
	}
	if e.grant, err = e.service.client.Load().Start(ctx, o.request()); err != nil {
		return err
	}
	config := o.streamConfig(&env{report: &report{log: slog.New(slog.DiscardHandler)}}, e.service, e.grant)
	config.Notify = notify
	e.channel = stream.Open(ctx, config)
	if err := e.want(ctx, "ready\n"); err != nil {
		return errors.Join(err, e.channel.Close())
	}
	return nil
}

// want receives exactly that.
func (e *echo) want(ctx context.Context, words string) error {
	var got []byte
	for len(got) < len(words) {
		_, p, err := e.channel.Recv(ctx)
		if err != nil {
			return fmt.Errorf("waiting for %q, after %q: %w", words, got, err)
		}
		got = append(got, p...)
	}
	if string(got) != words {
		return fmt.Errorf("%q came, want %q", got, words)
	}
	return nil
}

// end has the session terminated. Nothing may come any more but the end.
func (e *echo) end(ctx context.Context) error {
	// The last fault may just have cut it, and who is away is not told of the end.
	for e.channel.Alive(ctx) != nil && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	if err := terminate(ctx, e.service.client.Load(), e.grant.SessionID, terminateTimeout); err != nil {
		return err
	}
	_, p, err := e.channel.Recv(ctx)
	if closed := (*stream.Closed)(nil); err == nil {
		err = fmt.Errorf("%d bytes too many came: %.80q", len(p), p)
	} else if errors.As(err, &closed) {
		err = nil
	}
	return errors.Join(err, e.channel.Close())
}
