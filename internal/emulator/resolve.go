package emulator

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strconv"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// resolve fills in a document's parameters from those of a StartSession. Its
// errors are the service's: InvalidParameters, in its words where they are known.
func (d *Document) resolve(given map[string][]string) (agent.Document, error) {
	values, err := d.values(given)
	if err != nil {
		return agent.Document{}, err
	}
	var template any
	if len(d.Properties) > 0 {
		if err := json.Unmarshal(d.Properties, &template); err != nil {
			return agent.Document{}, d.invalid("properties", err)
		}
	}
	properties, err := json.Marshal(substitute(template, values))
	if err != nil {
		return agent.Document{}, d.invalid("properties", err)
	}
	resolved := agent.Document{SessionType: d.SessionType, ShellProfile: d.Inputs.ShellProfile.Linux}
	if runtime.GOOS == "windows" {
		resolved.ShellProfile = d.Inputs.ShellProfile.Windows
	}
	switch d.SessionType {
	case frame.Port:
		resolved.Properties = properties // the only kind that the client is told of
	case frame.InteractiveCommands, frame.NonInteractiveCommands:
		err = d.setCommand(&resolved, properties)
	}
	return resolved, err
}

// invalid says that a document, not the caller, is at fault. A document whose
// placeholders stand where their values do not fit shows only when it is used.
func (d *Document) invalid(what string, err error) *apiError {
	return modelled("InvalidDocument", fmt.Sprintf("Document %s: %s: %s", d.Name, what, err))
}

// setCommand reads the properties of a command document for this system. Without
// any for it there is no command, which the agent finds fault with.
func (d *Document) setCommand(resolved *agent.Document, properties []byte) error {
	var systems map[string]struct {
		Commands              string `json:"commands"`
		SeparateOutputStream  any    `json:"separateOutputStream"`
		StdOutSeparatorPrefix string `json:"stdOutSeparatorPrefix"`
		StdErrSeparatorPrefix string `json:"stdErrSeparatorPrefix"`
	}
	if err := json.Unmarshal(properties, &systems); err != nil {
		return d.invalid("properties", err)
	}
	system := runtime.GOOS
	if system == "darwin" {
		system = "macos"
	}
	p := systems[system]
	separate, err := parseBool(p.SeparateOutputStream)
	if err != nil {
		return d.invalid("separateOutputStream", err)
	}
	resolved.Command = p.Commands
	resolved.SeparateOutputStream = separate
	resolved.StdOutPrefix = p.StdOutSeparatorPrefix
	resolved.StdErrPrefix = p.StdErrSeparatorPrefix
	return nil
}

// parseBool reads a boolean of a document, which may be a string; nothing is false.
func parseBool(v any) (bool, error) {
	switch v := v.(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	case string:
		if v == "" {
			return false, nil
		}
		return strconv.ParseBool(v)
	}
	return false, fmt.Errorf("%v is not a boolean", v)
}

// values gives each parameter its value: a string, or a list of them, or whatever
// the document has for a default. The API has lists only; one of one string is what
// a String is given by.
func (d *Document) values(given map[string][]string) (map[string]any, error) {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if _, declared := d.Parameters[name]; !declared {
			return nil, errInvalidParameters("Parameter %q is not defined in document %s.", name, d.Name)
		}
	}
	values := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(d.Parameters)) {
		p := d.Parameters[name]
		list, ok := given[name]
		switch {
		case !ok && p.Default == nil:
			return nil, errInvalidParameters("Parameter %q requires a value.", name)
		case !ok:
			values[name] = p.Default
			continue
		case p.Type == "String" && len(list) != 1:
			return nil, errInvalidParameters("Parameter %q takes one value, not %d.", name, len(list))
		}
		for _, value := range list {
			if err := p.accept(name, value); err != nil {
				return nil, err
			}
		}
		values[name] = list
		if p.Type == "String" {
			values[name] = list[0]
		}
	}
	return values, nil
}

// accept checks a value that was given; a default is not checked. The texts are the
// service's.
func (p *DocumentParameter) accept(name, value string) error {
	if len(p.AllowedValues) > 0 && !slices.Contains(p.AllowedValues, value) {
		return errInvalidParameters("Parameter %q has value %q not found in %v.", name, value, p.AllowedValues)
	}
	if ok, err := regexp.MatchString(p.AllowedPattern, value); err != nil || !ok {
		return errInvalidParameters("Parameter %q has value %q not matching %q.", name, value, p.AllowedPattern)
	}
	return nil
}

// substitute puts values in the place of {{ name }} in every string of v, with
// the rules of AWS's agent: a string that is one placeholder becomes the value,
// whatever its type; within a longer string the value is text, in which $$ stands
// for $ and other uses of $ are lost, as it is a replacement of a regular
// expression there (docs/protocol.md, "Session document").
func substitute(v any, values map[string]any) any {
	switch v := v.(type) {
	case string:
		return substituteString(v, values)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = substitute(v[i], values)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name := range v {
			out[name] = substitute(v[name], values)
		}
		return out
	}
	return v
}

// substituteString is substitute for one string. The agent goes through parameters
// in no order; ours is fixed, so that a value with braces in it always does the
// same.
func substituteString(s string, values map[string]any) any {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		placeholder := regexp.MustCompile(`\{\{\s*` + name + `\s*\}\}`) // names are letters and digits
		at := placeholder.FindStringIndex(s)
		if at == nil {
			continue
		}
		if at[0] == 0 && at[1] == len(s) {
			return values[name]
		}
		text, ok := values[name].(string)
		if !ok {
			encoded, err := json.Marshal(values[name])
			if err != nil {
				panic("emulator: a value that was JSON: " + err.Error())
			}
			text = string(encoded)
		}
		s = placeholder.ReplaceAllString(s, text)
	}
	return s
}
