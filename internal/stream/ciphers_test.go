package stream

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// vectorKey is the data key of docs/protocol.md's vectors.
func vectorKey() *KeyBytes {
	key := &KeyBytes{}
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

// The vectors of docs/protocol.md, "Encryption".
func TestSealedVectors(t *testing.T) {
	const nonce = "a0a1a2a3a4a5a6a7a8a9aaab"
	t.Run("what an agent has sealed opens", func(t *testing.T) {
		for plain, sealed := range map[string]string{
			"hello":        "8e7d10412ab469edeb6fa84bae4731a07dbf70c564",
			"EXIT_CODE: 3": "a34035791a884dfb275fa7e005dbe66bbecf21947f2c27e2970644e5",
		} {
			c, err := newCiphers(vectorKey())
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.open(unhex(t, nonce+sealed)); err != nil || string(got) != plain {
				t.Errorf("opened: %q, %v; want %q", got, err, plain)
			}
		}
	})
	t.Run("what we seal opens with the other half of the key", func(t *testing.T) {
		block, err := aes.NewCipher(vectorKey()[keyBytes/2:])
		if err != nil {
			t.Fatal(err)
		}
		agent, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		// That this is what an agent has is what the vector shows.
		if got := agent.Seal(nil, unhex(t, nonce), []byte("ls\r"), nil); !slices.Equal(got, unhex(t, "124fa9c3be5ea267c186006575655e2404c2cb")) {
			t.Fatalf("the vector is sealed as %x", got)
		}
		c, err := newCiphers(vectorKey())
		if err != nil {
			t.Fatal(err)
		}
		first := slices.Clone(c.seal([]byte("ls\r")))
		if len(first) != 3+sealOverhead {
			t.Errorf("3 bytes are sealed in %d, want %d more", len(first), sealOverhead)
		}
		if got, err := agent.Open(nil, first[:12], first[12:], nil); err != nil || string(got) != "ls\r" {
			t.Errorf("the agent opens %q, %v", got, err)
		}
		if slices.Equal(first[:12], c.seal([]byte("ls\r"))[:12]) {
			t.Error("two messages have the same nonce")
		}
	})
	t.Run("the challenge is answered with the same bytes", func(t *testing.T) {
		const request = `{"Challenge":"oKGio6SlpqeoqaqrGeaB0b4x+0eVk3In9IgxLp9CtPx5XauEe+jDYpxJlOENqJojdPiK5YhK0RzaqFIpiNWLhKka07aGmM6aZ7JEcCRTP3oVj5OVKX5bWJyn4C8="}`
		c, err := newCiphers(vectorKey())
		if err != nil {
			t.Fatal(err)
		}
		h := handshake{key: &KeyRequest{KeyID: "k"}}
		answer, err := h.challenge([]byte(request), c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := newCiphers((*KeyBytes)(slices.Concat(vectorKey()[keyBytes/2:], vectorKey()[:keyBytes/2])))
		if err != nil {
			t.Fatal(err)
		}
		got, err := back.open(challengeOf(t, answer))
		if err != nil || len(got) != challengeBytes || got[0] != 0xff || got[63] != 0xc0 {
			t.Errorf("the answer holds %x, %v; want ff to c0", got, err)
		}
	})
}

func TestADataKeyIsWiped(t *testing.T) {
	key := vectorKey()
	if _, err := newCiphers(key); err != nil || *key != (KeyBytes{}) {
		t.Errorf("a key is left in memory, or of no use: %v", err)
	}
	if _, err := newCiphers(nil); err == nil {
		t.Error("there are ciphers without a key")
	}
}

// FuzzOpen: nothing that was not sealed with the key opens, and nothing panics.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(make([]byte, sealOverhead))
	f.Add(unhex(f, "a0a1a2a3a4a5a6a7a8a9aaab8e7d10412ab469edeb6fa84bae4731a07dbf70c565"))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		c, err := newCiphers(vectorKey())
		if err != nil {
			t.Fatal(err)
		}
		plain, err := c.open(sealed)
		if err == nil && len(plain) != len(sealed)-sealOverhead || err != nil && !errors.Is(err, ErrForged) {
			t.Fatalf("%d bytes open as %d, %v", len(sealed), len(plain), err)
		}
	})
}

// FuzzHandshake: no request, challenge or completion panics, and every request
// that can be read has one answer for each action.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte(`{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"80"}}}]}`), []byte("{}"), []byte(`{"HandshakeTimeToComplete":1,"CustomerMessage":"x"}`))
	f.Add([]byte(`{"RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream"}},{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"k","Challenge":"AA=="}}]}`), []byte(`{"Challenge":"oKGio6SlpqeoqaqrGeaB0b4x"}`), []byte(`{}`))
	f.Add([]byte(`{"RequestedClientActions":[{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":""}},{}]}`), []byte(`null`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, request, challenge, complete []byte) {
		h := handshake{clientVersion: DefaultClientVersion, encrypts: true}
		if h.request(request) != nil {
			return
		}
		if h.key != nil {
			c, err := newCiphers(vectorKey())
			if err != nil {
				t.Fatal(err)
			}
			h.keyed([]byte("blob"), nil)
			if _, err := h.challenge(challenge, c); err == nil && !h.proved {
				t.Fatal("a challenge was answered and does not count")
			}
		}
		if _, err := h.response(); err != nil {
			t.Fatal(err)
		}
		if _, err := h.complete(complete); err == nil && h.key != nil && !h.proved {
			t.Fatal("a session began whose agent proved nothing")
		}
	})
}
func challengeOf(t *testing.T, payload []byte) []byte {
	t.Helper()
	var p frame.EncChallengePayload
	if err := json.Unmarshal(payload, &p); err != nil {
		t.Fatal(err)
	}
	return p.Challenge
}
