package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

var shellStart = frame.Start{SessionType: frame.StandardStream}

func TestShellTellsTheSizeWhenItCanBeTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		term := newTerminal(80, 24)
		r.shell.Term = term
		r.run()
		r.wantSent("at once, for an agent that has its pty already", size(80, 24))
		r.start(shellStart)
		r.wantSent("once more at the start, for an agent throws away what came before", size(80, 24))
		term.resize(100, 40)
		r.wantSent("after a change", size(100, 40))
		term.resize(20, 5)
		term.resize(132, 43)
		r.wantSent("after each change", size(20, 5), size(132, 43))
		r.end(errClosed)
		if err := r.wait(); !errors.Is(err, io.EOF) {
			t.Errorf("the session ended with %v, want its good end", err)
		}
	})
}

// Before the start an agent may have acknowledged a size and thrown it away.
func TestShellTellsTheSizeAgainUntilTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.shell.Term = newTerminal(80, 24)
		r.run()
		r.wantSent("at once", size(80, 24))
		time.Sleep(firstAgain)
		r.wantSent("again", size(80, 24))
		time.Sleep(2*firstAgain - time.Millisecond)
		r.wantSent("not yet")
		time.Sleep(time.Millisecond)
		r.wantSent("and again, after twice the time", size(80, 24))
		r.start(shellStart)
		r.wantSent("at the start", size(80, 24))
		time.Sleep(time.Hour)
		r.wantSent("and no more")
		r.end(errClosed)
		_ = r.wait() // not what this is about
	})
}

func TestShellTellsASizeThatChangedBeforeTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		term := newTerminal(80, 24)
		r.shell.Term = term
		r.run()
		r.wantSent("at once", size(80, 24))
		term.cols = 90
		r.start(shellStart)
		r.wantSent("the size as it is at the start", size(90, 24))
		r.end(errClosed)
		_ = r.wait() // as in the test above
	})
}

func TestShellInventsNoSize(t *testing.T) {
	t.Run("without a terminal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.run()
			r.start(shellStart)
			r.wantSent("there is no terminal to tell of")
			r.end(errClosed)
			_ = r.wait() // not what this is about
		})
	})
	t.Run("while the terminal has none", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			term := newTerminal(0, 0)
			term.err = errors.New("the terminal has no size")
			r.shell.Term = term
			r.run()
			r.start(shellStart)
			r.wantSent("a terminal of no size is no reason to send one or to end")
			term.resize(80, 24)
			r.wantSent("the size that it got", size(80, 24))
			r.end(errClosed)
			_ = r.wait() // not what this is about
		})
	})
	t.Run("after the terminal stopped telling", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			term := newTerminal(80, 24)
			r.shell.Term = term
			r.run()
			r.start(shellStart)
			r.wantSent("twice until the start", size(80, 24), size(80, 24))
			close(term.resized)
			r.wantSent("nothing more")
			r.wantRunning("the end of the sizes is not the end of the session")
			r.end(errClosed)
			_ = r.wait() // not what this is about
		})
	})
}

func TestShellForwardsInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run()
		r.press("early")
		r.wantSent("nothing before the start")
		r.start(shellStart)
		r.wantSent("what was typed meanwhile", typed("early"))
		r.press("a")
		r.press("")
		r.press("\x03\x1a\x1c\r")
		r.press("ä\x00\xff")
		r.wantSent("every byte, piece by piece, and no empty one",
			typed("a"), typed("\x03\x1a\x1c\r"), typed("ä\x00\xff"))
		r.end(errClosed)
		_ = r.wait() // not what this is about
	})
}

func TestShellTellsTheEndOfInput(t *testing.T) {
	for _, tt := range []struct {
		name     string
		keyboard bool
		input    []string
		want     []message
	}{
		{"when there was none", false, nil, []message{typed("\x04")}},
		{"after a line", false, []string{"ls\n"}, []message{typed("ls\n"), typed("\x04")}},
		{"after Enter", false, []string{"ls\r"}, []message{typed("ls\r"), typed("\x04")}},
		{"after half a line, which it completes", false, []string{"ls"},
			[]message{typed("ls"), typed("\n"), typed("\x04")}},
		{"after half a line that follows one", false, []string{"ls\n", "pw", "d"},
			[]message{typed("ls\n"), typed("pw"), typed("d"), typed("\n"), typed("\x04")}},
		{"by the last byte, whatever the pieces", false, []string{"l", "s\n", ""},
			[]message{typed("l"), typed("s\n"), typed("\x04")}},
		{"but presses no Enter at a keyboard", true, []string{"ls"}, []message{typed("ls"), typed("\x04")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.shell.Piped = !tt.keyboard
				r.run()
				r.start(shellStart)
				for _, p := range tt.input {
					r.press(p)
				}
				r.endInput(io.EOF)
				r.wantSent("the input and its end", tt.want...)
				r.wantRunning("the end of input is not the end of the session")
				r.say(frame.Output, "late")
				r.end(errClosed)
				if err := r.wait(); !errors.Is(err, io.EOF) {
					t.Errorf("the session ended with %v, want its good end", err)
				}
				if got := r.out.String(); got != "late" {
					t.Errorf("after the end of input the output was %q, want %q", got, "late")
				}
			})
		})
	}
}

// One Ctrl-D ends one read of one program, and one that meets a terminal between
// two modes ends nothing.
func TestShellTellsTheEndOfInputAgainUntilTheSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.shell.Piped = true
		r.run()
		r.start(shellStart)
		r.endInput(io.EOF)
		r.wantSent("the end", typed("\x04"))
		for again := firstAgain; again < 2*lastAgain; again *= 2 {
			pause := min(again, lastAgain)
			time.Sleep(pause - time.Millisecond)
			r.wantSent(fmt.Sprintf("nothing before %v are over", pause))
			time.Sleep(time.Millisecond)
			r.wantSent(fmt.Sprintf("the end again after %v", pause), typed("\x04"))
		}
		time.Sleep(3 * lastAgain)
		r.wantSent("steadily then", typed("\x04"), typed("\x04"), typed("\x04"))
		r.end(errClosed)
		_ = r.wait() // not what this is about
	})
}

func TestShellRefusesALineThatNoTerminalTakes(t *testing.T) {
	full := strings.Repeat("x", MaxLine)
	for _, tt := range []struct {
		name     string
		keyboard bool
		input    []string
		want     []message
		tooLong  bool
	}{
		{"not one that fits", false, []string{full + "\n", full + "\r"}, []message{typed(full + "\n"), typed(full + "\r")}, false},
		{"in one piece", false, []string{full + "x\n"}, nil, true},
		{"after lines that are sent", false, []string{"ls\npwd\n" + full + "x"}, []message{typed("ls\npwd\n")}, true},
		{"in two pieces", false, []string{"ls\n" + full, "x\n"}, []message{typed("ls\n" + full)}, true},
		{"but no program that reads keys", true, []string{full + "x"}, []message{typed(full + "x")}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.shell.Piped = !tt.keyboard
				r.run()
				r.start(shellStart)
				for _, p := range tt.input {
					r.press(p)
				}
				r.wantSent("what fits", tt.want...)
				if !tt.tooLong {
					r.wantRunning("nothing is wrong")
					r.end(errClosed)
				}
				err := r.wait()
				if long := (*LineError)(nil); errors.As(err, &long) != tt.tooLong {
					t.Errorf("the session ended with %v", err)
				}
			})
		})
	}
}

func TestAPanicOfAPartEndsTheShell(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*rig)
	}{
		{"of the output", func(r *rig) { r.shell.Out = panicking{} }},
		{"of the input", func(r *rig) { r.shell.In = panicking{} }},
		{"of the terminal", func(r *rig) { r.shell.Term = panicking{} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				tt.set(r)
				r.run()
				r.start(shellStart)
				select {
				case r.peer.coming <- message{frame.Output, "x"}:
				case err := <-r.result: // before it could be said
					r.result <- err
				}
				crashed := (*crash.Error)(nil)
				if err := r.wait(); !errors.As(err, &crashed) {
					t.Errorf("the session ended with %v, want the panic", err)
				}
			})
		})
	}
}

// panicking is a part of a Shell that panics.
type panicking struct{}

func (panicking) Write([]byte) (int, error)               { panic("writing") }
func (panicking) Read(context.Context) ([]byte, error)    { panic("reading") }
func (panicking) Size() (cols, rows int, err error)       { panic("measuring") }
func (panicking) Resized(context.Context) <-chan struct{} { return nil }

func TestShellDeliversOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run()
		r.start(shellStart)
		r.say(frame.Output, "one ")
		r.say(frame.StdErr, "warning ")
		r.say(frame.PayloadType(99), "of a type that nobody knows")
		r.say(frame.Flag, "\x00\x00\x00\x03")
		r.say(frame.Output, "two")
		r.say(frame.StdErr, "again")
		r.end(errClosed)
		if err := r.wait(); err != errClosed {
			t.Errorf("the session ended with %v, want what Recv said", err)
		}
		if got := r.out.String(); got != "one two" {
			t.Errorf("stdout got %q, want %q", got, "one two")
		}
		if got := r.err.String(); got != "warning again" {
			t.Errorf("stderr got %q, want %q", got, "warning again")
		}
	})
}

func TestShellDeliversOutputThatComesBeforeTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run()
		r.say(frame.Output, "prompt")
		synctest.Wait()
		if got := r.out.String(); got != "prompt" {
			t.Errorf("before the start stdout got %q, want %q", got, "prompt")
		}
		r.end(errClosed)
		_ = r.wait() // not what this is about
	})
}

func TestShellEnd(t *testing.T) {
	var exit *ExitError
	isExit := func(code int) func(error) bool {
		return func(err error) bool { return errors.As(err, &exit) && exit.Code == int64(code) }
	}
	is := func(want error) func(error) bool { return func(err error) bool { return err == want } }
	for _, tt := range []struct {
		name    string
		told    []string // payloads of ExitCode messages
		end     error
		matches func(error) bool
		want    string
	}{
		{"without a status is what Recv said", nil, errClosed, is(errClosed), "the good end"},
		{"with a status of 0 is a good end", []string{"EXIT_CODE: 0"}, errClosed, is(errClosed), "the good end"},
		{"with another status is that status", []string{"EXIT_CODE: 3"}, errClosed, isExit(3), "status 3"},
		{"with a death by signal is -1", []string{"EXIT_CODE: -1"}, errClosed, isExit(-1), "status -1"},
		{"with two statuses is the last", []string{"EXIT_CODE: 3", "EXIT_CODE: 0"}, errClosed, is(errClosed), "the good end"},
		{"that is none after a status is the bad end", []string{"EXIT_CODE: 3"}, errLost, is(errLost), "the bad end"},
		{"that is none is the bad end", nil, errLost, is(errLost), "the bad end"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.run()
				r.start(shellStart)
				for _, status := range tt.told {
					r.say(frame.ExitCode, status)
				}
				r.say(frame.Output, "after the status")
				r.end(tt.end)
				if err := r.wait(); !tt.matches(err) {
					t.Errorf("the session ended with %v, want %s", err, tt.want)
				}
				if got := r.out.String(); got != "after the status" {
					t.Errorf("stdout got %q, want all of it", got)
				}
			})
		})
	}
}

func TestShellRefusesAStatusThatIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run()
		r.say(frame.ExitCode, "EXIT_CODE: many")
		err := r.wait()
		if err == nil || !strings.Contains(err.Error(), "exit code") {
			t.Errorf("a status of %q ended the session with %v, want an error that names it", "many", err)
		}
	})
}

func TestShellRefusesPortSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run()
		r.start(frame.Start{SessionType: frame.Port})
		err := r.wait()
		var kind *KindError
		if !errors.As(err, &kind) || kind.SessionType != frame.Port {
			t.Fatalf("a port session ended with %v, want a KindError for Port", err)
		}
		if !strings.Contains(err.Error(), "Port") {
			t.Errorf("the error is %q and does not name the type", err)
		}
	})
}

func TestShellTakesEveryOtherKind(t *testing.T) {
	for _, kind := range []frame.SessionType{frame.StandardStream, frame.InteractiveCommands, frame.NonInteractiveCommands} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.run()
				r.start(frame.Start{SessionType: kind})
				r.wantRunning("a session of this kind is held")
				r.end(errClosed)
				_ = r.wait() // not what this is about
			})
		})
	}
}

var errUser = errors.New("the user left")

func TestShellEndsWithItsContext(t *testing.T) {
	for _, tt := range []struct {
		name    string
		arrange func(*rig)
	}{
		{"before the start", func(*rig) {}},
		{"while nothing happens", func(r *rig) { r.start(shellStart) }},
		{"after the end of input", func(r *rig) {
			r.start(shellStart)
			r.endInput(io.EOF)
		}},
		{"while input waits for the window", func(r *rig) {
			r.peer.full = make(chan struct{})
			r.start(shellStart)
			r.press("a")
		}},
		{"while a size waits", func(r *rig) {
			r.start(shellStart)
			r.peer.full = make(chan struct{})
			r.shell.Term.(*terminal).resize(1, 1)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.shell.Term = newTerminal(80, 24)
				r.run()
				tt.arrange(r)
				r.wantRunning("nobody has ended it")
				r.cancel(errUser)
				if err := r.wait(); err != errUser {
					t.Errorf("the session ended with %v, want the cause of its context", err)
				}
			})
		})
	}
}

func TestShellEndsWithItsContextEvenIfNobodyTakesItsOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		reader, writer := io.Pipe()
		r.shell.Out = writer
		r.run()
		r.start(shellStart)
		r.say(frame.Output, "for nobody")
		r.wantRunning("it waits for the reader of its output")
		r.cancel(errUser)
		if err := r.wait(); err != errUser {
			t.Errorf("the session ended with %v, want the cause of its context", err)
		}
		reader.Close() // lets the one write go that may outlive Run
	})
}

// takesNothing is a writer that fails, as of a full disk or a closed pipe.
type takesNothing struct{ err error }

func (w takesNothing) Write([]byte) (int, error) { return 0, w.err }

func TestShellTellsThatOutputCannotBeWritten(t *testing.T) {
	full := errors.New("no space left")
	for name, typ := range map[string]frame.PayloadType{"stdout": frame.Output, "stderr": frame.StdErr} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.shell.Out, r.shell.Err = takesNothing{full}, takesNothing{full}
				r.run()
				r.start(shellStart)
				r.say(typ, "lost")
				err := r.wait()
				if !errors.Is(err, full) || !strings.Contains(err.Error(), "output") {
					t.Errorf("the session ended with %v, want that output could not be written: %v", err, full)
				}
			})
		})
	}
}

func TestShellSendErrorDoesNotHideTheGoodEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		act  func(*rig)
	}{
		{"of input", func(r *rig) { r.press("too late") }},
		{"of the end of input", func(r *rig) { r.endInput(io.EOF) }},
		{"of a size", func(r *rig) { r.shell.Term.(*terminal).resize(1, 1) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.shell.Term = newTerminal(80, 24)
				r.peer.sendErr = errClosed // the channel has ended; Recv still has something
				r.run()
				r.start(shellStart)
				tt.act(r)
				r.wantRunning("there is output to come")
				r.say(frame.Output, "last words")
				r.say(frame.ExitCode, "EXIT_CODE: 7")
				r.end(errClosed)
				err := r.wait()
				var exit *ExitError
				if !errors.As(err, &exit) || exit.Code != 7 {
					t.Errorf("the session ended with %v, want status 7", err)
				}
				if got := r.out.String(); got != "last words" {
					t.Errorf("stdout got %q, want %q", got, "last words")
				}
			})
		})
	}
}

func TestShellSendErrorEndsASessionThatIsNotOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.peer.sendErr = errLost
		r.run()
		r.start(shellStart)
		r.press("a")
		if err := r.wait(); err != errLost {
			t.Errorf("the session ended with %v, want what Send said", err)
		}
	})
}

func TestShellInputErrorEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unplugged := errors.New("input/output error")
		r := newRig(t)
		r.run()
		r.start(shellStart)
		r.endInput(unplugged)
		if err := r.wait(); !errors.Is(err, unplugged) {
			t.Errorf("the session ended with %v, want why the input could not be read", err)
		}
		r.wantSent("an input that broke off has no end to tell")
	})
}

func TestShellErrorsAreSentences(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&ExitError{Code: 3}, "remote command exited with status 3"},
		{&KindError{SessionType: frame.Port}, "the document opens a session of type Port, which is not a shell"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("the error says %q, want %q", got, tt.want)
		}
	}
}
