package main

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// errDisconnected is the cause of a session that the user left by its escape.
var errDisconnected = errors.New("left by the escape")

const (
	inputBuffer = 32 << 10 // bytes read at once
	inputQueue  = 64 << 10 // bytes read ahead, from which on reading waits
)

// input is the user's side of a session as a session.Input. It reads ahead, so
// that an escape is heard while the session takes nothing. A read of stdin
// cannot be abandoned portably, so its goroutine is the one that may outlive a
// session; it ends with the process or the next byte.
type input struct {
	escapes *tty.Escapes     // acted upon; belongs to the reading goroutine
	act     func(tty.Action) // what an escape asks for

	mu    sync.Mutex // guards what follows
	queue []byte     // read and not yet taken
	err   error      // why reading ended

	more  chan struct{} // tells that queue or err has changed
	room  chan struct{} // tells that something was taken
	taken []byte        // with the caller of Read
}

// newInput begins to read file. act is called for each escape, from another
// goroutine.
func newInput(file *os.File, escapes *tty.Escapes, act func(tty.Action)) *input {
	in := &input{escapes: escapes, act: act, more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	go func() { in.end(in.pump(tty.NewReader(file))) }()
	return in
}

func (in *input) pump(file io.Reader) (err error) {
	defer crash.Catch(&err)
	buf := make([]byte, inputBuffer)
	var send []byte
	for {
		n, err := file.Read(buf)
		var actions []tty.Action
		send, actions = in.escapes.Feed(send[:0], buf[:n])
		for _, a := range actions {
			in.act(a)
		}
		if err != nil {
			send = in.escapes.Flush(send)
		}
		in.put(send)
		switch {
		case errors.Is(err, tty.ErrNotOpen):
			return io.EOF // nohup's way to say that there is no input
		case err != nil:
			return err
		}
	}
}

// put queues what was read, and waits while there is too much of it.
func (in *input) put(p []byte) {
	in.mu.Lock()
	in.queue = append(in.queue, p...)
	full := len(in.queue) >= inputQueue
	in.mu.Unlock()
	tell(in.more)
	for full {
		<-in.room
		in.mu.Lock()
		full = len(in.queue) >= inputQueue
		in.mu.Unlock()
	}
}

func (in *input) end(err error) {
	in.mu.Lock()
	in.err = err
	in.mu.Unlock()
	tell(in.more)
}

// tell wakes whoever waits; a channel of one remembers.
func tell(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Read gives what was typed or piped next.
func (in *input) Read(ctx context.Context) ([]byte, error) {
	for {
		in.mu.Lock()
		in.taken, in.queue = in.queue, in.taken[:0]
		err := in.err
		in.mu.Unlock()
		if len(in.taken) > 0 {
			tell(in.room)
			return in.taken, nil
		}
		if err != nil {
			return nil, err
		}
		select {
		case <-in.more:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
