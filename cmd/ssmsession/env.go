package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
)

// Set by the linker in a release (see Makefile and .goreleaser.yaml).
var (
	version = ""
	commit  = ""
)

// env is everything that the outside world gives us, built once.
type env struct {
	in, out, err *os.File
	getenv       func(string) string
	version      string
	commit       string

	interrupts interrupts // of this process
	collector  *collector // of this process
	haste      int        // of the checks of exec; 0 but in tests
	*report
}

// system is the real outside world.
func system() *env {
	e := &env{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		getenv:  os.Getenv,
		version: version, commit: commit,
		collector: &collector{},
		report:    newReport(os.Stderr),
	}
	e.fillVersion()
	return e
}

// reporting is the environment of something beside the program's own session, which
// has a report of its own.
func (e *env) reporting(r *report) *env {
	return &env{
		in: e.in, out: e.out, err: e.err, getenv: e.getenv, version: e.version, commit: e.commit,
		collector: e.collector, report: r,
	}
}

// fillVersion asks the build when the linker said nothing, as after go install.
func (e *env) fillVersion() {
	info, ok := debug.ReadBuildInfo()
	if ok && e.version == "" && info.Main.Version != "" {
		e.version = info.Main.Version
	}
	if e.version == "" {
		e.version = "(devel)"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && e.commit == "" {
			e.commit = s.Value
		}
	}
	if e.commit == "" {
		e.commit = "unknown"
	}
}

// userAgent is what the message gateway is told.
func (e *env) userAgent() string { return "ssmsession/" + e.version }

func (e *env) versionLine() string {
	return fmt.Sprintf("%s (commit %s, %s, %s/%s)", e.version, e.commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
