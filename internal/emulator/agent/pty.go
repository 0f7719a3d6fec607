package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// payloadSize is how much output goes into one message, in bytes; with what was
// held of the last read it can be maxHeld more.
const payloadSize = 1024

// errNoPTY is for systems where the emulated agent has none.
var errNoPTY = errors.New("this system has no pty for the emulated agent")

// terminal is a pty with a program on it, the agent's end. Close makes reads
// and writes end at once.
type terminal interface {
	io.ReadWriteCloser
	resize(cols, rows uint32) error
}

// runPTY plays the types that have a terminal (docs/protocol.md, "Session
// types"). The end of the pty is a success whatever the program's status was,
// and so is a cancellation.
func (s *session) runPTY(ctx context.Context) Result {
	if !PTYSupported() {
		return Result{StatusFailed, fmt.Sprintf("%v, which %s sessions need", errNoPTY, s.cfg.Document.SessionType)}
	}
	if s.cfg.Document.SessionType == frame.InteractiveCommands {
		if err := notEmpty(s.cfg.Document); err != nil {
			return Result{StatusFailed, err.Error()}
		}
	}
	argv, err := s.ptyCommand()
	if err != nil {
		return s.noPTY(ctx, fmt.Sprintf("Failed to parse commands input: %v", err))
	}
	cmd := s.command(argv)
	term, err := startPTY(cmd)
	if err != nil {
		return s.noPTY(ctx, fmt.Sprintf("Failed to start pty: %v", err))
	}
	// Closed first, for the hangup reaches processes that may not be killed.
	end := func() {
		s.close(term)
		killSession(cmd.Process)
	}
	stop := onCancel(ctx, end)
	result := s.attend(ctx, term)
	stop()
	// AWS's agent leaves what runs in the background where it is.
	end()
	if err := s.reap(ctx, cmd); err != nil {
		s.log.Debug("the program on the pty ended", "err", err)
	}
	return result
}

// noPTY is the end of a session whose program did not start. The reason reaches
// the user with the result only.
func (s *session) noPTY(ctx context.Context, reason string) Result {
	s.log.Error("no pty", "reason", reason)
	if sleep(ctx, 2*s.cfg.Pace.BeforePrompt) != nil {
		return Result{Status: StatusCancelled}
	}
	return failed(fmt.Sprintf("Unable to start command: %s\n\n", reason))
}

// ptyCommand is the command line of the program on the pty. The error is that of
// a command whose quotes do not match.
func (s *session) ptyCommand() ([]string, error) {
	doc := s.cfg.Document
	switch {
	case doc.SessionType == frame.InteractiveCommands && s.cfg.ContainerMode:
		return words(doc.Command)
	case doc.SessionType == frame.InteractiveCommands:
		return []string{"sh", "-c", doc.Command}, nil
	case len(s.cfg.Shell) == 0:
		return []string{"sh"}, nil
	default:
		return s.cfg.Shell, nil
	}
}

func notEmpty(doc Document) error {
	if strings.TrimSpace(doc.Command) == "" {
		return agentError(fmt.Sprintf("Commands cannot be empty for session type %s", doc.SessionType))
	}
	return nil
}

// command makes a command with the environment of a session.
func (s *session) command(argv []string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	env := s.cfg.Env
	if env == nil {
		env = os.Environ()
	}
	cmd.Dir = s.cfg.Dir
	cmd.Env = append(env[:len(env):len(env)], "TERM=xterm-256color")
	hasLang := false
	for _, v := range env {
		hasLang = hasLang || strings.HasPrefix(v, "LANG=") && v != "LANG="
	}
	if !hasLang {
		cmd.Env = append(cmd.Env, "LANG=C.UTF-8")
	}
	return cmd
}

// attend connects the terminal with the channel until the terminal ends or the
// session is cancelled.
func (s *session) attend(ctx context.Context, term terminal) Result {
	takeInput := func() {
		s.channel.handle(func(t frame.PayloadType, payload []byte) error {
			return ptyInput(term, t, payload)
		})
	}
	profile := s.cfg.Document.ShellProfile
	typed := s.cfg.Document.SessionType == frame.StandardStream && strings.TrimSpace(profile) != ""
	if !typed {
		takeInput()
	}
	ended := make(chan error, 1)
	s.readers.Go(func() {
		err := sleep(ctx, s.cfg.Pace.BeforePrompt)
		if err == nil {
			err = s.pump(ctx, term)
		}
		ended <- err
	})
	if typed {
		if _, err := io.WriteString(term, profile+"\n"); err != nil && ctx.Err() == nil {
			s.log.Error("cannot type the shell profile", "err", err)
			return Result{Status: StatusFailed}
		}
		// Only now, so that the profile comes before what the user types; what
		// has come already was not acknowledged and will come again.
		takeInput()
	}
	select {
	case <-ctx.Done():
	case err := <-ended:
		// When ctx is over the program was killed: no goodbye then.
		if err == nil && ctx.Err() == nil {
			s.channel.drain()
			s.channel.sendState(s.cfg.SessionID, stateTerminating)
		}
	}
	return Result{Status: StatusSuccess}
}

// ptyInput is the handler of sessions with a terminal. Types it does not know
// are taken and ignored.
func ptyInput(term terminal, t frame.PayloadType, payload []byte) error {
	switch t {
	case frame.Output:
		_, err := term.Write(payload)
		return err
	case frame.Size:
		// Not frame.TerminalSize: the agent's numbers are unsigned, and it
		// refuses others.
		var size struct {
			Cols uint32 `json:"cols"`
			Rows uint32 `json:"rows"`
		}
		if err := json.Unmarshal(payload, &size); err != nil {
			return fmt.Errorf("terminal size: %w", err)
		}
		return term.resize(size.Cols, size.Rows)
	default:
		return nil
	}
}

// pump sends what r gives as output, until its end. An error is that of the
// session; any end of r is a good end. What was held for the next read is lost
// then.
func (s *session) pump(ctx context.Context, r io.Reader) error {
	reader := bufio.NewReader(r)
	buf := make([]byte, maxHeld+payloadSize)
	held := 0
	for {
		if err := s.channel.awaitActive(ctx); err != nil {
			return err
		}
		n, err := reader.Read(buf[held : held+payloadSize])
		if err != nil {
			s.log.Debug("output ended", "err", err)
			return nil
		}
		out, rest := repair(buf[:held+n])
		if err := s.channel.send(frame.Output, out); err != nil {
			return err
		}
		held = copy(buf, rest)
		if s.cfg.Pace.PerMessage > 0 {
			if err := sleep(ctx, s.cfg.Pace.PerMessage); err != nil {
				return err
			}
		}
	}
}
