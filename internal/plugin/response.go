package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Response is what the service answered to StartSession, ResumeSession or
// ExecuteCommand: the grant of one session, made by somebody else. It opens the
// session once. Its token shows itself in no format, log or encoding but that of
// Document.
type Response struct {
	// SessionID names the session.
	SessionID string
	// StreamURL is the address of the data channel.
	StreamURL string
	// Target is the node, empty where whoever made the response did not tell:
	// the service does not, start --no-connect does.
	Target string

	// held gives what nobody may see. It is a function because fmt shows what is
	// in the fields of a struct that holds this one, whatever methods it has.
	held func() held
}

// held is what a Response keeps to itself.
type held struct {
	token   string
	members []member // of the document, in its order
}

func hold(token string, members []member) func() held {
	return func() held { return held{token, members} }
}

// member is a member of a JSON object as it was written.
type member struct {
	name  string
	value json.RawMessage
}

// The members of a response. ExecuteCommand begins them with a small letter and
// has them in an object of its own (docs/protocol.md, control API).
const (
	memberSessionID = "SessionId"
	memberToken     = "TokenValue"
	memberStreamURL = "StreamUrl"
	memberTarget    = "Target"
	memberSession   = "session"
)

// NewResponse makes the response that StartSession would give, and adds the target
// unless it is empty.
func NewResponse(sessionID, token, streamURL, target string) Response {
	var members []member
	for _, m := range []struct{ name, text string }{
		{memberSessionID, sessionID}, {memberToken, token}, {memberStreamURL, streamURL}, {memberTarget, target},
	} {
		if m.text == "" && m.name == memberTarget {
			continue
		}
		members = append(members, member{m.name, quote(m.text)})
	}
	return Response{SessionID: sessionID, StreamURL: streamURL, Target: target, held: hold(token, members)}
}

// quote writes s as JSON, with & < and > as they are, for people read it.
func quote(s string) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always can be, and a buffer takes all
	return bytes.TrimRight(b.Bytes(), "\n")
}

// ParseResponse reads a response as callers write it: members in any case and in
// any order, others beside them, the three in an object "session" or not; UTF-8,
// or UTF-16 in either order, with a byte order mark or without, as PowerShell
// pipes it. Of a member that comes twice the last one counts. Its errors quote
// nothing of the document, for it holds a token.
func ParseResponse(data []byte) (Response, error) {
	text, err := decodeText(data)
	if err != nil {
		return Response{}, fmt.Errorf("the response is %w", err)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return Response{}, errors.New("the response is empty")
	}
	members, err := parseObject(text)
	if err != nil {
		return Response{}, fmt.Errorf("the response is %w", err)
	}
	grant := members
	if nested, ok := find(members, memberSession); ok && !hasGrant(members) {
		if grant, err = parseObject(nested); err != nil {
			return Response{}, fmt.Errorf("the response's %s is %w", memberSession, err)
		}
	}
	var r Response
	var token string
	for _, want := range []struct {
		name string
		to   *string
	}{{memberSessionID, &r.SessionID}, {memberToken, &token}, {memberStreamURL, &r.StreamURL}} {
		if *want.to, err = stringMember(grant, want.name); err != nil {
			return Response{}, fmt.Errorf("the response's %w", err)
		}
		if *want.to == "" {
			return Response{}, fmt.Errorf("the response has no %s", want.name)
		}
	}
	if _, ok := find(members, memberTarget); ok {
		// Of another kind it is somebody else's member.
		r.Target, _ = stringMember(members, memberTarget)
	}
	r.held = hold(token, members)
	if r.SessionID == token {
		// A script of the VS Code toolkit gives the token in both places.
		id := sessionOf(r.StreamURL)
		if id == "" {
			return Response{}, errors.New("the response has its token for a SessionId")
		}
		r.SessionID = id
	}
	return r, nil
}

// hasGrant tells whether a member of a grant is here.
func hasGrant(members []member) bool {
	for _, name := range []string{memberSessionID, memberToken, memberStreamURL} {
		if _, ok := find(members, name); ok {
			return true
		}
	}
	return false
}

// sessionOf gives the session's id out of the address of its data channel, which
// ends in /data-channel/ and the id; empty where there is none.
func sessionOf(streamURL string) string {
	u, err := url.Parse(streamURL)
	if err != nil {
		return ""
	}
	_, id, _ := strings.Cut(u.Path, "/data-channel/")
	return id
}

// Token is the token. It is for the data channel and nothing else.
func (r Response) Token() string {
	if r.held == nil {
		return ""
	}
	return r.held().token
}

// Region is the region of the data channel's host, empty where it tells none, as
// on loopback. Hosts are ssmmessages.REGION.…, also -fips, and the private
// ENDPOINT.ssmmessages.REGION.vpce.….
func (r Response) Region() string {
	u, err := url.Parse(r.StreamURL)
	if err != nil {
		return ""
	}
	labels := strings.Split(u.Hostname(), ".")
	for i, label := range labels[:len(labels)-1] {
		if label == "ssmmessages" || label == "ssmmessages-fips" {
			return labels[i+1]
		}
	}
	return ""
}

// Document writes the response as JSON, with all the members that it was read
// with. It holds the token.
func (r Response) Document() ([]byte, error) {
	if r.held == nil {
		return nil, errors.New("there is no response to write")
	}
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range r.held().members {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(quote(m.name))
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	var doc bytes.Buffer
	if err := json.Indent(&doc, b.Bytes(), "", "  "); err != nil {
		return nil, fmt.Errorf("cannot write the response: %w", err)
	}
	doc.WriteByte('\n')
	return doc.Bytes(), nil
}

// String tells which session it is for.
func (r Response) String() string { return "response for session " + r.SessionID }

// Format writes String, whatever the verb: with some, fmt looks at the fields.
func (r Response) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, r.String()) // a fmt.State keeps its errors
}

// LogValue is String, for slog.
func (r Response) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MarshalJSON is String, for whatever encodes a struct that holds a response.
func (r Response) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// decodeText makes UTF-8 of what may be UTF-16. JSON begins with a character of
// ASCII, so that without a mark its zero byte tells the order.
func decodeText(data []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}):
		return fromUTF16(data[2:], 0, 1)
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return fromUTF16(data[2:], 1, 0)
	case len(data) >= 2 && data[0] != 0 && data[1] == 0:
		return fromUTF16(data, 0, 1)
	case len(data) >= 2 && data[0] == 0 && data[1] != 0:
		return fromUTF16(data, 1, 0)
	}
	data = bytes.TrimPrefix(data, []byte{0xef, 0xbb, 0xbf})
	if !utf8.Valid(data) {
		return nil, errors.New("neither UTF-8 nor UTF-16")
	}
	return data, nil
}

// fromUTF16 reads pairs of bytes, of which low and high are the places.
func fromUTF16(data []byte, low, high int) ([]byte, error) {
	if len(data)%2 != 0 {
		return nil, errors.New("UTF-16 with half a character at its end")
	}
	units := make([]uint16, 0, len(data)/2)
	for ; len(data) > 0; data = data[2:] {
		units = append(units, uint16(data[low])|uint16(data[high])<<8)
	}
	return []byte(string(utf16.Decode(units))), nil
}

// parseObject reads one JSON object. Its errors go on after "is", and quote
// nothing.
func parseObject(text []byte) ([]member, error) {
	if err := checkJSON(text); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("no JSON object")
	}
	members := []member{}
	for d.More() {
		name, err := d.Token()
		m := member{}
		if m.name, _ = name.(string); err == nil {
			err = d.Decode(&m.value)
		}
		if err != nil {
			return nil, errors.New("no JSON object")
		}
		members = append(members, m)
	}
	return members, nil
}

// checkJSON tells whether text is one JSON value, and where it is not. The
// decoder's own words quote the text.
func checkJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	var value json.RawMessage
	var syntax *json.SyntaxError
	switch err := d.Decode(&value); {
	case errors.As(err, &syntax):
		return fmt.Errorf("no JSON, from byte %d on", syntax.Offset)
	case err != nil:
		return errors.New("no JSON: it ends too soon")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("JSON with something after it")
	}
	return nil
}

// find gives the last member of that name, in any case, that is not null.
func find(members []member, name string) (json.RawMessage, bool) {
	for i := len(members) - 1; i >= 0; i-- {
		if strings.EqualFold(members[i].name, name) && !bytes.Equal(members[i].value, []byte("null")) {
			return members[i].value, true
		}
	}
	return nil, false
}

// stringMember gives a member's text, empty where there is none.
func stringMember(members []member, name string) (string, error) {
	value, ok := find(members, name)
	if !ok {
		return "", nil
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil {
		return "", fmt.Errorf("%s is no text", name) // its own words quote the value
	}
	return s, nil
}
