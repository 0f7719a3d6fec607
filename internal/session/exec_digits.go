package session

import (
	"errors"
	"fmt"
	"io"
)

// digits decodes base64 or hexadecimal digits as they come. They come in chunks,
// of which each is padded by itself; space between and inside chunks means
// nothing. What is decoded goes to out before an error is told.
type digits struct {
	out   io.Writer
	value [256]byte
	bits  uint // of a digit
	group int  // digits that make whole bytes

	word uint32 // of the digits of a group that is not complete
	n    int    // how many they are
	due  bool   // one more = must follow
	buf  []byte
}

// What value says of a byte that is not a digit.
const (
	padding = 0x40 + iota
	space
	foreign
)

// decodeBuffer is how much is decoded before it is passed on, in bytes.
const decodeBuffer = 24 << 10

func newBase64(out io.Writer) *digits {
	return newDigits(out, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 6, 4)
}

func newHex(out io.Writer) *digits {
	d := newDigits(out, "0123456789abcdef", 4, 2)
	for i := range 6 {
		d.value['A'+i] = d.value['a'+i]
	}
	d.value['='] = foreign
	return d
}

func newDigits(out io.Writer, alphabet string, bits uint, group int) *digits {
	d := &digits{out: out, bits: bits, group: group, buf: make([]byte, 0, decodeBuffer)}
	for i := range d.value {
		d.value[i] = foreign
	}
	for i := range len(alphabet) {
		d.value[alphabet[i]] = byte(i)
	}
	d.value['='] = padding
	for _, c := range []byte(" \t\r\n") {
		d.value[c] = space
	}
	return d
}

// Write takes the digits that come next.
func (d *digits) Write(p []byte) (int, error) {
	size := len(p)
	for len(p) > 0 {
		if d.n == 0 && !d.due && d.group == 4 {
			p = p[d.quanta(p):]
		}
		if len(p) == 0 {
			break
		}
		if err := d.digit(p[0]); err != nil {
			return 0, d.passThen(err)
		}
		p = p[1:]
		if len(d.buf) > decodeBuffer-4 {
			if err := d.passThen(nil); err != nil {
				return 0, err
			}
		}
	}
	return size, d.passThen(nil)
}

// quanta decodes groups of four digits while there is nothing else and room for
// what they make, and tells how many bytes they were.
func (d *digits) quanta(p []byte) int {
	n := 0
	for ; n+4 <= len(p) && len(d.buf) <= decodeBuffer-4; n += 4 {
		q := p[n : n+4 : n+4]
		a, b, c, e := d.value[q[0]], d.value[q[1]], d.value[q[2]], d.value[q[3]]
		if a|b|c|e >= padding {
			break
		}
		d.buf = append(d.buf, a<<2|b>>4, b<<4|c>>2, c<<6|e)
	}
	return n
}

// digit decodes one byte.
func (d *digits) digit(c byte) error {
	v := d.value[c]
	switch {
	case v == space:
	case v == padding:
		return d.pad()
	case v == foreign, d.due:
		return fmt.Errorf("%q is no digit of what is encoded here", c)
	default:
		d.word = d.word<<d.bits | uint32(v)
		if d.n++; d.n == d.group {
			d.bytes(0)
		}
	}
	return nil
}

// pad ends a chunk.
func (d *digits) pad() error {
	switch {
	case d.due:
		d.due = false
	case d.n == 2:
		d.word <<= 2 * d.bits
		d.bytes(2)
		d.due = true
	case d.n == 3:
		d.word <<= d.bits
		d.bytes(1)
	default:
		return errors.New("there is a = that ends nothing")
	}
	return nil
}

// bytes gives the bytes of a group but for the last, which were padding.
func (d *digits) bytes(padded int) {
	for shift := d.group * int(d.bits); shift > 8*padded; {
		shift -= 8
		d.buf = append(d.buf, byte(d.word>>shift))
	}
	d.word, d.n = 0, 0
}

// end tells that a chunk must be complete.
func (d *digits) end() error {
	if d.n > 0 || d.due {
		d.n, d.word, d.due = 0, 0, false
		return errors.New("it ends in the middle of a byte")
	}
	return nil
}

// passThen passes on what is decoded and gives the error of that, or else err.
func (d *digits) passThen(err error) error {
	if len(d.buf) > 0 {
		_, writeErr := d.out.Write(d.buf)
		d.buf = d.buf[:0]
		if writeErr != nil {
			return writeErr
		}
	}
	return err
}
