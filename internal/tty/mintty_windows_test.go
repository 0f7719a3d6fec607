package tty

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/windows"
)

// namedPipe returns the server's end of a fresh pipe.
func namedPipe(t *testing.T, name string) *os.File {
	t.Helper()
	path, err := windows.UTF16PtrFromString(`\\.\pipe` + name)
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := windows.CreateNamedPipe(path, windows.PIPE_ACCESS_DUPLEX, windows.PIPE_TYPE_BYTE, 1, 4096, 4096, 0, nil)
	if err != nil {
		t.Fatalf("cannot make the pipe %s: %v", name, err)
	}
	f := os.NewFile(uintptr(pipe), name)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestMinttyIsKnownByItsPipe(t *testing.T) {
	for format, want := range map[string]bool{
		`\msys-%016x-pty0-from-master`: true,
		`\cygwin-%016x-pty3-to-master`: true,
		`\ssmsession-%016x-test`:       false,
	} {
		name := fmt.Sprintf(format, os.Getpid())
		f := namedPipe(t, name)
		if got := pipeName(f); got != name {
			t.Errorf("the pipe's name is %q, want %q", got, name)
		}
		if Mintty(f) != want {
			t.Errorf("the pipe %s passes for a Cygwin or MSYS pty: %t, want %t", name, !want, want)
		}
	}
}
