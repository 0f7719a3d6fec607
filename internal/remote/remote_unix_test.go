//go:build unix

package remote

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/shlex"
)

const nonce = "0123456789abcdef0123456789abcdef"

// shells are those whose sh is tried, as far as they are here.
func shells(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, name := range []string{"dash", "bash", "busybox", "mksh", "ksh"} {
		path, err := exec.LookPath(name)
		if err != nil {
			if os.Getenv("CI") == "true" && name != "ksh" && runtime.GOOS == "linux" { // .ci/run has no ksh
				t.Fatalf("there is no %s to try", name)
			}
			continue
		}
		dir := t.TempDir()
		if err := os.Symlink(path, filepath.Join(dir, "sh")); err != nil {
			t.Fatal(err)
		}
		found[name] = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		if name != "dash" && name != "busybox" {
			continue
		}
		// And with no bash to go to.
		for _, tool := range []string{
			"cat", "kill", "sleep", "dd", "base64", "od", "head", "stty", "rm", "env", "true", "printf", "setsid", "pwd", "ps", "sed", "tr",
		} {
			if path, err := exec.LookPath(tool); err == nil {
				if err := os.Symlink(path, filepath.Join(dir, tool)); err != nil {
					t.Fatal(err)
				}
			}
		}
		found[name+" alone"] = append(os.Environ(), "PATH="+dir)
	}
	if len(found) == 0 {
		t.Skip("there is no shell to try")
	}
	return found
}

// play runs command as an agent and a client would: until both outputs are at
// their end.
func play(t *testing.T, env []string, command string, atEnd func([]byte) bool) (stdout, stderr []byte) {
	t.Helper()
	cmd := agent(t, env, command)
	var outputs [2][]byte
	var pipes [2]io.ReadCloser
	for i, open := range []func() (io.ReadCloser, error){cmd.StdoutPipe, cmd.StderrPipe} {
		var err error
		if pipes[i], err = open(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	for i := range outputs {
		both.Go(func() {
			b := make([]byte, 64<<10)
			for !atEnd(outputs[i]) {
				n, err := pipes[i].Read(b)
				outputs[i] = append(outputs[i], b[:n]...)
				if err != nil {
					return
				}
			}
		})
	}
	both.Wait()
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // of no interest
	return outputs[0], outputs[1]
}

// after is what b has from its marker on.
func after(b []byte, nonce string) []byte {
	if i := bytes.Index(b, []byte("["+nonce)); i >= 0 {
		return b[i:]
	}
	return nil
}

// agent makes what an agent would start for command.
func agent(t *testing.T, env []string, command string) *exec.Cmd {
	t.Helper()
	argv, err := shlex.Split(command)
	if err != nil {
		t.Fatalf("the agent's splitter refuses the command: %v", err)
	}
	cmd := exec.Command("env", argv...) //nolint:gosec // so that PATH is that of the target
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

var marker = regexp.MustCompile(`^\[[0-9a-f]{32} (\d+)\]`)

// cut parts an output from the marker behind it.
func cut(t *testing.T, nonce, stream string, b []byte) (output string, status int) {
	t.Helper()
	i := bytes.Index(b, []byte("["+nonce))
	if i < 0 {
		t.Fatalf("%s has no marker: %q", stream, b)
	}
	m := marker.FindSubmatch(b[i:])
	if m == nil {
		t.Fatalf("%s ends with no marker: %q", stream, b[i:])
	}
	status, _ = strconv.Atoi(string(m[1]))
	return string(b[:i]), status
}

// run runs p in the streamed form to its end.
func run(t *testing.T, env []string, p Program) (stdout, stderr string, status int) {
	t.Helper()
	nonce := NewNonce()
	command, err := p.Streams(nonce, false)
	if err != nil {
		t.Fatal(err)
	}
	out, errs := play(t, env, command, func(b []byte) bool { return marker.Match(after(b, nonce)) })
	stdout, status = cut(t, nonce, "stdout", out)
	stderr, again := cut(t, nonce, "stderr", errs)
	if status != again {
		t.Fatalf("the streams have status %d and %d", status, again)
	}
	return stdout, stderr, status
}

func TestTheCommandsStatusAndOutputAreItsOwn(t *testing.T) {
	t.Parallel()
	odd := "\xff\xfe \x01 \xc3\\ \ufffd end\n\n"
	script := []byte("#!/bin/sh\necho \"$0\" | grep -c ssmsession. ; printf '<%s>' \"$@\"; exit 9\n")
	for _, c := range []struct {
		name           string
		program        Program
		stdout, stderr string
		status         int
	}{
		{"nothing said", Program{Argv: []string{"true"}}, "", "", 0},
		{"a status", Program{Argv: []string{"sh", "-c", "exit 7"}}, "", "", 7},
		{"the highest status", Program{Argv: []string{"sh", "-c", "exit 255"}}, "", "", 255},
		{"both outputs", Program{Argv: []string{"sh", "-c", "echo out; echo err >&2; exit 3"}}, "out\n", "err\n", 3},
		{"no line break is added", Program{Argv: []string{"printf", "a"}}, "a", "", 0},
		{"a death by TERM", Program{Argv: []string{"sh", "-c", "kill -TERM $$"}}, "", "", 143},
		{"a death by KILL", Program{Argv: []string{"sh", "-c", "kill -KILL $$"}}, "", "", 137},
		{"a death by INT", Program{Argv: []string{"sh", "-c", "kill -INT $$"}}, "", "", 130},
		{"a program, not the shell's own", Program{Argv: []string{"printf", "%s|", `a\nb`, "-n"}}, `a\nb|-n|`, "", 0},
		{"what a splitter or a shell might touch", Program{Argv: []string{
			"printf", "<%s>", "", " ", "a b", "'", `"`, `\`, "$HOME", "$$", "`id`", "*", "~", "#", "!", "\n", "\t", "{{ x }}", "é", "日本", ";", "&",
		}}, "<>< ><a b><'><\"><\\><$HOME><$$><`id`><*><~><#><!><\n><\t><{{ x }}><é><日本><;><&>", "", 0},
		{"what no JSON carries", Program{Argv: []string{"printf", "%s|", odd, "x'y"}}, odd + "|x'y|", "", 0},
		{"variables", Program{Argv: []string{"sh", "-c", `printf %s "$A|$B"`}, Env: []string{"A=1 '2' $3", "B=\xff\n"}}, "1 '2' $3|\xff\n", "", 0},
		{"a directory", Program{Argv: []string{"pwd"}, Dir: "/usr"}, "/usr\n", "", 0},
		{"a script", Program{Script: script, Argv: []string{"a b", "'"}}, "1\n<a b><'>", "", 9},
		{"a script with odd arguments", Program{Script: script, Argv: []string{"\xff"}}, "1\n<\xff>", "", 9},
		{"a script without a first line of its own", Program{Script: []byte("echo $1"), Argv: []string{"x"}}, "x\n", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for name, env := range shells(t) {
				if strings.HasSuffix(name, "alone") && (c.program.Script != nil || c.status == 130) {
					continue // it has no grep, and a command there ignores INT
				}
				stdout, stderr, status := run(t, env, c.program)
				if stdout != c.stdout || stderr != c.stderr || status != c.status {
					t.Errorf("%s gives %q, %q, %d instead of %q, %q, %d", name, stdout, stderr, status, c.stdout, c.stderr, c.status)
				}
			}
		})
	}
}

func TestACommandThatCannotStartIsToldAsAShellDoes(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, env := range shells(t) {
		for _, c := range []struct {
			program Program
			status  int
			word    string
		}{
			{Program{Argv: []string{"no-such-command"}}, 127, "no-such-command"},
			{Program{Argv: []string{plain}}, 126, plain},
			{Program{Argv: []string{"true"}, Dir: "/no-such-directory"}, 126, "/no-such-directory"},
			{Program{Argv: []string{"true"}, Dir: "-", Env: []string{"OLDPWD=/"}}, 126, "/-"},
			{Program{Argv: []string{"true"}, Dir: "usr", Env: []string{"CDPATH=/"}}, 126, "/usr"},
		} {
			stdout, stderr, status := run(t, env, c.program)
			if status != c.status || !strings.Contains(stderr, c.word) || stdout != "" {
				t.Errorf("%s: %v gives %q, %q, %d", name, c.program.Argv, stdout, stderr, status)
			}
		}
	}
}

func TestAnyArgumentArrivesUnchanged(t *testing.T) {
	t.Parallel()
	env := shells(t)["dash"]
	if env == nil {
		t.Skip("there is no dash")
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same cases each time
	pieces := []string{"a", " ", "'", `"`, `\`, "$", "$$", "`", "*", "?", "\n", "\t", "{{", "}}", "#", "é", "\u2028", "\x01", "\xff", "-", "=", ";", "\ufffd"}
	for range 60 {
		argv := []string{"printf", "%s\\000"}
		want := ""
		for range 1 + random.IntN(6) {
			a := ""
			for range random.IntN(8) {
				a += pieces[random.IntN(len(pieces))]
			}
			argv, want = append(argv, a), want+a+"\x00"
		}
		if stdout, _, status := run(t, env, Program{Argv: argv}); stdout != want || status != 0 {
			t.Fatalf("%q arrives as %q, status %d", want, stdout, status)
		}
	}
}

// begun starts a line of sh and waits until it says that it is ready.
func begun(t *testing.T, env []string, line string) (*exec.Cmd, io.Reader) {
	t.Helper()
	command, err := Program{Argv: []string{"sh", "-c", line}}.Streams(nonce, false)
	if err != nil {
		t.Fatal(err)
	}
	cmd := agent(t, env, command)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(pipe, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	return cmd, pipe
}

// A signal goes to the wrapper alone, as the agent sends it.
func TestAnInterruptReachesTheCommandAndItsChildren(t *testing.T) {
	t.Parallel()
	for name, env := range shells(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, pipe := begun(t, env, `trap 'echo got; kill $s; exit 5' INT TERM; sleep 60 & s=$!; echo ready; wait`)
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			var rest []byte
			for b := make([]byte, 1024); !marker.Match(after(rest, nonce)); {
				n, err := pipe.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				rest = append(rest, b[:n]...)
			}
			stdout, status := cut(t, nonce, "stdout", rest)
			if stdout != "got\n" || status != 5 {
				t.Errorf("it said %q and had status %d", stdout, status)
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // of no interest
		})
	}
}

// streaming is a command in the streamed form whose outputs are read by the test.
type streaming struct {
	t              *testing.T
	env            []string
	nonce          string
	cmd            *exec.Cmd
	stdout, stderr io.ReadCloser
}

func startStreaming(t *testing.T, env []string, line string, binary bool) *streaming {
	t.Helper()
	s := &streaming{t: t, env: env, nonce: NewNonce()}
	command, err := Program{Argv: []string{"sh", "-c", line}}.Streams(s.nonce, binary)
	if err != nil {
		t.Fatal(err)
	}
	s.cmd = agent(t, env, command)
	if s.stdout, err = s.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if s.stderr, err = s.cmd.StderrPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait() // of no interest
	})
	return s
}

// until reads an output until enough has come.
func (s *streaming) until(from io.Reader, enough func(string) bool) string {
	s.t.Helper()
	var got strings.Builder
	for b := make([]byte, 1024); !enough(got.String()); {
		n, err := from.Read(b)
		got.Write(b[:n])
		if err != nil {
			s.t.Fatalf("the output ended with %v; there came %q", err, got.String())
		}
	}
	return got.String()
}

// probe runs a probe as an agent would, and gives its status.
func (s *streaming) probe() int {
	s.t.Helper()
	cmd := agent(s.t, s.env, Probe(s.nonce))
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || len(out) > 0 {
		s.t.Fatalf("the probe says %q, %v", out, err)
	}
	return cmd.ProcessState.ExitCode()
}

func (s *streaming) sign() string { return "[" + s.nonce + "]" }

func TestAProbeIsAnsweredOnBothOutputs(t *testing.T) {
	t.Parallel()
	for name, env := range shells(t) {
		for _, binary := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, binary %t", name, binary), func(t *testing.T) {
				t.Parallel()
				gate := filepath.Join(t.TempDir(), "gate")
				if err := syscall.Mkfifo(gate, 0o600); err != nil {
					t.Fatal(err)
				}
				s := startStreaming(t, env, `trap 'echo hit' USR1; echo ready; read x <'`+gate+`'; echo end; exit 7`, binary)
				out := s.until(s.stdout, func(s string) bool { return strings.HasSuffix(s, "\n") })
				errs := ""
				const times = 3 // one after another
				for range times {
					if status := s.probe(); status != ProbeAsked {
						t.Fatalf("the probe's status is %d", status)
					}
					out += s.until(s.stdout, func(got string) bool { return strings.HasSuffix(got, s.sign()) })
					errs += s.until(s.stderr, func(got string) bool { return strings.HasSuffix(got, s.sign()) })
				}
				if err := os.WriteFile(gate, []byte("\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				plain := func(got string) string {
					text := strings.ReplaceAll(got, s.sign(), "")
					if binary {
						if len(text) == 0 || text[len(text)-1] != '\n' {
							return ""
						}
						return string(decode(t, []byte(text)))
					}
					return text
				}
				ended := func(before string) func(string) bool {
					return func(got string) bool { return marker.Match(after([]byte(plain(before+got)), s.nonce)) }
				}
				out += s.until(s.stdout, ended(out))
				errs += s.until(s.stderr, ended(errs))
				stdout, status := cut(t, s.nonce, "stdout", []byte(plain(out)))
				stderr, _ := cut(t, s.nonce, "stderr", []byte(plain(errs)))
				if stdout != "ready\nend\n" || stderr != "" || status != 7 {
					t.Errorf("around the signs there are %q, %q, status %d", stdout, stderr, status)
				}
			})
		}
	}
}

// A pipe that nobody reads keeps neither the other output's sign nor the end of the
// command.
func TestAProbeIsAnsweredOnTheOutputThatIsRead(t *testing.T) {
	t.Parallel()
	for name, env := range shells(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startStreaming(t, env, `printf ready >&2; while :; do echo line; done`, false)
			s.until(s.stderr, func(got string) bool { return got == "ready" })
			for range 2 {
				if status := s.probe(); status != ProbeAsked {
					t.Fatalf("the probe's status is %d", status)
				}
				if got := s.until(s.stderr, func(got string) bool { return strings.HasSuffix(got, "]") }); got != s.sign() {
					t.Errorf("stderr says %q", got)
				}
			}
			// Now it is read, and both signs come, whole and between lines.
			got := s.until(s.stdout, func(got string) bool { return strings.Count(got, s.sign()) == 2 })
			if rest := strings.NewReplacer(s.sign(), "", "line\n", "").Replace(got); len(rest) >= len("line\n") {
				t.Errorf("besides lines and signs stdout has %q", rest)
			}
			if err := s.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, s.stdout); err != nil { // ends with whoever holds the pipe
				t.Errorf("the end of stdout is %v", err)
			}
		})
	}
}

func TestAProbeFindsNobody(t *testing.T) {
	t.Parallel()
	for name, env := range shells(t) {
		s := &streaming{t: t, env: env, nonce: NewNonce()}
		if status := s.probe(); status != ProbeNobody {
			t.Errorf("%s: where there is no command the probe's status is %d", name, status)
		}
	}
}

// The agent kills the wrapper alone.
func TestNothingIsLeftWhenTheWrapperIsKilled(t *testing.T) {
	t.Parallel()
	for name, env := range shells(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, pipe := begun(t, env, `trap '' INT TERM HUP; echo ready; while :; do sleep 1; done`)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			// Its end is the end of whoever holds the pipe.
			if rest, err := io.ReadAll(pipe); err != nil || len(rest) != 0 {
				t.Errorf("the end of the command is %q, %v", rest, err)
			}
			_ = cmd.Wait() // of no interest
		})
	}
}

// What a command kills is not its own process alone.
func TestTheEndOfTheRunnerIsTold(t *testing.T) {
	t.Parallel()
	asItIs := func(_ *testing.T, b []byte) []byte { return b }
	for _, c := range []struct {
		name, line string
		binary     bool
		plainly    func(*testing.T, []byte) []byte // gives what the marker is in
	}{
		{"killed alone", "echo out; echo err >&2; kill -KILL $PPID; exec sleep 60", false, asItIs},
		{"killed with its group", "echo out; echo err >&2; kill -KILL 0", false, asItIs},
		{"killed alone, encoded", "echo out; echo err >&2; kill -KILL $PPID", true, decodeWhole},
		{"killed with its group, encoded", "kill -KILL 0", true, asItIs},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for name, env := range shells(t) {
				if strings.HasSuffix(name, "alone") && c.name == "killed with its group, encoded" {
					continue // whose group is everybody's, without job control
				}
				command, err := Program{Argv: []string{"sh", "-c", c.line}}.Streams(nonce, c.binary)
				if err != nil {
					t.Fatal(err)
				}
				out, errs := play(t, env, command, func(b []byte) bool { return marker.Match(after(c.plainly(t, b), nonce)) })
				stdout, status := cut(t, nonce, "stdout", c.plainly(t, out))
				stderr, again := cut(t, nonce, "stderr", c.plainly(t, errs))
				said := strings.Contains(c.line, "echo")
				if status != 137 || again != 137 || said && (stdout != "out\n" || stderr != "err\n") {
					t.Errorf("%s gives %q, %q, status %d and %d", name, stdout, stderr, status, again)
				}
			}
		})
	}
}

func TestBinaryOutputIsBase64InPieces(t *testing.T) {
	t.Parallel()
	want := make([]byte, 200_000)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, env := range shells(t) {
		command, err := Program{Argv: []string{"sh", "-c", `cat "$1"; printf '\377' >&2; exit 4`, "sh", file}}.Streams(nonce, true)
		if err != nil {
			t.Fatal(err)
		}
		out, errs := play(t, env, command, func(b []byte) bool { return marker.Match(after(decodeWhole(t, b), nonce)) })
		stdout, status := cut(t, nonce, "stdout", decodeWhole(t, out))
		stderr, again := cut(t, nonce, "stderr", decodeWhole(t, errs))
		if stdout != string(want) || stderr != "\xff" || status != 4 || again != 4 {
			t.Errorf("%s gives %d bytes, %q, status %d and %d", name, len(stdout), stderr, status, again)
		}
	}
}

// decodeWhole decodes base64 that ends at the end of a line.
func decodeWhole(t *testing.T, b []byte) []byte {
	t.Helper()
	encoded, _, _ := bytes.Cut(b, []byte("[")) // what follows is the end of whoever encodes
	return decode(t, encoded[:bytes.LastIndexByte(encoded, '\n')+1])
}

// decode decodes base64 in pieces.
func decode(t *testing.T, b []byte) []byte {
	t.Helper()
	var out []byte
	text := strings.NewReplacer("\n", "").Replace(string(b))
	for len(text) > 0 {
		piece := text[:4]
		text = text[4:]
		p, err := base64.StdEncoding.DecodeString(piece)
		if err != nil {
			t.Fatalf("%q is no base64", piece)
		}
		out = append(out, p...)
	}
	return out
}

func TestWhatNoTargetCouldRunIsRefused(t *testing.T) {
	t.Parallel()
	for _, p := range []Program{
		{},
		{Argv: []string{"a\x00b"}},
		{Argv: []string{"a"}, Env: []string{"1A=b"}},
		{Argv: []string{"a"}, Env: []string{"A"}},
		{Argv: []string{"a"}, Env: []string{"A=\x00"}},
		{Argv: []string{"a"}, Dir: "\x00"},
	} {
		if command, err := p.Streams(nonce, false); err == nil {
			t.Errorf("%+v is run as %s", p, command)
		}
	}
	long := Program{Argv: []string{"echo", strings.Repeat("a", MaxCommand)}}
	if _, err := long.Streams(nonce, false); !errors.Is(err, ErrTooLong) {
		t.Errorf("a long command is refused with %v", err)
	}
	if _, err := long.Terminal(nonce); !errors.Is(err, ErrTooLong) {
		t.Errorf("a long command for a terminal is refused with %v", err)
	}
	if _, script, err := long.Framed(nonce); err != nil || len(script) <= MaxCommand {
		t.Errorf("a long command becomes a script of %d bytes, %v", len(script), err)
	}
	if _, err := (Program{Script: []byte("\xff")}).Streams(nonce, false); !errors.Is(err, ErrNotText) {
		t.Errorf("a script that is no text is refused with %v", err)
	}
	if _, err := (Program{Argv: []string{"a"}, Dir: "/"}).Plain(); err == nil {
		t.Error("a directory is promised without a sh")
	}
	if got, err := (Program{Argv: []string{"a b", "c"}}).Plain(); err != nil || got != "'a b' c" {
		t.Errorf("a plain command is %s, %v", got, err)
	}
}

func TestInterpreterOfAScript(t *testing.T) {
	t.Parallel()
	for first, want := range map[string][]string{
		"":                            {"sh"},
		"echo":                        {"sh"},
		"#!":                          {"sh"},
		"#!/bin/bash\n":               {"/bin/bash"},
		"#! /bin/bash -e \n":          {"/bin/bash", "-e"},
		"#!/usr/bin/env python3 -u":   {"/usr/bin/env", "python3 -u"},
		"#!/bin/sh\r\n":               {"/bin/sh"},
		" #!/bin/bash\n":              {"sh"},
		"#!/bin/awk\t-f\nBEGIN { }\n": {"/bin/awk", "-f"},
	} {
		if got := interpreter([]byte(first)); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q is run by %q instead of %q", first, got, want)
		}
	}
}

func TestNoncesDiffer(t *testing.T) {
	t.Parallel()
	if a, b := NewNonce(), NewNonce(); len(a) != 32 || a == b {
		t.Errorf("two nonces are %s and %s", a, b)
	}
}

// eventually waits for what no event tells.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
