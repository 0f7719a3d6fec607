//go:build unix

package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/emulator"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// reconnects is how many times in an operation BenchmarkReconnect loses its
// socket: the promise is about the worst of so many.
const reconnects = 50

// BenchmarkReconnect takes the time from when the socket is cut to when a byte
// that was sent afterwards has come back: the ResumeSession, the dial, the
// opening of the data channel and a round trip to the program. It begins a little
// early, with the order to cut.
func BenchmarkReconnect(b *testing.B) {
	for _, how := range []string{"without a close frame", "close", "reset"} {
		b.Run(how, func(b *testing.B) {
			spec := "cut=after:1ms,once"
			if how == "close" || how == "reset" {
				spec += "," + how
			}
			benchmarkReconnect(b, spec)
		})
	}
}

func benchmarkReconnect(b *testing.B, spec string) {
	lost := make(chan struct{}, 1)
	e, server := openBench(b, "cat", func(n stream.Notice) {
		if n.Kind == stream.Reconnecting && n.Attempt == 1 {
			lost <- struct{}{}
		}
	})
	cut, err := emulator.ParseFaults(spec)
	if err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		for range reconnects {
			begin := time.Now()
			if err := server.SetFaults(cut...); err != nil {
				b.Fatal(err)
			}
			<-lost
			if err := e.channel.Send(b.Context(), frame.Output, []byte("x")); err != nil {
				b.Fatal(err)
			}
			if err := e.want(b.Context(), "x"); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(begin))
		}
	}
	closeBench(b, e, server)
	slices.Sort(took)
	b.ReportMetric(milliseconds(took[len(took)/2]), "median-ms")
	b.ReportMetric(milliseconds(took[len(took)-1]), "worst-ms")
	b.ReportMetric(float64(len(took)), "reconnects")
}

// BenchmarkReconnectUnderLoad cuts the socket while data goes both ways. Pause is
// the longest time without any around a cut; it has the agent's repetition in it,
// once per 100 ms, of the first message that was lost. Caught up is everything
// that was under way at the cut, one repetition a message. An operation is one cut:
// -benchtime 50x is the promise's number of them.
func BenchmarkReconnectUnderLoad(b *testing.B) {
	var lost atomic.Bool
	e, server := openBench(b, "cat", func(n stream.Notice) {
		if n.Kind == stream.Reconnecting {
			lost.Store(true)
		}
	})
	cut, err := emulator.ParseFaults("cut=after:1ms,once")
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	flight := make(chan struct{}, soakFlight)
	var wg sync.WaitGroup
	// It ends by stop, in the middle of a piece.
	send := func(ctx context.Context, p []byte) error { return e.channel.Send(ctx, frame.Output, p) }
	wg.Go(func() { _ = sendSoak(ctx, send, newText(0), math.MaxInt, flight) })
	got, landed := 0, 0
	receive := func() {
		_, p, err := e.channel.Recv(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for got += len(p); landed < got/soakPiece; landed++ {
			<-flight
		}
	}
	var pauses, caughtUp []time.Duration
	for b.Loop() {
		lost.Store(false)
		begin := time.Now()
		if err := server.SetFaults(cut...); err != nil {
			b.Fatal(err)
		}
		pause, last := time.Duration(0), begin
		for until := math.MaxInt; got < until; last = time.Now() {
			receive()
			pause = max(pause, time.Since(last))
			if until == math.MaxInt && lost.Load() {
				until = got + soakFlight*soakPiece
			}
		}
		pauses, caughtUp = append(pauses, pause), append(caughtUp, time.Since(begin))
	}
	stop()
	wg.Wait()
	if err := server.Close(); err != nil {
		b.Error(err)
	}
	slices.Sort(pauses)
	slices.Sort(caughtUp)
	b.ReportMetric(milliseconds(pauses[len(pauses)/2]), "median-pause-ms")
	b.ReportMetric(milliseconds(pauses[len(pauses)-1]), "worst-pause-ms")
	b.ReportMetric(milliseconds(caughtUp[len(caughtUp)/2]), "median-caught-up-ms")
	b.ReportMetric(milliseconds(caughtUp[len(caughtUp)-1]), "worst-caught-up-ms")
}

// uploadSize is what BenchmarkUpward50ms sends each time, in bytes.
const uploadSize = 16 << 20

// BenchmarkUpward50ms sends over a line with a round trip of 50 ms, without and
// with loss in both directions. The promise is half of the smaller of the clean
// rate, which is that of the same line without faults in the same run, and the
// window over the round trip; the ratios are to that smaller one.
func BenchmarkUpward50ms(b *testing.B) {
	const trip = 50 * time.Millisecond
	bound := float64(stream.DefaultWindow) / 1e6 / trip.Seconds()
	lines := []struct {
		name   string
		faults []string
	}{
		{"clean", nil},
		{"50ms", []string{"delay=25ms"}},
		{"50ms-1%", []string{"delay=25ms", "drop=1%"}},
	}
	took := make([]time.Duration, len(lines))
	again := make([]int64, len(lines))
	n := 0
	for b.Loop() {
		n++
		for i, line := range lines {
			d, repeated := upload(b, line.faults)
			took[i] += d
			again[i] += repeated
		}
	}
	rates := make([]float64, len(lines))
	for i, line := range lines {
		rates[i] = float64(n) * uploadSize / 1e6 / took[i].Seconds()
		b.ReportMetric(rates[i], line.name+"-MB/s")
		if i > 0 {
			b.ReportMetric(rates[i]/min(rates[0], bound), line.name+"-ratio")
			b.ReportMetric(float64(again[i])/float64(n), line.name+"-repeated")
		}
	}
	b.ReportMetric(bound, "window/trip-MB/s")
}

// upload is one upload to a program that says when it has everything. It tells
// how many messages were sent again, too.
func upload(b *testing.B, specs []string) (took time.Duration, again int64) {
	b.Helper()
	program := fmt.Sprintf("sh -c 'head -c %d > /dev/null; echo done; exec cat'", uploadSize)
	e, server := openBench(b, program, nil)
	faults, err := emulator.ParseFaults(specs...)
	if err != nil {
		b.Fatal(err)
	}
	if err := server.SetFaults(faults...); err != nil {
		b.Fatal(err)
	}
	p := newText(0).next(16 << 10)
	begin := time.Now()
	for range uploadSize / len(p) {
		if err := e.channel.Send(b.Context(), frame.Output, p); err != nil {
			b.Fatal(err)
		}
	}
	if err := e.want(b.Context(), "done\n"); err != nil {
		b.Fatal(err)
	}
	took = time.Since(begin)
	closeBench(b, e, server)
	return took, e.channel.Stats().Retransmissions
}

// openBench opens a session with an emulator of its own; closeBench ends both.
func openBench(b *testing.B, program string, notify func(stream.Notice)) (*echo, *emulator.Server) {
	b.Helper()
	if err := emulator.ShellSupported(); err != nil {
		b.Skip(err)
	}
	server := startFaulty(b)
	e, err := openEcho(b.Context(), server, program, notify)
	if err != nil {
		b.Fatal(err)
	}
	return e, server
}

func closeBench(b *testing.B, e *echo, server *emulator.Server) {
	b.Helper()
	if err := server.SetFaults(); err != nil {
		b.Error(err)
	}
	if err := e.end(b.Context()); err != nil {
		b.Error(err)
	}
	if err := server.Close(); err != nil {
		b.Error(err)
	}
}
