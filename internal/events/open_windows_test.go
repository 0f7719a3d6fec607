package events

import (
	"errors"
	"strings"
	"testing"
)

func TestADescriptorIsRefused(t *testing.T) {
	for _, spec := range []string{"fd:1", "fd:3", "/dev/stderr"} {
		_, err := Open(spec)
		if !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), "name a file") {
			t.Errorf("%s gives %v, want it refused as a spec, and what to do instead", spec, err)
		}
	}
}
