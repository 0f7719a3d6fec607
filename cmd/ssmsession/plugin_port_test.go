package main

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ssmsession/ssmsession/internal/ports"
	"github.com/ssmsession/ssmsession/internal/session"
)

func TestWhatADocumentForwardsIsUnderstood(t *testing.T) {
	for _, test := range []struct {
		name, properties string
		want             ports.Forward
		err              string
	}{
		{name: "a port of the target", properties: `{"portNumber":"80","type":"LocalPortForwarding","localPortNumber":"8080"}`,
			want: ports.Forward{LocalPort: 8080, Port: 80}},
		{name: "a free local port", properties: `{"portNumber":"80","type":"LocalPortForwarding","localPortNumber":"0"}`,
			want: ports.Forward{Port: 80}},
		{name: "an empty local port", properties: `{"portNumber":"80","localPortNumber":""}`, want: ports.Forward{Port: 80}},
		{name: "another host", properties: `{"host":"db","portNumber":"5432","localPortNumber":"1"}`,
			want: ports.Forward{LocalPort: 1, Host: "db", Port: 5432}},
		{name: "the target by its own name", properties: `{"host":"LocalHost","portNumber":"5432"}`, want: ports.Forward{Port: 5432}},
		{name: "a socket", properties: `{"portNumber":"80","localConnectionType":"unix","localUnixSocket":"/tmp/s","localPortNumber":"x"}`,
			want: ports.Forward{Socket: "/tmp/s", Port: 80}},
		{name: "a socket without a path", properties: `{"portNumber":"80","localConnectionType":"unix"}`,
			err: "the document names no path for its unix socket"},
		{name: "a local port that is none", properties: `{"portNumber":"80","localPortNumber":"x"}`,
			err: `the document's local port is "x", which is no number from 0 to 65535`},
		{name: "a local port that is too high", properties: `{"portNumber":"80","localPortNumber":"65536"}`,
			err: `the document's local port is "65536", which is no number from 0 to 65535`},
		{name: "a remote port below all", properties: `{"portNumber":"-1"}`,
			err: `the document's remote port is "-1", which is no number from 0 to 65535`},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := parsePortProperties([]byte(test.properties))
			if err != nil {
				t.Fatalf("it cannot be read: %v", err)
			}
			got, err := p.forward()
			switch {
			case test.err == "" && err != nil:
				t.Fatalf("it is refused: %v", err)
			case test.err != "" && (err == nil || err.Error() != test.err):
				t.Fatalf("the error is %v, want %q", err, test.err)
			case test.err == "" && got != test.want:
				t.Errorf("it is %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestPropertiesTellSSHFromForwarding(t *testing.T) {
	for properties, want := range map[string]string{
		``:                    "",
		`null`:                "",
		`{"portNumber":"22"}`: "",
		`{"type":"LocalPortForwarding","more":[1]}`: session.LocalPortForwarding,
	} {
		p, err := parsePortProperties([]byte(properties))
		if err != nil || p.Type != want {
			t.Errorf("%s are of type %q, %v, want %q", properties, p.Type, err, want)
		}
	}
	if _, err := parsePortProperties([]byte(`{"localPortNumber":8080}`)); err == nil {
		t.Error("a number that is no text is taken, which agents and AWS's client do not")
	}
}

func TestConnectionsHaveTheTextsOfAWSsClient(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := strings.Cut(l.Addr().String(), ":")
	happened := []session.TunnelEvent{
		{Kind: session.TunnelReady},
		{Kind: session.TunnelOpened}, {Kind: session.TunnelOpened}, {Kind: session.TunnelEnded},
		{Kind: session.TunnelRefused, Err: session.ErrRefused},
		{Kind: session.TunnelRefused, Err: errors.New("another reason")},
	}
	for _, test := range []struct {
		name    string
		forward ports.Forward
		mux     bool
		quiet   bool
		want    string
	}{
		{name: "many at once", mux: true, want: "Port " + port + " opened for sessionId s-1.\nWaiting for connections...\n" +
			"\nConnection accepted for session [s-1]\n\nConnection to destination port failed, check SSM Agent logs.\n"},
		{name: "one after another", want: "Port " + port + " opened for sessionId s-1.\n" +
			"Connection accepted for session s-1.\n\nConnection to destination port failed, check SSM Agent logs.\n"},
		{name: "to a socket", mux: true, forward: ports.Forward{Socket: "/tmp/s"},
			want: "Unix socket /tmp/s opened for sessionId s-1.\nWaiting for connections...\n" +
				"\nConnection accepted for session [s-1]\n\nConnection to destination port failed, check SSM Agent logs.\n"},
		{name: "quietly", mux: true, quiet: true},
	} {
		var b strings.Builder
		texts := &pluginTexts{out: &b, raw: new(atomic.Bool), sessionID: "s-1", quiet: test.quiet}
		tell := texts.connections(&tunnel{listeners: []net.Listener{l}, forward: test.forward}, test.mux)
		for _, ev := range happened {
			tell(ev)
		}
		if b.String() != test.want {
			t.Errorf("%s prints %q, want %q", test.name, b.String(), test.want)
		}
	}
}

func TestAStoppedSessionHasTheTextsOfAWSsClient(t *testing.T) {
	var b strings.Builder
	texts := &pluginTexts{out: &b, raw: new(atomic.Bool), sessionID: "s-1"}
	texts.stopped()
	if want := "Terminate signal received, exiting.\n\n\nExiting session with sessionId: s-1.\n\n"; b.String() != want {
		t.Errorf("it prints %q, want %q", b.String(), want)
	}
	if !texts.ended {
		t.Error("a failure would be told after the end")
	}
	(*pluginTexts)(nil).stopped() // panics if it tells
}

func TestKeysAreSSHsWhereTheCallerHadThemIgnored(t *testing.T) {
	for _, test := range []struct {
		name            string
		unheard, spared bool
		ends            bool
	}{
		{"before it is known that the session is ssh's", true, false, true},
		{"under the AWS CLI", true, true, false},
		{"under a caller that has not", false, true, true},
	} {
		keys := &pluginKeys{unheard: test.unheard}
		keys.spared.Store(test.spared)
		ctx, end := context.WithCancelCause(t.Context())
		keys.take(os.Interrupt, signalKeys(), end)
		if ended := ctx.Err() != nil; ended != test.ends {
			t.Errorf("%s Ctrl-C ends the session: %v", test.name, ended)
		}
		keys.take(os.Kill, signalKeys(), end) // stands for any that is no key
		if ctx.Err() == nil {
			t.Errorf("%s a signal that is no key does nothing", test.name)
		}
	}
}
