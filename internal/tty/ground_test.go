package tty

import (
	"math/rand/v2"
	"testing"
)

func TestGround(t *testing.T) {
	const complete, within = true, false
	for _, tt := range []struct {
		name   string
		output string
		want   bool
	}{
		{"nothing yet", "", complete},
		{"a prompt", "$ ", complete},
		{"lines", "one\r\ntwo\r\n", complete},
		{"a bell", "\a", complete},
		{"a delete", "\x7f", complete},

		{"an escape", "\x1b", within},
		{"a short sequence", "\x1bM", complete},
		{"a short sequence of digits", "\x1b7", complete},
		{"an escape and a control character", "\x1b\n", within},
		{"an escape and a delete", "\x1b\x7f", within},
		{"an escape and no ASCII", "\x1b\xc3\xa9", within},
		{"two escapes", "\x1b\x1b", within},
		{"a character set, not named yet", "\x1b(", within},
		{"a character set", "\x1b(B", complete},
		{"a character set of two bytes", "\x1b(%5", complete},
		{"an intermediate, then what would begin a sequence", "\x1b #[", complete},

		{"a control sequence begins", "\x1b[", within},
		{"its parameters", "\x1b[?25;1", within},
		{"its intermediate", "\x1b[2 ", within},
		{"its end", "\x1b[2 q", complete},
		{"its end, no letter", "\x1b[4@", complete},
		{"a line feed within", "\x1b[3\n1", within},
		{"a bell within", "\x1b[3\a", within},
		{"a bell within, then its end", "\x1b[3\a1m", complete},
		{"a delete within", "\x1b[3\x7f", within},
		{"no ASCII within", "\x1b[3\xc3\xa9", within},
		{"cancelled", "\x1b[3\x18", complete},
		{"substituted", "\x1b[3\x1a", complete},
		{"broken off by an escape", "\x1b[3\x1b", within},
		{"broken off by another", "\x1b[3\x1b[m", complete},

		{"a title", "\x1b]2;vim", within},
		{"a title that ends with BEL", "\x1b]2;vim\a", complete},
		{"a title, half of its ST", "\x1b]2;vim\x1b", within},
		{"a title that ends with ST", "\x1b]2;vim\x1b\\", complete},
		{"a title with UTF-8 that has ST's byte in it", "\x1b]2;\u271c", within},
		{"a title in lines", "\x1b]2;a\r\nb", within},
		{"a title, cancelled", "\x1b]2;vim\x18", complete},
		{"a title that a sequence breaks off", "\x1b]2;vim\x1b[m", complete},
		{"the shortest ST may end nothing", "\x1b]2;vim\x9c", within},
		{"a device control string", "\x1bP+q436f", within},
		{"BEL is part of it", "\x1bP+q436f\a", within},
		{"so is what ends a control sequence", "\x1bPq#0~", within},
		{"ST ends it", "\x1bP+q436f\x1b\\", complete},
		{"an application program command", "\x1b_Gi=1;\a", within},
		{"ends with ST", "\x1b_Gi=1;\a\x1b\\", complete},
		{"a privacy message", "\x1b^x\a", within},
		{"a start of string", "\x1bXx\a", within},
		{"the title that screen takes", "\x1bkvim\a", within},
		{"ends with ST, too", "\x1bkvim\x1b\\", complete},

		{"a character of two bytes", "\xc3\xa9", complete},
		{"its first", "\xc3", within},
		{"one of three", "\xe6\x97", within},
		{"all three", "\xe6\x97\xa5", complete},
		{"three of four", "\xf0\x9f\x98", within},
		{"all four", "\xf0\x9f\x98\x80", complete},
		{"one that ASCII breaks off", "\xe6\x97a", complete},
		{"one that another breaks off", "\xe6\x97\xc3", within},
		{"one that an escape breaks off", "\xe6\x1b[m", complete},
		{"one that is cancelled", "\xe6\x18", complete},
		{"a byte of no character", "\xff", complete},
		{"a first byte of none", "\xc1", complete},
		{"a continuation of none", "\xa0", complete},

		{"CSI of one byte", "\x9b31", within},
		{"its end", "\x9b31m", complete},
		{"CSI in UTF-8", "\xc2\x9b31", within},
		{"its end", "\xc2\x9b31m", complete},
		{"OSC of one byte", "\x9d2;a", within},
		{"DCS of one byte", "\x90q\a", within},
		{"next line of one byte", "\x85", complete},
		{"the bytes of CSI as part of a character", "\xe2\x80\x9b", complete},

		{"a shift for one character", "\x1bN", within},
		{"the character", "\x1bNa", complete},
		{"the character, no ASCII", "\x1bO\xc3\xa9", complete},
		{"a control character before it", "\x1bO\n", within},
		{"a sequence before it", "\x1bO\x1b[m", within},
		{"a shift of one byte", "\x8e", within},
		{"a shift to the other set is complete", "\x0e", complete},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var g ground
			if g.feed([]byte(tt.output)); g.complete() != tt.want {
				t.Errorf("after %q the output is taken for complete: %v, want %v", tt.output, g.complete(), tt.want)
			}
		})
	}
}

// FuzzGround feeds the same bytes whole, one by one and cut anywhere, and checks
// what holds for all bytes.
func FuzzGround(f *testing.F) {
	for _, seed := range []string{"", "$ ", "\x1b[1;31mred\x1b]2;t\a", "\x1bP1$r\x1b\\\x1bN\xe6\x97\xa5", "\xc2\x9b\x9d\x18\xf0\x9f"} {
		f.Add([]byte(seed), uint64(len(seed)))
	}
	f.Fuzz(func(t *testing.T, output []byte, seed uint64) {
		var whole, single, pieces ground
		whole.feed(output)
		for i := range output {
			single.feed(output[i : i+1])
		}
		random := rand.New(rand.NewPCG(seed, 0))
		for rest := output; len(rest) > 0; {
			n := random.IntN(len(rest)) + 1
			pieces.feed(rest[:n])
			rest = rest[n:]
		}
		if whole != single || whole != pieces {
			t.Fatalf("%q is %+v as a whole, %+v byte by byte, %+v in pieces", output, whole, single, pieces)
		}
		for _, tt := range []struct {
			next string
			want bool
		}{
			{"\x18 ", true},                   // nothing survives CAN and a character
			{"\x1b", false},                   // an escape always waits
			{"\x1b[m ", true},                 // and whatever it began ends as it should
			{"\x1b]0;\a ", true},              // a title
			{"\x1b]0;", false},                // half of it
			{"\x18 \xe6\x97\xa5", true},       // a character
			{"\x18 \xe6\x97", false},          // two thirds of it
			{"\x1b\\ \xc2\x9b1", false},       // CSI
			{"\x1b\\ \xc2\x9b1;\nH", true},    // and its end
			{"\x1bPq\a\x1b[\x1b\\ ", true},    // a string within which there is another sequence
			{"\x1bPq\a\x1b[\x1b\\\xff", true}, // and no character at all
		} {
			g := whole
			if g.feed([]byte(tt.next)); g.complete() != tt.want {
				t.Fatalf("after %q and %q the output is taken for complete: %v, want %v", output, tt.next, g.complete(), tt.want)
			}
		}
	})
}

func BenchmarkGround(b *testing.B) {
	output := []byte("\x1b[38;5;208mfunc\x1b[m main() { fmt.Println(\"日本語\") }\r\n")
	b.SetBytes(int64(len(output)))
	var g ground
	for b.Loop() {
		g.feed(output)
	}
}
