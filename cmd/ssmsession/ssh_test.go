package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestTheProxyCommandIsOneLineForTheSystemsShell(t *testing.T) {
	for _, tt := range []struct {
		name, goos, self, host string
		flags                  []string
		want                   string
	}{
		{"plain", "linux", "/usr/bin/ssmsession", "%h", nil, "/usr/bin/ssmsession ssh-proxy %h %p"},
		{"flags", "linux", "/usr/bin/ssmsession", "i-1", []string{"--region=eu-west-1", "--os-user=%r"},
			"/usr/bin/ssmsession ssh-proxy i-1 %p --region=eu-west-1 --os-user=%r"},
		{"a blank in a path", "darwin", "/Users/me/My Tools/ssmsession", "%h", nil, "'/Users/me/My Tools/ssmsession' ssh-proxy %h %p"},
		{"a quotation mark and a dollar", "linux", "/it's/$x", "%h", []string{"--reason=a \"b\""}, `'/it'\''s/$x' ssh-proxy %h %p '--reason=a "b"'`},
		{"a percent sign in a path", "linux", "/100%/ssmsession", "%h", nil, "/100%%/ssmsession ssh-proxy %h %p"},
		{"Windows", "windows", `C:\Tools\ssmsession.exe`, "%h", nil, `C:\Tools\ssmsession.exe ssh-proxy %h %p`},
		{"a blank on Windows", "windows", `C:\Program Files\ssmsession.exe`, "%h", []string{`--ca-bundle=C:\my certs\`},
			`"C:\Program Files\ssmsession.exe" ssh-proxy %h %p "--ca-bundle=C:\my certs\\"`},
		{"a quotation mark on Windows", "windows", `C:\s.exe`, "%h", []string{`--reason=a "b"`}, `C:\s.exe ssh-proxy %h %p "--reason=a \"b\""`},
	} {
		if got := proxyLine(tt.goos, tt.self, tt.host, tt.flags); got != tt.want {
			t.Errorf("%s: the line is\n\t%s\nwant\n\t%s", tt.name, got, tt.want)
		}
	}
}

func TestTheStanzaKeepsWhatIsAroundIt(t *testing.T) {
	const stanza = "Host i-*\n    X\n"
	const block = configBegin + "\n" + stanza + configEnd + "\n"
	for _, tt := range []struct{ name, old, want string }{
		{"no file", "", block},
		{"other lines", "A\n", "A\n\n" + block},
		{"no line break at the end", "A", "A\n\n" + block},
		{"an older stanza", "A\n" + configBegin + "\nold\nold\n" + configEnd + "\nB\n", "A\n" + block + "B\n"},
		{"the same stanza", "A\n\n" + block + "B\n", "A\n\n" + block + "B\n"},
		{"Windows's line breaks", "A\r\n", "A\r\n\r\n" + strings.ReplaceAll(block, "\n", "\r\n")},
		{"an empty pair", configBegin + "\n" + configEnd + "\n", block},
		{"marks that are indented", "  " + configBegin + "\nold\n  " + configEnd + "\n", block},
	} {
		got, err := withStanza(tt.old, stanza)
		if err != nil || got != tt.want {
			t.Errorf("%s: it becomes %q, %v; want %q", tt.name, got, err, tt.want)
		}
		if again, err := withStanza(got, stanza); err != nil || again != got {
			t.Errorf("%s: done twice it becomes %q, %v", tt.name, again, err)
		}
	}
	for name, old := range map[string]string{
		"only the first mark":  configBegin + "\nA\n",
		"only the second":      "A\n" + configEnd + "\n",
		"the wrong way round":  configEnd + "\nA\n" + configBegin + "\n",
		"two pairs":            block + block,
		"a first mark between": configBegin + "\n" + configBegin + "\n" + configEnd + "\n",
		"a second mark behind": block + configEnd + "\n",
		"a first mark behind":  block + configBegin + "\n",
	} {
		if got, err := withStanza(old, stanza); err == nil {
			t.Errorf("%s: it becomes %q, want an error", name, got)
		}
	}
}

func TestASecondInstallationTouchesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "config")
	if changed, err := installStanza(path, "A\n"); !changed || err != nil {
		t.Fatalf("the first changes %v: %v", changed, err)
	}
	if changed, err := installStanza(path, "A\n"); changed || err != nil {
		t.Errorf("the second changes %v: %v", changed, err)
	}
	if changed, err := installStanza(path, "B\n"); !changed || err != nil {
		t.Errorf("another one changes %v: %v", changed, err)
	}
	before, err := os.ReadFile(path + backupSuffix)
	if err != nil || !strings.Contains(string(before), "A\n") {
		t.Errorf("what was before is kept as %q: %v", before, err)
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 2 {
		t.Errorf("the directory has %v, want the file and what it was: %v", files, err)
	}
}

func TestAnInstallationThatFailsLeavesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if changed, err := installStanza(path, "A\n"); changed || err == nil {
		t.Errorf("a directory is changed: %v, %v", changed, err)
	}
}

func TestOnePublicKeyIsFoundInAFile(t *testing.T) {
	for _, tt := range []struct{ name, text, want, wrong string }{
		{"one line", "ssh-ed25519 AAAA me\n", "ssh-ed25519 AAAA me", ""},
		{"no line break", "ssh-ed25519 AAAA me", "ssh-ed25519 AAAA me", ""},
		{"Windows's line break", "ssh-ed25519 AAAA me\r\n", "ssh-ed25519 AAAA me", ""},
		{"a comment and a blank line", "# mine\n\nssh-rsa AAAA\n", "ssh-rsa AAAA", ""},
		{"nothing", "\n", "", "no key"},
		{"two", "ssh-rsa A\nssh-rsa B\n", "", "more than one"},
		{"a private key", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n", "", "private key"},
	} {
		got, err := publicKeyLine(tt.text)
		switch {
		case tt.wrong == "" && (err != nil || got != tt.want):
			t.Errorf("%s: it is %q, %v; want %q", tt.name, got, err, tt.want)
		case tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)):
			t.Errorf("%s: the error is %v, want one about %q", tt.name, err, tt.wrong)
		}
	}
}

func TestOnlyAPlainNameIsAHostForSSH(t *testing.T) {
	for s, want := range map[string]bool{
		"i-0123456789abcdef0": true, "mi-0123": true, "local": true, "web_1.example": true,
		"": false, "-oProxyCommand=x": false, "a b": false, "a;b": false, "$(x)": false, "a%h": false, "é": false, "a\nb": false,
	} {
		if got := plainHost(s); got != want {
			t.Errorf("%q is a host: %v", s, got)
		}
	}
}

func TestTheSystemsFlagsAreRepeatedForTheProxy(t *testing.T) {
	cmd := newSSH(&env{report: newReport(nil), getenv: os.Getenv})
	newReport(nil).addFlags(cmd.Flags()) // which the program's root has
	args := []string{"-t", "i-1", "--region", "eu-west-1", "--no-reconnect", "--reason", "100%", "--debug",
		"--ec2-instance-connect", "--os-user", "me", "--events", "fd:3"}
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(proxyFlags(cmd), " ")
	if want := "--debug=true --no-reconnect=true --reason=100%% --region=eu-west-1"; !sameWords(got, want) {
		t.Errorf("they are %s, want %s", got, want)
	}
	if runtime.GOOS != "windows" && strings.Contains(got, "fd:3") {
		t.Error("a descriptor is passed on, which ssh closes")
	}
}

// sameWords compares two lines whatever the order of their words.
func sameWords(a, b string) bool {
	count := map[string]int{}
	for _, w := range strings.Fields(a) {
		count[w]++
	}
	for _, w := range strings.Fields(b) {
		count[w]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}
