package tty

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReaderOfFilesAndPipes(t *testing.T) {
	const text = "line\nCtrl-Z \x1a is a byte, Ctrl-D \x04 too\n\x00end"
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	regular, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.WriteString(NewWriter(w), text); err != nil {
		t.Fatalf("the writer of a pipe failed: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	null := notTerminals(t)["the null device"]
	for name, tt := range map[string]struct {
		file *os.File
		want string
	}{
		"a regular file":  {regular, text},
		"a pipe":          {r, text},
		"the null device": {null, ""},
	} {
		got, err := io.ReadAll(NewReader(tt.file))
		if string(got) != tt.want || err != nil {
			t.Errorf("%s reads as %q, %v; want %q", name, got, err, tt.want)
		}
	}
}

func TestReaderSaysThatThereIsNoInput(t *testing.T) {
	files := notTerminals(t)
	for _, name := range []string{"a closed file", "no file"} {
		n, err := NewReader(files[name]).Read(make([]byte, 1))
		if n != 0 || !errors.Is(err, ErrNotOpen) || !strings.HasPrefix(err.Error(), "not open for reading: ") {
			t.Errorf("reading %s gives %d, %v; want that it is not open for reading", name, n, err)
		}
	}
}

func TestReaderTellsOtherErrorsAsTheyAre(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	n, err := NewReader(dir).Read(make([]byte, 1))
	if n != 0 || err == nil || errors.Is(err, ErrNotOpen) || errors.Is(err, io.EOF) {
		t.Errorf("reading a directory gives %d, %v; want the system's error", n, err)
	}
}

func TestReadAndWriteOfNothing(t *testing.T) {
	null := notTerminals(t)["the null device"]
	if n, err := NewReader(null).Read(nil); n != 0 || err != nil {
		t.Errorf("a read without room gives %d, %v; want nothing", n, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if n, err := NewWriter(w).Write(nil); n != 0 || err != nil {
		t.Errorf("a write of nothing gives %d, %v; want nothing", n, err)
	}
}

func TestWriterToAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	if n, err := NewWriter(f).Write(want); n != len(want) || err != nil {
		t.Fatalf("the writer wrote %d bytes, %v; want %d", n, err, len(want))
	}
	if got, err := os.ReadFile(path); !bytes.Equal(got, want) || err != nil {
		t.Errorf("the file holds %d bytes, %v, and not what was written", len(got), err)
	}
}

func TestWriterTellsWhatFailed(t *testing.T) {
	closed := notTerminals(t)["a closed file"]
	if n, err := NewWriter(closed).Write([]byte("x")); n != 0 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("a write to a closed file gives %d, %v; want that it is closed", n, err)
	}
}
