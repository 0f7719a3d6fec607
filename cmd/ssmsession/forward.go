package main

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ssmsession/ssmsession/internal/ports"
	"github.com/ssmsession/ssmsession/internal/session"
)

// The session documents of forward: for a port of the target itself, and for one
// of a host that the target reaches.
const (
	documentPort       = "AWS-StartPortForwardingSession"
	documentRemoteHost = "AWS-StartPortForwardingSessionToRemoteHost"
)

// forwardCommand is ssmsession forward.
type forwardCommand struct {
	env  *env
	open opening

	specs         []string // of -L, as given
	localPort     int
	remotePort    int
	remoteHost    string
	bestEffort    bool
	background    bool
	pidFile       string
	keepAlive     bool
	halfCloseWait time.Duration

	forwards   []ports.Forward
	status     *forwardStatus      // nil where there is none
	command    []string            // behind the two dashes; empty for none
	parameters map[string][]string // the user's own
	asJSON     bool                // the ready lines
}

func newForward(e *env) *cobra.Command {
	c := &forwardCommand{env: e}
	cmd := &cobra.Command{
		Use:   "forward [-t TARGET | TARGET] -L [BIND:]PORT:[HOST:]PORT… [flags] [-- COMMAND [ARG…]]",
		Short: "carry local ports to a target and beyond",
		Long: `Forward listens on local ports and carries the connections that are made to them
through a managed node: to a port of the node itself, or of a host that it
reaches. Any number of -L may be given; each has a session of its own.

  -L 5432                     local port 5432 to port 5432 of the target
  -L 8080:80                  local port 8080 to port 80 of the target
  -L 0:db.internal:5432       a free local port to another host
  -L [::1]:8080:web:80        one local address
  -L /run/db.sock:db:5432     a local unix socket, for you alone

Without an address, connections are taken on 127.0.0.1 and ::1, so from this
machine only. Of three parts, a first one that is a number is the local port.

When all is ready, and not before, there is one line on stdout for each local
end:  127.0.0.1:43211 -> db.internal:5432. With --output json it is one array.
If any cannot be had, the exit code is 255 and there are no lines;
--best-effort goes on with the others.

A command behind -- is run once all is ready, with SSMSESSION_PORT and
SSMSESSION_ADDR in its environment (SSMSESSION_PORT_1, _PORT_2, … for several).
Forward ends when it does, with its exit code. The lines go to stderr then.

What the destination refuses ends that one connection, and is told on stderr. A
lost connection to the service is got back underneath, with nothing lost. A
session that the service ended is started anew for the next connection.

Forward ends by Ctrl-C (130), SIGTERM (143) or SIGHUP (129).`,
		Example: `  ssmsession forward i-0123456789abcdef0 -L 8080:80
  ssmsession forward -t i-0123456789abcdef0 -L 5432:db.internal:5432 -L 6379
  ssmsession forward i-0123456789abcdef0 -L 0:db.internal:5432 -- \
      sh -c 'psql -h 127.0.0.1 -p $SSMSESSION_PORT -c "select 1"'
  ssmsession forward -f --pid-file db.pid i-0123456789abcdef0 -L 5432
  ssmsession forward --target local -L 8080:80`,
		// One that goes to the background leaves all outputs to the one there.
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if c.leads() {
				return nil
			}
			return e.report.open(cmd)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.complete(cmd, args); err != nil {
				return err
			}
			if c.leads() {
				return c.goToBackground(cmd.Context())
			}
			return c.run(cmd.Context())
		},
	}
	c.addFlags(cmd.Flags())
	without(cmd, tunnelsLack())
	return cmd
}

func (c *forwardCommand) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringArrayVarP(&c.specs, "local", "L", nil, "what to forward: [BIND:]PORT:[HOST:]PORT or SOCKET:[HOST:]PORT; may be repeated")
	f.IntVar(&c.localPort, "local-port", 0, "with --remote-port, the local port; 0 for a free one")
	f.IntVar(&c.remotePort, "remote-port", 0, "the remote port, as -L LOCAL:HOST:PORT has it")
	f.StringVar(&c.remoteHost, "remote-host", "", "with --remote-port, the remote host (default: the target itself)")
	f.BoolVar(&c.bestEffort, "best-effort", false, "go on when some cannot be had")
	f.BoolVarP(&c.background, "background", "f", false, "go to the background once all is ready (not on Windows)")
	f.StringVar(&c.pidFile, "pid-file", "", "write the process id to this file once all is ready, and remove it at the end")
	f.BoolVar(&c.keepAlive, "keepalive", false, "keep the session from being idle, where the agent takes it")
	f.DurationVar(&c.halfCloseWait, "half-close-wait", session.DefaultHalfCloseWait,
		"how long the far side must be silent until it is told that the near one has ended")
	c.open.addFlags(f)
	c.open.addOutputFlag(f, "once all is ready")
	f.Lookup("document-name").Usage = "session document of the same kind (default: " + documentPort +
		", or with a host " + documentRemoteHost + ")"
}
