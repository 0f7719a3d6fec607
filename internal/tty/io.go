package tty

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrNotOpen is returned by the reader of a file that is closed, that is none,
// or that is open for writing only, as nohup leaves standard input: there is
// nothing to read, and there never was. Whoever has a terminal in mind may take
// it as the end of the input; only the user can tell whether it was meant.
var ErrNotOpen = errors.New("not open for reading")

// NewReader returns a reader of f, a terminal or not, for one goroutine at a
// time. It reads as f does, with these differences:
//
//   - Whoever shares a terminal or a pipe with us may make it non-blocking at
//     any moment: the flag belongs to the open file, not to the process. A read
//     then waits until there is something, where f returns EAGAIN. The flag
//     itself is never touched, for the others rely on it.
//   - EIO from a terminal is io.EOF. Linux gives it once the other end of a pty
//     has closed, and every Unix gives it to a process in the background that
//     nobody can bring to the front any more. Neither will ever type again.
//     What is a terminal is asked here and not at the error: one that was hung
//     up no longer says so.
//   - A console of Windows gives every key, where f takes Ctrl-Z (0x1A) for the
//     end of the file, in line mode too: who wants that end reads f itself.
//   - ErrNotOpen says that there is no input.
//
// A standard input that was closed when the program began reads as empty: the
// Go runtime opens the null device in its place.
func NewReader(f *os.File) io.Reader {
	if read := console(f); read != nil {
		return &consoleReader{read: read}
	}
	return newFileReader(f)
}

// NewWriter returns a writer to f, for one goroutine at a time. Like the reader
// it waits where f returns EAGAIN, and goes on after what was written already:
// it writes all or returns an error. It leaves the flag alone, too. On Windows
// it is f.
func NewWriter(f *os.File) io.Writer { return newFileWriter(f) }

// readError says of an error that there is no input, when that is so.
func readError(err error) error {
	if errors.Is(err, errNotOpen) || errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrInvalid) {
		return fmt.Errorf("%w: %w", ErrNotOpen, err)
	}
	return err
}
