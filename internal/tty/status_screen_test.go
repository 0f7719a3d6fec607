package tty

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/charmbracelet/x/vt"
)

// screen is a terminal that shows what is written to it.
type screen struct {
	*vt.Emulator
}

func newScreen(cols, rows int) screen {
	s := screen{vt.NewEmulator(cols, rows)}
	s.shift()
	s.saveAll()
	return s
}

// field is a part of the emulator that it does not export. That it has one of
// this name is go.mod's to say, and a panic if not.
func (s screen) field(name string) reflect.Value {
	f := reflect.ValueOf(s.Emulator).Elem().FieldByName(name)
	return reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem()
}

// shift teaches the emulator SO and SI, which it does not know.
func (s screen) shift() {
	handlers, gl := s.field("ccHandlers"), s.field("gl")
	for control, set := range map[byte]int64{0x0e: 1, 0x0f: 0} {
		handler := reflect.ValueOf(func() bool {
			gl.SetInt(set)
			return true
		})
		list := handlers.Type().Elem()
		handlers.SetMapIndex(reflect.ValueOf(control), reflect.Append(reflect.Zero(list), handler.Convert(list.Elem())))
	}
}

// saveAll makes the emulator save with the cursor, and restore with it, what DEC's
// terminals and xterm do: the character sets, origin mode, and the wrap that is
// due. By itself it saves the position and the attributes only.
func (s screen) saveAll() {
	modes := s.field("modes")
	var origin reflect.Value // the key of the mode
	for _, mode := range modes.MapKeys() {
		if mode.Elem().Type().Name() == "DECMode" && mode.Elem().Int() == 6 {
			origin = mode
		}
	}
	fields := []reflect.Value{s.field("charsets"), s.field("gl"), s.field("gsingle"), s.field("atPhantom")}
	saved := map[bool][]reflect.Value{} // by whether it is the alternate screen
	s.RegisterEscHandler('7', func() bool {
		values := []reflect.Value{modes.MapIndex(origin)}
		for _, f := range fields {
			value := reflect.New(f.Type()).Elem()
			value.Set(f)
			values = append(values, value)
		}
		saved[s.IsAltScreen()] = values
		return false // the emulator does its part
	})
	s.RegisterEscHandler('8', func() bool {
		if values := saved[s.IsAltScreen()]; values != nil {
			modes.SetMapIndex(origin, values[0])
			for i, f := range fields {
				f.Set(values[i+1])
			}
		}
		return false
	})
}

// reset makes the screen as new.
func (s screen) reset() {
	s.print("\x18\x1bc")
	s.ClearScrollback()
}

func (s screen) print(text string) { _, _ = s.WriteString(text) } // fails only when closed

func (s screen) size() (cols, rows int, err error) { return s.Width(), s.Height(), nil }

// row returns what a row shows, rows counted from 0.
func (s screen) row(y int) string {
	var b strings.Builder
	for x := range s.Width() {
		b.WriteString(s.CellAt(x, y).Content)
	}
	return strings.TrimRight(b.String(), " ")
}

// differs says what is not the same on the first rows of two screens and about
// their cursors, or nothing.
func (s screen) differs(want screen, rows int) string {
	for y := range rows {
		for x := range s.Width() {
			if got, want := s.CellAt(x, y), want.CellAt(x, y); !got.Equal(want) {
				return fmt.Sprintf("row %d, column %d is %q %+v %+v, want %q %+v %+v", y+1, x+1,
					got.Content, got.Style, got.Link, want.Content, want.Style, want.Link)
			}
		}
	}
	if got, want := s.CursorPosition(), want.CursorPosition(); got != want {
		return fmt.Sprintf("the cursor is at %v, want %v", got, want)
	}
	if s.CursorHidden() != want.CursorHidden() {
		return fmt.Sprintf("the cursor is hidden: %v, want %v", s.CursorHidden(), want.CursorHidden())
	}
	return ""
}

// picture is what a full-screen program writes: its way to some state, and what
// it does on Ctrl-L there, which is clear and paint.
type picture struct {
	name   string
	output string
	redraw string
}

const (
	pictureCols = 44
	pictureRows = 12
)

// at is the sequence that moves the cursor, rows and columns counted from 1.
func at(row, col int) string { return fmt.Sprintf("\x1b[%d;%dH", row, col) }

func pictures() []picture {
	return []picture{editor(), monitor(), panes(), prompt()}
}

// editor writes as vim does: the alternate screen, modes, a title, a request,
// highlighted text with wide and combined characters, lines scrolled, inserted
// and deleted within margins, a status line in inverse video and a command line.
func editor() picture {
	lines := []string{
		"\x1b[38;5;130m  1 \x1b[m\x1b[34m// gr\u00fc\u00dfe\x1b[m",
		"\x1b[38;5;130m  2 \x1b[m\x1b[1;38;2;200;80;0mfunc\x1b[m main() {",
		"\x1b[38;5;130m  3 \x1b[m\tprintln(\x1b[31m\"\u65e5\u672c\u8a9e \U0001F600\"\x1b[m)",
		"\x1b[38;5;130m  4 \x1b[m}" + "\x1b[4;58;5;9m spel\x1b[m",
		"\x1b[94m~\x1b[m", "\x1b[94m~\x1b[m", "\x1b[94m~\x1b[m",
	}
	paint := "\x1b[?25l\x1b[m\x1b[H\x1b[2J"
	for i, line := range lines {
		paint += at(i+1, 1) + line
	}
	bar := at(11, 1) + "\x1b[7m" + fmt.Sprintf("%-*s", pictureCols, "notes.go [+]") + "\x1b[m"
	paint += bar + at(12, 1) + "\x1b[1m-- INSERT --\x1b[m" + at(2, 9) + "\x1b[?25h"
	output := "\x1b[?1049h\x1b[22;0;0t\x1b[>4;2m\x1b[?1h\x1b=\x1b[?2004h\x1b[1;12r\x1b[?12h\x1b[?12l" +
		"\x1b]2;notes.go (~) - VIM\a\x1bP+q436f\x1b\\\x1b[2 q" + paint +
		// Three lines scrolled up and one down, within margins.
		"\x1b[1;10r" + at(10, 1) + "\n\n\n" + "\x1b[H\x1bM" + "\x1b[1;12r" +
		at(3, 1) + "\x1b[L\x1b[32minserted\x1b[m" + at(5, 1) + "\x1b[2M" + at(2, 5) + "\x1b[3@abc\x1b[2P" +
		at(12, 1) + "\x1b[K\"notes.go\" 120L, 3456B" + at(4, 6) + "\x1b[6 q"
	return picture{"an editor", output, paint}
}

// monitor writes as htop does: bars, a table in colours to the last column, line
// drawing, characters repeated, keys on the bottom row, and small changes.
func monitor() picture {
	table := at(4, 1) + "\x1b[30;42m" + fmt.Sprintf("%-*s", pictureCols, "  PID USER      CPU% Command") + "\x1b[39;49m"
	for i, command := range []string{"/sbin/init", "amazon-ssm-agent", "caf\u00e9 \u6f22\u5b57", "htop"} {
		color := "\x1b[m"
		if i == 1 {
			color = "\x1b[30;46m"
		}
		table += at(5+i, 1) + color + fmt.Sprintf("%5d root %9.1f ", 100+i, 1.5*float64(i)) + command + "\x1b[K\x1b[m"
	}
	keys := at(12, 1)
	for i, key := range []string{"Help  ", "Setup ", "Search", "Filter", "Quit  "} {
		keys += fmt.Sprintf("\x1b[mF%d\x1b[30;46m%s", i+1, key)
	}
	keys += "\x1b[K\x1b[m"
	paint := "\x1b[H\x1b[2J" + at(1, 1) + "\x1b[36mCPU\x1b[1;39m[\x1b[22;32m|\x1b[12b\x1b[31m||\x1b[90m 42.0%\x1b[1;39m]\x1b[m" +
		at(2, 1) + "\x1b(0lq\x1b[20bk\x1b(B" + at(3, 1) + "\x1b)0\x0ex\x0f Tasks: \x1b[1m4\x1b[m" + table + keys + at(9, 1)
	output := "\x1b[?1049h\x1b[22;0;0t\x1b[1;12r\x1b(B\x1b[m\x1b[4l\x1b[?7h\x1b[?1h\x1b=\x1b[39;49m\x1b[?25l\x1b[?1000;1006h" + paint
	for i := range 3 {
		output += at(1, 5) + fmt.Sprintf("\x1b[32m|||\x1b[90m %2d.0%%\x1b[m", 40+i) + at(6, 12) + fmt.Sprintf("\x1b[30;46m%9.1f\x1b[m", 2.5*float64(i)) +
			at(4, pictureCols) + "\x1b[30;42m<\x1b[m" + at(9, 1)
	}
	return picture{"a monitor", output, paint}
}

// panes writes as tmux does: margins at the left and the right, lines scrolled
// between them, a status row below; and, as hardly anybody does, origin mode.
func panes() picture {
	border := ""
	for row := 1; row < pictureRows; row++ {
		border += at(row, 22) + "\x1b(0x\x1b(B"
	}
	bar := at(12, 1) + "\x1b[30;42m" + fmt.Sprintf("%-*s", pictureCols, "[0] 0:bash* 1:vim-") + "\x1b[m"
	paint := "\x1b[?6l\x1b[?69l\x1b[r\x1b[m\x1b(B\x0f\x1b[H\x1b[2J" + border + bar +
		at(1, 1) + "left \u65e5\u672c" + at(1, 23) + "\x1b[35mright\x1b[m" + at(3, 23)
	output := "\x1b[?1049h\x1b[?1000l" + paint + "\x1b[?69h\x1b[23;44s\x1b[1;11r" +
		at(11, 23) + "\n\none\x1b[33m two\x1b[m" + at(1, 23) + "\x1b[2M" +
		"\x1b[1;21s\x1b[3;9r\x1b[?6h" + at(1, 1) + "within\r\n\x1b(0qqq" + at(7, 1) + "\n\n\x1b(Bdown"
	return picture{"panes", output, paint}
}

// prompt writes as a shell and a package manager do on the main screen, which has
// a bar on its last row and saves the cursor for it.
func prompt() picture {
	output := "\x1b[?2004h\x1b]0;u@host: ~\a\x1b[01;32mu@host\x1b[m:\x1b[01;34m~\x1b[m$ apt install\r\n\x1b[?2004l"
	output += "\n\x1b7\x1b[0;11r\x1b8\x1b[1A"
	for i := range 5 {
		output += fmt.Sprintf("Unpacking p\u00e4ckchen%d ...\r\n", i) +
			fmt.Sprintf("\x1b7\x1b[12;0f\x1b[42m\x1b[30mProgress: [%3d%%]\x1b[49m\x1b[39m [%s]\x1b8", 20*i, strings.Repeat("#", 4*i)+strings.Repeat(".", 20-4*i))
	}
	output += "a line that is longer than the terminal is wide, and wraps\r\n"
	return picture{"a shell", output, "\x1b[r\x1b[m\x1b[H\x1b[2J\x1b[01;32mu@host\x1b[m:~$ "}
}

// cutAt says where an output was cut.
func cutAt(output string, cut int) string {
	return fmt.Sprintf("cut after %q and before %q", output[max(0, cut-12):cut], output[cut:min(len(output), cut+12)])
}

func TestScreenSavesAll(t *testing.T) {
	s := newScreen(8, 4)
	s.print("\x1b)0\x0e\x1b[2;3r\x1b[?6h\x1b[1mabcdefgq\x1b7" + "\x0f\x1b)B\x1b[?6l\x1b[m\x1b[4;1Hx" + "\x1b8" + "q")
	if got := s.row(0) + "/" + s.row(1); got != "▒␉␌␍␊°±─/─" {
		t.Errorf("after a saved and restored cursor the screen shows %q", got)
	}
}
