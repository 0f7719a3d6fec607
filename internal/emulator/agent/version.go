package agent

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// features is what an agent of some version can do (docs/protocol.md, "Version
// gates"). Every agent can do Standard_Stream.
type features struct {
	interactiveCommands    bool // since 2.3.668
	nonInteractiveCommands bool // since 3.0.1124
	separateOutput         bool // since 3.1.1511
	reacknowledges         bool // duplicates, since 3.2.1041
}

func featuresOf(version string) features {
	since := func(first string) bool { return compareVersions(version, first) >= 0 }
	return features{
		interactiveCommands:    since("2.3.668"),
		nonInteractiveCommands: since("3.0.1124"),
		separateOutput:         since("3.1.1511"),
		reacknowledges:         since("3.2.1041"),
	}
}

// plays tells whether the agent knows sessions of type t.
func (f features) plays(t frame.SessionType) bool {
	switch t {
	case frame.StandardStream:
		return true
	case frame.InteractiveCommands:
		return f.interactiveCommands
	case frame.NonInteractiveCommands:
		return f.nonInteractiveCommands
	default:
		return false
	}
}

// compareVersions orders versions as the agent does: component by component, as
// numbers when both are numbers and as text otherwise; of two that agree so far
// the longer one is the later. So a client that tells no version is the oldest.
func compareVersions(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, errX := strconv.Atoi(as[i])
		y, errY := strconv.Atoi(bs[i])
		order := cmp.Compare(x, y)
		if errX != nil || errY != nil {
			order = strings.Compare(as[i], bs[i])
		}
		if order != 0 {
			return order
		}
	}
	return cmp.Compare(len(as), len(bs))
}
