package tty

import (
	"io"
	"os"

	"golang.org/x/sys/windows"
)

// errNotOpen is what the system says of a standard handle that leads nowhere.
const errNotOpen = windows.ERROR_INVALID_HANDLE

// console returns a function that reads from the console f, or nil when f is
// none. The function returns no units and no error when Ctrl-Break broke the
// read off, of which the program learns by a signal.
func console(f *os.File) func(units []uint16) (int, error) {
	if !isTerminal(f) {
		return nil
	}
	return func(units []uint16) (int, error) {
		var n uint32
		err := control(f, func(fd int) error {
			return windows.ReadConsole(windows.Handle(fd), &units[0], uint32(len(units)), &n, nil)
		})
		if err != nil {
			return 0, readError(&os.PathError{Op: "read", Path: f.Name(), Err: err})
		}
		return int(n), nil
	}
}

// fileReader is NewReader's for all that is no console.
type fileReader struct {
	f *os.File
}

func newFileReader(f *os.File) io.Reader { return &fileReader{f: f} }

func (r *fileReader) Read(p []byte) (int, error) {
	n, err := r.f.Read(p)
	return n, readError(err)
}

func newFileWriter(f *os.File) io.Writer { return f }
