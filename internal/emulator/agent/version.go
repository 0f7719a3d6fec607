package agent

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// The first agents that can do a thing (docs/protocol.md, "Version gates").
const (
	encryptedSessions      = "2.3.539"
	randomChallenges       = "3.3.808" // in the encryption context
	interactiveCommands    = "2.3.668"
	nonInteractiveCommands = "3.0.1124"
	ports                  = "2.3.672"
	disconnectFlag         = "2.3.714"  // DisconnectToPort
	terminateFlag          = "2.3.756"  // TerminateSession
	remoteHosts            = "3.1.1188" // of tunnels
	separateStreams        = "3.1.1511"
	reacknowledging        = "3.2.1041" // of duplicates
)

// since tells whether a version is first or later.
func since(version, first string) bool { return compareVersions(version, first) >= 0 }

// plays tells whether an agent of some version knows sessions of type t.
func plays(version string, t frame.SessionType) bool {
	switch t {
	case frame.StandardStream:
		return true
	case frame.InteractiveCommands:
		return since(version, interactiveCommands)
	case frame.NonInteractiveCommands:
		return since(version, nonInteractiveCommands)
	case frame.Port:
		return since(version, ports)
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
