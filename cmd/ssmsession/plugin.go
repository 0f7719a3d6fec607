package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/ssmsession/ssmsession/internal/api"
	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/plugin"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
	"github.com/ssmsession/ssmsession/internal/tty"
)

// pluginName is the name under which this program stands in for AWS's client.
const pluginName = "session-manager-plugin"

// calledAsPlugin tells that by the name this program was called by. Windows adds
// an ending and has no cases.
func calledAsPlugin(argv []string) bool {
	if len(argv) == 0 {
		return false
	}
	name := strings.ToLower(filepath.Base(argv[0]))
	return strings.TrimSuffix(name, ".exe") == pluginName
}

// The variables that change what is said in the plugin's place.
const (
	quietVariable    = "SSMSESSION_QUIET"
	exitCodeVariable = "SSMSESSION_PLUGIN_EXIT_CODE"
	requireVariable  = "SSMSESSION_REQUIRE_ENCRYPTION"
)

// runPlugin is the whole program in the plugin's place, but for the exit itself.
func runPlugin(args []string, e *env) exit {
	// Nothing that runs later, and is told the environment, is told the token.
	v, err := plugin.Parse(args, func(name string) (string, bool) {
		value := e.getenv(name)
		return value, os.Unsetenv(name) == nil && value != ""
	})
	e.texts = &pluginTexts{out: e.out, quiet: e.getenv(quietVariable) == "1", raw: &e.people.raw}
	e.quiet = e.texts.quiet
	switch {
	case err != nil:
		return e.finishPlugin(err)
	case v.Action == plugin.Session:
		return e.finishPlugin(holdAsPlugin(e, v))
	case v.Action == plugin.Version:
		e.texts.answer(stream.DefaultClientVersion + "\n")
	case v.Action == plugin.UnknownOperation:
		e.texts.answer(fmt.Sprintf(plugin.UnknownOperationText, v.Word))
	case v.Action == plugin.InvalidOperation:
		e.texts.answer(plugin.InvalidOperationText)
	default:
		e.texts.tell(plugin.InstalledText)
	}
	return exit{}
}

// holdAsPlugin holds the session that a caller has started.
func holdAsPlugin(e *env, v plugin.Invocation) (err error) {
	defer crash.Catch(&err)
	ctx, keys, stop := withPluginSignals(context.Background())
	defer stop()
	// What the flags of connect are without any, and what they are said to be.
	cmd := &cobra.Command{Use: pluginName}
	s := &startCommand{env: e, terminal: tty.New(e.in, e.out)}
	s.open.addChannelFlags(cmd.Flags())
	s.open.addKeyFlags(cmd.Flags())
	if err := s.open.completeChannel(cmd, e); err != nil {
		return err
	}
	s.open.region, s.open.profile, s.open.endpoint = v.Region, v.Profile, v.Endpoint
	s.open.target, s.open.document = v.Target, v.DocumentName
	e.result.Target, e.result.Document = v.Target, v.DocumentName
	s.open.take(v.Response)
	s.open.encrypted = e.getenv(requireVariable) == "1" && !isTunnel(v.DocumentName)
	e.texts.sessionID = v.Response.SessionID
	e.status = s.statusLine()
	if v.DocumentName == documentSSH {
		e.quiet = true // the terminal is ssh's, and may be raw
	}
	return (&givenSession{startCommand: s, stopped: ctx, keys: keys}).hold()
}

// finishPlugin tells how the session ended, as far as the session has not, and
// with what code: callers expect 0 unless something failed here.
func (e *env) finishPlugin(err error) exit {
	x := exitOf(err)
	if told := (*session.ExitError)(nil); errors.As(err, &told) && x.signal == nil && e.getenv(exitCodeVariable) != "1" {
		x.code = 0
	}
	p := explain(err)
	if p == nil {
		return x
	}
	if x.code == exitUsage {
		x.code = exitFailed // the command line is the caller's
	}
	switch {
	case e.texts.ended: // it has been told
	case errors.Is(err, api.ErrSessionOver):
		e.texts.tell(fmt.Sprintf(plugin.TimedOutText, e.texts.sessionID))
	default:
		e.texts.tell(fmt.Sprintf(plugin.FailedText, oneLine(p.message)))
	}
	if e.texts.quiet || !tty.New(e.in, e.out).OutIsTerminal() {
		e.fail("%s", oneLine(p.message)) // who reads stderr has not read it yet
	}
	if p.hint != "" {
		e.people.printf("hint: %s\n", oneLine(p.hint))
	}
	if p.stack != "" {
		e.people.printf("%s", p.stack)
	}
	return x
}

// pluginTexts prints what AWS's client prints of a session. Nil is no plugin, and
// prints nothing.
type pluginTexts struct {
	out       io.Writer
	raw       *atomic.Bool // of the terminal
	quiet     bool
	sessionID string
	ended     bool
}

// answer prints what a caller has asked for, quiet or not.
func (t *pluginTexts) answer(text string) {
	if t.raw.Load() {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	_, _ = io.WriteString(t.out, text) // nobody reads: the session's bytes meet the same
}

// tell prints a text, in which there may be words of the far end's.
func (t *pluginTexts) tell(text string) {
	if t != nil && !t.quiet {
		t.answer(withoutControls(text))
	}
}

// withoutControls keeps remote-controlled text from moving the cursor or turning
// letters around, and leaves its lines.
func withoutControls(text string) string {
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == '\n', r == '\t', r == '\r' && strings.HasPrefix(text[i:], "\r\n"), unicode.IsGraphic(r):
			b.WriteRune(r)
		default:
			writeEscaped(&b, r)
		}
	}
	return b.String()
}

// starting is said before the data channel is dialled.
func (t *pluginTexts) starting() { t.tell(fmt.Sprintf(plugin.StartingText, t.sessionID)) }

// message is the agent's at the end of a handshake.
func (t *pluginTexts) message(text string) { t.tell(text + "\n") }

// closed is said when the service has closed the session, for good or ill.
func (t *pluginTexts) closed(c *stream.Closed) {
	if t == nil || c == nil {
		return
	}
	if t.ended = true; c.Output == "" {
		t.tell(fmt.Sprintf(plugin.ExitingText, t.sessionID))
		return
	}
	t.tell(fmt.Sprintf(plugin.ClosedText, t.sessionID, c.Output))
}

// stopped is said of a session that ends from this side.
func (t *pluginTexts) stopped() {
	if t != nil {
		t.tell(plugin.StoppedText + fmt.Sprintf(plugin.ExitingText, t.sessionID))
		t.ended = true
	}
}

// pluginKeys are the signals that are keys: what a terminal makes of Ctrl-C,
// Ctrl-\ and Ctrl-Z belongs to the far end once the session has begun.
type pluginKeys struct {
	typed chan byte
	begun atomic.Bool
	// unheard tells that the caller had them ignored, and spared that they are to
	// do nothing then.
	unheard bool
	spared  atomic.Bool
}

// carry sends them from the session's beginning on.
func (k *pluginKeys) carry(ctx context.Context, peer session.Peer) (err error) {
	defer crash.Catch(&err)
	if _, err := peer.Started(ctx); err != nil {
		return err
	}
	k.begun.Store(true)
	for {
		select {
		case key := <-k.typed:
			if err := peer.Send(ctx, frame.Output, []byte{key}); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// withPluginSignals gives a context that SIGTERM and SIGHUP end, and the keys. To
// ask for a signal is to get it though the caller has had it ignored, as the AWS
// CLI has those of the keys. Before the session begins these end it: there is
// nobody else to end an opening that hangs.
func withPluginSignals(parent context.Context) (ctx context.Context, keys *pluginKeys, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	keys = &pluginKeys{typed: make(chan byte, 64), unheard: signal.Ignored(os.Interrupt)}
	signals := make(chan os.Signal, 8)
	names := signalKeys()
	for s := range names {
		signal.Notify(signals, s)
	}
	for _, s := range endingSignals() {
		if _, isKey := names[s]; !isKey && !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	stopPipes := catchBrokenPipes()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case s := <-signals:
				keys.take(s, names, cancel)
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, keys, func() {
		signal.Stop(signals)
		stopPipes()
		cancel(nil)
		<-done
	}
}

// take does what a signal is for.
func (k *pluginKeys) take(s os.Signal, names map[os.Signal]signalKey, end context.CancelCauseFunc) {
	key, isKey := names[s]
	switch {
	case isKey && k.unheard && k.spared.Load():
	case !isKey, !k.begun.Load() && key.ends:
		end(&signalError{s})
	case k.begun.Load():
		select {
		case k.typed <- key.char:
		default: // a far end that takes nothing gets no more keys
		}
	}
}

// signalKey is the key that a signal comes of.
type signalKey struct {
	char byte
	ends bool // a session that has not begun
}

// isTunnel tells the documents of AWS's whose sessions no agent encrypts.
func isTunnel(document string) bool {
	return document == documentSSH || strings.HasPrefix(document, documentPort)
}
