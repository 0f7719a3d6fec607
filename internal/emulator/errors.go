package emulator

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
)

// apiError is an error as the API answers it (docs/protocol.md, "Errors").
type apiError struct {
	status  int
	code    string
	member  string // the name of the message's member: AWS has both spellings
	message string // empty: an error without members
}

// Error is for the agent's user, who is told what KMS said.
func (e *apiError) Error() string { return e.code + ": " + e.message }

// LogValue implements slog.LogValuer. The message is left out: it quotes what the
// caller sent, which may be a command, or a token in the wrong place.
func (e *apiError) LogValue() slog.Value { return slog.StringValue(e.code) }

// body is the JSON object that is answered.
func (e *apiError) body() map[string]string {
	body := map[string]string{"__type": e.code}
	if e.message != "" {
		body[e.member] = e.message
	}
	return body
}

// asAPIError gives err as it is answered: what is not meant for callers becomes
// an InternalServerError.
func asAPIError(err error) *apiError {
	if e := (*apiError)(nil); errors.As(err, &e) {
		return e
	}
	return &apiError{http.StatusInternalServerError, "InternalServerError", "Message", "An error occurred on the server side."}
}

// modelled is an error of the SSM model, whose members begin with a capital.
func modelled(code, message string) *apiError {
	return &apiError{http.StatusBadRequest, code, "Message", message}
}

// common is an error that every service has. It is not modelled, and its member is
// in lower case.
func common(code, message string) *apiError {
	return &apiError{http.StatusBadRequest, code, "message", message}
}

// The errors without a value in their text. The texts are the service's as far as
// they are known; SDKs go by the code.
var (
	errMissingToken       = common("MissingAuthenticationTokenException", "Request is missing Authentication Token")
	errUnrecognizedClient = common("UnrecognizedClientException", "The security token included in the request is invalid.")
	errSerialization      = common("SerializationException", "The request body could not be read as JSON of the modelled shape.")
	errUnknownOperation   = common("UnknownOperationException", "")
	errTooLarge           = &apiError{http.StatusRequestEntityTooLarge, "RequestEntityTooLargeException", "message", "Request body is too large."}

	errInvalidNextToken = modelled("InvalidNextToken", "The specified token isn't valid.")
	errInvalidFilterKey = modelled("InvalidFilterKey", "")
)

// errIncompleteSignature says that a request cannot be checked.
func errIncompleteSignature(message string) *apiError {
	return common("IncompleteSignatureException", message)
}

// errInvalidSignature says that a request was checked, and not signed as it should.
func errInvalidSignature(message string) *apiError {
	return common("InvalidSignatureException", message)
}

// errInvalidDocument says that StartSession names a document that is not there.
func errInvalidDocument(name string) *apiError {
	return modelled("InvalidDocument", fmt.Sprintf("Document with name %s does not exist.", name))
}

// errNoSession says that a call names a session that is not there.
func errNoSession(id string) *apiError {
	return modelled("DoesNotExistException", fmt.Sprintf("Session %s does not exist.", id))
}

// errInvalidParameters says that the parameters do not fit the document. SSM does
// not model it for StartSession; it was seen with a value beside a pattern.
func errInvalidParameters(format string, args ...any) *apiError {
	return modelled("InvalidParameters", fmt.Sprintf(format, args...))
}

// denied tells whether an action or a document is to be refused (Config.Deny).
func (s *Server) denied(name string) bool { return slices.Contains(s.cfg.Deny, name) }

// accessDenied is what a caller without a permission gets, in IAM's words.
func (s *Server) accessDenied(action, resource string) *apiError {
	return modelled("AccessDeniedException", fmt.Sprintf(
		"User: %s is not authorized to perform: %s on resource: %s because no identity-based policy allows the %s action",
		s.callerARN(), action, resource, action))
}
