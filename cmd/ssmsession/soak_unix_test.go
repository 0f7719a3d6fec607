//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
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

// soakFaults are a bad day, the same in both directions. Each session loses its
// socket in each way there is.
//
// How fast a session then is, is the agent's doing: it repeats one message per
// 100 ms, and it has to for each that is lost on its way (5 %) and for each whose
// acknowledgement is (5 % as any frame, 5 % as an acknowledgement). That is every
// seventh, so that at best 70 messages a second come through, or 140 kB with both
// directions counted; with what the cuts lose, 90 kB are left. At that 20 MB over
// four sessions take a minute, and 1 GB over 32 of them six, so that no rate had
// to be lowered. Our own repetitions cost next to nothing.
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
// what it gets, so that what comes is right only if both directions were. Nothing
// may be missing or doubled, no goroutine left, and the heap does not grow.
func TestSoak(t *testing.T) {
	if err := emulator.ShellSupported(); err != nil {
		t.Fatal(err) // every Unix has a pty
	}
	total, sessions := soakSize(t)
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
	resumes  atomic.Int64
	longest  atomic.Int64 // that a link was lost, in nanoseconds

	mu    sync.Mutex // guards heaps
	heaps []uint64   // at each quarter
}

// run opens the sessions, lets each move its bytes and ends them.
func (s *soak) run(sessions, each int) {
	server := startFaulty(s.t, soakFaults()...)
	s.t.Logf("the faults are %q, their seed is %d", soakFaults(), server.FaultSeed())
	begin := time.Now()
	var wg sync.WaitGroup
	open := make([]*echo, sessions)
	for i := range open {
		wg.Go(func() {
			var err error
			if open[i], err = openEcho(s.t.Context(), server, "cat", s.notice); err == nil {
				err = s.move(open[i], uint64(i), each)
			}
			if err != nil {
				s.t.Errorf("session %d of %d: %v", i, sessions, err)
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	if err := server.SetFaults(); err != nil {
		s.t.Error(err)
	}
	var again int64
	for i, e := range open {
		if e == nil {
			continue
		}
		if err := e.end(s.t.Context()); err != nil {
			s.t.Errorf("session %d of %d does not end well: %v", i, sessions, err)
		}
		again += e.channel.Stats().Retransmissions
	}
	if err := server.Close(); err != nil {
		s.t.Errorf("the emulator does not stop: %v", err)
	}
	s.t.Logf("%.1f MB in %v over %d sessions: %.2f MB/s; %d times reconnected, at most %v; %d messages sent again; heap %v",
		2*float64(s.received.Load())/1e6, took.Round(time.Millisecond), sessions, 2*float64(s.received.Load())/1e6/took.Seconds(),
		s.resumes.Load(), time.Duration(s.longest.Load()).Round(time.Millisecond), again, s.heaps)
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
	s.resumes.Add(1)
	for longest := s.longest.Load(); int64(n.For) > longest; longest = s.longest.Load() {
		if s.longest.CompareAndSwap(longest, int64(n.For)) {
			return
		}
	}
}

// move sends bytes that only their number and the session's determine, and
// compares what comes back.
func (s *soak) move(e *echo, seed uint64, size int) error {
	ctx, cancel := context.WithCancelCause(s.t.Context())
	defer cancel(nil)
	stalled := time.AfterFunc(patience, func() { cancel(fmt.Errorf("nothing came for %v", patience)) })
	defer stalled.Stop()
	flight := make(chan struct{}, soakFlight)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		if err := sendSoak(ctx, e.channel, newText(seed), size, flight); err != nil {
			cancel(fmt.Errorf("cannot send: %w", err))
		}
	})
	want := newText(seed)
	for got, landed := 0, 0; got < size; {
		typ, p, err := e.channel.Recv(ctx)
		if err != nil {
			return fmt.Errorf("after %d bytes of %d: %w", got, size, err)
		}
		if expected := want.next(len(p)); typ != frame.Output || !bytes.Equal(p, expected) {
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
func sendSoak(ctx context.Context, channel *stream.Channel, text *text, size int, flight chan<- struct{}) error {
	for left := size; left > 0; {
		select {
		case flight <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		p := text.next(min(soakPiece, left))
		if err := channel.Send(ctx, frame.Output, p); err != nil {
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

// text is an endless text of printable ASCII, which an agent leaves as it is and
// in which no two places look alike.
type text struct {
	dice *rand.ChaCha8
	buf  []byte
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
	faults, err := emulator.ParseFaults(specs...)
	if err != nil {
		t.Fatal(err)
	}
	server, err := emulator.Start(context.WithoutCancel(t.Context()), emulator.Config{
		Targets: []emulator.Target{{ID: exampleTarget}}, Faults: faults,
	})
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
	key, secret := server.Credentials()
	e := &echo{service: &service{
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
	var err error
	if e.service.client, err = e.service.renew(ctx); err != nil {
		return nil, err
	}
	o := &opening{
		target: exampleTarget, document: "AWS-StartInteractiveCommand",
		parsed:    map[string][]string{"command": {"stty raw -echo; echo ready; exec " + program}},
		perSecond: -1, reconnectFor: patience, aliveInterval: stream.DefaultAliveInterval,
	}
	if e.grant, err = e.service.client.Start(ctx, o.request()); err != nil {
		return nil, err
	}
	config := o.streamConfig(&env{report: &report{log: slog.New(slog.DiscardHandler)}}, e.service, e.grant)
	config.Notify = notify
	e.channel = stream.Open(ctx, config)
	if err := e.want(ctx, "ready\n"); err != nil {
		return nil, errors.Join(err, e.channel.Close())
	}
	return e, nil
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
	if err := terminate(ctx, e.service.client, e.grant.SessionID, terminateTimeout); err != nil {
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
