package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestTheDocumentIsAsDocumented holds docs/events.md to the members that there are.
func TestTheDocumentIsAsDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "events.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## The document of --output json\n")
	section, _, _ = strings.Cut(section, "\n## ")
	told := map[string]bool{}
	for line := range strings.Lines(section) {
		if cells := strings.SplitN(line, "|", 3); len(cells) == 3 {
			for _, name := range regexp.MustCompile("`([a-z_0-9]+)`").FindAllStringSubmatch(cells[1], -1) {
				told[name[1]] = true
			}
		}
	}
	now, text := time.Now(), "text"
	doc, err := json.Marshal(&result{
		Target: text, Document: text, SessionID: text, Started: &now, ExitBy: "remote", EndedBy: "remote",
		Error:  &resultError{},
		Stdout: &text, Stderr: &text, StdoutBase64: []byte(text), StderrBase64: []byte(text), Truncated: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(doc, &members); err != nil {
		t.Fatal(err)
	}
	for name := range members {
		if !told[name] {
			t.Errorf("docs/events.md does not tell of %q", name)
		}
		delete(told, name)
	}
	for name := range told {
		t.Errorf("docs/events.md tells of %q, which there is not", name)
	}
}

func TestAFailureTakesTimeToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &result{made: time.Now()}
		time.Sleep(3 * time.Second)
		if r.end(exit{code: exitFailed}, nil); r.DurationMS != 3000 {
			t.Errorf("without a session it has taken %d ms, want 3000", r.DurationMS)
		}
		r.begin("session", time.Now())
		time.Sleep(time.Second)
		if r.end(exit{}, nil); r.DurationMS != 1000 {
			t.Errorf("the session has taken %d ms, want 1000", r.DurationMS)
		}
	})
}
