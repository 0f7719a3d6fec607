package tty

import (
	"errors"

	"golang.org/x/sys/windows"
	"golang.org/x/term"
)

// raw sets the input raw, with keys as VT sequences, and has the output obey
// VT sequences when it is a console.
func (t *Terminal) raw() (undo func() error, err error) {
	var saved *term.State
	err = control(t.in, func(fd int) (err error) {
		// MakeRaw turns ENABLE_VIRTUAL_TERMINAL_INPUT on itself.
		saved, err = term.MakeRaw(fd)
		return err
	})
	if err != nil {
		return nil, err
	}
	undoIn := func() error {
		return control(t.in, func(fd int) error { return term.Restore(fd, saved) })
	}
	// The remote moves the cursor itself: a line feed is no new line, nor is the
	// last column.
	undoOut, err := t.setOut(windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING | windows.DISABLE_NEWLINE_AUTO_RETURN)
	if err != nil {
		return nil, errors.Join(err, undoIn())
	}
	return func() error { return errors.Join(undoIn(), undoOut()) }, nil
}

// Obey has the output obey control sequences, which a console does only when it is
// told to. undo gives back what Obey found.
func (t *Terminal) Obey() (undo func() error, err error) {
	return t.setOut(windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING)
}

// setOut adds to the mode of the output, when it is a console.
func (t *Terminal) setOut(flags uint32) (undo func() error, err error) {
	if !t.OutIsTerminal() {
		return func() error { return nil }, nil
	}
	var mode uint32
	err = control(t.out, func(fd int) error {
		console := windows.Handle(fd)
		if err := windows.GetConsoleMode(console, &mode); err != nil {
			return err
		}
		return windows.SetConsoleMode(console, mode|windows.ENABLE_PROCESSED_OUTPUT|flags)
	})
	if err != nil {
		return nil, err
	}
	return func() error {
		return control(t.out, func(fd int) error { return windows.SetConsoleMode(windows.Handle(fd), mode) })
	}, nil
}
