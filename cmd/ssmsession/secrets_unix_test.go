//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/cryptotest"

	"github.com/ssmsession/ssmsession/internal/emulator"
	"github.com/ssmsession/ssmsession/internal/stream"
)

// What the program knows and nobody is to be told: the tokens of StartSession and
// of ResumeSession, the keys of credential_process and of STS with their session
// token, data keys of KMS, and the private key of EC2 Instance Connect.
//
// Nobody is whoever reads stdout, stderr, the log, the events, the arguments or the
// environment of this program, or of what it starts. There are these exceptions,
// and no others:
//
//   - start --no-connect prints a token, which it is for.
//   - What a caller puts into the arguments or the environment of a process is there
//     by the caller's doing. A child has the caller's environment, with the caller's
//     keys if they are there: ssh and credential_process need them, and the command
//     of forward -- is as if the caller had run it. We add none, and in the plugin's
//     place the response is taken out, in which the token is the callee's alone.
//
// A new secret is one that testService.look takes out of the answers it passes on.

// secretRun is a run of the program that opens a session.
type secretRun struct {
	name    string
	program string // empty: ssmsession
	args    string // its words; PORT is one that echoes, DIR has the test's files
	stdin   string
	faults  []string            // of the service
	spoil   func([]byte) []byte // the answer to StartSession
	run     func(*watched)      // instead of args; nil: those
	status  int
	resumes int    // times that the session is resumed, at least
	key     bool   // the account encrypts its sessions
	prints  string // a part of what it prints, so that it is known to have done it
	says    string // a part of stderr, likewise
}

// cuts has a session lose its connection twice. It must have more to say than fits
// before the second time.
const cuts = "cut=after:10,close,times:2"

// bye is the line that ends a connection once it was echoed.
const bye = "bye\n"

// counting is a shell's line that has.
const counting = `i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.05; done`

func secretRuns() []secretRun {
	const start, execute = "start " + exampleTarget, "exec " + exampleTarget
	const forward = "forward " + exampleTarget + " -L 0:PORT"
	typed := func(line string) string { return line + "\nexit\n" }
	return slices.Concat([]secretRun{
		{name: "start", args: start, stdin: typed("echo sum=$((6*7))"), prints: "sum=42"},
		{name: "start, json", args: start + " --output json", stdin: typed("true"), prints: `"session_id"`},
		{name: "start, resumed", args: start, stdin: typed(counting), faults: []string{cuts}, resumes: 2, prints: "line 39"},
		{name: "start, a command", args: start + " --document-name AWS-StartNonInteractiveCommand --parameters command=id", prints: "uid="},
		{name: "start, no connection", args: start + " --no-connect --output json", run: startsForOthers, says: "waits to be connected to"},

		{name: "exec", args: execute + " -- echo there", prints: "there"},
		{name: "exec, json", args: execute + " --output json -- echo there", prints: `"stdout": "there`},
		{name: "exec, stdin", args: execute + " -i -- cat", stdin: "there", prints: "there"},
		{name: "exec, a terminal", args: execute + " --tty -- echo there", prints: "there"},
		{name: "exec, by a terminal", args: execute + " --via pty -- echo there", prints: "there"},
		{name: "exec, binary", args: execute + " --binary -- echo there", prints: "there"},
		{name: "exec, plain", args: execute + " --plain -- echo there", prints: "there"},
		{name: "exec, a script", args: execute + " --script DIR/script", prints: "there"},
		{name: "exec by a terminal, resumed", args: execute + " --via pty --script DIR/counting", faults: []string{cuts}, resumes: 2, prints: "line 39"},

		{name: "forward, a command", args: forward + " -- witness talk", prints: "there"},
		{name: "forward, a command, resumed", args: forward + " -- witness talk", faults: []string{cuts}, resumes: 2, prints: "there"},
		{name: "forward, to the background", run: goesToTheBackground},
		{name: "ssh-proxy", args: "ssh-proxy " + exampleTarget + " PORT", stdin: "there\n" + bye, prints: "there"},
		{name: "ssh", args: "ssh " + exampleTarget + " --ec2-instance-connect", prints: "there"},
		{name: "connect", run: connectsBy("connect"), prints: "line 39", faults: []string{cuts}, resumes: 2},
		{name: "connect, a file", run: connectsBy("connect DIR/response"), prints: "line 39"},
		{name: "connect, a variable", run: connectsBy("connect --from-env RESPONSE"), prints: "line 39", faults: []string{cuts}, resumes: 2},
		{name: "the plugin, by arguments", run: isPlugin("argument"), prints: "line 39", faults: []string{cuts}, resumes: 2},
		{name: "the plugin, by the environment", run: isPlugin("variable"), prints: "line 39", faults: []string{cuts}, resumes: 2},
		{name: "the plugin, as of old", run: isPlugin("legacy"), prints: "line 39", faults: []string{cuts}, resumes: 2},
		{name: "start, encrypted", key: true, args: start, stdin: typed(counting), faults: []string{cuts}, resumes: 2, prints: "line 39"},
		{name: "exec, encrypted", key: true, args: execute + " -- echo there", prints: "there"},
		{name: "connect, encrypted", key: true, run: connectsBy("connect"), prints: "line 39"},
		{name: "the plugin, encrypted", key: true, run: isPlugin("variable"), prints: "line 39"},
	}, secretFailures())
}

// secretFailures are runs in which something fails when there are secrets already.
func secretFailures() []secretRun {
	const start = "start " + exampleTarget
	const counts = counting + "\nexit\n"
	row := func(name, says string, faults ...string) secretRun {
		return secretRun{name: name, args: start, stdin: counts, faults: faults, status: exitFailed, says: says}
	}
	return []secretRun{
		row("no data channel", "cannot open the data channel", "refuse=status:403"),
		row("a token that is refused", "", "expire-tokens").with("--connect-timeout 5s"),
		row("a session that may not be resumed", "access denied", "cut=after:4", "resume=AccessDeniedException"),
		row("a session that nobody can reach any more", "session lost", "cut=after:4", "resume=InternalServerError").with("--reconnect-timeout 1s"),
		{name: "an answer that ends within the token", args: start, status: exitFailed, says: "cannot start session", spoil: func(b []byte) []byte {
			before, after, _ := bytes.Cut(b, []byte(`"TokenValue":"`))
			return slices.Concat(before, []byte(`"TokenValue":"`), after[:len(after)/2])
		}},
		{name: "an answer without its end", args: start, status: exitFailed, says: "cannot start session", spoil: func(b []byte) []byte {
			return bytes.TrimRight(b, "}\n")
		}},
		{name: "an answer with the token for a name", args: start, status: exitFailed, says: "cannot start session", spoil: func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"TokenValue":`), []byte(`"TokenValue":5,`), 1)
		}},
		{name: "a panic", program: "panicking", args: start, stdin: counts, status: exitFailed, says: "internal error: at the worst time"},
		row("no data key", "kms:GenerateDataKey", "generate-data-key=AccessDeniedException").encrypted(),
		row("a challenge that does not decrypt", "", "bad-challenge").encrypted(),
		row("output that does not decrypt", "", "bad-output=after:2").encrypted(),
		{name: "a panic in an encrypted session", program: "panicking", key: true, args: start, stdin: counts, status: exitFailed, says: "internal error: at the worst time"},
		{name: "an abort", key: true, run: aborts, status: 2, says: "SIGABRT"},
	}
}

func (r secretRun) with(flags string) secretRun {
	r.args += " " + flags
	return r
}

func (r secretRun) encrypted() secretRun {
	r.key = true
	return r
}

func TestNoSecretIsTold(t *testing.T) {
	for _, r := range secretRuns() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			r.test(t)
		})
	}
}

// watched is a run, and all that is seen of it.
type watched struct {
	*testService
	row  secretRun
	dir  string
	port string
	env  []string // of all that is run
	last ending   // of the last program

	mu    sync.Mutex        // guards what follows
	seen  map[string]string // what was to be read somewhere
	given map[int]bool      // processes whose arguments or environment have a token that they were given
}

func (r secretRun) test(t *testing.T) {
	s := newTestService(t, func(c *emulator.Config) {
		if r.key {
			c.KMSKeys = []string{"arn:aws:kms:us-east-1:111122223333:key/1234"}
		}
	})
	w := &watched{testService: s, row: r, dir: t.TempDir(), seen: map[string]string{}, given: map[int]bool{}}
	s.note(func() { s.called, s.spoil = w.lookAround, r.spoil })
	faults, err := emulator.ParseFaults(r.faults...)
	if err == nil {
		err = s.server.SetFaults(faults...)
	}
	if err != nil {
		t.Fatal(err)
	}
	echo := listen(t, func(c net.Conn) {
		defer c.Close()
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadString('\n')
			if _, writeErr := io.WriteString(c, line); err != nil || writeErr != nil || line == bye {
				return // what came back tells
			}
		}
	})
	_, w.port, _ = net.SplitHostPort(echo.Addr().String())
	w.prepare()
	if r.run != nil {
		r.run(w)
	} else {
		w.program(nil, "", strings.Fields(r.args)...)
	}
	if w.last.status != r.status {
		t.Errorf("it ends with status %d, want %d", w.last.status, r.status)
	}
	if !strings.Contains(w.last.stdout, r.prints) || !strings.Contains(w.last.stderr, r.says) {
		t.Errorf("it has not done what it was to do: it prints %.1000q and says %.1000q", w.last.stdout, w.last.stderr)
	}
	w.check()
}

// prepare writes the files that runs have in common. The keys are in none that the
// program or its environment names: a program prints them, and STS makes others.
func (w *watched) prepare() {
	w.t.Helper()
	key, secret := w.server.Credentials()
	write := func(name, text string, mode fs.FileMode) {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), mode); err != nil {
			w.t.Fatal(err)
		}
	}
	write("keys.json", fmt.Sprintf(`{"Version": 1, "AccessKeyId": %q, "SecretAccessKey": %q}`, key, secret), 0o600)
	write("config", `[profile process]
region = `+emulator.DefaultRegion+`
credential_process = witness keys `+w.dir+`/keys.json
[profile role]
region = `+emulator.DefaultRegion+`
role_arn = arn:aws:iam::111122223333:role/ops
source_profile = process
`, 0o600)
	write("script", "echo there\n", 0o600)
	write("counting", counting+"\n", 0o600)
	write("ssh", "#!/bin/sh\nexec witness ssh \"$@\"\n", 0o700)
	for _, sub := range []string{"witnesses", "tmp"} {
		if err := os.Mkdir(filepath.Join(w.dir, sub), 0o700); err != nil {
			w.t.Fatal(err)
		}
	}
	w.env = append(childEnv(), "PATH="+w.dir+":"+os.Getenv("PATH"), "TMPDIR="+w.dir+"/tmp",
		"AWS_CONFIG_FILE="+w.dir+"/config", "AWS_PROFILE=role",
		"AWS_ENDPOINT_URL="+w.relay.URL, "AWS_ENDPOINT_URL_STS="+w.relay.URL, w.mark(), "PORT="+w.port)
}

// mark is in the environment of all that a run starts.
func (w *watched) mark() string { return "WITNESS=" + w.dir + "/witnesses" }

// saw notes what was to be read somewhere.
func (w *watched) saw(where, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[where] += text + "\n"
}

// program runs this program to its end and notes all that it says. stdin is the
// run's. token tells what it was given one in: its arguments, its environment, or
// nothing.
func (w *watched) program(more []string, token string, args ...string) {
	w.t.Helper()
	cmd := w.start(more, token, args...)
	w.wait(cmd)
}

// start begins it.
func (w *watched) start(more []string, token string, args ...string) *exec.Cmd {
	w.t.Helper()
	program := w.row.program
	if program == "" {
		program = "ssmsession"
	}
	if token == "" || program != pluginName {
		args = append([]string{"--debug", "--events", filepath.Join(w.dir, "events")}, args...)
	}
	fill := strings.NewReplacer("DIR", w.dir, "PORT", w.port)
	for i, arg := range args {
		if !strings.HasPrefix(arg, "{") {
			args[i] = fill.Replace(arg)
		}
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	w.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(slices.Clone(w.env), more...)
	cmd.Stdin = strings.NewReader(w.row.stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // away from the terminal of who runs the tests
	cmd.WaitDelay = patience / 12                        // what it has started may outlive it
	cmd.Stdout, cmd.Stderr = &bytes.Buffer{}, &bytes.Buffer{}
	w.mu.Lock() // nobody looks around before it is known what it was given
	defer w.mu.Unlock()
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.given[cmd.Process.Pid] = token != ""
	return cmd
}

// wait waits for its end.
func (w *watched) wait(cmd *exec.Cmd) {
	w.t.Helper()
	_ = cmd.Wait() // the status tells
	w.last = ending{status: cmd.ProcessState.ExitCode(), stdout: cmd.Stdout.(*bytes.Buffer).String(), stderr: cmd.Stderr.(*bytes.Buffer).String()}
	w.saw("stdout", w.last.stdout)
	w.saw("stderr", w.last.stderr)
}

// lookAround reads what everybody on this machine may read of a process, and what
// its user may. It is called when the service is, and so when secrets are there.
func (w *watched) lookAround() {
	files, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is good
	for _, file := range files {
		env, err := os.ReadFile(file)
		if err != nil || !slices.Contains(strings.Split(string(env), "\x00"), w.mark()) {
			continue // another's, or gone
		}
		argv, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if err != nil {
			continue // gone
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file))) // digits
		w.mu.Lock()
		given := w.given[pid]
		w.mu.Unlock()
		if given {
			continue
		}
		w.saw("the arguments of a process", string(argv))
		w.saw("the environment of a process", string(env))
	}
}

// check looks for every secret everywhere.
func (w *watched) check() {
	w.t.Helper()
	w.saw("events", written(w.t, filepath.Join(w.dir, "events")))
	if log, err := filepath.Glob(filepath.Join(w.dir, "tmp", "*")); err != nil || len(log) > 0 {
		w.t.Errorf("files are left behind: %q %v", log, err)
	}
	w.checkWitnesses()
	service := w.testService
	service.mu.Lock()
	w.saw("the service's log", service.log.String())
	tokens, resumed := len(service.tokens), service.resumed
	service.mu.Unlock()
	secrets := service.secrets()
	if resumed < w.row.resumes {
		w.t.Errorf("the session was resumed %d times, want %d at least", resumed, w.row.resumes)
	}
	want := 3 + w.row.resumes // a key of STS, its token, the session's
	if w.row.key && w.row.status == 0 {
		want++ // the data key
	}
	if tokens < want {
		w.t.Errorf("the test has seen %d secrets, want %d at least", tokens, want)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for where, text := range w.seen {
		for _, secret := range secrets {
			if form := shows(text, secret); form != "" {
				w.t.Errorf("%s shows a secret, %s: %.4000q", where, form, text)
			}
		}
	}
	if runtime.GOOS == "linux" && w.row.run == nil && w.seen["the arguments of a process"] == "" {
		w.t.Error("the test has seen no process")
	}
}

// shows tells how a text shows a secret, or part of it; empty if it does not.
func shows(text, secret string) string {
	part := secret
	if len(part) > 24 { // what all tokens have in common is at the beginning
		part = part[len(part)/2-12:][:24]
	}
	forms := map[string]string{
		"as it is": part, "for a URL": url.QueryEscape(secret), "in base64": base64.StdEncoding.EncodeToString([]byte(secret)),
		"in hex": hex.EncodeToString([]byte(secret)), "as bytes": strings.Trim(fmt.Sprint([]byte(secret)), "[]"),
	}
	if raw, err := base64.StdEncoding.DecodeString(secret); err == nil && len(raw) >= 16 {
		forms["decoded"], forms["decoded, in hex"] = string(raw), hex.EncodeToString(raw)
		forms["decoded, as bytes"] = strings.Trim(fmt.Sprint(raw), "[]")
	}
	for name, form := range forms {
		if strings.Contains(text, form) {
			return name
		}
	}
	return ""
}

// evidence is what a witness was started with.
type evidence struct {
	Args, Env []string
}

// checkWitnesses looks at what the children were started with: the environment is
// the caller's, but for what is documented.
func (w *watched) checkWitnesses() {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.dir, "witnesses", "*"))
	if err != nil || len(files) == 0 {
		w.t.Fatalf("no witness was called: %v", err)
	}
	of := func(env []string) map[string]string {
		vars := map[string]string{}
		for _, v := range env {
			name, value, _ := strings.Cut(v, "=")
			vars[name] = value
		}
		for _, name := range []string{"_", "PWD", "OLDPWD", "SHLVL"} {
			delete(vars, name) // a shell's that is in between
		}
		return vars
	}
	want := of(w.env)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			w.t.Fatal(err)
		}
		w.saw("what a child was started with", string(data))
		var e evidence
		if err := json.Unmarshal(data, &e); err != nil {
			w.t.Fatal(err)
		}
		got := of(e.Env)
		maps.DeleteFunc(got, func(name, _ string) bool {
			return strings.HasPrefix(name, "SSMSESSION_ADDR") || strings.HasPrefix(name, "SSMSESSION_PORT") || name == followerVar
		})
		if !maps.Equal(got, want) {
			w.t.Errorf("%q has the environment %q, want the caller's, %q", e.Args, got, want)
		}
	}
}

// witness writes down what it was started with, into a file of the directory
// WITNESS, and then is
//
//	keys FILE   a credential_process
//	talk        a command that uses a tunnel
//	ssh …       an ssh that says a word through its ProxyCommand
func witness() {
	data, err := json.Marshal(evidence{os.Args, os.Environ()})
	giveUp(err)
	file, err := os.CreateTemp(os.Getenv("WITNESS"), "")
	giveUp(err)
	_, err = file.Write(data)
	giveUp(err)
	giveUp(file.Close())
	switch os.Args[1] {
	case "keys":
		keys, err := os.ReadFile(os.Args[2])
		giveUp(err)
		_, err = os.Stdout.Write(keys)
		giveUp(err)
	case "talk":
		conn, err := net.Dial("tcp", os.Getenv("SSMSESSION_ADDR"))
		giveUp(err)
		for range 40 { // so that there is something to say after a cut
			_, err = io.WriteString(conn, "there\n")
			giveUp(err)
			_, err = io.ReadFull(conn, make([]byte, len("there\n")))
			giveUp(err)
		}
		fmt.Println("there")
	case "ssh":
		for _, arg := range os.Args {
			if line, ok := strings.CutPrefix(arg, "ProxyCommand="); ok {
				line = strings.NewReplacer("%p", os.Getenv("PORT"), "%r", "person", "%%", "%").Replace(line)
				cmd := exec.Command("sh", "-c", "exec "+line)
				cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("there\n"+bye), os.Stdout, os.Stderr
				giveUp(cmd.Run())
			}
		}
	}
}

// panicking is the program, with a mistake that shows once a session has begun.
func panicking() {
	e := system()
	e.noticed = func(n stream.Notice) {
		if n.Kind == stream.Began {
			panic("at the worst time")
		}
	}
	os.Exit(program(os.Args, e).code)
}

// startsForOthers prints a token, but not elsewhere.
func startsForOthers(w *watched) {
	w.t.Helper()
	w.program(nil, "", strings.Fields(w.row.args)...)
	if shows(w.last.stdout, w.secrets()[len(w.secrets())-2]) == "" {
		w.t.Errorf("it prints no token: %q", w.last.stdout)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seen, "stdout")
}

// response starts a session for another program.
func (w *watched) response() string {
	w.t.Helper()
	own := w.row
	defer func() { w.row = own }()
	w.row.program, w.row.stdin = "", ""
	w.program(nil, "", "start", exampleTarget, "--no-connect", "--output", "json",
		"--document-name", "AWS-StartInteractiveCommand", "--parameters", `{"command":["sh `+w.dir+`/counting"]}`)
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seen, "stdout")
	return w.last.stdout
}

// connects1 runs connect.
func connectsBy(line string) func(*watched) {
	return func(w *watched) {
		w.t.Helper()
		response := w.response()
		var env []string
		given := ""
		switch {
		case strings.Contains(line, "RESPONSE"):
			env, given = []string{"RESPONSE=" + response}, "environment"
		case strings.Contains(line, "DIR"):
			if err := os.WriteFile(filepath.Join(w.dir, "response"), []byte(response), 0o600); err != nil {
				w.t.Fatal(err)
			}
		default:
			w.row.stdin = response
		}
		w.program(env, given, strings.Fields(line)...)
	}
}

// isPlugin runs the program in the plugin's place.
func isPlugin(how string) func(*watched) {
	return func(w *watched) {
		w.t.Helper()
		response := w.response()
		w.row.program = pluginName
		request := `{"Target": "` + exampleTarget + `", "DocumentName": "AWS-StartInteractiveCommand"}`
		const name = "AWS_SSM_START_SESSION_RESPONSE_1"
		rest := []string{emulator.DefaultRegion, "StartSession", "role", request, w.relay.URL}
		switch how {
		case "variable":
			w.program([]string{name + "=" + response}, "environment", append([]string{name}, rest...)...)
		case "argument":
			w.program(nil, "arguments", append([]string{response}, rest...)...)
		case "legacy":
			w.program(nil, "arguments", response, emulator.DefaultRegion, "StartSession")
		}
	}
}

// goesToTheBackground leaves a process, and ends it.
func goesToTheBackground(w *watched) {
	w.t.Helper()
	w.program(nil, "", "forward", exampleTarget, "-f", "-L", "0:PORT", "--pid-file", "DIR/pid")
	data, err := os.ReadFile(filepath.Join(w.dir, "pid"))
	if err != nil {
		w.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.lookAround()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	eventually(w.t, "the one in the background has ended", func() bool {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	})
}

// aborts has the Go runtime print all that it knows of a session.
func aborts(w *watched) {
	w.t.Helper()
	w.env = append(w.env, "GOTRACEBACK=all")
	cmd := w.start(nil, "", "exec", exampleTarget, "--", "sleep", "60")
	eventually(w.t, "the session has begun", func() bool {
		events, err := os.ReadFile(filepath.Join(w.dir, "events"))
		return err == nil && strings.Contains(string(events), `"event":"ready"`)
	})
	if err := cmd.Process.Signal(syscall.SIGABRT); err != nil {
		w.t.Fatal(err)
	}
	w.wait(cmd)
}

// TestTheKeyOfOneConnectionIsInMemoryAlone knows the private key because the dice
// are loaded.
func TestTheKeyOfOneConnectionIsInMemoryAlone(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 9)
	key, err := newAgentKey()
	if err != nil {
		t.Fatal(err)
	}
	cryptotest.SetGlobalRandom(t, 9)
	c := &sshCommand{env: &env{report: newReport(io.Discard)}, key: keyToPush{asked: true}}
	push, options, done, err := c.keyOptions()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	}()
	var said strings.Builder
	fmt.Fprintln(&said, push, options)
	files := map[string]string{}
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		files[name] = strings.Trim(value, `"`) // as ssh quotes words
	}
	public, err := os.ReadFile(files["IdentityFile"])
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(public), key.line()) {
		t.Fatalf("the test knows another key than is used: %q", public)
	}
	said.Write(public)
	if all, err := os.ReadDir(filepath.Dir(files["IdentityFile"])); err != nil || len(all) != 2 {
		t.Errorf("besides there are files: %v %v", all, err)
	}
	conn, err := net.Dial("unix", files["IdentityAgent"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for kind := range 256 { // whatever it is asked for
		request := append([]byte{byte(kind)}, sshStrings(key.public, []byte("data"), nil)...)
		if _, err := conn.Write(sshStrings(request)); err != nil {
			t.Fatal(err)
		}
		size := make([]byte, 4)
		if _, err := io.ReadFull(conn, size); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, int(size[2])<<8|int(size[3]))
		if _, err := io.ReadFull(conn, answer); err != nil {
			t.Fatal(err)
		}
		said.Write(answer)
	}
	if form := shows(said.String(), string(key.private.Seed())); form != "" {
		t.Errorf("the private key is shown, %s", form)
	}
}
