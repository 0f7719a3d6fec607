package agent

import (
	"bytes"
	"unicode/utf8"
)

// maxHeld is how much of a read can be held back for the next one, in bytes.
const maxHeld = utf8.UTFMax - 1

// repair divides output into what the agent sends now and what it holds for the
// next read, so that no message ends within a character. It is the agent's rule
// with its mistakes (docs/protocol.md, "Output of the agent"):
//
//   - whatever does not decode within the last three bytes is held, with all
//     that follows it, and lost when no next read comes;
//   - a U+FFFD that the program did write does not decode either: held near the
//     end, and elsewhere only its first byte is sent.
//
// Both results alias data, whose bytes are overwritten.
func repair(data []byte) (send, held []byte) {
	if utf8.Valid(data) && !bytes.Contains(data, []byte("\uFFFD")) {
		return data, nil
	}
	out := 0
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r != utf8.RuneError:
			out += copy(data[out:], data[i:i+n])
		case len(data)-i <= maxHeld:
			return data[:out], data[i:]
		default:
			data[out] = data[i]
			out++
		}
		i += n
	}
	return data[:out], nil
}
