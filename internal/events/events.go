// Package events tells scripts what happens in a session: one JSON object a
// line, to a file or an inherited descriptor (docs/events.md). It knows nothing
// of sessions and terminals, and never holds up who tells it something.
package events

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	queueLength = 1024        // lines that wait for the reader
	closeGrace  = time.Second // for writing them at the end
)

// ErrSpec is a spec that cannot be meant, on any day.
var ErrSpec = errors.New("events go to FILE or fd:N")

// sink is where the lines go; an *os.File is one.
type sink interface {
	io.WriteCloser
	// SetWriteDeadline ends a Write that waits, where that is possible: see
	// os.ErrNoDeadline.
	SetWriteDeadline(t time.Time) error
}

// Writer writes events. Its methods may be called from any goroutine, and on a
// nil *Writer, which takes events and forgets them.
type Writer struct {
	name    string
	out     sink // belongs to the goroutine of run, but for its deadline
	queue   chan []byte
	expired chan struct{} // closed when nothing more is to be written
	done    chan struct{} // closed once out is closed and err is set
	err     error         // the first of writing
	finish  func() error

	// mu guards what follows, and that lines are queued in the order of their
	// times. It is never held while something is waited for.
	mu      sync.Mutex
	dropped int64 // events since the last one that was queued
	closed  bool  // no more sends: queue is closed
}

// Open begins to write events to what spec names:
//
//   - FILE is created, for its user alone (0600), or truncated. A FIFO or a
//     device is opened as it is, and without waiting: nobody has to read a FIFO
//     yet, and its readers may come and go.
//   - fd:N is a descriptor that the program was started with, from 1 on. It is
//     the Writer's from then on, not passed to child processes and closed with
//     it, but for 1 and 2, which stay open. /dev/stdout, /dev/stderr and
//     /dev/fd/N mean the same. Windows has none.
//
// A spec that is neither gives an error that wraps ErrSpec. The caller has to
// Close the Writer.
//
// A reader of fd:N that goes away makes the kernel send SIGPIPE at the next
// line. Go ignores that for descriptors above 2, which the Writer's always are,
// but not if the program asked for the signal with signal.Notify: then it must
// not take it for the end of its own output.
func Open(spec string) (*Writer, error) {
	out, err := open(spec)
	if errors.Is(err, ErrSpec) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("cannot write events: %w", err)
	}
	return newWriter(spec, out), nil
}

func open(spec string) (*os.File, error) {
	number, isDescriptor := descriptor(spec)
	switch {
	case spec == "":
		return nil, fmt.Errorf("%w: no file is named", ErrSpec)
	case spec == "-":
		return nil, fmt.Errorf(`%w: "-" is neither; stdout is fd:1, a file of that name ./-`, ErrSpec)
	case !isDescriptor:
		return openFile(spec)
	}
	n, err := strconv.ParseUint(number, 10, 31)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %q is no descriptor's number", ErrSpec, number)
	case n == 0:
		return nil, fmt.Errorf("%w: descriptor 0 is the session's input; N is at least 1", ErrSpec)
	}
	return inherited(int(n))
}

// descriptor gives the number in fd:N and in the other names of a descriptor,
// which bash's >(…) makes too: opened as files, they would be truncated, or
// written from their start, when they are files.
func descriptor(spec string) (number string, ok bool) {
	switch spec {
	case "/dev/stdout":
		return "1", true
	case "/dev/stderr":
		return "2", true
	}
	if number, ok = strings.CutPrefix(spec, "/dev/fd/"); ok {
		return number, true
	}
	return strings.CutPrefix(spec, "fd:")
}

func newWriter(name string, out sink) *Writer {
	w := &Writer{
		name:    name,
		out:     out,
		queue:   make(chan []byte, queueLength),
		expired: make(chan struct{}),
		done:    make(chan struct{}),
	}
	w.finish = sync.OnceValue(w.end)
	go w.run()
	return w
}

// Emit takes e to be written. It returns at once, whatever the reader does: an
// event that the queue of 1024 has no room for is dropped, and the next one
// that is written says how many were. Events after Close, or after an error in
// writing, are forgotten.
func (w *Writer) Emit(e Event) {
	if w == nil || e == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
	case len(w.queue) == cap(w.queue):
		w.dropped++
	default:
		// Only this method sends, and under mu: the room is still there.
		w.queue <- encode(time.Now(), w.dropped, e)
		w.dropped = 0
	}
}

// Close writes what is queued, for at most a second, and returns why not
// everything could be written: the first error of writing, which EPIPE is one
// of, os.ErrDeadlineExceeded after that second, or that the last events did
// not fit into the queue. Later calls return the same.
//
// A write to a descriptor that blocks cannot be called back (an inherited one
// is left in the mode it was found in). The one goroutine is then left to it,
// and ends with that write or with the process.
func (w *Writer) Close() error {
	if w == nil {
		return nil
	}
	return w.finish()
}

func (w *Writer) end() error {
	w.mu.Lock()
	w.closed = true
	close(w.queue)
	dropped := w.dropped
	w.mu.Unlock()

	limit := time.NewTimer(closeGrace)
	defer limit.Stop()
	select {
	case <-w.done:
	case <-limit.C:
		close(w.expired)
		if errors.Is(w.out.SetWriteDeadline(time.Now()), os.ErrNoDeadline) {
			return w.late()
		}
		<-w.done
	}
	switch {
	case errors.Is(w.err, os.ErrDeadlineExceeded):
		return w.late()
	case w.err != nil:
		return fmt.Errorf("cannot write events: %w", w.err)
	case dropped > 0:
		return fmt.Errorf("the last %d events did not fit into the queue: %s is read too slowly", dropped, w.name)
	}
	return nil
}

func (w *Writer) late() error {
	return fmt.Errorf("cannot write events: %s was not read to the end within %v: %w", w.name, closeGrace, os.ErrDeadlineExceeded)
}

// run writes the lines until the queue is closed. After an error it only takes
// them: what comes after a line that may be cut is no JSON.
func (w *Writer) run() {
	defer close(w.done)
	for line := range w.queue {
		if w.err == nil {
			w.err = w.write(line)
		}
	}
	if err := w.out.Close(); w.err == nil {
		w.err = err
	}
}

// write writes a line in one go: a pipe takes up to PIPE_BUF bytes whole.
func (w *Writer) write(line []byte) error {
	select {
	case <-w.expired:
		return os.ErrDeadlineExceeded
	default:
	}
	_, err := w.out.Write(line)
	return err
}
