package emulator

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

const (
	// temporaryKeyLimit is how many temporary keys are known at a time.
	temporaryKeyLimit = 1000
	// sessionTokenBytes is the random part of a session token, before base64. The
	// real ones are of many lengths, all of them some hundred characters.
	sessionTokenBytes = 300
)

// errExpiredToken is what a key gets whose time is over, in AWS's words.
var errExpiredToken = common("ExpiredTokenException", "The security token included in the request is expired")

// principal is who signs with a key, as GetCallerIdentity tells it.
type principal struct {
	key         aws.Credentials // secret
	arn, userID string
	issued      time.Time // zero: when the server started
}

// expired tells whether the principal's key was good for a time that is over.
func (p principal) expired(now time.Time) bool {
	return p.key.CanExpire && !now.Before(p.key.Expires)
}

// temporaryKeys are the keys that AssumeRole and its like gave away. The zero value
// has none.
type temporaryKeys struct {
	mu   sync.Mutex // guards byID
	byID map[string]principal
}

// add remembers a key. If there are too many, the one that expires first is
// forgotten: an expired one while there is any. Until then expired ones stay, so
// that who comes with one is told the truth.
func (k *temporaryKeys) add(p principal) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byID == nil {
		k.byID = map[string]principal{}
	}
	if len(k.byID) >= temporaryKeyLimit {
		first := slices.MinFunc(slices.Collect(maps.Values(k.byID)), func(a, b principal) int {
			return a.key.Expires.Compare(b.key.Expires)
		})
		delete(k.byID, first.key.AccessKeyID)
	}
	k.byID[p.key.AccessKeyID] = p
}

// find gives the principal of a key.
func (k *temporaryKeys) find(accessKeyID string) (principal, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p, ok := k.byID[accessKeyID]
	return p, ok
}

// newTemporaryKey makes a key that is good for a while from now. It ends at a full
// second, which is all that its Expiration can say.
func newTemporaryKey(now time.Time, lifetime time.Duration) aws.Credentials {
	token := make([]byte, sessionTokenBytes)
	rand.Read(token) // never fails
	key := newKey("ASIA")
	key.SessionToken = base64.StdEncoding.EncodeToString(token)
	key.CanExpire, key.Expires = true, now.Add(lifetime).UTC().Truncate(time.Second)
	return key
}

// uniqueID makes up the id that IAM would have for what an ARN names: four letters
// for its kind and 17 characters, the same ones every time.
func uniqueID(kind, arn string) string {
	hash := sha256.Sum256([]byte(arn))
	return kind + base32.StdEncoding.EncodeToString(hash[:])[:17]
}
