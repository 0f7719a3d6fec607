package plugin

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// ResponseVariable begins the name of the variable that holds the response, for
// callers that keep the token out of the arguments.
const ResponseVariable = "AWS_SSM_START_SESSION_RESPONSE"

// Action is what a caller wants.
type Action int

// The actions.
const (
	Installed        Action = iota // no arguments: is the plugin there?
	Version                        // --version
	UnknownOperation               // a first argument that is nothing to us
	InvalidOperation               // all the arguments of a session, for no StartSession
	Session                        // hold the session of Response
)

// Invocation is what the arguments of session-manager-plugin ask for
// (docs/protocol.md, invocation of the plugin).
type Invocation struct {
	Action Action
	// Word is the first argument of an UnknownOperation.
	Word string

	// Response is the session. What follows is of a Session, and each may be
	// empty: callers leave the last arguments out.
	Response Response
	Region   string
	Profile  string
	// Target and DocumentName are of the request that Response answers.
	Target       string
	DocumentName string
	// Endpoint is that of Systems Manager, empty for the region's own.
	Endpoint string
}

// The places of the arguments, after the program's name.
const (
	argResponse = iota
	argRegion
	argOperation
	argProfile
	argRequest
	argEndpoint
)

// Parse reads the arguments after the program's name. take gives a variable's
// value and removes it from the environment, so that nothing started later
// inherits the token; a response in the arguments is used as well. Errors say
// what is wrong with the response or the request and quote neither.
func Parse(args []string, take func(name string) (value string, ok bool)) (Invocation, error) {
	switch {
	case len(args) == 0:
		return Invocation{Action: Installed}, nil
	case len(args) == 1 && args[0] == "--version":
		return Invocation{Action: Version}, nil
	case len(args) <= argOperation:
		return Invocation{Action: UnknownOperation, Word: args[0]}, nil
	}
	arg := func(i int) string {
		if i >= len(args) {
			return ""
		}
		return args[i]
	}
	document := arg(argResponse)
	if strings.HasPrefix(document, ResponseVariable) {
		value, ok := take(document)
		if !ok {
			return Invocation{}, fmt.Errorf("the variable %s is not set", ResponseVariable)
		}
		document = value
	}
	if arg(argOperation) != "StartSession" {
		return Invocation{Action: InvalidOperation}, nil
	}
	v := Invocation{
		Action:  Session,
		Region:  arg(argRegion),
		Profile: arg(argProfile),
	}
	var err error
	if v.Response, err = ParseResponse([]byte(document)); err != nil {
		return Invocation{}, err
	}
	if err := v.parseRequest(arg(argRequest)); err != nil {
		return Invocation{}, err
	}
	v.Endpoint, err = endpoint(arg(argEndpoint))
	return v, err
}

// parseRequest reads the parameters of the StartSession that was called, as far as
// they matter. AWS's client panics where there is no Target; a session works
// without.
func (v *Invocation) parseRequest(s string) error {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	members, err := parseObject([]byte(s))
	if err != nil {
		return fmt.Errorf("the request is %w", err)
	}
	if v.Target, err = stringMember(members, "Target"); err == nil {
		v.DocumentName, err = stringMember(members, "DocumentName")
	}
	if err != nil {
		return fmt.Errorf("the request's %w", err)
	}
	return nil
}

// endpoint gives the endpoint of Systems Manager that a caller means. The AWS CLI
// names that of ECS for a session that ECS began, where ResumeSession is unknown;
// other callers put the address of the data channel there.
func endpoint(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return "", errors.New("the endpoint is no URL")
	}
	if u.Scheme == "ws" || u.Scheme == "wss" {
		return "", nil
	}
	labels := strings.Split(u.Host, ".")
	switch first := labels[0]; {
	case !isAWS(u.Hostname()):
		return s, nil // an emulator is both
	case first == "ecs", first == "ecs-fips":
		labels[0] = "ssm" + strings.TrimPrefix(first, "ecs")
		u.Host = strings.Join(labels, ".")
		return u.String(), nil
	case len(labels) > 1 && labels[1] == "ecs":
		return "", nil // a private endpoint of ECS, which has no other name for SSM
	}
	return s, nil
}

// isAWS tells whether a host is one of AWS's own, in any partition.
func isAWS(host string) bool {
	for _, domain := range []string{".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn"} {
		if strings.HasSuffix(host, domain) {
			return true
		}
	}
	return false
}
