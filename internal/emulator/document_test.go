package emulator

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

func agentDocument() agent.Document { return agent.Document{SessionType: frame.StandardStream} }

// forEverySystem puts the properties of a command under the name of this system.
func forThisSystem(properties string) string {
	system := map[string]string{"darwin": "macos", "windows": "windows"}[runtime.GOOS]
	if system == "" {
		system = "linux"
	}
	return fmt.Sprintf(`{%q: %s}`, system, properties)
}

func TestParseDocument(t *testing.T) {
	d, err := ParseDocument([]byte(`{
		"name": "Company-Shell", "schemaVersion": "1.0", "description": "ours", "sessionType": "InteractiveCommands",
		"inputs": {"idleSessionTimeout": "5", "maxSessionDuration": "90s", "s3BucketName": "", "shellProfile": {"linux": "exec bash"}},
		"parameters": {"name": {"type": "String", "default": "x", "allowedPattern": "^[a-z]+$", "description": "a name"}},
		"properties": ` + forThisSystem(`{"commands": "echo {{name}}"}`) + `}`))
	if err != nil {
		t.Fatalf("a good document is refused: %v", err)
	}
	limits, err := d.limits()
	if err != nil || limits.idle != 5*time.Minute || limits.maximum != 90*time.Second {
		t.Errorf("its limits are %+v, %v", limits, err)
	}
	resolved, err := d.resolve(map[string][]string{"name": {"ada"}})
	if err != nil || resolved.Command != "echo ada" || resolved.SessionType != frame.InteractiveCommands || d.Name != "Company-Shell" {
		t.Errorf("it resolves to %+v, %v", resolved, err)
	}
	if _, err := d.resolve(map[string][]string{"name": {"Ada1"}}); err == nil ||
		!strings.Contains(err.Error(), `Parameter "name" has value "Ada1" not matching "^[a-z]+$".`) {
		t.Errorf("a value beside the pattern: %v", err)
	}
}

func TestBadDocuments(t *testing.T) {
	const good = `"schemaVersion":"1.0","sessionType":"Standard_Stream"`
	for text, want := range map[string]string{
		`[]`:                             "session document: ",
		`{}`:                             "schemaVersion",
		`{"schemaVersion":"2.2"}`:        `schemaVersion is "2.2"`,
		`{"schemaVersion":"1.0"}`:        "sessionType",
		`{` + good + `,"properites":{}}`: "properites",
		`{` + good + `,"inputs":[]}`:     "inputs",
		`{` + good + `,"inputs":{"idleSessionTimeout":"61"}}`:                      "idleSessionTimeout",
		`{` + good + `,"inputs":{"maxSessionDuration":"1441"}}`:                    "maxSessionDuration",
		`{` + good + `,"inputs":{"maxSessionDuration":"soon"}}`:                    "maxSessionDuration",
		`{` + good + `,"parameters":{"a-b":{"type":"String"}}}`:                    "letters and digits",
		`{` + good + `,"parameters":{"a":{"type":"Number"}}}`:                      "Number",
		`{` + good + `,"parameters":{"a":{"type":"String","allowedPattern":"("}}}`: "allowedPattern",
	} {
		if _, err := ParseDocument([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, which does not name %q", text, err, want)
		}
	}
	if _, err := newDocuments([]Document{{Name: "a b", SessionType: frame.StandardStream}}, nil); err == nil {
		t.Error("a document with a blank in its name is taken")
	}
	encrypted := []Document{{Name: "Doc", SessionType: frame.StandardStream, Inputs: DocumentInputs{KMSKeyID: kmsKey}}}
	if _, err := newDocuments(encrypted, nil); err == nil || !strings.Contains(err.Error(), "kmsKeyId") {
		t.Errorf("a document with a key that is not there: %v", err)
	}
	if _, err := newDocuments(encrypted, []string{kmsKey}); err != nil {
		t.Errorf("a document with the key of all sessions: %v", err)
	}
}

func TestSubstitute(t *testing.T) {
	values := map[string]any{"name": "ada", "list": []string{"a", "b"}, "yes": true, "money": "$$5 $HOME", "n": 7.0}
	for text, want := range map[string]string{
		`"{{ name }}"`:                  `"ada"`,
		`"{{name}}"`:                    `"ada"`,
		`"{{ list }}"`:                  `["a","b"]`,
		`"{{ yes }}"`:                   `true`,
		`"{{ money }}"`:                 `"$$5 $HOME"`,
		`"have {{ money }}"`:            `"have $5 "`,
		`"{{ name }} and {{  name  }}"`: `"ada and ada"`,
		`"a {{ list }} of {{ n }}"`:     `"a [\"a\",\"b\"] of 7"`,
		`"{{ other }} {name}"`:          `"{{ other }} {name}"`,
		`{"k":["{{ name }}",1,null]}`:   `{"k":["ada",1,null]}`,
		`null`:                          `null`,
	} {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(substitute(v, values))
		if err != nil || string(got) != want {
			t.Errorf("%s becomes %s, not %s", text, got, want)
		}
	}
}

func TestBuiltinDocuments(t *testing.T) {
	all, err := newDocuments(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		given map[string][]string
		want  agent.Document
	}{
		{"SSM-SessionManagerRunShell", nil, agent.Document{SessionType: frame.StandardStream}},
		{"AWS-StartInteractiveCommand", map[string][]string{"command": {"top -n 1"}},
			agent.Document{SessionType: frame.InteractiveCommands, Command: "top -n 1"}},
		{"AWS-StartNonInteractiveCommand", map[string][]string{"command": {`echo "$HOME" $$`}},
			agent.Document{SessionType: frame.NonInteractiveCommands, Command: `echo "$HOME" $$`}},
		{"AWS-StartNonInteractiveCommand", map[string][]string{"command": {"id"}, "separateOutputStream": {"true"}, "stdErrSeparatorPrefix": {"E:"}},
			agent.Document{SessionType: frame.NonInteractiveCommands, Command: "id", SeparateOutputStream: true, StdErrPrefix: "E:"}},
	}
	for _, test := range tests {
		d, ok := all.find(test.name)
		if !ok {
			t.Errorf("%s is not there", test.name)
			continue
		}
		got, err := d.resolve(test.given)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s with %v resolves to %+v, %v, not %+v", test.name, test.given, got, err, test.want)
		}
		if limits, err := d.limits(); err != nil || limits.idle != 20*time.Minute || limits.maximum != 0 {
			t.Errorf("%s has the limits %+v, %v", test.name, limits, err)
		}
	}
}

func TestPortProperties(t *testing.T) {
	d, err := ParseDocument([]byte(`{"name":"To-Port","schemaVersion":"1.0","sessionType":"Port",
		"parameters":{"portNumber":{"type":"String","default":"80"}},"properties":{"portNumber":"{{ portNumber }}"}}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.resolve(nil)
	if err != nil || string(got.Properties) != `{"portNumber":"80"}` {
		t.Errorf("the properties of a port session are %s, %v", got.Properties, err)
	}
}

func TestPortDocuments(t *testing.T) {
	all, err := newDocuments(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	one := func(pairs ...string) map[string][]string {
		given := map[string][]string{}
		for i := 0; i < len(pairs); i += 2 {
			given[pairs[i]] = []string{pairs[i+1]}
		}
		return given
	}
	const (
		ssh     = "AWS-StartSSHSession"
		forward = "AWS-StartPortForwardingSession"
		remote  = "AWS-StartPortForwardingSessionToRemoteHost"
	)
	for _, test := range []struct {
		name  string
		given map[string][]string
		want  string // the properties, or a part of the error
	}{
		{ssh, nil, `{"portNumber":"22"}`},
		{ssh, one("portNumber", "65535"), `{"portNumber":"65535"}`},
		{ssh, one("portNumber", "0"), `Parameter "portNumber" has value "0" not matching`},
		{ssh, one("portNumber", "65536"), `Parameter "portNumber" has value "65536" not matching`},
		{ssh, one("host", "db"), `Parameter "host" is not defined`},
		{forward, nil, `{"localPortNumber":"0","portNumber":"80","type":"LocalPortForwarding"}`},
		{forward, one("portNumber", "0", "localPortNumber", "9000"), `{"localPortNumber":"9000","portNumber":"0","type":"LocalPortForwarding"}`},
		{forward, one("localPortNumber", "01"), `Parameter "localPortNumber" has value "01" not matching`},
		{forward, one("portNumber", "80\n"), `Parameter "portNumber" has value "80\n" not matching`},
		{remote, one("host", "db.internal", "portNumber", "5432"),
			`{"host":"db.internal","localPortNumber":"0","portNumber":"5432","type":"LocalPortForwarding"}`},
		{remote, nil, `Parameter "host" requires a value`},
	} {
		d, ok := all.find(test.name)
		if !ok {
			t.Fatalf("%s is not there", test.name)
		}
		resolved, err := d.resolve(test.given)
		got := string(resolved.Properties)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, test.want) || d.SessionType != frame.Port {
			t.Errorf("%s with %v gives %s, want %s", test.name, test.given, got, test.want)
		}
	}
}

func TestBooleans(t *testing.T) {
	for _, test := range []struct {
		in        any
		want, bad bool
	}{
		{nil, false, false}, {"", false, false}, {true, true, false}, {"true", true, false}, {"1", true, false},
		{"False", false, false}, {"yes", false, true}, {1.0, false, true},
	} {
		got, err := parseBool(test.in)
		if got != test.want || (err != nil) != test.bad {
			t.Errorf("%#v reads as %v, %v", test.in, got, err)
		}
	}
}

func FuzzParseDocument(f *testing.F) {
	f.Add([]byte(`{"name":"a-b","schemaVersion":"1.0","sessionType":"Port","parameters":{"p":{"type":"String","default":"80"}},"properties":{"p":"{{ p }}"}}`))
	f.Add([]byte(`{"schemaVersion":"1.0","sessionType":"NonInteractiveCommands","properties":{"linux":{"commands":"{{ c }}"}},"parameters":{"c":{"type":"StringList"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := ParseDocument(data)
		if err != nil {
			return
		}
		if _, err := d.limits(); err != nil {
			t.Errorf("a document was taken whose limits are not: %v", err)
		}
		given := map[string][]string{}
		for name := range d.Parameters {
			given[name] = []string{"$1 {{ p }}"}
		}
		if _, err := d.resolve(given); err != nil && asAPIError(err).status != 400 {
			t.Errorf("the error of a call is the server's: %v", err)
		}
	})
}
