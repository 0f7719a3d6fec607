package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ssmsession/ssmsession/internal/api"
)

// tunnelRoles are the parts that this test binary plays at the ends of a tunnel,
// for scripts.
func tunnelRoles() map[string]func() {
	return map[string]func(){"destination": destination, "dial": dial, "crowd": crowd, "terminate": terminateOne}
}

// destination runs the rest of the command line while it serves on a port of
// loopback that is in its environment as DESTINATION, and ends with its status. The
// first argument is what it serves:
//
//	echo   what comes, until its end
//	reply  after a line with a number and a time, that many bytes that late,
//	       whether or not the client has ended
//	http   /N has N bytes
//	none   nothing: the port refuses
func destination() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	giveUp(err)
	serve := map[string]func(net.Conn) error{"echo": serveEcho, "reply": serveReply}[os.Args[1]]
	switch {
	case os.Args[1] == "http":
		go func() { giveUp(http.Serve(l, http.HandlerFunc(numberOfBytes))) }()
	case os.Args[1] == "none":
		giveUp(l.Close())
	default:
		go func() {
			for {
				conn, err := l.Accept()
				giveUp(err)
				go func() {
					defer conn.Close()
					_ = serve(conn) // the client may be gone, and then the test says so
				}()
			}
		}()
	}
	giveUp(os.Setenv("DESTINATION", strconv.Itoa(l.Addr().(*net.TCPAddr).Port)))
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		giveUp(err)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

func serveEcho(conn net.Conn) error {
	_, err := io.Copy(conn, conn)
	return err
}

func serveReply(conn net.Conn) error {
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	var n int64
	var late string
	if _, err := fmt.Sscan(line, &n, &late); err != nil {
		return err
	}
	after, err := time.ParseDuration(late)
	if err != nil {
		return err
	}
	<-time.After(after)
	_, err = io.CopyN(conn, nothings{}, n)
	return err
}

func numberOfBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/"), 10, 64)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.CopyN(w, nothings{}, n) // the client counts them
}

// nothings gives zeros without end.
type nothings struct{}

func (nothings) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// dial connects to an address, or to a unix socket, sends its standard input, ends
// its side and prints what comes until the other one's end.
func dial() {
	network := "tcp"
	if strings.Contains(os.Args[1], "/") {
		network = "unix"
	}
	conn, err := net.Dial(network, os.Args[1])
	giveUp(err)
	go func() {
		_, err := io.Copy(conn, os.Stdin)
		giveUp(err)
		giveUp(conn.(interface{ CloseWrite() error }).CloseWrite())
	}()
	_, err = io.Copy(os.Stdout, conn)
	giveUp(err)
}

// crowd opens as many connections to an address as its second argument says, and
// once all are there sends a word of its own over each. It prints how many came
// back.
func crowd() {
	n, err := strconv.Atoi(os.Args[2])
	giveUp(err)
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i], err = net.Dial("tcp", os.Args[1])
		giveUp(err)
	}
	var wg sync.WaitGroup
	var back atomic.Int64
	for i, conn := range conns {
		wg.Go(func() {
			word := fmt.Appendf(nil, "this is number %d of %d", i, n)
			_, err := conn.Write(word)
			giveUp(err)
			got := make([]byte, len(word))
			if _, err := io.ReadFull(conn, got); err == nil && bytes.Equal(got, word) {
				back.Add(1)
			}
		})
	}
	wg.Wait()
	for _, conn := range conns {
		giveUp(conn.Close())
	}
	fmt.Printf("%d of %d\n", back.Load(), n)
}

// terminateOne ends a session as an administrator would, by its id.
func terminateOne() {
	ctx := context.Background()
	client, err := api.New(ctx, api.Config{})
	giveUp(err)
	giveUp(client.Terminate(ctx, os.Args[1]))
}

func giveUp(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
