package emulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Document is a session document (docs/protocol.md, "Documents"): what kind of
// session it starts, from which parameters, within which limits.
type Document struct {
	Name        string                       `json:"name"`
	Description string                       `json:"description"`
	SessionType frame.SessionType            `json:"sessionType"`
	Parameters  map[string]DocumentParameter `json:"parameters"`
	Inputs      DocumentInputs               `json:"inputs"`
	// Properties is a JSON object with {{ name }} for the value of a parameter.
	Properties json.RawMessage `json:"properties"`
}

// DocumentParameter is one parameter that a document declares.
type DocumentParameter struct {
	Type           string   `json:"type"` // String or StringList
	Default        any      `json:"default"`
	Description    string   `json:"description"`
	AllowedPattern string   `json:"allowedPattern"`
	AllowedValues  []string `json:"allowedValues"`
}

// DocumentInputs are the preferences of a document that mean something here.
// Logging and RunAs do not. Encryption is the account's, for all documents.
type DocumentInputs struct {
	// IdleSessionTimeout and MaxSessionDuration are in minutes, as AWS has them
	// (1 to 60, and 1 to 1440), or, here only, a Go duration such as "90s".
	// Without them a session ends after 20 idle minutes, and else not.
	IdleSessionTimeout string       `json:"idleSessionTimeout"`
	MaxSessionDuration string       `json:"maxSessionDuration"`
	ShellProfile       ShellProfile `json:"shellProfile"`
	KMSKeyID           string       `json:"kmsKeyId"` // empty, or Config.KMSKeys' first
}

// ShellProfile is what is typed into a new shell, by system.
type ShellProfile struct {
	Linux   string `json:"linux"`
	Windows string `json:"windows"`
}

// defaultIdleTimeout is the service's.
const defaultIdleTimeout = 20 * time.Minute

// UnmarshalJSON implements json.Unmarshaler: members that mean nothing here are
// no error, as they would be beside them.
func (i *DocumentInputs) UnmarshalJSON(data []byte) error {
	type plain DocumentInputs
	return json.Unmarshal(data, (*plain)(i))
}

// ParseDocument reads a session document in the JSON that AWS's CreateDocument
// takes, with one more member, name. Without it the Name of the result is empty,
// for the caller to fill in.
func ParseDocument(data []byte) (Document, error) {
	var file struct {
		Document
		SchemaVersion string `json:"schemaVersion"`
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields() // a misspelt member would do nothing, in silence
	if err := decoder.Decode(&file); err != nil {
		return Document{}, fmt.Errorf("session document: %w", err)
	}
	if file.SchemaVersion != "1.0" {
		return Document{}, fmt.Errorf("session document: schemaVersion is %q, not \"1.0\"", file.SchemaVersion)
	}
	if err := file.check(); err != nil {
		return Document{}, fmt.Errorf("session document: %w", err)
	}
	return file.Document, nil
}

// check tells what is wrong with a document, its name excepted.
func (d *Document) check() error {
	switch d.SessionType {
	case frame.StandardStream, frame.InteractiveCommands, frame.NonInteractiveCommands, frame.Port:
	default:
		return fmt.Errorf("sessionType is %q, not one of %s, %s, %s, %s", d.SessionType,
			frame.StandardStream, frame.InteractiveCommands, frame.NonInteractiveCommands, frame.Port)
	}
	if _, err := d.limits(); err != nil {
		return err
	}
	for name, p := range d.Parameters {
		if err := p.check(name); err != nil {
			return err
		}
	}
	return nil
}

// check tells what is wrong with a parameter.
func (p *DocumentParameter) check(name string) error {
	if !parameterName().MatchString(name) {
		return fmt.Errorf("parameter %q: a name is letters and digits", name)
	}
	if p.Type != "String" && p.Type != "StringList" {
		return fmt.Errorf("parameter %q: type is %q, not String or StringList", name, p.Type)
	}
	if _, err := regexp.Compile(p.AllowedPattern); err != nil {
		return fmt.Errorf("parameter %q: allowedPattern: %w", name, err)
	}
	return nil
}

// parameterName is what the agent takes for a name between braces.
func parameterName() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9]+$`) }

// limits gives the limits of a document's sessions; the service's own, for the
// first client to come, is not among them.
func (d *Document) limits() (sessionLimits, error) {
	idle, err := parseMinutes(d.Inputs.IdleSessionTimeout, 60)
	if err != nil {
		return sessionLimits{}, fmt.Errorf("idleSessionTimeout %w", err)
	}
	maximum, err := parseMinutes(d.Inputs.MaxSessionDuration, 1440)
	if err != nil {
		return sessionLimits{}, fmt.Errorf("maxSessionDuration %w", err)
	}
	if idle == 0 {
		idle = defaultIdleTimeout
	}
	return sessionLimits{idle: idle, maximum: maximum}, nil
}

// parseMinutes reads whole minutes up to a number, or a Go duration; zero for "".
func parseMinutes(s string, most int) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > most {
			return 0, fmt.Errorf("is %q, not 1 to %d minutes", s, most)
		}
		return time.Duration(n) * time.Minute, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("is %q, neither minutes nor a duration", s)
	}
	return d, nil
}

// documents are all documents, by name.
type documents map[string]Document

// defaultDocument is what StartSession uses without a DocumentName.
const defaultDocument = "SSM-SessionManagerRunShell"

// newDocuments gives the built-in documents and the user's own, which may replace
// them, for an account with KMS keys.
func newDocuments(own []Document, kmsKeys []string) (documents, error) {
	all := documents{}
	for _, d := range slices.Concat(builtinDocuments(), portDocuments()) {
		all[d.Name] = d
	}
	for _, d := range own {
		if !documentName().MatchString(d.Name) {
			return nil, fmt.Errorf("session document %q: a name is 3 to 128 of letters, digits, _, - and .", d.Name)
		}
		if err := d.check(); err != nil {
			return nil, fmt.Errorf("session document %q: %w", d.Name, err)
		}
		if key := d.Inputs.KMSKeyID; key != "" && (len(kmsKeys) == 0 || key != kmsKeys[0]) {
			return nil, fmt.Errorf("session document %q: kmsKeyId is %q, which is not the key of all sessions (--kms-key)", d.Name, key)
		}
		all[d.Name] = d
	}
	return all, nil
}

// documentName is the modelled pattern of a name that is not an ARN.
func documentName() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9_\-.]{3,128}$`) }

// find gives a document by its name or ARN.
func (d documents) find(name string) (Document, bool) {
	if i := strings.LastIndex(name, ":document/"); i >= 0 && strings.HasPrefix(name, "arn:") {
		name = name[i+len(":document/"):]
	}
	found, ok := d[name]
	return found, ok
}

// builtinDocuments are our own wording of the documents that AWS provides: names,
// parameters and properties are the same (docs/protocol.md, "Documents"). The one
// for a shell stands for an account's preferences.
func builtinDocuments() []Document {
	text := DocumentParameter{Type: "String"}
	prefix := DocumentParameter{Type: "String", Default: ""}
	return []Document{
		{
			Name:        defaultDocument,
			Description: "Preferences of the account; a shell.",
			SessionType: frame.StandardStream,
		},
		{
			Name:        "AWS-StartInteractiveCommand",
			Description: "Runs a command on a pty.",
			SessionType: frame.InteractiveCommands,
			Parameters:  map[string]DocumentParameter{"command": text},
			Properties:  everySystem(`{"commands": "{{ command }}", "runAsElevated": false}`),
		},
		{
			Name:        ecsDocument,
			Description: "Runs a command in a container, on a pty.",
			SessionType: frame.InteractiveCommands,
			Parameters:  map[string]DocumentParameter{"command": text},
			Properties:  everySystem(`{"commands": "{{ command }}", "runAsElevated": false}`),
		},
		{
			Name:        "AWS-StartNonInteractiveCommand",
			Description: "Runs a command without a pty.",
			SessionType: frame.NonInteractiveCommands,
			Parameters: map[string]DocumentParameter{
				"command":               text,
				"separateOutputStream":  {Type: "String", Default: "false", AllowedValues: []string{"true", "false"}},
				"stdOutSeparatorPrefix": prefix,
				"stdErrSeparatorPrefix": prefix,
			},
			Properties: everySystem(`{"commands": "{{ command }}", "runAsElevated": false,
				"separateOutputStream": "{{ separateOutputStream }}",
				"stdOutSeparatorPrefix": "{{ stdOutSeparatorPrefix }}",
				"stdErrSeparatorPrefix": "{{ stdErrSeparatorPrefix }}"}`),
		},
	}
}

// portDocuments are AWS's documents for tunnels, as builtinDocuments are the others.
// Their values are strings, numbers included: clients read nothing else.
func portDocuments() []Document {
	const from1 = `[1-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]`
	remote := DocumentParameter{Type: "String", Default: "80", AllowedPattern: "^(0|" + from1 + ")$"}
	local := DocumentParameter{Type: "String", Default: "0", AllowedPattern: "^(0|" + from1 + ")$"}
	return []Document{
		{
			Name:        "AWS-StartSSHSession",
			Description: "One connection to a port of the target.",
			SessionType: frame.Port,
			Parameters:  map[string]DocumentParameter{"portNumber": {Type: "String", Default: "22", AllowedPattern: "^(" + from1 + ")$"}},
			Properties:  json.RawMessage(`{"portNumber": "{{ portNumber }}"}`),
		},
		{
			Name:        "AWS-StartPortForwardingSession",
			Description: "Connections to a port of the target.",
			SessionType: frame.Port,
			Parameters:  map[string]DocumentParameter{"portNumber": remote, "localPortNumber": local},
			Properties: json.RawMessage(`{"portNumber": "{{ portNumber }}", "type": "LocalPortForwarding",
				"localPortNumber": "{{ localPortNumber }}"}`),
		},
		{
			Name:        "AWS-StartPortForwardingSessionToRemoteHost",
			Description: "Connections from the target to a port of another host.",
			SessionType: frame.Port,
			Parameters: map[string]DocumentParameter{
				"host": {Type: "String"}, "portNumber": remote, "localPortNumber": local,
			},
			Properties: json.RawMessage(`{"host": "{{ host }}", "portNumber": "{{ portNumber }}", "type": "LocalPortForwarding",
				"localPortNumber": "{{ localPortNumber }}"}`),
		},
	}
}

// everySystem gives the same properties to every kind of node.
func everySystem(properties string) json.RawMessage {
	return json.RawMessage(`{"linux": ` + properties + `, "windows": ` + properties + `, "macos": ` + properties + `}`)
}
