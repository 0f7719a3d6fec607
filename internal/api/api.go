// Package api makes the calls to AWS that a session needs and nothing else. It
// opens no socket of its own, knows no terminal, and imports none of our other
// packages; it alone imports the AWS SDK.
//
// Every error that leaves it is an [*Error]: one sentence about what failed,
// one about what to do next. Tokens and keys are [Secret] values and appear in
// none of them.
package api

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// Client makes the calls. It is safe for concurrent use.
type Client struct {
	ssm    *ssm.Client
	kms    *kms.Client
	caller caller
}

// StartRequest says which session to start. Only Target is required.
type StartRequest struct {
	// Target is the node: an instance id, a managed node's id, or ecs:… for a
	// container. 1 to 400 characters.
	Target string
	// DocumentName is the session document's name or ARN. Empty: the account's
	// own shell preferences.
	DocumentName string
	// Reason is written into the session's history. One line, at most 256
	// characters.
	Reason string
	// Parameters are the document's: keys of 1 to 255 characters, values of 1
	// to 65535.
	Parameters map[string][]string
}

// Limits of StartSession's members (docs/protocol.md, control API).
const (
	maxTarget = 400
	maxReason = 256
	maxKey    = 255
	maxValue  = 65535
)

// abandonTime is what ending a session may take that began and cannot be used.
const abandonTime = 5 * time.Second

// Validate reports what the service would refuse of the request, as an error
// whose Usage is true. Start calls it; a command may call it before it looks
// for credentials.
func (r StartRequest) Validate() error {
	if r.Target == "" {
		return r.refuse("no target is given", "name a node, for example  ssmsession start --target i-0123456789abcdef0")
	}
	if p := checkText(r.Target, maxTarget); p != "" {
		// The target is left out of the sentence: it is what is wrong.
		return StartRequest{}.refuse("the target "+p, "")
	}
	if r.DocumentName != "" && !isDocumentName(r.DocumentName) {
		return r.refuse(fmt.Sprintf("%q is no document name", clean(r.DocumentName)),
			"a name has 3 to 128 letters, digits and _ - . : /")
	}
	if r.Reason != "" {
		if p := checkText(r.Reason, maxReason); p != "" {
			return r.refuse("the reason "+p, "")
		}
		// The service's pattern is ^.{1,256}$, and its dot matches no line end.
		if strings.ContainsAny(r.Reason, "\r\n") {
			return r.refuse("the reason has more than one line", "")
		}
	}
	for key, values := range r.Parameters {
		if p := checkText(key, maxKey); p != "" {
			return r.refuse("the name of a parameter "+p, "")
		}
		for _, v := range values {
			if p := checkText(v, maxValue); p != "" {
				return r.refuse(fmt.Sprintf("a value of parameter %q %s", clean(key), p), "")
			}
		}
	}
	return nil
}

func (r StartRequest) refuse(message, hint string) error {
	return &Error{Op: opStart, Subject: clean(r.Target), Code: CodeInvalidInput, Message: message, Hint: hint}
}

// isDocumentName reports whether the service's pattern for DocumentName
// matches. The pattern is compiled here and not once for the program: one call
// a session needs no package variable.
func isDocumentName(s string) bool {
	return regexp.MustCompile(`^[a-zA-Z0-9_\-.:/]{3,128}$`).MatchString(s)
}

// checkText says what is wrong with s, which must be UTF-8 of 1 to limit
// characters, or nothing.
func checkText(s string, limit int) string {
	switch n := utf8.RuneCountInString(s); {
	case n == 0:
		return "is empty"
	case !utf8.ValidString(s):
		return "is not valid UTF-8"
	case n > limit:
		return fmt.Sprintf("has %d characters, %d are allowed", n, limit)
	}
	return ""
}

// Start starts a session and returns its grant. An answer without one of the
// three members of a grant is an error that names it; a session it began all
// the same is ended first.
//
// The SDK repeats a call that failed on the network or by the service's fault
// (standard mode, three attempts in all), so that a lost answer can leave a
// session behind that nobody knows; the service ends it by its idle timeout.
func (c *Client) Start(ctx context.Context, r StartRequest) (Grant, error) {
	if err := r.Validate(); err != nil {
		return Grant{}, err
	}
	out, err := c.ssm.StartSession(ctx, &ssm.StartSessionInput{
		Target:       &r.Target,
		DocumentName: optional(r.DocumentName),
		Reason:       optional(r.Reason),
		Parameters:   r.Parameters,
	})
	call := call{op: opStart, subject: clean(r.Target), document: clean(r.DocumentName)}
	if err != nil {
		return Grant{}, c.caller.explain(ctx, call, err)
	}
	g := Grant{SessionID: text(out.SessionId), StreamURL: text(out.StreamUrl), Token: NewSecret(text(out.TokenValue))}
	if missing := g.missing(); missing != "" {
		return Grant{}, c.abandon(ctx, g, call.badAnswer("the service's answer has no "+missing))
	}
	return g, nil
}

// abandon ends the session of a grant that is of no use, if it names one, and
// returns e. It has time of its own: the call that began the session may have
// used up its caller's.
func (c *Client) abandon(ctx context.Context, g Grant, e *Error) *Error {
	if g.SessionID != "" {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
		defer cancel()
		if err := c.Terminate(ctx, g.SessionID); err != nil {
			e.err = err
			e.Hint = "the session is left behind: end it with  aws ssm terminate-session --session-id " +
				shellWord(g.SessionID) + c.caller.flags
		}
	}
	if c.caller.isolated {
		e.Hint = ""
	}
	return e
}

// missing returns the service's name of the first member the grant lacks.
func (g Grant) missing() string {
	switch {
	case g.SessionID == "":
		return "SessionId"
	case g.StreamURL == "":
		return "StreamUrl"
	case g.Token.Reveal() == "":
		return "TokenValue"
	}
	return ""
}

// ErrSessionOver is what Resume's error wraps when the session has ended: the
// service then answers without a token (docs/protocol.md, end of session).
var ErrSessionOver = errors.New("the session is over")

// Resume fetches a fresh token for a session that lost its data channel. The
// token is all that is asked of the answer: the address of Start is dialled
// again, so a missing StreamUrl harms nobody. The error's Permanent tells
// whether to try again.
func (c *Client) Resume(ctx context.Context, sessionID string) (Grant, error) {
	call := call{op: opResume, subject: clean(sessionID)}
	if sessionID == "" {
		return Grant{}, call.invalid("no session is named")
	}
	out, err := c.ssm.ResumeSession(ctx, &ssm.ResumeSessionInput{SessionId: &sessionID})
	if err != nil {
		return Grant{}, c.caller.explain(ctx, call, err)
	}
	token := text(out.TokenValue)
	if token == "" {
		return Grant{}, &Error{Op: call.op, Subject: call.subject, Code: CodeSessionOver, Message: ErrSessionOver.Error(), err: ErrSessionOver}
	}
	return Grant{SessionID: sessionID, StreamURL: text(out.StreamUrl), Token: NewSecret(token)}, nil
}

// Terminate ends a session. Ending one that has ended is no error, for the
// service models none.
func (c *Client) Terminate(ctx context.Context, sessionID string) error {
	call := call{op: opTerminate, subject: clean(sessionID)}
	if sessionID == "" {
		return call.invalid("no session is named")
	}
	if _, err := c.ssm.TerminateSession(ctx, &ssm.TerminateSessionInput{SessionId: &sessionID}); err != nil {
		return c.caller.explain(ctx, call, err)
	}
	return nil
}

// optional returns nil for the empty string: the service refuses members that
// are there and empty.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
