package main

import (
	"crypto/tls"
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/events"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream"
)

// Exit codes (docs/exit-status.md).
const (
	exitUsage  = 2
	exitLate   = 124
	exitFailed = 255
	exitSignal = 128 // plus the signal's number
)

// exit is how the program leaves.
type exit struct {
	code   int
	signal os.Signal // to die of, or nil
	owner  events.By // whose code it is; empty where a session has none
}

// by tells who ended the program's work, as far as the exit knows.
func (x exit) by() events.By {
	switch {
	case x.signal != nil:
		return events.BySignal
	case x.owner == events.ByRemote:
		return events.ByRemote // its end is the session's
	}
	return events.ByClient
}

// exitOf is the one place that decides the exit code.
func exitOf(err error) exit {
	var (
		told   *session.ExitError
		status *session.Status
		late   *timeoutError
		sig    *signalError
		apiErr *api.Error
		use    *usageError
		own    *localStatus
	)
	switch {
	case err == nil:
		return exit{}
	case errors.As(err, &sig):
		return exit{exitSignal + int(sig.signal.(syscall.Signal)), sig.signal, events.BySignal}
	case nobodyReads(err):
		return exit{exitSignal + brokenPipe, syscall.Signal(brokenPipe), events.BySignal}
	case errors.As(err, &own):
		return exit{code: own.code, owner: events.ByClient}
	case errors.As(err, &late):
		return exit{code: exitLate, owner: events.ByClient}
	case errors.As(err, &status):
		return exit{code: oneByte(status.Code), owner: events.ByRemote}
	case errors.As(err, &told):
		return exit{code: oneByte(told.Code), owner: events.ByRemote}
	case errors.As(err, &use), errors.As(err, &apiErr) && apiErr.Usage(), isUnknownCommand(err):
		return exit{code: exitUsage, owner: events.ByClient}
	default:
		return exit{code: exitFailed, owner: events.ByClient}
	}
}

// oneByte is a far end's status as this program can have it: a program on Windows may
// end with any of 32 bits, and 256 is no success.
func oneByte(status int64) int {
	if status == 0 {
		return 0
	}
	return max(int(status&0xff), 1)
}

// brokenPipe is SIGPIPE's number. Windows has no such signal, and the same code.
const brokenPipe = 13

// nobodyReads tells that the reader of our output went away. A connection that
// broke is EPIPE as well, and something else.
func nobodyReads(err error) bool {
	write := (*session.WriteError)(nil)
	return errors.As(err, &write) && isBrokenPipe(write.Err)
}

// problem is what is told of an error.
type problem struct {
	code    string // for scripts (docs/exit-status.md)
	message string // in one line
	hint    string // what to do next; often empty
	stack   string // of a mistake of ours
}

// failure is an error of ours that knows its code and its hint.
type failure struct {
	code, hint string
	err        error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// explain says what to tell of an error, nil when there is nothing to tell.
func explain(err error) *problem {
	var (
		told    *session.ExitError
		status  *session.Status
		late    *timeoutError
		sig     *signalError
		crashed *crash.Error
		apiErr  *api.Error
		use     *usageError
		fail    *failure
		dial    *stream.DialError
		line    *session.LineError
		own     *localStatus
		key     *stream.KeyError
	)
	whole := err
	err = first(err)
	p := &problem{code: "Failed"}
	if err != nil {
		p.message = strings.ReplaceAll(whole.Error(), "\n", "; ") // joined errors have one each
	}
	switch {
	case err == nil:
		return nil
	case errors.As(whole, &crashed):
		p.code, p.stack = "InternalError", string(crashed.Stack)
		p.hint = "this is a mistake in ssmsession; please report it with what follows"
	case errors.As(whole, &sig), nobodyReads(whole):
		// Whoever stopped us, or stopped reading, knows. What failed on the
		// way out is news.
		if !errors.As(whole, &apiErr) || apiErr.Code == api.CodeCanceled {
			return nil
		}
		p.code, p.message, p.hint = apiErr.Code, apiErr.Error(), apiErr.Hint
		if left := (*leftError)(nil); errors.As(whole, &left) {
			p.message = left.Error()
		}
	case errors.As(err, &status), errors.As(err, &told), errors.As(err, &own):
		return nil
	case errors.As(err, &late):
		p.code = "CommandTimeout"
	case errors.As(err, &use):
		p.code, p.hint = "Usage", use.command+" --help"
	case isUnknownCommand(err):
		p.code = "Usage"
		p.message, p.hint = unknownCommand(err)
	case errors.As(err, &fail):
		p.code, p.hint = fail.code, fail.hint
	case errors.As(err, &apiErr):
		p.code, p.hint = apiErr.Code, apiErr.Hint
	case errors.As(err, &dial):
		p.code, p.hint = "DataChannel", dialHint(dial)
	case errors.Is(err, stream.ErrBegunElsewhere):
		p.code, p.hint = "ResponseUsed", usedHint
	case errors.Is(err, stream.ErrNotEncrypted):
		p.code, p.hint = "NotEncrypted", "the account's session preferences, or the session's document, name no key of KMS; --require-encryption demands one"
	case errors.Is(err, stream.ErrForged):
		p.code, p.hint = "Forged", "somebody between here and the target changes what is sent, or the agent has another key: trust nothing of it"
	case errors.As(err, &key):
		p.code = "NoKey"
	case errors.Is(err, stream.ErrLost):
		p.code = "SessionLost"
	case unfinished(err):
		p.code, p.hint = unfinishedProblem(err)
	case errors.Is(err, errLeft):
		p.code = "NoStatus"
	case errors.As(err, &line):
		p.code = "LineTooLong"
	}
	return p
}

// unfinishedProblem says what to tell of a command that came to no end here.
func unfinishedProblem(err error) (code, hint string) {
	var (
		incomplete *session.IncompleteError
		noShell    *session.NoShellError
		cannot     *session.CannotError
	)
	switch {
	case errors.As(err, &incomplete):
		return "Incomplete", "the command may have ended or not: look before it is run again"
	case errors.As(err, &noShell), errors.As(err, &cannot):
		return "NotSupported", ""
	}
	return "NoStatus", ""
}

// first gives the first of joined errors: what went wrong before others did. One
// that wraps joined ones has a sentence of its own.
func first(err error) error {
	for {
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok || len(joined.Unwrap()) == 0 {
			return err
		}
		err = joined.Unwrap()[0]
	}
}

// dialHint says what to do about a data channel that could not be opened.
func dialHint(d *stream.DialError) string {
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(d.Err, &cert):
		return api.CertificateHint(cert)
	case d.Status == 403:
		return "the token is good for one connection within a short time: start again; or a proxy refuses websockets"
	case d.Status != 0:
		return "start again; if it stays, a proxy in between may not let websockets through"
	case d.Refused:
		return ""
	}
	return "check name service, firewall and proxy (HTTPS_PROXY, NO_PROXY) for " + d.Host +
		"; --stream-endpoint names a private endpoint"
}

// isUnknownCommand tells cobra's error that has no type.
func isUnknownCommand(err error) bool { return strings.HasPrefix(err.Error(), "unknown command") }

// unknownCommand parts cobra's error from what may have been meant, one a line.
func unknownCommand(err error) (message, hint string) {
	message, meant, _ := strings.Cut(err.Error(), "\n\nDid you mean this?\n")
	names := strings.Fields(meant)
	if len(names) == 0 {
		return message, "ssmsession --help"
	}
	return message, "did you mean  ssmsession " + strings.Join(names, "  or  ssmsession ")
}
