package emulator

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ExportLines gives variables (Server.Environment) as lines of a POSIX shell.
func ExportLines(env [][2]string) string {
	var b strings.Builder
	for _, v := range env {
		fmt.Fprintf(&b, "export %s='%s'\n", v[0], strings.ReplaceAll(v[1], "'", `'\''`))
	}
	return b.String()
}

// WriteEnvFile writes the lines of ExportLines to a file that only this user can
// read, whole or not at all.
func WriteEnvFile(path string, env [][2]string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write the environment to %s: %w", path, err)
		}
	}()
	return replaceFile(path, ExportLines(env))
}

// replaceFile writes a file that only this user can read, whole or not at all.
func replaceFile(path, content string) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = file.WriteString(content)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}
