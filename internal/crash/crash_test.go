package crash_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/ssmsession/ssmsession/internal/crash"
)

func explode(v any) (err error) {
	defer crash.Catch(&err)
	panic(v)
}

func TestAPanicBecomesAnError(t *testing.T) {
	err := explode("boom")
	crashed := (*crash.Error)(nil)
	if !errors.As(err, &crashed) {
		t.Fatalf("a panic became %v, which is no *crash.Error", err)
	}
	if got := err.Error(); got != "internal error: boom" {
		t.Errorf("it says %q", got)
	}
	if !strings.Contains(string(crashed.Stack), "explode") {
		t.Errorf("its stack does not name the function that panicked:\n%s", crashed.Stack)
	}
}

// Else a panic with io.EOF would pass for the good end of a session.
func TestAPanicWithAnErrorIsNotThatError(t *testing.T) {
	if err := explode(io.EOF); errors.Is(err, io.EOF) {
		t.Errorf("a panic with an error became %v, which passes for that error", err)
	}
}

func TestARuntimeErrorIsCaught(t *testing.T) {
	var m map[string]int
	err := func() (err error) {
		defer crash.Catch(&err)
		m["x"] = 1
		return nil
	}()
	if err == nil || !strings.Contains(err.Error(), "nil map") {
		t.Errorf("a write to a nil map became %v", err)
	}
}

func TestWithoutAPanicTheErrorStays(t *testing.T) {
	err := func() (err error) {
		defer crash.Catch(&err)
		return io.EOF
	}()
	if !errors.Is(err, io.EOF) {
		t.Errorf("an error became %v without a panic", err)
	}
}

func TestAGuardTellsOfAPanicAlone(t *testing.T) {
	var ended []error
	end := func(err error) { ended = append(ended, err) }
	crash.Guard(end, func() {})
	if len(ended) > 0 {
		t.Errorf("without a panic it ends with %v", ended)
	}
	crash.Guard(end, func() { panic("boom") })
	if len(ended) != 1 || !errors.As(ended[0], new(*crash.Error)) {
		t.Errorf("a panic ends it with %v", ended)
	}
}
