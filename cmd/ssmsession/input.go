package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// errDisconnected is the cause of a session that the user left by its escape.
var errDisconnected = errors.New("left by the escape")

// input is the user's side of a session as a session.Input. A read of stdin
// cannot be abandoned portably, so its goroutine is the one that may outlive a
// session; it owns its buffer and nothing else, and ends with the process or
// the next byte.
type input struct {
	chunks chan []byte
	next   chan struct{}
	err    error // why chunks was closed
	begun  bool
}

const inputBuffer = 32 << 10

// newInput begins to read file.
func newInput(file *os.File) *input {
	in := &input{chunks: make(chan []byte), next: make(chan struct{})}
	go func() {
		defer close(in.chunks)
		defer crash.Catch(&in.err)
		in.err = in.pump(tty.NewReader(file))
	}()
	return in
}

func (in *input) pump(file io.Reader) error {
	buf := make([]byte, inputBuffer)
	for {
		n, err := file.Read(buf)
		if n > 0 {
			in.chunks <- buf[:n]
			<-in.next
		}
		switch {
		case errors.Is(err, tty.ErrNotOpen):
			return io.EOF // nohup's way to say that there is no input
		case err != nil:
			return err
		}
	}
}

// Read gives what was typed or piped next.
func (in *input) Read(ctx context.Context) ([]byte, error) {
	if in.begun {
		in.begun = false
		in.next <- struct{}{}
	}
	select {
	case p, ok := <-in.chunks:
		if !ok {
			return nil, in.err
		}
		in.begun = true
		return p, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// keys is an input from a keyboard: it acts on the escapes (~. and ~?).
type keys struct {
	*input
	escapes *tty.Escapes
	leave   func()       // ends the session
	show    func(string) // help
	buf     []byte
	ended   bool
}

// Read gives what is for the far end of what was typed next.
func (k *keys) Read(ctx context.Context) ([]byte, error) {
	if k.ended {
		return nil, io.EOF
	}
	p, err := k.input.Read(ctx)
	if errors.Is(err, io.EOF) {
		if held := k.escapes.Flush(k.buf[:0]); len(held) > 0 {
			k.ended = true
			return held, nil
		}
	}
	if err != nil {
		return nil, err
	}
	send, actions := k.escapes.Feed(k.buf[:0], p)
	k.buf = send
	for _, a := range actions {
		switch a {
		case tty.Disconnect:
			k.leave()
		case tty.Help:
			k.show(k.escapes.Help())
		}
	}
	return send, nil
}
