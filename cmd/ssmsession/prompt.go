package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ssmsession/ssmsession/internal/tty"
)

// prompt asks the user for one line on the terminal. It is nil where nobody can
// be asked: without a terminal for the question or for the answer, and in CI, where
// one may be there all the same.
func (e *env) prompt() func(ctx context.Context, question string) (string, error) {
	if t := tty.New(e.in, e.err); e.getenv("CI") != "" || !t.InIsTerminal() || !t.OutIsTerminal() {
		return nil
	}
	return func(ctx context.Context, question string) (string, error) {
		if e.people.raw.Load() {
			return "", errors.New("nothing can be asked while the terminal belongs to a session")
		}
		if ctx.Value(unattended{}) != nil {
			return "", errors.New("nothing is asked of a user who did not begin it")
		}
		e.people.printf("%s: ", oneLine(question))
		line, err := readLine(ctx, e.in)
		if err != nil {
			e.people.printf("\n")
			return "", fmt.Errorf("no answer: %w", err)
		}
		return strings.TrimSpace(line), nil
	}
}

// unattended is the key of a context in which nothing is asked.
type unattended struct{}

// readLine reads what a terminal gives at once, which is a line: nothing typed
// after it is lost. As of any read of a terminal, its goroutine is left behind if
// ctx ends.
func readLine(ctx context.Context, terminal *os.File) (string, error) {
	type answer struct {
		line string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		buf := make([]byte, 4<<10) // a terminal's longest line
		n, err := tty.NewReader(terminal).Read(buf)
		answered <- answer{string(buf[:n]), err}
	}()
	select {
	case a := <-answered:
		return a.line, a.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
