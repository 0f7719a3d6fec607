package events

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// noon is a time whose zone, and whose nanoseconds, must not show.
func noon() time.Time {
	return time.Date(2026, 11, 24, 13, 0, 0, 1234999, time.FixedZone("CET", 3600))
}

// documented is every event as docs/events.md shows it, in its order.
func documented() []Event {
	return []Event{
		Started{SessionID: "alice-0a1b2c3d4e5f67890", Target: "i-0123456789abcdef0", Document: "AWS-StartInteractiveCommand"},
		Ready{SessionType: "InteractiveCommands", AgentVersion: "3.3.1611.0"},
		Reconnecting{Attempt: 2, Reason: "no answer to pings", For: 1250 * time.Millisecond},
		Resumed{After: 1734 * time.Millisecond},
		Paused{},
		Listening{Local: "127.0.0.1:43211", Remote: "db.internal:5432"},
		Connection{Remote: "db.internal:5432", From: "127.0.0.1:50122", Outcome: Ended, BytesIn: 51234, BytesOut: 310},
		Traffic{Remote: "db.internal:5432", Open: 2, Opened: 14, Refused: 1, BytesIn: 51234, BytesOut: 310, Reconnects: 1, Sessions: 1},
		Error{Code: "TargetNotConnected", Message: "cannot start session on i-0abc: target is not connected", Hint: "is its agent running?"},
		Exit{Code: 0, By: ByRemote, BytesIn: 51234, BytesOut: 310, RoundTrip: 23417 * time.Microsecond, Retransmissions: 2, Resumes: 1},
	}
}

func TestTheLineOfEachEvent(t *testing.T) {
	const head = `{"v":1,"time":"2026-11-24T12:00:00.001234Z","event":`
	for _, tt := range []struct {
		name    string
		dropped int64
		event   Event
		want    string
	}{
		{"started", 0, Started{"alice-0a1b", "i-0abc", "My-Doc"}, `"started","session_id":"alice-0a1b","target":"i-0abc","document":"My-Doc"}`},
		{"ready", 0, Ready{"Standard_Stream", "3.3.1611.0", "k"}, `"ready","session_type":"Standard_Stream","agent_version":"3.3.1611.0","kms_key_id":"k"}`},
		{"reconnecting", 0, Reconnecting{1, "EOF", 40 * time.Millisecond}, `"reconnecting","attempt":1,"reason":"EOF","for_ms":40}`},
		{"resumed, in whole milliseconds", 0, Resumed{1999 * time.Microsecond}, `"resumed","after_ms":1}`},
		{"paused, which has no members", 0, Paused{}, `"paused"}`},
		{"paused after a gap", 7, Paused{}, `"paused","dropped":7}`},
		{"listening", 0, Listening{"/run/db.sock", "db:5432"}, `"listening","local":"/run/db.sock","remote":"db:5432"}`},
		{"a connection that was refused", 0, Connection{"db:5432", "[::1]:9", Refused, "no", 0, 0},
			`"connection","remote":"db:5432","from":"[::1]:9","outcome":"refused","reason":"no","bytes_in":0,"bytes_out":0}`},
		{"traffic", 0, Traffic{"db:5432", 1, 2, 3, 4, 5, 6, 7},
			`"traffic","remote":"db:5432","open":1,"opened":2,"refused":3,"bytes_in":4,"bytes_out":5,"reconnects":6,"sessions":7}`},
		{"error after a gap: the gap comes first", 1, Error{"AccessDenied", "no", "ask"}, `"error","dropped":1,"code":"AccessDenied","message":"no","hint":"ask"}`},
		{"exit", 0, Exit{255, BySignal, 1 << 40, 2, 23417 * time.Microsecond, 3, 4},
			`"exit","code":255,"by":"signal","bytes_in":1099511627776,"bytes_out":2,"round_trip_ms":23.417,"retransmissions":3,"resumes":4}`},
		{"members without a value are there all the same", 0, Exit{}, `"exit","code":0,"by":"","bytes_in":0,"bytes_out":0,"round_trip_ms":0,"retransmissions":0,"resumes":0}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(encode(noon(), tt.dropped, tt.event)); got != head+tt.want+"\n" {
				t.Errorf("the line is\n%s\nwant\n%s", got, head+tt.want)
			}
		})
	}
}

// textOf gives the line of an event with the text s in it, and s as a reader
// of JSON gets it.
func textOf(t *testing.T, s string) (line, text string) {
	t.Helper()
	line = string(encode(noon(), 0, Ready{SessionType: s, AgentVersion: "next"}))
	var ready struct {
		SessionType  string `json:"session_type"`
		AgentVersion string `json:"agent_version"`
	}
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		t.Fatalf("the text %q makes a line that is no JSON: %v\n%s", s, err, line)
	}
	if ready.AgentVersion != "next" {
		t.Errorf("the text %q changes the member after it to %q", s, ready.AgentVersion)
	}
	return line, ready.SessionType
}

func TestTextOfTheFarEnd(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		inLine     string // as it stands in the line
		read       string // as JSON gives it back
	}{
		{"plain", "Standard_Stream", "Standard_Stream", "Standard_Stream"},
		{"empty", "", "", ""},
		{"other scripts are left readable", "größe 大小 🙂", "größe 大小 🙂", "größe 大小 🙂"},
		{"markup is left readable", "<a&b>", "<a&b>", "<a&b>"},
		{"quotes and backslashes", `"},{\`, `\"},{\\`, `"},{\`},
		{"a line feed does not end the line", "a\nb\r", `a\u000ab\u000d`, "a\nb\r"},
		{"NUL and escape", "\x00\x1b[2J", `\u0000\u001b[2J`, "\x00\x1b[2J"},
		{"C1 controls, which begin sequences too", "\u009b2J", `\u009b2J`, "\u009b2J"},
		{"delete", "\x7f", `\u007f`, "\x7f"},
		{"text turned around", "\u202egpj", `\u202egpj`, "\u202egpj"},
		{"line separators", "\u2028\u2029", `\u2028\u2029`, "\u2028\u2029"},
		{"beyond the first 65536", "\U000e0041", `\udb40\udc41`, "\U000e0041"},
		{"no UTF-8", "a\xff\xc3", "a\ufffd\ufffd", "a\ufffd\ufffd"},
		{"a lone surrogate", "\xed\xa0\x80", "\ufffd\ufffd\ufffd", "\ufffd\ufffd\ufffd"},
		{"at the limit", strings.Repeat("x", maxText), strings.Repeat("x", maxText), strings.Repeat("x", maxText)},
		{"over the limit it ends with an ellipsis", strings.Repeat("x", maxText+1), strings.Repeat("x", maxText) + "…", strings.Repeat("x", maxText) + "…"},
		{"the cut is between characters", "x" + strings.Repeat("é", maxText), "x" + strings.Repeat("é", maxText/2-1) + "…", "x" + strings.Repeat("é", maxText/2-1) + "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			line, read := textOf(t, tt.text)
			if !strings.Contains(line, `"session_type":"`+tt.inLine+`",`) {
				t.Errorf("the line is\n%s\nwant in it %s", line, tt.inLine)
			}
			if read != tt.read {
				t.Errorf("a reader gets %q, want %q", read, tt.read)
			}
		})
	}
}

// Whatever the far end calls itself, the line is one line of JSON that means
// the same to a reader, is safe on a terminal, and has an end.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "3.3.1611.0", "\"\\\n\x00\x9b\xff", "\u009b\u202e\U000e0041", strings.Repeat("é", maxText)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		line, read := textOf(t, s)
		if len(line) > 12*maxText {
			t.Errorf("a text of %d bytes makes a line of %d", len(s), len(line))
		}
		for _, r := range strings.TrimSuffix(line, "\n") {
			if !unicode.IsPrint(r) {
				t.Fatalf("the line has %U in it, which cannot be printed: %s", r, line)
			}
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); len(s) <= maxText && utf8.ValidString(s) && read != want {
			t.Errorf("a reader gets %q, want %q", read, want)
		}
	})
}

// A token is a string; a type that has no place for "anything" can get one
// only under the name of something else.
func TestNoEventHasAMemberForASecret(t *testing.T) {
	secret := regexp.MustCompile(`(?i)token|key|secret|credential|url|header|any|data`)
	for _, e := range documented() {
		typ := reflect.TypeOf(e)
		for i := range typ.NumField() {
			field := typ.Field(i)
			switch kind := field.Type.Kind(); kind {
			case reflect.String, reflect.Int, reflect.Int64:
			default:
				t.Errorf("%s.%s is of kind %s, which may hold anything", typ.Name(), field.Name, kind)
			}
			if secret.MatchString(field.Name) && field.Name != "KMSKeyID" { // which names a key, and is none
				t.Errorf("%s.%s sounds like a secret", typ.Name(), field.Name)
			}
		}
	}
}

// docs/events.md shows each event as it is written.
func TestTheDocumentShowsTheLines(t *testing.T) {
	doc, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	stamp := regexp.MustCompile(`"time":"[^"]*"`)
	shown := regexp.MustCompile(`(?m)^\{"v":.*\}$`).FindAllString(string(doc), -1)
	want := documented()
	if len(shown) != len(want) {
		t.Fatalf("docs/events.md shows %d lines, want one for each of the %d events", len(shown), len(want))
	}
	for i, e := range want {
		line := strings.TrimSuffix(string(encode(noon(), 0, e)), "\n")
		if stamp.ReplaceAllString(shown[i], "") != stamp.ReplaceAllString(line, "") {
			t.Errorf("docs/events.md shows\n%s\nbut %T is written\n%s", shown[i], e, line)
		}
	}
}
