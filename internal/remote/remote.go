// Package remote makes what is sent to a target for `exec`: a command line that
// the agent takes apart again, and in it the small shell scripts that stand
// between the agent and the command.
//
// They are there because of what an agent gets wrong (docs/protocol.md,
// "NonInteractiveCommands" and "Output of the agent"): it cannot tell a death by signal from
// a failure, cannot tell that it lost output, has no standard input and kills
// one process only. They need a POSIX sh. docs/exec.md has the picture.
//
// It is text in, text out: it knows no session, no agent and no process.
package remote

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// MaxCommand is the most that StartSession takes as the value of a parameter, in
// bytes (API reference, StartSession, Parameters).
const MaxCommand = 65535

// Reasons for which a program cannot go with StartSession, but through Framed.
var (
	ErrTooLong = fmt.Errorf("the command line is longer than the %d bytes that StartSession takes", MaxCommand)
	ErrNotText = errors.New("the script is not UTF-8, which is all that StartSession takes")
)

// Program is what to run on the target.
type Program struct {
	// Argv is the program and its arguments; with Script, the arguments alone.
	// None may have a zero byte.
	Argv []string
	// Script is a script that is sent along, and nil when there is none. Its
	// first line names its interpreter, or else it is sh.
	Script []byte
	// Env is NAME=value, on top of what the target has.
	Env []string
	// Dir is the working directory; empty for the session's own.
	Dir string
	// Sized tells that a size of the terminal will be sent, which the program
	// should see from its start; in Terminal only.
	Sized bool
}

// NewNonce makes what tells the wrapper's own words from the command's output: 32
// hexadecimal digits.
func NewNonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// Check tells what no target could run.
func (p Program) Check() error {
	if len(p.Argv) == 0 && p.Script == nil {
		return errors.New("there is no command")
	}
	for _, a := range p.Argv {
		if strings.Contains(a, "\x00") {
			return errors.New("an argument has a zero byte in it")
		}
	}
	if strings.Contains(p.Dir, "\x00") {
		return errors.New("the directory has a zero byte in it")
	}
	for _, v := range p.Env {
		if !variable.MatchString(v) || strings.Contains(v, "\x00") {
			return fmt.Errorf("%q is not NAME=value", v)
		}
	}
	return nil
}

// Streams is the command line for AWS-StartNonInteractiveCommand with separate
// streams. Each of the two ends with [NONCE STATUS]; with binary each is base64
// in pieces, what ends it included.
func (p Program) Streams(nonce string, binary bool) (string, error) {
	if err := p.Check(); err != nil {
		return "", err
	}
	script := ""
	if p.Script != nil {
		if !isText(string(p.Script)) {
			return "", ErrNotText
		}
		script = string(p.Script)
	}
	supervise := fill(superviseText, nonce)
	if binary {
		supervise = fill(superviseEncodedText, nonce)
	}
	words := []string{"sh", "-c", launchText, "sh", supervise, p.runner(nonce, streamed)}
	if p.Script != nil {
		words = append(words, script)
	}
	return bounded(append(words, p.plainArgv()...))
}

// Framed is the command line for AWS-StartInteractiveCommand, for a pty that the
// wrapper makes a binary-safe pipe of: see docs/exec.md for the frames. What is
// in script, if anything, is the first input.
func (p Program) Framed(nonce string) (command string, script []byte, err error) {
	if err := p.Check(); err != nil {
		return "", nil, err
	}
	command, err = p.framed(nonce)
	if err != nil && p.Script == nil {
		// Too many words for StartSession make a script of their own.
		var b strings.Builder
		b.WriteString("exec")
		for _, a := range p.Argv {
			b.WriteString(" " + quote(a))
		}
		b.WriteString("\n")
		p.Script, p.Argv = []byte(b.String()), nil
		command, err = p.framed(nonce)
	}
	return command, p.Script, err
}

func (p Program) framed(nonce string) (string, error) {
	script := ""
	if p.Script != nil {
		script = "1"
	}
	return bounded(append([]string{
		"sh", "-c", fill(frameText, nonce), "sh", p.runner(nonce, framed), script,
	}, p.plainArgv()...))
}

// Terminal is the command line for AWS-StartInteractiveCommand with the pty as
// the command's terminal. Its output ends with [NONCE STATUS].
func (p Program) Terminal(nonce string) (string, error) {
	if err := p.Check(); err != nil {
		return "", err
	}
	words := []string{"sh", "-c", p.runner(nonce, onTerminal), "sh", "", ""}
	if p.Script != nil {
		if !isText(string(p.Script)) {
			return "", ErrNotText
		}
		words = append(words, string(p.Script))
	}
	return bounded(append(words, p.plainArgv()...))
}

// Plain is the command line as the agent runs it by itself, for
// AWS-StartNonInteractiveCommand on a target without sh. It carries neither a
// script nor an environment nor a directory.
func (p Program) Plain() (string, error) {
	switch err := p.Check(); {
	case err != nil:
		return "", err
	case p.Script != nil, p.Env != nil, p.Dir != "":
		return "", errors.New("a script, a variable and a directory need a sh on the target")
	}
	for _, a := range p.Argv {
		if !isText(a) {
			return "", errors.New("an argument that is not UTF-8 needs a sh on the target")
		}
	}
	return bounded(p.Argv)
}

// The statuses of a Probe. Any other tells that it could not look.
const (
	ProbeAsked  = 0 // the wrapper was there and has been asked
	ProbeNobody = 3 // there is none
)

// Probe is the command line, run plain in a session of its own, that asks the
// wrapper of the Streams with nonce for a sign: [NONCE] on each of its two outputs,
// as they are sent, between two bytes of the command's. With binary it is not
// encoded. The command notices nothing.
func Probe(nonce string) string {
	return "sh -c " + quote(fill(probeText, nonce))
}

// plainArgv is what of Argv travels as words of the command line: nothing, where
// the runner has them all in it.
func (p Program) plainArgv() []string {
	if p.odd() {
		return nil
	}
	return p.Argv
}

// odd tells that an argument would not survive the way through JSON and the
// agent.
func (p Program) odd() bool {
	for _, a := range p.Argv {
		if !isText(a) {
			return true
		}
	}
	return false
}

// bounded joins words for the agent to split again.
func bounded(words []string) (string, error) {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(quote(w))
	}
	if b.Len() > MaxCommand {
		return "", ErrTooLong
	}
	return b.String(), nil
}

// fill puts the nonce into a text.
func fill(text, nonce string) string { return strings.ReplaceAll(text, "NONCE", nonce) }
