//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/emulator"
)

// execSizes are how much the benchmarks of exec move at once, in bytes: 1 GB only
// with SOAK=1.
func execSizes() []int {
	if os.Getenv("SOAK") != "" {
		return []int{100e6, 1e9}
	}
	return []int{100e6}
}

// BenchmarkExecOutput takes output of a command at full speed. The metrics are the
// rate, from the start of the process on, and the most memory that the client has
// had; with SOAK=1 that of 1 GB too, and how many times that of 100 MB it is.
func BenchmarkExecOutput(b *testing.B) {
	for _, form := range []string{"streams", "--binary", "--via pty"} {
		b.Run(form, func(b *testing.B) {
			benchmarkExec(b, func(b *testing.B, program string, env []string, size int) (time.Duration, int) {
				gate := newGate(b)
				begin := time.Now()
				p := startExec(b, program, env, nil, append(execForms()[form],
					"--", "sh", "-c", `head -c "$1" /dev/zero; read go <"$2"`, "sh", strconv.Itoa(size), gate.name)...)
				if n, err := io.CopyN(io.Discard, p.out, int64(size)); err != nil {
					b.Fatalf("after %d bytes: %v; stderr: %s", n, err, &p.stderr)
				}
				return endBench(p, gate, begin)
			})
		})
	}
}

// BenchmarkExecInput is the same for input.
func BenchmarkExecInput(b *testing.B) {
	benchmarkExec(b, func(b *testing.B, program string, env []string, size int) (time.Duration, int) {
		gate := newGate(b)
		in, feed, err := os.Pipe()
		if err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		p := startExec(b, program, env, in, "-i", "--", "sh", "-c", `wc -c; read go <"$1"`, "sh", gate.name)
		in.Close()
		if n, err := io.Copy(feed, io.LimitReader(zeros{}, int64(size))); err != nil {
			b.Fatalf("after %d bytes: %v; stderr: %s", n, err, &p.stderr)
		}
		feed.Close()
		var got int
		if _, err := fmt.Fscanln(p.out, &got); err != nil || got != size {
			b.Fatalf("the command has got %d bytes, want %d: %v; stderr: %s", got, size, err, &p.stderr)
		}
		return endBench(p, gate, begin)
	})
}

// zeros reads as zeros without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// endBench lets a command end that has moved all it had to.
func endBench(p *execProcess, gate *gate, begin time.Time) (took time.Duration, peak int) {
	took, peak = time.Since(begin), peakMemory(p.t, p.cmd.Process.Pid)
	gate.open(p.t)
	if rest, code := p.rest(), p.code(); rest != "" || code != 0 {
		p.t.Fatalf("behind the bytes come %q and the exit code %d; stderr: %s", rest, code, &p.stderr)
	}
	return took, peak
}

// benchmarkExec reports what move takes, in time and in kB of memory.
func benchmarkExec(b *testing.B, move func(b *testing.B, program string, env []string, size int) (time.Duration, int)) {
	program, e := buildRelease(b, "."), newTestEmulator(b)
	env := childEnv(e.environment()...)
	sizes := execSizes()
	took, peaks := make([]time.Duration, len(sizes)), make([]int, len(sizes))
	n := 0
	for ; b.Loop(); n++ {
		for i, size := range sizes {
			d, peak := move(b, program, env, size)
			took[i] += d
			peaks[i] = max(peaks[i], peak)
		}
	}
	for i, size := range sizes {
		mb := size / 1e6
		b.ReportMetric(float64(n*mb)/took[i].Seconds(), fmt.Sprintf("MB/s-of-%dMB", mb))
		b.ReportMetric(float64(peaks[i])/1e3, fmt.Sprintf("peak-MB-at-%dMB", mb))
	}
	if len(sizes) > 1 && peaks[0] > 0 {
		b.ReportMetric(float64(peaks[1])/float64(peaks[0]), "x-peak")
	}
}

// trueRounds is of how many rounds BenchmarkExecTrue takes the median.
const trueRounds = 50

// BenchmarkExecTrue is exec's own part of exec TARGET -- true: what is left of the
// wall clock without a StartSession, on a connection of its own as exec's is, and
// without the start of a process. The promise is own-ms: at most 10, where a process
// starts in two. Half of it are the wrapper's shells on the target; so where starting
// takes longer, own-x-bare is what to compare: own-ms by bare-ms, 4 to 5.
//
// It takes all by turns, so that a busy moment is everybody's. The process is
// this program with --version, in version-ms, and in own-beyond-bare-ms one that
// does nothing but say hello. Of the machine's share two more tell: plain-own-ms is
// own-ms without any wrapper, and shell-ms the least that any would take, a shell
// that runs the command and says a word.
func BenchmarkExecTrue(b *testing.B) {
	program, bare := buildRelease(b, "."), buildRelease(b, bareProgram(b))
	e := newTestEmulator(b)
	env := childEnv(e.environment()...)
	wall := func(name string, args ...string) time.Duration {
		var c cost
		c.add(b, env, name, args...)
		return c.wall
	}
	took := map[string][]time.Duration{}
	note := func(name string, d time.Duration) { took[name] = append(took[name], d) }
	for b.Loop() {
		for range trueRounds {
			whole, start := wall(program, "exec", exampleTarget, "--", "true"), startSession(b, e)
			version, hello := wall(program, "--version"), wall(bare)
			plain := wall(program, "exec", exampleTarget, "--plain", "--", "true")
			note("whole-ms", whole)
			note("start-session-ms", start)
			note("version-ms", version)
			note("bare-ms", hello)
			note("own-ms", whole-start-version)
			note("own-beyond-bare-ms", whole-start-hello)
			note("plain-own-ms", plain-start-version)
			note("shell-ms", wall("sh", "-c", "(exec true); printf x"))
		}
	}
	median := func(name string) float64 {
		slices.Sort(took[name])
		return milliseconds(took[name][len(took[name])/2])
	}
	for name := range took {
		b.ReportMetric(median(name), name)
	}
	b.ReportMetric(median("own-ms")/median("bare-ms"), "own-x-bare")
}

// startSession takes the time of a StartSession, and ends the session.
func startSession(b *testing.B, e *scriptEmulator) time.Duration {
	b.Helper()
	client := apiOf(b, e)
	o := &opening{target: exampleTarget, document: documentStreams, parsed: map[string][]string{
		"command": {"true"}, "separateOutputStream": {"true"},
	}}
	begin := time.Now()
	grant, err := client.Start(b.Context(), o.request())
	took := time.Since(begin)
	if err != nil {
		b.Fatal(err)
	}
	if err := terminate(context.WithoutCancel(b.Context()), client, grant.SessionID, terminateTimeout); err != nil {
		b.Fatal(err)
	}
	return took
}

// apiOf is a client of an emulator's API.
func apiOf(b *testing.B, e *scriptEmulator) *api.Client {
	b.Helper()
	client, err := api.New(b.Context(), api.Config{
		Region: emulator.DefaultRegion, EndpointURL: e.exports["AWS_ENDPOINT_URL"],
		Keys: &api.Keys{AccessKeyID: e.exports["AWS_ACCESS_KEY_ID"], SecretAccessKey: api.NewSecret(e.exports["AWS_SECRET_ACCESS_KEY"])},
	})
	if err != nil {
		b.Fatal(err)
	}
	return client
}
