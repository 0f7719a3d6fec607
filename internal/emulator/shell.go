package emulator

import (
	"errors"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
)

// ShellSupported tells why an emulator on this system cannot give a shell, nil
// where it can.
func ShellSupported() error {
	if !agent.PTYSupported() {
		return errors.New("the emulator has no pty for a shell on this system")
	}
	return nil
}
