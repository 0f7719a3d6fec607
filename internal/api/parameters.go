package api

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ParseParameters reads a document's parameters as the AWS CLI's --parameters
// takes them: a JSON object whose values are strings or lists of strings, or
// the shorthand
//
//	key=v1,v2,other="x, y",third=[a,b]
//
// where a value is bare, quoted with ' or ", or a list in brackets; a backslash
// escapes the quote, itself, and in a bare value the comma. Values go on until
// the next key=; only the first bare value of a key may hold a "=" of its own.
// What the AWS CLI reads as strings and lists is read alike here, but for a
// doubled comma, which is refused; beyond it, bare values may hold brackets and
// begin with "=". An empty text means no parameters, a nil map.
//
// The time taken is linear in len(s). Errors are *Error with Usage; they name
// the place and not the text, which may be a password.
func ParseParameters(s string) (map[string][]string, error) {
	text := strings.TrimRightFunc(s, unicode.IsSpace)
	start := skipSpace(text, 0)
	var params map[string][]string
	var err error
	switch {
	case start == len(text):
		return nil, nil
	case !utf8.ValidString(text):
		err = fmt.Errorf("they are not valid UTF-8")
	case text[start] == '{' || text[start] == '[':
		params, err = parseJSON(text)
	default:
		params, err = (&shorthand{text: text, pos: start}).parameters()
	}
	if err != nil {
		return nil, &Error{
			Op: opParameters, Code: CodeInvalidInput, Message: err.Error(),
			Hint: `write them as  key=value1,value2  or as JSON  {"key":["value1","value2"]}`,
			err:  err,
		}
	}
	return params, nil
}

// parseJSON reads the object member by member, because a decoder that fills a
// map lets the second of two equal keys win without a word.
func parseJSON(text string) (map[string][]string, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	start, err := dec.Token()
	if err != nil || start != json.Delim('{') {
		return nil, fmt.Errorf("the JSON is not an object")
	}
	params := make(map[string][]string)
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, badJSON(dec)
		}
		key, ok := token.(string)
		if !ok {
			return nil, badJSON(dec)
		}
		if _, twice := params[key]; twice {
			return nil, fmt.Errorf("%q is given twice", clean(key))
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, badJSON(dec)
		}
		if params[key], ok = stringsOf(raw); !ok {
			return nil, fmt.Errorf("the value of %q is no string and no list of strings", clean(key))
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, badJSON(dec)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the JSON object at byte %d", dec.InputOffset()+1)
	}
	return params, nil
}

func badJSON(dec *json.Decoder) error {
	return fmt.Errorf("the JSON is broken near byte %d", dec.InputOffset()+1)
}

// stringsOf reads a string as a list of one, or a list of strings. The list is
// of pointers because null decodes into a string as if it were empty.
func stringsOf(raw json.RawMessage) ([]string, bool) {
	var one *string
	if json.Unmarshal(raw, &one) == nil && one != nil {
		return []string{*one}, true
	}
	var many []*string
	if json.Unmarshal(raw, &many) != nil || many == nil {
		return nil, false
	}
	list := make([]string, len(many))
	for i, p := range many {
		if p == nil {
			return nil, false
		}
		list[i] = *p
	}
	return list, true
}

// shorthand reads the AWS CLI's short form from left to right. It never goes
// back more than the key it has just seen, which keeps it linear.
type shorthand struct {
	text string
	pos  int
}

func (p *shorthand) parameters() (map[string][]string, error) {
	params := make(map[string][]string)
	for {
		key, ok := p.key()
		if !ok {
			return nil, p.expected("a name and =")
		}
		if _, twice := params[key]; twice {
			return nil, fmt.Errorf("%q is given twice", key)
		}
		values, err := p.values()
		if err != nil {
			return nil, err
		}
		params[key] = values
		if p.pos == len(p.text) {
			return params, nil
		}
	}
}

// key reads a name and its "=", or consumes nothing.
func (p *shorthand) key() (string, bool) {
	end := p.pos
	for end < len(p.text) && isKeyByte(p.text[end]) {
		end++
	}
	equals := skipSpace(p.text, end)
	if end == p.pos || equals == len(p.text) || p.text[equals] != '=' {
		return "", false
	}
	key := p.text[p.pos:end]
	p.pos = skipSpace(p.text, equals+1)
	return key, true
}

// isKeyByte reports whether c may stand in a name: the AWS CLI's set.
func isKeyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.#/:", c) >= 0
}

// values reads what belongs to a key, and the comma after it.
func (p *shorthand) values() ([]string, error) {
	switch p.peek() {
	case '[':
		return p.list()
	case '{':
		return nil, p.expected("a value or a list")
	}
	first, err := p.value("")
	if err != nil {
		return nil, err
	}
	values := []string{first}
	for {
		if more, err := p.comma(); !more {
			return values, err
		}
		if p.keyAhead() {
			return values, nil
		}
		start := p.pos
		next, err := p.value("=")
		if err != nil {
			return nil, err
		}
		if p.pos == start {
			return nil, p.expected(`a value or the next name and = (an empty value is "")`)
		}
		values = append(values, next)
	}
}

// keyAhead reports whether a key comes next, without reading it.
func (p *shorthand) keyAhead() bool {
	ahead := *p
	_, ok := ahead.key()
	return ok
}

// comma reads the comma that must follow a value unless the text ends. A comma
// at the very end is an error: something is missing behind it.
func (p *shorthand) comma() (more bool, err error) {
	p.space()
	if p.pos == len(p.text) {
		return false, nil
	}
	if p.peek() != ',' {
		return false, p.expected("a comma (a value with quotes or commas must be quoted as a whole)")
	}
	p.pos++
	p.space()
	if p.pos == len(p.text) {
		return false, p.expected("a value after the comma")
	}
	return true, nil
}

// list reads a list in brackets, and the comma after it.
func (p *shorthand) list() ([]string, error) {
	p.pos++
	p.space()
	values := []string{}
	for p.peek() != ']' {
		v, err := p.value("]")
		if err != nil {
			return nil, err
		}
		values = append(values, v)
		p.space()
		switch p.peek() {
		case ',':
			p.pos++
			p.space()
		case ']':
		default:
			return nil, p.expected("a comma or ]")
		}
	}
	p.pos++
	_, err := p.comma()
	return values, err
}

// value reads one value, quoted or bare. A bare one ends before a comma, a
// quote, or any byte of stop; it may be empty.
func (p *shorthand) value(stop string) (string, error) {
	if q := p.peek(); q == '\'' || q == '"' {
		return p.quoted(q)
	}
	start := p.pos
	for ; p.pos < len(p.text); p.pos++ {
		c := p.text[p.pos]
		if c == '\\' && strings.HasPrefix(p.text[p.pos+1:], ",") {
			p.pos++
			continue
		}
		if c == ',' || c == '\'' || c == '"' || strings.IndexByte(stop, c) >= 0 {
			break
		}
	}
	bare := strings.TrimRightFunc(p.text[start:p.pos], unicode.IsSpace)
	return strings.ReplaceAll(bare, `\,`, `,`), nil
}

// quoted reads a value in quotes q. A backslash before the quote or before
// itself escapes it, and is an ordinary character anywhere else. When no quote
// closes, the last escaped one does, so that 'C:\' is read as it looks; the AWS
// CLI does so too.
func (p *shorthand) quoted(q byte) (string, error) {
	start, last := p.pos+1, -1
	end := start
	for end < len(p.text) && p.text[end] != q {
		if p.text[end] == '\\' && end+1 < len(p.text) && (p.text[end+1] == q || p.text[end+1] == '\\') {
			end++
			if p.text[end] == q {
				last = end
			}
		}
		end++
	}
	if end == len(p.text) {
		if last < 0 {
			return "", fmt.Errorf("the quote at byte %d is not closed", p.pos+1)
		}
		end = last
	}
	p.pos = end + 1
	return strings.NewReplacer(`\\`, `\`, `\`+string(q), string(q)).Replace(p.text[start:end]), nil
}

// peek returns the next byte, or 0 at the end.
func (p *shorthand) peek() byte {
	if p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

func (p *shorthand) space() { p.pos = skipSpace(p.text, p.pos) }

func skipSpace(s string, i int) int {
	for i < len(s) && strings.IndexByte(" \t\n\r\v\f", s[i]) >= 0 {
		i++
	}
	return i
}

func (p *shorthand) expected(what string) error {
	return fmt.Errorf("expected %s at byte %d", what, p.pos+1)
}
