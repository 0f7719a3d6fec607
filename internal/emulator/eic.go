package emulator

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"
)

const (
	// eicService is what calls of EC2 Instance Connect are signed for, and eicPrefix
	// what is before the action in their X-Amz-Target (its model, 2018-04-02).
	eicService = "ec2-instance-connect"
	eicPrefix  = "AWSEC2InstanceConnectService."
)

// sendSSHPublicKeyInput is the input of SendSSHPublicKey.
type sendSSHPublicKeyInput struct {
	InstanceId, InstanceOSUser, SSHPublicKey, AvailabilityZone *string
}

// validate implements input.
func (in *sendSSHPublicKeyInput) validate(v *validation) {
	if v.required("instanceId", in.InstanceId != nil) {
		v.length("instanceId", *in.InstanceId, 10, 32)
		v.pattern("instanceId", *in.InstanceId, regexp.MustCompile(`^i-[a-f0-9]+$`))
	}
	if v.required("instanceOSUser", in.InstanceOSUser != nil) {
		v.length("instanceOSUser", *in.InstanceOSUser, 1, 32)
	}
	if v.required("sSHPublicKey", in.SSHPublicKey != nil) {
		v.length("sSHPublicKey", *in.SSHPublicKey, 80, 4096)
	}
	if in.AvailabilityZone != nil {
		v.length("availabilityZone", *in.AvailabilityZone, 6, 32)
	}
}

// sendSSHPublicKey is SendSSHPublicKey: a key that opens the instance for a minute.
// Every instance is this machine and every user the one that runs the server, so
// the key is good for whatever the reader of Config.AuthorizedKeys lets it be. The
// texts of the errors are ours; that a node's agent is offline does not matter.
func (s *Server) sendSSHPublicKey(_ caller, in *sendSSHPublicKeyInput) (any, error) {
	if !slices.ContainsFunc(s.cfg.Targets, func(t Target) bool { return t.ID == *in.InstanceId }) {
		return nil, modelled("EC2InstanceNotFoundException", fmt.Sprintf("Instance %s was not found.", *in.InstanceId))
	}
	key, err := parsePublicKey(*in.SSHPublicKey)
	if err != nil {
		return nil, modelled("InvalidArgsException", fmt.Sprintf("SSHPublicKey: %s.", err))
	}
	if s.cfg.AuthorizedKeys == "" {
		return nil, modelled("EC2InstanceStateInvalidException", "The emulator has no file for keys (--authorized-keys).")
	}
	if err := s.keys.add(key); err != nil {
		s.log.Error("cannot install a key", "error", err)
		return nil, modelled("EC2InstanceStateInvalidException", "The emulator cannot write its file of keys.")
	}
	s.log.Info("key installed", "instance", *in.InstanceId, "user", *in.InstanceOSUser)
	return struct {
		RequestId string
		Success   bool
	}{uuid.NewString(), true}, nil
}

// parsePublicKey reads a public key in OpenSSH's form and gives it without its
// comment. What may stand before a key in a file of them, such as a command, is no
// part of one, nor is a second line. Instance Connect takes RSA and ED25519.
func parsePublicKey(text string) (string, error) {
	text = strings.TrimRight(text, "\r\n")
	fields := strings.Fields(text)
	if strings.ContainsAny(text, "\r\n\x00") || len(fields) < 2 {
		return "", errors.New("it is not one line of a key in OpenSSH's form")
	}
	kind := fields[0]
	if kind != "ssh-ed25519" && kind != "ssh-rsa" {
		return "", errors.New("it begins with neither ssh-ed25519 nor ssh-rsa")
	}
	blob, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil {
		return "", errors.New("it is not in base64")
	}
	// The first thing in a key is its kind, with a length.
	if len(blob) < 4 || binary.BigEndian.Uint32(blob) != uint32(len(kind)) || !strings.HasPrefix(string(blob[4:]), kind) {
		return "", errors.New("it is not what it says it is")
	}
	return kind + " " + fields[1], nil
}
