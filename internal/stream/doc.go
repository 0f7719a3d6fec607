// Package stream is the data channel of a session: in-order, exactly-once
// messages in both directions over websockets that come and go. See
// docs/protocol.md and docs/architecture.md.
//
// # Owners
//
// One goroutine, the loop (loop.go), owns all protocol state for the life of a
// Channel: the sender, the receiver, the handshake, the current link. It never
// blocks on a socket or on the caller. A link is one socket with two goroutines
// that only carry batches of bytes, a reader and a writer; they live and die
// with it. A dial goroutine exists only while there is no link. There is no
// mutex but the one that keeps a TLS layer's own writes apart (websocket.go).
//
// The sender, the receiver, the handshake and the backoff are pure: they take
// the time as an argument and publish the deadline at which they want to be
// called again, so their tests need no goroutine and no clock.
//
// # States
//
// No link: Send fills the window and then blocks, Recv drains what was kept,
// one dial is under way or waits its turn. Sequence numbers never restart.
// Link: everything unacknowledged goes out again in order, then new data.
// Closed by the service (channel_closed, the only way a session ends well):
// Recv drains what was kept, then returns *Closed.
//
// # Shutdown
//
// Close waits a short grace for what is unacknowledged, closes the socket,
// waits for reader, writer and dial, and returns. After it no goroutine of the
// Channel is left. Cancelling the context of Open does the same without the
// grace.
//
// This package does not know what a session is for, what AWS calls exist or
// that there are terminals.
package stream
