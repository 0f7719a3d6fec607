package tty

import (
	"unicode/utf16"
	"unicode/utf8"
)

// consoleUnits is how much is asked of a console at once, in UTF-16 code units.
// Windows refuses much above 16000.
const consoleUnits = 4096

// consoleReader reads a console of Windows as UTF-8. It knows nothing of
// Windows itself, so that it is tested everywhere.
type consoleReader struct {
	// read fills units with at least one code unit, or returns an error; or
	// neither, when it was broken off.
	read    func(units []uint16) (int, error)
	units   []uint16
	decoder utf16Decoder
	buf     []byte // decoded
	pending []byte // the part of buf that nobody has read yet
}

func (r *consoleReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.units == nil {
		r.units = make([]uint16, consoleUnits)
	}
	// Half a character gives no bytes and waits for its other half.
	for len(r.pending) == 0 {
		n, err := r.read(r.units)
		if err != nil {
			return 0, err
		}
		r.buf = r.decoder.append(r.buf[:0], r.units[:n])
		r.pending = r.buf
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	return n, nil
}

// utf16Decoder turns UTF-16 into UTF-8 in pieces of any size.
type utf16Decoder struct {
	high rune // a high surrogate that waits for its low one, or 0
}

// append appends the text of units to dst. The first half of a surrogate pair
// at their end waits for the next call; a half without the other is U+FFFD.
func (d *utf16Decoder) append(dst []byte, units []uint16) []byte {
	for _, unit := range units {
		r := rune(unit)
		if d.high != 0 {
			pair := utf16.DecodeRune(d.high, r)
			d.high = 0
			dst = utf8.AppendRune(dst, pair) // U+FFFD when they are no pair
			if pair != utf8.RuneError {
				continue
			}
		}
		const firstLow = 0xdc00
		if utf16.IsSurrogate(r) && r < firstLow {
			d.high = r
			continue
		}
		dst = utf8.AppendRune(dst, r) // U+FFFD for a low surrogate
	}
	return dst
}
