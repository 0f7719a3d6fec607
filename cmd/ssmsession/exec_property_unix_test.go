//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ssmsession/ssmsession/internal/emulator"
)

// TestExecIsTransparent runs random commands in every form that exec has, with
// random words, bytes, sizes and ends, and with reads and writes of random sizes
// at both ends: the words, the input, both outputs and the status are the
// command's, to the byte. The program runs in this process, over an emulator that
// does, too; the commands are real. SEED and CASES repeat what failed.
func TestExecIsTransparent(t *testing.T) { playExecCases(t, 200, 10_000, emulator.Config{}) }

// TestExecIsTransparentEncrypted does the same over encrypted sessions.
func TestExecIsTransparentEncrypted(t *testing.T) {
	playExecCases(t, 24, 1000, emulator.Config{KMSKeys: []string{soakKey}})
}

// TestExecIsTransparentOnABadDay does the same over a service that loses, doubles
// and reorders. It cuts no connection: of a pause, the agent's own streams have no
// way back. Nor is in them more than the agent repeats in the ten seconds that it
// gets after the command has ended.
func TestExecIsTransparentOnABadDay(t *testing.T) {
	playExecCases(t, 24, 500, emulator.Config{}, "drop=5%", "duplicate=5%", "reorder=5%", "lose-acks=5%")
}

// playExecCases plays so many cases, or with SOAK=1 the other number of them.
func playExecCases(t *testing.T, cases, soak int, cfg emulator.Config, faults ...string) {
	if os.Getenv("SOAK") != "" {
		cases = soak
	}
	cases = fromEnvironment(t, "CASES", cases)
	seed := fromEnvironment(t, "SEED", int(rand.Int32()))
	server := startServer(t, cfg, faults...)
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("the emulator does not stop: %v", err)
		}
	})
	key, secret := server.Credentials()
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": server.URL(), "AWS_REGION": emulator.DefaultRegion,
		"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_CA_BUNDLE": "", "HOME": "/nonexistent",
	} {
		t.Setenv(name, value)
	}
	const lanes = 4 // at the same time
	for lane := range lanes {
		t.Run(fmt.Sprint("lane", lane), func(t *testing.T) {
			t.Parallel()
			for i := lane; i < cases; i += lanes {
				c := newExecCase(i, seed)
				if len(faults) > 0 {
					c.fit()
				}
				if !t.Run(strconv.Itoa(i), c.play) {
					t.Logf("SEED=%d CASES=%d, case %d: %v; the seed of the faults is %d", seed, i+1, i, c, server.FaultSeed())
				}
			}
		})
	}
}

// fromEnvironment is a number that a variable may give.
func fromEnvironment(t *testing.T, name string, otherwise int) int {
	t.Helper()
	given := os.Getenv(name)
	if given == "" {
		return otherwise
	}
	n, err := strconv.Atoi(given)
	if err != nil || n < 0 {
		t.Fatalf("%s is %q, not a number", name, given)
	}
	return n
}

// execCase is one command and what has to come of it.
type execCase struct {
	random   *rand.Rand // of the test's goroutine
	way      string     // by which its bytes travel
	carrier  string     // what it is to exec
	words    []string
	variable string // --env E=
	dir      bool   // --cwd
	input    string // what it does with stdin
	in       []byte
	take     int // bytes of in, with inputHead
	out, err []byte
	end      string // the last line of its script
	status   int
}

// The ways, the carriers and what a command does with its input.
const (
	wayStreams = "streams"
	wayBinary  = "--binary"
	wayInput   = "-i"
	wayPty     = "--via pty"

	asCommand = "a command"
	asScript  = "--script"
	asShell   = "--shell"

	inputNone      = "nothing"
	inputFile      = "into a file"
	inputMeanwhile = "into a file, meanwhile"
	inputHead      = "its head into a file"
	inputEcho      = "to stdout"
)

// caseScript is every command: $1 is a directory, $2 what it does with stdin, $3
// how it ends, and the rest are the words. Its outputs come out of two FIFOs.
const caseScript = `ulimit -c 0
d=$1 input=$2 end=$3
shift 3
printf '%s\0' "$PWD" "${E-none}" "$@" >"$d/words"
case $input in
file) cat >"$d/in" ;;
meanwhile) exec 8<&0; cat <&8 >"$d/in" & ;;
head*) head -c "${input#head}" >"$d/in" ;;
echo) cat ;;
esac
cat <"$d/err" >&2 &
cat <"$d/out"
wait
eval "$end"
`

// newExecCase is the i-th one.
func newExecCase(i, seed int) *execCase {
	r := rand.New(rand.NewPCG(uint64(seed), uint64(i)))
	c := &execCase{
		random: r,
		way:    []string{wayStreams, wayBinary, wayInput, wayPty}[i/4%4], carrier: asCommand,
		dir: r.IntN(4) == 0, input: inputNone, variable: string(randomWord(r)),
	}
	switch r.IntN(6) {
	case 0:
		c.carrier = asScript
	case 1:
		c.carrier = asShell
	}
	for range r.IntN(6) {
		c.words = append(c.words, string(randomWord(r)))
	}
	if r.IntN(50) == 0 && c.carrier != asScript { // too long for StartSession
		c.words = append(c.words, strings.Repeat("x"+string(randomWord(r)), 70_000)[:70_000])
	}
	bytes := randomBytes
	if c.way == wayStreams {
		bytes = randomText // all that an agent leaves as it is
	}
	c.out, c.err = bytes(r, randomSize(r)), bytes(r, randomSize(r))
	if c.way == wayInput {
		c.in = randomBytes(r, randomSize(r))
		c.input = []string{inputNone, inputFile, inputMeanwhile, inputHead, inputEcho}[r.IntN(5)]
		c.take = r.IntN(len(c.in) + 1)
	}
	c.end, c.status = randomEnd(r)
	return c
}

// lingerBytes is of each output what a seventh of can be repeated well in ten
// seconds: one message of 1024 bytes each 100 ms, of base64 with --binary.
const lingerBytes = 100_000

// fit makes the outputs short enough for a bad day.
func (c *execCase) fit() {
	if c.way != wayStreams && c.way != wayBinary {
		return
	}
	for _, out := range []*[]byte{&c.out, &c.err} {
		*out = (*out)[:min(len(*out), lingerBytes)]
		if c.way == wayStreams { // and has to stay UTF-8
			*out = bytes.ToValidUTF8(*out, nil)
		}
	}
}

// String describes it.
func (c *execCase) String() string {
	return fmt.Sprintf("%s as %s, %d words %.200q, %d bytes of input go %s (of them %d), %d to stdout, %d to stderr, E=%.40q, --cwd %t; %s",
		c.way, c.carrier, len(c.words), c.words, len(c.in), c.input, c.take, len(c.out), len(c.err), c.variable, c.dir, c.end)
}

// randomSize is mostly small and sometimes many messages.
func randomSize(r *rand.Rand) int {
	switch n := r.IntN(100); {
	case n < 10:
		return 0
	case n < 60:
		return 1 + r.IntN(100)
	case n < 90:
		return r.IntN(5000)
	case n < 99:
		return r.IntN(100_000)
	}
	return r.IntN(1_000_000)
}

// randomText is UTF-8 of so many bytes, without U+FFFD.
func randomText(r *rand.Rand, size int) []byte {
	pieces := []string{
		"a", "b", "Z", "0", "9", " ", "\t", "\n", "\r", "\r\n", "\n~.", "\x00", "\x01", "\x03", "\x04", "\x1b[1m", "\x7f",
		"é", "ß", "€", "世界", "🦊", "\u202e", "[", "]", "(", ")", "(a)", "(o", "[0123456789abcdef", " 7]", "ssmsession: ", "exec: \"", "=", "'",
	}
	b := make([]byte, 0, size+8)
	for len(b) < size {
		p := pieces[r.IntN(len(pieces))]
		if len(b)+len(p) > size {
			p = "x"
		}
		b = append(b, p...)
	}
	return b
}

// randomBytes is text with bytes in it that are none, or bytes alone.
func randomBytes(r *rand.Rand, size int) []byte {
	b := randomText(r, size)
	often := []int{1, 10, 1000}[r.IntN(3)]
	for i := range b {
		if r.IntN(often) == 0 {
			b[i] = byte(r.IntN(256))
		}
	}
	if size >= 3 && r.IntN(4) == 0 {
		copy(b[size-3:], []string{"\xe2\x82\xac", "x\xe2\x82", "\xff\xfe\xfd", "\uFFFD"}[r.IntN(4)])
	}
	return b
}

// randomWord is an argument: any bytes but zero.
func randomWord(r *rand.Rand) []byte {
	pieces := []string{
		"", "a", "word", " ", "  ", "\t", "\n", "\r", "'", "\"", "\\", "$", "$$", "$HOME", "`", "*", "?", "[a-z]", "~", "#", "!",
		"{{ command }}", "{{", "}}", "%s", "%d", "&", ";", "|", ">", "<", "(", ")", "-", "--", "-n", "=", "é", "世", "🦊", "\x01", "\x1b", "\x7f",
		"\u2028", "\ufeff", "\ufffd", "\xff", "\xc3", "\xed\xa0\x80",
	}
	known := len(pieces) - 4
	if r.IntN(4) == 0 {
		known = len(pieces) // what is not UTF-8, too
	}
	var b []byte
	for range r.IntN(6) {
		b = append(b, pieces[r.IntN(known)]...)
	}
	return b
}

// randomEnd is the last line of a script, and the status that it has.
func randomEnd(r *rand.Rand) (line string, status int) {
	switch r.IntN(4) {
	case 0:
		return ":", 0
	case 1:
		signals := []syscall.Signal{ // but QUIT, which a sh that is bash ignores
			syscall.SIGHUP, syscall.SIGINT, syscall.SIGABRT, syscall.SIGKILL, syscall.SIGUSR1,
			syscall.SIGUSR2, syscall.SIGSEGV, syscall.SIGPIPE, syscall.SIGALRM, syscall.SIGTERM,
		}
		s := signals[r.IntN(len(signals))]
		if signal.Ignored(s) { // as whoever started us wanted, and then so does the command
			s = syscall.SIGKILL
		}
		return fmt.Sprintf("kill -%d $$", int(s)), 128 + int(s)
	}
	status = r.IntN(256)
	return fmt.Sprint("exit ", status), status
}

// inputWord is $2 of the script.
func (c *execCase) inputWord() string {
	switch c.input {
	case inputFile:
		return "file"
	case inputMeanwhile:
		return "meanwhile"
	case inputHead:
		return fmt.Sprint("head", c.take)
	case inputEcho:
		return "echo"
	}
	return "none"
}

// args is exec's command line for the command in a directory.
func (c *execCase) args(t *testing.T, dir string) []string {
	args := []string{"exec", exampleTarget, "--env", "E=" + c.variable}
	if c.way != wayStreams {
		args = append(args, strings.Fields(c.way)...)
	}
	at := dir
	if c.dir {
		args, at = append(args, "--cwd", dir), "."
	}
	switch c.carrier {
	case asScript:
		name := filepath.Join(dir, "script")
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"+caseScript), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--script", name, "--")
	case asShell:
		args = append(args, "--shell", caseScript, "--")
	default:
		args = append(args, "--", "sh", "-c", caseScript, "sh")
	}
	return append(append(args, at, c.inputWord(), c.end), c.words...)
}

// play runs the command and looks at all that came of it.
func (c *execCase) play(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"out", "err"} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	client := startClient(t, c.random.Uint64(), c.args(t, dir))
	echoed := 0
	var sides sync.WaitGroup
	feed := func(w io.WriteCloser, p []byte, seen *meter, before int) {
		pace := newPace(c.random.Uint64(), client.done, seen, before)
		sides.Go(func() { pace.write(w, p) })
	}
	switch c.input {
	case inputEcho:
		feed(client.in, c.in, client.out, 0)
		echoed = len(c.in)
	case inputNone:
		if c.random.IntN(2) == 0 { // it has no end
			break
		}
		fallthrough
	default:
		feed(client.in, c.in, nil, 0)
	}
	feed(&fifo{name: filepath.Join(dir, "out")}, c.out, client.out, echoed)
	feed(&fifo{name: filepath.Join(dir, "err")}, c.err, client.err, 0)

	code := client.end(t)
	client.in.Close() // if nobody else has
	letGo(t, dir, &sides)
	if code != c.status {
		t.Errorf("the exit code is %d, want %d", code, c.status)
	}
	wantBytes(t, "stdout", client.out.bytes(), append(c.in[:echoed:echoed], c.out...))
	wantBytes(t, "stderr", client.err.bytes(), c.err)
	c.wantWords(t, dir)
	switch c.input {
	case inputFile, inputMeanwhile:
		wantFile(t, "stdin", filepath.Join(dir, "in"), c.in)
	case inputHead:
		wantFile(t, "the head of stdin", filepath.Join(dir, "in"), c.in[:c.take])
	}
}

// wantWords looks at what the command was told in words.
func (c *execCase) wantWords(t *testing.T, dir string) {
	want := append([]string{c.variable}, c.words...)
	got, err := os.ReadFile(filepath.Join(dir, "words"))
	if err != nil {
		t.Errorf("the command did not run: %v", err)
		return
	}
	words := strings.Split(strings.TrimSuffix(string(got), "\x00"), "\x00")
	if in, want := filepath.Base(words[0]), filepath.Base(dir); c.dir && in != want {
		t.Errorf("the command ran in %q, want %q", in, want)
	}
	if !slices.Equal(words[1:], want) {
		t.Errorf("E and the words arrive as %.1000q, want %.1000q", words[1:], want)
	}
}

func wantFile(t *testing.T, what, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	wantBytes(t, what, got, want)
}

func wantBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	n := common(got, want)
	t.Errorf("%s has %d bytes, want %d; the first %d are right, then comes %.100q, want %.100q",
		what, len(got), len(want), n, got[n:], want[n:])
}

// client is an exec that runs in this process.
type client struct {
	in       *os.File
	out, err *meter
	done     chan struct{} // closed when it has ended
	code     int           // to be read after that
	drained  sync.WaitGroup
	files    []*os.File // its ends
}

// startClient runs the program.
func startClient(t *testing.T, seed uint64, args []string) *client {
	t.Helper()
	c := &client{out: newMeter(), err: newMeter(), done: make(chan struct{})}
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		return r, w
	}
	in, feed := pipe()
	outRead, out := pipe()
	errRead, stderr := pipe()
	c.in, c.files = feed, []*os.File{in, out, stderr}
	c.drained.Go(func() { c.out.drain(outRead, seed) })
	c.drained.Go(func() { c.err.drain(errRead, seed+1) })
	e := &env{
		in: in, out: out, err: stderr, version: "test", commit: "none", report: newReport(stderr),
		getenv: func(name string) string {
			if name == "GOMAXPROCS" {
				return strconv.Itoa(runtime.GOMAXPROCS(0)) // which is everybody's here
			}
			return os.Getenv(name)
		},
	}
	go func() {
		defer close(c.done)
		c.code = run(args, e).code
	}()
	return c
}

// end waits for the program's end and for all that it has written.
func (c *client) end(t *testing.T) int {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		stacks := make([]byte, 1<<20)
		t.Fatalf("exec has not ended in %v; its stdout has %d bytes, its stderr %.300q; all goroutines:\n%s",
			patience, c.out.size(), c.err.bytes(), stacks[:runtime.Stack(stacks, true)])
	}
	for _, f := range c.files {
		f.Close()
	}
	c.drained.Wait()
	return c.code
}

// meter keeps what comes out of a pipe, and tells how much that is.
type meter struct {
	mu      sync.Mutex // guards what follows
	got     []byte
	changed chan struct{} // closed, and another made, when more has come
}

func newMeter() *meter { return &meter{changed: make(chan struct{})} }

// drain reads by random sizes to the end, and closes.
func (m *meter) drain(r *os.File, seed uint64) {
	defer r.Close()
	random := rand.New(rand.NewPCG(seed, 0))
	buf := make([]byte, 1+random.IntN(40_000))
	for {
		n, err := r.Read(buf[:1+random.IntN(len(buf))])
		m.mu.Lock()
		m.got = append(m.got, buf[:n]...)
		close(m.changed)
		m.changed = make(chan struct{})
		m.mu.Unlock()
		if err != nil {
			return // io.EOF, or what is missing will be seen
		}
	}
}

func (m *meter) bytes() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.got)
}

func (m *meter) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.got)
}

// wait waits until n bytes have come, or for done.
func (m *meter) wait(n int, done <-chan struct{}) {
	for {
		m.mu.Lock()
		got, changed := len(m.got), m.changed
		m.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-changed:
		case <-done:
			return
		}
	}
}

// pace writes by random sizes. Sometimes it goes on only when what it has written
// has come out at the other end: nothing may be held back there for long.
type pace struct {
	random *rand.Rand
	done   <-chan struct{}
	seen   *meter // or nil, not to wait
	before int    // bytes that come out before
}

// heldBack is what may wait for more, in bytes: of a character with the agent, and
// of what may become a marker here.
const heldBack = 8

func newPace(seed uint64, done <-chan struct{}, seen *meter, before int) *pace {
	return &pace{random: rand.New(rand.NewPCG(seed, 0)), done: done, seen: seen, before: before}
}

// write writes p and closes. A reader that has gone is not its business.
func (p *pace) write(w io.WriteCloser, data []byte) {
	defer w.Close()
	most := 1 + p.random.IntN(1+p.random.IntN(1+len(data)))
	pauses := 0
	for sent := 0; sent < len(data); {
		n := min(1+p.random.IntN(most), len(data)-sent)
		if len(data) > 100_000 {
			n = min(max(n, 4096), len(data)-sent)
		}
		if _, err := w.Write(data[sent : sent+n]); err != nil {
			return
		}
		sent += n
		if p.seen != nil && pauses < 5 && p.random.IntN(3) == 0 {
			pauses++
			p.seen.wait(p.before+sent-heldBack, p.done)
		}
	}
	if o, ok := w.(*fifo); ok && len(data) == 0 {
		o.open()
	}
}

// fifo is the writing end of a FIFO, which opens when somebody reads.
type fifo struct {
	name string
	f    *os.File
}

func (f *fifo) open() (err error) {
	if f.f == nil {
		f.f, err = os.OpenFile(f.name, os.O_WRONLY, 0)
	}
	return err
}

func (f *fifo) Write(p []byte) (int, error) {
	if err := f.open(); err != nil {
		return 0, err
	}
	return f.f.Write(p)
}

func (f *fifo) Close() error {
	if f.f == nil {
		return nil
	}
	return f.f.Close()
}

// letGo waits for those who feed, and sees to it that none of them goes on waiting
// for a command that never came to read.
func letGo(t *testing.T, dir string, feeding *sync.WaitGroup) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		feeding.Wait()
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, name := range []string{"out", "err"} {
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		select {
		case <-done:
			return
		case <-tick.C: // one may not have begun to wait before
		}
	}
}
