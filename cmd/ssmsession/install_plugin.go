package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/session"
)

// installCommand is ssmsession install-plugin.
type installCommand struct {
	env   *env
	dir   string
	force bool
}

func newInstallPlugin(e *env) *cobra.Command {
	c := &installCommand{env: e}
	cmd := &cobra.Command{
		Use:   "install-plugin",
		Short: "put this program in the place of AWS's session-manager-plugin",
		Long: `Install-plugin makes this program answer to the name session-manager-plugin, by
which the AWS CLI, Ansible, Packer, editors and others call AWS's client: by a
symbolic link, or a hard link or a copy where there are none. They use the one
that comes first in PATH. What was made is printed on standard output.

Another program of that name is left alone, unless --force is given. A directory
that is not there is made.`,
		Example: `  ssmsession install-plugin
  ssmsession install-plugin --dir ~/.local/bin`,
		Args: atMost(0),
		RunE: func(*cobra.Command, []string) error { return c.run() },
	}
	f := cmd.Flags()
	f.StringVar(&c.dir, "dir", "", "where to put it (default: beside this program)")
	f.BoolVar(&c.force, "force", false, "replace another program of that name")
	return cmd
}

func (c *installCommand) run() error {
	self, err := ownPath()
	if err != nil {
		return fmt.Errorf("cannot find this program's own file: %w", err)
	}
	dir := c.dir
	if dir == "" {
		dir = filepath.Dir(self)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("cannot find the directory: %w", err)
	}
	path := filepath.Join(dir, pluginName+exeSuffix())
	how := "it is there already"
	if !sameFile(path, self) {
		if err := c.mayReplace(path); err != nil {
			return err
		}
		if how, err = install(self, path); err != nil {
			return &failure{code: "Failed", err: fmt.Errorf("cannot install %s: %w", path, err),
				hint: "--dir names a directory of yours that is in PATH"}
		}
	}
	if _, err := io.WriteString(c.env.out, path+"\n"); err != nil {
		return &session.WriteError{Err: err}
	}
	c.env.say("%s: %s", oneLine(path), oneLine(how))
	c.tellPath(path)
	return nil
}

// mayReplace refuses to replace what is not ours.
func (c *installCommand) mayReplace(path string) error {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil //nolint:nilerr // there is nothing, or else install says why
	case info.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case c.force || isOurs(path):
		return nil
	}
	return &failure{code: "Failed", err: fmt.Errorf("%s is another program", path),
		hint: "--force replaces it, --dir names another place, which must come before it in PATH"}
}

// isOurs tells a copy of this program, of any version, or a link to where one was.
func isOurs(path string) bool {
	if to, err := os.Readlink(path); err == nil {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return strings.TrimSuffix(filepath.Base(to), exeSuffix()) == "ssmsession"
		}
	}
	theirs, err := buildinfo.ReadFile(path)
	return err == nil && strings.HasPrefix(theirs.Path, "github.com/ssmsession/ssmsession/")
}

// tellPath says what callers find.
func (c *installCommand) tellPath(path string) {
	switch found, err := exec.LookPath(pluginName); {
	case err != nil:
		c.env.warn("%s is not in PATH: nobody finds it there", oneLine(filepath.Dir(path)))
	case sameFile(found, path):
		c.env.say("it is the first in PATH")
	default:
		c.env.warn("%s comes first in PATH, and callers use that", oneLine(found))
	}
}

// install makes path mean the program self. Whoever calls it meanwhile finds the
// one or the other.
func install(self, path string) (how string, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // ~/.local/bin is not everywhere
		return "", err
	}
	draft, err := os.MkdirTemp(filepath.Dir(path), ".ssmsession-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(draft)) }()
	made := filepath.Join(draft, filepath.Base(path))
	how = "a symbolic link to " + self
	if os.Symlink(self, made) != nil { // there are systems and users without
		how = "a hard link to " + self
		if os.Link(self, made) != nil {
			how = "a copy of " + self
			if err := copyProgram(self, made); err != nil {
				return "", err
			}
		}
	}
	return how, os.Rename(made, path)
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // nothing was written
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// ownPath is this program's file, by the name it has in PATH if that is the same:
// a package manager's link there outlives the file of one version.
func ownPath() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if found, err := exec.LookPath("ssmsession"); err == nil && sameFile(found, self) {
		return filepath.Abs(found)
	}
	return self, nil
}

// sameFile tells whether two paths lead to one file.
func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

func exeSuffix() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}
