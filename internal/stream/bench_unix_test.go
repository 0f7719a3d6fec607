//go:build unix

package stream_test

import (
	"os/exec"
	"testing"

	"github.com/creack/pty"
)

// BenchmarkReceiveIntoPTY writes into a terminal that somebody else reads.
func BenchmarkReceiveIntoPTY(b *testing.B) {
	master, slave, err := pty.Open()
	if err != nil {
		b.Fatal(err)
	}
	cat := exec.Command("cat")
	cat.Stdin = master
	if err := cat.Start(); err != nil {
		b.Fatal(err)
	}
	master.Close()
	benchmarkReceive(b, slave)
	slave.Close()
	// The reader of a pty sees its end as an input error.
	_ = cat.Wait()
}
