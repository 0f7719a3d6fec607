package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script, one behaviour of the command line a file.
// Besides testscript's own commands there are
//
//	exits N program args...    as exec, and the exit status must be N; a
//	                           program that hangs is ended
//	emulator [flags...]        starts ssmsession emulator and puts what it
//	                           exports into the script's environment; at the
//	                           script's end it must stop well, leaving nothing
//	stop-emulator              does so now; its stdout and stderr are then the
//	                           last command's
//	mode PERM file             the file's permissions must be these
//	jwt FILE CLAIMS            writes a web identity token to the file that the
//	                           script's emulator takes for its own
//	pty [-size CxR] FILE program args...
//	                           runs a program on a terminal with a person at
//	                           it, who does what FILE says (person_unix_test.go)
func TestScripts(t *testing.T) {
	commands := map[string]func(*testscript.TestScript, bool, []string){
		"exits":         exits,
		"emulator":      startEmulator,
		"stop-emulator": stopEmulator,
		"mode":          mode,
		"jwt":           jwt,
	}
	maps.Copy(commands, terminalCommands())
	maps.Copy(commands, sshCommands())
	testscript.Run(t, testscript.Params{
		Dir:  filepath.Join("testdata", "script"),
		Cmds: commands,
		// In CI a tool that is missing is a failure, which running it is.
		Condition: func(name string) (bool, error) {
			tool, ok := strings.CutPrefix(name, "lacks:")
			if !ok {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			_, err := exec.LookPath(tool)
			return err != nil && os.Getenv("CI") != "true", nil
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, childEnv(scriptMark+"="+env.WorkDir)...)
			env.Setenv("HOME", filepath.Join(env.WorkDir, "nobody")) // not there
			env.Values[setupKey{}] = env
			return nil
		},
		// Sooner than the test binary's own, so that a script that hangs is
		// told by name.
		Deadline: time.Now().Add(18 * patience), // of all scripts together
	})
}

// scriptMark is set in the environment of all that a script starts.
const scriptMark = "SSMSESSION_TEST_SCRIPT"

// setupKey and emulatorKey are keys of a script's values.
type (
	setupKey    struct{} // *testscript.Env
	emulatorKey struct{} // *scriptEmulator
)

// scriptEnv is the environment of a script, for what testscript does not start.
func scriptEnv(ts *testscript.TestScript) []string {
	vars := ts.Value(setupKey{}).(*testscript.Env).Vars
	names := map[string]bool{}
	for _, v := range vars {
		name, _, _ := strings.Cut(v, "=")
		names[name] = true
	}
	if e := runningEmulator(ts); e != nil {
		for name := range e.exports {
			names[name] = true
		}
	}
	// What a script sets itself is in no list.
	for _, name := range []string{"AWS_CONFIG_FILE", "AWS_ENDPOINT_URL_STS", "CI"} {
		names[name] = names[name] || ts.Getenv(name) != ""
	}
	var env []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// exits is the script command of that name.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits status program args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	argv := timed(args[1:])
	err = ts.Exec(argv[0], argv[1:]...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("cannot run %q: %v", args[1:], err)
	}
	got := 0
	if exit != nil {
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s exits with %d, want %d", args[1], got, want)
	}
}

// mode is the script command of that name.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode perm file")
	}
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := info.Mode().Perm(); got != os.FileMode(want) {
		ts.Fatalf("the mode of %s is %o, want %o", args[1], got, want)
	}
}

// jwt is the script command of that name. The key of the emulator's is the secret
// access key (docs/emulator.md).
func jwt(ts *testscript.TestScript, neg bool, args []string) {
	e := runningEmulator(ts)
	if neg || len(args) != 2 || e == nil {
		ts.Fatalf("usage: jwt file claims, after emulator")
	}
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	signed := part(`{"alg":"HS256","typ":"JWT"}`) + "." + part(args[1])
	mac := hmac.New(sha256.New, []byte(e.exports["AWS_SECRET_ACCESS_KEY"]))
	_, _ = io.WriteString(mac, signed) // never fails
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(signed+"."+part(string(mac.Sum(nil)))), 0o600))
}

// scriptEmulator is an emulator that a script has started.
type scriptEmulator struct {
	cmd     *exec.Cmd // its keeper
	leave   *os.File  // closed to stop it
	envFile string
	exports map[string]string
	tempDir string
	mark    string
	stdout  bytes.Buffer
	stderr  bytes.Buffer
	drained chan struct{} // closed once stdout has ended
	stopped bool
}

func runningEmulator(ts *testscript.TestScript) *scriptEmulator {
	e, ok := ts.Value(setupKey{}).(*testscript.Env).Values[emulatorKey{}].(*scriptEmulator)
	if !ok || e.stopped {
		return nil
	}
	return e
}

// startEmulator is the script command emulator.
func startEmulator(ts *testscript.TestScript, neg bool, args []string) {
	if neg || runningEmulator(ts) != nil {
		ts.Fatalf("usage: emulator [flags...], one at a time")
	}
	setup := ts.Value(setupKey{}).(*testscript.Env)
	e := &scriptEmulator{
		envFile: ts.MkAbs("emulator.env"),
		tempDir: filepath.Join(setup.WorkDir, ".tmp"),
		mark:    scriptMark + "=" + setup.WorkDir,
		drained: make(chan struct{}),
	}
	e.cmd = exec.Command("keeper", append([]string{"ssmsession", "emulator", "--env-file", e.envFile}, args...)...)
	e.cmd.Dir = ts.MkAbs(".")
	e.cmd.Env = scriptEnv(ts)
	e.cmd.Stderr = &e.stderr
	ts.Check(e.start())
	setup.Values[emulatorKey{}] = e
	for name, value := range e.exports {
		ts.Setenv(name, value)
	}
	ts.Defer(func() {
		if err := e.stop(); err != nil {
			setup.T().(testing.TB).Errorf("the emulator: %v; its stderr:\n%s", err, &e.stderr)
		}
	})
}

// start waits until the emulator is ready, which it tells on stdout once its file
// is there, and reads the file.
func (e *scriptEmulator) start() error {
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	left, leave, err := os.Pipe()
	if err != nil {
		return err
	}
	e.cmd.ExtraFiles, e.leave = []*os.File{left}, leave
	err = e.cmd.Start()
	left.Close()
	if err != nil {
		leave.Close()
		return err
	}
	// A pipe's reads have a deadline where it matters; where they have none,
	// the test binary's own will do.
	_ = out.(*os.File).SetReadDeadline(time.Now().Add(patience))
	first := make([]byte, 1)
	_, notReady := io.ReadFull(out, first)
	_ = out.(*os.File).SetReadDeadline(time.Time{}) // as above
	e.stdout.Write(first)
	go func() {
		defer close(e.drained)
		_, _ = e.stdout.ReadFrom(out) // ends with the emulator
	}()
	if notReady != nil {
		return fmt.Errorf("the emulator is not ready: %w: %w; its stderr:\n%s", notReady, e.stop(), &e.stderr)
	}
	data, err := os.ReadFile(e.envFile)
	if err != nil {
		return errors.Join(err, e.stop())
	}
	e.exports = map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^export (\w+)='(.*)'$`).FindAllStringSubmatch(string(data), -1) {
		e.exports[m[1]] = m[2]
	}
	return nil
}

// stop lets the emulator be stopped by SIGTERM and tells what is wrong with how it
// does, or with what it leaves behind. It acts once.
func (e *scriptEmulator) stop() error {
	if e.stopped {
		return nil
	}
	e.stopped = true
	e.leave.Close()
	<-e.drained
	if err := e.cmd.Wait(); err != nil {
		return fmt.Errorf("after SIGTERM: %w", err)
	}
	if _, err := os.Stat(e.envFile); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("it has left its environment file behind: %v", err)
	}
	left, err := os.ReadDir(e.tempDir)
	if err != nil || len(left) > 0 {
		return fmt.Errorf("it has left temporary files behind: %v %w", left, err)
	}
	// What looks after a command of exec's looks once a second.
	for end := time.Now().Add(3 * time.Second); ; <-time.After(50 * time.Millisecond) {
		processes := processesWith(e.mark)
		if len(processes) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("it has left processes behind: %q", processes)
		}
	}
}

// stopEmulator is the script command stop-emulator.
func stopEmulator(ts *testscript.TestScript, neg bool, args []string) {
	e := runningEmulator(ts)
	if neg || len(args) > 0 || e == nil {
		ts.Fatalf("usage: stop-emulator, after emulator")
	}
	err := e.stop()
	_, _ = ts.Stdout().Write(e.stdout.Bytes()) // to memory
	_, _ = ts.Stderr().Write(e.stderr.Bytes())
	ts.Check(err)
}

// processesWith finds the processes that have a variable in their environment,
// where the system lets them be found. Only the emulator and what it started are
// looked for, when nothing else of a script runs.
func processesWith(variable string) []string {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		return nil
	}
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for _, file := range files {
		env, err := os.ReadFile(file)
		if err != nil {
			continue // another user's, or gone
		}
		if !slices.Contains(strings.Split(string(env), "\x00"), variable) {
			continue
		}
		// What is gone meanwhile has no name.
		if name, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline")); err == nil && len(name) > 0 {
			found = append(found, strings.ReplaceAll(string(name), "\x00", " "))
		}
	}
	return found
}
