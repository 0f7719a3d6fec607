//go:build unix

package main

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// These are the things that people do in a shell, done with keys on a real
// terminal in a session on this machine: the whole way from StartSession over
// the data channel to a pty and back.

func TestTheRemoteTerminalHasOurSize(t *testing.T) {
	t.Parallel()
	needTool(t, "tput")
	u := startLocal(t)
	u.wantRun("stty size")
	u.WaitMatch(`(?m)^24 80$`)
	u.wantRun("echo columns=$(tput cols)")
	u.WaitFor("columns=80")
	u.Resize(100, 40)
	// Nothing on the screen tells that a size has arrived, so the shell waits.
	u.wantRun(`until [ "$(stty size)" = "40 100" ]; do :; done`)
	u.wantRun("echo columns=$(tput cols)")
	u.WaitFor("columns=100")
}

func TestCtrlCInterruptsTheRemoteCommand(t *testing.T) {
	t.Parallel()
	u := startLocal(t)
	u.Type("sh -c 'echo sleep\"\"ing; exec sleep 100'\r")
	u.WaitFor("sleeping")
	u.Type("\x03")
	u.WaitMatch(`(?s)\^C.*` + prompt)
	u.wantRun("echo status=$?")
	u.WaitFor("status=130")
}

func TestCtrlZStopsTheRemoteCommandAndFgContinuesIt(t *testing.T) {
	t.Parallel()
	u := startLocal(t)
	u.Type("sh -c 'echo read\"\"ing; exec cat'\r")
	u.WaitFor("reading")
	u.Type("\x1a")
	u.WaitFor("Stopped")
	u.wantRun("jobs")
	u.Type("fg\r")
	u.until("fg names the command once more", func(shown string) bool { return strings.Count(shown, "exec cat") >= 4 })
	u.Type("first line\r")
	u.WaitMatch(`(?m)^first line\nfirst line$`) // what was typed, and what cat made of it
	u.Type("\x04")
	u.wantRun("echo cat=$?")
	u.WaitFor("cat=0")
}

func TestOtherKeysReachTheRemote(t *testing.T) {
	t.Parallel()
	u := startLocal(t)
	// In this order: what stty raw passes on, one key a byte.
	keys := "\x03\x1a\x1c\x13\x11\x04\x15\x16\r\n\x7f\x1b[A\x00\xff"
	u.Type(fmt.Sprintf("stty raw -echo; echo go''ing; dd bs=1 count=%d 2>/dev/null | od -An -tx1; stty sane\r", len(keys)))
	u.WaitFor("going")
	u.Type(keys)
	want := strings.TrimSpace(fmt.Sprintf("% x", keys))
	u.until("the keys arrived as "+want, func(shown string) bool {
		return strings.Contains(strings.Join(strings.Fields(shown), " "), want)
	})
}

func TestVimEditsAndSavesAFile(t *testing.T) {
	t.Parallel()
	needTool(t, "vim")
	u := startLocal(t)
	file := filepath.Join(t.TempDir(), "letter")
	u.Type("cd " + filepath.Dir(file) + " && vim -N -u NONE -i NONE letter; echo ed''ited\r")
	u.WaitMatch(`"letter" .*\[New`)
	u.Type("i")
	u.WaitFor("-- INSERT --")
	u.Type("dear world,\rgood bye")
	u.WaitMatch(`(?m)^dear world,\s*\ngood bye`)
	u.Type("\x1b")
	u.WaitGone("-- INSERT --")
	u.Type("ggcwhello\x1b:wq\r")
	u.WaitFor("edited")
	if got, err := os.ReadFile(file); err != nil || string(got) != "hello world,\ngood bye\n" {
		t.Errorf("vim saved %q, %v", got, err)
	}
	u.WaitGone("~\n~") // the alternate screen is left
}

func TestLessPages(t *testing.T) {
	t.Parallel()
	needTool(t, "less")
	u := startLocal(t)
	var lines strings.Builder
	for i := range 300 {
		fmt.Fprintf(&lines, "line %d of it\n", i+1)
	}
	file := filepath.Join(t.TempDir(), "long")
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	u.Type("less " + file + "\r")
	u.WaitFor("line 23 of it")
	u.Type(" ")
	u.WaitFor("line 46 of it")
	u.WaitGone("line 23 of it")
	u.Type("G")
	u.WaitFor("line 300 of it")
	u.Type("q")
	u.waitPrompt()
	u.WaitGone("line 300 of it")
	u.wantRun("true")
}

func TestTopStartsAndQuits(t *testing.T) {
	t.Parallel()
	needTool(t, "top")
	u := startLocal(t)
	u.Type("top\r")
	u.WaitMatch(`(?i)load av`)
	u.WaitFor("PID")
	u.Type("q")
	u.WaitMatch(`(?m)^ready> *$`) // what is typed before it has gone, it throws away
	u.wantRun("true")
}

// pasteSize is what is pasted, in bytes.
const pasteSize = 1_000_000

func TestAPasteArrivesWhole(t *testing.T) {
	t.Parallel()
	u := startLocal(t)
	file := filepath.Join(t.TempDir(), "f")
	t.Cleanup(func() {
		if info, err := os.Stat(file); err == nil && t.Failed() {
			t.Logf("%d bytes of the paste have arrived", info.Size())
		}
	})
	u.Type("cat > " + file + " && echo past''ed\r")
	paste := lines(pasteSize, 4000)
	u.Type(strings.ReplaceAll(paste, "\n", "\r")) // a terminal pastes Enter for a line's end
	u.Type("\x04")
	// Not on the screen: when the pty is full, the kernel lets what a program
	// writes overtake up to 4 kB of echo, which then scroll it away.
	u.WaitPast("pasted")
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(paste) || sum(string(got)) != sum(paste) {
		t.Errorf("of a paste of %d bytes with sum %x there arrived %d with sum %x", len(paste), sum(paste), len(got), sum(string(got)))
	}
}

// lines gives text of n bytes in lines of all lengths below the longest.
func lines(n, longest int) string {
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, n)
	next := random.IntN(longest)
	for i := range text {
		text[i] = byte(' ' + random.IntN('~'-' '+1))
		if i == next || i == n-1 {
			text[i] = '\n'
			next += 1 + random.IntN(longest)
		}
	}
	return string(text)
}

func sum(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // never fails
	return h.Sum64()
}

func TestExitEndsTheSessionAndLeavesTheTerminalAsItWas(t *testing.T) {
	t.Parallel()
	u := startLocal(t)
	if u.settings() == u.before {
		t.Error("the terminal is not raw during a session")
	}
	u.Type("exit 3\r")
	u.wantEnd(0) // a shell session carries no status
}

func TestTheEscapeLeavesTheSession(t *testing.T) {
	t.Parallel()
	u := startLocal(t)
	shell := u.shellPID()
	u.Type("sh -c 'trap \"\" INT HUP TERM; echo de\"\"af; exec sleep 100'\r")
	u.WaitFor("deaf")
	u.Type("\r~.")
	u.wantEnd(0)
	u.WaitFor("disconnected")
	wantGone(t, shell)
}

func TestTheEscapeHelps(t *testing.T) {
	t.Parallel()
	u := startLocal(t)
	u.Type("\r~?")
	u.WaitFor("leave the session")
	u.WaitFor("send ~")
	u.Type("echo a~?b\r")
	u.WaitMatch(`(?m)(^|> )a~\?b$`) // it is an escape after Enter only
	u.Type("exit\r")
	u.wantEnd(0)
}

func TestSignalsEndTheSessionInOrder(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			u := startLocal(t)
			shell := u.shellPID()
			if err := syscall.Kill(u.pid, sig); err != nil {
				t.Fatal(err)
			}
			u.wantEnd(128 + int(sig))
			wantGone(t, shell)
		})
	}
}

// shellPID is the process id of the shell, which is on this machine.
func (u *user) shellPID() int {
	u.wantRun("echo shell=$$")
	pid, err := strconv.Atoi(u.WaitMatch(`(?m)^shell=(\d+)`)[1])
	if err != nil {
		u.t.Fatalf("the shell's process id: %v", err)
	}
	return pid
}

// wantGone fails when a process of a session has outlived the session.
func wantGone(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("the session's shell, process %d, is still there after it: %v", pid, err)
	}
}
