package emulator

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"

	"github.com/google/uuid"
)

// Facts of STS's protocol, the AWS Query protocol (API reference of AWS Security
// Token Service, "Making Query requests").
const (
	stsVersion       = "2011-06-15"
	stsNamespace     = "https://sts.amazonaws.com/doc/" + stsVersion + "/"
	queryContentType = "application/x-www-form-urlencoded"
)

// isQuery tells whether a request is in the Query protocol.
func isQuery(r *http.Request) bool {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && mediaType == queryContentType
}

// queryOperation is one action of STS, from the members of its form to the element
// that is answered.
type queryOperation struct {
	unsigned bool
	call     func(c caller, form url.Values) (any, error)
}

// queryOperations gives every action of STS by its name.
func (s *Server) queryOperations() map[string]queryOperation {
	return map[string]queryOperation{
		"AssumeRole":                {call: s.assumeRole},
		"AssumeRoleWithWebIdentity": {call: s.assumeRoleWithWebIdentity, unsigned: true},
		"GetCallerIdentity":         {call: s.getCallerIdentity},
	}
}

// queryAnswer is what a call that went well gets. Result names its element itself.
type queryAnswer struct {
	XMLName   xml.Name
	Result    any
	RequestID string `xml:"ResponseMetadata>RequestId"`
}

// queryFault is what a call that did not gets.
type queryFault struct {
	XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

// serveQuery answers one call of STS. Of an error only the code is logged: the
// message may quote an MFA code.
func (s *Server) serveQuery(w http.ResponseWriter, r *http.Request) {
	action, result, err := s.callQuery(w, r)
	id := uuid.NewString()
	status, out := http.StatusOK, any(queryAnswer{xml.Name{Space: stsNamespace, Local: action + "Response"}, result, id})
	if err != nil {
		fault := inQueryWords(err)
		s.log.Info("call refused", "action", action, "code", fault.code)
		side := "Sender"
		if fault.status >= http.StatusInternalServerError {
			side = "Receiver"
		}
		status, out = fault.status, queryFault{Type: side, Code: fault.code, Message: fault.message, RequestID: id}
	} else {
		s.log.Debug("call", "action", action)
	}
	w.Header().Set("Content-Type", "text/xml")
	w.Header().Set("x-amzn-RequestId", id)
	w.WriteHeader(status)
	if err := xml.NewEncoder(w).Encode(out); err != nil {
		s.log.Debug("answer not sent", "action", action, "error", err)
	}
}

// callQuery goes the same way as callAPI.
func (s *Server) callQuery(w http.ResponseWriter, r *http.Request) (action string, result any, err error) {
	body, err := s.readBody(w, r)
	if err != nil {
		return "", nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return "", nil, common("MalformedQueryString", "The query string contains a syntax error.")
	}
	action = form.Get("Action")
	op, known := s.query[action]
	c := caller{host: r.Host}
	if !op.unsigned {
		if c.principal, err = s.authenticate(r, body, "sts"); err != nil {
			return action, nil, err
		}
		s.lobby.admit(r)
	}
	if err := s.callFault(c.principal); err != nil {
		return action, nil, err
	}
	if !known || form.Get("Version") != stsVersion {
		return action, nil, common("InvalidAction",
			fmt.Sprintf("Could not find operation %s for version %s", action, cmp.Or(form.Get("Version"), "NO_VERSION_SPECIFIED")))
	}
	if s.denied(action) {
		return action, nil, notAuthorized(c, action, cmp.Or(form.Get("RoleArn"), "*"))
	}
	result, err = op.call(c, form)
	return action, result, err
}

// inQueryWords gives an error by the code and status that services of the Query
// protocol have for it, where they differ from those of AWS JSON.
func inQueryWords(err error) *apiError {
	e := *asAPIError(err)
	switch {
	case errors.Is(err, errExpiredToken): // a web identity token's error keeps the same code
		e.status, e.code = http.StatusForbidden, "ExpiredToken"
	case e.code == "MissingAuthenticationTokenException":
		e.status, e.code = http.StatusForbidden, "MissingAuthenticationToken"
	case e.code == "UnrecognizedClientException":
		e.status, e.code = http.StatusForbidden, "InvalidClientTokenId"
	case e.code == "InvalidSignatureException":
		e.status, e.code = http.StatusForbidden, "SignatureDoesNotMatch"
	case e.code == "IncompleteSignatureException":
		e.code = "IncompleteSignature"
	case e.code == "ValidationException":
		e.code = "ValidationError"
	case e.code == "ThrottlingException":
		e.code = "Throttling"
	case e.code == "InternalServerError":
		e.code = "InternalFailure"
	}
	return &e
}

// stsAccessDenied is how STS refuses a caller that it knows.
func stsAccessDenied(message string) *apiError {
	return &apiError{status: http.StatusForbidden, code: "AccessDenied", message: message}
}

// notAuthorized is what a caller without a permission gets. Who has not signed has
// no name to be called by.
func notAuthorized(c caller, action, resource string) *apiError {
	if c.arn == "" {
		return stsAccessDenied("Not authorized to perform sts:" + action)
	}
	return stsAccessDenied(fmt.Sprintf("User: %s is not authorized to perform: sts:%s on resource: %s", c.arn, action, resource))
}
