package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// lostGrace is how long after the agent's exit code the markers may still come:
// the agent repeats output that was lost.
const lostGrace = 2 * time.Second

// errSilent says that the grace is over.
var errSilent = fmt.Errorf("nothing more came within %v after the exit code", lostGrace)

// execStream is stdout or stderr of the command.
type execStream struct {
	name        string
	sink        *sink
	marked      *marked
	base64, hex *digits
	raw         *marked // of a stream that is base64 with signs in it; or nil
	seen        bool    // something has come
	pulse       pulse
}

func newExecStream(name string, out io.Writer, nonce string) *execStream {
	s := &execStream{name: name, sink: &sink{out: out}}
	s.marked = newMarked(s.sink, nonce)
	return s
}

// decode takes digits that d, or what is in front of it, knows. What follows the
// marker is of no interest, mistakes included.
func (s *execStream) decode(d io.Writer, p []byte) error {
	if s.marked.done {
		return nil
	}
	_, err := d.Write(p)
	return s.fault(err)
}

// endChunk tells that no digits are missing.
func (s *execStream) endChunk(d *digits) error { return s.fault(d.end()) }

// fault makes of a mistake in an encoding what it means for the command.
func (s *execStream) fault(err error) error {
	if err == nil || s.marked.done {
		return nil
	}
	if write := (*WriteError)(nil); errors.As(err, &write) {
		return err
	}
	return &IncompleteError{Code: NoCode, Err: fmt.Errorf("%s cannot be decoded: %w", s.name, err)}
}

// execOutput is the side of an Exec that takes what comes.
type execOutput struct {
	mode           ExecMode
	binary         bool
	stdout, stderr *execStream
	frames         *frames // nil but for Framed
	words          words
	code           int64         // the agent's, or NoCode
	watch          *watch        // nil where nobody checks
	begun          chan struct{} // closed when something has come: the command is there
}

func newExecOutput(x Exec, told frameListener) *execOutput {
	r := &execOutput{
		mode:   x.Mode,
		binary: x.Mode == Streams && x.Binary,
		stdout: newExecStream("stdout", x.Out, x.Nonce),
		stderr: newExecStream("stderr", x.Err, x.Nonce),
		code:   NoCode,
		begun:  make(chan struct{}),
	}
	for _, s := range []*execStream{r.stdout, r.stderr} {
		switch {
		case x.Mode == Framed:
			s.base64, s.hex = newBase64(s.marked), newHex(s.marked)
		case r.binary:
			s.base64 = newBase64(s.marked)
			s.raw = newMarked(s.base64, x.Nonce)
		case x.NotText != nil:
			s.sink.notText = func() {
				r.stdout.sink.notText, r.stderr.sink.notText = nil, nil
				x.NotText(s.name)
			}
		}
	}
	if x.Mode == Plain {
		r.stdout.marked.begin, r.stderr.marked.begin = nil, nil
	}
	if x.Mode == OnTerminal {
		r.stderr.marked.begin = nil
	}
	if x.Mode == Framed {
		r.frames = &frames{nonce: x.Nonce, stdout: r.stdout, stderr: r.stderr, told: told}
	}
	if x.Mode == Streams && x.Check.Ask != nil {
		r.watch = newWatch(x.Check, r.stdout, r.stderr)
	}
	return r
}

// run takes what comes until the command is over.
func (r *execOutput) run(ctx context.Context, peer Peer) error {
	wait, stop := r.watch.bound(ctx)
	defer stop()
	for first := true; ; first = false {
		typ, p, err := peer.Recv(wait)
		if err != nil {
			return r.ended(ctx, err)
		}
		if first {
			close(r.begun)
		}
		r.watch.taking()
		switch typ {
		case frame.Output:
			err = r.output(p)
		case frame.StdErr:
			err = r.errors(p)
		case frame.ExitCode:
			first := r.code == NoCode
			if r.code, err = frame.ParseExitCode(p); first && r.mode != Plain {
				var cancel context.CancelFunc
				wait, cancel = context.WithTimeoutCause(wait, lostGrace, errSilent)
				defer cancel() // of the one first
			}
		}
		r.watch.taken()
		if r.over() {
			r.stdout.sink.end()
			r.stderr.sink.end()
			return &Status{int64(r.stdout.marked.status)}
		}
		if err == nil {
			err = r.cutOff()
		}
		if err != nil {
			return err
		}
	}
}

// cutOff tells that a marker will not come: whoever put the outputs in base64 has
// ended without one. It was killed, with what it had not written.
func (r *execOutput) cutOff() error {
	if !r.binary || !r.stdout.raw.done || !r.stderr.raw.done {
		return nil
	}
	if err := r.flush(); err != nil {
		return err
	}
	return &IncompleteError{Code: NoCode, Err: errors.New("what carries it was killed on the target")}
}

// over tells whether the markers have come. Where they differ, stdout's is the
// runner's, and stderr's the word of what outlived it.
func (r *execOutput) over() bool {
	return r.stdout.marked.done && (r.stderr.marked.done || r.mode == OnTerminal)
}

// output takes what came as payload type 1.
func (r *execOutput) output(p []byte) error {
	r.stdout.seen = true
	switch {
	case r.frames != nil:
		return r.frames.take(p)
	case r.binary:
		return r.stdout.decode(r.stdout.raw, p)
	}
	if err := r.errorBytes(r.words.release()); err != nil {
		return err
	}
	_, err := r.stdout.marked.Write(p)
	return err
}

// errors takes what came as payload type 11.
func (r *execOutput) errors(p []byte) error {
	switch {
	case r.frames != nil:
		return nil // the command's comes in frames
	case r.mode != Streams:
		_, err := r.stderr.marked.Write(p)
		return err
	case !r.binary && !r.stderr.seen && (r.stdout.seen || r.code == NoCode):
		r.words.closed = true
	}
	r.stderr.seen = true
	held, p := r.words.take(p, r.binary)
	if err := r.errorBytes(held); err != nil {
		return err
	}
	return r.errorBytes(p)
}

// errorBytes takes what belongs to the command's stderr.
func (r *execOutput) errorBytes(p []byte) error {
	if r.binary {
		return r.stderr.decode(r.stderr.raw, p)
	}
	_, err := r.stderr.marked.Write(p)
	return err
}

// ended tells what the end of the session means, for the reason of err.
func (r *execOutput) ended(ctx context.Context, err error) error {
	noShell := r.words.found == fromAgent && !r.stdout.seen
	if !noShell {
		if err := r.flush(); err != nil {
			return err
		}
	}
	unheard := (*unheardError)(nil)
	silent := errors.Is(err, errSilent) || errors.As(err, &unheard)
	if ctx.Err() != nil || !silent && !errors.Is(err, io.EOF) {
		return err
	}
	switch {
	case r.mode == Plain:
		return r.endedPlain(err)
	case noShell:
		return &NoShellError{Text: r.words.String(), Err: err}
	case r.words.found == fromWrapper && r.binary:
		return &CannotError{Text: r.words.String(), Err: err}
	case r.frames != nil && !r.frames.begun:
		return r.notBegun(err)
	}
	var missing []string
	for _, s := range []*execStream{r.stdout, r.stderr} {
		if !s.marked.done && s.marked.begin != nil {
			missing = append(missing, s.name)
		}
	}
	return &IncompleteError{r.code, fmt.Errorf("the end of %s is missing: %w", strings.Join(missing, " and "), err)}
}

// flush passes on what was held back, for nothing more will come.
func (r *execOutput) flush() error {
	if !r.binary || r.words.found == nobody {
		if err := r.errorBytes(r.words.release()); err != nil {
			return err
		}
	}
	for _, s := range []*execStream{r.stdout, r.stderr} {
		if err := s.marked.flush(); err != nil {
			return err
		}
		s.sink.end()
	}
	return nil
}

// endedPlain is the good end of a session without markers.
func (r *execOutput) endedPlain(err error) error {
	switch {
	case r.code == NoCode:
		return errors.Join(ErrNoStatus, err)
	case r.code < 0:
		return errors.Join(&StatusError{r.code}, err)
	}
	return errors.Join(&Status{r.code}, err)
}

// notBegun is the end of a session whose wrapper never said a word.
func (r *execOutput) notBegun(err error) error {
	noise := strings.TrimSpace(string(r.frames.noise))
	if noise == "" {
		return &IncompleteError{r.code, fmt.Errorf("the command did not start: %w", err)}
	}
	return &CannotError{Text: noise, Err: err}
}

// words is what the agent or the wrapper say on stderr in place of a command
// that they cannot start. Nothing but how it opens tells it from the command's
// output.
type words struct {
	text   []byte
	found  speaker
	closed bool // what comes is the command's
}

// speaker is whose words they are.
type speaker int

const (
	nobody speaker = iota
	fromAgent
	fromWrapper
)

// openings are how they begin; of the wrapper only where it says so, in base64's
// place.
func openings(binary bool) map[string]speaker {
	m := map[string]speaker{
		"Error occurred starting the command: ": fromAgent,
		`exec: "`:                               fromAgent,
		"fork/exec ":                            fromAgent,
	}
	if binary {
		m["ssmsession: "] = fromWrapper
	}
	return m
}

// take keeps what may be such words and gives back what is not: what was held
// for them, and the rest.
func (w *words) take(p []byte, binary bool) (held, rest []byte) {
	if w.closed {
		return nil, p
	}
	if w.found == nobody {
		known := openings(binary)
		for len(p) > 0 && w.found == nobody {
			w.text, p = append(w.text, p[0]), p[1:]
			possible := false
			for opening, whose := range known {
				if strings.HasPrefix(opening, string(w.text)) {
					possible = true
				}
				if opening == string(w.text) {
					w.found = whose
				}
			}
			if !possible {
				return w.release(), p
			}
		}
	}
	w.text = appendUpTo(w.text, p, maxWords)
	return nil, nil
}

// release gives back what is held after all.
func (w *words) release() []byte {
	held := w.text
	if !w.closed && len(held) > 0 {
		*w = words{closed: true}
	}
	return held
}

func (w *words) String() string { return strings.TrimSpace(string(w.text)) }
