package session

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

const nonce = "0123456789abcdef0123456789abcdef"

// mark is the end of a stream.
func mark(status string) string { return "[" + nonce + " " + status + "]" }

// inPieces writes s to w in pieces of n bytes, the first of first bytes.
func inPieces(t *testing.T, w interface{ Write([]byte) (int, error) }, s string, first, n int) {
	t.Helper()
	for len(s) > 0 {
		piece := s[:min(first, len(s))]
		if _, err := w.Write([]byte(piece)); err != nil {
			t.Fatalf("%q was not taken: %v", piece, err)
		}
		s, first = s[len(piece):], n
	}
}

func TestMarkerEndsAStream(t *testing.T) {
	cut := mark("7")[:20]
	for _, c := range []struct {
		what, sent, want string
		done             bool
		status           int
	}{
		{"a marker alone", mark("0"), "", true, 0},
		{"after output", "hello\n" + mark("7"), "hello\n", true, 7},
		{"the highest status", mark("255"), "", true, 255},
		{"what follows is ignored", "a" + mark("1") + "b" + mark("2"), "a", true, 1},
		{"no marker", "hello", "hello", false, 0},
		{"nothing", "", "", false, 0},
		{"a status too high is output", mark("256"), mark("256"), false, 0},
		{"so is one too long", mark("0001"), mark("0001"), false, 0},
		{"and none at all", mark(""), mark(""), false, 0},
		{"and one with a sign", mark("-1"), mark("-1"), false, 0},
		{"another nonce is output", "[1" + mark("0")[1:], "[1" + mark("0")[1:], false, 0},
		{"brackets are output", "[[[]]][", "[[[]]][", false, 0},
		{"a bracket before the marker", "[" + mark("3"), "[", true, 3},
		{"a beginning of a marker before it", cut + mark("3"), cut, true, 3},
		{"a beginning with a status before it", mark("12")[:36] + mark("3"), mark("12")[:36], true, 3},
		{"a beginning at the end", "x" + cut, "x" + cut, false, 0},
	} {
		t.Run(c.what, func(t *testing.T) {
			for first := range len(c.sent) + 1 {
				for _, n := range []int{1, 2, 37, 1 << 20} {
					var out bytes.Buffer
					m := newMarked(&out, nonce)
					inPieces(t, m, c.sent, max(first, 1), n)
					if err := m.flush(); err != nil {
						t.Fatal(err)
					}
					if got := out.String(); got != c.want {
						t.Fatalf("split at %d, then every %d: %q passed, want %q", first, n, got, c.want)
					}
					if m.done != c.done || m.done && m.status != c.status {
						t.Fatalf("split at %d, then every %d: done %v with %d, want %v with %d",
							first, n, m.done, m.status, c.done, c.status)
					}
				}
			}
		})
	}
}

func TestMarkerHoldsBackNothingElse(t *testing.T) {
	var out bytes.Buffer
	m := newMarked(&out, nonce)
	for _, step := range []struct{ sent, want string }{
		{"prompt> ", "prompt> "},
		{"a[", "prompt> a"},
		{"0", "prompt> a"},
		{"x", "prompt> a[0x"},
		{"b[012[", "prompt> a[0xb[012"},
	} {
		if _, err := m.Write([]byte(step.sent)); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != step.want {
			t.Errorf("after %q, %q had passed, want %q", step.sent, got, step.want)
		}
	}
}

// countedWriter counts writes and what they were written from.
type countedWriter struct{ writes, bytes int }

func (c *countedWriter) Write(p []byte) (int, error) {
	c.writes++
	c.bytes += len(p)
	return len(p), nil
}

func TestMarkerCostsNoAllocationAndNoExtraWrite(t *testing.T) {
	var out countedWriter
	m := newMarked(&out, nonce)
	p := []byte(strings.Repeat("[01 some text\n", 1000) + "[0123")
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := m.Write(p); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("a piece of output costs %v allocations, want none", allocs)
	}
	if want := 101*2 - 1; out.writes != want {
		t.Errorf("101 pieces, each with a beginning of a marker at its end, were %d writes, want %d", out.writes, want)
	}
}

// brokenWriter takes nothing.
type brokenWriter struct{ err error }

func (b brokenWriter) Write([]byte) (int, error) { return 0, b.err }

func TestMarkerDoesNotCountWhenWhatCameBeforeWasNotWritten(t *testing.T) {
	full := errors.New("disk full")
	m := newMarked(brokenWriter{full}, nonce)
	if _, err := m.Write([]byte("lost" + mark("0"))); !errors.Is(err, full) || m.done {
		t.Errorf("got %v and done %v, want the writer's error and not done", err, m.done)
	}
}

func TestSinkTellsWhatIsNotText(t *testing.T) {
	for _, c := range []struct {
		what, sent string
		text       bool
	}{
		{"ascii", "hello\n", true},
		{"two, three and four bytes", "aé€😀z", true},
		{"a zero byte", "a\x00b", true},
		{"the replacement character", "\ufffd", true},
		{"a byte that is never in it", "a\xffb", false},
		{"a character cut by another", "\xe2\x82a", false},
		{"a character cut by the end", "abc\xf0\x9f\x98", false},
		{"a byte of another character's middle", "\x80", false},
		{"a surrogate", "\xed\xa0\x80", false},
		{"an overlong form", "\xc0\xaf", false},
	} {
		t.Run(c.what, func(t *testing.T) {
			for first := range len(c.sent) + 1 {
				for n := 1; n < 4; n++ {
					told := 0
					s := &sink{out: &bytes.Buffer{}, notText: func() { told++ }}
					inPieces(t, s, c.sent, max(first, 1), n)
					s.end()
					if want := map[bool]int{true: 0, false: 1}[c.text]; told != want {
						t.Fatalf("split at %d, then every %d: told %d times, want %d", first, n, told, want)
					}
				}
			}
		})
	}
}

// FuzzMarker: however the output is cut, the same comes out of it, and only a
// marker is missing.
func FuzzMarker(f *testing.F) {
	f.Add("hello"+mark("7")+"rest", uint8(3))
	f.Add("[[["+mark("300")+mark("3"), uint8(1))
	f.Add(mark("12")[:35], uint8(30))
	f.Fuzz(func(t *testing.T, sent string, n uint8) {
		var whole, cut bytes.Buffer
		a, b := newMarked(&whole, nonce), newMarked(&cut, nonce)
		inPieces(t, a, sent, len(sent), 1)
		inPieces(t, b, sent, int(n)+1, int(n)+1)
		if err := errors.Join(a.flush(), b.flush()); err != nil {
			t.Fatal(err)
		}
		if whole.String() != cut.String() || a.done != b.done || a.done && a.status != b.status {
			t.Fatalf("whole %q, %v, %d; in pieces of %d %q, %v, %d",
				whole.String(), a.done, a.status, int(n)+1, cut.String(), b.done, b.status)
		}
		if !strings.HasPrefix(sent, whole.String()) || !a.done && whole.String() != sent {
			t.Fatalf("of %q there came %q", sent, whole.String())
		}
	})
}

func BenchmarkMarker(b *testing.B) {
	p := []byte(strings.Repeat("some text with [brackets] in it, as output has\n", 32<<10/47))
	m := newMarked(&countedWriter{}, nonce)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := m.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}
