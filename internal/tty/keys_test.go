package tty

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestEscapes(t *testing.T) {
	type chunk struct {
		typed, sent string
		actions     []Action
	}
	leave, help := []Action{Disconnect}, []Action{Help}
	for _, tt := range []struct {
		name   string
		chunks []chunk
	}{
		{"plain typing passes", []chunk{{"ls -l\r", "ls -l\r", nil}}},
		{"leave at the start", []chunk{{"~.", "", leave}}},
		{"leave after carriage return", []chunk{{"ls\r~.", "ls\r", leave}}},
		{"leave after line feed", []chunk{{"ls\n~.", "ls\n", leave}}},
		{"what follows the leaving is dropped", []chunk{{"a\r~.rm -rf x\r", "a\r", leave}}},
		{"no escape within a line", []chunk{{"a~.b~?", "a~.b~?", nil}}},
		{"no escape after a blank", []chunk{{"\r ~.", "\r ~.", nil}}},
		{"help", []chunk{{"\r~?", "\r", help}}},
		{"another escape right after help", []chunk{{"~?~.", "", []Action{Help, Disconnect}}}},
		{"typing after help", []chunk{{"~?ls", "ls", help}}},
		{"the character itself", []chunk{{"~~", "~", nil}}},
		{"the character itself ends the start of a line", []chunk{{"~~~.", "~~.", nil}}},
		{"anything else comes with the character", []chunk{{"~x~.", "~x~.", nil}}},
		{"Enter after the character", []chunk{{"~\r~.", "~\r", leave}}},
		{"a home directory", []chunk{{"\r~/bin/x\r", "\r~/bin/x\r", nil}}},
		{"across chunks", []chunk{{"\r", "\r", nil}, {"~", "", nil}, {".", "", leave}}},
		{"an empty chunk changes nothing", []chunk{{"\r", "\r", nil}, {"", "", nil}, {"~", "", nil}, {"", "", nil}, {"?", "", help}}},
		{"held across chunks, then sent", []chunk{{"~", "", nil}, {"x", "~x", nil}}},
		{"a delete is no way back to the start", []chunk{{"a\x7f~.", "a\x7f~.", nil}}},
		{"bytes beyond ASCII", []chunk{{"é\r~.", "é\r", leave}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := NewEscapes('~')
			for _, c := range tt.chunks {
				sent, actions := e.Feed(nil, []byte(c.typed))
				if string(sent) != c.sent || !slices.Equal(actions, c.actions) {
					t.Errorf("after %q the filter sends %q and asks for %v, want %q and %v", c.typed, sent, actions, c.sent, c.actions)
				}
			}
		})
	}
}

func TestFeedAppends(t *testing.T) {
	sent, _ := NewEscapes('~').Feed([]byte("before "), []byte("after"))
	if string(sent) != "before after" {
		t.Errorf("Feed returned %q, want what was there and then the new", sent)
	}
}

func TestFlushSendsWhatIsHeld(t *testing.T) {
	e := NewEscapes('~')
	if sent, _ := e.Feed(nil, []byte("\r~")); string(sent) != "\r" {
		t.Fatalf("the filter sends %q, want the character held back", sent)
	}
	if sent := e.Flush(nil); string(sent) != "~" {
		t.Errorf("Flush sends %q, want the character held back", sent)
	}
	if sent := e.Flush(nil); len(sent) != 0 {
		t.Errorf("a second Flush sends %q, want nothing", sent)
	}
}

func TestAnotherEscapeCharacter(t *testing.T) {
	e := NewEscapes(0x1d)
	if sent, actions := e.Feed(nil, []byte("~.\r\x1d.")); string(sent) != "~.\r" || !slices.Equal(actions, []Action{Disconnect}) {
		t.Errorf("the filter sends %q and asks for %v", sent, actions)
	}
}

func TestHelpNamesTheEscapesAsTheyAreTyped(t *testing.T) {
	for char, want := range map[byte]string{'~': "~.", 0x1d: "^].", 0xe9: `\xe9.`} {
		help := NewEscapes(char).Help()
		if !strings.Contains(help, want) {
			t.Errorf("the help for %q does not tell of %s: %s", char, want, help)
		}
		if strings.Count(help, "\n") != strings.Count(help, "\r\n") {
			t.Errorf("the help has line feeds alone, which a raw terminal shows as steps: %q", help)
		}
	}
}

func TestParseEscape(t *testing.T) {
	for _, tt := range []struct {
		in   string
		char byte
		on   bool
		name string // as help shows it
	}{
		{"~", '~', true, "~"},
		{"%", '%', true, "%"},
		{" ", ' ', true, " "},
		{"^", '^', true, "^"},
		{"^]", 0x1d, true, "^]"},
		{"^^", 0x1e, true, "^^"},
		{"^@", 0, true, "^@"},
		{"^A", 1, true, "^A"},
		{"^a", 1, true, "^A"},
		{"\x1d", 0x1d, true, "^]"},
		{"\xe9", 0xe9, true, `\xe9`},
		{"none", 0, false, "none"},
	} {
		char, on, err := ParseEscape(tt.in)
		if err != nil || char != tt.char || on != tt.on {
			t.Errorf("the escape character %q is read as %q, on %t, %v; want %q, on %t", tt.in, char, on, err, tt.char, tt.on)
		}
		e := new(Escapes)
		if on {
			e = NewEscapes(char)
		}
		if e.Name() != tt.name {
			t.Errorf("the escape character %q is shown as %q, want %q", tt.in, e.Name(), tt.name)
		}
	}
}

func TestParseEscapeRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":     `bad escape character "": want one character, ^X or none`,
		"~~":   `bad escape character "~~": want one character, ^X or none`,
		"é":    `bad escape character "é": want one character, ^X or none`,
		"^1":   `bad escape character "^1": want one character, ^X or none`,
		"^?":   `bad escape character "^?": want one character, ^X or none`,
		"None": `bad escape character "None": want one character, ^X or none`,
		"^M":   `bad escape character "^M": Enter, . and ? have a meaning of their own`,
		"^j":   `bad escape character "^j": Enter, . and ? have a meaning of their own`,
		"\r":   `bad escape character "\r": Enter, . and ? have a meaning of their own`,
		"\n":   `bad escape character "\n": Enter, . and ? have a meaning of their own`,
		".":    `bad escape character ".": Enter, . and ? have a meaning of their own`,
		"?":    `bad escape character "?": Enter, . and ? have a meaning of their own`,
	} {
		if char, on, err := ParseEscape(in); err == nil || err.Error() != want || char != 0 || on {
			t.Errorf("the escape character %q is read as %q, on %t, %v; want the error %s", in, char, on, err, want)
		}
	}
}

func TestNoEscapesPassAllBytes(t *testing.T) {
	var all []byte
	for c := range 256 {
		all = append(all, '\r', byte(c), '.', '\n', byte(c), '?')
	}
	for _, cuts := range []uint64{0, 0b1010, ^uint64(0)} {
		if sent, actions := feed(new(Escapes), chunks(all, cuts)); !bytes.Equal(sent, all) || actions != nil {
			t.Errorf("without an escape character %q is sent with %v, want all bytes and nothing done", sent, actions)
		}
	}
}

// FuzzParseEscape holds that what is accepted works: the character leaves the
// session after Enter, sends itself when typed twice, and is shown as it is
// typed.
func FuzzParseEscape(f *testing.F) {
	for _, s := range []string{"~", "^]", "none", "^", "\xff", "^@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		char, on, err := ParseEscape(s)
		if err != nil || !on {
			return
		}
		if _, actions := feed(NewEscapes(char), [][]byte{{'x', '\r', char, '.'}}); !slices.Equal(actions, []Action{Disconnect}) {
			t.Errorf("Enter and %q and a full stop ask for %v, want to leave", char, actions)
		}
		if sent, actions := feed(NewEscapes(char), [][]byte{{char, char}}); string(sent) != string([]byte{char}) || actions != nil {
			t.Errorf("%q typed twice sends %q and asks for %v, want it sent once", char, sent, actions)
		}
		if name := NewEscapes(char).Name(); char >= ' ' && char < 0x7f && name != s {
			t.Errorf("the escape character %q is shown as %q", s, name)
		}
	})
}

// FuzzEscapes holds that chunks make no difference; that without an escape all
// bytes pass; and that nothing is sent that was not typed.
func FuzzEscapes(f *testing.F) {
	f.Add([]byte("ls\r~.x"), uint64(0b1010))
	f.Add([]byte("~?~~~x\n~"), uint64(0xffff))
	f.Add([]byte("a~.b"), uint64(0))
	f.Fuzz(func(t *testing.T, typed []byte, cuts uint64) {
		whole, wholeActions := feed(NewEscapes('~'), [][]byte{typed})
		cut, cutActions := feed(NewEscapes('~'), chunks(typed, cuts))
		if !bytes.Equal(whole, cut) || !slices.Equal(wholeActions, cutActions) {
			t.Fatalf("%q at once: %q and %v; in chunks: %q and %v", typed, whole, wholeActions, cut, cutActions)
		}
		if len(whole) > len(typed) {
			t.Fatalf("%q was typed and %q is sent", typed, whole)
		}
		// A start or an Enter before the character is what makes an escape.
		probe := append([]byte("\r"), bytes.ReplaceAll(typed, []byte("\n"), []byte("\r"))...)
		if !bytes.Contains(probe, []byte("\r~")) && (!bytes.Equal(whole, typed) || wholeActions != nil) {
			t.Fatalf("%q holds no escape, and yet %q is sent with %v", typed, whole, wholeActions)
		}
	})
}

// chunks cuts p after every byte whose bit is set, over and over.
func chunks(p []byte, cuts uint64) [][]byte {
	var list [][]byte
	start := 0
	for i := range p {
		if cuts>>(i%64)&1 == 1 {
			list = append(list, p[start:i])
			start = i
		}
	}
	return append(list, p[start:])
}

// feed types all chunks up to a Disconnect, and ends the input.
func feed(e *Escapes, list [][]byte) (sent []byte, actions []Action) {
	for _, p := range list {
		var asked []Action
		sent, asked = e.Feed(sent, p)
		actions = append(actions, asked...)
		if slices.Contains(asked, Disconnect) {
			return sent, actions
		}
	}
	return e.Flush(sent), actions
}
