//go:build unix

package remote

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
)

// far is a target at work in the framed form, on a pty as the agent makes one.
type far struct {
	t      *testing.T
	pty    *os.File
	cmd    *exec.Cmd
	buf    []byte
	out    map[byte][]byte // decoded
	began  bool
	group  string
	taken  int
	cannot string
}

func startFramed(t *testing.T, env []string, p Program, script []byte) *far {
	t.Helper()
	command, first, err := p.Framed(nonce2)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, script) {
		t.Fatalf("what comes first is %d bytes instead of %d", len(first), len(script))
	}
	f := &far{t: t, out: map[byte][]byte{}}
	f.cmd = exec.Command("env", "sh", "-c", command) //nolint:gosec // so that PATH is that of the target
	f.cmd.Env = env
	if f.pty, err = pty.Start(f.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill() // as the agent does
		_ = f.pty.Close()
		_ = f.cmd.Wait()
	})
	f.until(func() bool { return f.began || f.cannot != "" })
	return f
}

// nonce2 is one that no command line of another test has.
const nonce2 = "fedcba9876543210fedcba9876543210"

// until takes what comes until it is enough.
func (f *far) until(enough func() bool) {
	f.t.Helper()
	for !enough() {
		b := make([]byte, 64<<10)
		n, err := f.pty.Read(b)
		if err != nil {
			f.t.Fatalf("the terminal ended: %v; there came %q %q", err, f.out, f.buf)
		}
		f.buf = append(f.buf, b[:n]...)
		for {
			_, rest, ok := bytes.Cut(f.buf, []byte("("))
			frame, rest, whole := bytes.Cut(rest, []byte(")"))
			if !ok || !whole {
				break
			}
			f.frame(frame[0], strings.Join(strings.Fields(string(frame[1:])), ""))
			f.buf = rest
		}
	}
}

func (f *far) frame(kind byte, text string) {
	var (
		p   []byte
		err error
	)
	switch kind {
	case 's':
		f.began = text == nonce2
	case 'x':
		f.cannot = text
	case 'p':
		f.group = text
	case 'a':
		f.taken++
	case 'o', 'e':
		p, err = base64.StdEncoding.DecodeString(text)
		f.out[kind] = append(f.out[kind], p...)
	case 'O', 'E':
		p, err = hex.DecodeString(text)
		f.out[kind|0x20] = append(f.out[kind|0x20], p...)
	default:
		err = fmt.Errorf("a frame %c", kind)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *far) over() bool {
	end := []byte("[" + nonce2 + " ")
	return bytes.Contains(f.out['o'], end) && bytes.Contains(f.out['e'], end)
}

// send sends data as input, and its end.
func (f *far) send(data []byte) {
	f.t.Helper()
	for len(data) > 0 && !f.over() {
		n := min(len(data), 32<<10)
		want := f.taken + 1
		f.write(fmt.Sprintf("d %d\n", n))
		f.write(string(data[:n]))
		data = data[n:]
		f.until(func() bool { return f.taken >= want || f.over() })
	}
	f.write("e\n")
}

func (f *far) write(s string) {
	f.t.Helper()
	if _, err := f.pty.WriteString(s); err != nil {
		f.t.Fatal(err)
	}
}

func (f *far) end() (stdout, stderr string, status int) {
	f.t.Helper()
	f.until(f.over)
	stdout, status = cut(f.t, nonce2, "stdout", f.out['o'])
	stderr, again := cut(f.t, nonce2, "stderr", f.out['e'])
	if status != again {
		f.t.Fatalf("the streams have status %d and %d", status, again)
	}
	return stdout, stderr, status
}

// framedShells are the shells that can.
func framedShells(t *testing.T) map[string][]string {
	t.Helper()
	all := shells(t)
	delete(all, "ksh")
	delete(all, "mksh")
	return all
}

func TestInputArrivesFramedToItsEnd(t *testing.T) {
	t.Parallel()
	random := rand.NewChaCha8([32]byte{})
	data := make([]byte, 300_000)
	_, _ = random.Read(data) // never fails
	script := []byte("#!/bin/sh\ncat; printf '<%s>' \"$@\" >&2; exit 9\n")
	for _, c := range []struct {
		name           string
		program        Program
		input          []byte
		stdout, stderr string
		status         int
	}{
		{"no byte", Program{Argv: []string{"cat"}}, nil, "", "", 0},
		{"one byte", Program{Argv: []string{"cat"}}, []byte{'\n'}, "\n", "", 0},
		{"any bytes", Program{Argv: []string{"cat"}}, data, string(data), "", 0},
		{"both outputs and a status", Program{Argv: []string{"sh", "-c", "cat >&2; echo out; exit 3"}}, data, "out\n", string(data), 3},
		{"a death by signal", Program{Argv: []string{"sh", "-c", "cat; kill -TERM $$"}}, nil, "", "", 143},
		{"a command that reads nothing", Program{Argv: []string{"sh", "-c", "exec <&-; exit 4"}}, data, "", "", 4},
		{"a script with input of its own", Program{Script: script, Argv: []string{"a b", "\xff"}}, data, string(data), "<a b><\xff>", 9},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for name, env := range framedShells(t) {
				f := startFramed(t, env, c.program, c.program.Script)
				if c.program.Script != nil {
					f.send(c.program.Script)
				}
				f.send(c.input)
				stdout, stderr, status := f.end()
				if stdout != c.stdout || stderr != c.stderr || status != c.status {
					t.Errorf("%s gives %d bytes, %d bytes, %d", name, len(stdout), len(stderr), status)
				}
			}
		})
	}
}

func TestInterruptAndKillGetPastInputThatIsNotRead(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]int{"i": 130, "k": 137} {
		for name, env := range framedShells(t) {
			f := startFramed(t, env, Program{Argv: []string{"sleep", "60"}}, nil)
			f.until(func() bool { return f.group != "" })
			for range 4 {
				f.write("d 32768\n" + strings.Repeat("x", 32768))
			}
			f.write(key + " " + f.group + "\n")
			if _, stderr, status := f.end(); status != want || stderr != "" {
				t.Errorf("%s: %s ends it with %d and %q", name, key, status, stderr)
			}
		}
	}
}

func TestAFramedCommandIsGoneWhenItsShellIsKilled(t *testing.T) {
	t.Parallel()
	for name, env := range framedShells(t) {
		f := startFramed(t, env, Program{Argv: []string{"sh", "-c",
			"trap '' INT TERM HUP; echo ready; while :; do sleep 1; done"}}, nil)
		f.until(func() bool { return string(f.out['o']) == "ready\n" })
		var group int
		if _, err := fmt.Sscan(f.group, &group); err != nil {
			t.Fatal(err)
		}
		if err := f.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = f.pty.Close()
		eventually(t, name+": the command is gone", func() bool { return syscall.Kill(-group, 0) != nil })
	}
}

func TestAShellThatCannotSaysSo(t *testing.T) {
	t.Parallel()
	env := shells(t)["mksh"]
	if env == nil {
		t.Skip("there is no mksh")
	}
	if f := startFramed(t, env, Program{Argv: []string{"cat"}}, nil); !strings.Contains(f.cannot, "Korn") {
		t.Errorf("it says %q", f.cannot)
	}
}
