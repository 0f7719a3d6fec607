package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Error is every error of this package: what was tried, what came of it, what
// to do next. It wraps the SDK's error where there is one.
type Error struct {
	Op      string // what was tried, as words that follow "cannot"
	Subject string // what it was tried on: a target or a session id; may be empty
	Code    string // the service's error code, or one of the Code constants
	Message string // one line, lower case, no full stop, no control characters
	Hint    string // one line that says what to do next; may be empty
	err     error
}

// Codes of the failures that the service has no code for.
const (
	CodeInvalidInput  = "InvalidInput"  // what the user typed, found before any call
	CodeNoTarget      = "NoTarget"      // an encrypted session whose target nobody told
	CodeNoRegion      = "NoRegion"      // no region in flags, environment or profile
	CodeNoProfile     = "NoProfile"     // a profile that no shared file has
	CodeBadConfig     = "BadConfig"     // shared files or settings the SDK cannot use
	CodeNoCredentials = "NoCredentials" // none found, or their source failed
	CodeSSOExpired    = "SSOExpired"    // the SSO login is over or was never made
	CodeLoginExpired  = "LoginExpired"  // the same of a login with "aws login"
	CodeNeedsMFA      = "NeedsMFA"      // a role needs an MFA code, and there is none
	CodeWrongMFA      = "WrongMFA"      // the MFA code given is not the device's
	CodeNetwork       = "Network"       // no connection to the service
	CodeTimeout       = "Timeout"       // no answer in time
	CodeCanceled      = "Canceled"      // the caller's context ended
	CodeBadAnswer     = "BadAnswer"     // an answer that is no answer of the service
	CodeSessionOver   = "SessionOver"   // no token left: see ErrSessionOver
	CodeUnknown       = "Unknown"       // what none of these describes
)

// The operations, as words that follow "cannot".
const (
	opStart      = "start session"
	opResume     = "resume session"
	opTerminate  = "end session"
	opSetup      = "set up AWS"
	opParameters = "read the parameters"
)

// Error returns one line, such as
// "cannot start session on i-0abc: target is not connected".
func (e *Error) Error() string {
	words := "cannot " + e.Op
	if e.Subject != "" {
		if e.Op == opStart {
			words += " on"
		}
		words += " " + e.Subject
	}
	return words + ": " + e.Message
}

// Unwrap returns the SDK's error, or nil.
func (e *Error) Unwrap() error { return e.err }

// Usage reports whether the user's own input is at fault, found before any
// call was made.
func (e *Error) Usage() bool { return e.Code == CodeInvalidInput }

// Permanent reports whether the same call would fail again for certain, so
// that a lost session is not worth another try. Throttling, a network that is
// away, a service that fails and credentials that have run out (see Expired)
// are not permanent: they come back, or the user brings them back, while the
// session waits.
func (e *Error) Permanent() bool {
	switch e.Code {
	case "AccessDeniedException", "AccessDenied", "ForbiddenException", "OptInRequired",
		"DoesNotExistException", "InvalidDocument", "ValidationException", "ValidationError",
		CodeInvalidInput, CodeNoRegion, CodeNoProfile, CodeBadConfig, CodeCanceled, CodeSessionOver:
		return true
	}
	return false
}

// Expired reports whether the credentials were good and are no longer: the
// hint says how to renew them, and then the same call succeeds.
func (e *Error) Expired() bool {
	switch e.Code {
	case "ExpiredTokenException", "ExpiredToken", "RequestExpired", CodeSSOExpired, CodeLoginExpired:
		return true
	}
	return false
}

// call is what an error needs to know of the call that failed.
type call struct {
	op, subject, document string
}

func (c call) fail(code, message, hint string, err error) *Error {
	return &Error{Op: c.op, Subject: c.subject, Code: code, Message: message, Hint: hint, err: err}
}

func (c call) invalid(message string) *Error { return c.fail(CodeInvalidInput, message, "", nil) }

func (c call) badAnswer(message string) *Error {
	return c.fail(CodeBadAnswer, message, "try again, and check the endpoint", nil)
}

// caller is what hints need to know of who calls.
type caller struct {
	isolated bool   // the built-in emulator: no command of the AWS CLI reaches it
	region   string // as resolved
	profile  string // as resolved; empty or "default" needs no naming
	root     string // the profile at the end of profile's chain of source_profile
	flags    string // the flags a suggested command must repeat
	vault    string // aws-vault's profile, if we run under it

	proxy func(*http.Request) (*url.URL, error) // Config's

	// sources say where the credentials come from. The SDK has no error type
	// for "none found", and for an expired SSO login only in its older kind.
	sources []aws.CredentialSource
}

// explain turns an error of the SDK into ours. It goes from the most certain
// to the least: the caller's own context, the search for credentials, the
// service's answer, the network. Types decide, never texts.
func (w caller) explain(ctx context.Context, c call, err error) *Error {
	var noKeys *credentialError
	var answer smithy.APIError
	var garbled *smithy.DeserializationError
	var e *Error
	switch {
	case ctx.Err() != nil:
		e = ended(ctx, c, err)
	case errors.As(err, &noKeys):
		e = w.credentials(c, noKeys)
	case errors.As(err, &answer):
		e = w.answered(c, answer, err)
	case errors.As(err, &garbled):
		e = notTheService(c, err)
	default:
		e = w.network(c, err)
	}
	if w.isolated {
		e.Hint = ""
	}
	return e
}

// ended explains a call that the caller's context cut short, keeping the cause
// for errors.Is.
func ended(ctx context.Context, c call, err error) *Error {
	cause := context.Cause(ctx)
	both := fmt.Errorf("%w: %w", cause, err)
	if errors.Is(cause, context.DeadlineExceeded) {
		return c.fail(CodeTimeout, "no answer in time", "check the network, the region and the endpoint", both)
	}
	return c.fail(CodeCanceled, clean(cause.Error()), "", both)
}

// answered explains an error that the service sent: the ones it models, the
// common ones it does not (docs/protocol.md, error shapes), and any other by
// its own code and words.
func (w caller) answered(c call, answer smithy.APIError, err error) *Error {
	code, detail := clean(answer.ErrorCode()), clean(answer.ErrorMessage())
	// The SDK's word for a member that is not there.
	const unknown = "UnknownError"
	if detail == unknown {
		detail = ""
	}
	fail := func(message, hint string) *Error { return c.fail(code, message, hint, err) }
	switch code {
	case "TargetNotConnected":
		return fail("target is not connected", w.nodeHint(c.subject))
	case "InvalidDocument":
		return fail(with(documentWords(c.document), detail),
			"list the session documents with  aws ssm list-documents --filters Key=DocumentType,Values=Session"+w.flags)
	case "DoesNotExistException":
		return fail("there is no such session", "list yours with  aws ssm describe-sessions --state Active"+w.flags)
	case "ValidationException":
		return fail(with("the service refuses the request", detail), w.requestHint(c))
	case "InvalidParameters":
		return fail(with(code, detail), w.requestHint(c))
	case unknown, "":
		return notTheService(c, err)
	}
	if e := w.refusedCaller(fail, code, detail); e != nil {
		return e
	}
	if _, throttled := retry.DefaultThrottleErrorCodes[code]; throttled {
		return fail("too many requests", "wait a moment and try again")
	}
	switch {
	case code == "InternalServerError":
		return fail(with("the service failed", detail), "try again in a moment")
	case httpStatus(err) >= 500, code == "ServiceUnavailable", code == "InternalFailure":
		return fail(with("the service failed: "+code, detail), "try again in a moment")
	}
	return fail(with(code, detail), "look the code up in the AWS documentation; --debug tells more of the call")
}

// refusedCaller explains an error that is about who asks, or returns nil.
func (w caller) refusedCaller(fail func(message, hint string) *Error, code, detail string) *Error {
	switch code {
	case "AccessDeniedException", "AccessDenied":
		return fail(with("access denied", detail), "see who is asking with  aws sts get-caller-identity"+w.profileFlag())
	case "ExpiredTokenException", "ExpiredToken":
		return fail("the credentials have expired", w.renew())
	case "RequestExpired":
		// The service says it of credentials and of a request dated wrongly.
		return fail("the request or its credentials have expired", "check this machine's clock; then "+w.renew())
	case "UnrecognizedClientException", "InvalidClientTokenId":
		return fail("the service does not know the access key",
			"see which one is used with  aws configure list"+w.profileFlag()+"  (a region that is not enabled says the same)")
	case "InvalidSignatureException", "SignatureDoesNotMatch":
		return fail(with("the signature does not match", detail), "check the secret key, and this machine's clock")
	case "RequestTimeTooSkewed", "RequestInTheFuture":
		return fail("this machine's clock is wrong", "set the clock, to the minute at least")
	case "OptInRequired":
		return fail(with("the account may not use the service", detail),
			"check that the account is active and has the region enabled, with  aws account list-regions"+w.profileFlag())
	}
	return nil
}

// requestHint says how to look at what the service found invalid.
func (w caller) requestHint(c call) string {
	switch {
	case c.op != opStart:
		return "check the session's id; list yours with  aws ssm describe-sessions --state Active" + w.flags
	case c.document != "":
		return "see the document's parameters with  aws ssm describe-document --name " + shellWord(c.document) + w.flags
	}
	return "check the target's name and the parameters"
}

// notTheService explains an answer that is none of the API's. Its own words
// are left out: they may quote the answer, and the answer may hold a token.
func notTheService(c call, err error) *Error {
	return c.fail(CodeBadAnswer, "the answer is not the service's"+status(err),
		"check the endpoint, and whether a proxy or a login page is in the way", err)
}

// nodeHint says how to look at a target that is not connected. The service
// says the same of a node that does not exist and of one in another region.
func (w caller) nodeHint(target string) string {
	if strings.HasPrefix(target, "ecs:") {
		return "check that the task runs and was started with  --enable-execute-command"
	}
	return "check the agent with  aws ssm describe-instance-information --filters Key=InstanceIds,Values=" +
		shellWord(target) + w.flags
}

func documentWords(name string) string {
	if name == "" {
		return "the account's session document cannot be used"
	}
	return "document " + name + " cannot be used"
}

// network explains a call that got no answer.
func (w caller) network(c call, err error) *Error {
	host := hostOf(err)
	fail := func(code, message, hint string) *Error { return c.fail(code, message, hint, err) }
	var noName *net.DNSError
	var timeout net.Error
	var cert *tls.CertificateVerificationError
	var proxy *proxyError
	switch {
	case errors.As(err, &proxy):
		return fail(CodeNetwork, proxy.Error(), proxy.hint())
	case proxyAway(err) != nil:
		return fail(CodeNetwork, "cannot reach the proxy: "+clean(proxyAway(err).Error()), "check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY")
	case errors.As(err, &noName) && noName.IsNotFound:
		hint := "check the network and the endpoint"
		if w.region != "" && strings.Contains(noName.Name, w.region) {
			hint = "check the network, and that " + w.region + " is a region, with  aws ec2 describe-regions"
		}
		return fail(CodeNetwork, "no such host: "+clean(noName.Name), hint)
	case errors.As(err, &noName):
		return fail(CodeNetwork, "cannot resolve "+clean(noName.Name), "check the network")
	case refused(err):
		return fail(CodeNetwork, "connection to "+host+" refused", "check the endpoint and the proxy settings")
	case errors.As(err, &cert):
		return fail(CodeNetwork, "the certificate of "+host+" is not trusted: "+clean(cert.Err.Error()), CertificateHint(cert))
	case errors.As(err, &timeout) && timeout.Timeout():
		return fail(CodeTimeout, "no answer from "+host+" in time", "check the network and the proxy settings")
	case unreachable(err):
		way, hint := w.through(host), "check the network and the proxy settings"
		if way != "" {
			hint = "check the proxy, and the user name and password in its variable, if it wants them"
		}
		return fail(CodeNetwork, "cannot reach "+host+way+": "+clean(rootCause(err).Error()), hint)
	}
	return fail(CodeUnknown, clean(withoutOperation(err).Error()), "--debug tells more of the call")
}

// CertificateHint says what to do about a certificate that is not trusted, of
// whatever connection.
func CertificateHint(err *tls.CertificateVerificationError) string {
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "check this machine's clock; if it is right, whoever runs the server has to renew its certificate"
	case errors.As(err, &host):
		return "somebody else answers there: check the endpoint and the proxy settings"
	}
	return "if a proxy or an endpoint of your own signs it, name its CA file with --ca-bundle or in AWS_CA_BUNDLE"
}

// through names the proxy by which a host is reached, if there is one.
func (w caller) through(host string) string {
	if w.proxy == nil {
		return ""
	}
	// An endpoint of plain http is one of a test or a tunnel: few have a proxy.
	u, err := w.proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: host}})
	if err != nil || u == nil {
		return ""
	}
	return " through the proxy " + clean(u.Host)
}

// unreachable reports whether err comes of sending a request rather than of an
// answer.
func unreachable(err error) bool {
	var sending *smithyhttp.RequestSendError
	return errors.As(err, &sending)
}

// refused reports whether nobody listened. Windows has a number of its own for
// it, which package syscall does not name.
func refused(err error) bool {
	const wsaECONNREFUSED = syscall.Errno(10061)
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, wsaECONNREFUSED)
}

// hostOf returns the host and port a failed request went to, or words for it.
func hostOf(err error) string {
	var sent *url.Error
	if errors.As(err, &sent) {
		if u, perr := url.Parse(sent.URL); perr == nil && u.Host != "" {
			return clean(u.Host)
		}
	}
	return "the service"
}

// rootCause follows the chain of single wraps to its end, where the network's
// own words are.
func rootCause(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}

// withoutOperation takes the SDK's prefix off: our sentence says it already.
func withoutOperation(err error) error {
	var op *smithy.OperationError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// status returns the HTTP status of a failed answer in brackets, or nothing.
func status(err error) string {
	if code := httpStatus(err); code != 0 {
		return fmt.Sprintf(" (HTTP %d)", code)
	}
	return ""
}

// httpStatus returns the HTTP status of a failed answer, or 0.
func httpStatus(err error) int {
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil {
		return answer.HTTPStatusCode()
	}
	return 0
}

// proxyError is a proxy's refusal to connect us to the service.
type proxyError struct {
	host   string // never with the user name and password of its URL
	status int
}

// Error returns one line that names the proxy.
func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy %s refused to connect: %d %s", clean(e.host), e.status, http.StatusText(e.status))
}

func (e *proxyError) hint() string {
	if e.status == http.StatusProxyAuthRequired {
		return "give the proxy's user name and password in its variable, as in  HTTPS_PROXY=http://user:password@host:port"
	}
	return "check that the proxy lets the service through, or name the service's host in NO_PROXY"
}

// proxyAnswered is the http.Transport's OnProxyConnectResponse: left alone,
// the transport drops which proxy it was.
func proxyAnswered(_ context.Context, proxy *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode != http.StatusOK {
		return &proxyError{host: proxy.Host, status: answer.StatusCode}
	}
	return nil
}

// proxyAway returns why a proxy could not be reached, or nil: the address of
// the request is the service's all the same.
func proxyAway(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "proxyconnect" {
		return op.Err
	}
	return nil
}

// with joins our words and the service's.
func with(words, detail string) string {
	if detail == "" {
		return words
	}
	return words + ": " + detail
}

// clean makes foreign text fit for one line of a terminal: white space becomes
// single blanks, what does not print is dropped (an answer must not move the
// cursor), the full stop goes, and the length is bounded. What a URL has before an @
// may be a password: url.Parse and the SDK quote an endpoint that they cannot read.
func clean(s string) string {
	const limit = 1000 // runes; an access denied with its ARNs has about 400
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	s = strings.TrimSuffix(strings.Join(strings.Fields(s), " "), ".")
	s = regexp.MustCompile(`://.*@`).ReplaceAllString(s, "://"+placeholder+"@")
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit]) + "…"
	}
	return s
}

// shellWord quotes s for a POSIX shell where it needs it, so that a suggested
// command can be pasted.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=@%+,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(clean(s), "'", `'\''`) + "'"
}
