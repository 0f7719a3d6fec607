//go:build unix

package stream_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// benchBytes is what the benchmarks of encryption move at once, in bytes.
const benchBytes = 64 << 20

// BenchmarkEncryption takes the processor time of this process, which is the client
// alone, for the same bytes without encryption and with it, by turns: output into
// a pipe that somebody else reads, and input. The promise is x-cpu: at most 1.25.
func BenchmarkEncryption(b *testing.B) {
	for _, way := range []struct {
		name string
		move func(b *testing.B, url string, cfg stream.Config)
	}{
		{"receive into a pipe", receiveIntoPipe},
		{"send", sendAll},
	} {
		b.Run(way.name, func(b *testing.B) {
			url := startFarEnd(b)
			var clear, sealed float64
			for b.Loop() {
				before := cpuSeconds()
				way.move(b, url+"/?", stream.Config{})
				between := cpuSeconds()
				way.move(b, url+"/?sealed=yes&", stream.Config{DataKey: (&kms{}).dataKey, RequireEncryption: true})
				clear, sealed = clear+between-before, sealed+cpuSeconds()-between
			}
			moved := float64(b.N) * benchBytes / 100e6
			b.ReportMetric(clear/moved, "clear-cpu-s/100MB")
			b.ReportMetric(sealed/moved, "sealed-cpu-s/100MB")
			b.ReportMetric(sealed/clear, "x-cpu")
		})
	}
}

func receiveIntoPipe(b *testing.B, url string, cfg stream.Config) {
	b.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	cat := exec.Command("cat")
	cat.Stdin = r
	if err := cat.Start(); err != nil {
		b.Fatal(err)
	}
	r.Close()
	ch := open(b, fmt.Sprintf("%smessages=%d", url, benchBytes/1024), cfg)
	got := 0
	for {
		_, p, err := ch.Recv(b.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(p); err != nil {
			b.Fatal(err)
		}
		got += len(p)
	}
	w.Close()
	if err := errors.Join(ch.Close(), cat.Wait()); err != nil || got != benchBytes {
		b.Fatalf("%d bytes of %d: %v", got, benchBytes, err)
	}
}

func sendAll(b *testing.B, url string, cfg stream.Config) {
	b.Helper()
	ch := open(b, fmt.Sprintf("%staken=%d", url, benchBytes), cfg)
	p := make([]byte, 16<<10)
	for range benchBytes / len(p) {
		if err := ch.Send(b.Context(), frame.Output, p); err != nil {
			b.Fatal(err)
		}
	}
	for said := ""; said != "$taken"; {
		_, p, err := ch.Recv(b.Context())
		if err != nil {
			b.Fatalf("after %q: %v", said, err)
		}
		said += string(p)
	}
	if err := ch.Close(); err != nil {
		b.Fatal(err)
	}
}
