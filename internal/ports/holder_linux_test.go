package ports

import (
	"slices"
	"testing"
)

func TestListeningInodes(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   112        0 11111 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000001000000:1538 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 112 0 22222 1 0
   2: 0100007F:1538 0100007F:C001 01 00000000:00000000 00:00000000 00000000   112        0 33333 1 0
   3: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 44444 1 0
   4: short
`
	if got, want := listeningInodes(table, 5432), []string{"11111", "22222"}; !slices.Equal(got, want) {
		t.Errorf("on port 5432 listen %v, want %v", got, want)
	}
	if got := listeningInodes(table, 80); got != nil {
		t.Errorf("on port 80 listen %v, want none", got)
	}
}

func TestPrintable(t *testing.T) {
	if got, want := printable("evil\x1b[31m"), `evil\x1b[31m`; got != want {
		t.Errorf("a name with an escape is told as %q, want %q", got, want)
	}
}
