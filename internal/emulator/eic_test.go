package emulator

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Keys of nobody, and one of a kind that Instance Connect does not take.
const (
	somePublicKey  = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOPFCm8ljuX30zUDoZ3M0gIbdHOwLFBgnHEjdtPSj/na"
	otherPublicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	ecdsaPublicKey = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBA== jane@laptop"
)

const someInstance = "i-0123456789abcdef0"

// callEIC makes a call of EC2 Instance Connect, signed for a service.
func callEIC(t testing.TB, s *Server, action, body, service string) answer {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.URL()+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("X-Amz-Target", "AWSEC2InstanceConnectService."+action)
	signFor(t, s, r, body, service)
	return do(t, s, r)
}

func sendKey(t testing.TB, s *Server, instance, key string) answer {
	t.Helper()
	body := fmt.Sprintf(`{"InstanceId":%q,"InstanceOSUser":"ec2-user","SSHPublicKey":%q,"AvailabilityZone":"us-east-1a"}`, instance, key)
	return callEIC(t, s, "SendSSHPublicKey", body, "ec2-instance-connect")
}

// startKeys starts a server with a file of keys.
func startKeys(t testing.TB, cfg Config) (s *Server, file string) {
	t.Helper()
	cfg.AuthorizedKeys = filepath.Join(t.TempDir(), "authorized_keys")
	cfg.Targets = []Target{{ID: someInstance, Offline: true}, {ID: "local"}}
	return startServer(t, cfg), cfg.AuthorizedKeys
}

func wantFile(t testing.TB, why, file, want string) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%s: %v", why, err)
	}
	_, keys, ok := strings.Cut(string(got), "\n")
	if !ok || !strings.HasPrefix(string(got), "# ") || strings.TrimSpace(keys) != want {
		t.Errorf("%s the file is %q, want a comment and %q", why, got, want)
	}
}

func TestSendSSHPublicKey(t *testing.T) {
	s, file := startKeys(t, Config{})
	for _, key := range []string{somePublicKey + " jane@laptop\n", somePublicKey} {
		a := sendKey(t, s, someInstance, key)
		if a.status != http.StatusOK || a.members["Success"] != true || len(a.text("RequestId")) != 36 {
			t.Fatalf("the answer is %d %v, want success and an id", a.status, a.members)
		}
		wantFile(t, "with one key", file, somePublicKey)
	}
	sendKey(t, s, someInstance, otherPublicKey)
	wantFile(t, "with two keys", file, otherPublicKey+"\n"+somePublicKey)
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the file has the mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestSendSSHPublicKeyRefused(t *testing.T) {
	s, file := startKeys(t, Config{})
	long := strings.Repeat("A", 5000)
	for why, test := range map[string]struct{ instance, key, code, message string }{
		"an instance that is not there": {"i-00000000000000000", somePublicKey, "EC2InstanceNotFoundException", "i-00000000000000000"},
		"a target that is no instance":  {"local", somePublicKey, "ValidationException", "instanceId"},
		"a managed node":                {"mi-0123456789abcdef0", somePublicKey, "ValidationException", "^i-[a-f0-9]+$"},
		"a short key":                   {someInstance, "ssh-rsa AAAA", "ValidationException", "greater than or equal to 80"},
		"a long key":                    {someInstance, "ssh-rsa " + long, "ValidationException", "less than or equal to 4096"},
		"another kind":                  {someInstance, ecdsaPublicKey, "InvalidArgsException", "neither"},
		"a command before the key":      {someInstance, `command="reboot" ` + somePublicKey, "InvalidArgsException", "neither"},
		"a second line":                 {someInstance, somePublicKey + "\n" + otherPublicKey, "InvalidArgsException", "one line"},
		"no base64":                     {someInstance, "ssh-ed25519 " + strings.Repeat("!", 80), "InvalidArgsException", "base64"},
		"another kind inside":           {someInstance, strings.Replace(somePublicKey, "ssh-ed25519", "ssh-rsa", 1) + " a comment", "InvalidArgsException", "not what it says"},
		"one word":                      {someInstance, strings.Repeat("A", 80), "InvalidArgsException", "one line"},
	} {
		a := sendKey(t, s, test.instance, test.key)
		if a.status != http.StatusBadRequest || a.code() != test.code || !strings.Contains(a.message(), test.message) {
			t.Errorf("%s is answered with %d %s %q, want 400 %s and %q", why, a.status, a.code(), a.message(), test.code, test.message)
		}
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a file of keys that nobody sent: %v", err)
	}
}

func TestSendSSHPublicKeyCalledOtherwise(t *testing.T) {
	s, _ := startKeys(t, Config{Deny: []string{"SendSSHPublicKey"}})
	if a := sendKey(t, s, someInstance, somePublicKey); a.code() != "AccessDeniedException" ||
		!strings.Contains(a.message(), "ec2-instance-connect:SendSSHPublicKey") {
		t.Errorf("a denied call is answered with %s %q", a.code(), a.message())
	}
	if a := callEIC(t, s, "SendSSHPublicKey", `{}`, "ssm"); a.code() != "InvalidSignatureException" {
		t.Errorf("a call signed for another service is answered with %s", a.code())
	}
	if a := callEIC(t, s, "SendSerialConsoleSSHPublicKey", `{}`, "ec2-instance-connect"); a.code() != "UnknownOperationException" {
		t.Errorf("another action is answered with %s", a.code())
	}
	none := startServer(t, Config{Targets: []Target{{ID: someInstance}}})
	if a := sendKey(t, none, someInstance, somePublicKey); a.code() != "EC2InstanceStateInvalidException" {
		t.Errorf("without a file the call is answered with %s", a.code())
	}
	if a := callEIC(t, none, "SendSSHPublicKey", `{}`, "ec2-instance-connect"); !strings.HasPrefix(a.message(), "3 validation errors detected") {
		t.Errorf("a call without members is answered with %q", a.message())
	}
}

func TestKeysLastAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "keys")
		k := &authorizedKeys{path: file, log: slog.New(slog.DiscardHandler)}
		add := func(key string) {
			t.Helper()
			if err := k.add(key); err != nil {
				t.Fatal(err)
			}
		}
		pass := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		add("a")
		pass(30 * time.Second)
		add("b")
		pass(30*time.Second - 1)
		wantFile(t, "just before a minute", file, "a\nb")
		pass(1)
		wantFile(t, "after a minute", file, "b")
		add("b") // its minute begins anew
		pass(59 * time.Second)
		wantFile(t, "a minute and a half later", file, "b")
		pass(time.Second)
		wantFile(t, "in the end", file, "")
		if err := k.close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file is left behind: %v", err)
		}
		if err := k.add("c"); !errors.Is(err, errStopped) {
			t.Errorf("a closed server takes a key: %v", err)
		}
	})
}

// A file that cannot be written just when a key's time is over is written soon after.
func TestAKeyIsTakenOutInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "d")
		away := dir + "-away"
		move := func(from, to string) {
			t.Helper()
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "keys")
		k := &authorizedKeys{path: file, log: slog.New(slog.DiscardHandler)}
		if err := k.add("a"); err != nil {
			t.Fatal(err)
		}
		move(dir, away)
		time.Sleep(publicKeyLife + 3*rewriteAgain)
		synctest.Wait()
		move(away, dir)
		wantFile(t, "while it could not be written", file, "a")
		time.Sleep(rewriteAgain)
		synctest.Wait()
		wantFile(t, "once it can be written", file, "")
		if err := k.close(); err != nil {
			t.Error(err)
		}
	})
}

// TestAKeyThatIsRefusedIsNotLetIn later, nor for longer, by a file that can be
// written again.
func TestAKeyThatIsRefusedIsNotLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "d")
		file := filepath.Join(dir, "keys")
		k := &authorizedKeys{path: file, log: slog.New(slog.DiscardHandler)}
		refused := func(key string) {
			t.Helper()
			if err := k.add(key); err == nil {
				t.Fatalf("the key %s is taken without a place for its file", key)
			}
		}
		refused("a")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := k.add("b"); err != nil {
			t.Fatal(err)
		}
		wantFile(t, "after a key that was refused", file, "b")
		time.Sleep(publicKeyLife / 2)
		if err := os.Rename(dir, dir+"-away"); err != nil {
			t.Fatal(err)
		}
		refused("b")
		if err := os.Rename(dir+"-away", dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(publicKeyLife / 2)
		synctest.Wait()
		wantFile(t, "a minute after it was taken", file, "")
		if err := k.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestTooManyKeys(t *testing.T) {
	k := &authorizedKeys{path: filepath.Join(t.TempDir(), "keys"), live: map[string]time.Time{}}
	for i := range publicKeyLimit {
		k.live[fmt.Sprint(i)] = time.Now().Add(time.Hour)
	}
	if err := k.add("one more"); !errors.Is(err, errTooManyKeys) {
		t.Errorf("key %d gets %v", publicKeyLimit+1, err)
	}
	if err := k.add("1"); err != nil {
		t.Errorf("a key that is there already gets %v", err)
	}
	if err := k.close(); err != nil {
		t.Error(err)
	}
}

// TestFileOfKeysIsOursAlone: who names their own authorized_keys keeps it.
func TestFileOfKeysIsOursAlone(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		content string
		good    bool
	}{
		"empty": {"", true}, "left-behind": {authorizedKeysTitle + somePublicKey + "\n", true}, "of-somebody": {somePublicKey + "\n", false},
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Start(t.Context(), Config{AuthorizedKeys: file})
		if err == nil {
			err = s.Close()
		}
		bad := (*ConfigError)(nil)
		if (err == nil) != test.good || err != nil && !errors.As(err, &bad) {
			t.Errorf("a file that is %s gives %v", name, err)
		}
		if content, err := os.ReadFile(file); !test.good && (err != nil || string(content) != test.content) {
			t.Errorf("the file of somebody became %q, %v", content, err)
		}
	}
	if _, err := Start(t.Context(), Config{AuthorizedKeys: dir}); err == nil {
		t.Error("a directory is taken for a file")
	}
}
