// Package crash turns a panic of one goroutine into an error of whoever waits
// for it. A panic that nobody recovers ends the process on the spot, without the
// deferred calls of other goroutines: the user's terminal would stay raw and the
// session open. So every goroutine of ours that runs during a session begins
// with
//
//	defer crash.Catch(&err)
//
// and hands err to its owner, who ends in order. Guard does it for one that has no
// other error.
package crash

import (
	"fmt"
	"runtime/debug"
)

// Error is a panic: a mistake in this program.
type Error struct {
	Value any    // what panicked
	Stack []byte // where, as debug.Stack prints it
}

func (e *Error) Error() string { return fmt.Sprintf("internal error: %v", e.Value) }

// Permanent tells that trying again is of no use.
func (e *Error) Permanent() bool { return true }

// Catch is to be deferred. It recovers a panic into *err, in place of what was
// there.
func Catch(err *error) {
	if v := recover(); v != nil {
		*err = &Error{Value: v, Stack: debug.Stack()}
	}
}

// Guard calls f and gives a panic of it to end.
func Guard(end func(error), f func()) {
	if err := caught(f); err != nil {
		end(err)
	}
}

func caught(f func()) (err error) {
	defer Catch(&err)
	f()
	return nil
}
