package tty

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// notTerminals are files of the other kinds that standard input may be.
func notTerminals(t *testing.T) map[string]*os.File {
	t.Helper()
	regular, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	closed, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range []*os.File{regular, r, w, null} {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return map[string]*os.File{"a regular file": regular, "a pipe": r, "the null device": null, "a closed file": closed, "no file": nil}
}

func TestWithoutATerminal(t *testing.T) {
	for name, f := range notTerminals(t) {
		t.Run(name, func(t *testing.T) {
			term := New(f, f)
			if term.InIsTerminal() || term.OutIsTerminal() {
				t.Errorf("%s passes for a terminal", name)
			}
			if restore, err := term.Raw(); !errors.Is(err, ErrNotTerminal) || restore != nil {
				t.Errorf("Raw on %s returns %v, want ErrNotTerminal and no restore", name, err)
			}
			if cols, rows, err := term.Size(); !errors.Is(err, ErrNotTerminal) || cols != 0 || rows != 0 {
				t.Errorf("Size of %s is %d by %d with %v, want ErrNotTerminal and no size invented", name, cols, rows, err)
			}
		})
	}
}

func TestResizedEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	resized := New(nil, nil).Resized(ctx)
	cancel()
	for range resized { // the test's own time limit is the failure
	}
}
