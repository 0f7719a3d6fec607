package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/emulator"
)

// newTestEmulator starts an emulator in a process of its own, which ends with the
// test and must leave nothing behind.
func newTestEmulator(t testing.TB) *scriptEmulator {
	t.Helper()
	dir := t.TempDir()
	e := &scriptEmulator{
		envFile: filepath.Join(dir, "emulator.env"),
		tempDir: filepath.Join(dir, "tmp"),
		mark:    scriptMark + "=" + dir,
		drained: make(chan struct{}),
	}
	if err := os.Mkdir(e.tempDir, 0o700); err != nil {
		t.Fatal(err)
	}
	e.cmd = exec.Command("keeper", "ssmsession", "emulator", "--env-file", e.envFile)
	e.cmd.Dir = dir
	e.cmd.Env = childEnv(e.mark, "TMPDIR="+e.tempDir)
	e.cmd.Stderr = &e.stderr
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.stop(); err != nil {
			t.Errorf("the emulator: %v; its stderr:\n%s", err, &e.stderr)
		}
	})
	return e
}

// environment leads a program to the emulator.
func (e *scriptEmulator) environment() []string {
	var env []string
	for name, value := range e.exports {
		env = append(env, name+"="+value)
	}
	return env
}

// BenchmarkVersion is the least that the program takes: a whole process.
func BenchmarkVersion(b *testing.B) {
	benchmarkProcess(b, childEnv(), "--version")
}

// BenchmarkStart is a session for one command that says a word, as a whole
// process: the call, the dial, the word and the end. The wall clock has the
// emulator's part in it and that of the command, the processor's time has not.
func BenchmarkStart(b *testing.B) {
	if err := emulator.ShellSupported(); err != nil {
		b.Skip(err)
	}
	e := newTestEmulator(b)
	benchmarkProcess(b, childEnv(e.environment()...), "start", exampleTarget,
		"--document-name", "AWS-StartInteractiveCommand", "--parameters", "command=echo word")
}

// benchmarkProcess runs the program as it is released, and after each time one
// that does nothing: what a process of Go's costs on this machine at this moment.
// The metrics are the program's; own-ms and own-cpu-ms are what it takes beyond
// the other, and x-bare and x-bare-cpu how many times as much as it.
func benchmarkProcess(b *testing.B, env []string, args ...string) {
	program := buildRelease(b, ".")
	bare := buildRelease(b, bareProgram(b))
	var ours, others cost
	for b.Loop() {
		ours.add(b, env, program, args...)
		others.add(b, env, bare)
	}
	n := float64(b.N)
	b.ReportMetric(float64(ours.wall)/n, "ns/op")
	b.ReportMetric(milliseconds(ours.cpu)/n, "cpu-ms/op")
	b.ReportMetric(milliseconds(ours.wall-others.wall)/n, "own-ms/op")
	b.ReportMetric(milliseconds(ours.cpu-others.cpu)/n, "own-cpu-ms/op")
	b.ReportMetric(float64(ours.wall)/float64(others.wall), "x-bare")
	b.ReportMetric(float64(ours.cpu)/float64(others.cpu), "x-bare-cpu")
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// cost is what processes took.
type cost struct{ wall, cpu time.Duration }

// add runs a process to its end.
func (c *cost) add(b *testing.B, env []string, program string, args ...string) {
	cmd := exec.CommandContext(b.Context(), program, args...)
	cmd.Env = env
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		b.Fatalf("%q: %v", args, err)
	}
	c.wall += time.Since(begin)
	c.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// bareProgram writes the source of a program that says hello, and gives its path.
func bareProgram(b *testing.B) string {
	path := filepath.Join(b.TempDir(), "bare.go")
	source := fmt.Sprintf("package main\n\nimport %q\n\nfunc main() { os.Stdout.WriteString(\"hello\\n\") }\n", "os")
	if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// buildRelease builds what a user would have, without the test's own weight.
func buildRelease(b *testing.B, source string) (program string) {
	program = filepath.Join(b.TempDir(), "program.exe")
	build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("cannot build %s: %v\n%s", source, err, out)
	}
	return program
}
