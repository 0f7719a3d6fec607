package session

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// heard is a frameListener that writes down what it is told.
type heard struct{ strings.Builder }

func (h *heard) started()        { h.WriteString("started ") }
func (h *heard) group(id string) { h.WriteString("group:" + id + " ") }
func (h *heard) taken()          { h.WriteString("taken ") }

// unframed is what came of some frames.
type unframed struct{ out, err, told, fault string }

// unframe takes s apart in pieces: the first of first bytes, then of n.
func unframe(s string, first, n int) unframed {
	var out, err bytes.Buffer
	told := &heard{}
	r := newExecOutput(Exec{Mode: Framed, Nonce: nonce, Out: &out, Err: &err}, told)
	var fault error
	for len(s) > 0 && fault == nil && !r.over() {
		piece := s[:min(first, len(s))]
		s, first = s[len(piece):], n
		fault = r.output([]byte(piece))
	}
	u := unframed{err: err.String(), told: strings.TrimSpace(told.String())}
	if r.over() {
		fault = &Status{int64(r.stdout.marked.status)}
	} else if flushErr := r.flush(); flushErr != nil {
		fault = flushErr
	}
	if fault != nil {
		u.fault = fault.Error()
	}
	u.out, u.err = out.String(), err.String()
	return u
}

func framedAs(kind byte, s string) string {
	if kind == 'O' || kind == 'E' {
		return fmt.Sprintf("(%c%s)", kind, hex.EncodeToString([]byte(s)))
	}
	return fmt.Sprintf("(%c%s)", kind, base64.StdEncoding.EncodeToString([]byte(s)))
}

func TestFrames(t *testing.T) {
	const start = "(s" + nonce + ")"
	ends := framedAs('o', mark("7")) + framedAs('e', mark("7"))
	for _, c := range []struct {
		what, sent string
		want       unframed
	}{
		{"a command that says nothing", start + ends,
			unframed{told: "started", fault: "the command ended with status 7"}},
		{"both streams, encoded both ways", start + framedAs('o', "one ") + framedAs('E', "two ") + framedAs('O', "three") + framedAs('e', "four") + ends,
			unframed{"one three", "two four", "started", "the command ended with status 7"}},
		{"a marker split over frames", start + framedAs('o', "x"+mark("3")[:9]) + framedAs('e', mark("3")) + framedAs('o', mark("3")[9:]),
			unframed{"x", "", "started", "the command ended with status 3"}},
		{"what follows the markers is ignored", start + ends + framedAs('o', "more") + "(o***)",
			unframed{told: "started", fault: "the command ended with status 7"}},
		{"what follows one marker, too", start + framedAs('o', mark("0")) + "(o***)" + framedAs('e', "x"+mark("0")),
			unframed{err: "x", told: "started", fault: "the command ended with status 0"}},
		{"before the start nothing counts", "motd (o" + nonce + ") (a)(p77)(s" + nonce[:9] + ")((xterm)" + start,
			unframed{told: "started"}},
		{"noise between frames", start + "\r\n$ " + framedAs('o', "one") + "noise)" + framedAs('e', "two") + "(zzz) (",
			unframed{"one", "two", "started", ""}},
		{"an opening bracket before a frame", start + "(" + framedAs('o', "one") + "(a" + framedAs('o', "two") + "(p12" + framedAs('o', "three"),
			unframed{"onetwothree", "", "started", ""}},
		{"space inside frames", "( s" + nonce[:5] + "\r\n" + nonce[5:] + " )( o\nb25\nl )( a\n)( p 1 2 )",
			unframed{"one", "", "started taken group:12", ""}},
		{"chunks, each padded, in a frame", start + "(o" + "b25l" + "YQ==" + "YQ==)",
			unframed{"oneaa", "", "started", ""}},
		{"a frame without a payload", start + "(o)(e)(a)",
			unframed{"", "", "started taken", ""}},
		{"the process group", start + "(p4321)(p0)(p1)(p)(p-5)(px)",
			unframed{told: "started group:4321"}},
		{"a control frame without an end", start + "(p" + strings.Repeat("1", 1000) + framedAs('o', "one"),
			unframed{"one", "", "started", ""}},
		{"a second start", start + start, unframed{told: "started"}},
		{"a target that cannot", "noise (x" + nonce + " no stty (here\n)" + start,
			unframed{fault: `the target cannot run the command like this: "no stty (here"`}},
		{"a target that cannot after all", start + "(x" + nonce + " no room)",
			unframed{told: "started", fault: `the target cannot run the command like this: "no room"`}},
		{"a target that cannot stop", "(x" + nonce + strings.Repeat("y", 5000),
			unframed{fault: `the target cannot run the command like this: "` + strings.Repeat("y", maxWords) + `"`}},
		{"digits that are none", start + framedAs('o', "one") + "(eb25l?b25l)",
			unframed{"one", "one", "started", "the output is incomplete: stderr cannot be decoded: '?' is no digit of what is encoded here"}},
		{"half a byte", start + "(Of)" + framedAs('o', "one"),
			unframed{"", "", "started", "the output is incomplete: stdout cannot be decoded: it ends in the middle of a byte"}},
		{"a frame in a frame", start + "(ob25l(a)",
			unframed{"one", "", "started", "the output is incomplete: stdout cannot be decoded: '(' is no digit of what is encoded here"}},
		{"no end", start + framedAs('o', "one") + framedAs('o', mark("1")) + framedAs('e', mark("1")[:30]),
			unframed{"one", mark("1")[:30], "started", ""}},
	} {
		t.Run(c.what, func(t *testing.T) {
			for first := 1; first <= min(len(c.sent), 300); first++ {
				for _, n := range []int{1, 1 << 20} {
					if got := unframe(c.sent, first, n); got != c.want {
						t.Fatalf("split at %d, then every %d: %+v, want %+v", first, n, got, c.want)
					}
				}
			}
		})
	}
}

func TestFramesKeepLittleOfWhatIsNoOutput(t *testing.T) {
	r := newExecOutput(Exec{Mode: Framed, Nonce: nonce}, &heard{})
	for range 1000 {
		for _, s := range []string{strings.Repeat("noise", 1000), "(s", "(x0123456789", strings.Repeat("(", 1000)} {
			if err := r.output([]byte(s)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := cap(r.frames.noise) + cap(r.frames.text); n > 4*maxWords {
		t.Errorf("%d bytes are kept of what is no output, want a few kB", n)
	}
	if !strings.HasPrefix(string(r.frames.noise), "noisenoise") || len(r.frames.noise) != maxWords {
		t.Errorf("%d bytes of noise are kept, want the first %d", len(r.frames.noise), maxWords)
	}
}

func TestFramesTellAWriteThatFails(t *testing.T) {
	full := errors.New("disk full")
	r := newExecOutput(Exec{Mode: Framed, Nonce: nonce, Out: brokenWriter{full}}, &heard{})
	err := r.output([]byte("(s" + nonce + ")" + framedAs('o', "one"+mark("0"))))
	var write *WriteError
	if !errors.As(err, &write) || !errors.Is(err, full) {
		t.Errorf("the error is %v, want a WriteError of the writer's", err)
	}
}

// FuzzFrames: however the frames are cut, the same comes of them.
func FuzzFrames(f *testing.F) {
	start := "(s" + nonce + ")"
	f.Add(start+framedAs('o', "hello")+framedAs('E', "oops")+"(p12)(a)", uint8(3))
	f.Add(start+framedAs('o', mark("7"))+framedAs('e', mark("7"))+"(o*)", uint8(1))
	f.Add("noise((x"+nonce+" no stty)", uint8(5))
	f.Add(start+"(ob25l(a)", uint8(2))
	f.Fuzz(func(t *testing.T, sent string, n uint8) {
		whole, cut := unframe(sent, len(sent)+1, 1), unframe(sent, int(n)+1, int(n)+1)
		// Whether a fault or an end comes first is the same; what is told
		// after the end of both streams in one piece is of no interest.
		if strings.HasPrefix(whole.fault, "the command ended") && strings.HasPrefix(cut.fault, "the command ended") {
			whole.told, cut.told = "", ""
		}
		if whole != cut {
			t.Fatalf("whole %+v; in pieces of %d %+v", whole, int(n)+1, cut)
		}
	})
}

func BenchmarkFrames(b *testing.B) {
	plain := random(48 << 10)
	p := []byte(framedAs('o', string(plain)))
	r := newExecOutput(Exec{Mode: Framed, Nonce: nonce, Out: &countedWriter{}}, &heard{})
	if err := r.output([]byte("(s" + nonce + ")")); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		for rest := p; len(rest) > 0; rest = rest[min(1024, len(rest)):] { // as an agent sends
			if err := r.output(rest[:min(1024, len(rest))]); err != nil {
				b.Fatal(err)
			}
		}
	}
}
