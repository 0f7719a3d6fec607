package session

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"regexp"
	"strconv"
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
		{"a sign is taken out", "a" + sign + "b", "ab", false, 0},
		{"signs around a marker", sign + "a" + sign + mark("7") + sign, "a", true, 7},
		{"a sign in a beginning", cut + sign + "x", cut + "x", false, 0},
		{"a marker that is only one without a sign", mark("3")[:10] + sign + mark("3")[10:], mark("3"), false, 0},
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

// output is what a stream has in it and how it ends, found in another way.
func output(sent string) (out string, done bool, status int) {
	all := regexp.MustCompile(`\[` + nonce + `(?: (\d{1,3}))?\]`)
	for {
		at := all.FindStringSubmatchIndex(sent)
		if at == nil {
			return out + sent, false, 0
		}
		out += sent[:at[0]]
		if at[2] >= 0 {
			if status, _ = strconv.Atoi(sent[at[2]:at[3]]); status <= 255 {
				return out, true, status
			}
			out += sent[at[0]:at[1]]
		}
		sent = sent[at[1]:]
	}
}

// FuzzMarker: however the output is cut, the same comes out of it, and only signs
// and a marker, with what follows it, are missing.
func FuzzMarker(f *testing.F) {
	f.Add("hello"+mark("7")+"rest", uint8(3))
	f.Add("[[["+mark("300")+mark("3"), uint8(1))
	f.Add(mark("12")[:35], uint8(30))
	f.Add("a"+sign+"b"+sign[:20]+sign+mark("0"), uint8(7))
	f.Add(mark("12")[:35]+sign+" 1]"+sign, uint8(2))
	f.Fuzz(func(t *testing.T, sent string, n uint8) { checkMarked(t, sent, int(n)+1) })
}

// checkMarked sends a stream whole and in pieces of n bytes.
func checkMarked(t *testing.T, sent string, n int) {
	t.Helper()
	want, done, status := output(sent)
	for _, size := range []int{max(1, len(sent)), n} {
		var out bytes.Buffer
		m := newMarked(&out, nonce)
		inPieces(t, m, sent, size, size)
		if err := m.flush(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want || m.done != done || done && m.status != status {
			t.Fatalf("%q in pieces of %d gives %q, %t, %d; want %q, %t, %d",
				sent, size, out.String(), m.done, m.status, want, done, status)
		}
	}
}

func TestMarkersAndSignsAnywhere(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // the same cases each time
	pieces := []string{
		sign, sign, mark("0"), mark("255"), mark("256"), mark(""), "[", "]", " ", "7", nonce, "a", "é", "\n",
		sign[:1], sign[:17], sign[:33], mark("12")[:34], mark("12")[:36], "x" + sign[1:],
	}
	for range 5000 {
		var sent strings.Builder
		for range random.IntN(8) {
			sent.WriteString(pieces[random.IntN(len(pieces))])
		}
		checkMarked(t, sent.String(), 1+random.IntN(50))
	}
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
