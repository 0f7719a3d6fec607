package tty

import "fmt"

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
// It is pure: no terminal, no clock. One goroutine at a time may use it.
type Escapes struct {
	char      byte
	lineStart bool // nothing typed since Enter
	held      bool // the escape character came and waits for the next byte
}

// NewEscapes returns a filter for the given escape character.
func NewEscapes(char byte) *Escapes { return &Escapes{char: char, lineStart: true} }

// Feed takes the bytes that were typed, appends to dst those to send, and
// returns the actions asked for, in order; mostly none. Bytes after a
// Disconnect are dropped: there is nobody to send them to. The chunks that
// typing arrives in make no difference.
func (e *Escapes) Feed(dst, p []byte) (send []byte, actions []Action) {
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
	c := e.name()
	return "\r\nescapes, each after Enter:\r\n" +
		"  " + c + ".  leave the session\r\n" +
		"  " + c + "?  show this\r\n" +
		"  " + c + c + "  send " + c + "\r\n"
}

// name writes the escape character as it is typed.
func (e *Escapes) name() string {
	switch {
	case e.char < ' ':
		return "^" + string(rune(e.char+'@'))
	case e.char < 0x7f:
		return string(rune(e.char))
	}
	return fmt.Sprintf(`\x%02x`, e.char)
}
