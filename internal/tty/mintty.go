package tty

import (
	"os"
	"strings"
)

// Mintty reports whether f is one end of a Cygwin or MSYS pty, as mintty and
// Git Bash give it to programs of Windows: for us a pipe, with a person behind
// it, but neither raw mode nor a size. A console can be had there with winpty.
// It is false on all other systems, and for a pty that these emulate with a
// console of Windows (ConPTY), which is a terminal like any other.
//
// Ask before f is read: Windows has the question wait until a read is done.
func Mintty(f *os.File) bool { return isMsysPty(pipeName(f)) }

// isMsysPty reports whether a pipe of Windows with this name is an end of a
// Cygwin or MSYS pty: \msys-HEX-ptyN-from-master or -to-master, where HEX tells
// the installation; newer ones add what programs the pipe is for, as in
// -from-master-nat.
func isMsysPty(name string) bool {
	name = strings.TrimPrefix(name, `\Device\NamedPipe`)
	parts := strings.Split(name, "-")
	if len(parts) < 5 || parts[0] != `\msys` && parts[0] != `\cygwin` {
		return false
	}
	number, isPty := strings.CutPrefix(parts[2], "pty")
	return isPty && only(parts[1], "0123456789abcdefABCDEF") && only(number, "0123456789") &&
		(parts[3] == "from" || parts[3] == "to") && parts[4] == "master"
}

// only reports whether s has one of the given characters at least, and no
// other.
func only(s, chars string) bool { return s != "" && strings.Trim(s, chars) == "" }
