//go:build unix

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// sshCommands are the script commands about a real sshd:
//
//	sshd                       serves on loopback, a process of OpenSSH's sshd a
//	                           connection. $SSH_PORT is its port, $SSH_USER who
//	                           may log in, $SSH_CONFIG a file for ssh -F that
//	                           leads through ssh-proxy and has a key, $SSH_KEYLESS
//	                           one without either, $FREE_PORT a port that nobody
//	                           has. Keys in the file eic_keys are good, too
//	connections-end TIME       all of its connections must end within TIME
func sshCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){"sshd": startSSHD, "connections-end": connectionsEnd}
}

type sshdKey struct{} // *scriptSSHD

// scriptSSHD is an sshd that a script has started.
type scriptSSHD struct {
	listener net.Listener
	argv     []string

	mu       sync.Mutex // guards what follows
	live     int
	ended    chan struct{} // closed when live gets 0
	failures []error
	wg       sync.WaitGroup
}

func startSSHD(ts *testscript.TestScript, neg bool, args []string) {
	setup := ts.Value(setupKey{}).(*testscript.Env)
	if neg || len(args) > 0 || setup.Values[sshdKey{}] != nil {
		ts.Fatalf("usage: sshd, once")
	}
	program, err := exec.LookPath("sshd")
	ts.Check(err)
	dir := ts.MkAbs(".sshd")
	ts.Check(os.MkdirAll(dir, 0o700))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	port := listener.Addr().(*net.TCPAddr).Port
	free, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	who, err := osuser.Current()
	ts.Check(err)
	ts.Check(writeSSHFiles(dir, ts.MkAbs("."), who.Username, port))
	ts.Setenv("FREE_PORT", fmt.Sprint(free.Addr().(*net.TCPAddr).Port))
	ts.Check(free.Close())
	s := &scriptSSHD{listener: listener, argv: []string{program, "-i", "-f", filepath.Join(dir, "sshd_config"), "-E", ts.MkAbs("sshd.log")}}
	setup.Values[sshdKey{}] = s
	ts.Setenv("SSH_PORT", fmt.Sprint(port))
	ts.Setenv("SSH_USER", who.Username)
	ts.Setenv("SSH_CONFIG", filepath.Join(dir, "config"))
	ts.Setenv("SSH_KEYLESS", filepath.Join(dir, "keyless"))
	s.wg.Go(s.accept)
	ts.Defer(func() {
		listener.Close()
		if err := s.wait(patience); err != nil {
			setup.T().(testing.TB).Errorf("sshd: %v", err)
			return
		}
		s.wg.Wait()
		for _, err := range s.failures {
			setup.T().(testing.TB).Errorf("sshd: %v", err)
		}
	})
}

// writeSSHFiles makes the keys of both sides, and their configurations.
func writeSSHFiles(dir, work, login string, port int) error {
	for _, name := range []string{"host", "id"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			return fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	host, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "known_hosts"), fmt.Appendf(nil, "%s,[%[1]s]:%d,local,[local]:%[2]d %s", exampleTarget, port, host), 0o600),
		os.WriteFile(filepath.Join(dir, "sshd_config"), fmt.Appendf(nil, `HostKey %s/host
AuthorizedKeysFile %[1]s/id.pub %s/eic_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PidFile none
Subsystem sftp internal-sftp
MaxStartups 100
`, dir, work), 0o600),
		os.WriteFile(filepath.Join(dir, "keyless"), fmt.Appendf(nil, `Host *
    Port %d
    UserKnownHostsFile %s/known_hosts
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    BatchMode yes
`, port, dir), 0o600),
		os.WriteFile(filepath.Join(dir, "config"), fmt.Appendf(nil, `Include %s/keyless
Host *
    User %s
    IdentityFile %[1]s/id
    IdentitiesOnly yes
    ProxyCommand ssmsession ssh-proxy %%h %%p
`, dir, login), 0o600))
}

// accept serves connections until the listener is closed.
func (s *scriptSSHD) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.begin()
		s.wg.Go(func() { s.end(s.serve(conn.(*net.TCPConn))) })
	}
}

func (s *scriptSSHD) serve(conn *net.TCPConn) error {
	socket, err := conn.File()
	conn.Close()
	if err != nil {
		return err
	}
	defer socket.Close()
	cmd := exec.Command(s.argv[0], s.argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdin, cmd.Stdout = socket, socket
	if err := cmd.Start(); err != nil {
		return err
	}
	socket.Close()
	_ = cmd.Wait() // its status tells how the client left
	return nil
}

func (s *scriptSSHD) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live++; s.live == 1 {
		s.ended = make(chan struct{})
	}
}

func (s *scriptSSHD) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failures = append(s.failures, err)
	}
	if s.live--; s.live == 0 {
		close(s.ended)
	}
}

// wait waits until there is no connection.
func (s *scriptSSHD) wait(limit time.Duration) error {
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if ended == nil {
		return nil // there was none
	}
	select {
	case <-ended:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("connections have not ended within %v", limit)
	}
}

func connectionsEnd(ts *testscript.TestScript, neg bool, args []string) {
	s, ok := ts.Value(setupKey{}).(*testscript.Env).Values[sshdKey{}].(*scriptSSHD)
	if neg || len(args) != 1 || !ok {
		ts.Fatalf("usage: connections-end time, after sshd")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	ts.Check(s.wait(limit))
}
