//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/emulator"
)

// badDay is a session on a terminal and the service it is held with, on which
// faults are ordered while somebody types.
type badDay struct {
	*user
	server *emulator.Server
}

func startOnABadDay(t *testing.T, flags ...string) *badDay {
	t.Helper()
	server, err := emulator.Start(t.Context(), emulator.Config{
		Targets: []emulator.Target{{ID: exampleTarget}},
		Shell:   []string{"/bin/sh"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("the emulator does not stop: %v", err)
		}
	})
	key, secret := server.Credentials()
	env := childEnv("AWS_ENDPOINT_URL="+server.URL(), "AWS_REGION="+emulator.DefaultRegion,
		"AWS_ACCESS_KEY_ID="+key, "AWS_SECRET_ACCESS_KEY="+secret)
	s := openScreen(t, t.TempDir(), env, screenCols, screenRows,
		append([]string{"ssmsession", "start", exampleTarget}, flags...)...)
	t.Cleanup(s.close)
	d := &badDay{user: &user{screen: s}, server: server}
	d.wantRun("PS1='" + prompt + " '")
	return d
}

// order replaces what goes wrong; by nothing, when nothing is given.
func (d *badDay) order(specs ...string) {
	faults, err := emulator.ParseFaults(specs...)
	if err == nil {
		err = d.server.SetFaults(faults...)
	}
	if err != nil {
		d.t.Fatalf("cannot order %q: %v", specs, err)
	}
}

// cutOff takes the connection away, and does not let it come back before the next
// order. It returns when the user has been told.
func (d *badDay) cutOff() {
	d.order("cut=after:1ms,once", "refuse")
	d.WaitFor("reconnecting")
}

func TestALostConnectionIsShownWhileItLasts(t *testing.T) {
	t.Parallel()
	d := startOnABadDay(t)
	d.cutOff()
	d.WaitMatch(`reconnecting, \d+ s \.\.\. ~\. gives up\s*$`) // on the last row
	d.Type("echo typed in''between\r")
	d.WaitMatch(`reconnecting, [2-9] s`) // it counts
	d.order()
	d.WaitFor("typed inbetween")
	d.WaitGone("reconnecting")
	d.wantRun("true")
	d.Type("exit\r")
	d.wantEnd(0)
}

// TestAShortLossIsNotShown has the screen of a session that was cut equal to one
// that was not, without any redraw.
func TestAShortLossIsNotShown(t *testing.T) {
	t.Parallel()
	d := startOnABadDay(t)
	for range 5 {
		d.order("cut=after:1ms,reset,once")
		d.wantRun("true")
	}
	if shown := d.shown(); strings.Contains(shown, "reconnecting") || strings.Contains(shown, "\x1b7") {
		t.Errorf("losses of some milliseconds were shown: %q", shown)
	}
}

// TestAPasteDuringALossArrivesWhole pastes less than is kept (docs/reliability.md).
func TestAPasteDuringALossArrivesWhole(t *testing.T) {
	t.Parallel()
	d := startOnABadDay(t)
	file := filepath.Join(t.TempDir(), "f")
	d.Type("stty -echo; echo go''ing; cat > " + file + " && echo past''ed\r")
	d.WaitFor("going")
	d.cutOff()
	paste := lines(200_000, 4000)
	d.Type(strings.ReplaceAll(paste, "\n", "\r"))
	d.Type("\x04")
	d.order()
	d.WaitFor("pasted")
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(paste) || sum(string(got)) != sum(paste) {
		t.Errorf("of a paste of %d bytes with sum %x there arrived %d with sum %x", len(paste), sum(paste), len(got), sum(string(got)))
	}
}

// TestTheEscapeEndsReconnecting gives up in the ways that people do. It is no good
// end of a session, unlike the escape from one that works.
func TestTheEscapeEndsReconnecting(t *testing.T) {
	for _, tt := range []struct{ name, keys string }{
		{"after Enter", "\r~."},
		{"after other keys", "ls -l\r~."},
		{"after the keys' help", "\r~?\r~."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := startOnABadDay(t)
			d.cutOff()
			d.Type(tt.keys)
			d.wantEndSoon(255)
			d.WaitFor("left while the session could not be reached")
			d.WaitGone("reconnecting")
		})
	}
}

func TestSignalsEndReconnecting(t *testing.T) {
	t.Parallel()
	d := startOnABadDay(t)
	d.cutOff()
	if err := syscall.Kill(d.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.wantEndSoon(143)
	d.WaitGone("reconnecting")
}

func TestTimeEndsReconnecting(t *testing.T) {
	t.Parallel()
	d := startOnABadDay(t, "--reconnect-timeout", "2s")
	d.cutOff()
	d.wantEnd(255)
	d.WaitFor("session lost: ")
	d.WaitGone("gives up")
}

// TestATargetThatDoesNotAnswerIsShown has a service that answers pings and an
// agent that says nothing any more.
func TestATargetThatDoesNotAnswerIsShown(t *testing.T) {
	t.Parallel()
	d := startOnABadDay(t)
	d.order("silent-agent")
	typed := time.Now()
	d.Type("echo out of the''silence\r")
	d.WaitFor("target does not answer")
	if took := time.Since(typed); took < 9*time.Second {
		t.Errorf("it was told after %v, want no less than 10 s", took)
	}
	d.WaitFor("~. gives up")
	d.order()
	d.WaitFor("out of thesilence")
	d.WaitGone("target does not answer")

	d.order("silent-agent")
	d.Type("\r")
	d.WaitFor("target does not answer")
	d.Type("\r~.")
	d.wantEndSoon(255)
	d.WaitFor("left while the session could not be reached")
	d.WaitGone("target does not answer")
}

// TestAFullScreenProgramOutlivesALoss has vim drawn anew after a loss as it would
// be without one, with its colours.
func TestAFullScreenProgramOutlivesALoss(t *testing.T) {
	t.Parallel()
	needTool(t, "vim")
	file := filepath.Join(t.TempDir(), "letter")
	var text strings.Builder
	for i := range 100 {
		fmt.Fprintf(&text, "%d: dear world, wide as 漢字 and as ever\n", i+1)
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	// Both edit the same file, one after the other, and neither saves it.
	edit := func(lose func(*badDay)) (*badDay, func() string) {
		d := startOnABadDay(t)
		d.Type("vim -N -u NONE -i NONE -n -c 'set ruler hlsearch shortmess+=F' " + file + "\r")
		d.WaitMatch(`1,1 +Top`)
		d.Type("/wide\r3n")
		d.WaitMatch(`4,\d+\S* +Top`)
		lose(d)
		d.Type("40GOgood bye\x1b\x0c")
		d.WaitMatch(`40,8 +\d+%`)
		d.WaitFor("good bye")
		return d, func() string {
			d.mu.Lock()
			defer d.mu.Unlock()
			return fmt.Sprint(d.vt.Render(), "\ncursor at ", d.vt.CursorPosition())
		}
	}
	whole, picture := edit(func(*badDay) {})
	whole.Type(":") // and now vim has drawn all that it wants to
	whole.WaitMatch(`(?m)^:\s*$`)
	want := picture()

	lost, picture := edit(func(d *badDay) {
		d.order("cut=after:1ms,once", "refuse=for:3s")
		d.WaitFor("reconnecting")
		d.WaitGone("reconnecting")
	})
	lost.Type(":")
	lost.WaitMatch(`(?m)^:\s*$`)
	if got := picture(); got != want {
		t.Errorf("after a loss and Ctrl-L the screen is\n%s\nand without a loss\n%s", got, want)
	}
	for _, d := range []*badDay{whole, lost} {
		d.Type("q!\r")
		d.waitPrompt()
		d.Type("exit\r")
		d.wantEnd(0)
	}
}

// wantEndSoon is wantEnd for what the user has asked for, which must not take
// longer than somebody waits who looks at it.
func (d *badDay) wantEndSoon(status int) {
	asked := time.Now()
	d.wantEnd(status)
	if took := time.Since(asked); took > 5*time.Second {
		d.t.Fatalf("it took %v to end", took)
	}
}
