// Package plugin is what a caller of session-manager-plugin and that program have
// agreed on: the arguments, the response of the service that is handed over, and
// the texts that callers look for in the output. It does no input or output, and
// knows nothing of how a session is held.
//
// The agreement is written down nowhere but in AWS's client and its callers:
// docs/protocol.md, invocation of the plugin.
package plugin

// What AWS's client prints, to the byte, all of it on standard output: as read in
// its source and seen in its runs (docs/protocol.md, invocation of the plugin).
// Callers take the session's id, the port and the failure out of these.
const (
	// InstalledText answers no arguments. "aws ecs execute-command" asks so.
	InstalledText = "\nThe Session Manager plugin was installed successfully. Use the AWS CLI to start a session.\n\n"
	// UnknownOperationText takes the first argument.
	UnknownOperationText = "\nUnknown operation %s. \nUse session-manager-plugin --version to check the version.\n\n"
	// InvalidOperationText has no line end.
	InvalidOperationText = "Invalid Operation"
	// StartingText takes the session's id. It comes before the data channel is
	// dialled.
	StartingText = "\nStarting session with SessionId: %s\n"
	// ExitingText takes the session's id: it was closed without a word.
	ExitingText = "\n\nExiting session with sessionId: %s.\n\n"
	// ClosedText takes the session's id and the service's words.
	ClosedText = "\n\nSessionId: %s : %s\n\n"
	// TimedOutText takes the id of a session that was lost and is over.
	TimedOutText = "Session: %s timed out.\n"
	// FailedText takes the error.
	FailedText = "Cannot perform start session: %s\n"

	// PortText takes the local port and the session's id, and WaitingText
	// follows it: the port can be used.
	PortText    = "Port %s opened for sessionId %s.\n"
	WaitingText = "Waiting for connections...\n"
	// SocketText takes the path of a local socket and the session's id.
	SocketText = "Unix socket %s opened for sessionId %s.\n"
	// AcceptedText takes the session's id: the first connection came.
	AcceptedText = "\nConnection accepted for session [%s]\n"
	// AcceptedBasicText is the same for agents that carry one connection.
	AcceptedBasicText = "Connection accepted for session %s.\n"
	// RefusedText tells that the far end has no connection to its port.
	RefusedText = "\nConnection to destination port failed, check SSM Agent logs.\n"
	// StoppedText answers Ctrl-C in a port session; ExitingText follows.
	StoppedText = "Terminate signal received, exiting.\n"
)
