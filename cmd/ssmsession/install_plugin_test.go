package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestACopyIsAProgram(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := copyProgram(from, to); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(to)
	if err != nil || !bytes.Equal(got, []byte("program")) {
		t.Errorf("the copy has %q, %v", got, err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode()&0o100 == 0 && exeSuffix() == "" {
		t.Errorf("the copy cannot be run: %v, %v", info, err)
	}
	if err := copyProgram(from, to); err == nil {
		t.Error("a copy was made over something")
	}
	if err := copyProgram(filepath.Join(dir, "nothing"), to); err == nil {
		t.Error("nothing was copied")
	}
}

func TestThisProgramIsOurs(t *testing.T) {
	self, err := ownPath()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	copied := filepath.Join(dir, "copied"+exeSuffix())
	if err := copyProgram(self, copied); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{self: true, copied: true, other: false, filepath.Join(dir, "nothing"): false} {
		if got := isOurs(path); got != want {
			t.Errorf("%s is ours: %v, want %v", path, got, want)
		}
	}
}

func TestAnInstallLeavesNothingElseBehind(t *testing.T) {
	self, err := ownPath()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, pluginName+exeSuffix())
	for range 2 { // the second replaces the first
		if _, err := install(self, path); err != nil {
			t.Fatal(err)
		}
	}
	if !isOurs(path) {
		t.Error("what was made is not this program")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v", entries, err)
	}
	if _, err := install(self, filepath.Join(path, pluginName)); err == nil {
		t.Error("something was made in a directory that is none")
	}
}

func TestAnInstallMakesItsDirectory(t *testing.T) {
	self, err := ownPath()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "local", "bin", pluginName+exeSuffix())
	if _, err := install(self, path); err != nil {
		t.Fatal(err)
	}
	if !isOurs(path) {
		t.Error("what was made is not this program")
	}
}
