package api

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// DataKeyRequest says for which session a data key is made. The agent has KMS
// decrypt it with the same encryption context, or not at all.
type DataKeyRequest struct {
	// KeyID names the key of KMS, as the agent has it from the account's
	// session preferences: an id, an alias or an ARN.
	KeyID string
	// SessionID and Target are the session's; the target as its agent calls
	// itself, which is what StartSession was asked for.
	SessionID, Target string
	// Challenge is the agent's, part of the context where it is not empty.
	Challenge string
}

// DataKey is a key for one session.
type DataKey struct {
	Plaintext  *KeyBytes // the caller's to wipe
	Ciphertext []byte    // the same as the agent gets it, at most 6144 bytes
}

// KeyBytes show themselves to nobody, as a Secret does, and a DataKey has a pointer
// to them for the same reason. Unlike the text of a Secret they can be wiped.
type KeyBytes [dataKeyBytes]byte

// Format writes the placeholder whatever the verb.
func (KeyBytes) Format(f fmt.State, verb rune) { Secret{}.Format(f, verb) }

// MarshalText returns the placeholder, for slog and the encoders.
func (KeyBytes) MarshalText() ([]byte, error) { return Secret{}.MarshalText() }

// opDataKey is the operation, as words that follow "cannot".
const opDataKey = "make a data key with"

// The context that a session's key is bound to, and its size in bytes
// (docs/protocol.md, "Encryption").
const (
	contextSession   = "aws:ssm:SessionId"
	contextTarget    = "aws:ssm:TargetId"
	contextChallenge = "aws:ssm:RandomChallenge"
	dataKeyBytes     = 64
)

// DataKey has KMS make a session's key: GenerateDataKey.
func (c *Client) DataKey(ctx context.Context, r DataKeyRequest) (DataKey, error) {
	call := call{op: opDataKey, subject: clean(r.KeyID)}
	if r.Target == "" {
		return DataKey{}, call.fail(CodeNoTarget, "the target is not known, and the key is bound to it", "name it with --target", nil)
	}
	size := int32(dataKeyBytes)
	input := &kms.GenerateDataKeyInput{
		KeyId:             &r.KeyID,
		NumberOfBytes:     &size,
		EncryptionContext: map[string]string{contextSession: r.SessionID, contextTarget: r.Target},
	}
	if r.Challenge != "" {
		input.EncryptionContext[contextChallenge] = r.Challenge
	}
	out, err := c.kms.GenerateDataKey(ctx, input)
	if err != nil {
		return DataKey{}, c.caller.dataKeyRefused(c.caller.explain(ctx, call, err))
	}
	if len(out.Plaintext) != dataKeyBytes || len(out.CiphertextBlob) == 0 {
		clear(out.Plaintext)
		return DataKey{}, call.badAnswer("the answer has no data key")
	}
	return DataKey{Plaintext: (*KeyBytes)(out.Plaintext), Ciphertext: out.CiphertextBlob}, nil
}

// dataKeyRefused puts the codes that are KMS's own into words, and names the
// permission that a session's user rarely knows to lack.
func (w caller) dataKeyRefused(e *Error) *Error {
	see := "see the key with  aws kms describe-key --key-id " + shellWord(e.Subject) + w.flags
	message, hint := "", see
	switch e.Code {
	case "AccessDeniedException", "AccessDenied":
		hint = "the account encrypts its sessions: who starts them needs kms:GenerateDataKey on the key; see who is asking with  aws sts get-caller-identity" + w.profileFlag()
	case "NotFoundException":
		message = "there is no such key"
	case "DisabledException":
		message = "the key is disabled"
	case "KMSInvalidStateException", "KeyUnavailableException":
		message = "the key cannot be used now"
	case "InvalidKeyUsageException":
		message = "the key is not for encryption"
	default:
		return e
	}
	if message != "" { // what KMS adds stays behind it
		e.Message = message + strings.TrimPrefix(e.Message, e.Code)
	}
	if !w.isolated {
		e.Hint = hint
	}
	return e
}
