package tty

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

const notice = "reconnecting, 4 s ... ~. gives up"

// TestPicturesAfterRedraw cuts each program's output at every byte, shows the
// line and takes it away there, and compares what is on the screen after the rest
// and Ctrl-L with what an uncut run leaves.
func TestPicturesAfterRedraw(t *testing.T) {
	for _, p := range pictures() {
		t.Run(p.name, func(t *testing.T) {
			uncut, cutScreen := newScreen(pictureCols, pictureRows), newScreen(pictureCols, pictureRows)
			uncut.print(p.output + p.redraw)
			shown := 0
			for cut := range len(p.output) + 1 {
				cutScreen.reset()
				s := NewStatusLine(cutScreen, cutScreen.size)
				writeAll(t, s, p.output[:cut])
				s.Show("reconnecting ...")
				s.Show(notice)
				if cutScreen.row(pictureRows-1) == notice {
					shown++
				}
				if cut%2 == 0 {
					s.Show("")
				}
				writeAll(t, s, p.output[cut:])
				writeAll(t, s, p.redraw)
				if diff := cutScreen.differs(uncut, pictureRows); diff != "" {
					t.Fatalf("%s: %s", cutAt(p.output, cut), diff)
				}
			}
			if shown < len(p.output)/4 {
				t.Errorf("the line was shown at %d of %d places only", shown, len(p.output))
			}
			t.Logf("shown at %d of %d places", shown, len(p.output)+1)
		})
	}
}

// TestPicturesMeanwhile looks at the screen while the line is shown: all but the
// bottom row is as it was.
func TestPicturesMeanwhile(t *testing.T) {
	for _, p := range pictures() {
		t.Run(p.name, func(t *testing.T) {
			plain, lined := newScreen(pictureCols, pictureRows), newScreen(pictureCols, pictureRows)
			for cut := range len(p.output) {
				plain.print(p.output[cut : cut+1])
				lined.reset()
				writes := &counter{w: lined}
				s := NewStatusLine(writes, lined.size)
				writeAll(t, s, p.output[:cut+1])
				writes.n = 0
				s.Show(notice)
				if !s.seen.complete() {
					if writes.n > 0 {
						t.Fatalf("%s: something is written within a sequence or a character", cutAt(p.output, cut+1))
					}
					continue
				}
				if diff := lined.differs(plain, pictureRows-1); diff != "" {
					t.Fatalf("%s: %s", cutAt(p.output, cut+1), diff)
				}
				if got := lined.row(pictureRows - 1); got != notice {
					t.Fatalf("%s: the bottom row shows %q", cutAt(p.output, cut+1), got)
				}
			}
		})
	}
}

// counter counts the bytes that go through it.
type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += len(p)
	return c.w.Write(p)
}

func writeAll(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if n, err := io.WriteString(w, text); n != len(text) || err != nil {
		t.Fatalf("of %d bytes %d were written, %v", len(text), n, err)
	}
}

// things are what a program's output is made of, each whole. Not among them is
// what StatusLine says that it spoils: the program's saved cursor, combining
// marks and repetitions.
var things = []string{
	"a", "W", " ", "q", "~", "\u00e9", "\u65e5", "\U0001F600", "some text of the width of a row and more. ",
	"\r", "\n", "\r\n", "\b", "\t", "\a", "\x7f",
	"\x1b[H", "\x1b[3;5H", "\x1b[6;1H", "\x1b[5;20H", "\x1b[99;99H", "\x1b[A", "\x1b[2B", "\x1b[3C", "\x1b[2D", "\x1b[4G", "\x1b[2d",
	"\x1b[J", "\x1b[1J", "\x1b[2J", "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[3X",
	"\x1b[L", "\x1b[2M", "\x1b[2@", "\x1b[P", "\x1b[S", "\x1b[T", "\x1bM", "\x1bD", "\x1bE", "\x1bH", "\x1b[3g",
	"\x1b[m", "\x1b[1m", "\x1b[7m", "\x1b[27m", "\x1b[4:3m", "\x1b[31m", "\x1b[44m", "\x1b[38;5;130m", "\x1b[48;2;9;8;7m", "\x1b[39;49m",
	"\x1b[2;4r", "\x1b[r", "\x1b[1;5r", "\x1b[?6h", "\x1b[?6l", "\x1b[?7h", "\x1b[?7l", "\x1b[?69h", "\x1b[?69l", "\x1b[3;9s",
	"\x1b[4h", "\x1b[4l", "\x1b[?25l", "\x1b[?25h", "\x1b[?1h", "\x1b[?2004h", "\x1b[?1049h", "\x1b[?1049l", "\x1b[?47h", "\x1b[2 q",
	"\x1b(0", "\x1b(B", "\x1b)0", "\x1b)B", "\x1b*0", "\x0e", "\x0f", "\x1bn", "\x1bo", "\x1bNx",
	"\x1b]2;title\a", "\x1b]8;;http://example.com\x1b\\", "\x1b]8;;\x1b\\", "\x1bPq#0~\x1b\\", "\x1b_x\x1b\\", "\x1b^x\x1b\\", "\x1bXx\x1b\\",
	"\x1b[3\x18", "\x1b]2;cut\x18", "\x1b#8", "\x1b=", "\x1bc",
}

// checkLeavesTheRest shows the line and takes it away before the thing at each
// cut, and compares with a terminal on which the bottom row was cleared by hand
// in the same places: whatever comes after, all cells and the cursor are equal.
func checkLeavesTheRest(t *testing.T, plain, lined screen, choices []byte, cuts uint64) {
	t.Helper()
	plain.reset()
	lined.reset()
	s := NewStatusLine(lined, lined.size)
	var output strings.Builder
	for i, choice := range choices {
		if cuts>>(i%64)&1 == 1 {
			s.Show(notice)
			want := strings.TrimRight(notice[:min(len(notice), plain.Width()-1)], " ")
			if got := lined.row(lined.Height() - 1); got != want {
				t.Fatalf("after %q the bottom row shows %q, want %q", output.String(), got, want)
			}
			for x := range plain.Width() {
				plain.SetCell(x, plain.Height()-1, nil)
			}
			output.WriteString("<line>")
		}
		thing := things[int(choice)%len(things)]
		output.WriteString(thing)
		plain.print(thing)
		writeAll(t, s, thing)
		if diff := lined.differs(plain, lined.Height()); diff != "" {
			t.Fatalf("after %q: %s", output.String(), diff)
		}
	}
}

func FuzzStatusLineLeavesTheRest(f *testing.F) {
	f.Add([]byte("some bytes to choose by"), uint64(0x5555))
	f.Add([]byte{8, 61, 18, 0, 0}, uint64(0x1f))
	plain, lined := newScreen(23, 6), newScreen(23, 6)
	f.Fuzz(func(t *testing.T, choices []byte, cuts uint64) {
		checkLeavesTheRest(t, plain, lined, choices[:min(len(choices), 500)], cuts)
	})
}

func TestStatusLineLeavesTheRest(t *testing.T) {
	plain, lined := newScreen(23, 6), newScreen(23, 6)
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 5))
		choices := make([]byte, 60)
		for i := range choices {
			choices[i] = byte(random.IntN(len(things)))
		}
		checkLeavesTheRest(t, plain, lined, choices, random.Uint64()&random.Uint64())
	}
}

func TestShow(t *testing.T) {
	for _, tt := range []struct {
		name       string
		cols, rows int
		text, want string
	}{
		{"the bottom row", 40, 5, "reconnecting", "reconnecting"},
		{"cut to one column less", 10, 5, "reconnecting", "reconnect"},
		{"as long as fits", 13, 5, "reconnecting", "reconnecting"},
		{"an ellipsis", 40, 5, "4 s … ~. gives up", "4 s ... ~. gives up"},
		{"an ellipsis, cut", 7, 5, "4 s … ~.", "4 s .."},
		{"no ASCII", 40, 5, "né 日", "n? ?"},
		{"no UTF-8", 40, 5, "a\xffb", "a?b"},
		{"control characters", 40, 5, "a\x1b[2Jb\r\nc\x7f", "a?[2Jb??c?"},
		{"two columns", 2, 5, "reconnecting", "r"},
		{"one column", 1, 5, "reconnecting", ""},
		{"one row", 40, 1, "reconnecting", "reconnecting"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newScreen(tt.cols, tt.rows)
			NewStatusLine(e, e.size).Show(tt.text)
			if got := e.row(tt.rows - 1); got != tt.want {
				t.Errorf("on %d by %d the line %q shows as %q, want %q", tt.cols, tt.rows, tt.text, got, tt.want)
			}
			if tt.want != "" && e.CellAt(0, tt.rows-1).Style.Attrs == 0 {
				t.Error("the line is not in inverse video")
			}
		})
	}
}

func TestShowReplacesAndErases(t *testing.T) {
	e := newScreen(40, 5)
	writes := &counter{w: e}
	s := NewStatusLine(writes, e.size)
	bottom := func(when, want string) {
		t.Helper()
		if got := e.row(4); got != want {
			t.Errorf("%s the bottom row shows %q, want %q", when, got, want)
		}
	}
	s.Show("")
	if writes.n > 0 {
		t.Error("nothing to erase, but something is written")
	}
	writeAll(t, s, "$ ls\x1b[5;1Hbottom\x1b[2;3H")
	s.Show("a long line of ours")
	bottom("with a line", "a long line of ours")
	s.Show("short")
	bottom("with another line", "short")
	writes.n = 0
	s.Show("short")
	if writes.n > 0 {
		t.Error("the same line is drawn again")
	}
	s.Show("")
	bottom("with the line erased", "")
	s.Show("again")
	writeAll(t, s, "x")
	bottom("after output", "")
	if got := e.row(1); got != "  x" {
		t.Errorf("the output goes to %q", got)
	}
	writes.n = 0
	s.Show("")
	if writes.n > 0 {
		t.Error("the line is erased twice")
	}
}

func TestShowWaitsForTheEndOfASequence(t *testing.T) {
	e := newScreen(40, 5)
	s := NewStatusLine(e, e.size)
	for _, part := range []string{"\x1b", "[3", "1", "mred \xe6", "\x97"} {
		writeAll(t, s, part)
		s.Show(notice)
		if got := e.row(4); got != "" {
			t.Fatalf("after %q the line is shown: %q", part, got)
		}
	}
	writeAll(t, s, "\xa5")
	if got := e.row(4); got != "" {
		t.Errorf("a line that could not be shown was kept: %q", got)
	}
	s.Show(notice)
	if got := e.row(4); got != notice {
		t.Errorf("at the end the bottom row shows %q", got)
	}
}

// TestShowAfterResize covers both ways that terminals have of changing the number
// of rows: the top row stays where it is, or the bottom row does.
func TestShowAfterResize(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rows  int  // before: 6
		moved bool // the bottom row moves with the bottom
		want  string
	}{
		{"more rows below", 9, false, "1/2/3/4/5////"},
		{"more rows above", 9, true, "///1/2//4/5/"},  // less the row where the line might have been
		{"fewer rows, cut below", 4, false, "1/2/3/"}, // less the row where it might be
		{"fewer rows, cut above", 4, true, "3/4/5/"},
	} {
		for _, how := range []string{"output", "nothing", "another line"} {
			t.Run(tt.name+", then "+how, func(t *testing.T) {
				e := newScreen(30, 6)
				s := NewStatusLine(e, e.size)
				writeAll(t, s, "1\r\n2\r\n3\r\n4\r\n5\r\n")
				s.Show("line")
				resize(e, tt.rows, tt.moved)
				want := tt.want
				switch how {
				case "output":
					writeAll(t, s, "\a")
				case "nothing":
					s.Show("")
				case "another line":
					s.Show("line")
					want += "line"
				}
				var rows []string
				for y := range tt.rows {
					rows = append(rows, e.row(y))
				}
				if got := strings.Join(rows, "/"); got != want {
					t.Errorf("the rows show %q, want %q", got, want)
				}
			})
		}
	}
}

func resize(e screen, rows int, moved bool) {
	more := rows - e.Height()
	if moved && more < 0 {
		e.print("\x1b7\x1b[6;1H" + strings.Repeat("\n", -more) + "\x1b8")
	}
	e.Resize(e.Width(), rows)
	if moved && more > 0 {
		e.print("\x1b7\x1b[H" + strings.Repeat("\x1bM", more) + "\x1b8")
	}
}

func TestShowWithoutSize(t *testing.T) {
	var out bytes.Buffer
	var err error
	s := NewStatusLine(&out, func() (int, int, error) { return 40, 5, err })
	err = ErrNotTerminal
	s.Show(notice)
	if out.Len() > 0 {
		t.Errorf("without a size %q is written", out.String())
	}
	for _, how := range []string{"output", "another line"} {
		err = nil
		s.Show(notice)
		err = ErrNotTerminal
		out.Reset()
		if how == "output" {
			writeAll(t, s, "x")
		} else {
			s.Show("another")
		}
		if got := out.String(); !strings.Contains(got, "\x1b[5;1H\x1b[m\x1b[2K") || strings.Contains(got, "a") {
			t.Errorf("with the size gone and %s there is written %q, want the line erased where it was", how, got)
		}
	}
}

// TestLineMovesByAddressesOnly keeps the line from depending on anything that
// moves the cursor or the screen by itself: no line feed, and no character that is
// not put in its place, for the emulator of these tests, unlike others, wraps no
// text at a right margin (DECLRMM).
func TestLineMovesByAddressesOnly(t *testing.T) {
	var out bytes.Buffer
	s := NewStatusLine(&out, func() (int, int, error) { return 12, 5, nil })
	s.Show("reconnecting")
	rest := out.String()
	for i, c := range "reconnectin" {
		var found bool
		if _, rest, found = strings.Cut(rest, at(5, i+1)+string(c)); !found {
			t.Errorf("%q at column %d has no address of its own in %q", c, i+1, out.String())
		}
	}
	if rest != "\x1b8" {
		t.Errorf("after the last column but one there is still %q", rest)
	}
	s.Show("")
	if strings.ContainsAny(out.String(), "\n\v\f\r") {
		t.Errorf("the line moves by more than addresses: %q", out.String())
	}
}

// failing takes so many bytes.
type failing struct{ left int }

var errFull = errors.New("full")

func (f *failing) Write(p []byte) (int, error) {
	if f.left < len(p) {
		n := f.left
		f.left = 0
		return n, errFull
	}
	f.left -= len(p)
	return len(p), nil
}

func TestWriteErrors(t *testing.T) {
	size := func() (int, int, error) { return 40, 5, nil }
	out := &failing{left: 3}
	s := NewStatusLine(out, size)
	if n, err := s.Write([]byte("ab\x1b[m")); n != 3 || !errors.Is(err, errFull) {
		t.Errorf("of a write that is cut short %d bytes were written, %v", n, err)
	}
	if s.seen.complete() {
		t.Error("what was not written is taken for written")
	}
	for _, how := range []string{"the line is erased", "there is no line"} {
		out.left = 1000
		s = NewStatusLine(out, size)
		s.Show(notice)
		out.left = 0
		if how == "there is no line" {
			s.Show("") // fails, and has nobody to tell
		}
		if n, err := s.Write([]byte("abc")); n != 0 || !errors.Is(err, errFull) {
			t.Errorf("on a terminal that has gone, where %s, %d bytes were written, %v", how, n, err)
		}
	}
}

// stuck takes nothing until it is let go.
type stuck struct {
	entered, release chan struct{}
	bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	s.entered <- struct{}{}
	<-s.release
	return s.Buffer.Write(p)
}

func TestShowDoesNotWaitForWrite(t *testing.T) {
	out := &stuck{entered: make(chan struct{}), release: make(chan struct{})}
	s := NewStatusLine(out, func() (int, int, error) { return 40, 5, nil })
	var writing sync.WaitGroup
	writing.Go(func() { writeAll(t, s, "output") })
	<-out.entered
	s.Show(notice) // would wait for ever
	s.Show("")
	close(out.release)
	writing.Wait()
	if got := out.String(); got != "output" {
		t.Errorf("the terminal got %q, want the output alone", got)
	}
}

func TestShowWhileOutputFlows(t *testing.T) {
	e := newScreen(40, 6)
	s := NewStatusLine(e, e.size)
	done := make(chan struct{})
	var showing sync.WaitGroup
	showing.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				s.Show(notice)
				s.Show("")
			}
		}
	})
	output := strings.Repeat("\x1b[31mr\x1b[32mg\x1b[m\u65e5\x1b]2;t\a\x1b[H", 200)
	for i := range len(output) {
		writeAll(t, s, output[i:i+1])
	}
	close(done)
	showing.Wait()
	s.Show("")
	want := newScreen(40, 6)
	want.print(output)
	if diff := e.differs(want, 6); diff != "" {
		t.Errorf("output with the line shown and erased in between leaves another screen: %s", diff)
	}
}
