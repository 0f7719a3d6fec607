package stream_test

import (
	"bytes"
	"context"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
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

// kms makes a data key of ones and twos, once.
type kms struct {
	asked []stream.KeyRequest
	key   []byte // what it gave
	err   error
	gate  chan struct{} // waited for, if there is one
}

func (k *kms) dataKey(ctx context.Context, r stream.KeyRequest) (stream.DataKey, error) {
	k.asked = append(k.asked, r)
	if k.gate != nil {
		select {
		case <-k.gate:
		case <-ctx.Done():
			return stream.DataKey{}, context.Cause(ctx)
		}
	}
	if k.err != nil {
		return stream.DataKey{}, k.err
	}
	k.key = append(bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)...)
	return stream.DataKey{Plaintext: (*stream.KeyBytes)(k.key), Ciphertext: []byte("blob")}, nil
}

func (k *kms) config() stream.Config {
	cfg := quiet()
	cfg.DataKey = k.dataKey
	return cfg
}

// half is newSealer.
func half(t testing.TB, of byte) cipher.AEAD {
	t.Helper()
	aead, err := newSealer(of)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

// agentSeals is a payload as the agent of the session sends it.
func agentSeals(t testing.TB, plain string) string {
	return string(half(t, 1).Seal(nil, nil, []byte(plain), nil))
}

// kmsRequest is a request for a handshake with encryption.
func kmsRequest(sessionType, keyID, challenge string) []byte {
	quoted := func(s string) string {
		p, _ := json.Marshal(s) // never fails, of a string
		return string(p)
	}
	return Data(0, frame.HandshakeRequest, fmt.Sprintf(`{"AgentVersion":"3.3.0.0","RequestedClientActions":[`+
		`{"ActionType":"SessionType","ActionParameters":{"SessionType":%s,"Properties":null}},`+
		`{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":%s,"Challenge":%s}}]}`, quoted(sessionType), quoted(keyID), quoted(challenge)))
}

// kmsAnswer is what it is answered with.
func kmsAnswer(acknowledged string) string {
	return `0:6:{"ClientVersion":"` + stream.DefaultClientVersion + `","ProcessedClientActions":[` +
		`{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""},` +
		`{"ActionType":"KMSEncryption","ActionStatus":1,"ActionResult":{"KMSCipherTextKey":"YmxvYg==","KMSCipherTextHash":null` +
		acknowledged + `},"Error":""}],"Errors":null}`
}

// challengeOf is an agent's challenge of n bytes.
func challengeOf(t testing.TB, n int) string {
	p, err := json.Marshal(frame.EncChallengePayload{Challenge: []byte(agentSeals(t, strings.Repeat("c", n)))})
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

// agentOpens takes what was last sent, which is one message of a sequence number
// and a type.
func agentOpens(t testing.TB, sent, prefix string) string {
	t.Helper()
	payload, found := strings.CutPrefix(sent, prefix)
	if !found {
		t.Fatalf("sent is %q, want one that begins with %q", sent, prefix)
	}
	plain, err := half(t, 2).Open(nil, nil, []byte(payload), nil)
	if err != nil {
		t.Fatalf("what was sent does not open: %v", err)
	}
	return string(plain)
}

// encrypted is a rig whose session has begun, encrypted.
func encrypted(t *testing.T, k *kms) *Rig {
	t.Helper()
	r := New(t, k.config())
	r.Open()
	r.Inject(kmsRequest("Standard_Stream", "k", ""))
	r.Want("the handshake is answered", "ack 0", kmsAnswer(""))
	r.Inject(Ack(0), Data(1, frame.EncChallengeRequest, challengeOf(t, 64)))
	sent := r.Sent()
	if len(sent) != 2 || sent[0] != "ack 1" {
		t.Fatalf("a challenge: %q was sent", sent)
	}
	var answer frame.EncChallengePayload
	if err := json.Unmarshal([]byte(strings.TrimPrefix(sent[1], "1:9:")), &answer); err != nil {
		t.Fatalf("%q: %v", sent[1], err)
	}
	if got := agentOpens(t, string(answer.Challenge), ""); got != strings.Repeat("c", 64) {
		t.Fatalf("the challenge comes back as %q", got)
	}
	r.Inject(Ack(1), Data(2, frame.HandshakeComplete, `{"CustomerMessage":"encrypted"}`))
	r.Want("the end of the handshake", "ack 2")
	s, err := r.Channel.Started(t.Context())
	if err != nil || s.KMSKeyID != "k" || s.SessionType != frame.StandardStream {
		t.Fatalf("Started gives %+v, %v", s, err)
	}
	return r
}

func TestADataKeyIsShownToNobody(t *testing.T) {
	key := stream.DataKey{Plaintext: &stream.KeyBytes{7: 99}}
	encoded, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{string(encoded), fmt.Sprint(key.Plaintext)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, key), fmt.Sprintf(verb, &key))
	}
	for _, s := range shown {
		if !strings.Contains(s, "[hidden]") {
			t.Errorf("it is shown as %s", s)
		}
	}
	// Where fmt calls no method of it.
	if s := fmt.Sprintf("%v", struct{ key stream.DataKey }{key}); strings.Contains(s, "99") {
		t.Errorf("it is shown as %s", s)
	}
}

func TestAnEncryptedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kms{}
		r := encrypted(t, k)
		if len(k.asked) != 1 || k.asked[0] != (stream.KeyRequest{KeyID: "k"}) {
			t.Errorf("a data key was asked for with %+v", k.asked)
		}
		if !bytes.Equal(k.key, make([]byte, 64)) {
			t.Error("the data key is left in memory")
		}

		send(t, r, "ls\r")
		sent := r.Sent()
		if got := agentOpens(t, sent[0], "2:1:"); got != "ls\r" || len(sent) != 1 {
			t.Errorf("input arrives as %q of %q", got, sent)
		}
		if err := r.Channel.Send(t.Context(), frame.Size, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if err := r.Channel.Send(t.Context(), frame.Flag, []byte("flag")); err != nil {
			t.Fatal(err)
		}
		r.Want("sizes and flags go in the clear", "3:3:{}", "4:10:flag")
		r.Inject(Ack(2), Ack(3), Ack(4))

		// Whatever the agent seals, in whatever order it comes.
		r.Inject(
			Data(5, frame.ExitCode, agentSeals(t, "7")),
			Data(4, frame.StdErr, agentSeals(t, "oops")),
			Output(3, agentSeals(t, "out")))
		recv(t, r, frame.Output, "out")
		recv(t, r, frame.StdErr, "oops")
		recv(t, r, frame.ExitCode, "7")
	})
}

func TestLongInputOfAnEncryptedSessionStaysInBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := encrypted(t, &kms{})
		want := strings.Repeat("0123456789", 1000)
		send(t, r, want)
		got := ""
		for i, sent := range r.Sent() {
			prefix := fmt.Sprintf("%d:1:", i+2)
			if n := len(sent) - len(prefix); n > 1024 {
				t.Errorf("a message has %d bytes, want 1024 at most", n)
			}
			got += agentOpens(t, sent, prefix)
		}
		if got != want {
			t.Errorf("%d bytes arrive, want %d", len(got), len(want))
		}
	})
}

func TestTheRandomChallengeIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kms{}
		r := New(t, k.config())
		r.Open()
		r.Inject(kmsRequest("NonInteractiveCommands", "arn:aws:kms:k", "cmFuZG9t"))
		r.Want("the answer says so", "ack 0", kmsAnswer(`,"ChallengeAcknowledgement":true`))
		if len(k.asked) != 1 || k.asked[0] != (stream.KeyRequest{KeyID: "arn:aws:kms:k", Challenge: "cmFuZG9t"}) {
			t.Errorf("a data key was asked for with %+v", k.asked)
		}
	})
}

func TestNothingIsSentInTheClearWhileTheKeyIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kms{gate: make(chan struct{})}
		r := New(t, k.config())
		r.Open()
		if err := r.Channel.Send(t.Context(), frame.Size, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		r.Want("a size goes at once", "0:3:{}")
		// An agent so slow that the session is taken to have begun.
		r.Inject(Ack(0))
		time.Sleep(time.Second)
		wantBegun(t, r, "in silence", true)
		r.Inject(kmsRequest("Standard_Stream", "k", ""))
		r.Want("the request is acknowledged", "ack 0")
		sent := make(chan error, 1)
		go func() { sent <- r.Channel.Send(t.Context(), frame.Output, []byte("secret")) }()
		time.Sleep(5 * time.Second)
		r.Want("nothing while KMS thinks")
		close(k.gate)
		synctest.Wait()
		r.Want("the answer", strings.Replace(kmsAnswer(""), "0:6", "1:6", 1))
		r.Inject(Ack(1), Data(1, frame.EncChallengeRequest, challengeOf(t, 64)))
		if got := r.Sent(); len(got) != 2 || !strings.HasPrefix(got[1], "2:9:") {
			t.Fatalf("a challenge: %.60q", got)
		}
		r.Inject(Ack(2), Data(2, frame.HandshakeComplete, "{}"))
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if got := r.Sent(); len(got) != 2 || agentOpens(t, got[1], "3:1:") != "secret" {
			t.Fatalf("then the input, sealed: %q", got)
		}
	})
}

func TestSessionsThatCannotBeEncrypted(t *testing.T) {
	denied := errors.New("access denied")
	failed := `0:6:{"ClientVersion":"` + stream.DefaultClientVersion + `","ProcessedClientActions":[` +
		`{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""},` +
		`{"ActionType":"KMSEncryption","ActionStatus":2,"ActionResult":null,"Error":"Failed to process action KMSEncryption: no data key"}],` +
		`"Errors":["Failed to process action KMSEncryption: no data key"]}`
	for _, end := range []string{"the agent closes the session", "the agent says nothing more"} {
		t.Run("KMS refuses, and "+end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := New(t, (&kms{err: denied}).config())
				r.Open()
				r.Inject(kmsRequest("Standard_Stream", "arn:aws:kms:k", ""))
				r.Want("the agent is told so, and no more", "ack 0", failed)
				r.Inject(Ack(0))
				if end == "the agent closes the session" {
					r.Inject(ChannelClosed("bye"))
				} else {
					time.Sleep(3 * time.Second)
				}
				err := ended(t, r)
				var key *stream.KeyError
				if !errors.As(err, &key) || !errors.Is(err, denied) || errors.Is(err, io.EOF) {
					t.Fatalf("the end is %v, want a KeyError of KMS's", err)
				}
			})
		})
	}
	t.Run("KMS never answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k := &kms{gate: make(chan struct{})}
			r := New(t, k.config())
			r.Open()
			r.Inject(kmsRequest("Standard_Stream", "k", ""))
			time.Sleep(14 * time.Second)
			r.Want("the agent is told before it gives up", "ack 0", failed)
			time.Sleep(3 * time.Second)
			if err := ended(t, r); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the end is %v", err)
			}
		})
	})
	t.Run("the Channel is closed meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k := &kms{gate: make(chan struct{})}
			r := New(t, k.config())
			r.Inject(kmsRequest("Standard_Stream", "k", ""))
			if err := r.Channel.Close(); err != nil {
				t.Errorf("Close gives %v", err)
			}
		})
	})
}

func TestEncryptedSessionsThatLie(t *testing.T) {
	badTag := func(t *testing.T) string {
		b := []byte(agentSeals(t, "out"))
		b[len(b)-1] ^= 1
		return string(b)
	}
	tests := []struct {
		name   string
		inject func(t *testing.T, r *Rig)
		want   error
	}{
		{"output in the clear", func(_ *testing.T, r *Rig) { r.Inject(Output(3, "out")) }, stream.ErrForged},
		{"output with a wrong tag", func(t *testing.T, r *Rig) { r.Inject(Output(3, badTag(t))) }, stream.ErrForged},
		{"an exit code in the clear", func(_ *testing.T, r *Rig) { r.Inject(Data(3, frame.ExitCode, "0")) }, stream.ErrForged},
		{"a byte", func(_ *testing.T, r *Rig) { r.Inject(Data(3, frame.StdErr, "x")) }, stream.ErrForged},
		{"our own words", func(t *testing.T, r *Rig) {
			send(t, r, "x")
			r.Inject(Output(3, strings.TrimPrefix(r.Sent()[0], "2:1:")))
		}, stream.ErrForged},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := encrypted(t, &kms{})
				test.inject(t, r)
				if err := ended(t, r); !errors.Is(err, test.want) {
					t.Errorf("the end is %v, want %v", err, test.want)
				}
			})
		})
	}
	t.Run("what came before is whole", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := encrypted(t, &kms{})
			r.Inject(Output(3, agentSeals(t, "good")), Output(4, "bad"), Output(5, agentSeals(t, "late")))
			recv(t, r, frame.Output, "good")
			if err := ended(t, r); !errors.Is(err, stream.ErrForged) {
				t.Errorf("the end is %v", err)
			}
		})
	})
	t.Run("a challenge after the handshake is not answered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := encrypted(t, &kms{})
			r.Inject(Data(3, frame.EncChallengeRequest, challengeOf(t, 64)))
			r.Want("it is acknowledged and no more", "ack 3")
			r.Inject(Data(4, frame.HandshakeRequest, `{"RequestedClientActions":[]}`))
			r.Want("nor is a second handshake", "ack 4")
		})
	})
}

func TestHandshakesOfEncryptionThatLie(t *testing.T) {
	begin := func(t *testing.T, r *Rig) {
		r.Inject(kmsRequest("Standard_Stream", "k", ""))
		r.Sent()
	}
	tests := []struct {
		name string
		gate bool // KMS does not answer
		then func(t *testing.T, r *Rig)
		want string
	}{
		{"output before the key", true, func(_ *testing.T, r *Rig) { r.Inject(Output(1, "out")) }, stream.ErrForged.Error()},
		{"output in the clear before the end", false, func(_ *testing.T, r *Rig) { r.Inject(Output(1, "out")) }, stream.ErrForged.Error()},
		{"an end without a challenge", false, func(_ *testing.T, r *Rig) { r.Inject(Data(1, frame.HandshakeComplete, "{}")) }, "without proof"},
		{"an end before the key", true, func(_ *testing.T, r *Rig) { r.Inject(Data(1, frame.HandshakeComplete, "{}")) }, "without proof"},
		{"a challenge that is none", false, func(_ *testing.T, r *Rig) { r.Inject(Data(1, frame.EncChallengeRequest, "{")) }, "cannot be read"},
		{"a challenge of another key", false, func(t *testing.T, r *Rig) {
			sealed := base64.StdEncoding.EncodeToString(half(t, 3).Seal(nil, nil, make([]byte, 64), nil))
			r.Inject(Data(1, frame.EncChallengeRequest, `{"Challenge":"`+sealed+`"}`))
		}, "another key"},
		{"a challenge that is too short", false, func(t *testing.T, r *Rig) { r.Inject(Data(1, frame.EncChallengeRequest, challengeOf(t, 63))) }, "another key"},
		{"a challenge that is long enough for a command", false, func(t *testing.T, r *Rig) { r.Inject(Data(1, frame.EncChallengeRequest, challengeOf(t, 65))) }, "another key"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &kms{}
				if test.gate {
					k.gate = make(chan struct{})
				}
				r := New(t, k.config())
				r.Open()
				begin(t, r)
				test.then(t, r)
				if err := ended(t, r); err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("the end is %v, want one with %q", err, test.want)
				}
			})
		})
	}
	t.Run("a second challenge is not answered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := New(t, (&kms{}).config())
			r.Open()
			begin(t, r)
			r.Inject(Ack(0), Data(1, frame.EncChallengeRequest, challengeOf(t, 64)))
			r.Sent()
			r.Inject(Ack(1), Data(2, frame.EncChallengeRequest, challengeOf(t, 64)))
			r.Want("it is acknowledged and no more", "ack 2")
		})
	})
	t.Run("a challenge before the key is not answered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k := &kms{gate: make(chan struct{})}
			r := New(t, k.config())
			r.Open()
			begin(t, r)
			r.Inject(Data(1, frame.EncChallengeRequest, challengeOf(t, 64)))
			r.Want("it is acknowledged and no more", "ack 1")
		})
	})
	for name, action := range map[string]string{
		"a key without a name": `{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":""}}`,
		"a name too long":      `{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"` + strings.Repeat("k", 2049) + `"}}`,
		"asking twice": `{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"k"}},` +
			`{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"l"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &kms{}
				r := New(t, k.config())
				r.Open()
				r.Inject(Data(0, frame.HandshakeRequest, `{"RequestedClientActions":[`+action+`]}`))
				sent := r.Sent()
				if len(sent) != 2 || !strings.Contains(sent[1], `"ActionStatus":2`) || len(k.asked) != 0 {
					t.Errorf("%q was sent, and KMS asked for %v", sent, k.asked)
				}
			})
		})
	}
}

func TestEncryptionCanBeRequired(t *testing.T) {
	require := func(k *kms) stream.Config {
		cfg := k.config()
		cfg.RequireEncryption = true
		return cfg
	}
	tests := []struct {
		name string
		do   func(r *Rig)
	}{
		{"a shell without a handshake", func(r *Rig) { r.Inject(Output(0, "$ ")) }},
		{"a shell that is silent", func(r *Rig) {
			time.Sleep(time.Second)
			r.Inject(Ack(0))
			time.Sleep(time.Second)
		}},
		{"a handshake that does not ask for it", func(r *Rig) {
			r.Inject(Data(0, frame.HandshakeRequest, `{"RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream"}}]}`))
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := New(t, require(&kms{}))
				go func() { _ = r.Channel.Send(t.Context(), frame.Output, []byte("secret")) }() // it must not get out
				test.do(r)
				if err := ended(t, r); !errors.Is(err, stream.ErrNotEncrypted) {
					t.Errorf("the end is %v", err)
				}
				for _, sent := range r.Sent() {
					if strings.Contains(sent, "secret") || strings.Contains(sent, ":6:") {
						t.Errorf("%q was sent", sent)
					}
				}
			})
		})
	}
	t.Run("and had", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := New(t, require(&kms{}))
			r.Open()
			r.Inject(kmsRequest("Standard_Stream", "k", ""))
			r.Inject(Ack(0), Data(1, frame.EncChallengeRequest, challengeOf(t, 64)))
			r.Inject(Ack(1), Data(2, frame.HandshakeComplete, "{}"), Output(3, agentSeals(t, "$ ")))
			recv(t, r, frame.Output, "$ ")
		})
	})
}
