package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ssmsession/ssmsession/internal/events"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// report is how the program tells what happens: people by lines on stderr,
// scripts by events and by one document at the end, whoever looks for a mistake
// by a log.
type report struct {
	people *people
	quiet  bool
	debug  bool

	logFile   string
	eventSpec string

	log      *slog.Logger // never nil
	logged   io.Closer    // the log file, or nil
	watch    *events.Writer
	result   *result             // of the session that the command holds, or nil
	texts    *pluginTexts        // said in the plugin's place instead; nil elsewhere
	status   *tty.StatusLine     // on the terminal that the session has for itself, or nil
	about    string              // which of several sessions it tells of, or empty
	noticed  func(stream.Notice) // is told of notices, too; nil for nobody
	troubled atomic.Bool         // the data channel has no connection, or the target does not answer
}

// newReport tells people on out.
func newReport(out io.Writer) *report {
	return &report{people: &people{out: out}, log: slog.New(slog.DiscardHandler)}
}

// addFlags defines the flags of all commands.
func (r *report) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&r.quiet, "quiet", "q", false, "say nothing on stderr but errors")
	f.BoolVar(&r.debug, "debug", false, "log to stderr what happens behind the scenes, never data or secrets")
	f.StringVar(&r.logFile, "log-file", "", "with --debug, log to this file (0600) instead")
	f.StringVar(&r.eventSpec, "events", "", "write what happens as JSON lines to FILE or fd:N (docs/events.md)")
}

// open opens what the flags name. close is to be called even if it fails.
func (r *report) open(cmd *cobra.Command) error {
	switch {
	case r.logFile != "" && !r.debug:
		return usage(cmd, errors.New("--log-file is where --debug logs to: give both"))
	case r.logFile != "":
		// Not blocking: a FIFO that nobody reads is an error, not a wait.
		file, err := os.OpenFile(r.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NONBLOCK, 0o600)
		if err != nil {
			return fmt.Errorf("cannot open the log file: %w", err)
		}
		r.logged = file
		r.log = debugLog(file)
	case r.debug:
		r.log = debugLog(r.people)
	}
	if r.eventSpec == "" {
		return nil
	}
	watch, err := events.Open(r.eventSpec)
	if errors.Is(err, events.ErrSpec) {
		return usage(cmd, fmt.Errorf("--events: %w", err))
	}
	if err != nil {
		return fmt.Errorf("--events: %w", err)
	}
	r.watch = watch
	return nil
}

func debugLog(to io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// finish tells how the command ended, to everybody, and closes what open opened.
func (e *env) finish(err error) exit {
	if e.result != nil && e.result.asked {
		e.result.end(exitOf(err), explain(err))
		if printErr := e.printResult(); printErr != nil && explain(err) == nil && exitOf(err).signal == nil {
			err = printErr
		}
	}
	x := exitOf(err)
	p := explain(err)
	if p != nil {
		e.fail("%s", oneLine(p.message))
		if p.hint != "" {
			e.people.printf("hint: %s\n", oneLine(p.hint))
		}
		if p.stack != "" {
			e.people.printf("%s", p.stack)
		}
		e.log.Debug("failed", "code", p.code, "error", err)
		e.watch.Emit(events.Error{Code: p.code, Message: p.message, Hint: p.hint})
	}
	if e.result != nil {
		e.result.end(x, p)
		e.watch.Emit(e.result.exit())
	} else {
		e.watch.Emit(events.Exit{Code: x.code, By: x.by()})
	}
	if err := e.watch.Close(); err != nil {
		e.warn("events: %s", oneLine(err.Error()))
	}
	if e.logged != nil {
		if err := e.logged.Close(); err != nil {
			e.warn("log file: %s", oneLine(err.Error()))
		}
	}
	return x
}

func (e *env) printResult() error {
	doc, err := json.MarshalIndent(e.result, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot make the result: %w", err)
	}
	if _, err := e.out.Write(append(doc, '\n')); err != nil {
		return &session.WriteError{Err: err}
	}
	return nil
}

// say tells people something worth knowing that is no error.
func (r *report) say(format string, args ...any) {
	if !r.quiet {
		r.fail(format, args...)
	}
}

// warn tells people what they must not miss, quiet or not.
func (r *report) warn(format string, args ...any) {
	r.fail("warning: "+format, args...)
}

// fail tells people an error.
func (r *report) fail(format string, args ...any) {
	about := ""
	if r.about != "" {
		about = r.about + ": "
	}
	r.people.printf("ssmsession: %s%s\n", about, fmt.Sprintf(format, args...))
}

// people is a terminal or a file that people read: stderr. While a terminal is
// raw its lines need a carriage return.
type people struct {
	out io.Writer
	raw atomic.Bool
}

// Write never fails: when nobody can be told, there is nobody to tell that
// either.
func (p *people) Write(b []byte) (int, error) {
	text := b
	if p.raw.Load() {
		text = bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
	}
	_, _ = p.out.Write(text)
	return len(b), nil
}

func (p *people) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(p, format, args...) // never fails
}
