//go:build unix

package main

import (
	"bytes"
	"context"
	"testing"

	"github.com/ssmsession/ssmsession/internal/emulator"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// tap is a socket that keeps what goes over it.
type tap struct {
	stream.Socket
	in, out bytes.Buffer // of its reader and of its writer
}

func keep(to *bytes.Buffer, b *frame.Batch) {
	for i := range b.Len() {
		_, p := b.Message(i)
		to.Write(p)
	}
}

func (t *tap) Receive(deliver func(*frame.Batch) *frame.Batch) error {
	return t.Socket.Receive(func(b *frame.Batch) *frame.Batch {
		if b != nil { // else it asks for its first one
			keep(&t.in, b)
		}
		return deliver(b)
	})
}

func (t *tap) Send(b *frame.Batch) error {
	keep(&t.out, b)
	return t.Socket.Send(b)
}

// TestNothingOfAnEncryptedSessionGoesInTheClear looks at all messages of a session
// for what is typed and comes back, and finds it where nothing is encrypted.
func TestNothingOfAnEncryptedSessionGoesInTheClear(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   emulator.Config
		clear bool
	}{
		{"encrypted", emulator.Config{KMSKeys: []string{soakKey}}, false},
		{"an agent without the challenge", emulator.Config{KMSKeys: []string{soakKey}, AgentVersion: "3.3.799.0"}, false},
		{"not encrypted", emulator.Config{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			const words = "for your eyes only\n"
			server := startServer(t, c.cfg)
			e := newEcho(server)
			var line tap
			dial := e.service.dial
			e.service.dial = func(ctx context.Context, url string) (_ stream.Socket, err error) {
				line.Socket, err = dial(ctx, url)
				return &line, err
			}
			if err := e.open(t.Context(), "cat", nil); err != nil {
				t.Fatal(err)
			}
			if err := e.channel.Send(t.Context(), frame.Output, []byte(words)); err != nil {
				t.Error(err)
			}
			if err := e.want(t.Context(), words); err != nil {
				t.Error(err)
			}
			if err := e.end(t.Context()); err != nil {
				t.Error(err)
			}
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			for way, said := range map[string][]byte{"to the agent": line.out.Bytes(), "from it": line.in.Bytes()} {
				if got := bytes.Contains(said, []byte(words)); got != c.clear {
					t.Errorf("in the %d bytes %s the words are in the clear: %t", len(said), way, got)
				}
			}
			if bytes.Contains(line.in.Bytes(), []byte("ready")) != c.clear {
				t.Errorf("what the program said first is in the clear: %t", !c.clear)
			}
		})
	}
}
