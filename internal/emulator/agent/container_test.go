//go:build linux || darwin

package agent

import (
	"testing"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// TestInContainersCommandsAreWords is the specification of how the agent in a
// container of ECS runs a command: split as a shell does, but without one.
func TestInContainersCommandsAreWords(t *testing.T) {
	for _, tt := range []struct{ why, command, want string }{
		{"words are arguments", `printf '[%s]' a  b`, "[a][b]"},
		{"quotes keep them together", `printf '[%s]' "a  b" 'c d' e\ f`, "[a  b][c d][e f]"},
		{"nothing is expanded", `printf '[%s]' $HOME * ~`, "[$HOME][*][~]"},
		{"nothing is piped", `printf '[%s]' a | cat ; x`, "[a][|][cat][;][x]"},
		{"a shell is a program like others", `sh -c 'test -t 0 && printf "[%s]" "$1"' sh "a b"`, "[a b]"},
	} {
		cfg := shellConfig(t)
		cfg.ContainerMode = true
		cfg.Document = Document{SessionType: frame.InteractiveCommands, Command: tt.command}
		c := play(t, cfg)
		tr := c.gather(tt.why, untilState)
		if got := tr.output[frame.Output]; got != tt.want {
			t.Errorf("%s: %s said %q, want %q", tt.why, tt.command, got, tt.want)
		}
		c.wantResult(tt.why, Result{Status: StatusSuccess})
	}
}

func TestInContainersCommandsThatDoNotStart(t *testing.T) {
	for _, tt := range []struct {
		why, command string
		want         Result
	}{
		{"nothing to run", " ", Result{StatusFailed, "Commands cannot be empty for session type InteractiveCommands"}},
		{"a quote that is not closed", `echo "a`, Result{StatusFailed, "\n----------ERROR-------\nUnable to start command: " +
			"Failed to parse commands input: EOF found when expecting closing quote\n\n"}},
		{"a comment", "# nothing", Result{StatusFailed, "\n----------ERROR-------\nUnable to start command: " +
			"Failed to parse commands input: there is no word in it\n\n"}},
		{"no such program", "nosuchprogram", Result{StatusFailed, "\n----------ERROR-------\nUnable to start command: " +
			"Failed to start pty: exec: \"nosuchprogram\": executable file not found in $PATH\n\n"}},
	} {
		cfg := shellConfig(t)
		cfg.ContainerMode = true
		cfg.Document = Document{SessionType: frame.InteractiveCommands, Command: tt.command}
		play(t, cfg).wantResult(tt.why, tt.want)
	}
}

func TestInContainersTheShellIsAShell(t *testing.T) {
	cfg := shellConfig(t)
	cfg.ContainerMode = true
	cfg.Document.ShellProfile = "echo $((6 * 7)) | cat; exit"
	c := play(t, cfg)
	c.gather("a session without a command has a shell", untilOutput("42\r\n"))
}
