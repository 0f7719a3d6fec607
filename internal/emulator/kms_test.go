package emulator

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

const (
	kmsKey   = "arn:aws:kms:us-east-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef"
	otherKey = "arn:aws:kms:us-east-1:111122223333:key/fedcba98-7654-3210-fedc-ba9876543210"
)

// callKMS makes a signed call of KMS.
func callKMS(t testing.TB, s *Server, action, body string) answer {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.URL()+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("X-Amz-Target", kmsPrefix+action)
	sign(t, s, r, body, s.key, time.Now())
	return do(t, s, r)
}

// peerSecret is a peer's end of an encrypted session. Until there is a key it
// changes nothing.
type peerSecret struct {
	server              *Server
	sessionID, targetID string
	old                 bool // it knows no random challenge
	toAgent, fromAgent  cipher.AEAD
	told                string // by HandshakeComplete
}

// agree answers the encryption request, if there is one, after another action.
func (s *peerSecret) agree(t testing.TB, request []byte) string {
	t.Helper()
	var p struct {
		RequestedClientActions []struct {
			ActionType       string
			ActionParameters struct{ KMSKeyId, Challenge string }
		}
	}
	if err := json.Unmarshal(request, &p); err != nil {
		t.Fatalf("the handshake request is %s: %v", request, err)
	}
	for _, action := range p.RequestedClientActions {
		if action.ActionType != "KMSEncryption" {
			continue
		}
		encryptionContext := map[string]string{"aws:ssm:SessionId": s.sessionID, "aws:ssm:TargetId": s.targetID}
		random := action.ActionParameters.Challenge != "" && !s.old
		if random {
			encryptionContext["aws:ssm:RandomChallenge"] = action.ActionParameters.Challenge
		}
		body, err := json.Marshal(map[string]any{
			"KeyId": action.ActionParameters.KMSKeyId, "NumberOfBytes": 64, "EncryptionContext": encryptionContext,
		})
		if err != nil {
			t.Fatal(err)
		}
		a := callKMS(t, s.server, "GenerateDataKey", string(body))
		if a.status != http.StatusOK {
			return fmt.Sprintf(`,{"ActionType":"KMSEncryption","ActionStatus":2,"Error":%q}`, a.code())
		}
		key, err := base64.StdEncoding.DecodeString(a.text("Plaintext"))
		if err != nil || len(key) != 64 {
			t.Fatalf("the data key has %d bytes, %v", len(key), err)
		}
		s.toAgent, s.fromAgent = randomGCM(t, key[32:]), randomGCM(t, key[:32])
		return fmt.Sprintf(`,{"ActionType":"KMSEncryption","ActionStatus":1,"ActionResult":{"KMSCipherTextKey":%q,`+
			`"KMSCipherTextHash":null,"ChallengeAcknowledgement":%v},"Error":""}`, a.text("CiphertextBlob"), random)
	}
	return ""
}

func randomGCM(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
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

func (s *peerSecret) seal(payload []byte) []byte {
	if s == nil || s.toAgent == nil {
		return payload
	}
	return s.toAgent.Seal(nil, nil, payload, nil)
}

func (s *peerSecret) open(t testing.TB, kind frame.PayloadType, payload []byte) []byte {
	t.Helper()
	if s == nil || s.fromAgent == nil || kind != frame.Output && kind != frame.StdErr && kind != frame.ExitCode {
		return payload
	}
	plain, err := s.fromAgent.Open(nil, nil, payload, nil)
	if err != nil {
		t.Fatalf("output of type %d does not decrypt: %v", kind, err)
	}
	return plain
}

func (s *peerSecret) answer(t testing.TB, request []byte) []byte {
	t.Helper()
	var p struct{ Challenge []byte }
	if err := json.Unmarshal(request, &p); err != nil {
		t.Fatalf("the challenge is %s: %v", request, err)
	}
	plain, err := s.fromAgent.Open(nil, nil, p.Challenge, nil)
	if err != nil {
		t.Fatalf("the challenge does not decrypt: %v", err)
	}
	p.Challenge = s.toAgent.Seal(nil, nil, plain, nil)
	payload, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

// TestKMS goes to and fro with a data key.
func TestKMS(t *testing.T) {
	s := startServer(t, Config{KMSKeys: []string{kmsKey, otherKey}})
	for _, id := range []string{kmsKey, "01234567-89ab-cdef-0123-456789abcdef"} {
		a := callKMS(t, s, "GenerateDataKey", `{"KeyId":"`+id+`","NumberOfBytes":64,"EncryptionContext":{"a":"1","b":"2"}}`)
		plain, err := base64.StdEncoding.DecodeString(a.text("Plaintext"))
		if a.status != http.StatusOK || a.text("KeyId") != kmsKey || err != nil || len(plain) != 64 {
			t.Fatalf("GenerateDataKey with %s is answered with %d %v", id, a.status, a.code())
		}
		for _, key := range []string{"", `"KeyId":"` + id + `",`, `"KeyId":"` + kmsKey + `","EncryptionAlgorithm":"SYMMETRIC_DEFAULT",`} {
			d := callKMS(t, s, "Decrypt", `{`+key+`"CiphertextBlob":"`+a.text("CiphertextBlob")+`","EncryptionContext":{"b":"2","a":"1"}}`)
			if d.status != http.StatusOK || d.text("Plaintext") != a.text("Plaintext") || d.text("KeyId") != kmsKey ||
				d.text("EncryptionAlgorithm") != "SYMMETRIC_DEFAULT" {
				t.Errorf("Decrypt with %s is answered with %d %v", key, d.status, d.code())
			}
		}
	}
	for members, want := range map[string]int{`"NumberOfBytes":1`: 1, `"NumberOfBytes":1024`: 1024, `"KeySpec":"AES_128"`: 16, `"KeySpec":"AES_256"`: 32} {
		a := callKMS(t, s, "GenerateDataKey", `{"KeyId":"`+kmsKey+`",`+members+`,"EncryptionContext":{}}`)
		if plain, err := base64.StdEncoding.DecodeString(a.text("Plaintext")); err != nil || len(plain) != want {
			t.Errorf("a data key with %s has %d bytes, %v", members, len(plain), err)
		}
		d := callKMS(t, s, "Decrypt", `{"CiphertextBlob":"`+a.text("CiphertextBlob")+`"}`)
		if d.text("Plaintext") != a.text("Plaintext") {
			t.Errorf("without a context it is not had back: %d %s", d.status, d.code())
		}
	}
}

// TestErrorsOfKMS is the specification of what bad calls of KMS get.
func TestErrorsOfKMS(t *testing.T) {
	s := startServer(t, Config{KMSKeys: []string{kmsKey, otherKey}})
	generate := func(s *Server, key string) string {
		t.Helper()
		return callKMS(t, s, "GenerateDataKey", `{"KeyId":"`+key+`","NumberOfBytes":64,"EncryptionContext":{"a":"1","b":"2"}}`).text("CiphertextBlob")
	}
	blob, others := generate(s, kmsKey), generate(s, otherKey)
	foreign := generate(startServer(t, Config{KMSKeys: []string{kmsKey}}), kmsKey)
	decrypt := func(blob, rest string) string { return `{"CiphertextBlob":"` + blob + `"` + rest + `}` }
	const right = `,"EncryptionContext":{"a":"1","b":"2"}`
	for _, test := range []struct{ name, action, body, code, message string }{
		{"no key", "GenerateDataKey", `{"NumberOfBytes":64}`, "ValidationException", "Value null at 'keyId'"},
		{"an empty key", "GenerateDataKey", `{"KeyId":"","NumberOfBytes":64}`, "ValidationException", "'keyId'"},
		{"a key of 2049 characters", "GenerateDataKey", `{"KeyId":"` + strings.Repeat("x", 2049) + `","NumberOfBytes":64}`, "ValidationException", "'keyId'"},
		{"no size", "GenerateDataKey", `{"KeyId":"` + kmsKey + `"}`, "ValidationException", "number of bytes or key spec"},
		{"two sizes", "GenerateDataKey", `{"KeyId":"` + kmsKey + `","NumberOfBytes":64,"KeySpec":"AES_256"}`, "ValidationException", "number of bytes or key spec"},
		{"no bytes", "GenerateDataKey", `{"KeyId":"` + kmsKey + `","NumberOfBytes":0}`, "ValidationException", "greater than or equal to 1"},
		{"1025 bytes", "GenerateDataKey", `{"KeyId":"` + kmsKey + `","NumberOfBytes":1025}`, "ValidationException", "less than or equal to 1024"},
		{"an unknown key spec", "GenerateDataKey", `{"KeyId":"` + kmsKey + `","KeySpec":"AES_512"}`, "ValidationException", "'keySpec'"},
		{"an unknown key", "GenerateDataKey", `{"KeyId":"` + kmsKey + `0","NumberOfBytes":64}`, "NotFoundException", "Key '" + kmsKey + "0' does not exist"},
		{"a context of numbers", "GenerateDataKey", `{"KeyId":"` + kmsKey + `","NumberOfBytes":64,"EncryptionContext":{"a":1}}`, "SerializationException", ""},
		{"a context of 8193 bytes", "GenerateDataKey", `{"KeyId":"` + kmsKey + `","NumberOfBytes":64,"EncryptionContext":{"a":"` + strings.Repeat("x", 8192) + `"}}`,
			"ValidationException", "'encryptionContext'"},

		{"no blob", "Decrypt", `{}`, "ValidationException", "Value null at 'ciphertextBlob'"},
		{"an empty blob", "Decrypt", decrypt("", right), "ValidationException", "'ciphertextBlob'"},
		{"a blob of 6145 bytes", "Decrypt", decrypt(base64.StdEncoding.EncodeToString(make([]byte, 6145)), right), "ValidationException", "'ciphertextBlob'"},
		{"a blob that is not base64", "Decrypt", decrypt("!", right), "SerializationException", ""},
		{"a blob of one byte", "Decrypt", decrypt("eA==", right), "InvalidCiphertextException", ""},
		{"another KMS's blob", "Decrypt", decrypt(foreign, right), "InvalidCiphertextException", ""},
		{"a blob with a bit inverted", "Decrypt", decrypt(flipped(t, blob), right), "InvalidCiphertextException", ""},
		{"no context", "Decrypt", decrypt(blob, ""), "InvalidCiphertextException", ""},
		{"less of the context", "Decrypt", decrypt(blob, `,"EncryptionContext":{"a":"1"}`), "InvalidCiphertextException", ""},
		{"more of a context", "Decrypt", decrypt(blob, `,"EncryptionContext":{"a":"1","b":"2","c":""}`), "InvalidCiphertextException", ""},
		{"the context in another case", "Decrypt", decrypt(blob, `,"EncryptionContext":{"A":"1","b":"2"}`), "InvalidCiphertextException", ""},
		{"the context with its values swapped", "Decrypt", decrypt(blob, `,"EncryptionContext":{"a":"2","b":"1"}`), "InvalidCiphertextException", ""},
		{"another key of ours", "Decrypt", decrypt(others, right+`,"KeyId":"`+kmsKey+`"`), "IncorrectKeyException", "does not identify"},
		{"a key that is not there", "Decrypt", decrypt(blob, right+`,"KeyId":"`+kmsKey+`0"`), "NotFoundException", "does not exist"},
		{"another algorithm", "Decrypt", decrypt(blob, right+`,"EncryptionAlgorithm":"RSAES_OAEP_SHA_256"`), "InvalidKeyUsageException", ""},
		{"an unknown algorithm", "Decrypt", decrypt(blob, right+`,"EncryptionAlgorithm":"ROT13"`), "ValidationException", "'encryptionAlgorithm'"},
		{"an unknown action", "Encrypt", `{}`, "UnknownOperationException", ""},
	} {
		a := callKMS(t, s, test.action, test.body)
		if a.status != http.StatusBadRequest || a.code() != test.code || !strings.Contains(a.message(), test.message) {
			t.Errorf("%s: %s got %d %s: %q, not 400 %s: …%q…", test.name, test.action, a.status, a.code(), a.message(), test.code, test.message)
		}
		if _, has := a.members["Message"]; has {
			t.Errorf("%s: the message of an error of KMS begins with a capital", test.name)
		}
	}
	none := startServer(t, Config{})
	if a := callKMS(t, none, "GenerateDataKey", `{"KeyId":"`+kmsKey+`","NumberOfBytes":64}`); a.code() != "NotFoundException" {
		t.Errorf("without keys GenerateDataKey gets %d %s", a.status, a.code())
	}
}

func flipped(t testing.TB, blob string) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(blob)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	return base64.StdEncoding.EncodeToString(raw)
}

func TestCallsOfKMSAreSigned(t *testing.T) {
	s := startServer(t, Config{KMSKeys: []string{kmsKey}})
	body := `{"KeyId":"` + kmsKey + `","NumberOfBytes":64}`
	r := newRequest(t, s, "StartSession", body)
	r.Header.Set("X-Amz-Target", kmsPrefix+"GenerateDataKey")
	if a := do(t, s, r); a.code() != "InvalidSignatureException" || !strings.Contains(a.message(), "correct service: 'kms'") {
		t.Errorf("a call that is signed for ssm gets %d %s %s", a.status, a.code(), a.message())
	}
}

const quietly = `{"Target":"local","DocumentName":"AWS-StartNonInteractiveCommand","Parameters":{` +
	`"command":["sh -c 'echo out; echo err >&2; exit 7'"],"separateOutputStream":["true"]}}`

// TestEncryptedSessions runs a command, by clients and agents of two ages.
func TestEncryptedSessions(t *testing.T) {
	needPTY(t) // the command is that of a system that has one
	for _, version := range []string{"3.3.808.0", "3.3.799.0"} {
		for _, old := range []bool{false, true} {
			s := startServer(t, Config{KMSKeys: []string{kmsKey}, AgentVersion: version})
			p := connect(t, s, mustStart(t, s, quietly))
			p.secret.old = old
			if closed := p.wantClosed(); closed.Output != "" {
				t.Errorf("the session ends with %q", closed.Output)
			}
			if p.secret.toAgent == nil || !strings.Contains(p.secret.told, "This session is encrypted using AWS KMS.") {
				t.Errorf("the session is not encrypted: %s", p.secret.told)
			}
			if p.output.String() != "out\n" || p.stderr.String() != "err\n" || p.exit != "EXIT_CODE: 7" {
				t.Errorf("the command says %q and %q, and ends with %q", p.output.String(), p.stderr.String(), p.exit)
			}
		}
	}
}

func TestEncryptedShell(t *testing.T) {
	needPTY(t)
	s := startServer(t, Config{KMSKeys: []string{kmsKey}})
	g := mustStart(t, s, `{"Target":"local"}`)
	p := connect(t, s, g)
	p.until("the first output", func() bool { return p.output.Len() > 0 })
	p.send(frame.Output, []byte("echo $((6*7))-$((1+1))\n"))
	p.wantOutput("42-2")
	// A new socket goes on with the same key.
	p.conn.Close()
	p.reconnect(s, mustResume(t, s, g))
	p.send(frame.Output, []byte("echo $((6*8))-$((1+1)); exit\n"))
	p.wantOutput("48-2")
	p.wantClosed()
}

func TestTunnelsAreNotEncrypted(t *testing.T) {
	s := startServer(t, Config{KMSKeys: []string{kmsKey}})
	p := connect(t, s, mustStart(t, s, `{"Target":"local","DocumentName":"AWS-StartSSHSession","Parameters":{"portNumber":["1"]}}`))
	p.wantClosed()
	if p.secret.told == "" || strings.Contains(p.secret.told, "KMS") || p.secret.toAgent != nil {
		t.Errorf("the handshake of a tunnel completes with %s", p.secret.told)
	}
}

func TestContainersAreTargetsOfTheContext(t *testing.T) {
	told := make(chan agent.Config, 1)
	s := startWith(t, Config{KMSKeys: []string{kmsKey}}, func(_ context.Context, cfg agent.Config, _ agent.Leg) agent.Result {
		told <- cfg
		return agent.Result{Status: "Success"}
	})
	target := "ecs:default_" + DefaultTaskID + "_" + DefaultTaskID + "-1234567890"
	connect(t, s, mustStart(t, s, `{"Target":"`+target+`"}`)).wantClosed()
	if cfg := <-told; cfg.TargetID != target || cfg.KMSKeyID != kmsKey {
		t.Errorf("the agent of %s is told that it is %s, with the key %s", target, cfg.TargetID, cfg.KMSKeyID)
	}
}

// TestEncryptionIsRefused by the one end or the other: the user learns why.
func TestEncryptionIsRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		cfg    Config
		target string
		want   string
	}{
		{"the agent may not decrypt", Config{Deny: []string{"Decrypt"}}, "local",
			"Fetching data key failed: Unable to retrieve data key, Error when decrypting data key AccessDeniedException: User: " +
				"arn:aws:sts::111122223333:assumed-role/node/local is not authorized to perform: kms:Decrypt on resource: " + kmsKey},
		{"it may not on order", Config{Faults: faultsOf(t, "decrypt=AccessDeniedException")}, "local", "is not authorized to perform: kms:Decrypt"},
		{"KMS is ill", Config{Faults: faultsOf(t, "decrypt=KMSInternalException")}, "local", "data key KMSInternalException"},
		{"the client may not generate", Config{Deny: []string{"GenerateDataKey"}}, "local", "KMSEncryption failed on client with status 2 error: AccessDeniedException"},
		{"it may not on order", Config{Faults: faultsOf(t, "generate-data-key=ThrottlingException")}, "local", "status 2 error: ThrottlingException"},
		{"the client takes another target for its own", Config{}, "i-1", "data key InvalidCiphertextException"},
	} {
		test.cfg.KMSKeys = []string{kmsKey}
		s := startServer(t, test.cfg)
		p := connect(t, s, mustStart(t, s, quietly))
		p.secret.targetID = test.target
		if closed := p.wantClosed(); !strings.Contains(closed.Output, test.want) {
			t.Errorf("%s: the session ends with %q, not …%q…", test.name, closed.Output, test.want)
		}
	}
}

// TestFaultsOfKMSHappenToASession as often as was ordered.
func TestFaultsOfKMSHappenToASession(t *testing.T) {
	s := startServer(t, Config{KMSKeys: []string{kmsKey}})
	for _, code := range kmsCodes() {
		setFaults(t, s, "generate-data-key="+code+",once")
		for _, session := range []string{mustStart(t, s, quietly).SessionID, mustStart(t, s, quietly).SessionID, "nobody-1"} {
			body := `{"KeyId":"` + kmsKey + `","NumberOfBytes":64,"EncryptionContext":{"aws:ssm:SessionId":"` + session + `"}}`
			if a := callKMS(t, s, "GenerateDataKey", body); a.code() != code || a.status < 400 || a.message() == "" {
				t.Errorf("GenerateDataKey is answered with %d %s %q, not %s", a.status, a.code(), a.message(), code)
			}
			if a := callKMS(t, s, "GenerateDataKey", body); a.status != http.StatusOK {
				t.Errorf("the second time it is answered with %d %s", a.status, a.code())
			}
		}
		// Callers may make up as many as they like.
		body := `{"KeyId":"` + kmsKey + `","NumberOfBytes":64,"EncryptionContext":{"aws:ssm:SessionId":"nobody-2"}}`
		if a := callKMS(t, s, "GenerateDataKey", body); a.status != http.StatusOK {
			t.Errorf("for another session that is not there it is answered with %d %s", a.status, a.code())
		}
	}
}

// TestFaultsOfTheAgent reach it.
func TestFaultsOfTheAgent(t *testing.T) {
	told := make(chan agent.Config, 1)
	s := startWith(t, Config{}, func(_ context.Context, cfg agent.Config, _ agent.Leg) agent.Result {
		told <- cfg
		return agent.Result{Status: "Success"}
	})
	for spec, want := range map[string]agent.Faults{
		"bad-challenge": {BadChallenge: true}, "bad-output": {BadOutput: 1}, "bad-output=after:3": {BadOutput: 4},
		"late-encryption=after:2": {LateEncryption: 2}, "late-open=1s": {LateOpening: time.Second}, "drop=1%": {},
	} {
		setFaults(t, s, spec)
		connect(t, s, mustStart(t, s, `{"Target":"local"}`)).wantClosed()
		if cfg := <-told; cfg.Faults != want {
			t.Errorf("of %s the agent is told %+v", spec, cfg.Faults)
		}
	}
}

func TestDataKeysAreConcealed(t *testing.T) {
	var log bytes.Buffer
	s, err := Start(context.Background(), Config{Log: textLog(&log), KMSKeys: []string{kmsKey}})
	if err != nil {
		t.Fatal(err)
	}
	a := callKMS(t, s, "GenerateDataKey", `{"KeyId":"`+kmsKey+`","NumberOfBytes":64}`)
	callKMS(t, s, "Decrypt", `{"CiphertextBlob":"`+a.text("CiphertextBlob")+`"}`)
	p := connect(t, s, mustStart(t, s, quietly))
	p.wantClosed()
	p.conn.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(a.text("Plaintext"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{a.text("Plaintext"), fmt.Sprint(raw), string(raw), fmt.Sprintf("%x", raw)} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has the data key: %s", log.String())
		}
	}
	if !strings.Contains(log.String(), "GenerateDataKey") {
		t.Errorf("the log does not tell of the call: %s", log.String())
	}
}
