package stream_test

import (
	"context"
	"net/url"
	"runtime"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream"
)

// TestMemoryIsBounded floods a Channel that nobody reads from, over a real
// websocket, and looks at the heap meanwhile: at most 16 MB above idle, whatever
// the far end sends.
func TestMemoryIsBounded(t *testing.T) {
	far := startFarEnd(t)
	for _, kind := range []string{
		"nobody reads", "a gap that never fills", "numbers far ahead", "one byte of alternating types",
		"large messages", "handshakes", "handshakes that ask for much", "acknowledgements", "unknown types", "pings",
		"empty pings, and nothing read",
	} {
		t.Run(kind, func(t *testing.T) {
			idle := heap()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			ch := stream.Open(ctx, stream.Config{
				Dial: func(ctx context.Context, resume bool) (stream.Socket, string, error) {
					s, err := stream.DialWebSocket(ctx, far+"/flood?kind="+url.QueryEscape(kind), stream.DialConfig{})
					return s, "token", err
				},
			})
			look := time.NewTicker(5 * time.Millisecond)
			defer look.Stop()
			most := idle
			for ctx.Err() == nil {
				select {
				case <-look.C:
					most = max(most, heap())
				case <-ctx.Done():
				}
			}
			// It ended because we said so, or for a reason of its own.
			_ = ch.Close()
			above := (float64(most) - float64(idle)) / 1e6
			t.Logf("%.1f MB above idle", above)
			if above > 16 {
				t.Errorf("%.1f MB above idle", above)
			}
		})
		runtime.GC()
	}
}

// heap is what the Go heap takes from the system, in bytes, garbage included.
func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
