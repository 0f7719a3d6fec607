package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func someSession() DataKeyRequest {
	return DataKeyRequest{
		KeyID:     "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
		SessionID: "jane-0191f0eae08e1b4f8", Target: "i-0123456789abcdef0",
	}
}

func dataKeyAnswer(bytesOfKey int) string {
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, bytesOfKey))
	return fmt.Sprintf(`{"CiphertextBlob":"YmxvYg==","Plaintext":%q,"KeyId":"k"}`, key)
}

func TestDataKeySendsTheModelledRequest(t *testing.T) {
	for name, challenge := range map[string]string{"an older agent": "", "an agent with a challenge": "cmFuZG9t"} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, 200, dataKeyAnswer(64))
			r := someSession()
			r.Challenge = challenge
			key, err := isolatedClient(t, s.URL).DataKey(context.Background(), r)
			if err != nil {
				t.Fatalf("DataKey failed: %v", err)
			}
			if len(key.Plaintext) != 64 || string(key.Ciphertext) != "blob" {
				t.Errorf("the key has %d bytes and the ciphertext %q", len(key.Plaintext), key.Ciphertext)
			}
			seen := s.requests()
			if len(seen) != 1 {
				t.Fatalf("the service was asked %d times, want once", len(seen))
			}
			if seen[0].target != "TrentService.GenerateDataKey" || !strings.Contains(seen[0].auth, "/us-east-1/kms/aws4_request") {
				t.Errorf("the envelope is %q, signed %q", seen[0].target, seen[0].auth)
			}
			bound := map[string]any{"aws:ssm:SessionId": r.SessionID, "aws:ssm:TargetId": r.Target}
			if challenge != "" {
				bound["aws:ssm:RandomChallenge"] = challenge
			}
			want := map[string]any{"KeyId": r.KeyID, "NumberOfBytes": 64.0, "EncryptionContext": bound}
			if !reflect.DeepEqual(seen[0].body, want) {
				t.Errorf("the body is %v, want %v", seen[0].body, want)
			}
		})
	}
}

func TestDataKeySaysWhatKMSSaid(t *testing.T) {
	for _, tt := range []struct {
		status           int
		body, code, line string
	}{
		{400, `{"__type":"AccessDeniedException","message":"no."}`, "AccessDeniedException", "access denied: no"},
		{400, `{"__type":"NotFoundException","message":"gone"}`, "NotFoundException", "there is no such key: gone"},
		{400, `{"__type":"DisabledException"}`, "DisabledException", "the key is disabled"},
		{400, `{"__type":"KMSInvalidStateException","message":"pending deletion"}`, "KMSInvalidStateException", "the key cannot be used now: pending deletion"},
		{400, `{"__type":"InvalidKeyUsageException","message":"signs"}`, "InvalidKeyUsageException", "the key is not for encryption: signs"},
		{400, `{"__type":"ExpiredTokenException","message":"old"}`, "ExpiredTokenException", "the credentials have expired"},
		{200, dataKeyAnswer(32), CodeBadAnswer, "the answer has no data key"},
		{200, `{}`, CodeBadAnswer, "the answer has no data key"},
		{200, `<html>`, CodeBadAnswer, "the answer is not the service's (HTTP 200)"},
	} {
		t.Run(tt.body, func(t *testing.T) {
			accountEnv(t)
			s := newService(t, tt.status, tt.body)
			t.Setenv("AWS_ENDPOINT_URL_KMS", s.URL)
			c, err := New(context.Background(), Config{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.DataKey(context.Background(), someSession())
			e := wantErrorCode(t, err, tt.code)
			if !strings.Contains(e.Message, tt.line) {
				t.Errorf("the message is %q, want one with %q", e.Message, tt.line)
			}
			if tt.code == "AccessDeniedException" && !strings.Contains(e.Hint, "kms:GenerateDataKey") {
				t.Errorf("the hint %q does not name the permission", e.Hint)
			}
		})
	}
}

func TestKMSHasAnEndpointOfItsOwn(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(t *testing.T, home, url string) Config
	}{
		{"given", func(_ *testing.T, _, url string) Config { return Config{KMSEndpointURL: url} }},
		{"given, over the environment's", func(t *testing.T, _, url string) Config {
			t.Setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1")
			return Config{KMSEndpointURL: url}
		}},
		{"in the environment", func(t *testing.T, _, url string) Config {
			t.Setenv("AWS_ENDPOINT_URL_KMS", url)
			return Config{EndpointURL: "http://127.0.0.1:1"}
		}},
		{"for all services", func(t *testing.T, _, url string) Config {
			t.Setenv("AWS_ENDPOINT_URL", url)
			return Config{}
		}},
		{"in the profile", func(t *testing.T, home, url string) Config {
			sharedConfig(t, home, "[default]\nservices = mine\n[services mine]\nkms =\n  endpoint_url = "+url+"\n")
			return Config{}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := accountEnv(t)
			s := newService(t, 200, dataKeyAnswer(64))
			c, err := New(context.Background(), tt.set(t, home, s.URL))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.DataKey(context.Background(), someSession()); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("which is a URL", func(t *testing.T) {
		accountEnv(t)
		for _, bad := range []string{"kms.example", "ftp://kms.example", "https://user:pass@kms.example"} {
			_, err := New(context.Background(), Config{KMSEndpointURL: bad})
			if e := wantErrorCode(t, err, CodeInvalidInput); !strings.Contains(e.Message, "endpoint of KMS") {
				t.Errorf("%s: %v", bad, err)
			}
		}
	})
}

func TestADataKeyIsBoundToATarget(t *testing.T) {
	r := someSession()
	r.Target = ""
	_, err := isolatedClient(t, "http://127.0.0.1:1").DataKey(context.Background(), r)
	if e := wantErrorCode(t, err, CodeNoTarget); !strings.Contains(e.Hint, "--target") {
		t.Errorf("the hint is %q", e.Hint)
	}
}
