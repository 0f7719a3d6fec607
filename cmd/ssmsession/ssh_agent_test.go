package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ssmsession/ssmsession/internal/crash"
)

func someAgentKey(t testing.TB) *agentKey {
	t.Helper()
	key, err := newAgentKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestTheKeysLineIsOneOfSSHKeygens(t *testing.T) {
	key := someAgentKey(t)
	words := strings.Fields(key.line())
	if len(words) != 3 || words[0] != "ssh-ed25519" {
		t.Fatalf("the line is %q", key.line())
	}
	blob, err := base64.StdEncoding.DecodeString(words[1])
	if err != nil {
		t.Fatal(err)
	}
	kind, rest, ok := cutSSHString(blob)
	public, rest, ok2 := cutSSHString(rest)
	if !ok || !ok2 || len(rest) != 0 || string(kind) != "ssh-ed25519" || len(public) != ed25519.PublicKeySize {
		t.Errorf("the key in it is %x", blob)
	}
	if line := key.line(); len(line) < 80 || len(line) > 4096 {
		t.Errorf("the line has %d bytes, and EC2 Instance Connect takes 80 to 4096", len(line))
	}
}

func TestTheAgentListsItsOneKey(t *testing.T) {
	key := someAgentKey(t)
	got := key.answer([]byte{agentListIdentities})
	want := append([]byte{agentIdentitiesAnswer, 0, 0, 0, 1}, sshStrings(key.public, []byte("ssmsession"))...)
	if !bytes.Equal(got, want) {
		t.Errorf("it answers %x, want %x", got, want)
	}
}

func TestTheAgentSignsWithItsKey(t *testing.T) {
	key := someAgentKey(t)
	data := []byte("what ssh wants signed")
	got := key.answer(append(append([]byte{agentSignRequest}, sshStrings(key.public, data)...), 0, 0, 0, 0))
	if len(got) == 0 || got[0] != agentSignResponse {
		t.Fatalf("it answers %x", got)
	}
	signature, rest, ok := cutSSHString(got[1:])
	kind, sig, ok2 := cutSSHString(signature)
	sig, end, ok3 := cutSSHString(sig)
	if !ok || !ok2 || !ok3 || len(rest)+len(end) != 0 || string(kind) != "ssh-ed25519" {
		t.Fatalf("the signature is %x", signature)
	}
	if !ed25519.Verify(key.private.Public().(ed25519.PublicKey), data, sig) {
		t.Error("the signature is not the key's")
	}
}

func TestTheAgentRefusesAllElse(t *testing.T) {
	key, other := someAgentKey(t), someAgentKey(t)
	for name, request := range map[string][]byte{
		"nothing":            {},
		"another key":        append([]byte{agentSignRequest}, sshStrings(other.public, []byte("x"))...),
		"no data":            append([]byte{agentSignRequest}, sshStrings(key.public)...),
		"a cut length":       {agentSignRequest, 0, 0},
		"a length too great": {agentSignRequest, 0xff, 0xff, 0xff, 0xff, 0},
		"adding a key":       {17, 0, 0, 0, 0},
		"removing all":       {19},
		"an extension":       append([]byte{27}, sshStrings([]byte("session-bind@openssh.com"))...),
	} {
		if got := key.answer(request); !bytes.Equal(got, []byte{agentFailure}) {
			t.Errorf("%s: it answers %x, want failure", name, got)
		}
	}
}

func TestTheAgentsSocketIsPrivateAndGoesAway(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("ssh has no socket of an agent here")
	}
	for _, tmp := range []string{t.TempDir(), filepath.Join(t.TempDir(), strings.Repeat("long", 25))} {
		if err := os.MkdirAll(tmp, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", tmp)
		key := someAgentKey(t)
		agent, err := newKeyAgent(key)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(agent.dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the directory is %v, %v; want one of mode 0700", info, err)
		}
		conn, err := net.Dial("unix", agent.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 2 { // one connection asks as often as it likes
			if _, err := conn.Write([]byte{0, 0, 0, 1, agentListIdentities}); err != nil {
				t.Fatal(err)
			}
			var size uint32
			if err := binary.Read(conn, binary.BigEndian, &size); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, size)
			if _, err := io.ReadFull(conn, answer); err != nil || !bytes.Equal(answer, key.answer([]byte{agentListIdentities})) {
				t.Errorf("through the socket it answers %x, %v", answer, err)
			}
		}
		wantNoSecret(t, agent.dir, key)
		if err := agent.close(); err != nil { // with a client that stays
			t.Errorf("it does not end well: %v", err)
		}
		if _, err := os.Stat(agent.dir); err == nil {
			t.Errorf("it leaves %s behind", agent.dir)
		}
	}
}

func TestAMistakeInTheAgentIsToldAtItsEnd(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("ssh has no socket of an agent here")
	}
	key := someAgentKey(t)
	key.private = nil // which makes signing a panic
	agent, err := newKeyAgent(key)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", agent.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := append(append([]byte{agentSignRequest}, sshStrings(key.public, []byte("x"))...), 0, 0, 0, 0)
	if _, err := conn.Write(sshStrings(request)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || len(got) > 0 {
		t.Errorf("the client is given %x, %v; want an end", got, err)
	}
	if err := agent.close(); !errors.As(err, new(*crash.Error)) {
		t.Errorf("it ends with %v, want the panic", err)
	}
}

// wantNoSecret looks for a private key in the files of a directory.
func wantNoSecret(t *testing.T, dir string, key *agentKey) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		seed := key.private.Seed()
		if bytes.Contains(data, seed) || bytes.Contains(data, []byte(base64.StdEncoding.EncodeToString(seed))) {
			t.Errorf("%s has the private key", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTheAgentEndsAClientWithALongMessage(t *testing.T) {
	var out bytes.Buffer
	request := bytes.NewBuffer([]byte{0, 4, 0, 1})
	err := someAgentKey(t).serve(struct {
		io.Reader
		io.Writer
	}{request, &out})
	if err == nil || out.Len() > 0 {
		t.Errorf("it answers %x, %v", out.Bytes(), err)
	}
}

func FuzzTheAgentAnswersAnything(f *testing.F) {
	key := someAgentKey(f)
	f.Add([]byte{agentListIdentities})
	f.Add(append([]byte{agentSignRequest}, sshStrings(key.public, []byte("x"))...))
	f.Add([]byte{agentSignRequest, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, request []byte) {
		if len(key.answer(request)) == 0 {
			t.Error("it answers nothing")
		}
	})
}
