package agent

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Sizes of an encrypted session, in bytes (docs/protocol.md, "Encryption").
const (
	dataKeySize         = 64 // half of it for either direction
	nonceSize           = 12
	challengeSize       = 64 // what the client is to seal anew
	randomChallengeSize = 16 // what the client is to put into the encryption context
)

// The members of the encryption context.
const (
	contextSession   = "aws:ssm:SessionId"
	contextTarget    = "aws:ssm:TargetId"
	contextChallenge = "aws:ssm:RandomChallenge"
)

// Texts of AWS's agent.
const (
	encryptedMessage    = "This session is encrypted using AWS KMS."
	errChallengeTimeout = agentError("Timed out waiting for encryption challenge.")
	errChallengeWrong   = agentError("Encryption challenge does not match!")
)

// AWS's agent has no words for these: it crashes.
var (
	errNoDataKey   = errors.New("the client has not answered the encryption request")
	errNotAsked    = errors.New("the client has answered an encryption request that was not made")
	errHaveDataKey = errors.New("there is a data key already")
	errTooShort    = errors.New("encrypted text is shorter than its nonce")
)

// Decrypter is KMS, as the node's role may use it.
type Decrypter interface {
	// Decrypt gives back the data key that was encrypted to blob under a key of KMS
	// and a context, both of which must be the same again. The text of the error
	// reaches the user.
	Decrypt(ctx context.Context, blob []byte, encryptionContext map[string]string, keyID string) ([]byte, error)
}

// encryption is how one session is encrypted. It is made before the channel begins;
// the data key comes with the client's response, in the goroutine of process, before
// anything is told to the one that plays the handshake. From then on seal is the
// sender's (under channel.sending), and open is process's.
type encryption struct {
	kms                        Decrypter
	keyID, sessionID, targetID string
	randomChallenge            string // for the context; empty: too old an agent to have one
	challenge                  [challengeSize]byte
	spoilChallenge             bool // by a fault
	spoilMessage               int  // by a fault: which one, from 1; 0: none

	sealer cipher.AEAD // agent to client
	nonce  nonce
	sealed int // messages of output

	opener cipher.AEAD // client to agent
	plain  []byte      // of open, used again
	failed error       // an answer to the challenge was wrong
}

// newEncryption makes the encryption of a session, nil if it has none: tunnels are
// never encrypted, nor is anything by an agent that is too old.
func newEncryption(cfg Config) *encryption {
	if cfg.KMSKeyID == "" || cfg.Document.SessionType == frame.Port || !since(cfg.Version, encryptedSessions) {
		return nil
	}
	e := &encryption{
		kms: cfg.KMS, keyID: cfg.KMSKeyID, sessionID: cfg.SessionID, targetID: cfg.TargetID,
		nonce:          newNonce(),
		spoilChallenge: cfg.Faults.BadChallenge,
		spoilMessage:   cfg.Faults.BadOutput,
	}
	rand.Read(e.challenge[:]) // never fails
	if since(cfg.Version, randomChallenges) {
		e.randomChallenge = newRandomChallenge()
	}
	return e
}

// newRandomChallenge makes up a member of the encryption context.
func newRandomChallenge() string {
	raw := make([]byte, randomChallengeSize)
	rand.Read(raw) // never fails
	return base64.StdEncoding.EncodeToString(raw)
}

// encryptionResult is the client's answer to the encryption request.
type encryptionResult struct {
	KMSCipherTextKey         []byte
	KMSCipherTextHash        []byte // not looked at
	ChallengeAcknowledgement bool
}

// accept takes the client's answer: it has KMS decrypt the data key. The random
// challenge is in the context only if the client says that it put it there.
func (e *encryption) accept(ctx context.Context, actionResult []byte) error {
	if e == nil {
		return errNotAsked
	}
	if e.sealer != nil {
		return errHaveDataKey
	}
	var result encryptionResult
	if err := json.Unmarshal(actionResult, &result); err != nil {
		return err
	}
	encryptionContext := map[string]string{contextSession: e.sessionID, contextTarget: e.targetID}
	if result.ChallengeAcknowledgement {
		encryptionContext[contextChallenge] = e.randomChallenge
	}
	key, err := e.kms.Decrypt(ctx, result.KMSCipherTextKey, encryptionContext, e.keyID)
	if err != nil {
		return fmt.Errorf("Fetching data key failed: Unable to retrieve data key, Error when decrypting data key %w", err)
	}
	defer clear(key)
	return e.setKey(key)
}

// setKey divides a data key between the two directions.
func (e *encryption) setKey(key []byte) error {
	if len(key) != dataKeySize {
		return fmt.Errorf("the data key has %d bytes, not %d", len(key), dataKeySize)
	}
	sealer, err := newGCM(key[:dataKeySize/2])
	if err != nil {
		return err
	}
	opener, err := newGCM(key[dataKeySize/2:])
	if err != nil {
		return err
	}
	e.sealer, e.opener = sealer, opener
	return nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// ready tells whether there is a data key.
func (e *encryption) ready() bool { return e.sealer != nil }

// seal appends plain, encrypted for the client, to b.
func (e *encryption) seal(b, plain []byte) []byte {
	n := e.nonce.next()
	b = append(b, n[:]...)
	return e.sealer.Seal(b, b[len(b)-nonceSize:], plain, nil)
}

// sealOutput is seal for a message of output; a fault may spoil it.
func (e *encryption) sealOutput(b, plain []byte) ([]byte, error) {
	if !e.ready() {
		return b, errNoDataKey
	}
	b = e.seal(b, plain)
	if e.sealed++; e.sealed == e.spoilMessage {
		b[len(b)-1] ^= 1
	}
	return b, nil
}

// open decrypts what the client has encrypted. The result is valid until the next
// open.
func (e *encryption) open(sealed []byte) ([]byte, error) {
	if !e.ready() {
		return nil, errNoDataKey
	}
	if len(sealed) < nonceSize {
		return nil, errTooShort
	}
	var err error
	e.plain, err = e.opener.Open(e.plain[:0], sealed[:nonceSize], sealed[nonceSize:], nil)
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	return e.plain, nil
}

// challengePayload is the payload of EncChallengeRequest and EncChallengeResponse.
type challengePayload struct{ Challenge []byte }

// challengeRequest is what the client is to prove its key by.
func (e *encryption) challengeRequest() challengePayload {
	sealed := e.seal(nil, e.challenge[:])
	if e.spoilChallenge {
		sealed[len(sealed)-1] ^= 1
	}
	return challengePayload{sealed}
}

// verify checks the client's answer to the challenge.
func (e *encryption) verify(payload []byte) error {
	var answer challengePayload
	if err := json.Unmarshal(payload, &answer); err != nil {
		return fmt.Errorf("challenge response: %w", err)
	}
	plain, err := e.open(answer.Challenge)
	switch {
	case err != nil:
		e.failed = err
	case !bytes.Equal(plain, e.challenge[:]):
		e.failed = errChallengeWrong
	default:
		return nil
	}
	return e.failed
}

// nonce is the next nonce of the agent: a number of 96 bits in little-endian order
// that begins anywhere and is counted up, so that none comes twice with a key.
type nonce [nonceSize / 4]uint32

func newNonce() nonce {
	var raw [nonceSize]byte
	rand.Read(raw[:]) // never fails
	return readNonce(raw)
}

func readNonce(raw [nonceSize]byte) nonce {
	var n nonce
	for i := range n {
		n[i] = binary.LittleEndian.Uint32(raw[4*i:])
	}
	return n
}

// next gives the nonce and counts it up.
func (n *nonce) next() [nonceSize]byte {
	var raw [nonceSize]byte
	for i, word := range n {
		binary.LittleEndian.PutUint32(raw[4*i:], word)
	}
	for i := range n {
		if n[i]++; n[i] != 0 {
			break
		}
	}
	return raw
}

// hides tells whether output of a payload type is encrypted.
func hides(t frame.PayloadType) bool {
	return t == frame.Output || t == frame.StdErr || t == frame.ExitCode
}
