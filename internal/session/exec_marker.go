package session

import (
	"bytes"
	"io"
	"unicode/utf8"
)

// marked passes on what comes before the marker, which is [NONCE STATUS] with a
// status of 0 to 255, and swallows what follows it. It takes the signs of the
// wrapper, [NONCE], out of what it passes on. Nothing is held back but what may be
// the beginning of either.
type marked struct {
	out    io.Writer
	begin  []byte // of a marker or a sign, up to what tells them apart; nil when there will be none
	held   []byte // of one, as far as it has come
	status int
	done   bool // the marker has come, and all before it was passed on
	signs  int  // come since they were last counted
	fresh  bool // something was passed on since the last sign, or since it was set to false
}

// maxStatus is the longest status in a marker, in digits.
const maxStatus = 3

func newMarked(out io.Writer, nonce string) *marked {
	begin := []byte("[" + nonce)
	return &marked{out: out, begin: begin, held: make([]byte, 0, len(begin)+1+maxStatus+1)}
}

// Write takes what comes next. A marker has no bracket but its first byte, so
// that after a match which fails the next can only begin where it failed.
func (m *marked) Write(p []byte) (int, error) {
	size := len(p)
	if m.begin == nil {
		return size, m.pass(p)
	}
	before := len(m.held) // of what is held, from an earlier Write
	for i := 0; i < len(p) && !m.done; {
		if len(m.held) == 0 {
			next := bytes.IndexByte(p[i:], '[')
			if next < 0 {
				break
			}
			m.held = append(m.held, '[')
			i += next + 1
			continue
		}
		fits, whole := m.match(p[i])
		if !fits {
			if err := m.pass(m.held[:before]); err != nil {
				return 0, err
			}
			m.held, before = m.held[:0], 0
			continue
		}
		m.held = append(m.held, p[i])
		i++
		if !whole {
			continue
		}
		err := m.pass(p[:i-len(m.held)+before])
		if sign := len(m.held) == len(m.begin)+1; !sign || err != nil {
			m.done = err == nil
			return size, err
		}
		m.signs++
		m.fresh = false
		m.held, before = m.held[:0], 0
		p, i = p[i:], 0
	}
	if m.done {
		return size, nil
	}
	return size, m.pass(p[:len(p)-len(m.held)+before])
}

// match tells whether c can follow what is held, and whether it is the last byte
// of a marker or a sign.
func (m *marked) match(c byte) (fits, whole bool) {
	n := len(m.held)
	switch {
	case n < len(m.begin):
		return c == m.begin[n], false
	case n == len(m.begin):
		return c == ' ' || c == ']', c == ']'
	}
	status := m.held[len(m.begin)+1:]
	if c >= '0' && c <= '9' {
		return len(status) < maxStatus, false
	}
	m.status = 0
	for _, d := range status {
		m.status = m.status*10 + int(d-'0')
	}
	whole = c == ']' && len(status) > 0 && m.status <= 255
	return whole, whole
}

// flush passes on what is held back, when nothing more will come.
func (m *marked) flush() error {
	if m.done {
		return nil
	}
	held := m.held
	m.held = m.held[:0]
	return m.pass(held)
}

func (m *marked) pass(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	m.fresh = true
	_, err := m.out.Write(p)
	return err
}

// sink is where a stream's bytes leave the session. A write that fails is a
// *WriteError.
type sink struct {
	out io.Writer
	// notText is called at the first bytes that are not UTF-8, and nil when
	// nobody wants to know.
	notText func()
	part    []byte // of a character that the last Write began
}

func (s *sink) Write(p []byte) (int, error) {
	if s.notText != nil && !s.isText(p) {
		s.notText()
		s.notText = nil
	}
	n, err := s.out.Write(p)
	if err != nil {
		return n, &WriteError{err}
	}
	return n, nil
}

// end tells that nothing more will come.
func (s *sink) end() {
	if s.notText != nil && len(s.part) > 0 {
		s.notText()
		s.notText = nil
	}
}

// isText tells whether p goes on as UTF-8. A character may be split anywhere.
func (s *sink) isText(p []byte) bool {
	for len(s.part) > 0 && len(p) > 0 {
		s.part, p = append(s.part, p[0]), p[1:]
		if utf8.FullRune(s.part) {
			if !utf8.Valid(s.part) {
				return false
			}
			s.part = s.part[:0]
		}
	}
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		tail := p[len(p)-n:]
		if !utf8.RuneStart(tail[0]) {
			continue
		}
		if !utf8.FullRune(tail) {
			s.part = append(s.part, tail...)
			p = p[:len(p)-n]
		}
		break
	}
	return utf8.Valid(p)
}
