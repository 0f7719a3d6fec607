package emulator

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
)

const (
	// kmsService is what calls of KMS are signed for, and kmsPrefix what is before
	// the action in their X-Amz-Target (the model of KMS, 2014-11-01).
	kmsService = "kms"
	kmsPrefix  = "TrentService."
	// sessionContext is the member of an encryption context that names a session.
	sessionContext = "aws:ssm:SessionId"
	// symmetric is the only algorithm of the keys there are.
	symmetric = "SYMMETRIC_DEFAULT"
)

// kms is a KMS with symmetric keys that are known by their ARNs. All share one
// secret, which is made at start: what is encrypted carries all that it takes to
// decrypt it, and nothing of it is remembered.
type kms struct {
	keys   []string
	sealer cipher.AEAD
}

// newKMS makes a KMS with keys.
func newKMS(keys []string) *kms {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	defer clear(secret)
	block, err := aes.NewCipher(secret)
	if err != nil {
		panic("emulator: a key of 32 bytes: " + err.Error())
	}
	sealer, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("emulator: AES is a block cipher of 16 bytes: " + err.Error())
	}
	return &kms{keys: keys, sealer: sealer}
}

// checkKeys tells what is wrong with the ARNs of keys.
func checkKeys(keys []string) error {
	arn := regexp.MustCompile(`^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]{1,256}$`)
	for i, key := range keys {
		if !arn.MatchString(key) {
			return fmt.Errorf("KMS key %q: not arn:aws:kms:REGION:ACCOUNT:key/ID", key)
		}
		if slices.Contains(keys[:i], key) {
			return fmt.Errorf("KMS key %s is given twice", key)
		}
	}
	return nil
}

// find gives the ARN of a key that is named by it, or by its id alone.
func (k *kms) find(id string) (string, error) {
	i := slices.IndexFunc(k.keys, func(key string) bool { return key == id || strings.HasSuffix(key, ":key/"+id) })
	if i < 0 {
		return "", errNoKey(id)
	}
	return k.keys[i], nil
}

// bound is what a blob is bound to: its key and its whole encryption context, which
// are not in it.
func bound(key string, encryptionContext map[string]string) []byte {
	b, err := json.Marshal([]any{key, encryptionContext}) // members are written in order
	if err != nil {
		panic("emulator: strings as JSON: " + err.Error())
	}
	return b
}

// encrypt encrypts plaintext to a blob.
func (k *kms) encrypt(key string, plaintext []byte, encryptionContext map[string]string) []byte {
	if len(encryptionContext) == 0 {
		encryptionContext = nil // no context and an empty one are the same
	}
	return k.sealer.Seal(nil, nil, plaintext, bound(key, encryptionContext))
}

// decrypt decrypts a blob, whose key is named or, for an empty name, found out.
func (k *kms) decrypt(id string, blob []byte, encryptionContext map[string]string) (key string, plaintext []byte, err error) {
	if id != "" {
		if key, err = k.find(id); err != nil {
			return "", nil, err
		}
	}
	if len(encryptionContext) == 0 {
		encryptionContext = nil
	}
	for _, candidate := range k.keys {
		plaintext, err := k.sealer.Open(nil, nil, blob, bound(candidate, encryptionContext))
		switch {
		case err != nil:
		case key != "" && key != candidate:
			clear(plaintext)
			return "", nil, errIncorrectKey
		default:
			return candidate, plaintext, nil
		}
	}
	return "", nil, errInvalidCiphertext
}

// The errors of KMS. An InvalidCiphertextException has no message at AWS either.
var (
	errInvalidCiphertext = common("InvalidCiphertextException", "")
	errIncorrectKey      = common("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
)

// errNoKey says that there is no such key.
func errNoKey(id string) *apiError {
	return common("NotFoundException", fmt.Sprintf("Key '%s' does not exist", id))
}

// validateContext checks an encryption context. AWS bounds it by its size in all.
func (v *validation) validateContext(encryptionContext map[string]string) {
	size := 0
	for name, value := range encryptionContext {
		size += len(name) + len(value)
	}
	if size > 8192 {
		v.add("'{...}'", "encryptionContext", "have at most 8192 bytes")
	}
}

// generateDataKeyInput is the input of GenerateDataKey.
type generateDataKeyInput struct {
	KeyId, KeySpec    *string
	NumberOfBytes     *int
	EncryptionContext map[string]string
}

// validate implements input.
func (in *generateDataKeyInput) validate(v *validation) {
	if v.required("keyId", in.KeyId != nil) {
		v.length("keyId", *in.KeyId, 1, 2048)
	}
	v.number("numberOfBytes", in.NumberOfBytes, 1, 1024)
	if in.KeySpec != nil {
		v.oneOf("keySpec", *in.KeySpec, "AES_256", "AES_128")
	}
	v.validateContext(in.EncryptionContext)
}

// size is how many bytes the data key is to have.
func (in *generateDataKeyInput) size() (int, error) {
	switch {
	case (in.NumberOfBytes == nil) == (in.KeySpec == nil):
		return 0, common("ValidationException", "Please specify either number of bytes or key spec.")
	case in.NumberOfBytes != nil:
		return *in.NumberOfBytes, nil
	case *in.KeySpec == "AES_128":
		return 16, nil
	}
	return 32, nil
}

// dataKey is the answer of GenerateDataKey.
type dataKey struct {
	CiphertextBlob []byte
	Plaintext      []byte // secret
	KeyId          string
}

// generateDataKey is GenerateDataKey.
func (s *Server) generateDataKey(_ caller, in *generateDataKeyInput) (any, error) {
	size, err := in.size()
	if err != nil {
		return nil, err
	}
	key, err := s.kms.find(*in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := s.kmsFault(FaultGenerateDataKey, key, in.EncryptionContext, s.callerARN()); err != nil {
		return nil, err
	}
	plaintext := make([]byte, size)
	rand.Read(plaintext) // never fails
	return dataKey{s.kms.encrypt(key, plaintext, in.EncryptionContext), plaintext, key}, nil
}

// decryptInput is the input of Decrypt.
type decryptInput struct {
	CiphertextBlob             []byte
	KeyId, EncryptionAlgorithm *string
	EncryptionContext          map[string]string
}

// validate implements input.
func (in *decryptInput) validate(v *validation) {
	if v.required("ciphertextBlob", in.CiphertextBlob != nil) {
		v.count("ciphertextBlob", len(in.CiphertextBlob), 1, 6144)
	}
	if in.KeyId != nil {
		v.length("keyId", *in.KeyId, 1, 2048)
	}
	if in.EncryptionAlgorithm != nil {
		v.oneOf("encryptionAlgorithm", *in.EncryptionAlgorithm, symmetric, "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE")
	}
	v.validateContext(in.EncryptionContext)
}

// decryptOutput is the answer of Decrypt.
type decryptOutput struct {
	KeyId               string
	Plaintext           []byte // secret
	EncryptionAlgorithm string
}

// decrypt is Decrypt.
func (s *Server) decrypt(_ caller, in *decryptInput) (any, error) {
	if in.EncryptionAlgorithm != nil && *in.EncryptionAlgorithm != symmetric {
		return nil, common("InvalidKeyUsageException", "Algorithm "+*in.EncryptionAlgorithm+" is not supported by a symmetric key.")
	}
	id := ""
	if in.KeyId != nil {
		id = *in.KeyId
	}
	return s.decryptAs(s.callerARN(), id, in.CiphertextBlob, in.EncryptionContext)
}

// decryptAs decrypts for whoever has an ARN.
func (s *Server) decryptAs(arn, id string, blob []byte, encryptionContext map[string]string) (decryptOutput, error) {
	key, plaintext, err := s.kms.decrypt(id, blob, encryptionContext)
	if err != nil {
		return decryptOutput{}, err
	}
	if err := s.kmsFault(FaultDecrypt, key, encryptionContext, arn); err != nil {
		clear(plaintext)
		return decryptOutput{}, err
	}
	return decryptOutput{key, plaintext, symmetric}, nil
}

// kmsDenied is what a caller gets who may not use a key.
func kmsDenied(arn, action, key string) *apiError {
	return common("AccessDeniedException", fmt.Sprintf(
		"User: %s is not authorized to perform: kms:%s on resource: %s because no identity-based policy allows the kms:%s action",
		arn, action, key, action))
}

// node is the KMS of an agent, which asks it as the role of its instance. It
// implements agent.Decrypter.
type node struct {
	server   *Server
	targetID string
}

var _ agent.Decrypter = node{}

// Decrypt implements agent.Decrypter.
func (n node) Decrypt(_ context.Context, blob []byte, encryptionContext map[string]string, keyID string) ([]byte, error) {
	s := n.server
	arn := "arn:aws:sts::" + s.cfg.AccountID + ":assumed-role/node/" + n.targetID
	if s.denied("Decrypt") {
		return nil, kmsDenied(arn, "Decrypt", keyID)
	}
	var v validation
	in := decryptInput{CiphertextBlob: blob, KeyId: &keyID, EncryptionContext: encryptionContext}
	in.validate(&v)
	err := v.err()
	var out decryptOutput
	if err == nil {
		out, err = s.decryptAs(arn, keyID, blob, encryptionContext)
	}
	if err != nil {
		s.log.Info("call of the agent refused", "target", kmsPrefix+"Decrypt", "error", err)
	}
	return out.Plaintext, err
}

// kmsCodes are the errors that calls of KMS can be made to fail with.
func kmsCodes() []string {
	return []string{
		"AccessDeniedException", "DependencyTimeoutException", "DisabledException", "KMSInternalException",
		"KMSInvalidStateException", "NotFoundException", "ThrottlingException",
	}
}

// kmsFault makes a call of KMS fail that is to.
func (s *Server) kmsFault(kind FaultKind, key string, encryptionContext map[string]string, arn string) error {
	f, happens := s.faultFor(kind, encryptionContext[sessionContext])
	if !happens {
		return nil
	}
	switch f.Code {
	case "AccessDeniedException":
		action := "Decrypt"
		if kind == FaultGenerateDataKey {
			action = "GenerateDataKey"
		}
		return kmsDenied(arn, action, key)
	case "DependencyTimeoutException":
		return &apiError{http.StatusInternalServerError, f.Code, "message", "The request timed out."}
	case "DisabledException":
		return common(f.Code, key+" is disabled.")
	case "KMSInternalException":
		return &apiError{http.StatusInternalServerError, f.Code, "message", "An internal error occurred."}
	case "KMSInvalidStateException":
		return common(f.Code, key+" is pending deletion.")
	case "NotFoundException":
		return errNoKey(key)
	}
	return errThrottled
}
