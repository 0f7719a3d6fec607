package api

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const token = "AAEAAtokentokentoken"

// leaks reports whether a text gives the token away, in letters, numbers or codes.
func leaks(s string) bool {
	return strings.Contains(s, token) || strings.Contains(strings.ToLower(s), fmt.Sprintf("%x", token)) ||
		strings.Contains(s, strings.Trim(fmt.Sprint([]byte(token)), "[]")) ||
		strings.Contains(s, base64.StdEncoding.EncodeToString([]byte(token)))
}

func testGrant() Grant {
	return Grant{SessionID: "jane-01", StreamURL: "wss://example.com/v1", Token: NewSecret(token)}
}

// testKey has the token in its bytes.
func testKey() DataKey {
	key := DataKey{Plaintext: &KeyBytes{}}
	copy(key.Plaintext[:], token)
	return key
}

func TestNoVerbOfFmtShowsTheToken(t *testing.T) {
	g := testGrant()
	key := testKey()
	type outer struct{ Grant Grant }
	type hidden struct{ grant Grant } // fmt calls no method in here
	type hiddenPointer struct{ grant *Grant }
	values := map[string]any{
		"a grant":                            g,
		"a pointer to a grant":               &g,
		"a grant in a struct":                outer{g},
		"a pointer to that":                  &outer{g},
		"a grant in an unexported field":     hidden{g},
		"a pointer to that too":              &hidden{g},
		"a pointer in an unexported field":   hiddenPointer{&g},
		"a grant in a slice":                 []Grant{g},
		"a grant in a map":                   map[string]Grant{"g": g},
		"a grant in an interface in a slice": []any{g},
		"the secret":                         g.Token,
		"a pointer to the secret":            &g.Token,
		"a data key":                         key,
		"its plaintext":                      key.Plaintext,
		"keys":                               Keys{AccessKeyID: "AKID", SecretAccessKey: NewSecret(token), SessionToken: NewSecret(token)},
		"a configuration":                    Config{Keys: &Keys{SecretAccessKey: NewSecret(token)}},
	}
	for name, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%c", "%p", "%T", "%10.3s", "%U"} {
			if s := fmt.Sprintf(verb, v); leaks(s) {
				t.Errorf("%s of %s shows the token: %s", verb, name, s)
			}
		}
	}
}

// A key that can be wiped cannot be kept from the verbs that are not for pointers.
func TestADataKeyIsHiddenInAnUnexportedField(t *testing.T) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%d", "%p"} {
		if s := fmt.Sprintf(verb, struct{ key DataKey }{testKey()}); leaks(s) {
			t.Errorf("%s shows it: %s", verb, s)
		}
	}
}

func TestNoEncoderShowsTheToken(t *testing.T) {
	g := testGrant()
	inside := struct {
		G  Grant
		P  *Grant
		M  map[string]Secret
		In any
	}{g, &g, map[string]Secret{"k": g.Token}, g}
	key := testKey()
	for name, v := range map[string]any{"a grant": g, "a pointer": &g, "a struct": inside, "the secret": g.Token, "a data key": key} {
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%s does not marshal: %v", name, err)
		}
		if leaks(string(out)) || !strings.Contains(string(out), placeholder) {
			t.Errorf("JSON of %s should show %s and shows %s", name, placeholder, out)
		}
	}
	out, err := xml.Marshal(g)
	if err != nil || leaks(string(out)) {
		t.Errorf("XML of a grant shows the token or fails: %s, %v", out, err)
	}
	var b bytes.Buffer
	// gob may refuse a type without exported fields; it must only keep quiet.
	if err := gob.NewEncoder(&b).Encode(g); leaks(b.String()) {
		t.Errorf("gob of a grant shows the token (error %v)", err)
	}
}

func TestNoLoggerShowsTheToken(t *testing.T) {
	g := testGrant()
	type hidden struct{ grant Grant }
	var out bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("grant", "value", g, "pointer", &g, "secret", g.Token,
			"struct", struct{ G Grant }{g}, "unexported", hidden{g}, slog.Group("g", "grant", g),
			"key", testKey(), "plaintext", testKey().Plaintext)
	}
	if leaks(out.String()) {
		t.Errorf("the log shows the token: %s", out.String())
	}
}

func TestSecretGivesItsTextToWhoAsks(t *testing.T) {
	if got := NewSecret(token).Reveal(); got != token {
		t.Errorf("Reveal returns %q, want the token", got)
	}
	if got := (Secret{}).Reveal(); got != "" {
		t.Errorf("the zero secret reveals %q, want nothing", got)
	}
	s := NewSecret(token)
	for _, got := range []string{s.String(), s.GoString(), s.LogValue().String()} {
		if got != placeholder {
			t.Errorf("a method of the secret returns %q, want %q", got, placeholder)
		}
	}
	if text, err := s.MarshalText(); err != nil || string(text) != placeholder {
		t.Errorf("MarshalText returns %q, %v", text, err)
	}
}
