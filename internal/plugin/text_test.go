package plugin

import (
	"fmt"
	"testing"
)

// TestTextsAreThoseOfAWSsClient compares with what its runs have printed.
func TestTextsAreThoseOfAWSsClient(t *testing.T) {
	for _, test := range []struct{ name, got, want string }{
		{"no arguments", InstalledText,
			"\nThe Session Manager plugin was installed successfully. Use the AWS CLI to start a session.\n\n"},
		{"--help", fmt.Sprintf(UnknownOperationText, "--help"),
			"\nUnknown operation --help. \nUse session-manager-plugin --version to check the version.\n\n"},
		{"another operation", InvalidOperationText, "Invalid Operation"},
		{"the start", fmt.Sprintf(StartingText, "s-1"), "\nStarting session with SessionId: s-1\n"},
		{"an end", fmt.Sprintf(ExitingText, "s-1"), "\n\nExiting session with sessionId: s-1.\n\n"},
		{"an end with words", fmt.Sprintf(ClosedText, "s-1", "idle"), "\n\nSessionId: s-1 : idle\n\n"},
		{"the end of a lost session", fmt.Sprintf(TimedOutText, "s-1"), "Session: s-1 timed out.\n"},
		{"a failure", fmt.Sprintf(FailedText, "EOF"), "Cannot perform start session: EOF\n"},
		{"a port", fmt.Sprintf(PortText, "8080", "s-1") + WaitingText,
			"Port 8080 opened for sessionId s-1.\nWaiting for connections...\n"},
		{"a socket", fmt.Sprintf(SocketText, "/tmp/s", "s-1"), "Unix socket /tmp/s opened for sessionId s-1.\n"},
		{"a connection", fmt.Sprintf(AcceptedText, "s-1"), "\nConnection accepted for session [s-1]\n"},
		{"a connection, old agent", fmt.Sprintf(AcceptedBasicText, "s-1"), "Connection accepted for session s-1.\n"},
		{"no connection", RefusedText, "\nConnection to destination port failed, check SSM Agent logs.\n"},
		{"Ctrl-C", StoppedText + fmt.Sprintf(ExitingText, "s-1"),
			"Terminate signal received, exiting.\n\n\nExiting session with sessionId: s-1.\n\n"},
	} {
		if test.got != test.want {
			t.Errorf("%s prints %q, want %q", test.name, test.got, test.want)
		}
	}
}
