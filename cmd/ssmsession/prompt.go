package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ssmsession/ssmsession/internal/tty"
)

// prompt asks the user for one line on the terminal. It is nil where nobody can
// be asked: without a terminal, and in CI, where one may be there all the same.
func (e *env) prompt() func(ctx context.Context, question string) (string, error) {
	if e.getenv("CI") != "" || !tty.New(e.in, e.err).InIsTerminal() {
		return nil
	}
	return func(ctx context.Context, question string) (string, error) {
		if e.people.raw.Load() {
			return "", errors.New("nothing can be asked while the terminal belongs to a session")
		}
		e.people.printf("%s: ", oneLine(question))
		// A terminal gives a line a read, so nothing typed after it is lost.
		p, err := newInput(e.in).Read(ctx)
		if err != nil {
			e.people.printf("\n")
			return "", fmt.Errorf("no answer: %w", err)
		}
		return strings.TrimSpace(string(p)), nil
	}
}
