package events

import (
	"fmt"
	"os"
)

func openFile(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}

// inherited refuses: a process on Windows is handed three standard handles,
// and others only by arrangement, under values that no shell can name.
func inherited(int) (*os.File, error) {
	return nil, fmt.Errorf("%w: on Windows a program inherits no numbered descriptors; name a file", ErrSpec)
}
