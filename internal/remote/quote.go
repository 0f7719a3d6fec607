package remote

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// quote makes s one word for the agent's splitter and for sh alike: both take
// what is in single quotes as it is. `$$` and `{{` are parted, for they mean
// something to whoever fills in a session document (docs/protocol.md, "Session
// document").
func quote(s string) string {
	if s != "" && strings.Trim(s, safe) == "" {
		return s
	}
	return "'" + quoter.Replace(s) + "'"
}

const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"

//nolint:gochecknoglobals // a constant, which Go does not have of this type
var quoter = strings.NewReplacer("'", `'\''`, "$", "$''", "{", "{''")

// isText tells that s arrives as it is: UTF-8 without the control characters
// that something between here and there may stumble over, and without the
// character that stands for a mistake in an encoding.
func isText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r == utf8.RuneError {
			return false
		}
	}
	return true
}

// octal is an expression of sh's printf for any bytes.
func octal(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, `\%03o`, s[i])
	}
	return b.String()
}

// value is s as sh's assignment to name, whatever is in it.
func value(name, s string) string {
	if isText(s) {
		return name + "=" + quote(s) + "\n"
	}
	// What is printed loses the line breaks at its end. To add something for them
	// and cut that off again is not for bash, which then makes other bytes of some.
	text := strings.TrimRight(s, "\n")
	return fmt.Sprintf("%s=$(printf '%s')%s\n", name, octal(text), quote(s[len(text):]))
}

// interpreter reads the first line of a script as a kernel does: a program and
// at most one argument.
func interpreter(script []byte) []string {
	line, _, _ := strings.Cut(string(script[:min(len(script), 1024)]), "\n")
	rest, ok := strings.CutPrefix(line, "#!")
	rest = strings.Trim(rest, " \t\r")
	if !ok || rest == "" {
		return []string{"sh"}
	}
	program, argument, _ := strings.Cut(strings.ReplaceAll(rest, "\t", " "), " ")
	if argument = strings.Trim(argument, " "); argument != "" {
		return []string{program, argument}
	}
	return []string{program}
}
