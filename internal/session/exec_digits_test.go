package session

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestDigits(t *testing.T) {
	for _, c := range []struct {
		what      string
		hex       bool
		sent      string
		want, err string
	}{
		{what: "nothing", sent: ""},
		{what: "a group", sent: "YWJj", want: "abc"},
		{what: "padding of one", sent: "YWI=", want: "ab"},
		{what: "padding of two", sent: "YQ==", want: "a"},
		{what: "chunks, each padded", sent: "YQ==YWI=YWJjYQ==", want: "aababca"},
		{what: "space anywhere", sent: " Y\nQ=\r\n=\tYW Jj\n", want: "aabc"},
		{what: "every digit", sent: "+/+/AZaz09==", want: "\xfb\xff\xbf\x01\x96\xb3\xd3"},
		{what: "a byte that is no digit", sent: "YWJjYQ*=", want: "abc", err: "'*'"},
		{what: "a byte that is no digit, first", sent: "(YWJj", err: "'('"},
		{what: "a byte above 127", sent: "YWJj\x80", want: "abc", err: `'\u0080'`},
		{what: "padding of nothing", sent: "YWJj=", want: "abc", err: "ends nothing"},
		{what: "padding of one digit", sent: "YWJjY=", want: "abc", err: "ends nothing"},
		{what: "half of the padding", sent: "YQ=", want: "a", err: "middle"},
		{what: "a digit in the padding", sent: "YQ=YWJj", want: "a", err: "'Y'"},
		{what: "the end in a group", sent: "YWJjYW", want: "abc", err: "middle"},
		{what: "hexadecimal digits", hex: true, sent: " 61 6A\n6a 00ff", want: "ajj\x00\xff"},
		{what: "half a byte", hex: true, sent: "616", want: "a", err: "middle"},
		{what: "padding of hexadecimal digits", hex: true, sent: "61=", want: "a", err: "'='"},
		{what: "a letter too far", hex: true, sent: "6g", err: "'g'"},
	} {
		t.Run(c.what, func(t *testing.T) {
			for n := 1; n <= len(c.sent)+1; n++ {
				got, err := decoded(c.hex, c.sent, n)
				if got != c.want {
					t.Errorf("in pieces of %d: %q, want %q", n, got, c.want)
				}
				if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
					t.Errorf("in pieces of %d: the error is %v, want one with %q", n, err, c.err)
				}
			}
		})
	}
}

// decoded decodes s in pieces of n bytes, and tells what is wrong at its end.
func decoded(isHex bool, s string, n int) (string, error) {
	var out bytes.Buffer
	d := newBase64(&out)
	if isHex {
		d = newHex(&out)
	}
	for len(s) > 0 {
		piece := s[:min(n, len(s))]
		s = s[len(piece):]
		if _, err := d.Write([]byte(piece)); err != nil {
			return out.String(), err
		}
	}
	return out.String(), d.end()
}

// random is n bytes that are the same in each run.
func random(n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{1})
	_, _ = src.Read(b) // never fails
	return b
}

// lines breaks s as base64(1) does.
func lines(s string) string {
	var b strings.Builder
	for len(s) > 76 {
		b.WriteString(s[:76] + "\n")
		s = s[76:]
	}
	return b.String() + s + "\n"
}

func TestDigitsOfMuch(t *testing.T) {
	want := random(200_001)
	for what, c := range map[string]struct {
		hex  bool
		sent string
	}{
		"base64 in one line": {false, base64.StdEncoding.EncodeToString(want)},
		"base64 in lines":    {false, lines(base64.StdEncoding.EncodeToString(want))},
		"hexadecimal":        {true, lines(hex.EncodeToString(want))},
	} {
		for _, n := range []int{1, 3, 1000, 65536, len(c.sent)} {
			got, err := decoded(c.hex, c.sent, n)
			if err != nil || got != string(want) {
				t.Errorf("%s in pieces of %d: %d bytes (%v), want the %d that were encoded", what, n, len(got), err, len(want))
			}
		}
	}
}

func TestDigitsTellAWriteThatFails(t *testing.T) {
	full := errors.New("disk full")
	for _, s := range []string{"YWJj", "YWJj!", strings.Repeat("YWJj", decodeBuffer)} {
		d := newBase64(brokenWriter{full})
		if _, err := d.Write([]byte(s)); !errors.Is(err, full) {
			t.Errorf("the error for %.10q is %v, want the writer's", s, err)
		}
	}
}

// FuzzBase64: however the digits are cut, the same comes out, with the same
// error; and what Go's decoder takes, this takes.
func FuzzBase64(f *testing.F) {
	f.Add("YQ== YWI=\nYWJj", uint8(1))
	f.Add("YWJj=", uint8(2))
	f.Add(base64.StdEncoding.EncodeToString(random(100)), uint8(7))
	f.Fuzz(func(t *testing.T, sent string, n uint8) {
		whole, err := decoded(false, sent, len(sent)+1)
		cut, cutErr := decoded(false, sent, int(n)+1)
		if whole != cut || (err == nil) != (cutErr == nil) || err != nil && err.Error() != cutErr.Error() {
			t.Fatalf("whole %q, %v; in pieces of %d %q, %v", whole, err, int(n)+1, cut, cutErr)
		}
		if p, goErr := base64.StdEncoding.DecodeString(sent); goErr == nil && (err != nil || whole != string(p)) {
			t.Fatalf("%q, %v; want %q", whole, err, p)
		}
	})
}

func BenchmarkBase64(b *testing.B) {
	plain := random(24 << 10)
	for what, s := range map[string]string{
		"line":  base64.StdEncoding.EncodeToString(plain),
		"lines": lines(base64.StdEncoding.EncodeToString(plain)),
	} {
		b.Run(what, func(b *testing.B) {
			d := newBase64(&countedWriter{})
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Write([]byte(s)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
