package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/google/shlex"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

var (
	validPrefix   = regexp.MustCompile("^[0-9a-zA-Z\r\n_:-]{0,30}$")
	errNotStarted = errors.New("the command execution has not started yet")
	errPaused     = errors.New("data channel is not active")
	errLeftBehind = errors.New("the process did not end when killed")
)

// separate tells whether stdout, stderr and the exit code travel apart. Older
// agents do not know the property and ignore it.
func (s *session) separate() bool {
	return s.cfg.Document.SeparateOutputStream && since(s.cfg.Version, separateStreams)
}

// command is the program of a session without a terminal, as its input sees it.
type command struct{ process atomic.Pointer[os.Process] }

// input is the handler of such a session. There is no stdin: the first byte of
// a payload that is a control character becomes a signal, and all else is taken
// and thrown away. AWS's agent also waits for the process here, in a race with
// its own main wait that can spoil the exit code; that is left out.
func (c *command) input(t frame.PayloadType, payload []byte) error {
	if t != frame.Output {
		return nil
	}
	for _, b := range payload {
		sig, ok := controlSignal(b)
		if !ok {
			continue
		}
		p := c.process.Load()
		if p == nil {
			return errNotStarted
		}
		return p.Signal(sig)
	}
	return nil
}

// runCommand plays NonInteractiveCommands (docs/protocol.md,
// "NonInteractiveCommands").
func (s *session) runCommand(ctx context.Context, c *command) Result {
	doc := s.cfg.Document
	if err := notEmpty(doc); err != nil {
		return Result{StatusFailed, err.Error()}
	}
	if s.separate() {
		if !validPrefix.MatchString(doc.StdOutPrefix) {
			return Result{StatusFailed, "invalid stdoutSeparatorPrefix " + doc.StdOutPrefix}
		}
		if !validPrefix.MatchString(doc.StdErrPrefix) {
			return Result{StatusFailed, "invalid stderrSeparatorPrefix " + doc.StdErrPrefix}
		}
	}
	argv, err := words(doc.Command)
	if err != nil {
		return s.notBuilt(ctx, fmt.Sprintf("Failed to parse commands input: %v\n", err))
	}
	cmd := s.command(argv)
	ownSession(cmd)
	if s.separate() {
		return s.runSeparate(ctx, c, cmd)
	}
	return s.runBuffered(ctx, c, cmd)
}

// words splits a command that runs without a shell, as a shell does.
func words(command string) ([]string, error) {
	argv, err := shlex.Split(command)
	if err == nil && len(argv) == 0 {
		err = errors.New("there is no word in it") // AWS's agent dies of this one
	}
	return argv, err
}

// notBuilt tells why there is no command to start.
func (s *session) notBuilt(ctx context.Context, reason string) Result {
	text := fmt.Sprintf("Unable to start command: %s\n", reason)
	s.log.Error("no command", "reason", reason)
	if sleep(ctx, 2*s.cfg.Pace.BeforePrompt) == nil {
		s.tell(ctx, text)
	}
	return failed(text)
}

// notStarted tells why a command did not start. In AWS's agent the text with
// "Error occurred starting the command" in front stays in its log: the client
// gets the bare reason, and the result of the session has none.
func (s *session) notStarted(ctx context.Context, reason error) Result {
	s.log.Error("command not started", "err", reason)
	s.tell(ctx, reason.Error())
	s.terminating()
	return Result{Status: StatusFailed}
}

// tell sends the text of an error as stderr, whether the streams are separate
// or not.
func (s *session) tell(ctx context.Context, text string) {
	if sleep(ctx, s.cfg.Pace.BeforePrompt) != nil {
		return
	}
	if err := s.channel.send(frame.StdErr, []byte(text)); err != nil {
		s.log.Debug("error not told", "err", err)
	}
}

func (s *session) terminating() {
	s.channel.drain()
	s.channel.sendState(s.cfg.SessionID, stateTerminating)
}

// runSeparate runs cmd with stdout and stderr apart and live, and its exit code
// after them. A cancelled command has no exit code.
func (s *session) runSeparate(ctx context.Context, c *command, cmd *exec.Cmd) Result {
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return s.notBuilt(ctx, fmt.Sprintf("Failed to create command output pipe, error: %v\n", err))
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		s.close(stdout)
		return s.notBuilt(ctx, fmt.Sprintf("Failed to create command err pipe, error: %v\n", err))
	}
	if err := cmd.Start(); err != nil {
		s.sendExitCode(1)
		return s.notStarted(ctx, err)
	}
	c.process.Store(cmd.Process)
	stop := onCancel(ctx, func() {
		killSession(cmd.Process)
		// Whoever escaped the kill may hold the other ends.
		s.close(stdout)
		s.close(stderr)
	})
	ended := make(chan error, 2)
	s.readers.Go(func() { ended <- s.stream(stdout, frame.Output, s.cfg.Document.StdOutPrefix) })
	s.readers.Go(func() { ended <- s.stream(stderr, frame.StdErr, s.cfg.Document.StdErrPrefix) })

	status := StatusSuccess
	for range 2 {
		select {
		case err := <-ended:
			if err != nil {
				s.log.Error("output of the command is incomplete", "err", err)
				status = StatusFailed
			}
		case <-ctx.Done():
		}
	}
	err = s.reap(ctx, cmd) // once the pipes are empty, for it closes them
	stop()
	killSession(cmd.Process)
	if ctx.Err() != nil {
		status = StatusSuccess
	} else {
		s.sendExitCode(exitCode(err))
	}
	s.terminating()
	return Result{Status: status}
}

// reap waits for the end of cmd, whom ctx kills. A process that the emulator may
// not kill, such as one of another user, is left behind two seconds later.
func (s *session) reap(ctx context.Context, cmd *exec.Cmd) error {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		s.log.Error("a process did not end when killed", "pid", cmd.Process.Pid)
		return errLeftBehind
	}
}

// exitCode reads the exit code out of the error of Wait: -1 for a death by
// signal, 1 when there is none.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		return 1
	}
}

// sendExitCode sends the exit code, unless output is paused: then nobody ever
// learns it.
func (s *session) sendExitCode(code int) {
	err := errPaused
	if s.channel.active() {
		err = s.channel.send(frame.ExitCode, frame.AppendExitCode(nil, int64(code)))
	}
	if err != nil {
		s.log.Error("exit code not sent", "code", code, "err", err)
	}
}

// stream sends one output of the command, live. The prefix goes in front of the
// first chunk and of each chunk after one that ended a line. A pause is an error
// and the end of the reading, as it is for AWS's agent.
func (s *session) stream(r io.Reader, t frame.PayloadType, prefix string) error {
	size := payloadSize - len(prefix)
	buf := make([]byte, maxHeld+payloadSize)
	held := 0
	front := prefix
	for {
		if !s.channel.active() {
			return errPaused
		}
		// The prefix goes behind what was held of the last chunk.
		start := held + len(front)
		n, err := r.Read(buf[start : start+size])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the output of the command: %w", err)
		}
		copy(buf[held:], front)
		front = ""
		if n == 0 || buf[start+n-1] == '\n' {
			front = prefix
		}
		out, rest := repair(buf[:start+n])
		if err := s.channel.send(t, out); err != nil {
			return err
		}
		held = copy(buf, rest)
	}
}

// runBuffered runs cmd with both outputs into one file, and sends the file when
// the command has ended. Nobody learns the exit code.
func (s *session) runBuffered(ctx context.Context, c *command, cmd *exec.Cmd) Result {
	out, err := os.CreateTemp("", "ssmsession-output-") // readable by us alone
	if err != nil {
		return s.notBuilt(ctx, fmt.Sprintf("Failed to open file for writing command output. error: %v\n", err))
	}
	defer s.removeOutput(out)
	// Its own offset: ours begins at the start.
	in, err := os.OpenFile(out.Name(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return s.notBuilt(ctx, fmt.Sprintf("Failed to open file for writing command output. error: %v\n", err))
	}
	cmd.Stdout, cmd.Stderr = in, in
	err = cmd.Start()
	s.close(in)
	if err != nil {
		return s.notStarted(ctx, err)
	}
	c.process.Store(cmd.Process)
	stop := onCancel(ctx, func() { killSession(cmd.Process) })
	if err := s.reap(ctx, cmd); err != nil {
		s.log.Debug("the command ended", "err", err)
	}
	stop()
	killSession(cmd.Process)

	// A command that was cancelled is heard out; a cancellation that comes
	// later ends the telling.
	hearing := ctx
	if ctx.Err() != nil {
		hearing = s.channel.link
	}
	if err := s.pump(hearing, out); err == nil {
		s.terminating()
	}
	return Result{Status: StatusSuccess}
}

func (s *session) removeOutput(f *os.File) {
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		s.log.Warn("cannot remove the output of the command", "err", err)
	}
}
