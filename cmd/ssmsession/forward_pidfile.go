package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// writePidFile writes the file of --pid-file, and gives what removes it unless
// somebody else has taken it over.
func (c *forwardCommand) writePidFile() (remove func(), err error) {
	if c.pidFile == "" {
		return func() {}, nil
	}
	pid := strconv.Itoa(os.Getpid())
	if err := os.WriteFile(c.pidFile, []byte(pid+"\n"), 0o600); err != nil {
		return nil, &failure{code: "NoPidFile", err: fmt.Errorf("cannot write the process id: %w", err)}
	}
	return func() {
		text, err := os.ReadFile(c.pidFile)
		if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(text)) != pid {
			return
		}
		if err == nil {
			err = os.Remove(c.pidFile)
		}
		if err != nil {
			c.env.warn("cannot remove the file with the process id: %s", oneLine(err.Error()))
		}
	}, nil
}
