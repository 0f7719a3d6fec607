package agent

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Without a command a session with a handshake ends right after it, and no
// process is there to disturb virtual time.
func handshakeConfig() Config {
	return Config{Document: Document{SessionType: frame.NonInteractiveCommands}}
}

var noCommand = Result{StatusFailed, "Commands cannot be empty for session type NonInteractiveCommands"}

func TestHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t, handshakeConfig())
		m := c.want("then comes the request", frame.HandshakeRequest)
		want := `{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType",` +
			`"ActionParameters":{"SessionType":"NonInteractiveCommands","Properties":null}}]}`
		if string(m.Payload) != want || m.Sequence != 0 || m.Flags != frame.FlagSYN {
			t.Errorf("the request has number %d, flags %d and says\n%s, want 0, 1 and\n%s", m.Sequence, m.Flags, m.Payload, want)
		}
		c.ack(m)
		c.wantAck("what a client sends before its answer is acknowledged", c.input(frame.Output, "early"))
		time.Sleep(3 * time.Second)
		c.wantAck("the answer is acknowledged first", c.input(frame.HandshakeResponse,
			`{"ClientVersion":"1.2.650.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1},`+
				`{"ActionType":"Unasked","ActionStatus":1}],"Errors":["not read"]}`))
		m = c.want("then the handshake completes", frame.HandshakeComplete)
		if string(m.Payload) != `{"HandshakeTimeToComplete":3000000000,"CustomerMessage":""}` || m.Sequence != 1 {
			t.Errorf("number %d of the agent completes the handshake with %s", m.Sequence, m.Payload)
		}
		c.ack(m)
		c.wantResult("a session needs a command", noCommand)
	})
}

// TestLateOpening: what comes too soon is acknowledged and gone.
func TestLateOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := handshakeConfig()
		cfg.Faults.LateOpening = time.Second
		c := play(t, cfg)
		c.agree(newClient)
		start := time.Now()
		time.Sleep(time.Second - 1)
		c.wantAck("input before the agent is open is acknowledged, though nobody is there for it", c.input(frame.Size, `{"cols":80,"rows":24}`))
		c.wantResult("then the session begins, and needs a command", noCommand)
		if got := time.Since(start); got != time.Second {
			t.Errorf("the agent opened after %v, want 1 s", got)
		}
	})
}

func TestHandshakeRefused(t *testing.T) {
	for _, tt := range []struct{ why, response, want string }{
		{
			"the client could not", `{"ClientVersion":"1.2.0.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":2,` +
				`"Error":"Failed to process action SessionType: Unknown session type Foo"}]}`,
			"SessionType failed on client with status 2 error: Failed to process action SessionType: Unknown session type Foo",
		},
		{
			"the client does not know the action", `{"ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":3,"Error":"no"}]}`,
			"SessionType failed on client with status 3 error: no",
		},
		{
			"the official client's form of that", `{"ProcessedClientActions":[{"ActionType":"X","ActionStatus":0,"ActionResult":3,` +
				`"Error":"Unsupported action X"},{"ActionType":"SessionType","ActionStatus":1}]}`,
			"X failed on client with status 0 error: Unsupported action X",
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := play(t, handshakeConfig())
			c.ack(c.want("the request", frame.HandshakeRequest))
			c.wantAck("a refusal is acknowledged", c.input(frame.HandshakeResponse, tt.response))
			c.wantResult(tt.why, Result{StatusFailed,
				"\n----------ERROR-------\nEncountered error while initiating handshake. " + tt.want})
		})
	}
}

func TestHandshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t, handshakeConfig())
		c.ack(c.want("the request", frame.HandshakeRequest))
		c.input(frame.HandshakeResponse, "not JSON")
		start := time.Now()
		c.wantResult("without an answer that can be read", Result{StatusFailed,
			"\n----------ERROR-------\nEncountered error while initiating handshake. Handshake timed out. " +
				"Please ensure that you have the latest version of the session manager plugin."})
		if got := time.Since(start); got != 15*time.Second {
			t.Errorf("the agent waited %v for an answer, want 15 s", got)
		}
	})
}

func TestHandshakeCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t, handshakeConfig())
		c.ack(c.want("the request", frame.HandshakeRequest))
		start := time.Now()
		c.cancel()
		c.wantResult("cancelled before its program", Result{Status: StatusCancelled})
		if got := time.Since(start); got != 0 {
			t.Errorf("the cancellation took %v", got)
		}
	})
}

func TestCancelledWithUnacknowledgedOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t, handshakeConfig())
		c.want("the request", frame.HandshakeRequest)
		start := time.Now()
		c.cancel()
		c.wantResult("cancelled before its program", Result{Status: StatusCancelled})
		if got := time.Since(start); got != drainTime {
			t.Errorf("the agent waited %v for an acknowledgement, want 2 s", got)
		}
	})
}

func TestUnwantedHandshakeResponseStopsAllInput(t *testing.T) {
	bubble(t, current, true, func(b *bench) {
		b.input(frame.HandshakeResponse, `{"ProcessedClientActions":[]}`)
		b.input(frame.Output, "x")
		after(time.Minute)
		b.quiet("a handshake response that nobody waits for is never acknowledged, nor is what follows")
		b.output("y")
		b.want("output goes on", frame.Output)
	})
}

func TestCustomerMessage(t *testing.T) {
	for _, tt := range []struct {
		client, agent string
		separate      bool
		told          bool
	}{
		{"1.2.295", current, true, true},
		{"1.2.54.0", current, true, true},
		{"", current, true, true},
		{"1.2.295.0", current, true, false}, // longer, so newer
		{"1.2.650.0", current, true, false},
		{"1.2.54.0", current, false, false},
		{"1.2.54.0", "3.1.1510.0", true, false}, // an agent that cannot either
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg := handshakeConfig()
			cfg.Version = tt.agent
			cfg.Document.SeparateOutputStream = tt.separate
			c := play(t, cfg)
			complete := c.agree(tt.client)
			c.wantResult("a session needs a command", noCommand)
			want := ""
			if tt.told {
				want = updateClient
			}
			if complete.CustomerMessage != want {
				t.Errorf("%+v: client is told %q, want %q", tt, complete.CustomerMessage, want)
			}
		})
	}
	if !strings.HasSuffix(updateClient, "StdOut/StdErr output.\r\n") {
		t.Errorf("the message is %q", updateClient)
	}
}

func TestSessionsAnAgentDoesNotKnow(t *testing.T) {
	for _, tt := range []struct {
		version string
		kind    frame.SessionType
	}{
		{"3.0.1123.0", frame.NonInteractiveCommands},
		{"2.3.600.0", frame.InteractiveCommands},
		{"2.3.671.0", frame.Port},
		{current, "Foo"},
	} {
		got := Run(t.Context(), Config{Version: tt.version, Document: Document{SessionType: tt.kind}}, nil)
		want := Result{StatusFailed, "Plugin with name " + string(tt.kind) + " is not supported by this version of " +
			"ssm agent, please update to latest version. Step name: " + string(tt.kind)}
		if got != want {
			t.Errorf("agent %s, session %s: got %+v, want %+v", tt.version, tt.kind, got, want)
		}
	}
}

func TestLostLegDuringTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t, handshakeConfig())
		c.want("the request", frame.HandshakeRequest)
		close(c.leg.toAgent)
		c.wantResult("without a leg", Result{Status: StatusCancelled})
	})
}
