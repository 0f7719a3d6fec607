package emulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
)

// Defaults of a Config.
const (
	DefaultListen       = "127.0.0.1:0"
	DefaultAgentVersion = "3.3.808.0" // the first that does all that is played
	DefaultRegion       = "us-east-1"
	DefaultAccountID    = "111122223333"
)

// userName is whom every caller is taken for.
const userName = "emulator"

// Pace says whether delays and limits of the real service are played.
type Pace string

// The paces. The empty Pace is PaceOff.
const (
	PaceOff  Pace = "off"
	PaceReal Pace = "real" // the agent's delays, and the service's limit of messages a second
)

// Config says what a Server is to be. The zero value is a server on a free port of
// 127.0.0.1 with one target, LocalTarget.
type Config struct {
	// Listen is the address to listen on, host:port. Port 0 is a free one. An
	// address beyond loopback is an error unless AllowRemote.
	Listen      string
	AllowRemote bool
	// TLS serves https and wss, with a certificate of an authority that is made
	// at start (Server.CAFile).
	TLS bool
	// Targets are what sessions can be started on. All are this machine.
	Targets []Target
	// Tasks are what ECS has; their containers are targets, too. The default is one
	// task with one container (DefaultTaskID).
	Tasks []Task
	// Documents come on top of the built-in ones, or replace one of the same name.
	Documents []Document
	// Shell is the command line of the shell of a session without a command; the
	// default is sh, as AWS's agent has it.
	Shell []string
	// AgentVersion is which agent to play, three or four numbers: what an older
	// agent could not do, this one cannot either.
	AgentVersion string
	// Deny names actions ("StartSession", "AssumeRole") and documents that callers
	// have no permission for.
	Deny []string
	// MFACode is what the caller's MFA device shows, six digits, all the time. Roles
	// whose name starts with "mfa" can only be assumed with it.
	MFACode string
	// AuthorizedKeys is a file for the keys of SendSSHPublicKey, each for its minute;
	// an sshd on this machine may be told to read it. It is the server's own, and
	// removed by Close: a file with anything else in it is an error. Without one the
	// call is refused.
	AuthorizedKeys string
	// KMSKeys are the ARNs of the keys that KMS has. With the first one all sessions
	// are encrypted but tunnels; without any, none are.
	KMSKeys []string
	Pace    Pace
	Limits  Limits
	// Faults are set from the start (Server.SetFaults). FaultSeed is what their dice
	// are seeded with, so that a bad day can be had again; zero: one is drawn.
	Faults    []Fault
	FaultSeed uint64
	// Region and AccountID are the ones to sign for and to be named in ARNs.
	Region, AccountID string
	Log               *slog.Logger // nil: none. Never a token or a byte of payload.
	Version           string       // of this program, for the Server header
}

// Limits are the times that the service gives its clients. Zero is the default.
type Limits struct {
	Token  time.Duration // that a token can be used in; 5 minutes
	Attach time.Duration // for the first client of a session to come; 10 minutes
	Open   time.Duration // for a websocket to send its token; 10 seconds
	Header time.Duration // for the headers of a request to come, and a TLS handshake; 10 seconds
	Body   time.Duration // for the whole of a request to come, and for its answer to go; 30 seconds
}

// setDefaults fills in what was left zero.
func (c *Config) setDefaults() {
	c.Listen = cmp.Or(c.Listen, DefaultListen)
	c.AgentVersion = cmp.Or(c.AgentVersion, DefaultAgentVersion)
	c.Region = cmp.Or(c.Region, DefaultRegion)
	c.AccountID = cmp.Or(c.AccountID, DefaultAccountID)
	c.MFACode = cmp.Or(c.MFACode, DefaultMFACode)
	c.Pace = cmp.Or(c.Pace, PaceOff)
	c.Limits.Token = cmp.Or(c.Limits.Token, 5*time.Minute)
	c.Limits.Attach = cmp.Or(c.Limits.Attach, 10*time.Minute)
	c.Limits.Open = cmp.Or(c.Limits.Open, 10*time.Second)
	c.Limits.Header = cmp.Or(c.Limits.Header, 10*time.Second)
	c.Limits.Body = cmp.Or(c.Limits.Body, 30*time.Second)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	if len(c.Targets) == 0 {
		c.Targets = []Target{{ID: LocalTarget}}
	}
	c.Tasks = tasksOrDefault(c.Tasks)
	if len(c.Shell) == 0 {
		c.Shell = []string{"sh"}
	}
}

// check tells what is wrong with c; documents and the address are checked where
// they are used.
func (c *Config) check() error {
	if c.Pace != PaceOff && c.Pace != PaceReal {
		return fmt.Errorf("pace is %q, not off or real", c.Pace)
	}
	if !regexp.MustCompile(`^[0-9]{1,6}(\.[0-9]{1,6}){2,3}$`).MatchString(c.AgentVersion) {
		return fmt.Errorf("agent version is %q, not three or four numbers", c.AgentVersion)
	}
	if !regexp.MustCompile(`^[0-9]{6}$`).MatchString(c.MFACode) {
		return errors.New("the MFA code is not six digits")
	}
	if err := checkKeys(c.KMSKeys); err != nil {
		return err
	}
	for _, t := range c.Targets {
		if t.ID == "" || len(t.ID) > 400 {
			return fmt.Errorf("target %q: an id has 1 to 400 bytes", t.ID)
		}
	}
	return checkTasks(c.Tasks)
}

// ConfigError is a Config that cannot be meant: the caller's mistake, not the
// system's.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap gives what is wrong.
func (e *ConfigError) Unwrap() error { return e.Err }

// Server is a running emulator.
type Server struct {
	cfg       Config
	log       *slog.Logger
	started   time.Time
	url       string
	key       aws.Credentials // secret
	signer    *v4.Signer
	api       map[string]operation
	query     map[string]queryOperation
	temporary temporaryKeys
	documents documents
	play      playFunc
	faults    *faultSwitch
	keys      *authorizedKeys
	kms       *kms
	sessions  sessions
	lobby     *lobby

	ctx     context.Context // of all sessions; the cause is errStopped once Close is called
	cancel  context.CancelCauseFunc
	http    *http.Server
	serving chan error // the end of http's Serve
	caFile  string     // empty without TLS

	mu       sync.Mutex // guards closing
	closing  bool
	handlers sync.WaitGroup // the requests that are served, data channels included
}

// Start starts an emulator. It serves until Close, which must be called; its
// sessions end with ctx, too. The errors are those of a Config that cannot be, of
// the address, and of the certificate.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	cfg.setDefaults()
	if err := cfg.check(); err != nil {
		return nil, &ConfigError{err}
	}
	documents, err := newDocuments(cfg.Documents, cfg.KMSKeys)
	if err != nil {
		return nil, err
	}
	faults := newFaultSwitch(cfg.FaultSeed)
	if err := faults.set(cfg.Faults); err != nil {
		return nil, err
	}
	keys := &authorizedKeys{path: cfg.AuthorizedKeys, log: cfg.Log}
	if err := keys.check(); err != nil {
		return nil, &ConfigError{err}
	}
	listener, err := listen(cfg)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:       cfg,
		log:       cfg.Log,
		started:   time.Now(),
		key:       newKey("AKIA"),
		signer:    v4.NewSigner(),
		documents: documents,
		play:      agent.Run,
		faults:    faults,
		keys:      keys,
		kms:       newKMS(cfg.KMSKeys),
		sessions:  sessions{byID: map[string]*session{}},
		lobby:     newLobby(cfg.Log),
		serving:   make(chan error, 1),
	}
	s.url = s.scheme() + "://" + reachable(listener.Addr())
	s.api = s.operations()
	s.query = s.queryOperations()
	if cfg.TLS {
		if listener, s.caFile, err = serveTLS(listener); err != nil {
			return nil, errors.Join(err, listener.Close())
		}
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.http = s.newHTTPServer()
	go func() { s.serving <- s.http.Serve(listener) }()
	return s, nil
}

// newHTTPServer bounds what a client can hold on to: headers, bodies and answers in
// size and in time, connections that do nothing in time, and in number those that
// have shown no key.
func (s *Server) newHTTPServer() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{$}", s.serveAPI)
	mux.HandleFunc("GET "+dataChannelPath+"{session}", s.dataChannel)
	return &http.Server{
		Handler:           door(s.whileServing(mux)),
		ReadHeaderTimeout: s.cfg.Limits.Header,
		ReadTimeout:       s.cfg.Limits.Body, // the websocket library lifts this one and the next
		WriteTimeout:      s.cfg.Limits.Body,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnContext:       s.lobby.enter,
		ConnState:         s.lobby.changed,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// whileServing is around every request. It counts the requests that Close waits for,
// and lets none in once it is called.
func (s *Server) whileServing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		closing := s.closing
		if !closing {
			s.handlers.Add(1)
		}
		s.mu.Unlock()
		if closing {
			http.Error(w, "the emulator stops", http.StatusServiceUnavailable)
			return
		}
		defer s.handlers.Done()
		w.Header().Set("Server", strings.TrimRight("ssmsession-emulator/"+s.cfg.Version, "/"))
		next.ServeHTTP(w, r)
	})
}

// Close ends every session, stops serving and removes the file it made. It
// returns once every goroutine and process is gone. It is called once.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.cancel(errStopped)
	s.sessions.close() // the clients are told before their sockets go
	err := s.http.Close()
	if end := <-s.serving; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	s.handlers.Wait()
	if s.caFile != "" {
		err = errors.Join(err, os.Remove(s.caFile))
	}
	return errors.Join(err, s.keys.close())
}

// scheme is that of the API.
func (s *Server) scheme() string {
	if s.cfg.TLS {
		return "https"
	}
	return "http"
}

// callerARN names the one user there is.
func (s *Server) callerARN() string {
	return "arn:aws:iam::" + s.cfg.AccountID + ":user/" + userName
}

// documentARN names a document, as errors do.
func (s *Server) documentARN(name string) string {
	if strings.HasPrefix(name, "arn:") {
		return name
	}
	account := s.cfg.AccountID
	if strings.HasPrefix(name, "AWS-") {
		account = "" // AWS's own documents belong to no account
	}
	return "arn:aws:ssm:" + s.cfg.Region + ":" + account + ":document/" + name
}

// URL is where the API is: http or https, an address of this machine and a port.
func (s *Server) URL() string { return s.url }

// Credentials are the access key that requests must be signed with, if not with a
// temporary one that was had with it. They are secret.
func (s *Server) Credentials() (accessKeyID, secretAccessKey string) {
	return s.key.AccessKeyID, s.key.SecretAccessKey
}

// CAFile is a file with the certificate of the authority that signed the server's,
// in PEM; empty without TLS.
func (s *Server) CAFile() string { return s.caFile }

// Environment gives the variables by which AWS's tools and SDKs, and ours, find
// the server and its key.
func (s *Server) Environment() [][2]string {
	env := [][2]string{
		{"AWS_ENDPOINT_URL", s.url},
		{"AWS_REGION", s.cfg.Region},
		{"AWS_ACCESS_KEY_ID", s.key.AccessKeyID},
		{"AWS_SECRET_ACCESS_KEY", s.key.SecretAccessKey},
	}
	if s.caFile != "" {
		env = append(env, [2]string{"AWS_CA_BUNDLE", s.caFile})
	}
	return env
}

// String names the server, without its key.
func (s *Server) String() string { return "emulator at " + s.url }

// GoString names the server, without its key.
func (s *Server) GoString() string { return s.String() }
