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
	if !t.OutIsTerminal() {
		return undoIn, nil
	}
	var mode uint32
	err = control(t.out, func(fd int) error {
		console := windows.Handle(fd)
		if err := windows.GetConsoleMode(console, &mode); err != nil {
			return err
		}
		// The remote moves the cursor itself: a line feed is no new line, nor
		// is the last column.
		return windows.SetConsoleMode(console, mode|windows.ENABLE_PROCESSED_OUTPUT|
			windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING|windows.DISABLE_NEWLINE_AUTO_RETURN)
	})
	if err != nil {
		return nil, errors.Join(err, undoIn())
	}
	return func() error {
		return errors.Join(undoIn(), control(t.out, func(fd int) error {
			return windows.SetConsoleMode(windows.Handle(fd), mode)
		}))
	}, nil
}
