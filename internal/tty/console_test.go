package tty

import (
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
	"unicode/utf16"
	"unicode/utf8"
)

// typedAt is a console at which the given reads find the given code units, and
// after them an error.
func typedAt(reads [][]uint16, end error) *consoleReader {
	return &consoleReader{read: func(units []uint16) (int, error) {
		if len(reads) == 0 {
			return 0, end
		}
		n := copy(units, reads[0])
		reads = reads[1:]
		return n, nil
	}}
}

func TestConsoleReader(t *testing.T) {
	const high, low = 0xd83d, 0xde00 // U+1F600
	for _, tt := range []struct {
		name  string
		reads [][]uint16
		want  string
	}{
		{"keys", [][]uint16{{'l', 's'}, {'\r'}}, "ls\r"},
		{"Ctrl-Z is a key", [][]uint16{{0x1a}, {'f', 'g', 0x1a, '\r'}}, "\x1afg\x1a\r"},
		{"so is Ctrl-@", [][]uint16{{0}}, "\x00"},
		{"a VT sequence", [][]uint16{{0x1b, '[', 'A'}}, "\x1b[A"},
		{"two bytes", [][]uint16{{'é'}}, "é"},
		{"three bytes", [][]uint16{{'€', 'x'}}, "€x"},
		{"a surrogate pair", [][]uint16{{'a', high, low, 'b'}}, "a😀b"},
		{"a pair across reads", [][]uint16{{'a', high}, {low, 'b'}}, "a😀b"},
		{"a pair across a read that was broken off", [][]uint16{{high}, {}, {low}}, "😀"},
		{"pairs, each half by itself", [][]uint16{{high}, {low}, {high}, {low}}, "😀😀"},
		{"a high half without its low one", [][]uint16{{high, 'x'}}, "\ufffdx"},
		{"a high half without its low one, across reads", [][]uint16{{high}, {'x'}}, "\ufffdx"},
		{"a high half before a pair", [][]uint16{{high, high, low}}, "\ufffd😀"},
		{"a low half alone", [][]uint16{{low, 'x'}}, "\ufffdx"},
		{"halves the wrong way round", [][]uint16{{low, high}, {'x'}}, "\ufffd\ufffdx"},
		{"the replacement character itself", [][]uint16{{high, 0xfffd}}, "\ufffd\ufffd"},
		{"reads that were broken off", [][]uint16{{}, {}, {'a'}, {}, {'b'}}, "ab"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for size, read := range map[string]func(io.Reader) io.Reader{
				"a byte": iotest.OneByteReader,
				"some":   iotest.HalfReader,
				"many":   func(r io.Reader) io.Reader { return r },
			} {
				got, err := io.ReadAll(read(typedAt(tt.reads, io.EOF)))
				if string(got) != tt.want || err != nil {
					t.Errorf("read %s at a time it gives %q, %v; want %q", size, got, err, tt.want)
				}
			}
		})
	}
}

func TestConsoleReaderTellsTheErrorAfterTheKeys(t *testing.T) {
	gone := errors.New("the console has gone")
	r := typedAt([][]uint16{{'a'}}, gone)
	got, err := io.ReadAll(r)
	if string(got) != "a" || !errors.Is(err, gone) {
		t.Errorf("the console gives %q, %v; want the key and then the error", got, err)
	}
}

func TestConsoleReaderOfNothingDoesNotWait(t *testing.T) {
	r := &consoleReader{read: func([]uint16) (int, error) {
		t.Error("the console is read for a caller that has no room")
		return 0, io.EOF
	}}
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("a read without room gives %d, %v; want nothing", n, err)
	}
}

func TestConsoleReaderAsksForMany(t *testing.T) {
	pasted := slices.Repeat([]uint16{'x'}, consoleUnits)
	r := typedAt([][]uint16{pasted}, io.EOF)
	if n, err := r.Read(make([]byte, 2*consoleUnits)); n != consoleUnits || err != nil {
		t.Errorf("the first read of a paste gives %d bytes, %v; want %d", n, err, consoleUnits)
	}
}

// FuzzUTF16Decoder holds that pieces make no difference, that the text is what
// the standard library decodes, and that it is UTF-8.
func FuzzUTF16Decoder(f *testing.F) {
	f.Add([]byte("\x00l\x00s\xd8\x3d\xde\x00"), uint64(0b100))
	f.Add([]byte("\xd8\x3d\xd8\x3d\xde\x00\xde\x00"), uint64(0b1111))
	f.Add([]byte("\xff\xfd\xdb\xff\xdf\xff"), ^uint64(0))
	f.Fuzz(func(t *testing.T, data []byte, cuts uint64) {
		var units []uint16
		for ; len(data) > 1; data = data[2:] {
			units = append(units, uint16(data[0])<<8|uint16(data[1]))
		}
		var d utf16Decoder
		var got []byte
		start := 0
		for i := range units {
			if cuts>>(i%64)&1 == 1 {
				got = d.append(got, units[start:i])
				start = i
			}
		}
		got = d.append(got, units[start:])
		if d.high != 0 { // it still waits for its other half
			units = units[:len(units)-1]
		}
		if want := string(utf16.Decode(units)); string(got) != want {
			t.Fatalf("%#x is decoded as %q, want %q", units, got, want)
		}
		if !utf8.Valid(got) {
			t.Fatalf("%#x is decoded as %q, which is no UTF-8", units, got)
		}
	})
}
