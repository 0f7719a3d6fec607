package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// bench is a channel without a session, in a bubble, with a client at its end.
type bench struct {
	*client
	channel *channel
	running context.Context
	got     []string // what the program was given
	refuse  error    // what the program says to it
}

// bubble runs f with a channel of an agent version; wired says whether there is
// no handshake and a program for the input.
func bubble(t *testing.T, version string, wired bool, f func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		leg := &memoryLeg{toAgent: make(chan []byte, 16), fromAgent: make(chan []byte, 300_000)}
		b := &bench{client: &client{t: t, leg: leg}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b.channel, b.running = newChannel(ctx, leg, version, slog.New(slog.DiscardHandler))
		var owned sync.WaitGroup
		owned.Go(b.channel.receive)
		owned.Go(b.channel.process)
		owned.Go(b.channel.resend)
		owned.Go(func() { b.channel.limit(b.running) })
		if wired {
			b.channel.open()
			b.channel.handle(b.program)
		}
		f(b)
		b.channel.end(errOver)
		owned.Wait()
	})
}

func (b *bench) program(t frame.PayloadType, payload []byte) error {
	if b.refuse == nil {
		b.got = append(b.got, string(payload))
	}
	return b.refuse
}

func (b *bench) output(text string) {
	b.t.Helper()
	if err := b.channel.send(frame.Output, []byte(text)); err != nil {
		b.t.Fatalf("send output: %v", err)
	}
}

func (b *bench) wantProgramGot(why string, want ...string) {
	b.t.Helper()
	synctest.Wait()
	if fmt.Sprint(b.got) != fmt.Sprint(want) {
		b.t.Fatalf("%s: the program got %q, want %q", why, b.got, want)
	}
}

// after lets virtual time pass.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) quiet(why string) {
	b.t.Helper()
	synctest.Wait()
	b.wantNothing(why)
}

const current = "3.3.0.0"

func TestOutputIsNumberedFromZero(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		for i, text := range []string{"one", "two", "three"} {
			b.output(text)
			m := b.want("output is sent at once", frame.Output)
			wantFlags := uint64(0)
			if i == 0 {
				wantFlags = frame.FlagSYN
			}
			if m.Sequence != int64(i) || m.Flags != wantFlags || string(m.Payload) != text {
				t.Errorf("message %d has number %d, flags %d, payload %q", i, m.Sequence, m.Flags, m.Payload)
			}
			if m.ID == uuid.Nil || m.ID.Version() != 4 {
				t.Errorf("message %d has the id %v", i, m.ID)
			}
			b.ack(m)
		}
		b.channel.sendState("s", stateTerminating)
		b.wantState("a state takes no number", "Terminating")
		b.output("")
		b.quiet("an empty payload is not sent")
		b.output("four")
		if m := b.want("output goes on", frame.Output); m.Sequence != 3 {
			t.Errorf("after three messages, a state and an empty payload the next has number %d, want 3", m.Sequence)
		}
	})
}

func TestInputIsProcessedThenAcknowledged(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		b.input(frame.Output, "a")
		b.wantAck("input is acknowledged", 0)
		b.wantProgramGot("before the acknowledgement it was processed", "a")
		b.input(frame.Output, "b")
		b.wantAck("and so is the next", 1)
		b.wantProgramGot("in order", "a", "b")
	})
}

func TestAcknowledgementIsExact(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		id := uuid.MustParse("dd01e56b-ff48-483e-a508-b5f073f31b16")
		b.post(frame.Message{Type: frame.InputStreamData, ID: id, PayloadType: frame.Output, Payload: []byte("x")})
		m := b.take("input is acknowledged")
		want := `{"AcknowledgedMessageType":"input_stream_data","AcknowledgedMessageId":"` + id.String() +
			`","AcknowledgedMessageSequenceNumber":0,"IsSequentialMessage":true}`
		if string(m.Payload) != want {
			t.Errorf("the acknowledgement is %s, want %s", m.Payload, want)
		}
	})
}

func TestEarlyInputIsAcknowledgedAtOnceAndKept(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		b.inputAs(2, frame.Output, "c")
		b.wantAck("an early message is acknowledged at once", 2)
		b.inputAs(1, frame.Output, "b")
		b.wantAck("and one more", 1)
		b.inputAs(2, frame.Output, "c")
		b.wantAck("an early duplicate is acknowledged again", 2)
		b.wantProgramGot("but the program gets none of them")
		b.inputAs(0, frame.Output, "a")
		b.wantAck("the missing one is acknowledged", 0)
		b.wantProgramGot("and lets the others through, once", "a", "b", "c")
		b.quiet("no further acknowledgement is due")
		if b.channel.earlySize != 0 || len(b.channel.early) != 0 {
			t.Errorf("%d bytes in %d early messages are left", b.channel.earlySize, len(b.channel.early))
		}
	})
}

func TestDuplicates(t *testing.T) {
	for _, tt := range []struct {
		version string
		again   bool
	}{{"3.2.1041.0", true}, {"3.2.1040.0", false}} {
		bubble(t, tt.version, true, func(b *bench) {
			b.input(frame.Output, "a")
			b.wantAck("input is acknowledged", 0)
			b.inputAs(0, frame.Output, "a")
			if tt.again {
				b.wantAck("agent "+tt.version+" acknowledges a duplicate again", 0)
			}
			b.quiet("agent " + tt.version + " says nothing more of a duplicate")
			b.wantProgramGot("the program gets it once", "a")
		})
	}
}

func TestInputBeforeTheProgramIsThere(t *testing.T) {
	bubble(t, current, false, func(b *bench) {
		b.channel.open()
		b.inputAs(0, frame.Size, `{"cols":80,"rows":24}`)
		b.quiet("without a program input is not acknowledged")
		b.inputAs(1, frame.Output, "x")
		b.wantAck("what follows is early, and kept", 1)
		b.channel.handle(b.program)
		b.quiet("the program's coming alone changes nothing")
		b.inputAs(0, frame.Size, `{"cols":80,"rows":24}`)
		b.wantAck("the client's repetition is taken", 0)
		b.wantProgramGot("in order", `{"cols":80,"rows":24}`, "x")
	})
}

func TestInputTheProgramRefuses(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		b.refuse = errors.New("no")
		b.input(frame.Output, "a")
		b.quiet("what the program refuses is not acknowledged")
		b.refuse = nil
		b.inputAs(0, frame.Output, "a")
		b.wantAck("it stays the expected one", 0)
		b.wantProgramGot("and is taken when repeated", "a")
	})
}

func TestInputDuringTheHandshake(t *testing.T) {
	bubble(t, current, false, func(b *bench) {
		b.channel.handle(b.program)
		b.input(frame.Output, "lost")
		b.wantAck("during the handshake input is acknowledged", 0)
		b.input(frame.EncChallengeResponse, "{}")
		b.quiet("but not an answer to a challenge that was not sent")
		b.channel.open()
		b.next = 1
		b.input(frame.Output, "kept")
		b.wantAck("after it input is processed", 1)
		b.wantProgramGot("and what came before is lost", "kept")
	})
}

func TestOnlyTheFrontIsRepeated(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		b.output("one")
		b.output("two")
		one := b.want("output is sent", frame.Output)
		b.want("output is sent", frame.Output)
		after(200 * time.Millisecond)
		b.quiet("nothing is repeated before 200 ms are over")
		after(100 * time.Millisecond)
		again := b.want("at the next tick the front is repeated", frame.Output)
		if again.ID != one.ID || !again.Created.Equal(one.Created) || again.Flags != one.Flags || string(again.Payload) != "one" {
			t.Errorf("the repetition differs from the message: %+v, %+v", again, one)
		}
		b.quiet("and only the front")
		after(200 * time.Millisecond)
		b.quiet("its time counts from the repetition")
		after(100 * time.Millisecond)
		b.want("and is then over again", frame.Output)

		b.ack(one)
		after(200 * time.Millisecond)
		if m := b.want("the second is overdue and next", frame.Output); string(m.Payload) != "two" {
			t.Errorf("after the first was acknowledged %q is repeated, want the second", m.Payload)
		}
		b.quiet("once a tick")
	})
}

func TestAcknowledgedOutOfOrder(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		var sent []frame.Message
		for range 4 {
			b.output("x")
			sent = append(sent, b.want("output is sent", frame.Output))
		}
		b.ack(sent[2])
		b.ack(sent[0])
		b.ack(sent[0])
		after(300 * time.Millisecond)
		if m := b.want("the front is repeated", frame.Output); m.Sequence != 1 {
			t.Errorf("of 0 to 3, with 0 and 2 acknowledged, %d is repeated, want 1", m.Sequence)
		}
		b.ack(sent[1])
		after(300 * time.Millisecond)
		if m := b.want("the front is repeated", frame.Output); m.Sequence != 3 {
			t.Errorf("of 0 to 3, with 0, 1 and 2 acknowledged, %d is repeated, want 3", m.Sequence)
		}
	})
}

func TestRepetitionHasNoLimitAndEnds(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		b.output("x")
		m := b.want("output is sent", frame.Output)
		after(2 * time.Hour)
		count := 0
		for len(b.leg.fromAgent) > 0 {
			b.want("repetitions come", frame.Output)
			count++
		}
		if count < 10_000 {
			t.Errorf("in two hours the message was repeated %d times", count)
		}
		b.ack(m)
		synctest.Wait()
		start := time.Now()
		after(time.Hour)
		b.quiet("nothing is repeated once it is acknowledged")
		if time.Since(start) != time.Hour {
			t.Error("time went wrong")
		}
	})
}

func TestPause(t *testing.T) {
	for _, tt := range []struct {
		why    string
		resume func(b *bench, m frame.Message)
	}{
		{"start_publication", func(b *bench, _ frame.Message) { b.service(frame.StartPublication, "start_publication") }},
		{"any acknowledgement", func(b *bench, m frame.Message) { b.ack(m) }},
		{"any input", func(b *bench, _ frame.Message) {
			b.inputAs(0, frame.Output, "x")
			b.wantAck("input is acknowledged", 0)
		}},
	} {
		bubble(t, current, true, func(b *bench) {
			b.output("zero")
			zero := b.want("output is sent", frame.Output)
			b.ack(zero)
			b.service(frame.PausePublication, "pause_publication")
			synctest.Wait()
			b.output("one")
			b.output("two")
			after(time.Minute)
			b.quiet("a paused agent sends and repeats nothing")

			waited := make(chan error, 1)
			go func() { waited <- b.channel.awaitActive(b.running) }()
			synctest.Wait()
			select {
			case <-waited:
				t.Error("a paused channel is active")
			default:
			}
			tt.resume(b, zero)
			synctest.Wait()
			select {
			case err := <-waited:
				if err != nil {
					t.Errorf("after %s the channel ended: %v", tt.why, err)
				}
			default:
				t.Fatalf("%s did not end the pause", tt.why)
			}
			b.quiet("what was recorded waits for the tick")
			b.output("three")
			if m := b.want("what is new is sent at once", frame.Output); string(m.Payload) != "three" {
				t.Errorf("after the pause %q is sent first", m.Payload)
			}
			after(100 * time.Millisecond)
			one := b.want("the backlog drains from the front", frame.Output)
			if string(one.Payload) != "one" {
				t.Errorf("%q comes first out of the backlog", one.Payload)
			}
			b.quiet("by one message a tick")
			b.ack(one)
			after(100 * time.Millisecond)
			if m := b.want("and the next follows", frame.Output); string(m.Payload) != "two" {
				t.Errorf("%q comes second out of the backlog", m.Payload)
			}
		})
	}
}

func TestOverfullBufferSendsAndForgets(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		for range outgoingCapacity + 2 {
			b.output("x")
		}
		var messages []frame.Message
		for range outgoingCapacity + 2 {
			messages = append(messages, b.want("all of them are sent", frame.Output))
		}
		if last := messages[len(messages)-1].Sequence; last != outgoingCapacity+1 {
			t.Errorf("the last message has number %d", last)
		}
		for _, m := range messages[:outgoingCapacity] {
			b.ack(m)
		}
		synctest.Wait()
		start := time.Now()
		b.channel.drain()
		if time.Since(start) != 0 {
			t.Error("with a full buffer acknowledged something is still waited for")
		}
		after(time.Minute)
		b.quiet("the two that found no room are never repeated")
		b.output("y")
		b.want("and the buffer has room again", frame.Output)
		after(300 * time.Millisecond)
		b.want("in which a message is repeated", frame.Output)
	})
}

func TestEarlyInputIsBounded(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		for i := range int64(earlyCapacity) {
			b.inputAs(i+1, frame.Output, "x")
		}
		for range earlyCapacity {
			b.take("early messages are acknowledged")
		}
		b.inputAs(earlyCapacity+1, frame.Output, "x")
		b.quiet("without room one is not")
	})
	bubble(t, current, true, func(b *bench) {
		b.channel.earlySize = earlyBytes - 10
		b.inputAs(1, frame.Output, "12345678901")
		b.quiet("nor is one that is too large for the rest of the room")
		b.inputAs(1, frame.Output, "1234567890")
		b.wantAck("one that fits is", 1)
	})
}

// An acknowledgement that comes before Send returns must find its message.
func TestAcknowledgementDuringSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leg := &echoLeg{}
		c, _ := newChannel(t.Context(), leg, current, slog.New(slog.DiscardHandler))
		leg.channel = c
		var owned sync.WaitGroup
		owned.Go(c.resend)
		for range 3 {
			if err := c.send(frame.Output, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		after(time.Minute)
		if leg.sent != 3 {
			t.Errorf("three messages were sent %d times", leg.sent)
		}
		c.end(errOver)
		owned.Wait()
	})
}

// echoLeg acknowledges what it is given before it has taken it.
type echoLeg struct {
	channel *channel
	sent    int
}

func (l *echoLeg) Send(_ context.Context, b []byte) error {
	m, err := frame.Parse(b)
	if err != nil {
		return err
	}
	l.sent++
	l.channel.acknowledged(frame.Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence}.Append(nil))
	return nil
}

func (l *echoLeg) Receive(ctx context.Context) ([]byte, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestDrainWaitsForAcknowledgements(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		b.output("x")
		m := b.want("output is sent", frame.Output)
		go func() {
			time.Sleep(1500 * time.Millisecond)
			b.ack(m)
		}()
		start := time.Now()
		b.channel.drain()
		if got := time.Since(start); got != 1500*time.Millisecond {
			t.Errorf("output acknowledged after 1.5 s was waited for %v", got)
		}
		b.output("y")
		start = time.Now()
		b.channel.drain()
		if got := time.Since(start); got != 2*time.Second {
			t.Errorf("output never acknowledged was waited for %v, want 2 s", got)
		}
	})
}

func TestProgramThatTakesNoInput(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		release := make(chan struct{})
		b.channel.handle(func(frame.PayloadType, []byte) error {
			<-release
			return nil
		})
		for range 50 {
			b.input(frame.Output, "x")
		}
		b.output("y")
		m := b.want("output flows while input is stuck", frame.Output)
		b.ack(m)
		start := time.Now()
		b.channel.drain()
		if time.Since(start) != 0 {
			t.Error("while input is stuck acknowledgements are not processed")
		}
		b.quiet("stuck input is not acknowledged")
		close(release)
		for i := range int64(50) {
			b.wantAck("and is, in order, when it moves again", i)
		}
	})
}

func TestWhatTheAgentDropsAndTakes(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		good := frame.Message{
			Type: frame.InputStreamData, Created: time.Now(), PayloadType: frame.Output, Payload: []byte("x"),
		}
		encode := func(change func(b []byte)) []byte {
			p, err := good.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			change(p)
			return p
		}
		b.postBytes([]byte("garbage"))
		b.postBytes(nil)
		b.postBytes(encode(func(p []byte) { binary.BigEndian.PutUint32(p, 0xfffffff0) }))
		b.postBytes(encode(func(p []byte) { copy(p[4:36], bytes.Repeat([]byte{' '}, 32)) }))
		b.postBytes(encode(func(p []byte) { copy(p[40:48], make([]byte, 8)) }))
		b.post(frame.Message{Type: "agent_task_reply", Payload: []byte("x")})
		b.post(frame.Message{Type: frame.OutputStreamData, Payload: []byte("x")})
		b.post(frame.Message{Type: frame.Acknowledge, Payload: []byte("not JSON")})
		b.post(frame.Message{Type: frame.ChannelClosed, Payload: []byte("not JSON")})
		b.quiet("what is not a message for an agent is dropped in silence")
		b.postBytes(encode(func(p []byte) { copy(p[80:112], "not the digest of this payload..") }))
		b.wantAck("a wrong digest is not looked at", 0)
		b.wantProgramGot("and the payload is taken", "x")
		if b.running.Err() != nil {
			t.Errorf("the session was ended by a message: %v", context.Cause(b.running))
		}
	})
}

func TestChannelClosedCancels(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		payload, err := json.Marshal(frame.ChannelClosedPayload{MessageType: "channel_closed", SessionID: "s"})
		if err != nil {
			t.Fatal(err)
		}
		b.service(frame.ChannelClosed, string(payload))
		synctest.Wait()
		if !errors.Is(context.Cause(b.running), errClosed) {
			t.Errorf("after channel_closed the session runs: %v", context.Cause(b.running))
		}
		if b.channel.link.Err() != nil {
			t.Error("channel_closed left no time for the goodbyes")
		}
		after(goodbyeTime)
		if b.channel.link.Err() == nil {
			t.Error("three seconds after the cancellation the agent can still send")
		}
	})
}

func TestLostLegEndsTheSession(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		close(b.leg.toAgent)
		synctest.Wait()
		if !errors.Is(context.Cause(b.running), errLegLost) || !errors.Is(context.Cause(b.channel.link), errLegLost) {
			t.Errorf("with its leg lost the session is %v and the link %v",
				context.Cause(b.running), context.Cause(b.channel.link))
		}
		if err := b.channel.send(frame.Output, []byte("x")); !errors.Is(err, errLegLost) {
			t.Errorf("sending over a lost leg: %v", err)
		}
	})
}

// hostile is every way a message can be wrong, from two bytes of choice.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("garbage"), uint8(1), int64(0), []byte(`{"cols":80,"rows":24}`))
	f.Add([]byte{}, uint8(3), int64(-1), []byte(`{"cols":-1,"rows":99999999999}`))
	f.Add([]byte{0, 0, 0, 116}, uint8(6), int64(1), []byte(`{"ProcessedClientActions":[{"ActionStatus":"x"}]}`))
	f.Add([]byte{0xff}, uint8(9), int64(1<<62), []byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte, payloadType uint8, sequence int64, payload []byte) {
		synctest.Test(t, func(t *testing.T) {
			leg := newMemoryLeg()
			c, _ := newChannel(t.Context(), leg, current, slog.New(slog.DiscardHandler))
			c.open()
			c.handle(func(t frame.PayloadType, p []byte) error { return ptyInput(nopTerminal{}, t, p) })
			var owned sync.WaitGroup
			owned.Go(c.receive)
			owned.Go(c.process)
			owned.Go(c.resend)
			owned.Go(func() {
				for c.link.Err() == nil {
					select {
					case <-leg.fromAgent:
					case <-c.link.Done():
					}
				}
			})
			post := func(b []byte) {
				select {
				case leg.toAgent <- b:
				case <-c.link.Done():
				}
			}
			post(raw)
			if len(payload) > 0 {
				for _, kind := range []frame.MessageType{
					frame.InputStreamData, frame.Acknowledge, frame.PausePublication, frame.StartPublication, frame.ChannelClosed,
				} {
					for _, header := range []int{frame.HeaderLen, frame.ShortHeaderLen} {
						for _, at := range []int64{sequence, 0, 1} {
							m := frame.Message{
								Type: kind, Created: time.Now(), Sequence: at, HeaderLength: header,
								PayloadType: frame.PayloadType(payloadType), Payload: payload,
							}
							b, err := m.Append(nil)
							if err != nil {
								t.Fatal(err)
							}
							post(b)
						}
					}
				}
			}
			synctest.Wait()
			kept := 0
			for _, m := range c.early {
				kept += len(m.Payload)
			}
			if kept != c.earlySize || kept > earlyBytes {
				t.Errorf("%d bytes of early input are kept and %d counted", kept, c.earlySize)
			}
			c.end(errOver)
			owned.Wait()
		})
	})
}

type nopTerminal struct{}

func (nopTerminal) Read([]byte) (int, error)    { select {} }
func (nopTerminal) Write(p []byte) (int, error) { return len(p), nil }
func (nopTerminal) Close() error                { return nil }
func (nopTerminal) resize(_, _ uint32) error    { return nil }
