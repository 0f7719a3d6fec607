package emulator

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// resume calls ResumeSession, whatever comes of it.
func resume(t testing.TB, s *Server, g grant) answer {
	t.Helper()
	return call(t, s, "ResumeSession", `{"SessionId":"`+g.SessionID+`"}`)
}

// TestResumeFails with each error as often as was ordered, for each session.
func TestResumeFails(t *testing.T) {
	s := startWith(t, Config{}, echo)
	one, other := mustStart(t, s, `{"Target":"local"}`), mustStart(t, s, `{"Target":"local"}`)
	for _, code := range resumeCodes() {
		setFaults(t, s, "resume="+code+",times:2")
		for range 2 {
			for _, g := range []grant{one, other} {
				a := resume(t, s, g)
				if a.code() != code || a.status < 400 || a.message() == "" {
					t.Errorf("ResumeSession is answered with %d %s %q, not %s", a.status, a.code(), a.message(), code)
				}
			}
		}
		mustResume(t, s, one)
		mustResume(t, s, other)
	}
	setFaults(t, s, "resume=InternalServerError")
	for range 5 {
		if a := resume(t, s, one); a.status != http.StatusInternalServerError {
			t.Errorf("ResumeSession is answered with %d", a.status)
		}
	}
	if a := call(t, s, "TerminateSession", `{"SessionId":"`+one.SessionID+`"}`); a.status != http.StatusOK {
		t.Errorf("TerminateSession fails, too: %d", a.status)
	}
	if a := call(t, s, "ResumeSession", `{"SessionId":"nobody-0"}`); a.code() != "DoesNotExistException" {
		t.Errorf("resuming a session that never was is answered with %s", a.code())
	}
}

// TestTokensExpire: the socket closes instead of opening the channel.
func TestTokensExpire(t *testing.T) {
	s := startWith(t, Config{Faults: faultsOf(t, "expire-tokens=times:2")}, parrot)
	g := mustStart(t, s, `{"Target":"local"}`)
	connect(t, s, g).wantSocketEnd()
	connect(t, s, mustResume(t, s, g)).wantSocketEnd()
	p := connect(t, s, mustResume(t, s, g))
	p.say("the third one is good")
	setFaults(t, s, "expire-tokens=1h")
	p.again(s, g)
	p.say("an hour is enough")
}

// TestCredentialsExpire: the key from before is refused, one from after is taken, and
// when all is well again so is the key from before.
func TestCredentialsExpire(t *testing.T) {
	s := startWith(t, Config{}, echo)
	g := mustStart(t, s, `{"Target":"local"}`)
	byIdentity := func() aws.Credentials {
		t.Helper()
		_, secret := s.Credentials()
		body := form("AssumeRoleWithWebIdentity", "RoleArn", opsRole, "RoleSessionName", "jane", "WebIdentityToken", jwt(secret, `{"sub":"jane"}`)).Encode()
		a := doQuery(t, s, newQuery(t, s, body, "sts", aws.Credentials{}))
		if a.status != http.StatusOK {
			t.Fatalf("a role cannot be had by a web identity: %s", a.text)
		}
		part := func(name string) string {
			_, rest, _ := strings.Cut(a.text, "<"+name+">")
			value, _, _ := strings.Cut(rest, "</"+name+">")
			return value
		}
		return aws.Credentials{AccessKeyID: part("AccessKeyId"), SecretAccessKey: part("SecretAccessKey"), SessionToken: part("SessionToken")}
	}
	use := func(key aws.Credentials) answer {
		t.Helper()
		body := `{"SessionId":"` + g.SessionID + `"}`
		r, err := http.NewRequest(http.MethodPost, s.URL()+"/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("X-Amz-Target", "AmazonSSM.ResumeSession")
		sign(t, s, r, body, key, time.Now())
		return do(t, s, r)
	}
	before := byIdentity()
	setFaults(t, s, "expire-credentials")
	for name, key := range map[string]aws.Credentials{"the emulator's key": s.key, "a temporary key": before} {
		if a := use(key); a.code() != "ExpiredTokenException" || a.status != http.StatusBadRequest {
			t.Errorf("%s from before is answered with %d %s", name, a.status, a.code())
		}
	}
	if a := callSTS(t, s, form("GetCallerIdentity")); a.Code != "ExpiredToken" || a.status != http.StatusForbidden {
		t.Errorf("STS answers with %d %s", a.status, a.Code)
	}
	if a := use(byIdentity()); a.status != http.StatusOK {
		t.Errorf("a key from after is answered with %d %s", a.status, a.code())
	}
	setFaults(t, s, "expire-credentials=after:1h")
	if a := use(s.key); a.status != http.StatusOK {
		t.Errorf("a key that expires in an hour is answered with %s", a.code())
	}
	setFaults(t, s)
	for _, key := range []aws.Credentials{s.key, before} {
		if a := use(key); a.status != http.StatusOK {
			t.Errorf("when all is well again a key is answered with %s", a.code())
		}
	}
}

// TestExpiryInTime: keys from before the window's beginning, within the window.
func TestExpiryInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFaultSwitch(1)
		if err := w.set(faultsOf(t, "expire-credentials=after:10s,for:5s")); err != nil {
			t.Fatal(err)
		}
		early, begin := time.Now(), time.Now()
		for second := range 20 {
			want := second >= 10 && second < 15
			if got := w.get().expired(early); got != want {
				t.Errorf("after %d s the early key has expired: %v", second, got)
			}
			if w.get().expired(begin.Add(10 * time.Second)) {
				t.Errorf("after %d s the late key has expired", second)
			}
			time.Sleep(time.Second)
		}
	})
}

// TestThrottle refuses the first calls, whatever they are.
func TestThrottle(t *testing.T) {
	s := startWith(t, Config{Faults: faultsOf(t, "throttle=times:2")}, echo)
	if a := call(t, s, "StartSession", `{"Target":"local"}`); a.code() != "ThrottlingException" || a.message() != "Rate exceeded" {
		t.Errorf("the first call is answered with %s %q", a.code(), a.message())
	}
	if a := callSTS(t, s, form("GetCallerIdentity")); a.Code != "Throttling" {
		t.Errorf("the second call is answered with %s", a.Code)
	}
	mustStart(t, s, `{"Target":"local"}`)
}

// TestThrottleRate takes so many calls within any second, and no more.
func TestThrottleRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFaultSwitch(1)
		if err := w.set(faultsOf(t, "throttle=2,for:10s")); err != nil {
			t.Fatal(err)
		}
		var got []bool
		for range 8 {
			got = append(got, w.get().throttled())
			time.Sleep(300 * time.Millisecond)
		}
		// At 0, 300, 600, 900, 1200 … ms: two are taken, and more as those are a second old.
		if want := []bool{false, false, true, true, false, false, true, true}; !slices.Equal(got, want) {
			t.Errorf("too many were %v, not %v", got, want)
		}
		time.Sleep(10 * time.Second)
		for range 5 {
			if w.get().throttled() {
				t.Error("calls are throttled after the window")
			}
		}
	})
}

// remote is the server's remote end, as another process finds it.
func remote(t testing.TB, s *Server) *Remote {
	t.Helper()
	env := map[string]string{}
	for _, v := range s.Environment() {
		env[v[0]] = v[1]
	}
	r, err := NewRemote(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestFaultsFromOutside sets and reads them by the API, with no fault of its own.
func TestFaultsFromOutside(t *testing.T) {
	for _, secure := range []bool{false, true} {
		s := startWith(t, Config{TLS: secure, FaultSeed: 99}, echo)
		r := remote(t, s)
		want := func(specs ...string) {
			t.Helper()
			got, seed, err := r.Faults(t.Context())
			if err != nil || !slices.Equal(got, faultsOf(t, specs...)) || seed != 99 {
				t.Errorf("the faults are %v with seed %d, %v, not %q", got, seed, err, specs)
			}
		}
		want()
		for range 3 { // it is not throttled, and its key does not expire
			if err := r.SetFaults(t.Context(), faultsOf(t, "throttle=times:1", "expire-credentials", "drop=5%,to-client")...); err != nil {
				t.Fatal(err)
			}
			want("throttle=times:1", "expire-credentials", "drop=5%,to-client")
		}
		if a := call(t, s, "StartSession", `{"Target":"local"}`); a.code() != "ThrottlingException" {
			t.Errorf("they do not happen: %s", a.code())
		}
		if err := r.SetFaults(t.Context()); err != nil {
			t.Fatal(err)
		}
		want()
		mustStart(t, s, `{"Target":"local"}`)
	}
}

// TestWhoMayNotSetFaults is everybody without the key, and who writes what is none.
func TestWhoMayNotSetFaults(t *testing.T) {
	s := startWith(t, Config{}, echo)
	stranger := remote(t, s)
	stranger.key.SecretAccessKey = "guessed"
	if err := stranger.SetFaults(t.Context(), faultsOf(t, "drop=5%")...); err == nil || !strings.Contains(err.Error(), "InvalidSignatureException") || strings.Contains(err.Error(), "guessed") {
		t.Errorf("a stranger gets %v", err)
	}
	if err := remote(t, s).SetFaults(t.Context(), Fault{Kind: FaultDrop}); err == nil || !strings.Contains(err.Error(), "the form is drop=P%") {
		t.Errorf("half a fault gets %v", err)
	}
	if s.faults.get() != nil {
		t.Error("some faults are set all the same")
	}
	nowhere := remote(t, s)
	nowhere.url = "http://127.0.0.1:1"
	if _, _, err := nowhere.Faults(t.Context()); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("where no emulator is, it is said: %v", err)
	}
	for _, url := range []string{"http://jane:hunter2@127.0.0.1 :1", "http://jane:hunter2@127.0.0.1:1"} {
		nowhere.url = url
		if _, _, err := nowhere.Faults(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("of %s it is said: %v", url, err)
		}
	}
	nowhere.caFile = "none.pem"
	if _, _, err := nowhere.Faults(t.Context()); err == nil || !strings.Contains(err.Error(), "AWS_CA_BUNDLE") {
		t.Errorf("without the authority's file it is said: %v", err)
	}
	for _, body := range []string{"<html>", `{"Faults":["\u001b[2J"]}`} {
		if faults, _, err := readFaults(http.StatusOK, []byte(body)); err == nil {
			t.Errorf("the answer of something else is taken: %v", faults)
		}
	}
	for _, missing := range []string{"AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		_, err := NewRemote(func(name string) string {
			if name == missing {
				return ""
			}
			return "something"
		})
		if err == nil || !strings.Contains(err.Error(), missing+" is not set") {
			t.Errorf("without %s it is said: %v", missing, err)
		}
	}
}

// TestFaultSeed: it is what was said, or one is drawn.
func TestFaultSeed(t *testing.T) {
	if got := startServer(t, Config{FaultSeed: 5}).FaultSeed(); got != 5 {
		t.Errorf("the seed 5 is %d", got)
	}
	a, b := startServer(t, Config{}).FaultSeed(), startServer(t, Config{}).FaultSeed()
	if a == 0 || a == b {
		t.Errorf("the seeds %d and %d are drawn", a, b)
	}
}

// TestFaultsAreLogged, with what they need to be had again.
func TestFaultsAreLogged(t *testing.T) {
	var log bytes.Buffer
	s := startServer(t, Config{FaultSeed: 77, Log: textLog(&log)})
	setFaults(t, s, "drop=5%,to-client", "cut=after:3s,close")
	for _, want := range []string{"drop=5%,to-client", "cut=close,after:3s", "seed=77"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s: %s", want, log.String())
		}
	}
}
