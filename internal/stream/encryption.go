package stream

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// The sizes of encryption (docs/protocol.md, "Encryption"), in bytes.
const (
	keyBytes       = 64 // of a data key: one half for each direction
	sealOverhead   = 28 // that a sealed payload is longer: a nonce and a tag
	challengeBytes = 64 // of what an agent has us open and seal again
	maxKeyID       = 2048
)

// keyLimit is how long a data key may take: the agent waits 15 s for the answer.
const keyLimit = 14 * time.Second

// KeyRequest is what the agent of an encrypted session asks the data key to be
// made with. It is remote-controlled.
type KeyRequest struct {
	// KeyID names the key of KMS, 1 to 2048 bytes.
	KeyID string
	// Challenge belongs into the encryption context; older agents have none.
	Challenge string
}

// DataKey is a session's key, as KMS makes it.
type DataKey struct {
	// Plaintext is the key from the agent, and the key to it. It becomes the
	// Channel's, which wipes it.
	Plaintext *KeyBytes
	// Ciphertext is the same for the agent, who has KMS decrypt it.
	Ciphertext []byte
}

// KeyBytes show themselves to nobody. A DataKey has a pointer to them because fmt
// calls no method of what is in an unexported field, and prints an array there.
type KeyBytes [keyBytes]byte

// Format writes a placeholder, whatever the verb.
func (KeyBytes) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[hidden]") } // a fmt.State keeps its errors

// MarshalText returns the placeholder, for slog and the encoders.
func (KeyBytes) MarshalText() ([]byte, error) { return []byte("[hidden]"), nil }

// wipe overwrites the key, if there is one.
func (k *KeyBytes) wipe() {
	if k != nil {
		*k = KeyBytes{}
	}
}

// KeyError is an encrypted session that there is no data key for, or none that
// the agent has, too.
type KeyError struct{ Err error }

func (e *KeyError) Error() string { return "the session cannot be encrypted: " + e.Err.Error() }

// Unwrap gives the cause.
func (e *KeyError) Unwrap() error { return e.Err }

// ErrNotEncrypted is a session that did not ask for encryption although it was
// required. Nothing of it was delivered, and nothing was sent.
var ErrNotEncrypted = errors.New("the session is not encrypted")

// ErrForged is a message that the session's key does not open. What came before
// it is whole.
var ErrForged = errors.New("a message of the agent is not encrypted with the session's key")

// errNoKey is the agent's key being another than ours.
var errNoKey = errors.New("the agent's challenge does not open: it has another key")

// ciphers seal what goes to the agent and open what comes from it. They are of
// the loop.
type ciphers struct {
	in, out cipher.AEAD
	buf     []byte // of the last payload that was opened or sealed
}

// newCiphers makes the ciphers of a data key, and wipes the key.
func newCiphers(key *KeyBytes) (*ciphers, error) {
	if key == nil {
		return nil, errors.New("there is no data key")
	}
	defer key.wipe()
	in, err := newAEAD(key[:keyBytes/2])
	if err != nil {
		return nil, err
	}
	out, err := newAEAD(key[keyBytes/2:])
	if err != nil {
		return nil, err
	}
	return &ciphers{in: in, out: out}, nil
}

// newAEAD is AES-256 in Galois/Counter mode with a random nonce of 12 bytes ahead
// of what is sealed, which is how the wire has it.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// open gives what was sealed, until the next call of open or seal.
func (c *ciphers) open(sealed []byte) ([]byte, error) {
	plain, err := c.in.Open(c.buf[:0], nil, sealed, nil)
	if err != nil {
		return nil, ErrForged
	}
	c.buf = plain
	return plain, nil
}

// seal gives plain sealed, until the next call of open or seal.
func (c *ciphers) seal(plain []byte) []byte {
	c.buf = c.out.Seal(c.buf[:0], nil, plain, nil)
	return c.buf
}

// sealed tells whether an encrypted session has payloads of a type encrypted.
// Terminal sizes and flags go in the clear, as the handshake does.
func sealed(typ frame.PayloadType) bool {
	switch typ {
	case frame.Output, frame.StdErr, frame.ExitCode:
		return true
	}
	return false
}

// keyed is what came of asking for a data key.
type keyed struct {
	key DataKey
	err error
}

// fetchKey asks for the session's data key, beside the loop: it takes a call to
// KMS. Until it is there, nothing is sent.
func (l *loop) fetchKey(r KeyRequest) {
	result := make(chan keyed, 1)
	l.keyed = result
	go func() {
		var k keyed
		defer func() { result <- k }()
		defer crash.Catch(&k.err)
		ctx, cancel := context.WithTimeout(l.dialCtx, keyLimit)
		defer cancel()
		k.key, k.err = l.cfg.DataKey(ctx, r)
	}()
}

// takeKey answers the handshake that asked for the key.
func (l *loop) takeKey(now time.Time, k keyed) {
	l.keyed = nil
	if l.end != nil {
		k.key.Plaintext.wipe()
		return
	}
	err := k.err
	if err == nil {
		l.ciphers, err = newCiphers(k.key.Plaintext)
	}
	l.hand.keyed(k.key.Ciphertext, err)
	l.answer(now)
}

// answer sends the answer to the handshake's request.
func (l *loop) answer(now time.Time) {
	payload, err := l.hand.response()
	if err == nil {
		err = l.number(frame.HandshakeResponse, payload)
	}
	if err != nil {
		l.end = err
		return
	}
	if l.hand.failed != nil {
		l.failedAt = now
	}
}

// failDeadline is until when the agent may take our refusal and close the session,
// zero while there is none.
func (l *loop) failDeadline() time.Time {
	if l.failedAt.IsZero() {
		return time.Time{}
	}
	return l.failedAt.Add(flushGrace)
}

// challenge answers the agent's proof that both have the same key. Only once, and
// only of the handshake: whoever is in the way could else have us seal for the
// agent what it has said.
func (l *loop) challenge(payload []byte) {
	answer, err := l.hand.challenge(payload, l.ciphers)
	if err == nil {
		err = l.number(frame.EncChallengeResponse, answer)
	}
	if err != nil {
		l.end = err
	}
}

// opened gives what a payload of the session holds; false is the end of the
// session.
func (l *loop) opened(typ frame.PayloadType, payload []byte) ([]byte, bool) {
	if !sealed(typ) || l.hand.key == nil {
		return payload, true
	}
	if l.hand.failed != nil {
		l.end = l.hand.failed // it was told so, and does not mind
		return nil, false
	}
	if l.ciphers == nil {
		l.end = ErrForged // nobody has the key yet
		return nil, false
	}
	plain, err := l.ciphers.open(payload)
	if err != nil {
		l.end = err
		return nil, false
	}
	return plain, true
}
