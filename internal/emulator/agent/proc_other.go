//go:build !linux && !darwin

package agent

import (
	"os"
	"os/exec"
)

// PTYSupported tells whether this system can run the sessions that need a pty.
func PTYSupported() bool { return false }

func startPTY(*exec.Cmd) (terminal, error) { return nil, errNoPTY }

// controlSignal is the signal that a control character stands for in a session
// without a terminal: this system has one only.
func controlSignal(b byte) (os.Signal, bool) { return os.Kill, b == 0x03 || b == 0x1c }

func ownSession(*exec.Cmd) {}

// killSession kills the process that was started. Its children are not known.
func killSession(leader *os.Process) {
	// An error means that it is gone already.
	_ = leader.Kill()
}
