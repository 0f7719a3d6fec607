package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/events"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/tty"
)

func TestSizesAreBytesOrUnitsOf1024(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int
		good bool
	}{
		{"1", 1, true},
		{"100", 100, true},
		{"7B", 7, true},
		{"2K", 2048, true},
		{"2kib", 2048, true},
		{"64MiB", 64 << 20, true},
		{"64mb", 64 << 20, true},
		{"1G", 1 << 30, true},
		{"", 0, false},
		{"0", 0, false},
		{"-1", 0, false},
		{"MiB", 0, false},
		{"1.5M", 0, false},
		{"1 M", 0, false},
		{"1T", 0, false},
		{"1MM", 0, false},
		{"99999999999999999999", 0, false},
		{"9223372036854775807G", 0, false},
	} {
		got, err := parseBytes(c.in)
		if got != c.want || (err == nil) != c.good {
			t.Errorf("the size %q is read as %d with the error %v; want %d, and an error: %t", c.in, got, err, c.want, !c.good)
		}
	}
}

func TestAgentsBefore3_1_1511MixTheOutputs(t *testing.T) {
	for version, want := range map[string]bool{
		"3.1.1511.0":      false,
		"3.1.1511":        false,
		"3.1.1512.0":      false,
		"3.2.0.0":         false,
		"4.0.0.0":         false,
		"3.1.1510.0":      true,
		"3.1.1188.0":      true,
		"3.0.9999.0":      true,
		"2.3.672.0":       true,
		"":                false, // nobody knows
		"3.1":             false, // it may be either
		"3":               false,
		"3.0":             true,
		"3.x.1510.0":      false,
		"latest.of.all.0": false,
	} {
		if got := session.AgentBefore(version, separatingAgent); got != want {
			t.Errorf("an agent %q mixes the outputs: %t, want %t", version, got, want)
		}
	}
}

func TestExitCodesOfExecHaveAnOwner(t *testing.T) {
	closed := &stream.Closed{}
	late := &timeoutError{limit: time.Minute}
	for _, c := range []struct {
		name  string
		err   error
		code  int
		owner events.By
		told  string // the code of the problem, empty for none
	}{
		{"a command that succeeded", &session.Status{}, 0, events.ByRemote, ""},
		{"one that failed", &session.Status{Code: 7}, 7, events.ByRemote, ""},
		{"one that failed as we would", &session.Status{Code: 255}, 255, events.ByRemote, ""},
		{"one on Windows that failed with more than a byte", &session.Status{Code: 5 << 8}, 1, events.ByRemote, ""},
		{"one there that wants a restart", &session.Status{Code: 3010}, 194, events.ByRemote, ""},
		{"a status, and trouble behind it", errors.Join(&session.Status{Code: 3}, errors.New("late")), 3, events.ByRemote, ""},
		{"a status of start's", &session.ExitError{Code: 4}, 4, events.ByRemote, ""},
		{"lost output", &session.IncompleteError{Code: 0, Err: closed}, 255, events.ByClient, "Incomplete"},
		{"no shell", &session.NoShellError{Text: "none"}, 255, events.ByClient, "NotSupported"},
		{"a target that cannot", &session.CannotError{Text: "no stty"}, 255, events.ByClient, "NotSupported"},
		{"a death of which no more is known", errors.Join(&session.StatusError{Code: -1}, closed), 255, events.ByClient, "NoStatus"},
		{"no status", fmt.Errorf("%w: %w", session.ErrNoStatus, closed), 255, events.ByClient, "NoStatus"},
		{"the escape", errLeft, 255, events.ByClient, "NoStatus"},
		{"the timeout", late, 124, events.ByClient, "CommandTimeout"},
		{"the timeout while the service was asked", fmt.Errorf("cannot start: %w", late), 124, events.ByClient, "CommandTimeout"},
		{"a signal", &signalError{syscall.SIGTERM}, 143, events.BySignal, ""},
		{"a signal, whatever the status", errors.Join(&signalError{syscall.SIGTERM}, &session.Status{Code: 1}), 143, events.BySignal, ""},
		{"a reader that left", &session.WriteError{Err: syscall.EPIPE}, 141, events.BySignal, ""},
		{"the command line", &usageError{"ssmsession exec", errors.New("odd")}, 2, events.ByClient, "Usage"},
		{"nothing of all that", nil, 0, "", ""},
	} {
		x := exitOf(c.err)
		if x.code != c.code || x.owner != c.owner {
			t.Errorf("%s: the exit code is %d of %q, want %d of %q", c.name, x.code, x.owner, c.code, c.owner)
		}
		told := ""
		if p := explain(c.err); p != nil {
			told = p.code
		}
		if told != c.told {
			t.Errorf("%s: the problem's code is %q, want %q", c.name, told, c.told)
		}
	}
}

// What a system says of a pipe that nobody reads differs.
func TestAReaderThatLeftIsKnown(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = tty.NewWriter(w).Write([]byte("x"))
	if x := exitOf(&session.WriteError{Err: err}); x.code != 141 {
		t.Errorf("a reader that left (%v) is exit code %d, want 141", err, x.code)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhoMayNotUsePipesIsToldOfThePty(t *testing.T) {
	denied := &api.Error{Op: "start session", Code: "AccessDeniedException", Message: "access denied", Hint: "ask somebody"}
	for _, c := range []struct {
		name     string
		err      error
		granted  bool
		document string
		want     string
	}{
		{"denied", denied, false, "", "ask somebody; or: --via pty needs only AWS-StartInteractiveCommand"},
		{"a document that is not there", &api.Error{Code: "InvalidDocument"}, false, "", "--via pty needs only AWS-StartInteractiveCommand"},
		{"a session that the agent cannot play", &failure{code: "NotBegun", err: io.EOF}, true, "", "--via pty needs only AWS-StartInteractiveCommand"},
		{"denied at the end", denied, true, "", "ask somebody"},
		{"denied a document of one's own", denied, false, "Own", "ask somebody"},
		{"lost output", &session.IncompleteError{Err: io.EOF}, true, "", "the command may have ended or not; --via pty rides out a pause of the service and a lost connection"},
		{"output lost by the channel", &failure{code: "Incomplete", err: io.EOF}, true, "Own", lostHint},
		{"throttled", &api.Error{Code: "ThrottlingException", Hint: "wait"}, false, "", "wait"},
	} {
		e := &env{report: newReport(io.Discard)}
		e.result = &result{}
		if c.granted {
			e.result.SessionID = "s"
		}
		x := &execCommand{env: e, document: c.document}
		if got := explain(x.suggestPty(c.err)).hint; got != c.want {
			t.Errorf("%s: the hint is %q, want %q", c.name, got, c.want)
		}
	}
}

func TestATimeLimitStopsACommandStepByStep(t *testing.T) {
	for _, c := range []struct {
		name   string
		kills  bool
		obeys  string // what the command ends by
		want   []string
		within time.Duration
	}{
		{"one that obeys", true, "interrupt", []string{"interrupt"}, time.Minute},
		{"one that has to be killed", true, "kill", []string{"interrupt", "kill"}, time.Minute + 5*time.Second},
		{"one that cannot be", true, "", []string{"interrupt", "kill", "end"}, time.Minute + 5*time.Second + killGrace},
		{"one whose session takes no kill", false, "", []string{"interrupt", "end"}, time.Minute + 5*time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var limit timeLimit
				begun := time.Now()
				ctx, stop := limit.begin(t.Context(), time.Minute, 5*time.Second)
				defer stop()
				ctx, cancel := context.WithCancelCause(ctx)
				r := newReins(c.kills, cancel)
				watched := make(chan struct{})
				go func() {
					defer close(watched)
					limit.watch(ctx, r)
				}()
				var got []string
				for ctx.Err() == nil {
					select {
					case <-r.interrupt:
						got = append(got, "interrupt")
					case <-r.kill:
						got = append(got, "kill")
					case <-ctx.Done():
						got = append(got, "end")
					}
					if got[len(got)-1] == c.obeys {
						cancel(nil)
					}
				}
				<-watched
				if fmt.Sprint(got) != fmt.Sprint(c.want) {
					t.Errorf("it is stopped by %q, want %q", got, c.want)
				}
				if took := time.Since(begun); took != c.within {
					t.Errorf("it takes %s, want %s", took, c.within)
				}
				if late := (*timeoutError)(nil); !errors.As(limit.result(&session.Status{Code: 130}), &late) {
					t.Error("a status that came after the time counts")
				}
				stopped := &signalError{syscall.SIGTERM}
				if got := limit.result(stopped); !errors.Is(got, stopped) {
					t.Errorf("a signal to us does not count, but %v", got)
				}
			})
		})
	}
}

func TestATimeLimitEndsWhatHasNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limit timeLimit
		ctx, stop := limit.begin(t.Context(), time.Minute, time.Hour)
		defer stop()
		<-ctx.Done()
		if late := (*timeoutError)(nil); !errors.As(context.Cause(ctx), &late) || late.Error() != "the command had not begun after 1m0s" {
			t.Errorf("it ends because of %v", context.Cause(ctx))
		}
	})
}

func TestACommandThatEndsInTimeKeepsItsStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limit timeLimit
		ctx, stop := limit.begin(t.Context(), time.Minute, 5*time.Second)
		ctx, cancel := context.WithCancelCause(ctx)
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			limit.watch(ctx, newReins(true, cancel))
		}()
		cancel(nil)
		<-watched
		stop()
		<-time.After(time.Hour)
		status := &session.Status{Code: 3}
		if got := limit.result(status); !errors.Is(got, status) {
			t.Errorf("its status has become %v", got)
		}
	})
}

func TestNoLimitIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limit timeLimit
		ctx, stop := limit.begin(t.Context(), 0, time.Second)
		defer stop()
		<-time.After(1000 * time.Hour)
		if ctx.Err() != nil {
			t.Errorf("it ends by %v", context.Cause(ctx))
		}
	})
}

func TestOnlyTheFirstInterruptIsPassedOn(t *testing.T) {
	var i interrupts
	if i.take() {
		t.Error("an interrupt is taken that nobody wants")
	}
	r := newReins(false, nil)
	release := i.passTo(r.pull)
	if !i.take() || len(r.interrupt) != 1 {
		t.Error("the first interrupt is not passed on")
	}
	if i.take() || len(r.interrupt) != 1 {
		t.Error("the second is passed on, too")
	}
	release()
	release = i.passTo(newReins(false, nil).pull)
	release()
	if i.take() {
		t.Error("an interrupt is taken by what is over")
	}
}

func TestInputThatNobodyReadsIsSeen(t *testing.T) {
	dir := t.TempDir()
	file := func(content string, at int64) *os.File {
		name := filepath.Join(dir, fmt.Sprintf("%d-%d", len(content), at))
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() }) // or it is closed already
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		return f
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	gone := file("gone", 0)
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		in   *os.File
		want bool
	}{
		{"a file", file("content", 0), true},
		{"a file that was read in part", file("content", 3), true},
		{"a file that was read", file("content", 7), false},
		{"an empty file", file("", 0), false},
		{"the null device", null, false},
		{"a descriptor that is closed", gone, false},
	} {
		if got := hasInput(c.in); got != c.want {
			t.Errorf("%s has input: %t, want %t", c.name, got, c.want)
		}
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	defer in.Close()
	if _, err := in.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if !hasInput(out) {
		t.Error("a pipe with something in it has no input")
	}
}

func TestAScriptIsReadWhole(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "empty")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readScript(t.Context(), name); err != nil || got == nil || len(got) > 0 {
		t.Errorf("an empty script is read as %v, %v; want a script without bytes", got, err)
	}
	for _, bad := range []string{filepath.Join(dir, "nowhere"), dir} {
		if _, err := readScript(t.Context(), bad); err == nil {
			t.Errorf("%s is read as a script", bad)
		}
	}
}
