package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
)

// Exit codes of a command that was not run, as shells have them.
const (
	exitCannotRun = 126
	exitNotFound  = 127
)

// localStatus is the status of a program that was run here for the user. It is
// this program's then.
type localStatus struct{ code int }

func (s *localStatus) Error() string { return fmt.Sprintf("the command ended with status %d", s.code) }

// runCommand runs the command over the tunnels that are up, to its end. release
// takes this program's own signals off: they are the command's from now on.
func (c *forwardCommand) runCommand(ctx context.Context, release func() bool, up []*tunnel) error {
	cmd := exec.Command(c.command[0], c.command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.env.in, c.env.out, c.env.err
	cmd.Env = append(os.Environ(), commandEnv(up)...)
	signals := make(chan os.Signal, 8)
	for _, s := range endingSignals() {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	if !release() {
		return context.Cause(ctx) // a signal was first
	}
	if err := cmd.Start(); err != nil {
		return c.cannotRun(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			c.passSignal(cmd.Process, s)
		case err := <-ended:
			return statusOf(err)
		}
	}
}

// passSignal gives the command a signal that came to us, unless it got it itself:
// a key on a terminal is for all programs in front of it.
func (c *forwardCommand) passSignal(p *os.Process, s os.Signal) {
	if (s == os.Interrupt || isQuit(s)) && inFront(c.env.in, c.env.out, c.env.err) {
		return
	}
	if err := p.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.env.log.Debug("cannot pass a signal on", "signal", s.String(), "error", err)
	}
}

// cannotRun says why a command did not begin, with a shell's status for it.
func (c *forwardCommand) cannotRun(err error) error {
	c.env.fail("cannot run the command: %s", oneLine(err.Error()))
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return &localStatus{exitNotFound}
	}
	return &localStatus{exitCannotRun}
}

// statusOf makes the command's end ours: 128 and the number for a signal.
func statusOf(err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return &localStatus{0}
	case !errors.As(err, &exit):
		return fmt.Errorf("cannot wait for the command: %w", err)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &localStatus{exitSignal + int(status.Signal())}
	}
	return &localStatus{exit.ExitCode()}
}

// commandEnv tells a command where the local ends are: the first one of each
// forward, by its place on the command line, and the first of all without number.
func commandEnv(up []*tunnel) []string {
	var vars []string
	first := true
	for i, t := range up {
		if t == nil {
			continue
		}
		suffixes := []string{"_" + strconv.Itoa(i+1)}
		if first {
			suffixes, first = append(suffixes, ""), false
		}
		l := t.listeners[0]
		for _, suffix := range suffixes {
			vars = append(vars, "SSMSESSION_ADDR"+suffix+"="+reachable(l))
			if port := localPortOf(l); port != 0 {
				vars = append(vars, "SSMSESSION_PORT"+suffix+"="+strconv.Itoa(port))
			}
		}
	}
	return vars
}

// reachable is the address at which a local end is to be had: one that listens on
// all addresses is so on loopback.
func reachable(l net.Listener) string {
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return localName(l)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
}
