package tty

import (
	"fmt"
	"strings"
)

// Action is what an escape asks for.
type Action int

// The actions, and what is typed for them after Enter when the escape
// character is "~".
const (
	Disconnect Action = iota + 1 // ~. leave the session at once
	Help                         // ~? show the escapes
)

// Escapes filters typed bytes as OpenSSH's client does. At the start and after
// Enter, carriage return or line feed alike, the escape character is held back
// until the next byte says what it means: "." and "?" are actions, the
// character itself is sent once, anything else is sent with the character
// before it. Everywhere else all bytes pass.
//
// The zero Escapes has no escape character: all bytes pass.
//
// It is pure: no terminal, no clock. One goroutine at a time may use it.
type Escapes struct {
	on        bool
	char      byte
	lineStart bool // nothing typed since Enter
	held      bool // the escape character came and waits for the next byte
}

// NewEscapes returns a filter for the given escape character.
func NewEscapes(char byte) *Escapes { return &Escapes{on: true, char: char, lineStart: true} }

// ParseEscape reads an escape character as OpenSSH spells it: the character
// itself; ^ and another for a control character, as in ^]; or "none", of which
// on is false. Unlike OpenSSH it refuses Enter, which comes before an escape,
// and the characters that come after.
func ParseEscape(s string) (char byte, on bool, err error) {
	switch {
	case s == "none":
		return 0, false, nil
	case len(s) == 1:
		char = s[0]
	case len(s) == 2 && s[0] == '^' && s[1] >= '@' && s[1] < 0x7f:
		char = s[1] & 0x1f
	default:
		return 0, false, fmt.Errorf("bad escape character %q: want one character, ^X or none", s)
	}
	if strings.IndexByte("\r\n.?", char) >= 0 {
		return 0, false, fmt.Errorf("bad escape character %q: Enter, . and ? have a meaning of their own", s)
	}
	return char, true, nil
}

// Feed takes the bytes that were typed, appends to dst those to send, and
// returns the actions asked for, in order; mostly none. Bytes after a
// Disconnect are dropped: there is nobody to send them to. The chunks that
// typing arrives in make no difference.
func (e *Escapes) Feed(dst, p []byte) (send []byte, actions []Action) {
	if !e.on {
		return append(dst, p...), nil
	}
	for _, c := range p {
		if e.held {
			e.held = false
			switch c {
			case '.':
				return dst, append(actions, Disconnect)
			case '?':
				// Still at the start of a line, so that another escape may
				// follow at once.
				actions = append(actions, Help)
				continue
			case e.char:
			default:
				dst = append(dst, e.char)
			}
		} else if e.lineStart && c == e.char {
			e.held = true
			continue
		}
		e.lineStart = c == '\r' || c == '\n'
		dst = append(dst, c)
	}
	return dst, actions
}

// Flush appends to dst an escape character that is still held: the input has
// ended and nothing will say what it means.
func (e *Escapes) Flush(dst []byte) []byte {
	if e.held {
		e.held, e.lineStart = false, false
		dst = append(dst, e.char)
	}
	return dst
}

// Help returns the text for the Help action. Its lines end in CR LF, for it is
// shown on a raw terminal.
func (e *Escapes) Help() string {
	c := e.Name()
	return "\r\nescapes, each after Enter:\r\n" +
		"  " + c + ".  leave the session\r\n" +
		"  " + c + "?  show this\r\n" +
		"  " + c + c + "  send " + c + "\r\n"
}

// Name returns the escape character as it is typed, such as "~" or "^]", or
// "none".
func (e *Escapes) Name() string {
	switch {
	case !e.on:
		return "none"
	case e.char < ' ':
		return "^" + string(rune(e.char+'@'))
	case e.char < 0x7f:
		return string(rune(e.char))
	}
	return fmt.Sprintf(`\x%02x`, e.char)
}
