package session

import (
	"bytes"
	"strings"
)

// Limits of what is kept of anything but output, in bytes.
const (
	maxControl = 64
	maxWords   = 1 << 10 // of text from the target
)

// frames takes apart what the wrapper sends over a raw pty: "(", a kind, a
// payload, ")" (docs/exec.md, "Frames"). What is outside is noise. Output is
// decoded as it comes; no frame of it is ever kept whole.
type frames struct {
	nonce          string
	stdout, stderr *execStream
	told           frameListener

	state frameState
	kind  byte
	text  []byte // of a frame that is no output, after its kind
	into  *execStream
	data  *digits
	begun bool
	noise []byte // what came before the start, as far as it is kept
}

// frameListener is told what is not output, and must return at once.
type frameListener interface {
	// started tells that the wrapper listens from now on.
	started()
	// group tells the process group of the command, a number above 1.
	group(id string)
	// taken tells that the last frame of input was.
	taken()
}

// frameState is where in a frame the next byte is.
type frameState int

const (
	outside frameState = iota
	opened
	inText
	inData
)

// take takes what comes next. The error is a *CannotError, of writing, or about
// digits that are none.
func (f *frames) take(p []byte) error {
	if !f.begun {
		f.noise = appendUpTo(f.noise, p, maxWords)
	}
	for len(p) > 0 {
		var err error
		switch f.state {
		case outside:
			i := bytes.IndexByte(p, '(')
			if i < 0 {
				return nil
			}
			f.state, p = opened, p[i+1:]
		case opened:
			p = f.open(p)
		case inText:
			p, err = f.addText(p)
		case inData:
			p, err = f.addData(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// open reads the kind. A byte that is none is left where it is: it may open a
// frame itself.
func (f *frames) open(p []byte) []byte {
	f.kind, f.text = p[0], f.text[:0]
	switch f.kind {
	case ' ', '\t', '\r', '\n':
		return p[1:]
	case 's', 'x':
		f.state = inText
		return p[1:]
	}
	f.state = outside
	if !f.begun {
		return p
	}
	switch f.kind {
	case 'a', 'p':
		f.state = inText
		return p[1:]
	case 'o':
		f.into, f.data = f.stdout, f.stdout.base64
	case 'O':
		f.into, f.data = f.stdout, f.stdout.hex
	case 'e':
		f.into, f.data = f.stderr, f.stderr.base64
	case 'E':
		f.into, f.data = f.stderr, f.stderr.hex
	default:
		return p
	}
	f.state = inData
	return p[1:]
}

// addData decodes output up to the end of its frame.
func (f *frames) addData(p []byte) ([]byte, error) {
	i := bytes.IndexByte(p, ')')
	if i < 0 {
		return nil, f.into.decode(f.data, p)
	}
	f.state = outside
	if err := f.into.decode(f.data, p[:i]); err != nil {
		return nil, err
	}
	return p[i+1:], f.into.endChunk(f.data)
}

// addText reads one byte of a frame that is no output. A byte that cannot be in
// it makes it noise, and may open a frame itself.
func (f *frames) addText(p []byte) ([]byte, error) {
	c := p[0]
	named := f.kind == 's' || f.kind == 'x'
	words := f.kind == 'x' && len(f.text) >= len(f.nonce)
	switch {
	case words && (c == ')' || len(f.text) >= len(f.nonce)+maxWords):
		f.state = outside
		return p[1:], &CannotError{Text: strings.TrimSpace(string(f.text[len(f.nonce):]))}
	case words:
	case c == ' ', c == '\t', c == '\r', c == '\n':
		return p[1:], nil
	case c == ')':
		f.state = outside
		f.endText()
		return p[1:], nil
	case named && (len(f.text) == len(f.nonce) || c != f.nonce[len(f.text)]),
		f.kind == 'a', f.kind == 'p' && (c < '0' || c > '9'),
		len(f.text) == maxControl:
		f.state = outside
		return p, nil
	}
	f.text = append(f.text, c)
	return p[1:], nil
}

// endText tells what a frame that is complete said.
func (f *frames) endText() {
	switch f.kind {
	case 's':
		if !f.begun && string(f.text) == f.nonce {
			f.begun = true
			f.told.started()
		}
	case 'p':
		if id := strings.TrimLeft(string(f.text), "0"); id != "" && id != "1" {
			f.told.group(id)
		}
	case 'a':
		f.told.taken()
	}
}

// appendUpTo appends of p what b may still grow.
func appendUpTo(b, p []byte, limit int) []byte {
	return append(b, p[:min(len(p), max(0, limit-len(b)))]...)
}
