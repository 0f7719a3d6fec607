package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/tty"
)

// typed is an input and the end at which the test types.
func typed(t *testing.T, escapes *tty.Escapes) (in *input, keys *os.File, acts <-chan tty.Action) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		r.Close()
	})
	heard := make(chan tty.Action, 10)
	return newInput(r, escapes, func(a tty.Action) { heard <- a }), w, heard
}

func TestAnEscapeIsHeardWhileTheSessionTakesNothing(t *testing.T) {
	in, keys, acts := typed(t, tty.NewEscapes('~'))
	if _, err := io.WriteString(keys, "ls\r~?~."); err != nil {
		t.Fatal(err)
	}
	for _, want := range []tty.Action{tty.Help, tty.Disconnect} {
		select {
		case got := <-acts:
			if got != want {
				t.Errorf("heard %v, want %v", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%v was not heard, though nobody read", want)
		}
	}
	if p, err := in.Read(t.Context()); string(p) != "ls\r" || err != nil {
		t.Errorf("the session gets %q, %v; want what was typed before", p, err)
	}
}

func TestInputReadsAheadButNotForEver(t *testing.T) {
	in, keys, _ := typed(t, &tty.Escapes{})
	want := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	written := make(chan error, 1)
	go func() {
		_, err := keys.Write(want)
		written <- errors.Join(err, keys.Close())
	}()
	// What the pipe itself holds comes on top; the rest has to wait.
	select {
	case <-written:
		t.Error("a megabyte was taken although nobody read")
	case <-time.After(100 * time.Millisecond):
	}
	var got []byte
	for {
		p, err := in.Read(t.Context())
		got = append(got, p...)
		if len(p) > inputQueue+inputBuffer {
			t.Errorf("%d bytes were kept", len(p))
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came, not the %d that were sent", len(got), len(want))
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}

func TestAReadOfInputCanBeAbandoned(t *testing.T) {
	in, keys, _ := typed(t, &tty.Escapes{})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := in.Read(ctx); !errors.Is(err, why) {
		t.Errorf("an abandoned read gives %v", err)
	}
	if _, err := io.WriteString(keys, "kept"); err != nil {
		t.Fatal(err)
	}
	if p, err := in.Read(t.Context()); string(p) != "kept" || err != nil {
		t.Errorf("the next one gives %q, %v", p, err)
	}
}

func TestAHeldEscapeIsSentAtTheEndOfInput(t *testing.T) {
	in, keys, _ := typed(t, tty.NewEscapes('~'))
	if _, err := io.WriteString(keys, "~"); err != nil {
		t.Fatal(err)
	}
	keys.Close()
	if p, err := in.Read(t.Context()); string(p) != "~" || err != nil {
		t.Errorf("the session gets %q, %v", p, err)
	}
	if _, err := in.Read(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("and then %v", err)
	}
}
