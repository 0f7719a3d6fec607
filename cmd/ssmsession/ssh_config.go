package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/session"
)

// The lines around what is ours in ssh's configuration.
const (
	configBegin = "# >>> ssmsession >>>"
	configEnd   = "# <<< ssmsession <<<"
)

// backupSuffix is of the file that keeps what ssh's configuration was before.
const backupSuffix = ".before-ssmsession"

// sshConfigCommand is ssmsession ssh-config.
type sshConfigCommand struct {
	env     *env
	open    opening // for its flags, which the lines repeat
	key     keyToPush
	user    string
	install bool
	file    string
}

func newSSHConfig(e *env) *cobra.Command {
	c := &sshConfigCommand{env: e}
	cmd := &cobra.Command{
		Use:   "ssh-config",
		Short: "print or install the lines that lead ssh to managed nodes",
		Long: `Ssh-config prints lines for ~/.ssh/config with which ssh, scp, sftp, rsync, git
and editors reach managed nodes by their ids: ssh ec2-user@i-0123456789abcdef0.
Flags such as --region and --profile are repeated in them.

With --install they are put into the file, between marks, at its end or where
they were put before. What is around them stays as it is; the file as it was is
kept beside it as config` + backupSuffix + `. Doing it again changes nothing.`,
		Example: `  ssmsession ssh-config
  ssmsession ssh-config --install --profile prod --region eu-west-1
  ssmsession ssh-config --user ec2-user --ec2-instance-connect \
      --public-key ~/.ssh/id_ed25519.pub`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd) },
	}
	f := cmd.Flags()
	f.BoolVar(&c.install, "install", false, "put them into ssh's configuration")
	f.StringVar(&c.file, "file", "", "with --install: the file (default: ~/.ssh/config)")
	f.StringVar(&c.user, "user", "", "user to log in as")
	c.key.addFlags(f)
	c.open.addRequestFlags(f)
	c.open.addChannelFlags(f)
	f.Lookup("document-name").Usage = "session document of the same kind (default: " + documentSSH + ")"
	lacks := tunnelsLack()
	lacks["target"] = "the lines are for all targets"
	lacks["output"] = "the output is lines for ssh"
	without(cmd, lacks)
	return cmd
}

func (c *sshConfigCommand) run(cmd *cobra.Command) error {
	if err := c.key.complete(cmd); err != nil {
		return err
	}
	if err := c.open.completeChannel(cmd, c.env); err != nil {
		return err
	}
	c.env.result = nil   // there is no session
	c.open.target = "%h" // as ssh calls it
	if err := c.open.completeRequest(cmd); err != nil {
		return err
	}
	switch {
	case c.file != "" && !c.install:
		return usage(cmd, errors.New("--file is where --install writes to: add it"))
	case strings.ContainsAny(c.user, " \t\r\n\"#"):
		return usage(cmd, fmt.Errorf("%q is no user for ssh", c.user))
	case c.key.asked && c.key.file == "":
		return usage(cmd, errors.New("in ssh's configuration, --ec2-instance-connect needs --public-key FILE"))
	}
	stanza, err := c.stanza(cmd, runtime.GOOS)
	if err != nil {
		return err
	}
	if !c.install {
		if _, err := c.env.out.WriteString(stanza); err != nil {
			return &session.WriteError{Err: err}
		}
		return nil
	}
	file := c.file
	if file == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return fmt.Errorf("cannot find ssh's configuration: %w", err)
		}
		file = filepath.Join(home, ".ssh", "config")
	}
	changed, err := installStanza(file, stanza)
	switch {
	case err != nil:
		return &failure{code: "BadConfig", err: fmt.Errorf("cannot change ssh's configuration: %w", err)}
	case !changed:
		c.env.say("%s has the lines already", oneLine(file))
	default:
		c.env.say("%s has the lines now", oneLine(file))
	}
	return nil
}

// stanza is the lines, for a system.
func (c *sshConfigCommand) stanza(cmd *cobra.Command, goos string) (string, error) {
	self, err := ownPath()
	if err != nil {
		return "", fmt.Errorf("cannot find this program's own file: %w", err)
	}
	flags := proxyFlags(cmd)
	if c.key.asked {
		public, err := filepath.Abs(c.key.file)
		if err != nil {
			return "", fmt.Errorf("cannot find the public key: %w", err)
		}
		osUser := "%r"
		if c.key.osUser != "" {
			osUser = percents(c.key.osUser)
		}
		flags = append(flags, "--ec2-instance-connect", "--os-user="+osUser, "--public-key="+percents(public))
	}
	line := proxyLine(goos, self, "%h", flags)
	if strings.ContainsAny(line, "\r\n\x00") {
		return "", &failure{code: "NotSupported", err: errors.New("a flag has a line break, which ssh's configuration cannot have")}
	}
	text := "# SSH through AWS Systems Manager: ssmsession ssh-config --install writes this.\n" +
		"Host i-* mi-*\n    ProxyCommand " + line + "\n"
	if c.user != "" {
		text += "    User " + c.user + "\n"
	}
	return text, nil
}

// installStanza puts the stanza into a file of ssh's, whole or not at all, and tells
// whether that changed it. A link is followed; the file's mode stays.
func installStanza(path, stanza string) (changed bool, err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if err := ordinary(path); err != nil {
		return false, err
	}
	mode := fs.FileMode(0o600)
	old, err := os.ReadFile(path)
	switch info, statErr := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return false, err
		}
	case err != nil:
		return false, err
	case statErr != nil:
		return false, statErr
	default:
		mode = info.Mode().Perm()
	}
	text, err := withStanza(string(old), stanza)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	if bytes.Equal(old, []byte(text)) {
		return false, nil
	}
	if len(old) > 0 {
		if err := replaceFile(path+backupSuffix, old, mode); err != nil {
			return false, err
		}
	}
	return true, replaceFile(path, []byte(text), mode)
}

// withStanza puts a stanza between its marks: where they are, or at the end, for
// lines before the first Host hold for all of them.
func withStanza(old, stanza string) (string, error) {
	eol := "\n"
	if strings.Contains(old, "\r\n") {
		eol = "\r\n"
	}
	block := strings.ReplaceAll(configBegin+"\n"+stanza+configEnd+"\n", "\n", eol)
	lines := slices.Collect(strings.Lines(old))
	isMark := func(mark string) func(string) bool {
		return func(line string) bool { return strings.TrimSpace(line) == mark }
	}
	begin, end := slices.IndexFunc(lines, isMark(configBegin)), slices.IndexFunc(lines, isMark(configEnd))
	switch {
	case begin < 0 && end < 0:
		switch {
		case old == "":
			return block, nil
		case !strings.HasSuffix(old, "\n"):
			old += eol
		}
		return old + eol + block, nil
	case begin < 0 || end < begin || slices.ContainsFunc(lines[begin+1:end], isMark(configBegin)) ||
		slices.ContainsFunc(lines[end+1:], isMark(configBegin)) || slices.ContainsFunc(lines[end+1:], isMark(configEnd)):
		return "", fmt.Errorf("its lines %q and %q are not one pair: mend it first", configBegin, configEnd)
	}
	return strings.Join(lines[:begin], "") + block + strings.Join(lines[end+1:], ""), nil
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, content []byte, mode fs.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil && runtime.GOOS != "windows" {
		err = file.Chmod(mode)
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}
