package session

import "testing"

func TestManyUploadsAtOnceHaveSmallerBuffers(t *testing.T) {
	b := &buffers{}
	var lent []*[]byte
	lend := func(want int, when string) {
		t.Helper()
		p := b.lend()
		if len(*p) != want {
			t.Fatalf("%s a buffer has %d bytes, want %d", when, len(*p), want)
		}
		lent = append(lent, p)
	}
	for range manyReads {
		lend(largeRead, "while few are lent")
	}
	for range manyReads {
		lend(mediumRead, "when many are lent")
	}
	for i, p := range lent {
		b.giveBack(p, i%2 == 0)
	}
	b.giveBack(nil, false) // of an upload that has lent none
	for range manyReads {
		lend(largeRead, "when all have come back, whether held or not,")
	}
	lend(mediumRead, "when many are lent again")
}
