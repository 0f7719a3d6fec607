//go:build unix

package tty

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// raw sets the input raw and keeps it so when the process is stopped and
// continued: the shell that had the terminal meanwhile leaves its own settings.
func (t *Terminal) raw() (undo func() error, err error) {
	var saved *term.State
	set := func(fd int) (err error) {
		saved, err = term.MakeRaw(fd)
		return err
	}
	// Notify before the change: a stop in between must not go unseen.
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, unix.SIGCONT)
	if err := control(t.in, set); err != nil {
		signal.Stop(continued)
		return nil, err
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-continued:
				// No error can be told from here, and none matters: a
				// terminal that cannot be set has gone, as reading will show.
				_ = control(t.in, setRawAgain)
			}
		}
	}()
	return func() error {
		signal.Stop(continued)
		close(stop)
		<-done
		return control(t.in, func(fd int) error {
			if !foreground(fd) {
				return nil
			}
			return term.Restore(fd, saved)
		})
	}, nil
}

// Obey is for Windows; here every terminal obeys control sequences.
func (t *Terminal) Obey() (undo func() error, err error) { return func() error { return nil }, nil }

func setRawAgain(fd int) error {
	if !foreground(fd) {
		return nil
	}
	_, err := term.MakeRaw(fd)
	return err
}

// foreground reports whether the terminal is ours to set. In the background it
// is the shell's, which has its own settings in place; a process that sets it
// all the same is stopped by SIGTTOU, and one that is on its way out would hang
// there. A terminal that does not control this process has no such rule.
func foreground(fd int) bool {
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err != nil || group == unix.Getpgrp()
}
