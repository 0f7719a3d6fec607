package main

import (
	"flag"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience is how long a test waits for something that must happen. It is only
// spent when it does not.
const patience = 60 * time.Second

// TestMain lets this test binary be the program, for the tests that need one in
// a process of its own: it is found on PATH as ssmsession. It has other parts,
// too (roles).
func TestMain(m *testing.M) {
	parts := map[string]func(){"ssmsession": main, pluginName: main}
	parts["hasty"] = hasty
	maps.Copy(parts, roles())
	maps.Copy(parts, tunnelRoles())
	// They wait as much as they work: two processors are half idle with two tests.
	// Who gives -parallel has the last word.
	n := runtime.GOMAXPROCS(0)
	if err := flag.Set("test.parallel", strconv.Itoa(n+(n+1)/2)); err != nil {
		panic(err)
	}
	testscript.Main(m, parts)
}

// needTool skips a test without a program that it drives, or fails it where all
// of them have to be there.
func needTool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("this machine has no %s, which CI must have", name)
	}
	t.Skipf("this machine has no %s", name)
}

// childEnv is the environment of a program under test: that of this process
// without what would point it at anybody's AWS account or startup files, and
// without the second that the race detector else adds to its end.
func childEnv(more ...string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"),
		"GORACE=atexit_sleep_ms=0",
		"GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
		"HOME=/nonexistent",
		"LANG=C.UTF-8",
		"TERM=xterm-256color",
		"SHELL=/bin/sh",
		"PS1=" + prompt + "\n",
	}, more...)
}

// prompt is what the shells of the tests prompt with, on a line of its own: a slow
// shell prompts after it was typed at, in front of what its command prints.
const prompt = "ready>"
