package agent

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

func TestRetransmissionTimeout(t *testing.T) {
	r := newRTO()
	if r.timeout != 200*time.Millisecond {
		t.Errorf("the timeout begins at %v, want 200 ms", r.timeout)
	}
	const ms = 1e6
	for _, step := range []struct {
		trip                    time.Duration
		timeout, variation, rtt float64 // milliseconds; 0: not compared
	}{
		{50 * time.Millisecond, 143.75, 12.5, 93.75},
		{50 * time.Millisecond, 169.53125, 20.3125, 88.28125},
		{400 * time.Millisecond, 499.902343, 93.1640625, 127.24609375},
		{30 * time.Millisecond, 491.828613, 0, 0},
		{2000 * time.Millisecond, 1000, 0, 0},
		{20 * time.Millisecond, 1000, 0, 0},
	} {
		r.sample(step.trip)
		if got := float64(r.timeout) / ms; math.Abs(got-step.timeout) > 1e-6 {
			t.Errorf("after a round trip of %v the timeout is %v ms, want %v", step.trip, got, step.timeout)
		}
		if step.rtt != 0 && (r.rtt/ms != step.rtt || r.variation/ms != step.variation) {
			t.Errorf("after a round trip of %v RTT and variation are %v and %v ms, want %v and %v",
				step.trip, r.rtt/ms, r.variation/ms, step.rtt, step.variation)
		}
	}
}

func TestRetransmissionTimeoutOfAFastLink(t *testing.T) {
	r := newRTO()
	for range 1000 {
		r.sample(time.Millisecond)
	}
	if r.timeout < granularity || r.timeout > 12*time.Millisecond {
		t.Errorf("after a thousand round trips of 1 ms the timeout is %v, want 1 ms and the clock's 10", r.timeout)
	}
}

func TestCompareVersions(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"1.2.295", "1.2.295", 0},
		{"1.2.295.0", "1.2.295", 1}, // the longer one is the later
		{"1.2.99", "1.2.295", -1},   // as numbers
		{"1.10", "1.9.9", 1},
		{"", "1.2.295", -1}, // no version is the oldest
		{"1.2.x", "1.2.295", 1},
		{"3.3.0.0", "3.2.1041", 1},
		{"2", "10", -1},
	} {
		if got := compareVersions(tt.a, tt.b); got != tt.want {
			t.Errorf("compare %q with %q: got %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if got := compareVersions(tt.b, tt.a); got != -tt.want {
			t.Errorf("compare %q with %q: got %d, want %d", tt.b, tt.a, got, -tt.want)
		}
	}
}

func TestWhatAnAgentPlays(t *testing.T) {
	for _, tt := range []struct {
		version string
		want    []frame.SessionType
	}{
		{"2.3.540.0", []frame.SessionType{frame.StandardStream}},
		{"2.3.668.0", []frame.SessionType{frame.StandardStream, frame.InteractiveCommands}},
		{"2.3.672.0", []frame.SessionType{frame.StandardStream, frame.InteractiveCommands, frame.Port}},
		{"3.0.1123.9", []frame.SessionType{frame.StandardStream, frame.InteractiveCommands, frame.Port}},
		{"3.0.1124.0", []frame.SessionType{frame.StandardStream, frame.InteractiveCommands, frame.Port, frame.NonInteractiveCommands}},
		{current, []frame.SessionType{frame.StandardStream, frame.InteractiveCommands, frame.Port, frame.NonInteractiveCommands}},
	} {
		for _, kind := range []frame.SessionType{
			frame.StandardStream, frame.InteractiveCommands, frame.NonInteractiveCommands, frame.Port, "Foo", "",
		} {
			if got, want := plays(tt.version, kind), slices.Contains(tt.want, kind); got != want {
				t.Errorf("agent %s plays %q: %t, want %t", tt.version, kind, got, want)
			}
		}
	}
}

func TestOutgoingRetiresInAnyOrder(t *testing.T) {
	for _, order := range [][]int64{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 2, 0, 3}, {2, 0, 3, 1}} {
		var o outgoing
		left := map[int64]bool{}
		for i := range int64(4) {
			s := o.entry()
			s.sequence = i
			if !o.record(s) {
				t.Fatalf("message %d found no room", i)
			}
			left[i] = true
		}
		for _, sequence := range order {
			if _, ok := o.retire(sequence); !ok {
				t.Fatalf("order %v: message %d was not there", order, sequence)
			}
			if _, ok := o.retire(sequence); ok {
				t.Fatalf("order %v: message %d was retired twice", order, sequence)
			}
			delete(left, sequence)
			last := int64(-1)
			count := 0
			for s := o.front; s != nil; s = s.next {
				if !left[s.sequence] || s.sequence <= last {
					t.Fatalf("order %v: message %d is in the list after retiring %d", order, s.sequence, sequence)
				}
				last = s.sequence
				count++
			}
			if count != len(left) || count == 0 != (o.back == nil) || o.back != nil && o.back.sequence != last {
				t.Fatalf("order %v: the list has %d messages, want %d", order, count, len(left))
			}
		}
		if len(o.free) != 4 {
			t.Errorf("order %v: %d entries are free for reuse, want 4", order, len(o.free))
		}
	}
}

func TestRepair(t *testing.T) {
	for _, tt := range []struct{ why, data, send, held string }{
		{"plain text is sent whole", "hello\r\n", "hello\r\n", ""},
		{"nothing is nothing", "", "", ""},
		{"whole characters are sent", "æ€😀", "æ€😀", ""},
		{"a character cut after 1 byte of 2 waits", "ab\xc3", "ab", "\xc3"},
		{"a character cut after 1 byte of 3 waits", "ab\xe2", "ab", "\xe2"},
		{"a character cut after 2 bytes of 3 waits", "ab\xe2\x82", "ab", "\xe2\x82"},
		{"a character cut after 3 bytes of 4 waits", "ab\xf0\x9f\x98", "ab", "\xf0\x9f\x98"},
		{"only a part of a character is all held", "\xf0\x9f\x98", "", "\xf0\x9f\x98"},
		{"a wrong byte far from the end passes", "\xff1234", "\xff1234", ""},
		{"a wrong byte four from the end passes", "a\xff123", "a\xff123", ""},
		{"a wrong byte within the last three waits with what follows", "abc\xff12", "abc", "\xff12"},
		{"a wrong byte at the end waits", "abc\xff", "abc", "\xff"},
		{"a latin-1 text passes but for its end", "\xe9t\xe9 \xe0 la fin \xe9", "\xe9t\xe9 \xe0 la fin ", "\xe9"},
		{"a surrogate passes byte by byte", "\xed\xa0\x80 etc", "\xed\xa0\x80 etc", ""},
		{"a literal U+FFFD becomes its first byte", "a\uFFFDb", "a\xefb", ""},
		{"a literal U+FFFD at the end waits", "a\uFFFD", "a", "\uFFFD"},
		{"several of them", "\uFFFD\uFFFD\uFFFD....", "\xef\xef\xef....", ""},
	} {
		data := []byte(tt.data)
		send, held := repair(data)
		if string(send) != tt.send || string(held) != tt.held {
			t.Errorf("%s: of %q %q is sent and %q held, want %q and %q", tt.why, tt.data, send, held, tt.send, tt.held)
		}
	}
}

// model is the agent's rule as a sentence: walk over the characters, stop at
// the first that does not decode (or is U+FFFD) within the last three bytes.
func model(data string) (send, held string) {
	var out strings.Builder
	for data != "" {
		r, n := utf8.DecodeRuneInString(data)
		bad := r == utf8.RuneError
		if bad && len(data) < 4 {
			break
		}
		if bad {
			out.WriteString(data[:1])
		} else {
			out.WriteRune(r)
		}
		data = data[n:]
	}
	return out.String(), data
}

func FuzzRepair(f *testing.F) {
	for _, seed := range []string{"hello", "æ€😀", "\xff\xfe\xfd", "a\uFFFDb\uFFFD", "\xf0\x9f\x98", "\xed\xa0\x80"} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		wantSend, wantHeld := model(string(data))
		send, held := repair(bytes.Clone(data))
		if string(send) != wantSend || string(held) != wantHeld {
			t.Fatalf("of %q %q is sent and %q held, the model says %q and %q", data, send, held, wantSend, wantHeld)
		}

		// Read in pieces, good text arrives whole, and no message ends within
		// a character.
		if !utf8.Valid(data) || bytes.Contains(data, []byte("\uFFFD")) {
			return
		}
		var sent []byte
		buf := make([]byte, maxHeld+int(size)+1)
		kept := 0
		for rest := data; len(rest) > 0; {
			n := copy(buf[kept:], rest[:min(len(rest), int(size)+1)])
			rest = rest[n:]
			send, held := repair(buf[:kept+n])
			if !utf8.Valid(send) {
				t.Fatalf("the message %q ends within a character", send)
			}
			sent = append(sent, send...)
			if len(held) > maxHeld {
				t.Fatalf("%d bytes are held", len(held))
			}
			kept = copy(buf, held)
		}
		if got := string(sent) + string(buf[:kept]); got != string(data) {
			t.Fatalf("in pieces of %d, %q came as %q", int(size)+1, data, got)
		}
	})
}

func TestFailedIsTruncated(t *testing.T) {
	got := failed(strings.Repeat("x", 10_000))
	if len(got.Output) != 2500 || !strings.HasPrefix(got.Output, "\n----------ERROR-------\nxxx") ||
		!strings.HasSuffix(got.Output, "x\n---Error truncated----") {
		t.Errorf("a long failure has %d bytes: %.40q … %q", len(got.Output), got.Output, got.Output[max(0, len(got.Output)-40):])
	}
	if got, want := failed("xxx").Output, "\n----------ERROR-------\nxxx"; got != want {
		t.Errorf("a short failure is %q, want %q", got, want)
	}
}
