package stream

import "time"

// NoticeKind says what happened to a Channel.
type NoticeKind int

const (
	// Heard is the first message that came from the far end, once in a
	// Channel's life.
	Heard NoticeKind = iota + 1
	// Asked is the agent's request for a handshake.
	Asked
	// Began is the start of the session: Started returns from now on.
	Began
	// Reconnecting comes before each attempt to get a lost link back.
	Reconnecting
	// Resumed tells that something came over a link that was got back.
	Resumed
	// Unanswered tells that the agent has left something unacknowledged for ten
	// seconds, on a link that works.
	Unanswered
	// Answered tells that it no longer does.
	Answered
	// Paused tells that the service asked to send less.
	Paused
)

// Notice is something that happened to a Channel and that its user, or the user's
// script, may want to know.
type Notice struct {
	Kind    NoticeKind
	Attempt int           // of Reconnecting, from 1
	For     time.Duration // since the link was lost (Reconnecting, Resumed), or the agent was heard (Unanswered)
	Err     error         // why the link was lost or the last attempt failed; Reconnecting
}
