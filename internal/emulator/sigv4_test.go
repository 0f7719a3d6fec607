package emulator

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// TestSignature is the specification of which requests are let in.
func TestSignature(t *testing.T) {
	s := startWith(t, Config{}, echo)
	const body = `{"Target":"local"}`
	unsigned := func() *http.Request {
		r := newRequest(t, s, "GetConnectionStatus", body)
		r.Header.Del("Authorization")
		return r
	}
	signed := func(key aws.Credentials, at time.Time) *http.Request {
		r := unsigned()
		sign(t, s, r, body, key, at)
		return r
	}
	edited := func(edit func(r *http.Request)) *http.Request {
		r := signed(s.key, time.Now())
		edit(r)
		return r
	}
	replaced := func(old, new string) *http.Request {
		return edited(func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, new, 1))
		})
	}
	otherSecret := s.key
	otherSecret.SecretAccessKey += "x"
	otherID := s.key
	otherID.AccessKeyID = "AKIAIOSFODNN7EXAMPLE"
	temporary := s.key
	temporary.SessionToken = "token"
	tests := []struct {
		name    string
		request *http.Request
		code    string // empty: let in
		message string // a part of it
	}{
		{"as the SDK signs", signed(s.key, time.Now()), "", ""},
		{"with a header that is not signed", edited(func(r *http.Request) { r.Header.Set("User-Agent", "x") }), "", ""},
		{"ten minutes old", signed(s.key, time.Now().Add(-10*time.Minute)), "", ""},
		{"not signed", unsigned(), "MissingAuthenticationTokenException", "missing"},
		{"with another key", signed(otherID, time.Now()), "UnrecognizedClientException", "security token included in the request is invalid"},
		{"with a session token", signed(temporary, time.Now()), "UnrecognizedClientException", "security token"},
		{"with another secret", signed(otherSecret, time.Now()), "InvalidSignatureException", "does not match the signature you provided"},
		{"sixteen minutes old", signed(s.key, time.Now().Add(-16*time.Minute)), "InvalidSignatureException", "Signature expired: "},
		{"sixteen minutes early", signed(s.key, time.Now().Add(16*time.Minute)), "InvalidSignatureException", "Signature not yet current: "},
		{"for another action", edited(func(r *http.Request) { r.Header.Set("X-Amz-Target", "AmazonSSM.StartSession") }), "InvalidSignatureException", "does not match"},
		{"for another body", edited(func(r *http.Request) { r.Body = http.NoBody; r.ContentLength = 0 }), "InvalidSignatureException", "does not match"},
		{"for another region", replaced("/us-east-1/", "/eu-west-1/"), "InvalidSignatureException", "valid region, not 'eu-west-1'"},
		{"for another service", replaced("/ssm/", "/kms/"), "InvalidSignatureException", "correct service: 'ssm'"},
		{"without the action among the signed headers", replaced(";x-amz-target", ""), "InvalidSignatureException", "'X-Amz-Target' must be a 'SignedHeader'"},
		{"without the date among the signed headers", replaced("x-amz-date;", ""), "InvalidSignatureException", "does not match"},
		{"without a date", edited(func(r *http.Request) { r.Header.Del("X-Amz-Date") }), "IncompleteSignatureException", "X-Amz-Date"},
		{"with a date beside the scope's", replaced("/20", "/19"), "IncompleteSignatureException", "X-Amz-Date"},
		{"without a signature", replaced(", Signature=", ", Nothing="), "IncompleteSignatureException", "'Signature'"},
		{"with half a scope", replaced("/aws4_request", ""), "IncompleteSignatureException", "slash-delimited"},
		{"by another algorithm", replaced("AWS4-HMAC-SHA256", "AWS4-X"), "IncompleteSignatureException", "AWS4-HMAC-SHA256"},
		{"with a password", edited(func(r *http.Request) { r.SetBasicAuth("a", "b") }), "IncompleteSignatureException", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := do(t, s, test.request)
			switch {
			case test.code == "" && a.status != 200:
				t.Errorf("a request %s is refused: %s %s", test.name, a.code(), a.message())
			case test.code != "" && (a.status != 400 || a.code() != test.code || !strings.Contains(a.message(), test.message)):
				t.Errorf("a request %s gets %d %s: %q, not %s: …%q…", test.name, a.status, a.code(), a.message(), test.code, test.message)
			}
			if strings.Contains(a.message(), s.key.SecretAccessKey) {
				t.Error("the answer has the secret key in it")
			}
		})
	}
}

// TestAuthorizationOfBotocore has the header as botocore writes it: fewer signed
// headers, no length.
func TestAuthorizationOfBotocore(t *testing.T) {
	a, err := parseAuthorization("AWS4-HMAC-SHA256 Credential=AKIA1/20240829/us-east-1/ssm/aws4_request, " +
		"SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=00ff")
	if err != nil {
		t.Fatal(err)
	}
	if a.accessKeyID != "AKIA1" || a.date != "20240829" || a.region != "us-east-1" || a.service != "ssm" ||
		len(a.signedHeaders) != 4 || a.signature != "00ff" {
		t.Errorf("it was read as %+v", a)
	}
}

func TestHugeBodyIsRefused(t *testing.T) {
	s := startWith(t, Config{}, echo)
	a := call(t, s, "StartSession", `{"Target":"`+strings.Repeat("x", bodyLimit)+`"}`)
	if a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body above the limit got %d %s", a.status, a.code())
	}
}

func FuzzParseAuthorization(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=A/20240829/us-east-1/ssm/aws4_request, SignedHeaders=host, Signature=00")
	f.Add("AWS4-HMAC-SHA256 Credential=////,SignedHeaders==,Signature=,")
	f.Fuzz(func(t *testing.T, header string) {
		a, err := parseAuthorization(header)
		if err == nil && (a.signature == "" || len(a.signedHeaders) == 0) {
			t.Errorf("%q was taken for complete: %+v", header, a)
		}
	})
}
