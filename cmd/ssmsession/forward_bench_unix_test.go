//go:build unix

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// forwardSize is how much the benchmarks of forward move at once, in bytes.
const forwardSize = 100e6

// BenchmarkForwardUpload sends through one forward, over one connection and over
// eight at once. The metrics are the rate; the processor time of the client, with
// its start, for each 100 MB; and how many times the rate is that of the same over
// loopback without a tunnel, and that of a client that does no more than it must
// (bareTunnel), by turns with both.
func BenchmarkForwardUpload(b *testing.B) {
	benchmarkForward(b, (*bareTunnel).upload, func(size int64) (near, far func(net.Conn) error) {
		near = func(conn net.Conn) error {
			if _, err := io.CopyN(conn, zeros{}, size); err != nil {
				return err
			}
			_, err := io.ReadFull(conn, make([]byte, 1)) // all has come
			return err
		}
		far = func(conn net.Conn) error {
			if _, err := io.CopyN(io.Discard, conn, size); err != nil {
				return err
			}
			_, err := conn.Write([]byte{1})
			return err
		}
		return near, far
	})
}

// BenchmarkForwardDownload is the same the other way.
func BenchmarkForwardDownload(b *testing.B) {
	benchmarkForward(b, (*bareTunnel).download, func(size int64) (near, far func(net.Conn) error) {
		near = func(conn net.Conn) error {
			if _, err := conn.Write([]byte{1}); err != nil {
				return err
			}
			_, err := io.CopyN(io.Discard, conn, size)
			return err
		}
		far = func(conn net.Conn) error {
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				return err
			}
			_, err := io.CopyN(conn, zeros{}, size)
			return err
		}
		return near, far
	})
}

// benchmarkForward moves forwardSize bytes, in equal parts over some connections.
func benchmarkForward(b *testing.B, least func(*bareTunnel, int) error, ends func(size int64) (near, far func(net.Conn) error)) {
	program := buildRelease(b, ".")
	for _, n := range []int{1, 8} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			near, far := ends(forwardSize / int64(n))
			service := serveBench(b, far)
			p := startForward(b, program, service)
			_, whole := ends(forwardSize)
			alone := serveBench(b, whole)
			var through, loopback, bare time.Duration
			for b.Loop() {
				through += slices.Max(atOnce(b, n, p.addr, near))
				loopback += slices.Max(atOnce(b, n, service, near))
				tunnel := dialBare(b, p.emulator, alone)
				begin := time.Now()
				if err := least(tunnel, forwardSize); err != nil {
					b.Fatalf("the bare client: %v", err)
				}
				bare += time.Since(begin)
			}
			cpu := p.end()
			b.ReportMetric(float64(b.N)*forwardSize/1e6/through.Seconds(), "MB/s")
			b.ReportMetric(cpu.Seconds()/float64(b.N)/(forwardSize/100e6), "cpu-s/100MB")
			b.ReportMetric(loopback.Seconds()/through.Seconds(), "x-loopback")
			b.ReportMetric(float64(b.N)*forwardSize/1e6/bare.Seconds(), "bare-MB/s")
			b.ReportMetric(bare.Seconds()/through.Seconds(), "x-bare")
		})
	}
}

// atOnce does something over n connections at once, from when all are there, and
// gives what each took.
func atOnce(b *testing.B, n int, addr string, do func(net.Conn) error) []time.Duration {
	b.Helper()
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = dialBench(b, addr)
	}
	took, errs := make([]time.Duration, n), make([]error, n)
	var wg sync.WaitGroup
	begin := time.Now()
	for i, conn := range conns {
		wg.Go(func() {
			errs[i] = do(conn)
			took[i] = time.Since(begin)
		})
	}
	wg.Wait()
	for _, conn := range conns {
		conn.Close()
	}
	if err := errors.Join(errs...); err != nil {
		b.Fatalf("%d connections to %s: %v", n, addr, err)
	}
	return took
}

// roundTrips is of how many round trips the benchmark takes the percentiles.
const roundTrips = 2000

// BenchmarkForwardRoundTrip sends one byte there and back, through a forward and
// over loopback without one, by turns. The metrics are the median and the 99th
// percentile of both. A user may set GOMAXPROCS, and then the program keeps it.
func BenchmarkForwardRoundTrip(b *testing.B) {
	program := buildRelease(b, ".")
	for _, processors := range []string{"", "1", "2"} {
		b.Run("GOMAXPROCS="+processors, func(b *testing.B) {
			service := serveBench(b, serveEcho)
			p := startForward(b, program, service, "GOMAXPROCS="+processors)
			through, bare := dialBench(b, p.addr), dialBench(b, service)
			var ours, others []time.Duration
			for b.Loop() {
				for range roundTrips {
					ours = append(ours, roundTrip(b, through))
					others = append(others, roundTrip(b, bare))
				}
			}
			through.Close()
			bare.Close()
			p.end()
			for name, of := range map[string][]time.Duration{"": ours, "loopback-": others} {
				slices.Sort(of)
				b.ReportMetric(milliseconds(of[len(of)/2]), name+"median-ms")
				b.ReportMetric(milliseconds(of[len(of)*99/100]), name+"p99-ms")
			}
		})
	}
}

func roundTrip(b *testing.B, conn net.Conn) time.Duration {
	b.Helper()
	one := []byte{1}
	begin := time.Now()
	if _, err := conn.Write(one); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(conn, one); err != nil {
		b.Fatal(err)
	}
	return time.Since(begin)
}

// thousand is how many connections there are at once, and thousandSize how much
// each carries both ways, in bytes.
const (
	thousand     = 1000
	thousandSize = 100e3
)

// BenchmarkForwardThousand carries a thousand connections at once, each with bytes
// of its own there and back. The metrics are the rate of all of them each way, the
// most memory that the client has had, and how many times the slowest's rate is
// the median one.
func BenchmarkForwardThousand(b *testing.B) {
	p := startForward(b, buildRelease(b, "."), serveBench(b, serveEcho))
	var all time.Duration
	slowest := 1.0
	for b.Loop() {
		took := atOnce(b, thousand, p.addr, echoOwnBytes)
		slices.Sort(took)
		all += took[thousand-1]
		slowest = min(slowest, float64(took[thousand/2])/float64(took[thousand-1]))
	}
	b.ReportMetric(float64(b.N)*thousand*thousandSize/1e6/all.Seconds(), "MB/s")
	b.ReportMetric(float64(peakMemory(b, p.cmd.Process.Pid))/1e3, "peak-MB")
	b.ReportMetric(slowest, "x-median-rate")
	p.end()
}

// echoOwnBytes sends bytes that no other connection has, and wants them back.
func echoOwnBytes(conn net.Conn) error {
	own := bytes.Repeat([]byte(conn.LocalAddr().String()+"\n"), thousandSize)[:thousandSize]
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(own)
		sent <- err
	}()
	got := make([]byte, len(own))
	n, err := io.ReadFull(conn, got)
	if same := common(got, own); err == nil && same < len(own) {
		err = fmt.Errorf("of %d bytes only %d came back right", len(own), same)
	}
	if err != nil {
		conn.Close() // so that the other does not wait
		return errors.Join(fmt.Errorf("after %d bytes: %w", n, err), <-sent)
	}
	return <-sent
}

// serveBench serves connections on a free port of loopback until the test ends.
func serveBench(b *testing.B, serve func(net.Conn) error) (addr string) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // it is closed
			}
			wg.Go(func() {
				defer conn.Close()
				_ = serve(conn) // what is missing the other end tells
			})
		}
	})
	b.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

func dialBench(b *testing.B, addr string) net.Conn {
	b.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(3 * patience)); err != nil {
		b.Fatal(err)
	}
	return conn
}

// forwardProcess is a forward, whose emulator is a process of its own too.
type forwardProcess struct {
	b        *testing.B
	cmd      *exec.Cmd
	emulator *scriptEmulator
	addr     string // its local end
	stderr   bytes.Buffer
}

// startForward forwards a free local port to one of loopback, as the released
// program does, and returns once it is ready.
func startForward(b *testing.B, program, service string, env ...string) *forwardProcess {
	b.Helper()
	_, port, err := net.SplitHostPort(service)
	if err != nil {
		b.Fatal(err)
	}
	e := newTestEmulator(b)
	p := &forwardProcess{b: b, emulator: e, cmd: exec.Command(program, "forward", exampleTarget, "-L", "127.0.0.1:0:localhost:"+port)}
	p.cmd.Env = childEnv(append(e.environment(), env...)...)
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill() // or it has ended
			_ = p.cmd.Wait()         // killed
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, _, ready := strings.Cut(line, " -> ")
	if !ready {
		b.Fatalf("forward is not ready, and says %q: %v; stderr: %s", line, err, &p.stderr)
	}
	p.addr = addr
	return p
}

// end ends it as a user does, and gives the processor time that it took.
func (p *forwardProcess) end() time.Duration {
	p.b.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.b.Fatal(err)
	}
	err := p.cmd.Wait()
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		p.b.Fatalf("forward does not end by SIGTERM: %v; stderr: %s", err, &p.stderr)
	}
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}
