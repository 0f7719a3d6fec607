//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ssmsession/ssmsession/internal/session"
)

// Going to the background is done by two processes, for no Go program can fork.
// The one that was started, the leader, runs the program anew and gives on what
// that says until it is ready. The other one holds the sessions from the start;
// once it is ready it says so by readyMark, and leaves the terminal.

// followerVar has the leader's process id in the other one's environment.
const followerVar = "SSMSESSION_BACKGROUND_OF"

// readyMark ends what the follower writes to stdout. No ready line has it.
const readyMark = 0

// follows tells whether this process is the one that a leader has started.
func (c *forwardCommand) follows() bool {
	return c.background && c.env.getenv(followerVar) == strconv.Itoa(os.Getppid())
}

// leads tells whether this process is to start the one in the background.
func (c *forwardCommand) leads() bool { return c.background && !c.follows() }

// goToBackground starts the follower and returns once that is ready, or ends as it
// does.
func (c *forwardCommand) goToBackground(ctx context.Context) error {
	c.env.result.asked = false // the follower prints it
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program: %w", err)
	}
	cmd := exec.Command(program, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stderr = c.env.in, c.env.err
	cmd.Env = append(os.Environ(), followerVar+"="+strconv.Itoa(os.Getpid()))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("cannot make a pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start a process in the background: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		// The terminal's signals it gets itself; twice does no harm.
		if sig := (*signalError)(nil); errors.As(context.Cause(ctx), &sig) {
			if err := cmd.Process.Signal(sig.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
				c.env.log.Debug("cannot pass a signal on", "error", err)
			}
		}
	})
	defer stop()
	said, err := io.ReadAll(out)
	text, ready := bytes.CutSuffix(said, []byte{readyMark})
	if err == nil {
		_, err = c.env.out.Write(text)
	}
	if err != nil {
		err = &session.WriteError{Err: err}
	}
	if ready {
		if err != nil { // nobody reads that it is there
			err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM))
		}
		pid := cmd.Process.Pid
		err = errors.Join(err, cmd.Process.Release())
		if err == nil {
			c.env.say("it goes on in the background; kill %d ends it", pid)
		}
		return err
	}
	status := statusOf(cmd.Wait())
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return status
}

// detach tells the leader that all is ready, and leaves the terminal.
func (c *forwardCommand) detach() error {
	if !c.follows() {
		return nil
	}
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("cannot leave the terminal: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot leave the terminal: %w", err)
	}
	if _, err := c.env.out.Write([]byte{readyMark}); err != nil {
		return &session.WriteError{Err: err}
	}
	for fd := range 3 {
		if err := dup(int(null.Fd()), fd); err != nil {
			return fmt.Errorf("cannot leave the terminal: %w", err)
		}
	}
	return null.Close()
}
