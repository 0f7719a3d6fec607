//go:build linux || darwin

package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// PTYSupported tells whether this system can run the sessions that need a pty.
func PTYSupported() bool { return true }

// controlSignal is the signal that a control character stands for in a session
// without a terminal.
func controlSignal(b byte) (os.Signal, bool) {
	switch b {
	case 0x03:
		return unix.SIGINT, true
	case 0x1c:
		return unix.SIGQUIT, true
	default:
		return nil, false
	}
}

// ownSession makes cmd the leader of a session of its own: killable with all
// its children, and without the terminal of this process.
func ownSession(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// Attempts of killSession. Each kills all there is, so that only a process that
// forks faster than it can be killed needs more than two.
const (
	killRounds   = 200
	killInterval = 5 * time.Millisecond
)

// killSession kills every process of the session that leader started and waits
// until they are gone, for a second at most. A process that made a session of
// its own, as daemons do, is not found.
func killSession(leader *os.Process) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for range killRounds {
		members := sessionMembers(leader.Pid)
		if len(members) == 0 {
			return
		}
		for _, pid := range members {
			// An error means that it is gone already, or is not ours to kill.
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		timer.Reset(killInterval)
		<-timer.C
	}
}

// ptyFile is the agent's end of a pty.
type ptyFile struct{ *os.File }

// startPTY starts cmd on a new pty of no size.
func startPTY(cmd *exec.Cmd) (terminal, error) {
	blocking, err := pty.Start(cmd)
	if err != nil {
		return nil, err
	}
	f, err := pollable(blocking)
	// The end that is kept is a duplicate.
	err = errors.Join(err, blocking.Close())
	if err != nil {
		killSession(cmd.Process)
		return nil, errors.Join(err, cmd.Wait())
	}
	return ptyFile{f}, nil
}

// pollable gives f anew as a file whose reads and writes end when it is closed.
// The pty library leaves it in blocking mode, where they do not.
func pollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate the pty: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("set the pty to non-blocking: %w", err), unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), f.Name())
	if err := file.SetDeadline(time.Time{}); err != nil {
		// Not a file that can be waited for, so it has to block after all.
		if err := unix.SetNonblock(fd, false); err != nil {
			return nil, errors.Join(fmt.Errorf("set the pty to blocking: %w", err), file.Close())
		}
	}
	return file, nil
}

func (p ptyFile) resize(cols, rows uint32) error {
	conn, err := p.SyscallConn()
	if err != nil {
		return fmt.Errorf("set the size of the pty: %w", err)
	}
	var failure error
	err = conn.Control(func(fd uintptr) {
		failure = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(cols), Row: uint16(rows)})
	})
	if err := errors.Join(err, failure); err != nil {
		return fmt.Errorf("set the size of the pty: %w", err)
	}
	return nil
}

// groupOnly names the leader's process group, in the form that kill takes, as
// long as there is one.
func groupOnly(leader int) []int {
	if unix.Kill(-leader, 0) != nil {
		return nil
	}
	return []int{-leader}
}
