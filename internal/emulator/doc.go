// Package emulator is a local Session Manager: the part of the Systems Manager
// API that sessions need, the message gateway that their data channels run
// through, and managed nodes to connect to, on one listener of this machine.
//
// It is meant to be faithful, not convenient (docs/emulator.md): requests are
// signed and validated, tokens are good for one use, and the gateway does what
// the real one was seen to do. It gives a shell to whoever can call it, so it
// listens on loopback unless told otherwise and demands a key, made at start, on
// every call.
//
// Who owns what: a Server owns its listener, one goroutine that serves it and all
// sessions. A session owns two goroutines for its life, one that plays the agent
// (package agent) and one that watches the clock. A leg is one websocket of a
// client: the HTTP handler's goroutine reads it, one more writes it, and one waits
// for the faults that are due. A faultLine has one while a frame is late. Close
// waits for all of them.
//
// What goes wrong on order (Fault) does so in three places: where a frame passes
// from one leg to the other (faultLine), at the client's socket (fault_leg.go) and
// where a call is answered (fault_set.go). Of encryption the agent does wrong itself
// what only it can (agent.Faults); of the rest it knows nothing.
//
// The package shares nothing with the client but the codec in
// internal/stream/frame, so that the two ends cannot share a bug.
package emulator
