//go:build unix

package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// terminalCommands are the script commands that need a terminal.
func terminalCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){"pty": onPty}
}

// onPty is the script command pty. Its first argument names a file that says, a
// line each, what the person at the terminal does:
//
//	want TEXT     waits until the screen shows the text
//	gone TEXT     waits until it does not show it any more
//	type KEYS     types, and Enter
//	keys KEYS     types, without
//	resize CxR    gives the terminal another size
//	ends N        waits for the program's end with this exit status and the
//	              terminal's settings as they were; the last line, which may
//	              be left out for 0
//
// KEYS may have Go's escapes: \x03 is Ctrl-C. What the screen shows at the end
// is the command's output.
func onPty(ts *testscript.TestScript, neg bool, args []string) {
	cols, rows := screenCols, screenRows
	if len(args) > 1 && args[0] == "-size" {
		cols, rows = parseSize(ts, args[1])
		args = args[2:]
	}
	if neg || len(args) < 2 {
		ts.Fatalf("usage: pty [-size CxR] file program args...")
	}
	s := openScreen(ts, ts.MkAbs("."), scriptEnv(ts), cols, rows, args[1:]...)
	defer s.close()
	ended := false
	for _, line := range strings.Split(ts.ReadFile(args[0]), "\n") {
		if line = strings.TrimSpace(line); line == "" || ended {
			continue
		}
		ended = act(ts, s, line)
	}
	if !ended {
		s.wantEnd(0)
	}
	_, _ = fmt.Fprintln(ts.Stdout(), s.text()) // to memory
}

// act does what a line of the file says. It tells whether that was the end.
func act(ts *testscript.TestScript, s *screen, line string) (ended bool) {
	verb, text, _ := strings.Cut(line, " ")
	switch verb {
	case "want":
		s.WaitFor(text)
	case "gone":
		s.WaitGone(text)
	case "type":
		s.Type(keysOf(ts, text) + "\r")
	case "keys":
		s.Type(keysOf(ts, text))
	case "resize":
		s.Resize(parseSize(ts, text))
	case "ends":
		status, err := strconv.Atoi(text)
		ts.Check(err)
		s.wantEnd(status)
		return true
	default:
		ts.Fatalf("nobody at a terminal knows how to %q", line)
	}
	return false
}

func keysOf(ts *testscript.TestScript, text string) string {
	keys, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
	if err != nil {
		ts.Fatalf("these are no keys: %s", text)
	}
	return keys
}

func parseSize(ts *testscript.TestScript, text string) (cols, rows int) {
	if _, err := fmt.Sscanf(text, "%dx%d", &cols, &rows); err != nil {
		ts.Fatalf("this is no size: %s", text)
	}
	return cols, rows
}
