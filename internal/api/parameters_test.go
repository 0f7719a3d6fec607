package api

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

type params = map[string][]string

func TestParametersInShorthand(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       params
	}{
		{"nothing", "", nil},
		{"blanks", " \n", nil},
		{"one value", "portNumber=80", params{"portNumber": {"80"}}},
		{"a list", "a=1,2,3", params{"a": {"1", "2", "3"}}},
		{"several keys", "a=1,b=2,3", params{"a": {"1"}, "b": {"2", "3"}}},
		{"values go on until the next key", "a=1,b=2,3,c=4", params{"a": {"1"}, "b": {"2", "3"}, "c": {"4"}}},
		{"blanks around commas and equals", "a = b , c ,d= e ", params{"a": {"b", "c"}, "d": {"e"}}},
		{"blanks around it all", "  a=b\n", params{"a": {"b"}}},
		{"blanks inside", "command=ls -l /tmp,x y", params{"command": {"ls -l /tmp", "x y"}}},
		{"an equals sign in the first value", "command=echo hi=there", params{"command": {"echo hi=there"}}},
		{"an equals sign at its start", "a==b", params{"a": {"=b"}}},
		{"an equals sign makes a later value a key", "command=echo hi,x=there", params{"command": {"echo hi"}, "x": {"there"}}},
		{"no value", "a=", params{"a": {""}}},
		{"no value before a key", "a=,b=1", params{"a": {""}, "b": {"1"}}},
		{"no value before a value", "a=,1", params{"a": {"", "1"}}},
		{"quotes keep commas", `a='x y',"z,w"`, params{"a": {"x y", "z,w"}}},
		{"quotes keep equals signs", `a=1,"b=c",d`, params{"a": {"1", "b=c", "d"}}},
		{"the other quote inside", `a="it's",b='say "hi"'`, params{"a": {"it's"}, "b": {`say "hi"`}}},
		{"an escaped quote", `a='it\'s'`, params{"a": {"it's"}}},
		{"an escaped backslash", `a='x\\y'`, params{"a": {`x\y`}}},
		{"no other escapes", `a="x\ny"`, params{"a": {`x\ny`}}},
		{"a backslash before the last quote", `a='C:\'`, params{"a": {`C:\`}}},
		{"empty quotes", `a='',b=1,""`, params{"a": {""}, "b": {"1", ""}}},
		{"a blank after a quote", `a='x' ,b=1`, params{"a": {"x"}, "b": {"1"}}},
		{"an escaped comma", `a=x\,y,z`, params{"a": {"x,y", "z"}}},
		{"an escaped comma first", `a=\,b`, params{"a": {",b"}}},
		{"backslashes in bare values", `a=C:\tmp,\`, params{"a": {`C:\tmp`, `\`}}},
		{"a list in brackets", "a=[1,2],b=3", params{"a": {"1", "2"}, "b": {"3"}}},
		{"blanks in brackets", "a=[ 1 , 2 ]", params{"a": {"1", "2"}}},
		{"quotes in brackets", `a=["x,y",'z']`, params{"a": {"x,y", "z"}}},
		{"equals signs in brackets", "a=[x=1,y=2]", params{"a": {"x=1", "y=2"}}},
		{"nothing in brackets", "a=[]", params{"a": {}}},
		{"a comma before the bracket", "a=[x,]", params{"a": {"x"}}},
		{"brackets inside bare values", "a=x[1],y{2}", params{"a": {"x[1]", "y{2}"}}},
		{"every character of a key", "a-b_c.d/e#f:9=1", params{"a-b_c.d/e#f:9": {"1"}}},
		{"other alphabets", "a=é,😀", params{"a": {"é", "😀"}}},
		{"a URL", "a=https://x.example/?q=1&r=2", params{"a": {"https://x.example/?q=1&r=2"}}},
		{"a later URL with blanks no key", `a=1,"https://x.example/?q=1"`, params{"a": {"1", "https://x.example/?q=1"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseParameters(tt.text)
			if err != nil {
				t.Fatalf("%q is refused: %v", tt.text, err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%q is read as %q, want %q", tt.text, got, tt.want)
			}
		})
	}
}

func TestParametersInJSON(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       params
	}{
		{"nothing", "{}", params{}},
		{"lists", `{"a":["1","2"],"b":[]}`, params{"a": {"1", "2"}, "b": {}}},
		{"a string is a list of one", ` {"a":"1"} `, params{"a": {"1"}}},
		{"escapes", `{"a":["\u00e9\n\""]}`, params{"a": {"é\n\""}}},
		{"any key", `{"a b":["1"],"":"2"}`, params{"a b": {"1"}, "": {"2"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseParameters(tt.text)
			if err != nil {
				t.Fatalf("%q is refused: %v", tt.text, err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%q is read as %q, want %q", tt.text, got, tt.want)
			}
		})
	}
}

func TestParametersThatAreRefused(t *testing.T) {
	const keyOrEnd = "expected a name and = at byte "
	const comma = "expected a comma (a value with quotes or commas must be quoted as a whole) at byte "
	const again = `expected a value or the next name and = (an empty value is "") at byte `
	for _, tt := range []struct{ text, message string }{
		{"a", keyOrEnd + "1"},
		{"=1", keyOrEnd + "1"},
		{"é=1", keyOrEnd + "1"},
		{"a b=1", keyOrEnd + "1"},
		{"file://params.json", keyOrEnd + "1"},
		{"a=1,", "expected a value after the comma at byte 5"},
		{"a=1, ", "expected a value after the comma at byte 5"},
		{"  a", keyOrEnd + "3"},
		{"a=1,,b=2", again + "5"},
		{"a=1,=2", again + "5"},
		{"a=1,b c=2", comma + "8"},
		{`a="x"y`, comma + "6"},
		{`a=x"y"`, comma + "4"},
		{"command=echo 'hi'", comma + "14"},
		{`a=1,"b"=2`, comma + "8"},
		{`a="x`, "the quote at byte 3 is not closed"},
		{`a=1,'x`, "the quote at byte 5 is not closed"},
		{"a=1,a=2", `"a" is given twice`},
		{"a=[1,2", "expected a comma or ] at byte 7"},
		{"a=[1]2", comma + "6"},
		{`a=["x"y]`, "expected a comma or ] at byte 7"},
		{"a=[1],2", keyOrEnd + "7"},
		{"a={b=c}", "expected a value or a list at byte 3"},
		{"a=\xff", "they are not valid UTF-8"},
		{`["a"]`, "the JSON is not an object"},
		{`{`, "the JSON is broken near byte 2"},
		{`{"a"`, "the JSON is broken near byte 5"},
		{`{"a":}`, "the JSON is broken near byte 6"},
		{`{"a":["1"}`, "the JSON is broken near byte 6"},
		{`{"a":"1"`, "the JSON is broken near byte 9"},
		{`{"a":"1",}`, "the JSON is broken near byte 10"},
		{`{1:"1"}`, "the JSON is broken near byte 2"},
		{`{"a":"1"}}`, "something follows the JSON object at byte 10"},
		{`{"a":"1"} {}`, "something follows the JSON object at byte 12"},
		{`{"a":1}`, `the value of "a" is no string and no list of strings`},
		{`{"a":null}`, `the value of "a" is no string and no list of strings`},
		{`{"a":[null]}`, `the value of "a" is no string and no list of strings`},
		{`{"a":["1",2]}`, `the value of "a" is no string and no list of strings`},
		{`{"a":{"b":"c"}}`, `the value of "a" is no string and no list of strings`},
		{`{"a":"1","a":"2"}`, `"a" is given twice`},
		{`{"a\u001b[2J":1}`, `the value of "a[2J" is no string and no list of strings`},
	} {
		t.Run(tt.text, func(t *testing.T) {
			got, err := ParseParameters(tt.text)
			if err == nil {
				t.Fatalf("%q is read as %q, want it refused", tt.text, got)
			}
			e := wantError(t, err, CodeInvalidInput, "cannot read the parameters: "+tt.message,
				`write them as  key=value1,value2  or as JSON  {"key":["value1","value2"]}`)
			if !e.Usage() {
				t.Error("bad parameters should be a usage error")
			}
		})
	}
}

func TestErrorsKeepTheValuesToThemselves(t *testing.T) {
	for _, text := range []string{
		"password=hunter2'", "password=hunter2,hunter2 x=1", `password="hunter2`, "password=1,,hunter2",
		`{"password":["hunter2"`, `{"password":{"hunter2":"hunter2"}}`, "password=[hunter2", "password=1,hunter2\"",
	} {
		if _, err := ParseParameters(text); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q should be refused without showing the value: %v", text, err)
		}
	}
}

// A quadratic parser needs minutes for these, a linear one far less than a second.
func TestParametersOfAMegabyteTakeNoTime(t *testing.T) {
	const n = 1 << 20
	for name, text := range map[string]string{
		"values":               "a=" + strings.Repeat("x,", n) + "x",
		"keys like values":     "a=" + strings.Repeat("kkkkkkkkkkkkkkkk,", n/16) + "x",
		"one long value":       "a=" + strings.Repeat("x", n),
		"blanks":               "a=x" + strings.Repeat(" ", n) + ",y",
		"commas":               "a=" + strings.Repeat(",", n),
		"escaped commas":       "a=" + strings.Repeat(`\,`, n),
		"backslashes":          `a='` + strings.Repeat(`\`, n) + `'`,
		"escaped quotes":       `a='` + strings.Repeat(`\'`, n),
		"quotes":               "a=" + strings.Repeat(`'\',`, n/4) + "x",
		"two kinds of quotes":  "a=" + strings.Repeat(`"\",'\',`, n/8),
		"brackets":             "a=" + strings.Repeat("[", n),
		"keys":                 manyKeys(n / 8),
		"JSON lists":           `{"a":[` + strings.Repeat(`"x",`, n/4) + `"x"]}`,
		"JSON nesting":         `{"a":` + strings.Repeat(`[`, n),
		"JSON keys":            `{` + strings.Repeat(`"a":"x",`, n/8),
		"JSON keys and blanks": `{"a":"x"` + strings.Repeat(" ", n) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			// Whether the text is accepted does not matter here.
			_, err := ParseParameters(text)
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("%d bytes took %v (error %v)", len(text), took, err != nil)
			}
		})
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		for v := i; v >= 0; v = v/26 - 1 {
			b.WriteByte('a' + byte(v%26))
		}
		b.WriteString("=x")
	}
	return b.String()
}

// FuzzParseParameters holds that nothing panics, that what is read survives
// being written as JSON, and that every refusal is a usage error.
func FuzzParseParameters(f *testing.F) {
	for _, seed := range []string{
		"", "a=1,b=2,3", `a='x,\'y',"z"`, `a=x\,y`, "a=[1,[2],'3']", `{"a":["1"],"b":"2"}`, "a = b , c=", `a='C:\'`, "a=\x00", "[", "a==,",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseParameters(text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || !e.Usage() || got != nil {
				t.Fatalf("%q is refused with %v and %q, want a usage error and nothing", text, err, got)
			}
			if strings.ContainsAny(e.Error(), "\n\r\x1b") || !utf8.ValidString(e.Error()) {
				t.Fatalf("%q is refused in words unfit for a terminal: %q", text, e.Error())
			}
			return
		}
		if got == nil {
			if strings.TrimSpace(text) != "" {
				t.Fatalf("%q is read as nothing", text)
			}
			return
		}
		out, err := json.Marshal(got)
		if err != nil {
			t.Fatalf("what %q is read as does not marshal: %v", text, err)
		}
		again, err := ParseParameters(string(out))
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Fatalf("%q is read as %q, which as JSON is read as %q, %v", text, got, again, err)
		}
	})
}
