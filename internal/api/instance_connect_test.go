package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ssmsession"

func someKey() SSHKey {
	return SSHKey{InstanceID: "i-0123456789abcdef0", OSUser: "ec2-user", PublicKey: publicKey}
}

func TestPushSSHKeySendsTheModelledRequest(t *testing.T) {
	s := newService(t, 200, `{"RequestId":"r","Success":true}`)
	if err := isolatedClient(t, s.URL).PushSSHKey(context.Background(), someKey()); err != nil {
		t.Fatalf("PushSSHKey failed: %v", err)
	}
	seen := s.requests()
	if len(seen) != 1 {
		t.Fatalf("the service was asked %d times, want once", len(seen))
	}
	if seen[0].target != "AWSEC2InstanceConnectService.SendSSHPublicKey" || seen[0].contentType != "application/x-amz-json-1.1" {
		t.Errorf("the envelope is %q, %q", seen[0].target, seen[0].contentType)
	}
	if !strings.Contains(seen[0].auth, "/us-east-1/ec2-instance-connect/aws4_request") {
		t.Errorf("the signature is for another service: %s", seen[0].auth)
	}
	want := map[string]any{"InstanceId": "i-0123456789abcdef0", "InstanceOSUser": "ec2-user", "SSHPublicKey": publicKey}
	if !reflect.DeepEqual(seen[0].body, want) {
		t.Errorf("the body is %v, want %v", seen[0].body, want)
	}
}

func TestPushSSHKeyRefusesWhatTheServiceWould(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*SSHKey)
		words  string
	}{
		{"a node that is none of EC2's", func(k *SSHKey) { k.InstanceID = "mi-0123456789abcdef0" }, "is for instances of EC2"},
		{"an id in capitals", func(k *SSHKey) { k.InstanceID = "i-0123456789ABCDEF0" }, "is for instances of EC2"},
		{"an id that is short", func(k *SSHKey) { k.InstanceID = "i-0123" }, "is for instances of EC2"},
		{"no user", func(k *SSHKey) { k.OSUser = "" }, "the user's name is empty"},
		{"a long user", func(k *SSHKey) { k.OSUser = strings.Repeat("u", 33) }, "the user's name has 33 characters, 32 are allowed"},
		{"no key", func(k *SSHKey) { k.PublicKey = "" }, "the public key is no line"},
		{"two keys", func(k *SSHKey) { k.PublicKey += "\n" + publicKey }, "the public key is no line"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := someKey()
			tt.change(&key)
			err := isolatedClient(t, "http://127.0.0.1:1").PushSSHKey(context.Background(), key)
			if e := wantErrorCode(t, err, CodeInvalidInput); !e.Usage() || !strings.Contains(e.Message, tt.words) {
				t.Errorf("the error is %v, want one of usage with %q", err, tt.words)
			}
		})
	}
}

func TestPushSSHKeySaysWhatTheServiceSaid(t *testing.T) {
	for _, tt := range []struct {
		status           int
		body, code, line string
	}{
		{400, `{"__type":"AuthException","Message":"not for you."}`, "AuthException", "access denied: not for you"},
		{400, `{"__type":"com.amazonaws#EC2InstanceNotFoundException","Message":"gone"}`, "EC2InstanceNotFoundException", "there is no such instance: gone"},
		{400, `{"__type":"EC2InstanceStateInvalidException"}`, "EC2InstanceStateInvalidException", "the instance does not run"},
		{400, `{"__type":"InvalidArgsException","message":"bad user"}`, "InvalidArgsException", "the service refuses the request: bad user"},
		{400, `{"__type":"ThrottlingException","Message":"slow"}`, "ThrottlingException", "too many requests"},
		{400, `{"__type":"ExpiredTokenException","message":"old"}`, "ExpiredTokenException", "the credentials have expired"},
		{500, `{"__type":"ServiceException","Message":"oops"}`, "ServiceException", "the service failed: ServiceException: oops"},
		{502, `<html>`, CodeBadAnswer, "the answer is not the service's (HTTP 502)"},
		{200, `<html>`, CodeBadAnswer, "the answer is not the service's (HTTP 200)"},
		{200, `{"RequestId":"r","Success":false}`, CodeBadAnswer, "the answer is not the service's (HTTP 200)"},
	} {
		t.Run(tt.code, func(t *testing.T) {
			accountEnv(t)
			s := newService(t, tt.status, tt.body)
			t.Setenv("AWS_ENDPOINT_URL_EC2_INSTANCE_CONNECT", s.URL)
			err := mustNew(t, Config{}).PushSSHKey(context.Background(), someKey())
			e := wantErrorCode(t, err, tt.code)
			if want := "cannot push the SSH key to i-0123456789abcdef0: " + tt.line; e.Error() != want {
				t.Errorf("the line is\n\t%s\nwant\n\t%s", e, want)
			}
			if e.Hint == "" {
				t.Error("it has no hint")
			}
		})
	}
}

func TestPushSSHKeyTriesAgainAfterAFailureOfTheService(t *testing.T) {
	accountEnv(t)
	t.Setenv("AWS_MAX_ATTEMPTS", "2")
	calls := 0
	s := newActions(t, map[string]http.HandlerFunc{"SendSSHPublicKey": func(w http.ResponseWriter, _ *http.Request) {
		if calls++; calls == 1 {
			answer(t, w, 503, `{"__type":"ServiceException"}`)
			return
		}
		answer(t, w, 200, `{"Success":true}`)
	}})
	t.Setenv("AWS_ENDPOINT_URL", s.URL)
	if err := mustNew(t, Config{}).PushSSHKey(context.Background(), someKey()); err != nil || calls != 2 {
		t.Errorf("after %d calls: %v; want 2 and no error", calls, err)
	}
}

func TestTheHostThatIsPushedTo(t *testing.T) {
	for _, tt := range []struct {
		region, url string
		env         map[string]string
	}{
		{region: "eu-west-1", url: "https://ec2-instance-connect.eu-west-1.amazonaws.com/"},
		{region: "cn-north-1", url: "https://ec2-instance-connect.cn-north-1.amazonaws.com.cn/"},
		{region: "us-east-1", env: map[string]string{"AWS_USE_FIPS_ENDPOINT": "true"}, url: "https://ec2-instance-connect-fips.us-east-1.amazonaws.com/"},
		{region: "eu-west-1", env: map[string]string{"AWS_USE_DUALSTACK_ENDPOINT": "true"}, url: "https://ec2-instance-connect.eu-west-1.api.aws/"},
		{region: "eu-west-1", env: map[string]string{"AWS_ENDPOINT_URL_SSM": "https://ssm.example"}, url: "https://ec2-instance-connect.eu-west-1.amazonaws.com/"},
		{region: "eu-west-1", env: map[string]string{"AWS_ENDPOINT_URL": "https://all.example/"}, url: "https://all.example/"},
		{region: "eu-west-1", env: map[string]string{"AWS_ENDPOINT_URL": "https://all.example", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
			url: "https://ec2-instance-connect.eu-west-1.amazonaws.com/"},
	} {
		t.Run(tt.url, func(t *testing.T) {
			accountEnv(t)
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			var asked []string
			client := mustNew(t, Config{Region: tt.region, Proxy: func(r *http.Request) (*url.URL, error) {
				asked = append(asked, r.URL.String())
				return nil, errRecorded
			}})
			if err := client.PushSSHKey(context.Background(), someKey()); !errors.Is(err, errRecorded) {
				t.Fatalf("the call did not come as far as its connection: %v", err)
			}
			if len(asked) == 0 || asked[0] != tt.url {
				t.Errorf("the call went to %q, want %q", asked, tt.url)
			}
		})
	}
}

func TestPushSSHKeyEndsWithItsContext(t *testing.T) {
	accountEnv(t)
	t.Setenv("AWS_MAX_ATTEMPTS", "3")
	ctx, cancel := context.WithCancel(context.Background())
	s := newActions(t, map[string]http.HandlerFunc{"SendSSHPublicKey": func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		answer(t, w, 503, `{}`)
	}})
	t.Setenv("AWS_ENDPOINT_URL", s.URL)
	wantErrorCode(t, mustNew(t, Config{}).PushSSHKey(ctx, someKey()), CodeCanceled)
}
