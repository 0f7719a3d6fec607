package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// SSHKey is a public key that a user of an instance is to be let in with
// (docs/protocol.md, control API).
type SSHKey struct {
	InstanceID string // i-… of 10 to 32 characters: a managed node that is none of EC2's has no such thing
	OSUser     string // of the instance, 1 to 32 characters
	PublicKey  string // a line of OpenSSH's, 80 to 4096 characters
}

// opPushKey is the operation, as words that follow "cannot".
const opPushKey = "push the SSH key to"

// EC2 Instance Connect, as its requests name it.
const (
	connectService = "ec2-instance-connect"
	connectTarget  = "AWSEC2InstanceConnectService.SendSSHPublicKey"
)

// Validate reports what the service would refuse, as an error whose Usage is true.
func (k SSHKey) Validate() error {
	call := call{op: opPushKey, subject: clean(k.InstanceID)}
	if n := len(k.InstanceID); n < 10 || n > 32 || !regexp.MustCompile(`^i-[a-f0-9]+$`).MatchString(k.InstanceID) {
		return call.invalid("EC2 Instance Connect is for instances of EC2, which are named i-… and hexadecimal digits")
	}
	if p := checkText(k.OSUser, 32); p != "" {
		return call.invalid("the user's name " + p)
	}
	if n := len(k.PublicKey); n < 80 || n > 4096 || strings.ContainsAny(k.PublicKey, "\r\n") {
		return call.invalid("the public key is no line of 80 to 4096 characters")
	}
	return nil
}

// PushSSHKey lets whoever has the private key in, for 60 seconds: SendSSHPublicKey
// of EC2 Instance Connect. The SDK has a module of its own for this one call; here
// it is made with the SSM client's credentials, HTTP client and retries.
//
// Its endpoint is AWS_ENDPOINT_URL_EC2_INSTANCE_CONNECT, AWS_ENDPOINT_URL or the
// region's. Config's EndpointURL is SSM's, but for a client with Keys.
func (c *Client) PushSSHKey(ctx context.Context, k SSHKey) error {
	if err := k.Validate(); err != nil {
		return err
	}
	call := call{op: opPushKey, subject: clean(k.InstanceID)}
	p := keyPush{options: c.ssm.Options()}
	endpoint, err := p.endpoint(ctx, c.caller.isolated)
	if err != nil {
		return call.fail(CodeBadConfig, clean(err.Error()), "check the region and the endpoint", err)
	}
	body, err := json.Marshal(map[string]string{"InstanceId": k.InstanceID, "InstanceOSUser": k.OSUser, "SSHPublicKey": k.PublicKey})
	if err != nil {
		return call.fail(CodeInvalidInput, clean(err.Error()), "", err)
	}
	if err := p.send(ctx, endpoint, body); err != nil {
		return c.caller.keyRefused(c.caller.explain(ctx, call, err))
	}
	return nil
}

// keyRefused puts the service's codes, which its SDK module models, into words.
func (w caller) keyRefused(e *Error) *Error {
	var message, hint string
	switch e.Code {
	case "AuthException":
		message, hint = "access denied", "see who is asking with  aws sts get-caller-identity"+w.profileFlag()+"; it takes ec2-instance-connect:SendSSHPublicKey"
	case "InvalidArgsException":
		message, hint = "the service refuses the request", "check the user's name and the key's kind: RSA or ED25519"
	case "EC2InstanceNotFoundException":
		message, hint = "there is no such instance", "check its id, the region and the account"
	case "EC2InstanceStateInvalidException", "EC2InstanceUnavailableException":
		message, hint = "the instance does not run", "see its state with  aws ec2 describe-instances --instance-ids "+shellWord(e.Subject)+w.flags
	default:
		return e
	}
	// What the service adds stays behind it.
	e.Message = message + strings.TrimPrefix(e.Message, e.Code)
	if !w.isolated {
		e.Hint = hint
	}
	return e
}

// keyPush makes the call.
type keyPush struct{ options ssm.Options }

// endpoint says whom to ask. A region's host differs from SSM's by the service's
// name alone, in all partitions.
func (p keyPush) endpoint(ctx context.Context, isolated bool) (string, error) {
	if isolated {
		return *p.options.BaseEndpoint, nil
	}
	own := cmp.Or(os.Getenv("AWS_ENDPOINT_URL_EC2_INSTANCE_CONNECT"), os.Getenv("AWS_ENDPOINT_URL"))
	if own != "" && !strings.EqualFold(os.Getenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"), "true") {
		return own, nil
	}
	resolved, err := ssm.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, ssm.EndpointParameters{
		Region:       &p.options.Region,
		UseFIPS:      aws.Bool(p.options.EndpointOptions.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled),
		UseDualStack: aws.Bool(p.options.EndpointOptions.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled),
	})
	if err != nil {
		return "", fmt.Errorf("find the service's endpoint: %w", err)
	}
	host := strings.Replace(resolved.URI.Host, "ssm", connectService, 1)
	return "https://" + host, nil
}

// send makes the call as often as the SDK would.
func (p keyPush) send(ctx context.Context, endpoint string, body []byte) error {
	for attempt := 1; ; attempt++ {
		err := p.once(ctx, endpoint, body)
		if err == nil || attempt >= p.options.Retryer.MaxAttempts() || !p.options.Retryer.IsErrorRetryable(err) {
			return err
		}
		delay, delayErr := p.options.Retryer.RetryDelay(attempt, err)
		if delayErr != nil {
			return err
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return err
		}
	}
}

// once makes it once. Its errors are of the SDK's types, for explain.
func (p keyPush) once(ctx context.Context, endpoint string, body []byte) error {
	keys, err := p.options.Credentials.Retrieve(ctx)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(endpoint, "/")+"/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	request.Header.Set("X-Amz-Target", connectTarget)
	request.Header.Set("User-Agent", "ssmsession")
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, keys, request, hex.EncodeToString(sum[:]), connectService, p.options.Region, time.Now()); err != nil {
		return err
	}
	answer, err := p.options.HTTPClient.Do(request)
	if err != nil {
		return &smithyhttp.RequestSendError{Err: err}
	}
	defer func() { _ = answer.Body.Close() }() // it has been read
	return keyAnswer(answer)
}

// keyAnswer reads an answer.
func keyAnswer(answer *http.Response) error {
	response := &smithyhttp.Response{Response: answer}
	raw, err := io.ReadAll(&limitedBody{ReadCloser: answer.Body, left: maxAnswer})
	if err != nil {
		return &smithyhttp.ResponseError{Response: response, Err: err}
	}
	var told struct {
		Success bool
		Type    string `json:"__type"`
		Message string // or message: the decoder takes both
	}
	if err := json.Unmarshal(raw, &told); err != nil && answer.StatusCode == http.StatusOK {
		return &smithyhttp.ResponseError{Response: response, Err: &smithy.DeserializationError{Err: err}}
	}
	switch code := errorCode(cmp.Or(answer.Header.Get("X-Amzn-Errortype"), told.Type)); {
	case answer.StatusCode != http.StatusOK:
		return &smithyhttp.ResponseError{Response: response, Err: &smithy.GenericAPIError{Code: code, Message: told.Message}}
	case !told.Success:
		return &smithyhttp.ResponseError{Response: response, Err: &smithy.DeserializationError{Err: errors.New("the key was not accepted")}}
	}
	return nil
}

// errorCode takes off what may surround an error's name: a namespace and a
// documentation address (docs/protocol.md, error shapes).
func errorCode(s string) string {
	if _, name, found := strings.Cut(s, "#"); found {
		s = name
	}
	name, _, _ := strings.Cut(s, ":")
	return name
}
