package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

type vars = map[string]string

func TestWhichProxy(t *testing.T) {
	const (
		api    = "https://ssm.eu-west-1.amazonaws.test/"
		stream = "wss://ssmmessages.eu-west-1.amazonaws.test/v1/data-channel/x?role=publish_subscribe"
		plain  = "http://endpoint.test/"
		ws     = "ws://endpoint.test:8080/"
	)
	all := func(url string) map[string]string { return vars{api: url, stream: url, plain: url, ws: url} }
	secure := func(url string) map[string]string { return vars{api: url, stream: url, plain: "", ws: ""} }
	insecure := func(url string) map[string]string { return vars{api: "", stream: "", plain: url, ws: url} }

	for _, tt := range []struct {
		name string
		env  vars
		want map[string]string // URL to proxy, "" for none
	}{
		{"nothing set", nil, all("")},
		{"HTTPS_PROXY is for https and wss", vars{"HTTPS_PROXY": "http://p:1"}, secure("http://p:1")},
		{"HTTP_PROXY is for http and ws", vars{"HTTP_PROXY": "http://p:1"}, insecure("http://p:1")},
		{"ALL_PROXY is for all", vars{"ALL_PROXY": "socks5h://p:1"}, all("socks5h://p:1")},
		{"in lower case", vars{"https_proxy": "http://p:1"}, secure("http://p:1")},
		{"in lower case, for http", vars{"http_proxy": "http://p:1"}, insecure("http://p:1")},
		{"in lower case, for all", vars{"all_proxy": "http://p:1"}, all("http://p:1")},
		{"the lower case counts", vars{"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:2"}, secure("http://p:1")},
		{"ALL_PROXY is the fallback", vars{"HTTPS_PROXY": "http://p:1", "all_proxy": "http://q:2"},
			vars{api: "http://p:1", stream: "http://p:1", plain: "http://q:2", ws: "http://q:2"}},
		{"empty is not set", vars{"https_proxy": "", "HTTPS_PROXY": " ", "ALL_PROXY": "http://p:1"}, all("http://p:1")},
		{"what does not count need not be understood", vars{"https_proxy": "http://p:1", "http_proxy": "http://p:1", "all_proxy": "socks://p:1/"}, all("http://p:1")},

		{"no scheme is http", vars{"ALL_PROXY": "p:3128"}, all("http://p:3128")},
		{"no scheme, an address", vars{"ALL_PROXY": "192.0.2.1:3128"}, all("http://192.0.2.1:3128")},
		{"no scheme, a login", vars{"ALL_PROXY": "u:w@p:3128"}, all("http://u:w@p:3128")},
		{"no scheme, no port", vars{"ALL_PROXY": "p"}, all("http://p:80")},
		{"the port of http", vars{"ALL_PROXY": "http://p"}, all("http://p:80")},
		{"the port of https", vars{"ALL_PROXY": "https://p"}, all("https://p:443")},
		{"the port of socks5", vars{"ALL_PROXY": "socks5://p"}, all("socks5://p:1080")},
		{"the port of socks5h", vars{"ALL_PROXY": "socks5h://p"}, all("socks5h://p:1080")},
		{"a scheme in capitals", vars{"ALL_PROXY": "SOCKS5://p"}, all("socks5://p:1080")},
		{"a slash at the end", vars{"ALL_PROXY": "http://p:1/"}, all("http://p:1")},
		{"blanks around", vars{"ALL_PROXY": " http://p:1\n"}, all("http://p:1")},
		{"an IPv6 address", vars{"ALL_PROXY": "http://[2001:db8::1]:1"}, all("http://[2001:db8::1]:1")},
		{"a login", vars{"ALL_PROXY": "http://u:p%40%2F@p:1"}, all("http://u:p%40%2F@p:1")},
		{"an empty login is none", vars{"ALL_PROXY": "http://@p:1"}, all("http://p:1")},

		{"NO_PROXY names a domain", vars{"ALL_PROXY": "http://p:1", "NO_PROXY": "amazonaws.test"}, insecure("http://p:1")},
		{"in lower case, too", vars{"ALL_PROXY": "http://p:1", "no_proxy": ".amazonaws.test"}, insecure("http://p:1")},
		{"the lower case of NO_PROXY counts", vars{"ALL_PROXY": "http://p:1", "no_proxy": "amazonaws.test", "NO_PROXY": "*"}, insecure("http://p:1")},
		{"NO_PROXY with a port", vars{"ALL_PROXY": "http://p:1", "NO_PROXY": "endpoint.test:8080,ssm.eu-west-1.amazonaws.test:443"},
			vars{api: "", stream: "http://p:1", plain: "http://p:1", ws: ""}},
		{"NO_PROXY for all", vars{"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, all("")},
		{"a network in NO_PROXY", vars{"ALL_PROXY": "http://p:1", "NO_PROXY": "192.0.2.0/24"},
			vars{"wss://192.0.2.7/": "", "wss://198.51.100.7/": "http://p:1"}},
		{"a network of IPv6 in NO_PROXY", vars{"ALL_PROXY": "http://p:1", "NO_PROXY": "2001:db8::/32,[2001:db9::1]:443"},
			vars{"wss://[2001:db8::7]/": "", "wss://[2001:db9::1]/": "", "wss://[2001:db9::1]:444/": "http://p:1", "wss://[2001:db9::2]/": "http://p:1"}},
		{"this machine is never proxied", vars{"ALL_PROXY": "http://p:1"},
			vars{"ws://localhost:8080/": "", "http://127.0.0.1:1/": "", "wss://[::1]/": "", "https://127.8.8.8/": "",
				"ws://LocalHost:8080/": "", "http://[::ffff:127.0.0.1]/": ""}},

		{"under CGI, HTTP_PROXY is the client's", vars{"REQUEST_METHOD": "GET", "HTTP_PROXY": "http://evil:1"}, all("")},
		{"under CGI, ALL_PROXY is ours", vars{"REQUEST_METHOD": "GET", "HTTP_PROXY": "http://evil:1", "ALL_PROXY": "http://p:1"}, all("http://p:1")},
		{"under CGI, http_proxy is ours", vars{"REQUEST_METHOD": "GET", "HTTP_PROXY": "http://evil:1", "http_proxy": "http://p:1"}, insecure("http://p:1")},
		{"under CGI, both are one variable on Windows", vars{"REQUEST_METHOD": "GET", "HTTP_PROXY": "http://evil:1", "http_proxy": "http://evil:1"}, all("")},
		{"under CGI, HTTPS_PROXY is ours", vars{"REQUEST_METHOD": "GET", "HTTPS_PROXY": "http://p:1"}, secure("http://p:1")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(Config{Getenv: environment(tt.env)})
			if err != nil {
				t.Fatal(err)
			}
			for target, want := range tt.want {
				u, err := url.Parse(target)
				if err != nil {
					t.Fatal(err)
				}
				got, err := p.ForRequest(&http.Request{URL: u})
				if err != nil {
					t.Errorf("the proxy of %s: %v", target, err)
				}
				if s := fmt.Sprint(got); s != want && (got != nil || want != "") {
					t.Errorf("the proxy of %s is %s, want %q", target, s, want)
				}
			}
		})
	}
}

func TestProxiesThatCannotBeUsed(t *testing.T) {
	const (
		noURL    = "it is not a URL such as http://user:password@host:port (special characters of a user name or password are written %XX)"
		noScheme = "its scheme is none of http, https, socks5 and socks5h"
		noPort   = "its port is not a number from 1 to 65535"
		noHost   = "it has no host"
	)
	for _, tt := range []struct{ name, value, want string }{
		{"another scheme", "ftp://s3cret:hunter2@p:1", noScheme},
		{"SOCKS 4", "socks4://p", noScheme},
		{"a login as the scheme", "s3cret://hunter2@p", noScheme},
		{"no host", "http://", noHost},
		{"only a port", ":3128", noHost},
		{"only a login", "http://s3cret:hunter2@", noHost},
		{"port 0", "http://p:0", noPort},
		{"a port too high", "http://p:65536", noPort},
		{"a port by name", "http://s3cret:hunter2@p:proxy", noURL},
		{"a blank in the host", "http://s3cret:hunter2@p q:1", noURL},
		{"a percent sign in the password", "http://s3cret:hunter2%zz@p:1", noURL},
		{"a blank in the password", "http://s3cret:hunter2 x@p:1", noURL},
		{"a slash in the password", "http://s3cret:12/hunter2@p:1", noURL},
		{"a hash in the password", "http://s3cret:12#hunter2@p:1", noURL},
		{"a question mark in the password", "http://s3cret:12?hunter2@p:1", noURL},
		{"a path", "http://p:1/proxy.pac", noURL},
		{"control characters", "http://s3cret:hunter2\x1b[2J@p:1", noURL},
		{"a scheme without slashes", "socks5:p:1", noURL},
		{"an open bracket", "http://[::1:3128", noURL},
	} {
		for _, variable := range []string{"HTTPS_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"} {
			t.Run(tt.name+" in "+variable, func(t *testing.T) {
				_, err := New(Config{Getenv: environment(vars{variable: tt.value})})
				if err == nil {
					t.Fatalf("%q was taken for a proxy", tt.value)
				}
				discreet(t, err)
				if want := "the proxy in " + variable + " cannot be used: " + tt.want; err.Error() != want {
					t.Errorf("the error is\n%v, want\n%v", err, want)
				}
			})
		}
	}
}

func TestTheEnvironmentIsTheDefault(t *testing.T) {
	t.Setenv("https_proxy", "http://p.test:1")
	t.Setenv("NO_PROXY", "")
	t.Setenv("no_proxy", "")
	p, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	u, err := p.ForRequest(&http.Request{URL: &url.URL{Scheme: "https", Host: "target.test"}})
	if err != nil || u == nil || u.Host != "p.test:1" {
		t.Errorf("the proxy is %v, %v, want that of the process's https_proxy", u, err)
	}
}

func TestTheProxyOfARequestIsACopy(t *testing.T) {
	p, err := New(Config{Getenv: environment(vars{"ALL_PROXY": "http://p:1"})})
	if err != nil {
		t.Fatal(err)
	}
	r := &http.Request{URL: &url.URL{Scheme: "https", Host: "target.test"}}
	u, err := p.ForRequest(r)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "changed"
	if again, err := p.ForRequest(r); err != nil || again.Host != "p:1" {
		t.Errorf("a caller changed the proxy to %v, %v", again, err)
	}
}

func TestOtherSchemesHaveNoProxy(t *testing.T) {
	p, err := New(Config{Getenv: environment(vars{"ALL_PROXY": "http://p:1"})})
	if err != nil {
		t.Fatal(err)
	}
	if u, err := p.ForRequest(&http.Request{URL: &url.URL{Scheme: "ftp", Host: "target.test"}}); err == nil {
		t.Errorf("the proxy of an ftp URL is %v, want an error", u)
	}
}

// FuzzParseURL: whatever a variable holds, what is taken has all that is needed
// and survives being written and read, and what is not taken is not quoted.
func FuzzParseURL(f *testing.F) {
	for _, seed := range [][2]string{
		{"http://user:", "@proxy.test:3128"}, {"", "@p"}, {"socks5h://", ":x@[::1]:1080/"},
		{"https://u:1/", "@p:1"}, {"http://p:1#", ""}, {"ftp://", "@p"}, {"http://u:%4", "0@p:1"}, {"://", ""},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "S3CRET-77"
		u, err := parseURL(before + secret + after)
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error quotes the value: %v", err)
			}
			return
		}
		if defaultPort(u.Scheme) == "" || u.Hostname() == "" || u.Port() == "" {
			t.Errorf("%q was taken as %q", before+secret+after, u.Redacted())
		}
		again, err := parseURL(u.String())
		if err != nil || again.String() != u.String() {
			t.Errorf("%q read again is %v, %v", u, again, err)
		}
	})
}
