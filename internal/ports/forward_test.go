package ports

import (
	"strings"
	"testing"
)

func TestParseForward(t *testing.T) {
	for _, c := range []struct {
		s    string
		want Forward
	}{
		{"5432", Forward{LocalPort: 5432, Port: 5432}},
		{"8080:80", Forward{LocalPort: 8080, Port: 80}},
		{"0:80", Forward{Port: 80}},
		{"0:db.internal:5432", Forward{Host: "db.internal", Port: 5432}},
		{"8080:localhost:80", Forward{LocalPort: 8080, Port: 80}},
		{"8080:Localhost:80", Forward{LocalPort: 8080, Port: 80}},
		{"8080:127.0.0.1:80", Forward{LocalPort: 8080, Host: "127.0.0.1", Port: 80}},
		{"8080:10:80", Forward{LocalPort: 8080, Host: "10", Port: 80}},
		{"127.0.0.2:8080:80", Forward{Bind: "127.0.0.2", LocalPort: 8080, Port: 80}},
		{"localhost:8080:80", Forward{Bind: "localhost", LocalPort: 8080, Port: 80}},
		{"*:8080:80", Forward{Bind: "*", LocalPort: 8080, Port: 80}},
		{"[::1]:8080:80", Forward{Bind: "::1", LocalPort: 8080, Port: 80}},
		{"[::1]:8080:web:80", Forward{Bind: "::1", LocalPort: 8080, Host: "web", Port: 80}},
		{"0.0.0.0:8080:web:80", Forward{Bind: "0.0.0.0", LocalPort: 8080, Host: "web", Port: 80}},
		{"8080:[fd00::1]:80", Forward{LocalPort: 8080, Host: "fd00::1", Port: 80}},
		{"[fe80::1%eth0]:8080:[fd00::1]:80", Forward{Bind: "fe80::1%eth0", LocalPort: 8080, Host: "fd00::1", Port: 80}},
		{"/run/db.sock:db:5432", Forward{Socket: "/run/db.sock", Host: "db", Port: 5432}},
		{"/run/db.sock:5432", Forward{Socket: "/run/db.sock", Port: 5432}},
		{"./db.sock:[fd00::1]:5432", Forward{Socket: "./db.sock", Host: "fd00::1", Port: 5432}},
		{`C:\db.sock:db:5432`, Forward{Socket: `C:\db.sock`, Host: "db", Port: 5432}},
	} {
		got, err := ParseForward(c.s)
		if err != nil || got != c.want {
			t.Errorf("%q is %+v, %v; want %+v", c.s, got, err, c.want)
			continue
		}
		if again, err := ParseForward(got.String()); err != nil || again != got {
			t.Errorf("%q is written as %q, which is %+v, %v", c.s, got, again, err)
		}
	}
}

func TestParseForwardErrors(t *testing.T) {
	for s, want := range map[string]string{
		"":                    "empty",
		"65536":               "local port: 65536 is not between 0 and 65535",
		"8080:65536":          "remote port: 65536 is not between 1 and 65535",
		"8080:0":              "remote port: 0 is not between 1 and 65535",
		"0":                   "remote port: 0 is not",
		"99999999999999999":   "is not between",
		"-1:80":               `"-1" is no number`,
		"http":                `"http" is no number`,
		"8080:web":            `"web" is no number`,
		"web:8080":            `"web" is no number`,
		"8080:":               "empty",
		":8080:80":            "empty",
		"8080::80":            "empty",
		"::1:8080:80":         "empty",
		"a:1:b:2:c":           "5 parts",
		"8080:web:80:90":      `"web" is no number`,
		"[::1:8080:80":        "not closed",
		"[web]:8080:80":       "no IP address",
		"[::1]8080:80":        "not a colon",
		"[::1]":               "is no number",
		"a[b:80:80":           "bracket inside",
		"80 80":               "blank",
		"80\x00:80":           "blank or a control character",
		"8080:/etc:80":        "is no host",
		"8080:*:80":           "is no host",
		"/run/db.sock":        "empty",
		"/run/db.sock:a:b:80": "3 parts",
		"/run/db.sock:db":     "is no number",
	} {
		got, err := ParseForward(s)
		if err == nil || !strings.Contains(err.Error(), want) || got != (Forward{}) {
			t.Errorf("%q gives %+v, %v; want an error with %q", s, got, err, want)
		}
	}
}

// FuzzParseForward: what is understood is within its bounds, and what it is
// written as means the same.
func FuzzParseForward(f *testing.F) {
	for _, s := range []string{"5432", "8080:80", "0:db:5432", "[::1]:1:web:2", "*:1:2", "/a:b:3", `C:\a:4`, "1:[::]:2", "[::1%]]:1:2", "a:/b:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseForward(s)
		if err != nil {
			return
		}
		if got.Port < 1 || got.Port > 65535 || got.LocalPort < 0 || got.LocalPort > 65535 {
			t.Fatalf("%q is %+v, a port out of bounds", s, got)
		}
		if got.Socket != "" && (got.Bind != "" || got.LocalPort != 0) {
			t.Fatalf("%q is %+v, a socket and a port", s, got)
		}
		if again, err := ParseForward(got.String()); err != nil || again != got {
			t.Fatalf("%q is %+v, but written as %q it is %+v, %v", s, got, got, again, err)
		}
	})
}

func TestLoopback(t *testing.T) {
	for _, c := range []struct {
		f    Forward
		want bool
	}{
		{Forward{}, true},
		{Forward{Bind: "localhost"}, true},
		{Forward{Bind: "127.0.0.9"}, true},
		{Forward{Bind: "::1"}, true},
		{Forward{Socket: "/run/x"}, true},
		{Forward{Bind: "*"}, false},
		{Forward{Bind: "0.0.0.0"}, false},
		{Forward{Bind: "::"}, false},
		{Forward{Bind: "10.0.0.1"}, false},
		{Forward{Bind: "myhost"}, false},
	} {
		if got := Loopback(c.f); got != c.want {
			t.Errorf("%+v is for this machine only: %v, want %v", c.f, got, c.want)
		}
	}
}
