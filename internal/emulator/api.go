package emulator

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"

	"github.com/google/uuid"
)

const (
	// contentType is that of AWS JSON 1.1 (docs/protocol.md, "Control API").
	contentType = "application/x-amz-json-1.1"
	// bodyLimit is in bytes. A parameter of a session may have 65,535 of them.
	bodyLimit = 1 << 20
	// unsignedLimit is in bytes, for who need not sign: a token of 20,000 characters,
	// encoded.
	unsignedLimit = 64 << 10
)

// operation is one action of the API: the service that a request to it is signed
// for, and what it does with the body of a request.
type operation struct {
	service string
	call    func(c caller, body []byte) (any, error)
}

// caller is who makes a request, and the host by which it reached us. Who need not
// sign is nobody.
type caller struct {
	principal
	host string
}

// operations gives every action by its X-Amz-Target. Another service of this
// protocol is more lines here.
func (s *Server) operations() map[string]operation {
	return map[string]operation{
		"AmazonSSM.StartSession":                ssmOperation(s.startSession),
		"AmazonSSM.ResumeSession":               ssmOperation(s.resumeSession),
		"AmazonSSM.TerminateSession":            ssmOperation(s.terminateSession),
		"AmazonSSM.DescribeSessions":            ssmOperation(s.describeSessions),
		"AmazonSSM.GetConnectionStatus":         ssmOperation(s.connectionStatus),
		"AmazonSSM.DescribeInstanceInformation": ssmOperation(s.describeInstances),

		ecsPrefix + "ExecuteCommand": ecsOperation(s.executeCommand),
		ecsPrefix + "DescribeTasks":  ecsOperation(s.describeTasks),
		ecsPrefix + "ListTasks":      ecsOperation(s.listTasks),

		eicPrefix + "SendSSHPublicKey": typedOperation(eicService, s.sendSSHPublicKey),

		kmsPrefix + "GenerateDataKey": typedOperation(kmsService, s.generateDataKey),
		kmsPrefix + "Decrypt":         typedOperation(kmsService, s.decrypt),

		faultsTarget: ssmOperation(s.faultsAction),
	}
}

// input is the input of an action: a struct with a field for each modelled
// member, a pointer or slice where the member may be absent.
type input interface{ validate(v *validation) }

// ssmOperation makes an action of Systems Manager from its typed form: the body is
// decoded and validated before the call.
func ssmOperation[In any, P interface {
	*In
	input
}](call func(caller, P) (any, error)) operation {
	return typedOperation("ssm", call)
}

// typedOperation is ssmOperation for a service that answers what is wrong with an
// input in the same words.
func typedOperation[In any, P interface {
	*In
	input
}](service string, call func(caller, P) (any, error)) operation {
	return operation{service: service, call: func(c caller, body []byte) (any, error) {
		in := P(new(In))
		if err := decode(body, in); err != nil {
			return nil, err
		}
		var v validation
		in.validate(&v)
		if err := v.err(); err != nil {
			return nil, err
		}
		return call(c, in)
	}}
}

// decode reads a JSON object into the fields of in. Names of members count, upper
// and lower case too, as at the real service; unknown ones are ignored. A member is
// named as its field, or by the field's tag.
func decode(body []byte, in any) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return errSerialization
	}
	fields := reflect.ValueOf(in).Elem()
	for i := range fields.NumField() {
		field := fields.Type().Field(i)
		raw, ok := members[cmp.Or(field.Tag.Get("json"), field.Name)]
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, fields.Field(i).Addr().Interface()); err != nil {
			return errSerialization
		}
	}
	return nil
}

// serveAPI answers one call of the API. Of an error of the API only the code is
// logged.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	if isQuery(r) {
		s.serveQuery(w, r)
		return
	}
	target := r.Header.Get("X-Amz-Target")
	out, err := s.callAPI(w, r, target)
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("x-amzn-RequestId", uuid.NewString())
	status := http.StatusOK
	if err != nil {
		fault := asAPIError(err)
		s.log.Info("call refused", "target", target, "error", err)
		status, out = fault.status, fault.body()
	} else {
		s.log.Debug("call", "target", target)
	}
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(out); err != nil {
		s.log.Debug("answer not sent", "target", target, "error", err)
	}
}

// readBody reads the body of a request. That comes before its signature can be
// checked, which covers it: so it is read of those only who know a key's id, which is
// as good as a secret, and of others no more than a web identity takes.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	limit := int64(bodyLimit)
	switch _, _, err := s.identify(r); {
	case err == nil:
	case isQuery(r) && errors.Is(err, errMissingToken):
		limit = unsignedLimit
	default:
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, errSerialization
	}
	return body, nil
}

// callAPI goes the way of every call: who is it, may it, is it well-formed, do it.
func (s *Server) callAPI(w http.ResponseWriter, r *http.Request, target string) (any, error) {
	body, err := s.readBody(w, r)
	if err != nil {
		return nil, err
	}
	op, known := s.api[target]
	if !known {
		switch {
		case strings.HasPrefix(target, ecsPrefix):
			op.service = ecsService
		case strings.HasPrefix(target, eicPrefix):
			op.service = eicService
		case strings.HasPrefix(target, kmsPrefix):
			op.service = kmsService
		default:
			op.service = "ssm"
		}
	}
	who, err := s.authenticate(r, body, op.service)
	if err != nil {
		return nil, err
	}
	s.lobby.admit(r)
	if !known {
		return nil, errUnknownOperation
	}
	if target != faultsTarget {
		if err := s.callFault(who); err != nil {
			return nil, err
		}
	}
	_, action, _ := strings.Cut(target, ".")
	if s.denied(action) {
		refused := s.accessDenied(op.service+":"+action, "arn:aws:"+op.service+":"+s.cfg.Region+":"+s.cfg.AccountID+":*")
		if op.service == ecsService || op.service == kmsService {
			refused.member = "message"
		}
		return nil, refused
	}
	return op.call(caller{principal: who, host: r.Host}, body)
}
