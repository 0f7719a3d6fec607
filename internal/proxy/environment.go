package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// variable is one of the environment; the zero value is none.
type variable struct{ name, value string }

// first returns the first of the names that is set to something.
func first(getenv func(string) string, names ...string) variable {
	for _, name := range names {
		if value := strings.TrimSpace(getenv(name)); value != "" {
			return variable{name, value}
		}
	}
	return variable{}
}

// httpNames returns the variables for http URLs. Under CGI, HTTP_PROXY is what
// the client sent as its header Proxy (RFC 3875, section 4.1.18) and does not
// count; nor does http_proxy if it is the same variable, as on Windows.
func httpNames(getenv func(string) string) []string {
	const lower, upper = "http_proxy", "HTTP_PROXY"
	names := []string{"all_proxy", "ALL_PROXY"}
	cgi := getenv("REQUEST_METHOD") != ""
	if !cgi {
		names = append([]string{upper}, names...)
	}
	if !cgi || getenv(lower) != getenv(upper) {
		names = append([]string{lower}, names...)
	}
	return names
}

// server is a proxy.
type server struct {
	variable string   // which names it
	url      *url.URL // scheme, host:port and perhaps a user, nothing else
}

// isSOCKS tells a SOCKS5 proxy from one that takes CONNECT.
func (s *server) isSOCKS() bool { return s.url.Scheme == "socks5" || s.url.Scheme == "socks5h" }

// login returns the user name and the password of the URL, if it has any.
func (s *server) login() (user, password string, ok bool) {
	if s.url.User == nil {
		return "", "", false
	}
	password, _ = s.url.User.Password()
	return s.url.User.Username(), password, true
}

// parse reads the value of a variable: a URL, or host:port for http. The server
// is nil when there is no variable.
func parse(v variable) (*server, error) {
	if v.name == "" {
		return nil, nil
	}
	u, err := parseURL(v.value)
	if err != nil {
		return nil, fmt.Errorf("the proxy in %s cannot be used: %w", v.name, err)
	}
	return &server{variable: v.name, url: u}, nil
}

// parseURL never quotes the value, nor wraps url.Parse's error, which does. It
// is strict about what follows the host, for there an unescaped password ends:
// http://user:12/34@host is the port 12 of the host user.
func parseURL(value string) (*url.URL, error) {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("it is not a URL such as http://user:password@host:port" +
			" (special characters of a user name or password are written %XX)")
	}
	port := defaultPort(u.Scheme)
	if port == "" {
		return nil, errors.New("its scheme is none of http, https, socks5 and socks5h")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, errors.New("its port is not a number from 1 to 65535")
	}
	if u.Hostname() == "" {
		return nil, errors.New("it has no host")
	}
	clean := &url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(u.Hostname(), port)}
	if u.User != nil && u.User.String() != "" {
		clean.User = u.User
	}
	return clean, nil
}

// defaultPort is net/http's for a proxy, "" for a scheme that is not supported.
func defaultPort(scheme string) string {
	switch scheme {
	case "http":
		return "80"
	case "https":
		return "443"
	case "socks5", "socks5h":
		return "1080"
	default:
		return ""
	}
}
