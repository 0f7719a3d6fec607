package tty

import (
	"fmt"
	"io"
	"sync"
)

// StatusLine stands between a session and the terminal, and shows one line of
// ours at the bottom for a while: "reconnecting, 4 s ... ~. gives up". All of the
// session's output goes through Write; the next output takes the line away.
//
// The line leaves the terminal as it was, but for what follows, which a program
// mends when it paints anew, as most do for Ctrl-L:
//
//   - What stood on the bottom row is gone. Nothing asks a terminal what it shows.
//   - So is the cursor that the program had saved with ESC 7, for there is one
//     place for it, and ours goes there. Saved and restored with it are the
//     attributes, the character sets and origin mode. The wrap that is due after a
//     character in the last column belongs there, too, but not every terminal
//     saves it: on tmux 3.3a the next character takes that one's place.
//   - A combining mark, or the count for a character to be repeated (REP), misses
//     its character when the line came between the two. The character was
//     complete by itself, and nobody knows what comes next.
//
// It is for terminals that know control sequences, as all do but those that call
// themselves "dumb".
//
// Write is for one goroutine at a time, and Show for another.
type StatusLine struct {
	out  io.Writer
	size func() (cols, rows int, err error)

	mu   sync.Mutex // held while writing to out; guards what follows
	seen ground     // of the session's output
	row  int        // where the line is, counted from 1; 0: nowhere
	text string     // the line, as it is drawn
}

// NewStatusLine returns a StatusLine that writes to out, a terminal of that size,
// and shows nothing. Nobody else writes to the terminal meanwhile. Terminal.Size
// is a size to give it, and the writer of NewWriter an out.
func NewStatusLine(out io.Writer, size func() (cols, rows int, err error)) *StatusLine {
	return &StatusLine{out: out, size: size}
}

// Write writes the session's output to the terminal, after erasing the line when
// there is one. An error is the terminal's; n counts bytes of p only.
func (s *StatusLine) Write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.row > 0 {
		_, rows, err := s.size()
		if err != nil {
			rows = s.row // nothing better is known
		}
		if _, err := s.out.Write(append(s.erase([]byte(saveCursor), rows), restoreCursor...)); err != nil {
			return 0, err
		}
		s.row, s.text = 0, ""
	}
	n, err = s.out.Write(p)
	s.seen.feed(p[:n])
	return n, err
}

// Show draws text in place of the line before; "" erases it. The text is cut to
// one column less than the terminal has. It is shown in ASCII, whose width all
// terminals agree on: an ellipsis as three full stops, anything else as "?".
//
// It draws nothing, and the text is forgotten, while the session's output is in
// the midst of a character or a control sequence, and while nobody knows the
// terminal's size. Whoever wants it shown all the same calls Show again, as a
// line that counts seconds does anyway.
//
// Show does not wait for a Write, not even for one that the terminal takes no
// bytes of: then it does nothing, for Write has erased the line. Nor does it
// write to a writer of NewWriter that says it would have to wait (not on
// Windows). What is left is a terminal that stops within the line, some hundred
// bytes: Show then waits, and Write behind it. So nothing that has to go on may
// wait for Show.
//
// An error is dropped: the next Write meets it again.
func (s *StatusLine) Show(text string) {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	if w, ok := s.out.(interface{ full() bool }); !s.seen.complete() || ok && w.full() {
		return
	}
	cols, rows, err := s.size()
	if err != nil {
		cols, rows = 0, s.row // an old line can go, a new one cannot come
	}
	text = cells(text, cols-1)
	row := rows
	if text == "" {
		row = 0
	}
	if row == s.row && text == s.text {
		return
	}
	draw := []byte(saveCursor)
	if s.row > 0 {
		draw = s.erase(draw, rows)
	}
	if row > 0 {
		draw = appendLine(draw, row, text)
	}
	s.row, s.text = row, text
	_, _ = s.out.Write(append(draw, restoreCursor...)) // the next Write meets the error again
}

// What every change of the line begins and ends with. Origin mode goes because
// rows count from the top margin in it and the bottom row may be out of reach.
const (
	saveCursor    = "\x1b7\x1b[?6l" // DECSC, DECOM off
	restoreCursor = "\x1b8"         // DECRC, which restores DECOM, too
)

// erase appends to b what clears the line on a terminal that has rows now.
//
// When it had another number as the line was drawn, the line is either where it
// was, as on a screen whose top row stays in place, or at the bottom, as where
// lines of the past come back at the top. Nobody can tell which, so both rows are
// cleared: programs paint anew for a new size, and a line of ours left behind
// would stay for good.
func (s *StatusLine) erase(b []byte, rows int) []byte {
	b = clearRow(b, rows)
	if s.row < rows {
		b = clearRow(b, s.row)
	}
	return b
}

// clearRow appends what clears a row with the default attributes, and leaves the
// cursor at its start.
func clearRow(b []byte, row int) []byte {
	return fmt.Appendf(b, "\x1b[%d;1H\x1b[m\x1b[2K", row)
}

// appendLine appends what draws text on a row, in inverse video and in ASCII,
// whatever set the program had chosen.
//
// Each character is put in its place by itself: between left and right margins
// (DECLRMM, which tmux uses) a text would wrap at the right one, and scroll what
// is between them. Turning the wrapping off instead could not be undone, for
// ESC 8 does not restore it everywhere.
func appendLine(b []byte, row int, text string) []byte {
	b = append(clearRow(b, row), "\x0f\x1b(B\x1b[7m"...)
	for i := range len(text) {
		b = fmt.Appendf(b, "\x1b[%d;%dH%c", row, i+1, text[i])
	}
	return b
}

// cells returns the part of text that fits into n cells, in ASCII.
func cells(text string, n int) string {
	var b []byte
	for _, r := range text {
		switch {
		case r == '…':
			b = append(b, "..."...)
		case r >= ' ' && r < ctlDEL:
			b = append(b, byte(r))
		default:
			b = append(b, '?')
		}
	}
	return string(b[:min(len(b), max(n, 0))])
}
