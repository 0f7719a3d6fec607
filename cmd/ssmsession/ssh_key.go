package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ssmsession/ssmsession/internal/api"
)

// keyToPush is what EC2 Instance Connect is asked for.
type keyToPush struct {
	asked  bool
	osUser string
	file   string
}

func (k *keyToPush) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.BoolVar(&k.asked, "ec2-instance-connect", false, "let a public key in with EC2 Instance Connect first; it is good for 60 seconds")
	f.StringVar(&k.osUser, "os-user", "", "with --ec2-instance-connect: the user that the key is for")
	f.StringVar(&k.file, "public-key", "", "with --ec2-instance-connect: file of the key, as ssh-keygen writes it (.pub)")
}

// complete refuses flags without the one that they belong to.
func (k *keyToPush) complete(cmd *cobra.Command) error {
	if !k.asked && (k.osUser != "" || k.file != "") {
		return usage(cmd, errors.New("--os-user and --public-key are of --ec2-instance-connect: add it"))
	}
	return nil
}

// read gives the key that the flags name.
func (k *keyToPush) read(target string) (api.SSHKey, error) {
	switch {
	case k.osUser == "":
		return api.SSHKey{}, errors.New("--ec2-instance-connect needs --os-user: %r in a ProxyCommand")
	case k.file == "":
		return api.SSHKey{}, errors.New("--ec2-instance-connect needs --public-key FILE")
	}
	data, err := os.ReadFile(k.file)
	if err != nil {
		return api.SSHKey{}, fmt.Errorf("cannot read the public key: %w", err)
	}
	line, err := publicKeyLine(string(data))
	if err != nil {
		return api.SSHKey{}, fmt.Errorf("%s %w", k.file, err)
	}
	key := api.SSHKey{InstanceID: target, OSUser: k.osUser, PublicKey: line}
	return key, key.Validate()
}

// publicKeyLine finds the one key in a file of ssh-keygen's. The file of a private
// key is refused: its owner has named it by mistake.
func publicKeyLine(text string) (string, error) {
	found := ""
	for line := range strings.Lines(text) {
		switch line = strings.TrimSpace(line); {
		case strings.Contains(line, "PRIVATE KEY-----"):
			return "", errors.New("is a private key: name the file of the public one (.pub)")
		case line == "" || strings.HasPrefix(line, "#"):
		case found != "":
			return "", errors.New("has more than one line: one key is pushed")
		default:
			found = line
		}
	}
	if found == "" {
		return "", errors.New("has no key in it")
	}
	return found, nil
}
