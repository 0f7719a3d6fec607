package session

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// execRig runs an Exec where a rig runs a Shell.
type execRig struct {
	*rig
	exec      Exec
	interrupt chan struct{}
	kill      chan struct{}
	notText   []string
}

func newExecRig(t *testing.T, mode ExecMode) *execRig {
	r := &execRig{rig: newRig(t), interrupt: make(chan struct{}, 1), kill: make(chan struct{})}
	r.exec = Exec{
		Mode: mode, Nonce: nonce, Out: &r.out, Err: &r.err, Interrupt: r.interrupt, Kill: r.kill,
		NotText: func(stream string) { r.notText = append(r.notText, stream) },
	}
	return r
}

func (r *execRig) run() {
	ctx, cancel := context.WithCancelCause(r.t.Context())
	r.cancel = cancel
	go func() { r.result <- r.exec.Run(ctx, r.peer) }()
	synctest.Wait()
}

// begin runs the command on a session that has started.
func (r *execRig) begin() {
	r.run()
	r.start(frame.Start{SessionType: frame.NonInteractiveCommands})
}

// said compares what came out.
func (r *execRig) said(why, out, err string) {
	r.t.Helper()
	synctest.Wait()
	if r.out.String() != out || r.err.String() != err {
		r.t.Errorf("%s: stdout is %q and stderr %q, want %q and %q", why, &r.out, &r.err, out, err)
	}
}

// wantStatus waits for the end of a command with a status.
func (r *execRig) wantStatus(why string, want int64) {
	r.t.Helper()
	err := r.wait()
	var status *Status
	if !errors.As(err, &status) || status.Code != want {
		r.t.Errorf("%s: the command ended with %v, want status %d", why, err, want)
	}
}

// signal gives one value to c.
func signal(c chan struct{}) {
	c <- struct{}{}
	synctest.Wait()
}

// play runs an Exec against what comes, which may be cut anywhere.
func play(t *testing.T, x Exec, end error, coming ...message) (out, err string, result error) {
	synctest.Test(t, func(t *testing.T) {
		r := newExecRig(t, x.Mode)
		r.exec.Binary = x.Binary
		r.begin()
		for _, m := range coming {
			select {
			case r.peer.coming <- m:
				continue
			case result = <-r.result:
			}
			break
		}
		if result == nil {
			if end != nil {
				r.end(end)
			}
			result = <-r.result
		}
		r.cancel(nil)
		out, err = r.out.String(), r.err.String()
	})
	return out, err, result
}

func stdout(s string) message { return message{frame.Output, s} }
func stderr(s string) message { return message{frame.StdErr, s} }
func code(s string) message   { return message{frame.ExitCode, "EXIT_CODE: " + s} }

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) + "\n" }

const noSh = "Error occurred starting the command: exec: \"sh\": executable file not found in $PATH\n"

// ends is how a command ended, as its error tells.
type ends struct {
	status     int64 // of a Status
	incomplete int64 // the agent's code of an IncompleteError
	text       string
}

func endOf(err error) (e ends) {
	if s := (*Status)(nil); errors.As(err, &s) {
		e.status = s.Code
	}
	if i := (*IncompleteError)(nil); errors.As(err, &i) {
		e.incomplete = i.Code
	}
	e.text = err.Error()
	return e
}

func TestExecEnds(t *testing.T) {
	binary := Exec{Mode: Streams, Binary: true}
	for _, c := range []struct {
		what     string
		exec     Exec
		coming   []message
		end      error // nil: the session stays open
		out, err string
		want     ends
	}{
		{"both markers end it, and nothing else is waited for", Exec{},
			[]message{stdout("one\n"), stderr("two\n"), stderr(mark("3")), stdout("three" + mark("3"))}, nil,
			"one\nthree", "two\n", ends{3, 0, "the command ended with status 3"}},
		{"success is a status too", Exec{}, []message{stdout(mark("0")), stderr(mark("0"))}, nil,
			"", "", ends{0, 0, "the command ended with status 0"}},
		{"a marker of stdout is the runner's", Exec{}, []message{stdout(mark("5") + mark("137")), stderr(mark("137"))}, nil,
			"", "", ends{5, 0, "the command ended with status 5"}},
		{"the agent's code does not count", Exec{}, []message{stdout("a"), code("-1"), stderr(mark("143")), stdout(mark("143"))}, nil,
			"a", "", ends{143, 0, "the command ended with status 143"}},
		{"a code without markers", Exec{}, []message{stdout("a[0"), code("0")}, nil,
			"a[0", "", ends{0, 0, "the output is incomplete: the end of stdout and stderr is missing: nothing more came within 2s after the exit code"}},
		{"a code without one marker", Exec{}, []message{stdout("a" + mark("0")), code("0")}, errClosed,
			"a", "", ends{0, 0, "the output is incomplete: the end of stderr is missing: session closed: EOF"}},
		{"an end without anything", Exec{}, nil, errClosed,
			"", "", ends{0, NoCode, "the output is incomplete: the end of stdout and stderr is missing: session closed: EOF"}},
		{"a lost session", Exec{}, []message{stdout("a" + mark("0"))}, errLost,
			"a", "", ends{0, 0, "session lost"}},
		{"no sh", Exec{}, []message{code("1"), stderr(noSh[:5]), stderr(noSh[5:])}, errClosed,
			"", "", ends{0, 0, `there is no sh on the target: "` + strings.ReplaceAll(strings.TrimSpace(noSh), `"`, `\"`) + `"`}},
		{"no sh, and a session that stays", Exec{}, []message{code("1"), stderr(noSh[37:])}, nil,
			"", "", ends{0, 0, `there is no sh on the target: "exec: \"sh\": executable file not found in $PATH"`}},
		{"no sh, says the command", Exec{}, []message{stderr(noSh), code("1")}, errClosed,
			"", noSh, ends{0, 1, "the output is incomplete: the end of stdout and stderr is missing: session closed: EOF"}},
		{"no sh, says the command late", Exec{}, []message{code("1"), stderr(noSh), stdout("x")}, errClosed,
			"x", noSh, ends{0, 1, "the output is incomplete: the end of stdout and stderr is missing: session closed: EOF"}},
		{"other words late", Exec{}, []message{code("1"), stderr("Error occ"), stderr("ured" + mark("1")), stdout(mark("1"))}, nil,
			"", "Error occured", ends{1, 0, "the command ended with status 1"}},
		{"a command that the agent cannot take apart", Exec{}, []message{stderr("Unable to start command: x\n")}, errClosed,
			"", "Unable to start command: x\n", ends{0, NoCode, "the output is incomplete: the end of stdout and stderr is missing: session closed: EOF"}},
		{"base64", binary, []message{stdout(encoded("a\xff\x00")), stdout(encoded("b" + mark("9"))), stderr(encoded(mark("9")))}, nil,
			"a\xff\x00b", "", ends{9, 0, "the command ended with status 9"}},
		{"base64 cut anywhere", binary, []message{stdout("Y"), stdout("Q="), stdout("=\nYg"), stderr(encoded("err" + mark("9"))), stdout("==" + encoded(mark("9")))}, nil,
			"ab", "err", ends{9, 0, "the command ended with status 9"}},
		{"whoever encodes was killed", binary, []message{stdout("YQ==" + mark("137")), stderr(mark("137"))}, nil,
			"a", "", ends{0, NoCode, "the output is incomplete: what carries it was killed on the target"}},
		{"whoever encodes ends behind the command", binary, []message{stderr(encoded("b"+mark("9")) + mark("0")), stdout(encoded("a"+mark("9")) + mark("0"))}, nil,
			"a", "b", ends{9, 0, "the command ended with status 9"}},
		{"bad base64", binary, []message{stdout("YWJj*")}, nil,
			"abc", "", ends{0, NoCode, "the output is incomplete: stdout cannot be decoded: '*' is no digit of what is encoded here"}},
		{"base64 and no sh", binary, []message{code("1"), stderr(noSh)}, errClosed,
			"", "", ends{0, 0, `there is no sh on the target: "` + strings.ReplaceAll(strings.TrimSpace(noSh), `"`, `\"`) + `"`}},
		{"no base64", binary, []message{stderr("ssmsession: there is "), stderr("no base64\n"), code("127")}, errClosed,
			"", "", ends{0, 0, `the target cannot run the command like this: "ssmsession: there is no base64"`}},
		{"base64 that begins like the agent's words", binary, []message{stderr("Er"), stderr("Er"), stdout("YQ=="), code("1")}, errClosed,
			"a", "\x12\xb1\x2b", ends{0, 1, "the output is incomplete: the end of stdout and stderr is missing: session closed: EOF"}},
		{"base64 that ends so", binary, []message{stderr("Erro"), code("1")}, errClosed,
			"", "\x12\xba\xe8", ends{0, 1, "the output is incomplete: the end of stdout and stderr is missing: session closed: EOF"}},
		{"without a wrapper", Exec{Mode: Plain}, []message{stdout(mark("7")), stderr("e"), code("3")}, errClosed,
			mark("7"), "e", ends{3, 0, "the command ended with status 3\nsession closed: EOF"}},
		{"without a wrapper, a status of Windows", Exec{Mode: Plain}, []message{code("3221225477")}, errClosed,
			"", "", ends{0xc0000005, 0, "the command ended with status 3221225477\nsession closed: EOF"}},
		{"without a wrapper, a signal", Exec{Mode: Plain}, []message{code("-1")}, errClosed,
			"", "", ends{0, 0, "the command was ended by a signal, and the agent does not tell by which\nsession closed: EOF"}},
		{"without a wrapper, no code", Exec{Mode: Plain}, []message{stdout("a[")}, errClosed,
			"a[", "", ends{0, 0, "the session ended without the command's status\nsession closed: EOF"}},
		{"without a wrapper, lost", Exec{Mode: Plain}, []message{code("0")}, errLost, "", "", ends{0, 0, "session lost"}},
		{"a code that is none", Exec{}, []message{{frame.ExitCode, "7"}}, nil,
			"", "", ends{0, 0, `exit code payload "7" is not "EXIT_CODE: " and a number`}},
		{"on a terminal", Exec{Mode: OnTerminal}, []message{stdout("$ [0"), stdout("1" + mark("4"))}, nil,
			"$ [01", "", ends{4, 0, "the command ended with status 4"}},
		{"on a terminal, without a marker", Exec{Mode: OnTerminal}, []message{stdout("a" + mark("4")[:34])}, errClosed,
			"a" + mark("4")[:34], "", ends{0, NoCode, "the output is incomplete: the end of stdout is missing: session closed: EOF"}},
		{"in frames", Exec{Mode: Framed}, []message{stdout("(s" + nonce + ")" + framedAs('o', "a"+mark("4"))), stdout(framedAs('e', mark("4")))}, nil,
			"a", "", ends{4, 0, "the command ended with status 4"}},
		{"in frames, without an end", Exec{Mode: Framed}, []message{stdout("(s" + nonce + ")" + framedAs('o', "a"+mark("4")))}, errClosed,
			"a", "", ends{0, NoCode, "the output is incomplete: the end of stderr is missing: session closed: EOF"}},
		{"in frames that never begin", Exec{Mode: Framed}, []message{stdout("sh: not found\r\n")}, errClosed,
			"", "", ends{0, 0, `the target cannot run the command like this: "sh: not found"`}},
		{"in no frames at all", Exec{Mode: Framed}, []message{stderr("x")}, errClosed,
			"", "", ends{0, NoCode, "the output is incomplete: the command did not start: session closed: EOF"}},
		{"in frames, and the target cannot", Exec{Mode: Framed}, []message{stdout("(x" + nonce + " no stty)")}, nil,
			"", "", ends{0, 0, `the target cannot run the command like this: "no stty"`}},
	} {
		t.Run(c.what, func(t *testing.T) {
			out, errOut, err := play(t, c.exec, c.end, c.coming...)
			if out != c.out || errOut != c.err {
				t.Errorf("stdout is %q and stderr %q, want %q and %q", out, errOut, c.out, c.err)
			}
			if got := endOf(err); got != c.want {
				t.Errorf("it ended with %+v, want %+v", got, c.want)
			}
			if c.end != nil && err != nil && !strings.Contains(c.want.text, "like this: \"no") &&
				!errors.Is(err, c.end) {
				t.Errorf("the end of the session, %v, is not to be found in %v", c.end, err)
			}
		})
	}
}

func TestExecWaitsForMarkersAfterTheCodeAndNotForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newExecRig(t, Streams)
		r.begin()
		r.say(frame.Output, "a"+mark("0"))
		r.say(frame.ExitCode, "EXIT_CODE: 0")
		time.Sleep(lostGrace - time.Millisecond)
		r.wantRunning("within the grace")
		r.say(frame.ExitCode, "EXIT_CODE: 0")
		r.say(frame.StdErr, "late")
		time.Sleep(time.Millisecond)
		var incomplete *IncompleteError
		if err := r.wait(); !errors.As(err, &incomplete) || !errors.Is(err, errSilent) || incomplete.Code != 0 {
			t.Errorf("it ended with %v, want an IncompleteError for the silence", err)
		}
		r.said("at the end", "a", "late")
	})
}

func TestExecHoldsBackOnlyWhatMayBeAMarker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newExecRig(t, Streams)
		r.begin()
		r.say(frame.Output, "prompt [01")
		r.said("at once", "prompt ", "")
		r.say(frame.Output, "x")
		r.said("when it is none", "prompt [01x", "")
		r.say(frame.Output, "[0123456789")
		r.end(errClosed)
		_ = r.wait() // not what this is about
		r.said("at the end of the session", "prompt [01x[0123456789", "")
	})
}

func TestExecTellsOnceWhatIsNotText(t *testing.T) {
	text := func(s string) []message { return []message{stdout(s), stderr(s), stdout(mark("0")), stderr(mark("0"))} }
	for _, c := range []struct {
		what   string
		exec   Exec
		coming []message
		want   []string
	}{
		{"text", Exec{}, text("aé"), nil},
		{"a character in two pieces", Exec{}, append([]message{stdout("\xc3"), stdout("\xa9")}, text("a")...), nil},
		{"both streams", Exec{}, text("\xff"), []string{"stdout"}},
		{"stderr", Exec{}, append([]message{stdout("a"), stderr("\xff")}, text("\xff")...), []string{"stderr"}},
		{"half a character at the end", Exec{}, text("\xc3"), []string{"stdout"}},
		{"base64", Exec{Binary: true}, text(encoded("\xff" + mark("0"))), nil},
		{"frames", Exec{Mode: Framed}, []message{stdout("\xff(s" + nonce + ")" + framedAs('o', "\xff"+mark("0")) + framedAs('e', mark("0")))}, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newExecRig(t, c.exec.Mode)
				r.exec.Binary = c.exec.Binary
				r.begin()
				for _, m := range c.coming {
					select {
					case r.peer.coming <- m:
					case err := <-r.result:
						r.result <- err
					}
				}
				r.wantStatus("the command", 0)
				if !slices.Equal(r.notText, c.want) {
					t.Errorf("told of %q, want %q", r.notText, c.want)
				}
			})
		})
	}
}

func TestExecInterruptsOnceWhereTheAgentTakesOne(t *testing.T) {
	for mode, want := range map[ExecMode]int{Streams: 1, Plain: 1, OnTerminal: 3} {
		synctest.Test(t, func(t *testing.T) {
			r := newExecRig(t, mode)
			r.run()
			signal(r.interrupt)
			r.wantSent("before the start")
			r.start(frame.Start{})
			time.Sleep(time.Second)
			synctest.Wait()
			signal(r.interrupt)
			signal(r.interrupt)
			r.wantSent("three interrupts", slices.Repeat([]message{typed("\x03")}, want)...)
			r.end(errClosed)
			_ = r.wait() // not what this is about
		})
	}
}

// An agent that has no command yet would stop listening at an interrupt.
func TestExecInterruptsNothingBeforeTheCommandIsThere(t *testing.T) {
	for _, mode := range []ExecMode{Streams, Plain} {
		for why, begin := range map[string]func(*execRig){
			"output":           func(r *execRig) { r.say(frame.StdErr, "x") },
			"the first second": func(*execRig) { time.Sleep(time.Millisecond) },
		} {
			synctest.Test(t, func(t *testing.T) {
				r := newExecRig(t, mode)
				r.begin()
				signal(r.interrupt)
				time.Sleep(time.Second - time.Millisecond)
				r.wantSent("before " + why)
				begin(r)
				r.wantSent("after "+why, typed("\x03"))
				r.end(errClosed)
				_ = r.wait() // not what this is about
			})
		}
	}
}

func TestExecOnATerminalTakesKeysAndSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newExecRig(t, OnTerminal)
		r.exec.In, r.exec.Term = keyboard{r.rig}, newTerminal(80, 24)
		r.begin()
		r.wantSent("at the start", size(80, 24), size(80, 24))
		r.press("ls\r")
		r.wantSent("a key", typed("ls\r"))
		r.say(frame.Output, mark("0"))
		r.wantStatus("the command", 0)
	})
}

// beginFramed runs a command whose wrapper listens.
func beginFramed(r *execRig) {
	r.begin()
	r.wantSent("before the wrapper listens")
	r.say(frame.Output, "(s"+nonce+")")
}

func TestExecFramesItsInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newExecRig(t, Framed)
		r.exec.In = keyboard{r.rig}
		beginFramed(r)
		r.press("hello\x00\n")
		r.wantSent("a piece", typed("d 7\nhello\x00\n"))
		big := strings.Repeat("x", maxInput+1)
		r.press(big)
		r.wantSent("before the first was taken")
		r.say(frame.Output, "(a)")
		r.wantSent("a big piece", typed("d 32768\n"+big[1:]))
		r.say(frame.Output, "(a)")
		r.wantSent("the rest of it", typed("d 1\nx"))
		r.endInput(io.EOF)
		r.wantSent("the end waits, too")
		r.say(frame.Output, "(a)")
		r.wantSent("the end", typed("e\n"))
		r.say(frame.Output, framedAs('o', mark("0"))+framedAs('e', mark("0")))
		r.wantStatus("the command", 0)
	})
}

func TestExecSendsTheScriptFirst(t *testing.T) {
	for what, script := range map[string]string{"a script": "echo\n", "an empty one": ""} {
		synctest.Test(t, func(t *testing.T) {
			r := newExecRig(t, Framed)
			r.exec.Script = []byte(script)
			beginFramed(r)
			if script != "" {
				r.wantSent(what, typed("d 5\necho\n"))
				r.say(frame.Output, "(a)")
			}
			r.wantSent("the end of "+what+" and of no input", typed("e\n"), typed("e\n"))
			r.end(errClosed)
			_ = r.wait() // not what this is about
		})
	}
}

func TestExecSignalsTheGroupOnceItIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newExecRig(t, Framed)
		r.exec.In = keyboard{r.rig}
		r.run()
		signal(r.interrupt)
		r.start(frame.Start{})
		r.say(frame.Output, "(s"+nonce+")")
		r.press("stuck")
		r.wantSent("input, and no interrupt for nobody", typed("d 5\nstuck"))
		r.say(frame.Output, "(p4321)(p99)")
		r.wantSent("the interrupt, though the input is not taken", typed("i 4321\n"))
		signal(r.interrupt)
		signal(r.kill)
		r.wantSent("each that follows", typed("i 4321\n"), typed("k 4321\n"))
		close(r.interrupt)
		close(r.kill)
		r.wantSent("closed channels say nothing")
		r.say(frame.Output, framedAs('o', mark("137"))+framedAs('e', mark("137")))
		r.wantStatus("at once, without waiting for the input", 137)
	})
}

func TestExecSignalsAllThatWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newExecRig(t, Framed)
		beginFramed(r)
		r.wantSent("the end of no input", typed("e\n"))
		signal(r.interrupt)
		signal(r.kill)
		r.say(frame.Output, "(p4321)")
		r.wantSent("both", typed("i 4321\nk 4321\n"))
		r.end(errClosed)
		_ = r.wait() // not what this is about
	})
}

func TestExecEndsWithWhatWentWrongHere(t *testing.T) {
	broken := errors.New("broken")
	for what, prepare := range map[string]func(r *execRig){
		"input that cannot be read": func(r *execRig) { r.exec.In = keyboard{r.rig}; r.inErr = broken; close(r.typing) },
		"a send that fails":         func(r *execRig) { r.peer.sendErr = broken },
		"output that cannot be written": func(r *execRig) {
			r.exec.Out = brokenWriter{broken}
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newExecRig(t, Framed)
				prepare(r)
				r.begin()
				r.say(frame.Output, "(s"+nonce+")")
				select {
				case r.peer.coming <- stdout(framedAs('o', "x")):
				case err := <-r.result:
					r.result <- err
				}
				if err := r.wait(); !errors.Is(err, broken) {
					t.Errorf("it ended with %v, want what went wrong", err)
				}
			})
		})
	}
}

func TestExecRefusesAPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newExecRig(t, Streams)
		r.run()
		r.start(frame.Start{SessionType: frame.Port})
		var kind *KindError
		if err := r.wait(); !errors.As(err, &kind) {
			t.Errorf("a session of a port ended with %v, want a KindError", err)
		}
	})
}

// stuckWriter takes nothing until it is let go, or panics.
type stuckWriter struct{ let chan struct{} }

func (s stuckWriter) Write(p []byte) (int, error) {
	if s.let == nil {
		panic("no writer")
	}
	<-s.let
	return len(p), nil
}

func TestExecEndsWithItsContextThoughOutTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newExecRig(t, Streams)
		out := stuckWriter{make(chan struct{})}
		defer close(out.let)
		r.exec.Out = out
		r.begin()
		r.say(frame.Output, "x")
		enough := errors.New("enough")
		r.cancel(enough)
		if err := r.wait(); !errors.Is(err, enough) {
			t.Errorf("it ended with %v, want the context's cause", err)
		}
	})
}

func TestExecMakesAnErrorOfAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newExecRig(t, Streams)
		r.exec.Out = stuckWriter{}
		r.begin()
		r.say(frame.Output, "x")
		var internal *crash.Error
		if err := r.wait(); !errors.As(err, &internal) {
			t.Errorf("it ended with %v, want the panic as an error", err)
		}
	})
}

// feed is a Peer that gives one message again and again.
type feed struct{ message []byte }

func (f feed) Send(context.Context, frame.PayloadType, []byte) error { return nil }

func (f feed) Recv(context.Context) (frame.PayloadType, []byte, error) {
	return frame.Output, f.message, nil
}

func (f feed) Started(ctx context.Context) (frame.Start, error) {
	<-ctx.Done()
	return frame.Start{}, context.Cause(ctx)
}

// limitedWriter fails after some bytes, which ends a Run.
type limitedWriter struct{ left int }

func (l *limitedWriter) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left <= 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func BenchmarkExecStreams(b *testing.B) {
	for what, c := range map[string]struct {
		notText func(string)
		check   Check
	}{
		"bare":    {},
		"text":    {notText: func(string) {}},
		"checked": {check: Check{Ask: func(context.Context) (bool, error) { return true, nil }}},
	} {
		b.Run(what, func(b *testing.B) {
			p := feed{bytes.Repeat([]byte("some text with [brackets]\n"), 1024/26)}
			b.SetBytes(100 << 20)
			b.ReportAllocs()
			for b.Loop() {
				x := Exec{Nonce: nonce, Out: &limitedWriter{100 << 20}, Err: io.Discard, NotText: c.notText, Check: c.check}
				if err := x.Run(b.Context(), p); !errors.Is(err, io.ErrShortWrite) {
					b.Fatal(err)
				}
			}
		})
	}
}
