package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/emulator"
	"github.com/ssmsession/ssmsession/internal/session"
)

// noFaults is the word for none.
const noFaults = "off"

func newEmulatorFault(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "fault [FAULT... | off]",
		Short: "make things go wrong in an emulator that runs",
		Long: `Fault replaces the faults of a running emulator by those that are named, or by
none. Without arguments it prints those that are set. It finds the emulator by
the variables that this has printed when it started: read its --env-file first.

A fault is NAME or NAME=ARGUMENT,ARGUMENT in any order, here and for --fault of
the emulator itself:

` + faultHelp() + `
DIR is to-client or to-agent, else it is both ways. WINDOW is after:T and for:T,
both or either. TIMES is times:N or once, for each session. T is a time such as
200ms, 3s or 1h.`,
		Example: `  ssmsession emulator --fault drop=5% --fault duplicate=5%,to-client &
  ssmsession emulator fault cut=after:3s,close resume=ThrottlingException,times:3
  ssmsession emulator fault off`,
		RunE: func(cmd *cobra.Command, args []string) error {
			faults, err := parseFaults(args)
			if err != nil {
				return usage(cmd, err)
			}
			remote, err := emulator.NewRemote(e.getenv)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				return notThere(e, remote.SetFaults(cmd.Context(), faults...))
			}
			return printFaults(cmd.Context(), e, remote)
		},
	}
}

// faultHelp is all faults, two lines each.
func faultHelp() string {
	var b strings.Builder
	for _, form := range emulator.FaultForms() {
		fmt.Fprintf(&b, "  %s\n      %s\n", form[0], form[1])
	}
	return b.String()
}

// parseFaults reads faults, or the word for none.
func parseFaults(args []string) ([]emulator.Fault, error) {
	if slices.Equal(args, []string{noFaults}) {
		return nil, nil
	}
	return emulator.ParseFaults(args...)
}

// notThere says of an emulator that cannot be reached what to do.
func notThere(e *env, err error) error {
	if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
		return &failure{code: api.CodeNetwork, err: fmt.Errorf("no emulator at %s: %w", e.getenv("AWS_ENDPOINT_URL"), dial.Err),
			hint: "each one has an address of its own: read the --env-file of one that runs"}
	}
	return err
}

// printFaults prints the faults that are set, one a line, as they are written.
func printFaults(ctx context.Context, e *env, remote *emulator.Remote) error {
	faults, seed, err := remote.Faults(ctx)
	if err != nil {
		return notThere(e, err)
	}
	if len(faults) == 0 {
		e.say("no fault is set")
		return nil
	}
	e.say("the faults come with --fault-seed %d", seed)
	for _, fault := range faults {
		if _, err := fmt.Fprintln(e.out, fault); err != nil {
			return &session.WriteError{Err: err}
		}
	}
	return nil
}
