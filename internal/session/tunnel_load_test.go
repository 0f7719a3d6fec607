package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// loadRig is a tunnel between real sockets of this machine: programs connect to
// addr and reach serve through the tunnel, whose agent is in memory.
func loadRig(t testing.TB, serve func(net.Conn) error) (r *tunnelRig, addr string) {
	t.Helper()
	r = newTunnelRig(t, "3.3.0.0", serve)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.run()
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.conns <- c
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-accepted
		close(r.stopped)
		if err := r.stop(); !errors.Is(err, errStopped) {
			t.Errorf("the tunnel ended: %v", err)
		}
	})
	return r, l.Addr().String()
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// heap is what is in use, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

func TestTunnelThousandConnections(t *testing.T) {
	const connections, size = 1000, 16 << 10
	r, addr := loadRig(t, echo)
	before := heap()
	want := random(size)
	together := make(chan struct{})
	var opened, all sync.WaitGroup
	opened.Add(connections)
	for i := range connections {
		c := dial(t, addr)
		all.Go(func() {
			defer c.Close()
			got := make([]byte, size)
			c.Write(want[:1])
			if _, err := io.ReadFull(c, got[:1]); err != nil {
				t.Errorf("connection %d is not served: %v", i, err)
			}
			opened.Done()
			<-together
			go c.Write(want)
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("connection %d: %v, or other bytes came back", i, err)
			}
		})
	}
	opened.Wait()
	// Both ends of 1000 connections and the agent's are in this process.
	t.Logf("1000 open connections use %d MB", (heap()-before)>>20)
	close(together)
	all.Wait()
	wantOpenedAndEnded(t, r, connections)
}

// wantOpenedAndEnded waits for the ends of n connections.
func wantOpenedAndEnded(t *testing.T, r *tunnelRig, n int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if len(r.of(TunnelEnded)) == n {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections have ended, want %d", len(r.of(TunnelEnded)), n)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := len(r.of(TunnelOpened)); got != n {
		t.Errorf("%d connections were opened, want %d", got, n)
	}
}

func TestTunnelTenThousandDropped(t *testing.T) {
	const connections = 10_000
	r, addr := loadRig(t, nil)
	go answerEnds(&agentConn{peer: r.peer, stop: r.stopped})
	before, goroutines := heap(), runtime.NumGoroutine()
	for i := range connections {
		c := dial(t, addr)
		if i%2 == 0 {
			c.SetLinger(0) // a reset
		}
		c.Close()
	}
	wantOpenedAndEnded(t, r, connections)
	r.mu.Lock()
	r.events = nil
	r.mu.Unlock()
	if n := runtime.NumGoroutine(); n > goroutines+50 {
		t.Errorf("%d goroutines are left, there were %d", n, goroutines)
	}
	if used := heap() - before; used > 10<<20 {
		t.Errorf("%d MB are left in use", used>>20)
	}
}

// answerEnds is an agent that answers the end of each stream with its own.
func answerEnds(c *agentConn) {
	var header [8]byte
	for {
		if _, err := io.ReadFull(c, header[:]); err != nil {
			return
		}
		if n := binary.LittleEndian.Uint16(header[2:]); n > 0 {
			io.CopyN(io.Discard, c, int64(n))
		}
		if header[1] == 1 {
			c.Write(header[:])
		}
	}
}

// One program that does not read stalls the others only when 4 MB wait for it.
func TestTunnelSlowReader(t *testing.T) {
	_, addr := loadRig(t, func(c net.Conn) error {
		var ask [1]byte
		io.ReadFull(c, ask[:])
		if ask[0] == 'm' {
			// With what the kernel takes, less than the bucket is left waiting.
			c.Write(make([]byte, 3<<20))
			io.Copy(io.Discard, c)
			return nil
		}
		c.Write(ask[:])
		return echo(c)
	})
	slow := dial(t, addr)
	defer slow.Close()
	slow.Write([]byte("m"))
	for range 200 {
		c := dial(t, addr)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.Write([]byte("x"))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatalf("a neighbour of one that does not read is not served: %v", err)
		}
		c.Close()
	}
}

// benchmarkTunnel uses some connections at once.
func benchmarkTunnel(b *testing.B, connections int, serve func(net.Conn) error, use func(c *net.TCPConn, n int) error) {
	_, addr := loadRig(b, serve)
	const size = 4 << 20
	b.SetBytes(size)
	b.ReportAllocs()
	var conns []*net.TCPConn
	for range connections {
		c := dial(b, addr)
		defer c.Close()
		conns = append(conns, c)
	}
	for b.Loop() {
		var all sync.WaitGroup
		for _, c := range conns {
			all.Go(func() {
				if err := use(c, size/connections); err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
	}
}

func BenchmarkTunnel(b *testing.B) {
	buf := make([]byte, 32<<10)
	for _, n := range []int{1, 8} {
		b.Run(fmt.Sprintf("up/%d", n), func(b *testing.B) {
			benchmarkTunnel(b, n, func(c net.Conn) error {
				// A word for each part says that it came.
				for {
					if _, err := io.CopyN(io.Discard, c, int64(4<<20/n)); err != nil {
						return err
					}
					c.Write([]byte{1})
				}
			}, func(c *net.TCPConn, size int) error {
				for size > 0 {
					w, err := c.Write(buf[:min(size, len(buf))])
					if err != nil {
						return err
					}
					size -= w
				}
				_, err := io.ReadFull(c, make([]byte, 1))
				return err
			})
		})
		b.Run(fmt.Sprintf("down/%d", n), func(b *testing.B) {
			benchmarkTunnel(b, n, func(c net.Conn) error {
				for ask := make([]byte, 1); ; {
					if _, err := io.ReadFull(c, ask); err != nil {
						return err
					}
					c.Write(make([]byte, 4<<20/n))
				}
			}, func(c *net.TCPConn, size int) error {
				if _, err := c.Write([]byte{1}); err != nil {
					return err
				}
				_, err := io.CopyN(io.Discard, c, int64(size))
				return err
			})
		})
	}
}

// BenchmarkTunnelByte is one byte there and back.
func BenchmarkTunnelByte(b *testing.B) {
	_, addr := loadRig(b, echo)
	c := dial(b, addr)
	defer c.Close()
	one := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(one); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, one); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPipe is the way of SSH's bytes down, in pieces as a channel gives them.
func BenchmarkPipe(b *testing.B) {
	peer := newTunnelPeer(sshStart())
	piece := string(random(32 << 10))
	ctx, cancel := context.WithCancel(b.Context())
	result := make(chan error)
	go func() { result <- Pipe{In: endless{}, Out: io.Discard}.Run(ctx, peer) }()
	b.SetBytes(int64(len(piece)))
	b.ReportAllocs()
	for b.Loop() {
		peer.coming <- message{1, piece}
	}
	cancel()
	<-result
}

// endless is an Input without a byte and without an end.
type endless struct{}

func (endless) Read(ctx context.Context) ([]byte, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}
