package emulator

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// timestamp is a time as AWS JSON has it: seconds since 1970, with a fraction.
type timestamp time.Time

// MarshalJSON implements json.Marshaler.
func (t timestamp) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Time(t).UnixMilli())/1000, 'f', 3, 64), nil
}

// paginate cuts out the page that a token asks for. Ranks ascend from item to
// item; the token is the rank of the last one seen, so that items that come or go
// in between shift nothing.
func paginate[T any](items []T, rank func(T) int, most int, token *string) (page []T, next string, err error) {
	if token != nil && *token != "" {
		raw, err := base64.URLEncoding.DecodeString(*token)
		if err != nil {
			return nil, "", errInvalidNextToken
		}
		last, err := strconv.Atoi(string(raw))
		if err != nil {
			return nil, "", errInvalidNextToken
		}
		items = slices.DeleteFunc(items, func(item T) bool { return rank(item) <= last })
	}
	if len(items) <= most {
		return items, "", nil
	}
	last := strconv.Itoa(rank(items[most-1]))
	return items[:most], base64.URLEncoding.EncodeToString([]byte(last)), nil
}

// orDefault gives an optional number.
func orDefault(n *int, otherwise int) int {
	if n == nil {
		return otherwise
	}
	return *n
}

// sessionFilter is one filter of DescribeSessions. All of them must hold.
type sessionFilter struct {
	Key   *string `json:"key"`
	Value *string `json:"value"`
}

// UnmarshalJSON has the names of members count here, too.
func (f *sessionFilter) UnmarshalJSON(data []byte) error { return decode(data, f) }

// describeSessionsInput is the input of DescribeSessions.
type describeSessionsInput struct {
	State      *string
	MaxResults *int
	NextToken  *string
	Filters    []sessionFilter
}

// validate implements input.
func (in *describeSessionsInput) validate(v *validation) {
	if v.required("state", in.State != nil) {
		v.oneOf("state", *in.State, "Active", "History")
	}
	v.number("maxResults", in.MaxResults, 1, 200)
	if in.Filters != nil {
		v.count("filters", len(in.Filters), 1, 6)
	}
	for i, f := range in.Filters {
		at := fmt.Sprintf("filters.%d.member.", i+1)
		if v.required(at+"key", f.Key != nil) {
			v.oneOf(at+"key", *f.Key, "InvokedAfter", "InvokedBefore", "Target", "Owner", "Status", "SessionId", "AccessType")
		}
		if !v.required(at+"value", f.Value != nil) {
			continue
		}
		v.length(at+"value", *f.Value, 1, 400)
		if f.Key != nil && strings.HasPrefix(*f.Key, "Invoked") {
			v.timestamp(at+"value", *f.Value)
		}
	}
}

// sessionInformation is one element of DescribeSessions' answer.
type sessionInformation struct {
	SessionID          string `json:"SessionId"`
	Target             string
	Status             sessionStatus
	StartDate          timestamp
	EndDate            *timestamp `json:",omitempty"`
	DocumentName       string
	Owner              string
	Reason             string   `json:",omitempty"`
	OutputURL          struct{} `json:"OutputUrl"`
	MaxSessionDuration string   `json:",omitempty"` // minutes
	AccessType         string

	number int // its place among all sessions; not a member
}

// isOver tells whether the session has ended.
func (s *session) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status.over()
}

// information tells of a session what the API tells. A maximum duration that is
// not in whole minutes is rounded up, as the member has nothing finer.
func (s *session) information() sessionInformation {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := sessionInformation{
		SessionID:    s.id,
		Target:       s.target,
		Status:       s.status,
		StartDate:    timestamp(s.started),
		DocumentName: s.documentName,
		Owner:        s.owner,
		Reason:       s.reason,
		AccessType:   "Standard",
		number:       s.number,
	}
	if s.status.over() {
		end := timestamp(s.ended)
		info.EndDate = &end
	}
	if d := s.limits.maximum; d > 0 {
		info.MaxSessionDuration = strconv.Itoa(int((d + time.Minute - 1) / time.Minute))
	}
	return info
}

// describeSessions is DescribeSessions, newest first. Active are all sessions that
// are not over, those that wait for their first client included.
func (s *Server) describeSessions(_ caller, in *describeSessionsInput) (any, error) {
	found := []sessionInformation{}
	for _, one := range s.sessions.all() {
		info := one.information()
		if info.Status.over() != (*in.State == "History") {
			continue
		}
		if info.matches(in.Filters) {
			found = append(found, info)
		}
	}
	newestFirst := func(i sessionInformation) int { return -i.number }
	page, next, err := paginate(found, newestFirst, orDefault(in.MaxResults, 200), in.NextToken)
	if err != nil {
		return nil, err
	}
	return struct {
		Sessions  []sessionInformation
		NextToken string `json:",omitempty"`
	}{page, next}, nil
}

// matches tells whether a session passes all filters, which are valid.
func (i *sessionInformation) matches(filters []sessionFilter) bool {
	has := map[string]string{
		"Target": i.Target, "Owner": i.Owner, "Status": string(i.Status),
		"SessionId": i.SessionID, "AccessType": i.AccessType,
	}
	for _, f := range filters {
		ok := has[*f.Key] == *f.Value
		if strings.HasPrefix(*f.Key, "Invoked") {
			at, err := time.Parse(time.RFC3339, *f.Value)
			ok = err == nil && time.Time(i.StartDate).After(at) == (*f.Key == "InvokedAfter")
		}
		if !ok {
			return false
		}
	}
	return true
}
