package emulator

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// TestSSHSessionThroughTheGateway plays a whole session of type Port, with a
// destination that speaks first, is answered, and ends.
func TestSSHSessionThroughTheGateway(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	destination := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			destination <- err
			return
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "SSH-2.0-there\r\n"); err != nil {
			destination <- err
			return
		}
		got := make([]byte, 16)
		if _, err = io.ReadFull(conn, got); err == nil && string(got) != "SSH-2.0-here\r\n\n\xff" {
			err = fmt.Errorf("the destination got %q", got)
		}
		destination <- err
	}()
	s := startServer(t, Config{})
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	g := mustStart(t, s, `{"Target":"local","DocumentName":"AWS-StartSSHSession","Parameters":{"portNumber":["`+port+`"]}}`)
	p := connect(t, s, g)
	p.wantOutput("SSH-2.0-there\r\n")
	p.send(frame.Output, []byte("SSH-2.0-here\r\n\n\xff"))
	closed := p.wantClosed()
	if closed.Output != "" {
		t.Errorf("the session ended with the words %q", closed.Output)
	}
	select {
	case err := <-destination:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("the destination got nothing")
	}
}

func TestTunnelToNowhereSaysSo(t *testing.T) {
	s := startServer(t, Config{})
	g := mustStart(t, s, `{"Target":"local","DocumentName":"AWS-StartPortForwardingSessionToRemoteHost",`+
		`"Parameters":{"host":["169.254.169.254"],"portNumber":["80"]}}`)
	p := connect(t, s, g)
	if closed := p.wantClosed(); !strings.Contains(closed.Output, "is forbidden") {
		t.Errorf("the session ended with the words %q", closed.Output)
	}
}
