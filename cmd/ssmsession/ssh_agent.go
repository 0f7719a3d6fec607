package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/ssmsession/ssmsession/internal/crash"
)

// Messages of the agent's protocol that one key needs (draft-ietf-sshm-ssh-agent).
const (
	agentFailure          = 5
	agentListIdentities   = 11
	agentIdentitiesAnswer = 12
	agentSignRequest      = 13
	agentSignResponse     = 14

	agentMaxMessage = 256 << 10 // OpenSSH's limit, in bytes
)

// ed25519Name is the kind of our key in SSH.
const ed25519Name = "ssh-ed25519"

// agentKey is a key for one connection. It is in this process's memory and nowhere
// else.
type agentKey struct {
	private ed25519.PrivateKey
	public  []byte // as SSH writes it
}

// agentComment is what the key is called.
const agentComment = "ssmsession"

func newAgentKey() (*agentKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	return &agentKey{private, sshStrings([]byte(ed25519Name), public)}, nil
}

// line is the public key as a file of ssh-keygen's has it.
func (k *agentKey) line() string {
	return ed25519Name + " " + base64.StdEncoding.EncodeToString(k.public) + " " + agentComment
}

// answer is what an agent that has this key answers.
func (k *agentKey) answer(request []byte) []byte {
	failure := []byte{agentFailure}
	if len(request) == 0 {
		return failure
	}
	switch kind, rest := request[0], request[1:]; kind {
	case agentListIdentities:
		return append([]byte{agentIdentitiesAnswer, 0, 0, 0, 1}, sshStrings(k.public, []byte(agentComment))...)
	case agentSignRequest:
		key, rest, ok := cutSSHString(rest)
		data, _, dataOK := cutSSHString(rest)
		if !ok || !dataOK || !bytes.Equal(key, k.public) {
			return failure
		}
		signature := sshStrings([]byte(ed25519Name), ed25519.Sign(k.private, data))
		return append([]byte{agentSignResponse}, sshStrings(signature)...)
	}
	return failure
}

// serve answers one client to its end.
func (k *agentKey) serve(conn io.ReadWriter) error {
	for {
		var size uint32
		if err := binary.Read(conn, binary.BigEndian, &size); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if size > agentMaxMessage {
			return errors.New("a message is too long")
		}
		request := make([]byte, size)
		if _, err := io.ReadFull(conn, request); err != nil {
			return err
		}
		if _, err := conn.Write(sshStrings(k.answer(request))); err != nil {
			return err
		}
	}
}

// keyAgent answers for one key on a socket that only this user reaches.
type keyAgent struct {
	socket     string
	publicFile string
	dir        string
	listener   net.Listener
	over       context.CancelFunc // for clients
	clients    sync.WaitGroup
	bugs       chan error // holds the first mistake of ours, for close
}

// maxAgentBase is how long the name of the directory may be that a socket's own is
// made in: macOS takes 103 bytes for a socket's name.
const maxAgentBase = 70

// newKeyAgent makes a private directory with the socket and the public key's file.
// close removes it.
func newKeyAgent(key *agentKey) (*keyAgent, error) {
	base := os.TempDir()
	if len(base) > maxAgentBase {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "ssmsession-ssh-") // mode 0700
	if err != nil {
		return nil, fmt.Errorf("cannot make a private directory: %w", err)
	}
	a := &keyAgent{bugs: make(chan error, 1), dir: dir, socket: filepath.Join(dir, "agent"), publicFile: filepath.Join(dir, "key.pub")}
	err = os.WriteFile(a.publicFile, []byte(key.line()+"\n"), 0o600)
	if err == nil {
		a.listener, err = net.Listen("unix", a.socket)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot keep the key: %w", err), os.RemoveAll(dir))
	}
	ctx, over := context.WithCancel(context.Background())
	a.over = over
	a.clients.Go(func() { crash.Guard(a.crashed, func() { a.accept(ctx, key) }) })
	return a, nil
}

// accept serves clients until the listener is closed. What fails is the client's:
// ssh says that it could not use its agent.
func (a *keyAgent) accept(ctx context.Context, key *agentKey) {
	for {
		conn, err := a.listener.Accept()
		if err != nil {
			return
		}
		a.clients.Go(func() {
			crash.Guard(a.crashed, func() {
				// The client is gone, or has had what it asked for.
				defer func() { _ = conn.Close() }()
				defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
				_ = key.serve(conn) // as above
			})
		})
	}
}

// crashed keeps a panic for close.
func (a *keyAgent) crashed(err error) {
	select {
	case a.bugs <- err:
	default: // the first is enough
	}
}

// close ends it, and leaves nothing.
func (a *keyAgent) close() error {
	err := a.listener.Close()
	a.over()
	a.clients.Wait()
	select {
	case bug := <-a.bugs:
		err = errors.Join(err, bug)
	default:
	}
	return errors.Join(err, os.RemoveAll(a.dir))
}

// sshStrings writes strings as SSH does: each with its length before it.
func sshStrings(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return b
}

// cutSSHString takes the first string off.
func cutSSHString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if b = b[4:]; uint64(n) > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}
