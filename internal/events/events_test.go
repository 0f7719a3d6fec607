package events

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// parsed is what the tests look at in a line.
type parsed struct {
	Time    time.Time `json:"time"`
	Event   string    `json:"event"`
	Dropped int       `json:"dropped"`
	Attempt int       `json:"attempt"`
	Reason  string    `json:"reason"`
}

func parse(t *testing.T, line string) (p parsed) {
	t.Helper()
	if err := json.Unmarshal([]byte(line), &p); err != nil {
		t.Fatalf("a line is no JSON: %v: %q", err, line)
	}
	return p
}

// numbered is the n-th event of a test.
func numbered(n int) Event { return Reconnecting{Attempt: n} }

// record is a sink that takes all, one element a Write.
type record struct {
	writes []string
	closed int
	err    error // of Write
	end    error // of Close
}

func (r *record) Write(p []byte) (int, error) {
	r.writes = append(r.writes, string(p))
	if r.err != nil {
		return 0, r.err
	}
	return len(p), nil
}

func (r *record) Close() error                     { r.closed++; return r.end }
func (r *record) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// blocking is a sink whose Write returns once somebody reads, and that nothing
// calls back: a descriptor in blocking mode.
type blocking struct {
	reader chan string
	closed chan struct{}
}

func newBlocking() *blocking {
	return &blocking{reader: make(chan string), closed: make(chan struct{})}
}

func (b *blocking) Write(p []byte) (int, error)      { b.reader <- string(p); return len(p), nil }
func (b *blocking) Close() error                     { close(b.closed); return nil }
func (b *blocking) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

func TestANilWriterTakesAndForgets(t *testing.T) {
	var w *Writer
	w.Emit(Paused{})
	if err := w.Close(); err != nil {
		t.Errorf("Close of no Writer returns %v, want nil", err)
	}
}

func TestOneLineAWriteInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &record{}
		w := newWriter("far", r)
		for n := range 100 {
			w.Emit(numbered(n))
			time.Sleep(time.Microsecond)
		}
		w.Emit(nil) // is nothing
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if len(r.writes) != 100 {
			t.Fatalf("100 events made %d writes, want one each", len(r.writes))
		}
		for n, line := range r.writes {
			if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
				t.Errorf("a write is %q, want one line and its end", line)
			}
			p, want := parse(t, line), time.Date(2000, 1, 1, 0, 0, 0, n*1000, time.UTC)
			if p.Attempt != n || !p.Time.Equal(want) {
				t.Errorf("line %d is event %d of %v, want event %d of %v", n, p.Attempt, p.Time, n, want)
			}
		}
	})
}

func TestAReaderThatDoesNotReadStallsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBlocking()
		w := newWriter("far", b)
		begin := time.Now()
		w.Emit(numbered(0))
		synctest.Wait() // event 0 has left the queue and waits in Write
		for n := 1; n <= queueLength+5; n++ {
			w.Emit(numbered(n))
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("Emit took %v in all, want no time", d)
		}
		for want := range queueLength + 1 {
			if p := parse(t, <-b.reader); p.Attempt != want || p.Dropped != 0 {
				t.Fatalf("the reader gets event %d with %d dropped, want event %d and none", p.Attempt, p.Dropped, want)
			}
		}
		for _, want := range []int{5, 0} {
			w.Emit(Paused{})
			if p := parse(t, <-b.reader); p.Event != "paused" || p.Dropped != want {
				t.Errorf("after the gap comes %s with %d dropped, want paused with %d", p.Event, p.Dropped, want)
			}
		}
		if err := w.Close(); err != nil {
			t.Errorf("Close returns %v, want nil: the gap was told", err)
		}
	})
}

func TestAGapAtTheEndIsToldByClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBlocking()
		w := newWriter("far", b)
		w.Emit(numbered(0))
		synctest.Wait()
		for n := range queueLength + 3 {
			w.Emit(numbered(n))
		}
		go func() {
			for {
				select {
				case <-b.reader:
				case <-b.closed:
					return
				}
			}
		}()
		const want = "the last 3 events did not fit into the queue: far is read too slowly"
		if err := w.Close(); err == nil || err.Error() != want {
			t.Errorf("Close returns %v, want %s", err, want)
		}
	})
}

func TestCloseWaitsForASlowReaderUpToASecond(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines int
		late  bool
	}{
		{"9 lines are read in time", 9, false},
		{"11 lines are not", 11, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				w := newWriter("far", near)
				got := make(chan int)
				go func() {
					n := 0
					defer func() { got <- n }()
					for r := bufio.NewReader(far); ; n++ {
						time.Sleep(100 * time.Millisecond)
						if _, err := r.ReadString('\n'); err != nil {
							return
						}
					}
				}()
				for n := range tt.lines {
					w.Emit(numbered(n))
				}
				begin := time.Now()
				err := w.Close()
				if late := errors.Is(err, os.ErrDeadlineExceeded); late != tt.late {
					t.Errorf("Close returns %v, want a missed deadline: %t", err, tt.late)
				}
				if d := time.Since(begin); d > closeGrace {
					t.Errorf("Close took %v, want at most %v", d, closeGrace)
				}
				if n := <-got; (n < tt.lines) != tt.late || n < 9 {
					t.Errorf("the reader got %d of %d lines", n, tt.lines)
				}
			})
		})
	}
}

func TestCloseLeavesAWriteThatCannotBeCalledBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBlocking()
		w := newWriter("fd:3", b)
		w.Emit(numbered(0))
		w.Emit(numbered(1))
		begin := time.Now()
		err := w.Close()
		if d := time.Since(begin); d != closeGrace {
			t.Errorf("Close took %v, want %v", d, closeGrace)
		}
		const want = "cannot write events: fd:3 was not read to the end within 1s: i/o timeout"
		if !errors.Is(err, os.ErrDeadlineExceeded) || err.Error() != want {
			t.Errorf("Close returns %v, want %s", err, want)
		}
		if again := w.Close(); again != err || time.Since(begin) != closeGrace {
			t.Errorf("a second Close returns %v after %v, want the same at once", again, time.Since(begin))
		}
		<-b.reader // the write returns after all
		<-b.closed // and the goroutine ends, without the line that was given up
	})
}

func TestTheFirstErrorIsTheOneReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full, end := errors.New("no space left"), errors.New("close failed")
		for _, tt := range []struct {
			name   string
			sink   *record
			want   error
			writes int
		}{
			{"an error of writing, after which nothing is written", &record{err: full, end: end}, full, 1},
			{"an error of closing", &record{end: end}, end, 3},
			{"none", &record{}, nil, 3},
		} {
			w := newWriter("far", tt.sink)
			for n := range 3 {
				w.Emit(numbered(n))
			}
			err := w.Close()
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("%s: Close returns %v, want %v", tt.name, err, tt.want)
			}
			if again := w.Close(); again != err {
				t.Errorf("%s: a second Close returns %v, want the same", tt.name, again)
			}
			w.Emit(Paused{}) // is forgotten
			if len(tt.sink.writes) != tt.writes || tt.sink.closed != 1 {
				t.Errorf("%s: %d writes and %d closes, want %d and 1", tt.name, len(tt.sink.writes), tt.sink.closed, tt.writes)
			}
		}
	})
}

// Eight at once, then some beside Close: each one's events stay in order, times
// never go back, and every gap is told.
func TestManyAtOnce(t *testing.T) {
	r := &record{}
	w := newWriter("far", r)
	const each = 2000
	var emitting sync.WaitGroup
	for i := range 8 {
		emitting.Go(func() {
			for n := range each {
				w.Emit(Reconnecting{Attempt: n, Reason: fmt.Sprint(i)})
			}
		})
	}
	var closing sync.WaitGroup
	emitting.Wait()
	for range 3 {
		closing.Go(func() { w.Emit(Paused{}) })
		closing.Go(func() {
			// Whether the last events fitted is up to the scheduler.
			_ = w.Close()
		})
	}
	closing.Wait()
	last, seen, total := map[string]int{}, time.Time{}, int(w.dropped)
	for _, line := range r.writes {
		p := parse(t, line)
		total += 1 + p.Dropped
		if p.Time.Before(seen) {
			t.Fatalf("a line of %v comes after one of %v", p.Time, seen)
		}
		seen = p.Time
		if p.Event != "reconnecting" {
			continue
		}
		if before, ok := last[p.Reason]; ok && p.Attempt <= before {
			t.Fatalf("event %d of %s comes after its event %d", p.Attempt, p.Reason, before)
		}
		last[p.Reason] = p.Attempt
	}
	if least := 8 * each; total < least || total > least+3 {
		t.Errorf("%d events were written or counted as dropped, want all %d, and up to 3 that met Close", total, least)
	}
}

func TestAFileIsCreatedForItsUserOrTruncated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	for _, n := range []int{3, 1} {
		w := mustOpen(t, path)
		for i := range n {
			w.Emit(numbered(i))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(content), "\n"); got != n {
			t.Errorf("the file has %d lines, want the %d of this time", got, n)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, want 0600", info.Mode())
	}
}

func TestWhatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		spec string
		bad  bool   // wraps ErrSpec
		says string // part of the message
	}{
		{"", true, "no file is named"},
		{"-", true, "stdout is fd:1"},
		{"fd:", true, `"" is no descriptor's number`},
		{"fd:x", true, `"x" is no descriptor's number`},
		{"fd:-1", true, `"-1" is no descriptor's number`},
		{"fd:+3", true, `"+3" is no descriptor's number`},
		{"fd:3 ", true, `"3 " is no descriptor's number`},
		{"fd:99999999999999999999", true, "is no descriptor's number"},
		{"fd:0", true, "descriptor 0 is the session's input"},
		{"/dev/fd/0", true, "descriptor 0 is the session's input"},
		{dir, false, "directory"},
		{filepath.Join(dir, "none", "file"), false, "no such file"},
	} {
		w, err := Open(tt.spec)
		if err == nil {
			t.Errorf("%q can be opened", tt.spec)
			_ = w.Close() // the test has failed already
			continue
		}
		if w != nil {
			t.Errorf("%q gives a Writer beside %v", tt.spec, err)
		}
		if errors.Is(err, ErrSpec) != tt.bad {
			t.Errorf("%q gives %v, want a bad spec: %t", tt.spec, err, tt.bad)
		}
		if runtime.GOOS != "windows" && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q gives %v, want it to say %s", tt.spec, err, tt.says)
		}
		if tt.bad && !strings.Contains(err.Error(), "FILE or fd:N") {
			t.Errorf("%q gives %v, want it to say what is taken", tt.spec, err)
		}
	}
}

func TestAFullDiskIsReported(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no /dev/full here")
	}
	w := mustOpen(t, "/dev/full")
	w.Emit(Paused{})
	if err := w.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Close returns %v, want that no space is left", err)
	}
}

func mustOpen(t *testing.T, spec string) *Writer {
	t.Helper()
	w, err := Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// lines reads r to its end.
func lines(t *testing.T, r io.Reader) (all []parsed) {
	t.Helper()
	s := bufio.NewScanner(r)
	for s.Scan() {
		all = append(all, parse(t, s.Text()))
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
