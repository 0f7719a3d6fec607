package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream"
)

func TestTheNameSaysWhichProgramItIs(t *testing.T) {
	for argv0, want := range map[string]bool{
		"session-manager-plugin":                    true,
		"/usr/local/bin/session-manager-plugin":     true,
		"./session-manager-plugin.exe":              true,
		"Session-Manager-Plugin.EXE":                true,
		"ssmsession":                                false,
		"/opt/session-manager-plugin/ssmsession":    false,
		"session-manager-plugin-2":                  false,
		"":                                          false,
		filepath.Join("x", pluginName) + ".exe.exe": false,
	} {
		if got := calledAsPlugin([]string{argv0, "x"}); got != want {
			t.Errorf("called as %q it stands in for the plugin: %v", argv0, got)
		}
	}
	if calledAsPlugin(nil) {
		t.Error("called without a name it stands in for the plugin")
	}
}

// pluginEnv is an environment in the plugin's place, and what it prints.
func pluginEnv(t *testing.T, vars map[string]string) (e *env, stdout func() string, stderr *bytes.Buffer) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	stderr = &bytes.Buffer{}
	e = &env{in: out, out: out, err: out, report: newReport(stderr),
		getenv: func(name string) string {
			if v, ok := vars[name]; ok {
				return v
			}
			return os.Getenv(name)
		}}
	return e, func() string {
		printed, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(printed)
	}, stderr
}

func TestTheResponseIsGoneFromTheEnvironment(t *testing.T) {
	const name = "AWS_SSM_START_SESSION_RESPONSE_i_1"
	t.Setenv(name, `{"TokenValue": "secret"}`)
	e, stdout, _ := pluginEnv(t, nil)
	if x := runPlugin([]string{name, "us-east-1", "StartSession"}, e); x.code != exitFailed {
		t.Errorf("a response without a session is %d", x.code)
	}
	if value, ok := os.LookupEnv(name); ok {
		t.Errorf("whatever is started now is told %q", value)
	}
	if want := "Cannot perform start session: the response has no SessionId\n"; stdout() != want {
		t.Errorf("it prints %q, want %q", stdout(), want)
	}
}

func TestHowASessionEndedIsToldAsCallersExpect(t *testing.T) {
	var (
		broken = errors.New("broken")
		told   = &session.ExitError{Code: 7}
		usage  = &api.Error{Code: api.CodeInvalidInput, Op: "set up AWS", Message: "the endpoint is no http or https URL"}
	)
	for _, test := range []struct {
		name   string
		err    error
		vars   map[string]string
		closed *stream.Closed
		code   int
		stdout string
		stderr string
	}{
		{name: "well", closed: &stream.Closed{}, stdout: "\n\nExiting session with sessionId: s-1.\n\n"},
		{name: "with the service's words", closed: &stream.Closed{Output: "idle"}, stdout: "\n\nSessionId: s-1 : idle\n\n"},
		{name: "with a status", err: told},
		{name: "with a status that may pass", err: told, vars: map[string]string{exitCodeVariable: "1"}, code: 7},
		{name: "by a failure", err: broken, code: 255,
			stdout: "Cannot perform start session: broken\n", stderr: "ssmsession: broken\n"},
		{name: "by a failure, quietly", err: broken, vars: map[string]string{quietVariable: "1"}, code: 255, stderr: "ssmsession: broken\n"},
		{name: "by a failure the service has words for", err: broken, closed: &stream.Closed{Output: "denied"}, code: 255,
			stdout: "\n\nSessionId: s-1 : denied\n\n", stderr: "ssmsession: broken\n"},
		{name: "before it could be had back", err: api.ErrSessionOver, code: 255,
			stdout: "Session: s-1 timed out.\n", stderr: "ssmsession: the session is over\n"},
		{name: "by arguments that are the caller's", err: usage, code: 255,
			stdout: "Cannot perform start session: cannot set up AWS: the endpoint is no http or https URL\n",
			stderr: "ssmsession: cannot set up AWS: the endpoint is no http or https URL\n"},
		{name: "by a failure with a hint", err: &failure{err: broken, hint: "mend it"}, code: 255,
			stdout: "Cannot perform start session: broken\n", stderr: "ssmsession: broken\nhint: mend it\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, stdout, stderr := pluginEnv(t, test.vars)
			e.texts = &pluginTexts{out: e.out, raw: &e.people.raw, sessionID: "s-1", quiet: e.getenv(quietVariable) == "1"}
			e.texts.closed(test.closed)
			if x := e.finishPlugin(test.err); x.code != test.code {
				t.Errorf("the code is %d, want %d", x.code, test.code)
			}
			if stdout() != test.stdout {
				t.Errorf("stdout has %q, want %q", stdout(), test.stdout)
			}
			if stderr.String() != test.stderr {
				t.Errorf("stderr has %q, want %q", stderr, test.stderr)
			}
		})
	}
}

func TestTextsOfThePluginAreOnlyThePlugins(t *testing.T) {
	var none *pluginTexts
	none.closed(&stream.Closed{}) // panics if it tells
	none.tell("nothing")
}

func TestTextsOnARawTerminalHaveTheirCarriageReturns(t *testing.T) {
	var b strings.Builder
	var raw atomic.Bool
	texts := &pluginTexts{out: &b, raw: &raw}
	texts.message("one")
	raw.Store(true)
	texts.message("two")
	if want := "one\ntwo\r\n"; b.String() != want {
		t.Errorf("they are %q, want %q", b.String(), want)
	}
}

func TestWordsOfTheFarEndDoNotCommandATerminal(t *testing.T) {
	var b strings.Builder
	texts := &pluginTexts{out: &b, raw: new(atomic.Bool), sessionID: "s-\x1b[2J"}
	texts.message("one\ttwo\r\nthree\rfour \u202e\x9b31m\u3000é")
	texts.closed(&stream.Closed{Output: "\x1b]0;x\x07"})
	want := "one\ttwo\r\nthree\\x0dfour \\u202e\ufffd31m\u3000é\n" + "\n\nSessionId: s-\\x1b[2J : \\x1b]0;x\\x07\n\n"
	if b.String() != want {
		t.Errorf("they are %q, want %q", b.String(), want)
	}
}

func TestKeysBelongToTheFarEndOnceItIsThere(t *testing.T) {
	for s, key := range signalKeys() {
		keys := &pluginKeys{typed: make(chan byte, 1)}
		ctx, end := context.WithCancelCause(t.Context())
		keys.begun.Store(true)
		keys.take(s, signalKeys(), end)
		keys.take(s, signalKeys(), end) // and one too many does not wait
		if ctx.Err() != nil {
			t.Errorf("%v ends a session that has begun", s)
		}
		if got := <-keys.typed; got != key.char {
			t.Errorf("%v is the key %#x, want %#x", s, got, key.char)
		}

		keys.begun.Store(false)
		keys.take(s, signalKeys(), end)
		if ended := ctx.Err() != nil; ended != key.ends {
			t.Errorf("%v ends a session that has not begun: %v", s, ended)
		}
		if len(keys.typed) > 0 {
			t.Errorf("%v is kept for a session that has not begun", s)
		}
		end(nil)
	}
	keys := &pluginKeys{}
	keys.begun.Store(true)
	ctx, end := context.WithCancelCause(t.Context())
	keys.take(os.Kill, signalKeys(), end) // stands for any that is no key
	if signal := (*signalError)(nil); !errors.As(context.Cause(ctx), &signal) {
		t.Errorf("a signal that is no key ends a session with %v", context.Cause(ctx))
	}
}
