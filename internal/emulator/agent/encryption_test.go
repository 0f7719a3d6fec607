package agent

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// The vectors of docs/protocol.md, "Encryption": 64 bytes counted up, and one nonce.
const vectorNonce = "a0a1a2a3a4a5a6a7a8a9aaab"

func vectorKey() []byte {
	key := make([]byte, dataKeySize)
	for i := range key {
		key[i] = byte(i)
	}
	return key
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func vectorEncryption(t testing.TB) *encryption {
	t.Helper()
	e := &encryption{nonce: readNonce([nonceSize]byte(unhex(t, vectorNonce)))}
	if err := e.setKey(vectorKey()); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEncryptionVectors(t *testing.T) {
	for plain, want := range map[string]string{
		"hello":        vectorNonce + "8e7d10412ab469edeb6fa84bae4731a07dbf70c564",
		"EXIT_CODE: 3": vectorNonce + "a34035791a884dfb275fa7e005dbe66bbecf21947f2c27e2970644e5",
	} {
		if got := vectorEncryption(t).seal(nil, []byte(plain)); hex.EncodeToString(got) != want {
			t.Errorf("%q is sealed for the client as %x, want %s", plain, got, want)
		}
	}
	const typed = vectorNonce + "124fa9c3be5ea267c186006575655e2404c2cb"
	if got, err := vectorEncryption(t).open(unhex(t, typed)); err != nil || string(got) != "ls\r" {
		t.Errorf("what the client has sealed opens as %q, %v", got, err)
	}
}

func TestChallengeVectors(t *testing.T) {
	const (
		request = `{"Challenge":"oKGio6SlpqeoqaqrGeaB0b4x+0eVk3In9IgxLp9CtPx5XauEe+jDYpxJlOENqJojdPiK5YhK0RzaqFIpiNWLhKka07aGmM6aZ7JEcCRTP3oVj5OVKX5bWJyn4C8="}`
		answer  = `{"Challenge":"oKGio6SlpqeoqaqrgcJZyD8teVJW3lhO1a+HVn6RLOvXXs/K6HQuHTCEThjAi+Bo3XMaoh00BjmdpEwuuZ224DxPeae2qF2oTAQ8AkmpYdEA7vaYI/dXD7VeAw0="}`
	)
	e := vectorEncryption(t)
	for i := range e.challenge {
		e.challenge[i] = byte(0xff - i)
	}
	if got, err := json.Marshal(e.challengeRequest()); err != nil || string(got) != request {
		t.Errorf("the challenge is %s, %v, want\n%s", got, err, request)
	}
	if err := e.verify([]byte(answer)); err != nil {
		t.Errorf("the right answer is refused: %v", err)
	}
	e.challenge[63]++
	if err := e.verify([]byte(answer)); !errors.Is(err, errChallengeWrong) {
		t.Errorf("the answer to another challenge gives %v", err)
	}
}

func TestOpenRefusesWhatIsNotSealed(t *testing.T) {
	good := unhex(t, vectorNonce+"124fa9c3be5ea267c186006575655e2404c2cb")
	e := vectorEncryption(t)
	for n := range good {
		if _, err := e.open(good[:n]); err == nil {
			t.Errorf("the first %d bytes open", n)
		}
		bad := bytes.Clone(good)
		bad[n] ^= 0x80
		if _, err := e.open(bad); err == nil {
			t.Errorf("with a bit of byte %d inverted it opens", n)
		}
	}
	if _, err := e.open(good); err != nil {
		t.Errorf("after that the right one does not: %v", err)
	}
	if _, err := e.open(e.seal(nil, []byte("hello"))); err == nil {
		t.Error("what is sealed for the client opens")
	}
	if _, err := new(encryption).open(good); !errors.Is(err, errNoDataKey) {
		t.Errorf("without a key it gives %v", err)
	}
}

func TestNonceCountsUp(t *testing.T) {
	for start, want := range map[string]string{
		"000000000000000000000000": "010000000000000000000000",
		"ff0000000000000000000000": "000100000000000000000000",
		"ffffffff0000000000000000": "000000000100000000000000",
		"ffffffffffffffff00000000": "000000000000000001000000",
		"ffffffffffffffffffffffff": "000000000000000000000000",
		vectorNonce:                "a1a1a2a3a4a5a6a7a8a9aaab",
	} {
		n := readNonce([nonceSize]byte(unhex(t, start)))
		first, second := n.next(), n.next()
		if hex.EncodeToString(first[:]) != start || hex.EncodeToString(second[:]) != want {
			t.Errorf("from %s on the nonces are %x and %x, want %s", start, first, second, want)
		}
	}
	if one, other := newNonce(), newNonce(); one == other {
		t.Error("two sessions begin with the same nonce")
	}
}

// vault is KMS for one data key, the vectors' one, whose blob is "blob".
type vault struct {
	context map[string]string // that it was asked with last
	keyID   string
	err     error
}

func (v *vault) Decrypt(_ context.Context, blob []byte, encryptionContext map[string]string, keyID string) ([]byte, error) {
	v.context, v.keyID = encryptionContext, keyID
	if v.err == nil && string(blob) != "blob" {
		return nil, errors.New("InvalidCiphertextException: ")
	}
	return vectorKey(), v.err
}

const testKey = "arn:aws:kms:us-east-1:111122223333:key/0000"

// encrypted makes a session be encrypted.
func encrypted(cfg Config) (Config, *vault) {
	v := &vault{}
	cfg.KMSKeyID, cfg.KMS, cfg.TargetID = testKey, v, "i-1"
	if cfg.Version == "" {
		cfg.Version = randomChallenges
	}
	return cfg, v
}

// clientCipher is the client's end of the vectors' key.
type clientCipher struct{ toAgent, fromAgent cipher.AEAD }

func newClientCipher(t testing.TB) clientCipher {
	t.Helper()
	gcm := func(key []byte) cipher.AEAD {
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			t.Fatal(err)
		}
		return aead
	}
	return clientCipher{toAgent: gcm(vectorKey()[32:]), fromAgent: gcm(vectorKey()[:32])}
}

func (c clientCipher) seal(text string) string {
	return string(c.toAgent.Seal(nil, nil, []byte(text), nil))
}

func (c clientCipher) open(t testing.TB, payload []byte) string {
	t.Helper()
	plain, err := c.fromAgent.Open(nil, nil, payload, nil)
	if err != nil {
		t.Fatalf("the client cannot open %x: %v", payload, err)
	}
	return string(plain)
}

// response is a handshake response with a result of the encryption.
func encryptionResponse(result string) string {
	return `{"ClientVersion":"1.2.650.0","ProcessedClientActions":[` +
		`{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""},` +
		`{"ActionType":"KMSEncryption","ActionStatus":1,"ActionResult":` + result + `,"Error":""}],"Errors":null}`
}

var (
	goodResult   = `{"KMSCipherTextKey":"` + base64.StdEncoding.EncodeToString([]byte("blob")) + `","KMSCipherTextHash":null}`
	goodAnswered = strings.Replace(goodResult, "}", `,"ChallengeAcknowledgement":true}`, 1)
)

// challenged goes on to the challenge and gives what the agent sealed.
func (c *client) challenged(result string) []byte {
	c.t.Helper()
	c.ack(c.want("a handshake begins with the request", frame.HandshakeRequest))
	c.wantAck("the response is acknowledged", c.input(frame.HandshakeResponse, encryptionResponse(result)))
	m := c.want("then comes the challenge", frame.EncChallengeRequest)
	c.ack(m)
	var challenge challengePayload
	if err := json.Unmarshal(m.Payload, &challenge); err != nil {
		c.t.Fatalf("the challenge is %s: %v", m.Payload, err)
	}
	return challenge.Challenge
}

func challengeAnswer(text string) string {
	return `{"Challenge":"` + base64.StdEncoding.EncodeToString([]byte(text)) + `"}`
}

// agreeEncrypted answers the handshake of an encrypted session.
func (c *client) agreeEncrypted(keys clientCipher) frame.HandshakeCompletePayload {
	c.t.Helper()
	challenge := keys.open(c.t, c.challenged(goodAnswered))
	if len(challenge) != 64 {
		c.t.Errorf("the challenge has %d bytes, want 64", len(challenge))
	}
	sequence := c.input(frame.EncChallengeResponse, challengeAnswer(keys.seal(challenge)))
	c.wantAck("the answer is acknowledged before the handshake completes", sequence)
	m := c.want("a handshake ends with its completion", frame.HandshakeComplete)
	c.ack(m)
	var complete frame.HandshakeCompletePayload
	if err := json.Unmarshal(m.Payload, &complete); err != nil {
		c.t.Fatalf("HandshakeComplete has the payload %q: %v", m.Payload, err)
	}
	return complete
}

func TestEncryptedHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, kms := encrypted(handshakeConfig())
		c := play(t, cfg)
		m := c.want("the request", frame.HandshakeRequest)
		var request struct {
			RequestedClientActions []struct {
				ActionType       string
				ActionParameters struct{ KMSKeyId, Challenge string }
			}
		}
		if err := json.Unmarshal(m.Payload, &request); err != nil {
			t.Fatal(err)
		}
		actions := request.RequestedClientActions
		if len(actions) != 2 || actions[0].ActionType != "SessionType" || actions[1].ActionType != "KMSEncryption" ||
			actions[1].ActionParameters.KMSKeyId != testKey {
			t.Fatalf("the request is %s", m.Payload)
		}
		random := actions[1].ActionParameters.Challenge
		if raw, err := base64.StdEncoding.DecodeString(random); err != nil || len(raw) != 16 {
			t.Errorf("the random challenge is %q, %v, want 16 bytes in base64", random, err)
		}
		c.pending = append(c.pending, m)
		c.seen = 0 // it comes again below
		complete := c.agreeEncrypted(newClientCipher(t))
		if complete.CustomerMessage != "This session is encrypted using AWS KMS." {
			t.Errorf("the user is told %q", complete.CustomerMessage)
		}
		want := map[string]string{"aws:ssm:SessionId": "jane-0123456789abcdef0", "aws:ssm:TargetId": "i-1", "aws:ssm:RandomChallenge": random}
		if !maps.Equal(kms.context, want) || kms.keyID != testKey {
			t.Errorf("KMS is asked for %s with %v, want %v", kms.keyID, kms.context, want)
		}
		c.wantResult("a session needs a command", noCommand)
	})
}

func TestContextWithoutTheRandomChallenge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, kms := encrypted(handshakeConfig())
		c := play(t, cfg)
		c.challenged(goodResult)
		if want := (map[string]string{"aws:ssm:SessionId": "jane-0123456789abcdef0", "aws:ssm:TargetId": "i-1"}); !maps.Equal(kms.context, want) {
			t.Errorf("for a client that does not know the random challenge the context is %v, want %v", kms.context, want)
		}
		c.cancel()
		c.wantResult("cancelled", Result{Status: StatusCancelled})
	})
}

func TestWhatIsEncryptedByWhichAgent(t *testing.T) {
	for _, test := range []struct {
		version string
		kind    frame.SessionType
		asks    bool
		random  bool
	}{
		{"3.3.808.0", frame.NonInteractiveCommands, true, true},
		{"3.3.807.9", frame.NonInteractiveCommands, true, false},
		{"3.3.808.0", frame.Port, false, false},
		{"2.3.538.0", frame.StandardStream, false, false},
		{"2.3.539.0", frame.StandardStream, true, false},
	} {
		cfg, _ := encrypted(Config{Version: test.version, Document: Document{SessionType: test.kind}})
		e := newEncryption(cfg)
		if (e != nil) != test.asks || e != nil && (e.randomChallenge != "") != test.random {
			t.Errorf("%s by agent %s has the encryption %+v", test.kind, test.version, e)
		}
	}
	if newEncryption(handshakeConfig()) != nil {
		t.Error("a session is encrypted without a key")
	}
}

// TestEncryptionFails has every way in which the handshake can end early.
func TestEncryptionFails(t *testing.T) {
	const initiating = "\n----------ERROR-------\nEncountered error while initiating handshake. "
	denied := errors.New("AccessDeniedException: User: node is not authorized to perform: kms:Decrypt")
	for _, test := range []struct {
		why, response string
		kms           error
		want          string
	}{
		{"the client could not", strings.Replace(encryptionResponse("null"), `"KMSEncryption","ActionStatus":1,"ActionResult":null,"Error":""`,
			`"KMSEncryption","ActionStatus":2,"ActionResult":null,"Error":"Failed to process action KMSEncryption: no key"`, 1), nil,
			"KMSEncryption failed on client with status 2 error: Failed to process action KMSEncryption: no key"},
		{"the agent may not decrypt", encryptionResponse(goodResult), denied,
			"Fetching data key failed: Unable to retrieve data key, Error when decrypting data key " + denied.Error()},
		{"another key", encryptionResponse(`{"KMSCipherTextKey":"eHg="}`), nil, "Fetching data key failed: Unable to retrieve data key, " +
			"Error when decrypting data key InvalidCiphertextException: "},
		{"no key in the result", encryptionResponse("null"), nil, "Fetching data key failed"},
		{"a result that is none", encryptionResponse(`"x"`), nil, "cannot unmarshal string"},
		{"a key that is not base64", encryptionResponse(`{"KMSCipherTextKey":"!"}`), nil, "illegal base64"},
		{"nothing about the encryption", `{"ClientVersion":"1.2.650.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1}]}`, nil,
			"the client has not answered the encryption request"},
		{"an answer twice", strings.Replace(encryptionResponse(goodResult), `]`, `,{"ActionType":"KMSEncryption","ActionStatus":1,"ActionResult":`+goodResult+`}]`, 1), nil,
			"there is a data key already"},
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg, kms := encrypted(handshakeConfig())
			kms.err = test.kms
			c := play(t, cfg)
			c.ack(c.want("the request", frame.HandshakeRequest))
			c.wantAck("the response is acknowledged", c.input(frame.HandshakeResponse, test.response))
			got := <-c.results
			if got.Status != StatusFailed || !strings.HasPrefix(got.Output, initiating) || !strings.Contains(got.Output, test.want) {
				t.Errorf("%s: the session ends with %+v, want …%s", test.why, got, test.want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		c := play(t, handshakeConfig())
		c.ack(c.want("the request", frame.HandshakeRequest))
		c.input(frame.HandshakeResponse, encryptionResponse(goodResult))
		c.wantResult("encryption that nobody asked for", failed("Encountered error while initiating handshake. "+errNotAsked.Error()))
	})
}

func TestChallengeTimeout(t *testing.T) {
	timedOut := failed("Encountered error while initiating handshake. Timed out waiting for encryption challenge.")
	for why, answer := range map[string]func(keys clientCipher, challenge string) string{
		"no answer":            nil,
		"the same bytes again": func(_ clientCipher, challenge string) string { return challengeAnswer(challenge) },
		"another challenge": func(keys clientCipher, challenge string) string {
			return challengeAnswer(keys.seal(challenge[1:] + "x"))
		},
		"nothing":                 func(clientCipher, string) string { return challengeAnswer("") },
		"no JSON":                 func(clientCipher, string) string { return "{" },
		"a second response":       func(clientCipher, string) string { return encryptionResponse(goodResult) },
		"the shortest of ciphers": func(keys clientCipher, _ string) string { return challengeAnswer(keys.seal("")) },
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg, _ := encrypted(handshakeConfig())
			c := play(t, cfg)
			keys := newClientCipher(t)
			challenge := keys.open(t, c.challenged(goodResult))
			if answer != nil {
				kind := frame.EncChallengeResponse
				if why == "a second response" {
					kind = frame.HandshakeResponse
				}
				c.input(kind, answer(keys, challenge))
				synctest.Wait()
				c.wantNothing(why + " is not acknowledged")
			}
			start := time.Now()
			c.wantResult(why, timedOut)
			if got := time.Since(start); got != 15*time.Second {
				t.Errorf("%s: the agent waited %v, want 15 s", why, got)
			}
		})
	}
}

func TestRightAnswerAfterAWrongOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, _ := encrypted(handshakeConfig())
		c := play(t, cfg)
		keys := newClientCipher(t)
		challenge := keys.open(t, c.challenged(goodResult))
		c.inputAs(c.next, frame.EncChallengeResponse, challengeAnswer(keys.seal("x")))
		c.inputAs(c.next, frame.EncChallengeResponse, challengeAnswer(keys.seal(challenge)))
		c.wantResult("a client that has guessed", failed("Encountered error while initiating handshake. Encryption challenge does not match!"))
	})
}

// encryptedBubble is bubble with a data key.
func encryptedBubble(t *testing.T, f func(b *bench, keys clientCipher)) {
	bubble(t, current, true, func(b *bench) {
		b.channel.encryption = vectorEncryption(t)
		f(b, newClientCipher(t))
	})
}

func TestInputIsDecrypted(t *testing.T) {
	encryptedBubble(t, func(b *bench, keys clientCipher) {
		b.wantAck("input is acknowledged", b.input(frame.Output, keys.seal("one")))
		b.wantAck("a size is not encrypted", b.input(frame.Size, "two"))
		b.wantAck("nor is a flag", b.input(frame.Flag, "three"))
		b.wantProgramGot("in the clear", "one", "two", "three")

		sealed := []byte(keys.seal("four"))
		sealed[20] ^= 1
		b.inputAs(b.next, frame.Output, string(sealed))
		b.inputAs(b.next, frame.Output, "four")
		b.inputAs(b.next, frame.Output, "a text that is longer than a nonce")
		b.quiet("what does not decrypt is not acknowledged")
		b.wantAck("the same again that does is", b.input(frame.Output, keys.seal("four")))

		b.wantAck("what comes early is acknowledged unread", func() int64 { b.inputAs(b.next+1, frame.Output, keys.seal("six")); return b.next + 1 }())
		b.wantAck("and read in its turn", b.input(frame.Output, keys.seal("five")))
		b.wantProgramGot("in order", "one", "two", "three", "four", "five", "six")
	})
}

func TestOutputIsEncrypted(t *testing.T) {
	encryptedBubble(t, func(b *bench, keys clientCipher) {
		nonces := map[string]bool{}
		for _, kind := range []frame.PayloadType{frame.Output, frame.StdErr, frame.ExitCode} {
			if err := b.channel.send(kind, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			m := b.want("output of every kind", kind)
			b.ack(m)
			if len(m.Payload) != len("hello")+28 || keys.open(t, m.Payload) != "hello" {
				t.Errorf("payload type %d is sent as %x", kind, m.Payload)
			}
			nonces[string(m.Payload[:12])] = true
		}
		if len(nonces) != 3 {
			t.Errorf("three messages have %d nonces", len(nonces))
		}
		if err := b.channel.send(frame.HandshakeComplete, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if m := b.want("a handshake", frame.HandshakeComplete); string(m.Payload) != "{}" {
			t.Errorf("a message of the handshake is sent as %q", m.Payload)
		}
	})
}

func TestRepeatedOutputIsTheSame(t *testing.T) {
	encryptedBubble(t, func(b *bench, keys clientCipher) {
		b.output("hello")
		first := b.want("output", frame.Output)
		after(time.Second)
		again := b.want("output that was not acknowledged", frame.Output)
		if first.Sequence != again.Sequence || !bytes.Equal(first.Payload, again.Payload) {
			t.Errorf("%x is repeated as %x", first.Payload, again.Payload)
		}
		b.ack(again)
	})
}

func TestAgentFaults(t *testing.T) {
	t.Run("bad challenge", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg, _ := encrypted(handshakeConfig())
			cfg.Faults.BadChallenge = true
			c := play(t, cfg)
			if plain, err := newClientCipher(t).fromAgent.Open(nil, nil, c.challenged(goodResult), nil); err == nil {
				t.Errorf("the challenge decrypts to %x", plain)
			}
			c.cancel()
			c.wantResult("cancelled", Result{Status: StatusCancelled})
		})
	})
	t.Run("bad output", func(t *testing.T) {
		encryptedBubble(t, func(b *bench, keys clientCipher) {
			b.channel.encryption.spoilMessage = 2
			for n := 1; n <= 3; n++ {
				b.output("hello")
				m := b.want("output", frame.Output)
				b.ack(m)
				if _, err := keys.fromAgent.Open(nil, nil, m.Payload, nil); (err != nil) != (n == 2) {
					t.Errorf("message %d decrypts: %v", n, err)
				}
			}
		})
	})
	t.Run("late encryption", func(t *testing.T) {
		bubble(t, current, true, func(b *bench) {
			var err error
			b.channel.late, err = newLateRequest(Config{Version: current, Document: Document{SessionType: frame.StandardStream}, Faults: Faults{LateEncryption: 2}})
			if err != nil {
				t.Fatal(err)
			}
			for n := range 2 {
				b.output(fmt.Sprint(n))
				b.ack(b.want("output", frame.Output))
			}
			m := b.want("the request", frame.HandshakeRequest)
			b.ack(m)
			if m.Sequence != 2 || !strings.Contains(string(m.Payload), `"KMSEncryption"`) {
				t.Errorf("message %d says %s", m.Sequence, m.Payload)
			}
			b.output("and on")
			b.ack(b.want("output goes on", frame.Output))
			b.quiet("the request comes once")
		})
	})
}

func TestEncryptedShell(t *testing.T) {
	needPTY(t)
	cfg, _ := encrypted(Config{Document: Document{SessionType: frame.StandardStream}, Shell: []string{"sh", "-c", "echo ready; cat"}})
	c := play(t, cfg)
	keys := newClientCipher(t)
	c.agreeEncrypted(keys)
	c.keys = &keys
	c.gather("a shell begins", untilOutput("ready"))
	c.input(frame.Size, `{"cols":80,"rows":24}`)
	c.input(frame.Output, keys.seal("hello\n"))
	c.input(frame.Output, keys.seal("\x04"))
	tr := c.gather("a shell that echoes", untilState)
	if got := tr.output[frame.Output]; !strings.HasSuffix(got, "hello\r\nhello\r\n") {
		t.Errorf("cat on a pty says %q", got)
	}
	c.wantResult("the end of the shell", Result{Status: StatusSuccess})
}

// FuzzHandshakeResponse and FuzzChallengeResponse: whatever a client answers, the
// agent takes it for an answer or not, and no key but the right one for a key.
func FuzzHandshakeResponse(f *testing.F) {
	f.Add([]byte(encryptionResponse(goodResult)))
	f.Add([]byte(encryptionResponse(goodAnswered)))
	f.Add([]byte(encryptionResponse("null")))
	f.Add([]byte(`{"ProcessedClientActions":[{"ActionType":"KMSEncryption","ActionStatus":1}]}`))
	f.Add([]byte(`{"ProcessedClientActions":[{"ActionType":7}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		cfg, _ := encrypted(handshakeConfig())
		c := &channel{responses: make(chan response, 1), encryption: newEncryption(cfg)}
		c.link = context.Background()
		err := c.respond(payload)
		if err == nil && (<-c.responses).err == nil && c.encryption.ready() &&
			!bytes.Contains(payload, []byte("YmxvYg")) && !bytes.Contains(payload, []byte(`\`)) {
			t.Errorf("%q brings a key", payload)
		}
	})
}

func FuzzChallengeResponse(f *testing.F) {
	e := vectorEncryption(f)
	f.Add([]byte(challengeAnswer(string(e.seal(nil, []byte("x"))))))
	f.Add([]byte(challengeAnswer(newClientCipher(f).seal("x"))))
	f.Add([]byte(challengeAnswer("")))
	f.Add([]byte(`{"Challenge":null}`))
	f.Add([]byte(`{"Challenge":[1,2]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		e := vectorEncryption(t)
		copy(e.challenge[:], "a challenge that the fuzzer does not know how to seal")
		if err := e.verify(payload); err == nil {
			t.Errorf("%q is taken for the answer", payload)
		}
	})
}
