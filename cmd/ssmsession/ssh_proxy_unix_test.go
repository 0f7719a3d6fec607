//go:build unix

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestItIsNoticedWhenTheReaderLeaves(t *testing.T) {
	pipe := func(t *testing.T) (ours, theirs *os.File) {
		theirs, ours, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		return ours, theirs
	}
	socket := func(t *testing.T) (ours, theirs *os.File) {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	}
	for name, pair := range map[string]func(*testing.T) (ours, theirs *os.File){"a pipe": pipe, "a socket": socket} {
		for what, before := range map[string]func(ours *os.File) error{
			"":                    func(*os.File) error { return nil },
			" that has not read":  func(ours *os.File) error { _, err := ours.Write([]byte("x")); return err },
			" that left long ago": nil,
		} {
			t.Run(name+what, func(t *testing.T) {
				ours, theirs := pair(t)
				defer ours.Close()
				if before == nil {
					theirs.Close()
				} else if err := before(ours); err != nil {
					t.Fatal(err)
				}
				gone := make(chan bool, 1)
				go func() { gone <- readerLeaves(t.Context(), ours, nil) }()
				if before != nil {
					select {
					case <-gone:
						t.Fatal("it has left, they say, and is still there")
					case <-time.After(20 * time.Millisecond):
					}
					theirs.Close()
				}
				select {
				case left := <-gone:
					if !left {
						t.Error("it has left, and they say that it has not")
					}
				case <-time.After(patience):
					t.Error("nobody notices")
				}
			})
		}
	}
}

func TestAFileIsReadForEver(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, out := range map[string]*os.File{"a file": file, "a closed one": closedFile(t)} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if readerLeaves(ctx, out, nil) {
			t.Errorf("the reader of %s has left, they say", name)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if leave(gone, file, nil) {
		t.Error("a session that is over ends because of its reader")
	}
}

func closedFile(t *testing.T) *os.File {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "closed"))
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	return file
}

func TestTheFarEndHasHalfASecondToEndByItself(t *testing.T) {
	theirs, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs.Close()
	began := time.Now()
	if !leave(t.Context(), ours, nil) {
		t.Error("the reader has left, and they say that it has not")
	}
	if took := time.Since(began); took < leaveTime {
		t.Errorf("the far end had %v, want %v", took, leaveTime)
	}
}

func TestTheEndOfTheInputIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := make(chan error, 3)
		in := &endedInput{Input: inputFunc(func() error { return <-reads }), ended: make(chan struct{})}
		for _, tt := range []struct {
			err   error
			ended bool
		}{{nil, false}, {io.EOF, true}, {io.EOF, true}} {
			reads <- tt.err
			if _, err := in.Read(t.Context()); !errors.Is(err, tt.err) {
				t.Errorf("the read gives %v, want %v", err, tt.err)
			}
			if got := isClosed(in.ended); got != tt.ended {
				t.Errorf("after %v the input has ended: %v", tt.err, got)
			}
		}
	})
}

type inputFunc func() error

func (f inputFunc) Read(context.Context) ([]byte, error) { return nil, f() }
