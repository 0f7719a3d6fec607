package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/ports"
)

// maxPort is the highest port that there is.
const maxPort = 65535

// complete reads the command line into what run needs.
func (c *forwardCommand) complete(cmd *cobra.Command, args []string) error {
	targets, command, dashes := splitAtDashes(cmd, args)
	err := c.open.complete(cmd, c.env, targets[:min(len(targets), 1)])
	switch {
	case len(targets) > 1 && !dashes:
		return usage(cmd, fmt.Errorf("a target is one word, and what to forward goes behind -L: %s", strings.Join(targets[1:], " ")))
	case len(targets) > 1:
		return usage(cmd, fmt.Errorf("more than one target was given: %s", strings.Join(targets, " ")))
	case err != nil:
		return err
	case dashes && len(command) == 0:
		return usage(cmd, errors.New("there is no command behind --"))
	case c.background && len(command) > 0:
		return usage(cmd, errors.New("-f and a command do not go together: the command is what is waited for"))
	case c.halfCloseWait < 0:
		return usage(cmd, errors.New("--half-close-wait is a time such as 2s"))
	}
	if c.forwards, err = c.parseForwards(cmd.Flags().Changed); err != nil {
		return usage(cmd, err)
	}
	for _, name := range []string{"portNumber", "localPortNumber", "host"} {
		if _, given := c.open.parsed[name]; given {
			return usage(cmd, fmt.Errorf("--parameters has %q, which forward sets itself", name))
		}
	}
	c.parameters, c.command = c.open.parsed, command
	c.open.unannounced = true
	// The document that is printed is the array of what is ready, and with a
	// command stdout is not ours.
	c.asJSON, c.env.result.asked = c.env.result.asked, c.env.result.asked && len(command) == 0
	return nil
}

// parseForwards reads what is to be forwarded, in the order of the command line.
func (c *forwardCommand) parseForwards(given func(string) bool) ([]ports.Forward, error) {
	var all []ports.Forward
	for _, spec := range c.specs {
		f, err := ports.ParseForward(spec)
		if err != nil {
			return nil, fmt.Errorf("-L: %w", err)
		}
		all = append(all, f)
	}
	switch {
	case given("remote-port"):
		if c.remotePort < 1 || c.remotePort > maxPort {
			return nil, fmt.Errorf("--remote-port is a number from 1 to %d, not %d", maxPort, c.remotePort)
		}
		if c.localPort < 0 || c.localPort > maxPort {
			return nil, fmt.Errorf("--local-port is a number from 0 to %d, not %d", maxPort, c.localPort)
		}
		all = append(all, ports.Forward{LocalPort: c.localPort, Host: c.remoteHost, Port: c.remotePort})
	case given("local-port"), given("remote-host"):
		return nil, errors.New("--local-port and --remote-host go with --remote-port")
	}
	if len(all) == 0 {
		return nil, errors.New("nothing to forward: name it with -L, such as -L 8080:80")
	}
	return all, nil
}

// remoteName is the destination as people read it.
func remoteName(f ports.Forward, target string) string {
	host := f.Host
	if host == "" {
		host = target
	}
	return net.JoinHostPort(host, strconv.Itoa(f.Port))
}

// localName is a local end as people read it.
func localName(l net.Listener) string { return l.Addr().String() }

// localPortOf is the port of a local end, 0 for a socket's.
func localPortOf(l net.Listener) int {
	if tcp, ok := l.Addr().(*net.TCPAddr); ok {
		return tcp.Port
	}
	return 0
}

// opening is that of a session for f, whose local port is known.
func (c *forwardCommand) opening(f ports.Forward, localPort int) *opening {
	o := c.open
	document, parameters := documentPort, map[string][]string{
		"portNumber":      {strconv.Itoa(f.Port)},
		"localPortNumber": {strconv.Itoa(localPort)},
	}
	if f.Host != "" {
		document = documentRemoteHost
		parameters["host"] = []string{f.Host}
	}
	maps.Copy(parameters, c.parameters)
	if o.document == "" {
		o.document = document
	}
	o.parsed = parameters
	return &o
}
