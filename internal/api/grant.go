package api

import (
	"fmt"
	"io"
	"log/slog"
)

// Grant is what the service hands out for one session: the answer to
// StartSession or ResumeSession (docs/protocol.md, control API).
type Grant struct {
	// SessionID names the session in every later call.
	SessionID string
	// StreamURL is the address of the data channel, opaque and dialled as it
	// is. After Resume it may be empty or differ: the address of Start stays
	// the session's own.
	StreamURL string
	// Token opens the data channel once. The service lets it expire soon.
	Token Secret
}

// Secret is a text that shows itself to nobody but who calls Reveal. Package
// fmt in all its verbs, slog and the encoders see a placeholder.
//
// It holds a pointer because fmt calls no method of a value that sits in an
// unexported field: a plain string would be printed there, a pointer prints as
// an address. For the same reason == compares identity, not text.
type Secret struct {
	text *string
}

// placeholder stands wherever a secret would.
const placeholder = "[hidden]"

// NewSecret wraps s.
func NewSecret(s string) Secret { return Secret{text: &s} }

// Reveal returns the text, which is empty for the zero Secret. What it returns
// belongs on the wire and nowhere else.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// String returns the placeholder.
func (Secret) String() string { return placeholder }

// GoString returns the placeholder, for %#v.
func (Secret) GoString() string { return placeholder }

// Format writes the placeholder whatever the verb: without it %x and %d would
// reach the fields.
func (Secret) Format(f fmt.State, _ rune) {
	// A fmt.State keeps its own errors: Format has nobody to tell.
	_, _ = io.WriteString(f, placeholder)
}

// LogValue returns the placeholder, for slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(placeholder) }

// MarshalJSON returns the placeholder as a JSON string.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + placeholder + `"`), nil }

// MarshalText returns the placeholder, for the encoders that take text.
func (Secret) MarshalText() ([]byte, error) { return []byte(placeholder), nil }
