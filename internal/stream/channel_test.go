package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
	. "github.com/ssmsession/ssmsession/internal/stream/streamtest"
)

// quiet is a Config without pings, whose time would drown a test's.
func quiet() stream.Config { return stream.Config{AliveInterval: -1} }

// started is a rig whose session has begun with the output "$".
func started(t *testing.T, cfg stream.Config) *Rig {
	t.Helper()
	r := New(t, cfg)
	r.Open()
	r.Inject(Output(0, "$"))
	r.Want("the first output is acknowledged", "ack 0")
	recv(t, r, frame.Output, "$")
	return r
}

func recv(t *testing.T, r *Rig, typ frame.PayloadType, want string) {
	t.Helper()
	got, p, err := r.Channel.Recv(t.Context())
	if err != nil || got != typ || string(p) != want {
		t.Fatalf("Recv gives type %d, %.60q, %v; want type %d, %.60q", got, p, err, typ, want)
	}
}

func send(t *testing.T, r *Rig, text string) {
	t.Helper()
	if err := r.Channel.Send(t.Context(), frame.Output, []byte(text)); err != nil {
		t.Fatalf("Send(%.40q): %v", text, err)
	}
}

func TestOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(t, quiet())
		open := r.Open()
		if open.TokenValue != "token-1" || open.MessageSchemaVersion != "1.0" ||
			open.ClientVersion != stream.DefaultClientVersion || len(open.ClientID) != 36 || len(open.RequestID) != 36 {
			t.Errorf("the opening frame lacks something: %+v, token %q", open, open.TokenValue)
		}
		r.Want("nothing else is sent unasked")
	})
}

func TestRetransmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		send(t, r, "a")
		r.Want("sent at once", "0:1:a")
		time.Sleep(199 * time.Millisecond)
		r.Want("quiet before the timeout")
		time.Sleep(time.Millisecond)
		r.Want("repeated once", "0:1:a")
		time.Sleep(399 * time.Millisecond)
		r.Want("quiet before the doubled timeout")
		time.Sleep(time.Millisecond)
		r.Want("repeated again", "0:1:a")
		r.Inject(Ack(0))
		time.Sleep(time.Hour)
		r.Want("acknowledged: silence")
	})
}

// What made the last connection slow is not the next one's.
func TestRepetitionsBeginAnewOnTheNextSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		send(t, r, "a")
		time.Sleep(30 * time.Second) // and now each takes four
		r.Socket().Cut(io.EOF)
		synctest.Wait()
		r.Open()
		r.Want("at once", "ack 0", "0:1:a")
		time.Sleep(200 * time.Millisecond)
		r.Want("and after the first timeout", "0:1:a")
	})
}

func TestRepetitionsAreIdentical(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		send(t, r, "a")
		first := r.Socket().Raw()
		time.Sleep(250 * time.Millisecond)
		again := r.Socket().Raw()
		if len(first) != 1 || len(again) != 1 || !bytes.Equal(first[0], again[0]) {
			t.Errorf("a repetition differs from the first transmission: %x, then %x", first, again)
		}
	})
}

func TestOnlyTheOldestIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		for _, s := range []string{"a", "b", "c"} {
			send(t, r, s)
		}
		r.Want("three sent", "0:1:a", "1:1:b", "2:1:c")
		time.Sleep(200 * time.Millisecond)
		r.Want("after the timeout", "0:1:a")
		r.Inject(Ack(0))
		time.Sleep(200 * time.Millisecond)
		r.Want("then the next, whose time is long up", "1:1:b")
	})
}

func TestLossIsRepairedByLaterAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		for _, s := range []string{"a", "b", "c", "d", "e"} {
			send(t, r, s)
		}
		r.Sent()
		r.Inject(Ack(1), Ack(2))
		r.Want("two overtakers may be reordering")
		r.Inject(Ack(3))
		r.Want("three are a loss, repaired without waiting", "0:1:a")
		r.Inject(Ack(4))
		r.Want("and once only")
	})
}

func TestARunThatIsLostIsRepairedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		for range 8 {
			send(t, r, "x")
		}
		r.Sent()
		r.Inject(Ack(7))
		r.Want("all but those that may be reordered", "0:1:x", "1:1:x", "2:1:x", "3:1:x", "4:1:x")
	})
}

func TestReceiving(t *testing.T) {
	tests := []struct {
		name   string
		inject [][]byte
		want   []string // chunks received
		acks   []string
	}{
		{"in order", [][]byte{Output(1, "a"), Output(2, "b")}, []string{"ab"}, []string{"ack 1", "ack 2"}},
		{"reordered", [][]byte{Output(2, "b"), Output(1, "a")}, []string{"ab"}, []string{"ack 2", "ack 1"}},
		{"a repeated one is acknowledged again and delivered once",
			[][]byte{Output(1, "a"), Output(1, "a")}, []string{"a"}, []string{"ack 1", "ack 1"}},
		{"an early one repeated", [][]byte{Output(2, "b"), Output(2, "b"), Output(1, "a")}, []string{"ab"},
			[]string{"ack 2", "ack 2", "ack 1"}},
		{"types keep their borders", [][]byte{Output(1, "a"), Data(2, frame.StdErr, "e"), Output(3, "b")},
			[]string{"a", "e", "b"}, []string{"ack 1", "ack 2", "ack 3"}},
		{"an unknown payload type advances the window", [][]byte{Data(1, 99, "?"), Output(2, "a")},
			[]string{"?", "a"}, []string{"ack 1", "ack 2"}},
		{"a handshake message in the middle advances the window", [][]byte{Data(1, frame.HandshakeComplete, "{}"), Output(2, "a")},
			[]string{"a"}, []string{"ack 1", "ack 2"}},
		{"messages keep their borders where they are no stream",
			[][]byte{Data(1, frame.Flag, "\x00\x00\x00\x03"), Data(2, frame.Flag, "\x00\x00\x00\x03")},
			[]string{"\x00\x00\x00\x03", "\x00\x00\x00\x03"}, []string{"ack 1", "ack 2"}},
		{"a negative number is an old one", [][]byte{Output(-1, "x"), Output(1, "a")}, []string{"a"}, []string{"ack -1", "ack 1"}},
		{"a number at the edge is not kept", [][]byte{Output(1<<63-1, "x"), Output(1, "a")}, []string{"a"}, []string{"ack 1"}},
		{"an unknown message type is dropped", [][]byte{Control("weather_report"), Output(1, "a")}, []string{"a"}, []string{"ack 1"}},
		{"a wrong digest is dropped", [][]byte{corrupt(Output(1, "x")), Output(1, "a")}, []string{"a"}, []string{"ack 1"}},
		{"garbage is dropped", [][]byte{[]byte("hello"), bytes.Repeat([]byte{0xff}, 200), Output(1, "a")}, []string{"a"}, []string{"ack 1"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := started(t, quiet())
				r.Inject(test.inject...)
				r.Want("acknowledgements", test.acks...)
				for _, want := range test.want {
					_, p, err := r.Channel.Recv(t.Context())
					if err != nil || string(p) != want {
						t.Fatalf("Recv gives %q, %v; want %q", p, err, want)
					}
				}
			})
		})
	}
}

func corrupt(b []byte) []byte {
	b[len(b)-1] ^= 1
	return b
}

func TestWindowBlocksTheWriterAndDropsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := quiet()
		cfg.Window = 4
		r := started(t, cfg)
		sent := make(chan error, 1)
		go func() { sent <- r.Channel.Send(t.Context(), frame.Output, []byte("abcdefgh")) }()
		r.Want("the window's worth", "0:1:abcd")
		time.Sleep(100 * time.Millisecond)
		select {
		case err := <-sent:
			t.Fatalf("Send returned %v with a full window", err)
		default:
		}
		r.Inject(Ack(0))
		r.Want("the rest, once there is room", "1:1:efgh")
		if err := <-sent; err != nil {
			t.Fatalf("Send: %v", err)
		}
	})
}

// A window full of single bytes would take more than a hundred times its size.
func TestManySmallMessagesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		go func() { // it ends with the test
			for r.Channel.Send(t.Context(), frame.Output, []byte("x")) == nil {
			}
		}()
		if n := len(r.Socket().Raw()); n != 1<<15 {
			t.Errorf("%d messages go out with none acknowledged, want 32768", n)
		}
	})
}

func TestAcknowledgementsThatMeanNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		send(t, r, "a")
		r.Want("sent", "0:1:a")
		r.Inject(Ack(7), Ack(-1), Ack(1<<63-1), Ack(1))
		time.Sleep(200 * time.Millisecond)
		r.Want("acknowledgements of what was never sent change nothing", "0:1:a")
		r.Inject(Ack(0), Ack(0), Ack(0))
		send(t, r, "b")
		r.Want("a repeated acknowledgement changes nothing", "1:1:b")
	})
}

func TestPayloadsAreCutTo1024Bytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		send(t, r, strings.Repeat("x", 2500))
		var sizes []int
		for _, raw := range r.Socket().Raw() {
			m, err := frame.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, len(m.Payload))
		}
		if fmt.Sprint(sizes) != "[1024 1024 452]" {
			t.Errorf("payload sizes are %v", sizes)
		}
	})
}

func TestPauseAndStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		r.Inject(Control(frame.PausePublication))
		send(t, r, "a")
		r.Want("paused: no data")
		r.Inject(Output(1, "x"))
		r.Want("the agent speaks, so it is there", "ack 1", "0:1:a")

		r.Inject(Control(frame.PausePublication))
		time.Sleep(time.Second)
		r.Want("paused: no repetition either")
		r.Inject(Control(frame.StartPublication))
		r.Want("started: what was due goes out", "0:1:a")
		r.Inject(Ack(0))

		r.Inject(Control(frame.PausePublication))
		send(t, r, "b")
		time.Sleep(5*time.Second - time.Millisecond)
		r.Want("a pause nobody lifts")
		time.Sleep(time.Millisecond)
		r.Want("has an end", "1:1:b")
	})
}

// A service that asks for a pause gets less at once afterwards, until acknowledgements
// show that more can be taken.
func TestAPauseMakesTheWindowSmaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		r.Inject(Control(frame.PausePublication), Control(frame.StartPublication))
		go func() { _ = r.Channel.Send(t.Context(), frame.Output, make([]byte, 1<<20)) }() // it ends with the test
		first := r.Socket().Raw()
		if len(first) != stream.DefaultWindow/4/1024 {
			t.Errorf("after a pause %d messages of 1 kB go out at once, want a quarter of the window", len(first))
		}
		var acks [][]byte
		for i := range first {
			acks = append(acks, Ack(int64(i)))
		}
		r.Inject(acks...)
		if n := len(r.Socket().Raw()); n != 2*len(first) {
			t.Errorf("then %d, want twice as many", n)
		}
	})
}

func TestPacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := quiet()
		cfg.Rate = 900
		r := started(t, cfg)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := r.Channel.Send(t.Context(), frame.Output, make([]byte, 2000*1024)); err != nil {
				t.Errorf("Send: %v", err)
			}
		}()
		begin, total := time.Now(), 0
		for total < 2000 {
			time.Sleep(100 * time.Millisecond)
			var acks [][]byte
			n := 0
			for _, raw := range r.Socket().Raw() {
				m, err := frame.Parse(raw)
				if err != nil {
					t.Fatal(err)
				}
				acks = append(acks, Ack(m.Sequence))
				n++
			}
			r.Inject(acks...)
			if total += n; time.Since(begin) > 100*time.Millisecond && n > 91 {
				t.Errorf("%d messages in 100 ms at a rate of 900 a second", n)
			}
		}
		<-done
		if took := time.Since(begin); took < 2*time.Second || took > 2500*time.Millisecond {
			t.Errorf("2000 messages at 900 a second took %s", took)
		}
	})
}

func TestSizeGoesOutBeforeTheStartAndInputDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(t, quiet())
		r.Open()
		go func() {
			if err := r.Channel.Send(t.Context(), frame.Output, []byte("ls")); err != nil {
				t.Errorf("Send: %v", err)
			}
		}()
		if err := r.Channel.Send(t.Context(), frame.Size, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		r.Want("a size at once, keys not", "0:3:{}")
		r.Inject(Ack(0), Output(0, "$"))
		r.Want("the first output starts the session", "ack 0", "1:1:ls")
		s, err := r.Channel.Started(t.Context())
		if err != nil || s.SessionType != frame.StandardStream || s.AgentVersion != "" {
			t.Errorf("without a handshake Started gives %+v, %v", s, err)
		}
	})
}

func TestASizeIsRepeatedSteadilyUntilThereIsAnAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(t, quiet())
		r.Open()
		if err := r.Channel.Send(t.Context(), frame.Size, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		r.Want("every 200 ms, without doubling", "0:3:{}", "0:3:{}", "0:3:{}", "0:3:{}", "0:3:{}", "0:3:{}")
		r.Inject(Ack(0))
		time.Sleep(time.Minute)
		r.Want("until it is acknowledged")
	})
}

func TestHandshake(t *testing.T) {
	const typeAction = `{"ActionType":"SessionType","ActionParameters":{"SessionType":%q,"Properties":%s}}`
	request := func(actions ...string) string {
		return `{"AgentVersion":"3.3.0.0","RequestedClientActions":[` + strings.Join(actions, ",") + `]}`
	}
	answer := func(actions, errs string) string {
		return `0:6:{"ClientVersion":"` + stream.DefaultClientVersion + `","ProcessedClientActions":[` + actions + `],"Errors":` + errs + `}`
	}
	tests := []struct{ name, request, answer string }{
		{"a session type",
			request(fmt.Sprintf(typeAction, "Port", `{"portNumber":"80"}`)),
			answer(`{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}`, "null")},
		{"an unknown session type fails",
			request(fmt.Sprintf(typeAction, "Foo", "null")),
			answer(`{"ActionType":"SessionType","ActionStatus":2,"ActionResult":null,"Error":"Failed to process action SessionType: unknown session type \"Foo\""}`,
				`["Failed to process action SessionType: unknown session type \"Foo\""]`)},
		{"KMS is unsupported",
			request(fmt.Sprintf(typeAction, "Standard_Stream", "null"), `{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"k"}}`),
			answer(`{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""},`+
				`{"ActionType":"KMSEncryption","ActionStatus":3,"ActionResult":null,"Error":"Unsupported action KMSEncryption"}`,
				`["Unsupported action KMSEncryption"]`)},
		{"so is what nobody knows",
			request(`{"ActionType":"Dance","ActionParameters":null}`),
			answer(`{"ActionType":"Dance","ActionStatus":3,"ActionResult":null,"Error":"Unsupported action Dance"}`, `["Unsupported action Dance"]`)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := New(t, quiet())
				r.Open()
				r.Inject(Data(0, frame.HandshakeRequest, test.request))
				r.Want("acknowledged, then answered", "ack 0", test.answer)
			})
		})
	}
}

func TestASecondHandshakeIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(t, quiet())
		r.Open()
		const request = `{"RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port"}}]}`
		r.Inject(Data(0, frame.HandshakeRequest, request))
		r.Sent()
		r.Inject(Data(1, frame.HandshakeRequest, request))
		r.Want("acknowledged, not answered", "ack 1")
		r.Inject(Data(2, frame.HandshakeComplete, "{}"), Data(3, frame.HandshakeRequest, request))
		r.Want("nor one after the start", "ack 2", "ack 3")
	})
}

func TestHandshakeCompleteStartsTheSession(t *testing.T) {
	const request = `{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"80"}}}]}`
	for _, order := range []string{"in order", "completion first"} {
		t.Run(order, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := New(t, quiet())
				messages := [][]byte{
					Data(0, frame.HandshakeRequest, request),
					Data(1, frame.HandshakeComplete, `{"HandshakeTimeToComplete":1234567,"CustomerMessage":"hello"}`),
					Output(2, "data"),
				}
				if order == "completion first" {
					messages[0], messages[1] = messages[1], messages[0]
				}
				r.Inject(messages...)
				s, err := r.Channel.Started(t.Context())
				if err != nil || s.SessionType != frame.Port || string(s.Properties) != `{"portNumber":"80"}` ||
					s.AgentVersion != "3.3.0.0" || s.CustomerMessage != "hello" || s.HandshakeTime != 1234567 {
					t.Errorf("Started gives %+v, %v", s, err)
				}
				recv(t, r, frame.Output, "data")
			})
		})
	}
}

func TestHandshakesThatLie(t *testing.T) {
	tests := []struct {
		name   string
		inject []byte
	}{
		{"a request that is not JSON", Data(0, frame.HandshakeRequest, "{")},
		{"a completion without a request", Data(0, frame.HandshakeComplete, "{}")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := New(t, quiet())
				r.Inject(test.inject)
				_, err := r.Channel.Started(t.Context())
				if err == nil || errors.Is(err, io.EOF) {
					t.Errorf("Started gives %v, which is no error", err)
				}
			})
		})
	}
}

func TestChannelClosedDeliversEverythingFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		r.Inject(Output(1, "last "), Output(2, "words"))
		synctest.Wait()
		select {
		case <-r.Channel.Ending():
			t.Error("the end is told before it has come")
		default:
		}
		r.Inject(ChannelClosed("bye"))
		<-r.Channel.Ending() // though nobody has read what came
		r.Socket().Cut(io.ErrUnexpectedEOF)
		recv(t, r, frame.Output, "last words")
		_, _, err := r.Channel.Recv(t.Context())
		var closed *stream.Closed
		if !errors.As(err, &closed) || closed.Output != "bye" || closed.Incomplete || !errors.Is(err, io.EOF) {
			t.Fatalf("the end is %v", err)
		}
		if err := r.Channel.Send(t.Context(), frame.Output, []byte("x")); !errors.Is(err, io.EOF) {
			t.Errorf("Send after the end gives %v", err)
		}
		if err := r.Channel.Close(); err != nil {
			t.Errorf("Close after a good end gives %v", err)
		}
		if n := len(r.Dials()); n != 1 {
			t.Errorf("%d dials: a closed session is not to be resumed", n)
		}
	})
}

func TestChannelClosedOverAGapIsIncomplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		r.Inject(Output(2, "lost its brother"), ChannelClosed(""))
		_, _, err := r.Channel.Recv(t.Context())
		var closed *stream.Closed
		if !errors.As(err, &closed) || !closed.Incomplete {
			t.Errorf("the end is %v, %+v", err, closed)
		}
	})
}

func TestChannelClosedWithoutAReadablePayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		m := frame.Message{Type: frame.ChannelClosed, Created: time.Now(), HeaderLength: frame.ShortHeaderLen, Payload: []byte("][")}
		b, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Inject(b)
		if _, _, err := r.Channel.Recv(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("the end is %v", err)
		}
	})
}

func TestLostSocketIsNotTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		send(t, r, "a")
		send(t, r, "b")
		r.Want("sent", "0:1:a", "1:1:b")
		r.Inject(Output(1, "kept"))
		r.Want("acknowledged", "ack 1")
		r.Refuse(errors.New("no route"))
		r.Socket().Cut(io.ErrUnexpectedEOF)
		time.Sleep(20 * time.Second)
		recv(t, r, frame.Output, "kept")
		send(t, r, "c") // the window is there without a socket
		before := len(r.Dials())
		r.Refuse(nil)
		for len(r.Dials()) == before {
			time.Sleep(10 * time.Millisecond)
		}
		open := r.Open()
		r.Want("the last acknowledgements and everything unacknowledged again, in order, then what is new",
			"ack 0", "ack 1", "0:1:a", "1:1:b", "2:1:c")
		dials := r.Dials()
		if open.TokenValue != fmt.Sprintf("token-%d", len(dials)) || !dials[1] || dials[0] {
			t.Errorf("dials are %v, the token %q", dials, open.TokenValue)
		}
		r.Inject(Output(1, "kept"), Output(2, "new"))
		r.Want("numbers go on", "ack 1", "ack 2")
		recv(t, r, frame.Output, "new")
	})
}

// An acknowledgement that went down with the socket would keep the agent, which
// repeats its oldest message only, from one that is really missing.
func TestTheLastAcknowledgementsAreRepeatedOnANewSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		time.Sleep(time.Minute)
		r.Inject(Output(1, "late"))
		r.Want("acknowledged", "ack 1")
		r.Socket().Cut(io.EOF)
		time.Sleep(time.Second)
		r.Open()
		r.Want("what was acknowledged just before the end, and nothing older", "ack 1")

		const flood = 2000
		for i := int64(2); i < flood; i++ {
			r.Inject(Output(i, "x"))
		}
		r.Sent()
		r.Socket().Cut(io.EOF)
		time.Sleep(time.Second)
		r.Open()
		again := r.Sent()
		if n := len(again); n != 512 || again[n-1] != fmt.Sprintf("ack %d", flood-1) {
			t.Errorf("after a flood %d are repeated, the last of them %q", n, again[max(0, n-1):])
		}
	})
}

func TestSameClientIDForLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(t, quiet())
		first := r.Open()
		r.Socket().Cut(io.EOF)
		time.Sleep(time.Second)
		second := r.Open()
		if first.ClientID != second.ClientID || first.RequestID == second.RequestID {
			t.Errorf("client ids %q and %q, request ids %q and %q", first.ClientID, second.ClientID, first.RequestID, second.RequestID)
		}
	})
}

type finalError struct{}

func (finalError) Error() string   { return "access denied" }
func (finalError) Permanent() bool { return true }

func TestRedialEnds(t *testing.T) {
	tests := []struct {
		name   string
		refuse error
		after  time.Duration
		want   error
	}{
		{"at once when it cannot get better", finalError{}, time.Millisecond, finalError{}},
		{"when its time is up", errors.New("no route"), stream.DefaultRedial, stream.ErrLost},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := started(t, quiet())
				r.Refuse(test.refuse)
				begin := time.Now()
				r.Socket().Cut(io.EOF)
				_, _, err := r.Channel.Recv(t.Context())
				if took := time.Since(begin); !errors.Is(err, test.want) || took > test.after {
					t.Errorf("ended after %s with %v", took, err)
				}
			})
		})
	}
}

// A dial on a route that is gone hangs; the next one may have another.
func TestAnAttemptThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		r.Block(true)
		r.Socket().Cut(io.EOF)
		time.Sleep(9 * time.Second)
		if n := len(r.Dials()); n != 2 {
			t.Fatalf("dialled %d times while one hangs", n)
		}
		r.Block(false)
		time.Sleep(3 * time.Second)
		r.Open()
		r.Inject(Output(1, "back"))
		recv(t, r, frame.Output, "back")
	})
}

func TestRedialWithoutALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := quiet()
		cfg.RedialFor = -1
		r := started(t, cfg)
		r.Refuse(errors.New("no route"))
		r.Socket().Cut(io.EOF)
		time.Sleep(24 * time.Hour)
		r.Refuse(nil)
		time.Sleep(10 * time.Second)
		r.Open()
		r.Inject(Output(1, "still there"))
		recv(t, r, frame.Output, "still there")
	})
}

func TestNoRedial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := quiet()
		cfg.NoRedial = true
		r := started(t, cfg)
		r.Inject(Output(1, "kept"))
		r.Want("acknowledged", "ack 1")
		cut := errors.New("cut")
		r.Socket().Cut(cut)
		recv(t, r, frame.Output, "kept")
		_, _, err := r.Channel.Recv(t.Context())
		if !errors.Is(err, stream.ErrLost) || !errors.Is(err, cut) {
			t.Errorf("Recv gives %v, want that the session is lost and why", err)
		}
		if n := len(r.Dials()); n != 1 {
			t.Errorf("dialled %d times", n)
		}
	})
}

func TestFirstDialThatFailsEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := errors.New("refused")
		ch := stream.Open(t.Context(), stream.Config{
			Dial: func(context.Context, bool) (stream.Socket, string, error) { return nil, "", want },
		})
		if _, err := ch.Started(t.Context()); !errors.Is(err, want) {
			t.Errorf("Started gives %v", err)
		}
		if err := ch.Close(); !errors.Is(err, want) {
			t.Errorf("Close gives %v", err)
		}
	})
}

func TestCancelWhileDialling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		ch := stream.Open(ctx, stream.Config{
			Dial: func(ctx context.Context, _ bool) (stream.Socket, string, error) {
				<-ctx.Done()
				return nil, "", context.Cause(ctx)
			},
		})
		why := errors.New("the user left")
		cancel(why)
		if _, _, err := ch.Recv(t.Context()); !errors.Is(err, why) {
			t.Errorf("Recv gives %v", err)
		}
		if err := ch.Close(); !errors.Is(err, why) {
			t.Errorf("Close gives %v", err)
		}
	})
}

func TestUnansweredForTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		time.Sleep(time.Hour) // idle time does not count
		send(t, r, "a")
		begin := time.Now()
		_, _, err := r.Channel.Recv(t.Context())
		if took := time.Since(begin); !errors.Is(err, stream.ErrLost) || took != stream.DefaultGiveUp {
			t.Errorf("given up after %s with %v", took, err)
		}
	})
}

func TestPingsAndSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, stream.Config{})
		time.Sleep(30 * time.Second)
		r.Want("a ping when nothing was heard", "ping")
		r.Socket().Inject(frame.Pong, []byte("keepalive"))
		time.Sleep(30 * time.Second)
		r.Want("and another", "ping")
		time.Sleep(60*time.Second - time.Millisecond)
		if n := len(r.Dials()); n != 1 {
			t.Fatalf("dialled %d times before three intervals of silence", n)
		}
		time.Sleep(10 * time.Millisecond)
		if n := len(r.Dials()); n != 2 {
			t.Fatalf("dialled %d times after three intervals of silence", n)
		}
	})
}

func TestPingIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		r.Socket().Inject(frame.Ping, []byte("hello"))
		r.Want("by the writer", "pong hello")
	})
}

// alive asks whether the connection works, and gives the ping that went out for it.
func alive(t *testing.T, r *Rig) (ping []byte, answer chan error) {
	t.Helper()
	answer = make(chan error, 1)
	go func() { answer <- r.Channel.Alive(t.Context()) }()
	sent := r.Socket().Raw()
	if len(sent) != 1 {
		t.Fatalf("Alive sent %q, want one ping", sent)
	}
	return sent[0], answer
}

func TestAliveWaitsForTheAnswerToItsOwnPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		first, answer := alive(t, r)
		r.Socket().Inject(frame.Pong, []byte("keepalive"))
		time.Sleep(time.Hour)
		if len(answer) > 0 {
			t.Fatalf("another ping's answer made it %v", <-answer)
		}
		r.Socket().Inject(frame.Pong, first)
		if err := <-answer; err != nil {
			t.Errorf("answered, it gives %v", err)
		}

		_, answer = alive(t, r)
		r.Socket().Inject(frame.Pong, first)
		r.Refuse(errors.New("nobody there"))
		gone := errors.New("reset")
		r.Socket().Cut(gone)
		if err := <-answer; !errors.Is(err, gone) {
			t.Errorf("on a lost connection it gives %v", err)
		}
		if err := r.Channel.Alive(t.Context()); err == nil {
			t.Error("without a connection it gives no error")
		}
		r.Refuse(nil)
		time.Sleep(10 * time.Second)
		r.Sent()
		last, answer := alive(t, r)
		r.Socket().Inject(frame.Pong, last)
		if err := <-answer; err != nil {
			t.Errorf("on the next connection it gives %v", err)
		}
	})
}

func TestAliveEndsWithItsContextAndItsChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Channel.Alive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("in its time it gives %v", err)
		}
		r.Sent()
		_, answer := alive(t, r)
		r.Inject(ChannelClosed(""))
		if err := <-answer; !errors.Is(err, io.EOF) {
			t.Errorf("at the end of the session it gives %v", err)
		}
	})
}

func TestABlockedSocketDoesNotStopReceiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		release := r.Socket().Block()
		send(t, r, "a")
		synctest.Wait()
		send(t, r, "b")
		r.Inject(Output(1, "still read"))
		recv(t, r, frame.Output, "still read")
		r.Want("nothing gets out")
		release()
		r.Want("in order once it can", "0:1:a", "1:1:b", "ack 1")
	})
}

// Acknowledgements that cannot get out wait, and cost no more than is told.
func TestAcknowledgementsWaitForABlockedSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const batches, each = 100, 100
		r := started(t, quiet())
		release := r.Socket().Block()
		send(t, r, "x") // what the writer is stuck with
		for b := range int64(batches) {
			var messages [][]byte
			for i := range int64(each) {
				messages = append(messages, Output(1+b*each+i, "x"))
			}
			r.Socket().Inject(frame.Binary, messages...)
		}
		synctest.Wait()
		_, p, err := r.Channel.Recv(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := len(p); n < 500 || n > 1500 {
			t.Errorf("%d messages were read at once while acknowledgements wait, want as many as have room", n)
		}
		time.Sleep(2 * time.Minute) // for all to be read, one batch a second
		if _, p, err = r.Channel.Recv(t.Context()); err != nil || len(p) < each {
			t.Errorf("then came %d bytes, %v; want more: a socket that is not read is not heard", len(p), err)
		}
		release()
		if n := len(r.Sent()); n < 1000 || n > 2000 {
			t.Errorf("%d messages waited for the socket, want 512 KiB of acknowledgements", n)
		}
	})
}

func TestWhatIsAcknowledgedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		payload := strings.Repeat("x", 1024)
		const messages = 16 << 10 // 16 MB, which nobody reads
		for i := int64(1); i <= messages; i += 64 {
			var batch [][]byte
			for j := i; j < i+64; j++ {
				batch = append(batch, Output(j, payload))
			}
			r.Socket().Inject(frame.Binary, batch...)
			time.Sleep(300 * time.Millisecond)
		}
		acked := map[string]bool{}
		for _, ack := range r.Sent() {
			acked[ack] = true
		}
		if len(acked) < 2<<10 || len(acked) > 8<<10 {
			t.Errorf("%d messages of 1 kB were acknowledged with nobody reading", len(acked))
		}
		// The agent repeats what was refused; nothing may be missing then.
		next, got := int64(1), 0
		for got < messages*1024 {
			for ; next <= messages && got+(1<<20) > int(next)*1024; next++ {
				if !acked[fmt.Sprintf("ack %d", next)] {
					r.Inject(Output(next, payload))
				}
			}
			_, p, err := r.Channel.Recv(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got += len(p)
		}
	})
}

func TestEarlyMessagesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		payload := strings.Repeat("x", 1024)
		for i := int64(2); i < 10_000; i++ {
			r.Socket().Inject(frame.Binary, Output(i, payload))
		}
		if acked := len(r.Sent()); acked < 1000 || acked > 4000 {
			t.Errorf("%d messages beyond a gap were acknowledged", acked)
		}
	})
}

func TestCloseFlushes(t *testing.T) {
	tests := []struct {
		name  string
		acked bool
		took  time.Duration
	}{
		{"it waits for the last acknowledgement", true, 50 * time.Millisecond},
		{"but not for ever", false, 2 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := started(t, quiet())
				send(t, r, "a")
				if test.acked {
					time.AfterFunc(50*time.Millisecond, func() { r.Socket0().Inject(frame.Binary, Ack(0)) })
				}
				begin := time.Now()
				if err := r.Channel.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				if took := time.Since(begin); took != test.took {
					t.Errorf("Close took %s, want %s", took, test.took)
				}
				if _, _, err := r.Channel.Recv(t.Context()); !errors.Is(err, stream.ErrClosed) {
					t.Errorf("Recv after Close gives %v", err)
				}
			})
		})
	}
}

func TestWriterFailureStillReadsTheLastWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		r.Socket().FailSend(errors.New("broken pipe"))
		send(t, r, "a")
		synctest.Wait()
		r.Inject(Output(1, "last words"), ChannelClosed(""))
		recv(t, r, frame.Output, "last words")
		if _, _, err := r.Channel.Recv(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("the end is %v", err)
		}
	})
}

func TestWriterFailureIsALostSocketInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		r.Socket().FailSend(errors.New("broken pipe"))
		send(t, r, "a")
		time.Sleep(1100 * time.Millisecond)
		r.Open()
		r.Want("sent again on the next socket", "ack 0", "0:1:a")
	})
}

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		send(t, r, "abc")
		time.Sleep(210 * time.Millisecond) // it is repeated after 200
		r.Inject(Ack(0))
		r.Socket().Cut(io.EOF)
		time.Sleep(time.Second)
		r.Open()
		r.Inject(Output(1, "$"))
		recv(t, r, frame.Output, "$")
		if err := r.Channel.Close(); err != nil {
			t.Fatal(err)
		}
		s := r.Channel.Stats()
		if s.BytesIn != 2 || s.BytesOut != 3 || s.Retransmissions != 1 || s.Resumes != 1 || s.RoundTrip != 0 {
			t.Errorf("Stats gives %+v; a repeated message measures nothing", s)
		}
	})
}

func TestTheFirstRoundTripCountsAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := started(t, quiet())
		send(t, r, "abc")
		time.Sleep(20 * time.Millisecond)
		r.Inject(Ack(0))
		if err := r.Channel.Close(); err != nil {
			t.Fatal(err)
		}
		if got := r.Channel.Stats().RoundTrip; got != 20*time.Millisecond {
			t.Errorf("one round trip of 20 ms is told as %v", got)
		}
	})
}
