package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// sign is what the wrapper says when it is asked.
const sign = "[" + nonce + "]"

// checkRig is an execRig whose checks the test answers.
type checkRig struct {
	*execRig
	lost    chan struct{}
	deaf    atomic.Bool // the connection does not work, which nobody has told yet
	asks    atomic.Int64
	left    atomic.Int64 // asks that were not answered when their context ended
	answers chan asked
}

func newCheckRig(t *testing.T) *checkRig {
	r := &checkRig{execRig: newExecRig(t, Streams), lost: make(chan struct{}, 1), answers: make(chan asked)}
	r.exec.Check = Check{Lost: r.lost, Ask: func(ctx context.Context) (bool, error) {
		r.asks.Add(1)
		select {
		case a := <-r.answers:
			return a.found, a.err
		case <-ctx.Done():
			r.left.Add(1)
			return false, context.Cause(ctx)
		}
	}}
	return r
}

// checkedPeer is a farEnd whose connection can be asked for.
type checkedPeer struct {
	*farEnd
	deaf *atomic.Bool
}

func (p checkedPeer) Alive(ctx context.Context) error {
	if p.deaf.Load() {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

func (r *checkRig) begin() {
	ctx, cancel := context.WithCancelCause(r.t.Context())
	r.cancel = cancel
	go func() { r.result <- r.exec.Run(ctx, checkedPeer{r.peer, &r.deaf}) }()
	r.start(frame.Start{SessionType: frame.NonInteractiveCommands})
}

// wantAsks compares how many checks there have been.
func (r *checkRig) wantAsks(why string, want int64) {
	r.t.Helper()
	r.wantRunning(why)
	if got := r.asks.Load(); got != want {
		r.t.Errorf("%s: there have been %d checks, want %d", why, got, want)
	}
}

// lose and regain are what happens to the connection. Nobody tells of the second.
func (r *checkRig) lose() {
	r.deaf.Store(true)
	select {
	case r.lost <- struct{}{}:
	default:
	}
	synctest.Wait()
}

func (r *checkRig) regain() { r.deaf.Store(false) }

// tell gives a check its answer.
func (r *checkRig) tell(a asked) {
	r.t.Helper()
	select {
	case r.answers <- a:
	case <-time.After(time.Minute):
		r.t.Fatal("there is no check to answer")
	}
	synctest.Wait()
}

// answer is a check that finds a wrapper, which is heard on both outputs.
func (r *checkRig) answer() {
	r.tell(asked{found: true})
	r.say(frame.Output, sign)
	r.say(frame.StdErr, sign)
	synctest.Wait()
}

// finish ends the command and wants its status and outputs.
func (r *checkRig) finish(out, err string) {
	r.t.Helper()
	r.wantRunning("before the end of the command")
	r.say(frame.Output, mark("7"))
	r.say(frame.StdErr, mark("7"))
	r.wantStatus("the command", 7)
	r.said("at its end", out, err)
}

// wantLost waits for the end of a command whose output is lost.
func (r *checkRig) wantLost(why, text string) {
	r.t.Helper()
	synctest.Wait()
	select {
	case err := <-r.result:
		var incomplete *IncompleteError
		if !errors.As(err, &incomplete) || incomplete.Code != NoCode || !strings.HasSuffix(err.Error(), text) {
			r.t.Errorf("%s: it ended with %v, want incomplete output: %s", why, err, text)
		}
	default:
		r.t.Errorf("%s: it has not ended", why)
	}
	r.cancel(nil)
}

const instant = time.Millisecond

func TestASilentCommandIsNotChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.begin()
		time.Sleep(24 * time.Hour)
		r.wantAsks("it never said anything", 0)
		r.finish("", "")
	})
}

func TestAnAnsweredCheckIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.begin()
		want, quiet := int64(0), quietFirst
		for i := range 8 {
			stream := []frame.PayloadType{frame.Output, frame.StdErr}[i%2]
			r.say(stream, "x")
			time.Sleep(quiet - instant)
			r.say(stream, "y")
			time.Sleep(quiet - instant)
			r.wantAsks("shortly before it is due", want)
			time.Sleep(instant)
			want++
			r.wantAsks("when it is due", want)
			r.answer()
			time.Sleep(24 * time.Hour)
			r.wantAsks("after an answer", want)
			quiet = min(2*quiet, quietLast)
		}
		r.finish("xyxyxyxy", "xyxyxyxy")
	})
}

func TestALossIsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.begin()
		r.lose()
		r.regain()
		time.Sleep(quietAfterLoss - instant)
		r.wantAsks("shortly before it is due", 0)
		r.say(frame.Output, "repeated")
		time.Sleep(quietAfterLoss - instant)
		r.wantAsks("shortly before it is due again", 0)
		time.Sleep(instant)
		r.wantAsks("when it is due", 1)
		r.answer()
		time.Sleep(24 * time.Hour)
		r.wantAsks("after an answer", 1)
		r.say(frame.Output, "more")
		time.Sleep(quietFirst)
		r.wantAsks("and what comes after is as without a loss", 2)
		r.answer()
		r.finish("repeatedmore", "")
	})
}

func TestALossIsCheckedOnceItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.begin()
		r.lose()
		time.Sleep(time.Hour)
		r.lose() // another attempt to reconnect
		time.Sleep(time.Hour)
		r.wantAsks("without a connection", 0)
		r.regain()
		time.Sleep(aliveTime + quietAfterLoss)
		r.wantAsks("soon after it is back", 1)
		r.answer()
		time.Sleep(time.Hour)
		r.wantAsks("after an answer", 1)
		r.finish("", "")
	})
}

func TestOneSilentOutputIsCheckedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.begin()
		r.say(frame.StdErr, "warning")
		var out strings.Builder
		beat := func() {
			time.Sleep(time.Second)
			r.say(frame.Output, ".")
			out.WriteByte('.')
			synctest.Wait()
		}
		for range oneSided*int(quietFirst/time.Second) - 1 {
			beat()
		}
		r.wantAsks("shortly before it is due", 0)
		beat()
		r.wantAsks("when it is due", 1)
		r.answer()
		for range 1000 {
			beat()
		}
		r.wantAsks("after an answer", 1)
		r.finish(out.String(), "warning")
	})
}

func TestWhatTheSignDoesNotComeForIsLost(t *testing.T) {
	for _, c := range []struct {
		what  string
		found bool
		signs []message
		text  string
	}{
		{"neither output", true, nil, "the end of stdout and stderr is missing: the agent has stopped reading it"},
		{"not stdout", true, []message{stderr(sign)}, "the agent has stopped reading it"},
		{"not stderr", true, []message{stdout(sign)}, "the agent has stopped reading it"},
		{"only half of it", true, []message{stderr(sign), stdout(sign[:20])}, "the agent has stopped reading it"},
		{"nobody there", false, nil, "the command is no longer on the target"},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newCheckRig(t)
				r.begin()
				r.say(frame.Output, "x")
				time.Sleep(quietFirst)
				r.tell(asked{found: c.found})
				for _, m := range c.signs {
					r.say(m.typ, m.payload)
				}
				time.Sleep(answerTime + readTime - instant)
				r.wantAsks("until its time is over", 1)
				time.Sleep(2 * instant)
				r.wantLost("then", c.text)
			})
		})
	}
}

func TestWhatComesIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.begin()
		r.say(frame.Output, "x")
		time.Sleep(quietFirst)
		r.tell(asked{found: true})
		for range 100 { // what an agent repeats comes before the sign
			time.Sleep(answerTime - instant)
			r.say(frame.Output, ".")
		}
		r.say(frame.StdErr, sign)
		r.say(frame.Output, "."+sign)
		time.Sleep(quietFirst - instant)
		r.wantAsks("heard late, which may be a pause that has ended", 1)
		time.Sleep(instant)
		r.wantAsks("so that it is asked again", 2)
		r.answer()
		time.Sleep(24 * time.Hour)
		r.wantAsks("until it is heard at once", 2)
		r.finish("x"+strings.Repeat(".", 101), "")
	})
}

// An output that nobody reads does not live by the other, which has proved that all
// that was before it has come.
func TestTheOtherOutputIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.begin()
		r.say(frame.Output, "x")
		time.Sleep(quietFirst)
		r.tell(asked{found: true})
		r.say(frame.StdErr, sign)
		for range int(answerLag / time.Second) {
			r.wantAsks("while it may still come", 1)
			time.Sleep(time.Second)
			r.say(frame.StdErr, ".")
		}
		time.Sleep(2*readTime + instant) // the last dot may just have been read when it was time
		r.wantLost("then", "the agent has stopped reading it")
	})
}

func TestAConnectionThatDoesNotWorkIsNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.begin()
		r.say(frame.Output, "x")
		r.deaf.Store(true)
		time.Sleep(time.Hour)
		r.wantAsks("the agent may be paused: it is not asked", 0)
		r.deaf.Store(false)
		time.Sleep(aliveTime + quietAfterLoss)
		r.wantAsks("when it works", 1)
		r.deaf.Store(true)
		r.tell(asked{found: true})
		time.Sleep(time.Hour)
		r.wantAsks("nor is it given up", 1)
		r.lose()
		r.regain()
		time.Sleep(aliveTime + 2*quietAfterLoss)
		r.wantAsks("but asked again", 2)
		r.answer()
		r.finish("x", "")
	})
}

func TestALossEndsACheck(t *testing.T) {
	for _, told := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newCheckRig(t)
			r.begin()
			r.say(frame.Output, "x")
			time.Sleep(quietFirst)
			want := int64(1)
			if told {
				r.tell(asked{found: true})
				want = 0
			}
			time.Sleep(time.Second)
			r.lose()
			if got := r.left.Load(); got != want {
				t.Errorf("%d calls of Ask were ended, want %d", got, want)
			}
			time.Sleep(time.Hour)
			r.wantAsks("without a connection", 1)
			r.regain()
			time.Sleep(2 * quietAfterLoss)
			r.wantAsks("with another", 2)
			r.answer()
			time.Sleep(time.Hour)
			r.finish("x", "")
		})
	}
}

// forbidden is an error that comes again for certain.
type forbidden struct{ error }

func (forbidden) Permanent() bool { return true }

func TestACheckThatPanicsIsNotTheCommandsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.exec.Check.Ask = func(context.Context) (bool, error) {
			r.asks.Add(1)
			panic("in Ask")
		}
		r.begin()
		r.say(frame.Output, "x")
		time.Sleep(24 * time.Hour)
		r.wantAsks("the same would come of the next", 1)
		r.finish("x", "")
	})
}

func TestACheckThatCannotBeMadeIsMadeLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.begin()
		r.say(frame.Output, "x")
		time.Sleep(quietFirst)
		want := int64(1)
		for _, after := range []time.Duration{5, 10, 20, 40, 80, 80} {
			r.tell(asked{err: errors.New("throttled")})
			time.Sleep(after*time.Minute - instant)
			r.wantAsks("not soon", want)
			time.Sleep(instant)
			want++
			r.wantAsks("but then", want)
		}
		r.answer()
		r.finish("x", "")
	})
}

func TestACheckThatIsNotAllowedIsNotMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.begin()
		r.say(frame.Output, "x")
		time.Sleep(quietFirst)
		r.tell(asked{err: fmt.Errorf("the check: %w", forbidden{errors.New("denied")})})
		for range 100 {
			r.say(frame.Output, "x")
			r.lose()
			r.regain()
			time.Sleep(time.Hour)
		}
		r.wantAsks("never again", 1)
		r.finish(strings.Repeat("x", 101), "")
	})
}

func TestAnAnswerMakesUpForAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.begin()
		for i := range int64(5) {
			r.say(frame.Output, "x")
			time.Sleep(time.Hour)
			r.tell(asked{err: errors.New("throttled")})
			time.Sleep(againAfter)
			r.wantAsks("once more", 2*i+2)
			r.answer()
		}
		r.finish("xxxxx", "")
	})
}

// Whoever hears the sign need not know whether the other session ended well.
func TestTheSignCountsMoreThanTheSessionThatAskedForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.begin()
		r.say(frame.Output, "x")
		time.Sleep(quietFirst)
		r.wantAsks("when it is due", 1)
		r.say(frame.Output, sign)
		r.say(frame.StdErr, sign)
		time.Sleep(time.Minute)
		r.tell(asked{err: errors.New("lost")})
		time.Sleep(24 * time.Hour)
		r.wantAsks("heard", 1)
		r.finish("x", "")
	})
}

// stalled is a writer that takes nothing until it is released.
type stalled struct{ release chan struct{} }

func (s stalled) Write(p []byte) (int, error) {
	<-s.release
	return len(p), nil
}

func TestAReaderThatStallsIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		out := stalled{make(chan struct{})}
		r.exec.Out = out
		r.begin()
		r.say(frame.Output, "x")
		time.Sleep(24 * time.Hour)
		r.wantAsks("nobody takes what has come", 0)
		out.release <- struct{}{}
		time.Sleep(quietFirst)
		r.wantAsks("all was taken", 1)
		r.tell(asked{found: true})
		r.say(frame.Output, "x")
		time.Sleep(24 * time.Hour)
		r.wantAsks("nor is it given up for that", 1)
		close(out.release)
		r.say(frame.Output, sign)
		r.say(frame.StdErr, sign)
		time.Sleep(24 * time.Hour)
		r.finish("", "")
	})
}

func TestTheEndOfTheCommandEndsACheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCheckRig(t)
		r.begin()
		r.say(frame.Output, "x")
		time.Sleep(quietFirst)
		r.wantAsks("when it is due", 1)
		r.finish("x", "")
		if r.left.Load() != 1 {
			t.Error("the check was not ended")
		}
	})
}

func TestOnlyStreamsAreChecked(t *testing.T) {
	for _, mode := range []ExecMode{Framed, OnTerminal, Plain} {
		synctest.Test(t, func(t *testing.T) {
			r := newCheckRig(t)
			r.exec.Mode = mode
			r.begin()
			r.say(frame.Output, "x")
			r.regain()
			time.Sleep(24 * time.Hour)
			r.wantAsks(fmt.Sprintf("mode %d", mode), 0)
			r.end(errClosed)
			_ = r.wait() // not what this is about
		})
	}
}

func TestSignsAreNoOutput(t *testing.T) {
	var split []message // between any two bytes
	for _, c := range sign {
		split = append(split, stdout(string(c)))
	}
	for _, c := range []struct {
		what     string
		exec     Exec
		coming   []message
		out, err string
		notText  bool
	}{
		{"alone", Exec{}, []message{stdout(sign), stderr(sign)}, "", "", false},
		{"in the middle", Exec{}, []message{stdout("a" + sign + "b"), stderr("c" + sign)}, "ab", "c", false},
		{"several", Exec{}, []message{stdout(sign + sign + "a" + sign)}, "a", "", false},
		{"in pieces", Exec{}, append([]message{stdout("a")}, append(split, stdout("b"))...), "ab", "", false},
		{"in the middle of a character", Exec{}, []message{stdout("\xc3" + sign + "\xa9")}, "é", "", false},
		{"in the middle of a beginning", Exec{}, []message{stdout(sign[:9] + sign + sign[9:20])}, sign[:9] + sign[9:20], "", false},
		{"right before the end", Exec{}, []message{stdout("a" + sign)}, "a", "", false},
		{"in base64", Exec{Binary: true}, []message{stdout("YW" + sign + "Jj" + sign), stderr(sign + "/w=" + sign + "=")}, "abc", "\xff", false},
		{"in base64, in pieces", Exec{Binary: true}, append([]message{stdout("Y")}, append(split, stdout("WJj"))...), "abc", "", false},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newExecRig(t, Streams)
				r.exec.Binary = c.exec.Binary
				r.begin()
				end := mark("3")
				if c.exec.Binary {
					end = encoded(end)
				}
				for _, m := range append(c.coming, stdout(end), stderr(end)) {
					r.say(m.typ, m.payload)
				}
				r.wantStatus("the command", 3)
				r.said("at the end", c.out, c.err)
				if len(r.notText) > 0 {
					t.Errorf("told of %q, which is no text", r.notText)
				}
			})
		})
	}
}
