package emulator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// faultsTarget is an action that no AWS service has: it tells and sets faults. No
// fault happens to itself.
const faultsTarget = "SSMSessionEmulator.Faults"

// remoteTimeout is for a call of that action.
const remoteTimeout = 10 * time.Second

// faultsInput is its input: the faults to be set instead of those that are. Without
// any member, they stay.
type faultsInput struct{ Faults *[]string }

// validate implements input. The faults are checked when they are read.
func (in *faultsInput) validate(*validation) {}

// faultsOutput is its output: the faults that are set.
type faultsOutput struct {
	Faults []string
	Seed   uint64
}

// faultsAction is the action.
func (s *Server) faultsAction(_ caller, in *faultsInput) (any, error) {
	if in.Faults != nil {
		faults, err := ParseFaults(*in.Faults...)
		if err == nil {
			err = s.SetFaults(faults...)
		}
		if err != nil {
			return nil, common("ValidationException", err.Error())
		}
	}
	out := faultsOutput{Faults: []string{}, Seed: s.FaultSeed()}
	for _, f := range s.faults.get().all() {
		out.Faults = append(out.Faults, f.String())
	}
	return out, nil
}

// Remote is an emulator that another process runs.
type Remote struct {
	url, region, caFile string
	key                 aws.Credentials // secret
}

// NewRemote finds an emulator by its environment (Server.Environment), of which
// getenv gives the variables. The error names one that is missing.
func NewRemote(getenv func(string) string) (*Remote, error) {
	r := &Remote{caFile: getenv("AWS_CA_BUNDLE")}
	for name, value := range map[string]*string{
		"AWS_ENDPOINT_URL":      &r.url,
		"AWS_REGION":            &r.region,
		"AWS_ACCESS_KEY_ID":     &r.key.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY": &r.key.SecretAccessKey,
	} {
		if *value = getenv(name); *value == "" {
			return nil, fmt.Errorf("%s is not set: read the emulator's environment first, as its --env-file has it", name)
		}
	}
	return r, nil
}

// Faults tells the faults that are set, and their seed.
func (r *Remote) Faults(ctx context.Context) (faults []Fault, seed uint64, err error) {
	return r.call(ctx, faultsInput{})
}

// SetFaults replaces the faults, as Server.SetFaults does.
func (r *Remote) SetFaults(ctx context.Context, faults ...Fault) error {
	specs := []string{}
	for _, f := range faults {
		specs = append(specs, f.String())
	}
	_, _, err := r.call(ctx, faultsInput{&specs})
	return err
}

// call calls the action. Nothing but the emulator is asked: no proxy, no other
// address that an answer might name.
func (r *Remote) call(ctx context.Context, in faultsInput) (faults []Fault, seed uint64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("ask the emulator: %w", err)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	request, err := r.newRequest(ctx, in)
	if err != nil {
		return nil, 0, err
	}
	trusted, err := r.trusted()
	if err != nil {
		return nil, 0, err
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: trusted},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, 0, err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, bodyLimit))
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return nil, 0, fmt.Errorf("read the answer: %w", err)
	}
	return readFaults(response.StatusCode, body)
}

// readFaults reads the answer to a call. Of whom is asked only the address is known,
// so what is not a fault is an error.
func readFaults(status int, body []byte) (faults []Fault, seed uint64, err error) {
	var out struct {
		faultsOutput
		Code    string `json:"__type"`
		Message string
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return nil, 0, fmt.Errorf("the answer has status %d and is not an emulator's", status)
	}
	if status != http.StatusOK {
		return nil, 0, fmt.Errorf("%s: %s", out.Code, out.Message)
	}
	if faults, err = ParseFaults(out.Faults...); err != nil {
		return nil, 0, fmt.Errorf("the answer is not an emulator's: %w", err)
	}
	return faults, out.Seed, nil
}

// newRequest makes a signed request.
func (r *Remote) newRequest(ctx context.Context, in faultsInput) (*http.Request, error) {
	members := map[string]any{}
	if in.Faults != nil {
		members["Faults"] = *in.Faults
	}
	body, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("AWS_ENDPOINT_URL is no URL") // err quotes it, and it may hold a password
	}
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("X-Amz-Target", faultsTarget)
	hash := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(ctx, r.key, request, hex.EncodeToString(hash[:]), "ssm", r.region, time.Now())
	return request, err
}

// trusted is whom to trust besides the system's authorities.
func (r *Remote) trusted() (*tls.Config, error) {
	if r.caFile == "" {
		return nil, nil //nolint:nilnil // the zero configuration
	}
	pem, err := os.ReadFile(r.caFile)
	if err != nil {
		return nil, fmt.Errorf("read AWS_CA_BUNDLE: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("AWS_CA_BUNDLE: %s has no certificate", r.caFile)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}
