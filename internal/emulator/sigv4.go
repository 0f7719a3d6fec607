package emulator

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Facts of Signature Version 4 (AWS's documentation, "Signing AWS API requests").
const (
	signingAlgorithm = "AWS4-HMAC-SHA256"
	amzDateFormat    = "20060102T150405Z"
	clockSkew        = 15 * time.Minute // that a signature may be old, or early
)

// newKey makes an access key in the form that AWS's have: 20 characters, of which
// four tell its kind, and 40 from 240 random bits.
func newKey(kind string) aws.Credentials {
	id, secret := make([]byte, 8), make([]byte, 30)
	rand.Read(id)     // never fails
	rand.Read(secret) // never fails
	return aws.Credentials{
		AccessKeyID:     kind + strings.ToUpper(hex.EncodeToString(id)),
		SecretAccessKey: base64.StdEncoding.EncodeToString(secret),
	}
}

// principal finds who has an access key: the one user there is, or a role that was
// assumed.
func (s *Server) principal(accessKeyID string) (principal, bool) {
	if accessKeyID == s.key.AccessKeyID {
		return principal{key: s.key, arn: s.callerARN(), userID: uniqueID("AIDA", s.callerARN())}, true
	}
	return s.temporary.find(accessKeyID)
}

// authorization is the Authorization header of a signed request.
type authorization struct {
	accessKeyID, date, region, service string
	signedHeaders                      []string
	signature                          string
}

// parseAuthorization reads "AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…,
// Signature=…", with or without spaces after the commas.
func parseAuthorization(header string) (authorization, error) {
	var a authorization
	rest, ok := strings.CutPrefix(header, signingAlgorithm+" ")
	if !ok {
		return a, errIncompleteSignature("Authorization header requires 'AWS4-HMAC-SHA256' as its algorithm.")
	}
	fields := map[string]string{}
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		fields[name] = value
	}
	for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
		if fields[name] == "" {
			return a, errIncompleteSignature("Authorization header requires '" + name + "' parameter.")
		}
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(scope) != 5 || scope[4] != "aws4_request" {
		return a, errIncompleteSignature("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")
	}
	a.accessKeyID, a.date, a.region, a.service = scope[0], scope[1], scope[2], scope[3]
	a.signedHeaders = strings.Split(fields["SignedHeaders"], ";")
	a.signature = fields["Signature"]
	return a, nil
}

// identify tells by whose key a request says that it was signed, a key of this
// server that is still good. The errors are the ones that AWS answers with.
func (s *Server) identify(r *http.Request) (principal, authorization, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return principal{}, authorization{}, errMissingToken
	}
	a, err := parseAuthorization(header)
	if err != nil {
		return principal{}, a, err
	}
	who, ok := s.principal(a.accessKeyID)
	if !ok || subtle.ConstantTimeCompare([]byte(r.Header.Get("X-Amz-Security-Token")), []byte(who.key.SessionToken)) != 1 {
		return principal{}, a, errUnrecognizedClient
	}
	if who.expired(time.Now()) {
		return principal{}, a, errExpiredToken
	}
	return who, a, nil
}

// authenticate checks that a request to a service was signed with the key that it
// names, and tells whose that is.
func (s *Server) authenticate(r *http.Request, body []byte, service string) (principal, error) {
	who, a, err := s.identify(r)
	if err != nil {
		return principal{}, err
	}
	return who, s.checkSigned(r, body, a, who.key, service, time.Now().UTC())
}

// checkSigned checks that a request was signed with a key for a service, in the
// server's region, just now.
func (s *Server) checkSigned(r *http.Request, body []byte, a authorization, key aws.Credentials, service string, now time.Time) error {
	if a.region != s.cfg.Region {
		return errInvalidSignature(fmt.Sprintf("Credential should be scoped to a valid region, not '%s'.", a.region))
	}
	if a.service != service {
		return errInvalidSignature(fmt.Sprintf("Credential should be scoped to correct service: '%s'.", service))
	}
	signed, err := time.Parse(amzDateFormat, r.Header.Get("X-Amz-Date"))
	if err != nil || !strings.HasPrefix(r.Header.Get("X-Amz-Date"), a.date) {
		return errIncompleteSignature("Date in Credential scope does not match a valid 'X-Amz-Date'.")
	}
	if err := checkAge(signed, now); err != nil {
		return err
	}
	// The signer adds host and date by itself; the action must be covered too. That
	// of the Query protocol is in the body.
	if !isQuery(r) && !slices.Contains(a.signedHeaders, "x-amz-target") {
		return errInvalidSignature("'X-Amz-Target' must be a 'SignedHeader' in the AWS Authorization.")
	}
	return s.checkSignature(r, body, a, key, signed)
}

// checkAge refuses what was signed long ago, so that a request cannot be replayed
// tomorrow, and what claims to come from the future.
func checkAge(signed, now time.Time) error {
	text := func(t time.Time) string { return t.Format(amzDateFormat) }
	switch age := now.Sub(signed); {
	case age > clockSkew:
		return errInvalidSignature(fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - 15 min.)",
			text(signed), text(now.Add(-clockSkew)), text(now)))
	case age < -clockSkew:
		return errInvalidSignature(fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 15 min.)",
			text(signed), text(now.Add(clockSkew)), text(now)))
	}
	return nil
}

// checkSignature signs the request anew, with just the headers that the client
// says it signed, and compares. Both what the Go SDK signs and the fewer headers
// that botocore signs come out right that way. The session token needs no header of
// its own here: if it is signed, it is in the list.
func (s *Server) checkSignature(r *http.Request, body []byte, a authorization, key aws.Credentials, signed time.Time) error {
	again := &http.Request{
		Method: r.Method,
		URL:    &url.URL{Scheme: s.scheme(), Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery},
		Host:   r.Host,
		Header: http.Header{},
	}
	for _, name := range a.signedHeaders {
		switch canonical := http.CanonicalHeaderKey(name); canonical {
		case "Host":
		case "Content-Length":
			again.ContentLength = r.ContentLength
		default:
			again.Header[canonical] = slices.Clone(r.Header[canonical])
		}
	}
	hash := sha256.Sum256(body)
	err := s.signer.SignHTTP(context.Background(), key, again, hex.EncodeToString(hash[:]), a.service, a.region, signed,
		func(o *v4.SignerOptions) { o.DisableSessionToken = true })
	if err != nil {
		return fmt.Errorf("sign the request anew: %w", err)
	}
	want, err := parseAuthorization(again.Header.Get("Authorization"))
	if err != nil {
		return fmt.Errorf("read our own signature: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(want.signature), []byte(a.signature)) != 1 ||
		!slices.Equal(want.signedHeaders, a.signedHeaders) {
		return errInvalidSignature("The request signature we calculated does not match the signature you provided. " +
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return nil
}
