package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/emulator"
	"github.com/ssmsession/ssmsession/internal/session"
)

// emulatorCommand is ssmsession emulator.
type emulatorCommand struct {
	env       *env
	cfg       emulator.Config
	envFile   string
	targets   []string
	tasks     []string
	shell     string
	documents []string
	pace      string
	faults    []string
}

// exampleTarget is what the emulator answers to besides "local", so that a
// client that takes only instance ids has one.
const exampleTarget = "i-0123456789abcdef0"

// exampleTask is the task of ECS that the emulator has.
const exampleTask = emulator.DefaultCluster + "/" + emulator.DefaultTaskID + "/" + emulator.DefaultContainer

func newEmulator(e *env) *cobra.Command {
	c := &emulatorCommand{env: e}
	cmd := &cobra.Command{
		Use:   "emulator",
		Short: "run a local Session Manager to try clients against",
		Long: `Emulator serves the Session Manager API, its message gateway and an agent on this
machine, so that clients can be tried and tested without an AWS account: this
one, the AWS CLI with its plugin, your own scripts.

It gives a shell on this machine, as you, to whoever can call it. It therefore
listens on loopback only (unless --allow-remote), and every call must be signed
with the key that it makes up when it starts.

When it is ready it prints lines for a shell to stdout: export AWS_ENDPOINT_URL
and the rest, which is all a client needs. It stops on Ctrl-C or SIGTERM and
leaves no process and no file behind.`,
		Example: `  ssmsession emulator --env-file emulator.env &
  . ./emulator.env
  aws ssm start-session --target ` + exampleTarget + `
  ssmsession start ` + exampleTarget + `

  ssmsession emulator --deny StartSession
  ssmsession emulator --kms-key arn:aws:kms:us-east-1:111122223333:key/1234
  ssmsession emulator --agent-version 3.0.222.0 --pace real
  ssmsession emulator --fault drop=5% --fault cut=after:30s,close`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.complete(); err != nil {
				return usage(cmd, err)
			}
			err := c.run(cmd.Context())
			if bad := (*emulator.ConfigError)(nil); errors.As(err, &bad) {
				return usage(cmd, bad)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&c.cfg.Listen, "listen", emulator.DefaultListen, "address to listen on; port 0 is a free one")
	f.BoolVar(&c.cfg.AllowRemote, "allow-remote", false, "allow to listen beyond loopback: others may then get a shell")
	f.BoolVar(&c.cfg.TLS, "tls", false, "serve https and wss, with a certificate authority made for this run")
	f.StringVar(&c.envFile, "env-file", "", "write the export lines to this file, too (mode 0600)")
	f.StringArrayVar(&c.targets, "target", []string{emulator.LocalTarget, exampleTarget}, "a target to answer for; may be repeated")
	f.StringArrayVar(&c.tasks, "ecs-task", []string{exampleTask}, "an ECS task to answer for, CLUSTER/TASK/CONTAINER[,CONTAINER]; may be repeated")
	f.StringVar(&c.shell, "shell", "", "command line of a session's shell (default: $SHELL, or sh)")
	f.StringArrayVar(&c.documents, "document", nil, "file with a session document of yours, JSON; may be repeated")
	f.StringVar(&c.cfg.AgentVersion, "agent-version", emulator.DefaultAgentVersion, "which agent to play; older ones can do less")
	f.StringArrayVar(&c.cfg.Deny, "deny", nil, "API action or document that nobody may use; may be repeated")
	f.StringVar(&c.cfg.MFACode, "mfa-code", emulator.DefaultMFACode, "six-digit code with which roles named mfa… are assumed")
	f.StringVar(&c.cfg.AuthorizedKeys, "authorized-keys", "", "file to keep the keys of EC2 Instance Connect in, for an sshd of yours to read")
	f.StringArrayVar(&c.cfg.KMSKeys, "kms-key", nil, "ARN of a KMS key to encrypt sessions with; more of them are keys that there are besides")
	f.StringVar(&c.pace, "pace", string(emulator.PaceOff), "off, or real: the real agent's delays and the service's message limit")
	f.StringArrayVar(&c.faults, "fault", nil, "what is to go wrong, such as drop=5%; may be repeated (see emulator fault)")
	f.Uint64Var(&c.cfg.FaultSeed, "fault-seed", 0, "what the dice of faults are seeded with, to have a bad day again; 0 draws one")
	cmd.AddCommand(newEmulatorFault(e))
	return cmd
}

// complete turns flags into a Config.
func (c *emulatorCommand) complete() error {
	for flag, path := range map[string]string{"env-file": c.envFile, "authorized-keys": c.cfg.AuthorizedKeys} {
		if err := ordinary(path); err != nil {
			return fmt.Errorf("--%s is written anew and removed at the end: %w", flag, err)
		}
	}
	c.cfg.Version = c.env.version
	c.cfg.Pace = emulator.Pace(c.pace)
	faults, err := parseFaults(c.faults)
	if err != nil {
		return err
	}
	c.cfg.Faults = faults
	for _, id := range c.targets {
		c.cfg.Targets = append(c.cfg.Targets, emulator.Target{ID: id})
	}
	for _, s := range c.tasks {
		t, err := emulator.ParseTask(s)
		if err != nil {
			return err
		}
		c.cfg.Tasks = append(c.cfg.Tasks, t)
	}
	c.cfg.Shell = userShell(c.env)
	if c.shell != "" {
		c.cfg.Shell = []string{"sh", "-c", "exec " + c.shell}
	}
	for _, path := range c.documents {
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("cannot read the session document: %w", err)
		}
		d, err := emulator.ParseDocument(data)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if d.Name == "" {
			d.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		}
		c.cfg.Documents = append(c.cfg.Documents, d)
	}
	c.cfg.Log = c.env.log
	return nil
}

// ordinary refuses what is no file to be replaced: root would replace a device.
func ordinary(path string) error {
	if info, err := os.Stat(path); path != "" && err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", path)
	}
	return nil
}

// run serves until it is told to stop, which is a good end.
func (c *emulatorCommand) run(ctx context.Context) (err error) {
	defer heedForChildren()()
	// Sessions are ended by Close, in order, not by the signal.
	server, err := emulator.Start(context.WithoutCancel(ctx), c.cfg)
	if err != nil {
		return fmt.Errorf("cannot start the emulator: %w", err)
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	c.env.say("emulator at %s; whoever has its key gets a shell on this machine", server.URL())
	if c.cfg.AllowRemote && !c.cfg.TLS {
		c.env.say("without --tls, whoever is on the way can read the sessions, and take them over")
	}
	if len(c.cfg.Faults) > 0 {
		c.env.say("faults are on order; the same ones come with --fault-seed %d", server.FaultSeed())
	}
	exports := server.Environment()
	if c.envFile != "" {
		if err := emulator.WriteEnvFile(c.envFile, exports); err != nil {
			return err
		}
		defer func() {
			if removeErr := os.Remove(c.envFile); !errors.Is(removeErr, os.ErrNotExist) {
				err = errors.Join(err, removeErr)
			}
		}()
	}
	if _, err := fmt.Fprint(c.env.out, emulator.ExportLines(exports)); err != nil {
		return &session.WriteError{Err: err}
	}
	<-ctx.Done()
	c.env.say("stopping")
	return nil
}
