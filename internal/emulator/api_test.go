package emulator

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ssmsession/ssmsession/internal/emulator/agent"
)

// TestErrors is the specification of what bad calls get.
func TestErrors(t *testing.T) {
	s := startWith(t, Config{
		Targets: []Target{{ID: "local"}, {ID: "i-0123456789abcdef0", Offline: true}},
		Deny:    []string{"GetConnectionStatus", "AWS-StartInteractiveCommand"},
	}, echo)
	tests := []struct {
		name, action, body string
		code, message      string // message: a part of it
	}{
		{"an unknown action", "SendCommand", `{}`, "UnknownOperationException", ""},
		{"no JSON", "StartSession", `{`, "SerializationException", ""},
		{"a member of another type", "StartSession", `{"Target":7}`, "SerializationException", ""},
		{"no target", "StartSession", `{}`, "ValidationException",
			"1 validation error detected: Value null at 'target' failed to satisfy constraint: Member must not be null"},
		{"a target in the wrong case", "StartSession", `{"target":"local"}`, "ValidationException", "Value null at 'target'"},
		{"an empty target", "StartSession", `{"Target":""}`, "ValidationException",
			"Value '' at 'target' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"a target of 401 characters", "StartSession", `{"Target":"` + strings.Repeat("x", 401) + `"}`, "ValidationException",
			"Member must have length less than or equal to 400"},
		{"two things wrong", "StartSession", `{"DocumentName":"x y"}`, "ValidationException", "2 validation errors detected: "},
		{"a document name that cannot be one", "StartSession", `{"Target":"local","DocumentName":"no blanks"}`, "ValidationException",
			`Member must satisfy regular expression pattern: ^[a-zA-Z0-9_\-.:/]{3,128}$`},
		{"a reason of 257 characters", "StartSession", `{"Target":"local","Reason":"` + strings.Repeat("x", 257) + `"}`, "ValidationException", "'reason'"},
		{"an empty parameter value", "StartSession",
			`{"Target":"local","DocumentName":"AWS-StartNonInteractiveCommand","Parameters":{"command":[""]}}`,
			"ValidationException", "'parameters.command.member.1.member'"},
		{"an unknown document", "StartSession", `{"Target":"local","DocumentName":"Nope"}`, "InvalidDocument", "Document with name Nope does not exist."},
		{"an unknown target", "StartSession", `{"Target":"i-0aaaaaaaaaaaaaaaa"}`, "TargetNotConnected", "i-0aaaaaaaaaaaaaaaa is not connected."},
		{"a target that is offline", "StartSession", `{"Target":"i-0123456789abcdef0"}`, "TargetNotConnected", "is not connected."},
		{"a parameter that is not declared", "StartSession", `{"Target":"local","Parameters":{"x":["1"]}}`, "InvalidParameters", `Parameter "x" is not defined`},
		{"a parameter that is missing", "StartSession", `{"Target":"local","DocumentName":"AWS-StartNonInteractiveCommand"}`,
			"InvalidParameters", `Parameter "command" requires a value.`},
		{"a parameter with two values", "StartSession",
			`{"Target":"local","DocumentName":"AWS-StartNonInteractiveCommand","Parameters":{"command":["a","b"]}}`,
			"InvalidParameters", `takes one value, not 2`},
		{"a value that is not allowed", "StartSession",
			`{"Target":"local","DocumentName":"AWS-StartNonInteractiveCommand","Parameters":{"command":["a"],"separateOutputStream":["perhaps"]}}`,
			"InvalidParameters", `Parameter "separateOutputStream" has value "perhaps" not found in [true false].`},
		{"an action that is denied", "GetConnectionStatus", `{"Target":"local"}`, "AccessDeniedException",
			"User: arn:aws:iam::111122223333:user/emulator is not authorized to perform: ssm:GetConnectionStatus on resource: arn:aws:ssm:us-east-1:111122223333:* " +
				"because no identity-based policy allows the ssm:GetConnectionStatus action"},
		{"a document that is denied", "StartSession", `{"Target":"local","DocumentName":"AWS-StartInteractiveCommand"}`, "AccessDeniedException",
			"arn:aws:ssm:us-east-1::document/AWS-StartInteractiveCommand"},
		{"resuming what never was", "ResumeSession", `{"SessionId":"jane-0123"}`, "DoesNotExistException", "jane-0123"},
		{"resuming nothing", "ResumeSession", `{}`, "ValidationException", "'sessionId'"},
		{"terminating an id of 97 characters", "TerminateSession", `{"SessionId":"` + strings.Repeat("x", 97) + `"}`, "ValidationException", "'sessionId'"},
		{"describing without a state", "DescribeSessions", `{}`, "ValidationException", "Value null at 'state'"},
		{"describing another state", "DescribeSessions", `{"State":"Gone"}`, "ValidationException", "Member must satisfy enum value set: [Active, History]"},
		{"describing 201 sessions", "DescribeSessions", `{"State":"Active","MaxResults":201}`, "ValidationException", "'maxResults'"},
		{"describing with an empty list of filters", "DescribeSessions", `{"State":"Active","Filters":[]}`, "ValidationException", "'filters'"},
		{"describing by an unknown key", "DescribeSessions", `{"State":"Active","Filters":[{"key":"Colour","value":"red"}]}`, "ValidationException", "'filters.1.member.key'"},
		{"describing by a time that is none", "DescribeSessions", `{"State":"Active","Filters":[{"key":"InvokedAfter","value":"noon"}]}`, "ValidationException", "'filters.1.member.value'"},
		{"a token of another kind", "DescribeSessions", `{"State":"Active","NextToken":"!"}`, "InvalidNextToken", ""},
		{"four instances a page", "DescribeInstanceInformation", `{"MaxResults":4}`, "ValidationException", "Member must have value greater than or equal to 5"},
		{"a filter that instances have not", "DescribeInstanceInformation", `{"Filters":[{"Key":"Colour","Values":["red"]}]}`, "InvalidFilterKey", ""},
		{"a filter without values", "DescribeInstanceInformation", `{"Filters":[{"Key":"InstanceIds","Values":[]}]}`, "ValidationException", "'filters.1.member.values'"},
		{"an older filter with another key", "DescribeInstanceInformation", `{"InstanceInformationFilterList":[{"key":"PlatformType","valueSet":["Linux"]}]}`,
			"ValidationException", "'instanceInformationFilterList.1.member.key'"},
		{"both kinds of filters", "DescribeInstanceInformation",
			`{"Filters":[{"Key":"InstanceIds","Values":["local"]}],"InstanceInformationFilterList":[{"key":"InstanceIds","valueSet":["local"]}]}`,
			"ValidationException", "not both"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := call(t, s, test.action, test.body)
			if a.status != http.StatusBadRequest || a.code() != test.code || !strings.Contains(a.message(), test.message) {
				t.Errorf("%s %.80s got %d %s: %q, not 400 %s: …%q…", test.action, test.body, a.status, a.code(), a.message(), test.code, test.message)
			}
			if _, err := uuid.Parse(a.header.Get("x-amzn-RequestId")); err != nil {
				t.Errorf("the request id is %q", a.header.Get("x-amzn-RequestId"))
			}
		})
	}
	if all := s.sessions.all(); len(all) != 0 {
		t.Errorf("refused calls have started %d sessions", len(all))
	}
}

func TestErrorShapes(t *testing.T) {
	tests := []struct {
		err  error
		body string
	}{
		{errInvalidDocument("X-1"), `{"Message":"Document with name X-1 does not exist.","__type":"InvalidDocument"}`},
		{errInvalidFilterKey, `{"__type":"InvalidFilterKey"}`},
		{common("ValidationException", "no"), `{"__type":"ValidationException","message":"no"}`},
		{context.Canceled, `{"Message":"An error occurred on the server side.","__type":"InternalServerError"}`},
	}
	for _, test := range tests {
		body, err := json.Marshal(asAPIError(test.err).body())
		if err != nil || string(body) != test.body {
			t.Errorf("%v is answered as %s, not %s", test.err, body, test.body)
		}
	}
	if status := asAPIError(context.Canceled).status; status != http.StatusInternalServerError {
		t.Errorf("an error of the server's is answered with status %d", status)
	}
}

func TestStartSession(t *testing.T) {
	s := startWith(t, Config{}, echo)
	g := mustStart(t, s, `{"Target":"local","Reason":"a test"}`)
	if !regexp.MustCompile(`^emulator-[0-9a-f]{17}$`).MatchString(g.SessionID) {
		t.Errorf("the session id is %q", g.SessionID)
	}
	if !strings.HasPrefix(g.TokenValue, "AAEA") || len(g.TokenValue) != 344 {
		t.Errorf("the token starts with %.6q and has %d characters", g.TokenValue, len(g.TokenValue))
	}
	want := strings.Replace(s.URL(), "http", "ws", 1) + "/v1/data-channel/" + g.SessionID + "?role=publish_subscribe"
	if g.StreamURL != want {
		t.Errorf("the stream URL is %q, not %q", g.StreamURL, want)
	}
	for _, name := range []string{"SSM-SessionManagerRunShell", "arn:aws:ssm:us-east-1:111122223333:document/SSM-SessionManagerRunShell"} {
		mustStart(t, s, `{"Target":"local","DocumentName":"`+name+`"}`)
	}
}

func TestTerminateSession(t *testing.T) {
	s := startWith(t, Config{}, echo)
	g := mustStart(t, s, `{"Target":"local"}`)
	for range 2 {
		if a := call(t, s, "TerminateSession", `{"SessionId":"`+g.SessionID+`"}`); a.status != 200 || a.text("SessionId") != g.SessionID {
			t.Fatalf("TerminateSession got %d %v", a.status, a.members)
		}
	}
	<-s.sessions.find(g.SessionID).done
	a := call(t, s, "ResumeSession", `{"SessionId":"`+g.SessionID+`"}`)
	if _, has := a.members["TokenValue"]; a.status != 200 || has || a.text("SessionId") != g.SessionID {
		t.Errorf("resuming a session that is over got %d %v", a.status, a.members)
	}
	if a := call(t, s, "TerminateSession", `{"SessionId":"never-there"}`); a.status != 200 {
		t.Errorf("terminating what never was got %d %s", a.status, a.code())
	}
}

func TestDescribeSessions(t *testing.T) {
	s := startWith(t, Config{Targets: []Target{{ID: "local"}, {ID: "mi-0123456789abcdef0"}}, Documents: []Document{{
		Name: "An-Hour", SessionType: "Standard_Stream", Inputs: DocumentInputs{MaxSessionDuration: "60"}}}}, echo)
	before := time.Now()
	var ids []string
	for i := range 5 {
		target := []string{"local", "mi-0123456789abcdef0"}[i%2]
		ids = append(ids, mustStart(t, s, fmt.Sprintf(`{"Target":%q,"Reason":"number %d","DocumentName":"An-Hour"}`, target, i)).SessionID)
	}
	for _, id := range ids[:2] {
		call(t, s, "TerminateSession", `{"SessionId":"`+id+`"}`)
		<-s.sessions.find(id).done
	}
	tests := []struct {
		name, body string
		want       []string
	}{
		{"active ones, newest first", `{"State":"Active"}`, []string{ids[4], ids[3], ids[2]}},
		{"past ones", `{"State":"History"}`, []string{ids[1], ids[0]}},
		{"by target", `{"State":"Active","Filters":[{"key":"Target","value":"local"}]}`, []string{ids[4], ids[2]}},
		{"by id", `{"State":"Active","Filters":[{"key":"SessionId","value":"` + ids[3] + `"}]}`, []string{ids[3]}},
		{"by status", `{"State":"Active","Filters":[{"key":"Status","value":"Connected"}]}`, nil},
		{"by owner", `{"State":"History","Filters":[{"key":"Owner","value":"arn:aws:iam::111122223333:user/emulator"}]}`, []string{ids[1], ids[0]}},
		{"by access type", `{"State":"History","Filters":[{"key":"AccessType","value":"JustInTime"}]}`, nil},
		{"since an hour", `{"State":"History","Filters":[{"key":"InvokedAfter","value":"` + before.Add(-time.Hour).UTC().Format(time.RFC3339) + `"}]}`, []string{ids[1], ids[0]}},
		{"until an hour ago", `{"State":"History","Filters":[{"key":"InvokedBefore","value":"` + before.Add(-time.Hour).UTC().Format(time.RFC3339) + `"}]}`, nil},
		{"two filters", `{"State":"Active","Filters":[{"key":"Target","value":"local"},{"key":"SessionId","value":"` + ids[4] + `"}]}`, []string{ids[4]}},
	}
	for _, test := range tests {
		a := call(t, s, "DescribeSessions", test.body)
		if got := column(a, "Sessions", "SessionId"); a.status != 200 || !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, not %v (%d %s)", test.name, got, test.want, a.status, a.message())
		}
	}
	a := call(t, s, "DescribeSessions", `{"State":"History","MaxResults":1}`)
	first := a.members["Sessions"].([]any)[0].(map[string]any)
	for name, want := range map[string]any{
		"Target": "mi-0123456789abcdef0", "Status": "Terminated", "Reason": "number 1", "DocumentName": "An-Hour",
		"Owner": "arn:aws:iam::111122223333:user/emulator", "MaxSessionDuration": "60", "AccessType": "Standard",
	} {
		if first[name] != want {
			t.Errorf("%s of a session is %v, not %v", name, first[name], want)
		}
	}
	start, _ := first["StartDate"].(float64)
	end, _ := first["EndDate"].(float64)
	if age := time.Since(time.UnixMilli(int64(start * 1000))); age < 0 || age > time.Hour || end < start {
		t.Errorf("a session began at %v and ended at %v", first["StartDate"], first["EndDate"])
	}
}

func TestPages(t *testing.T) {
	s := startWith(t, Config{}, echo)
	for range 5 {
		mustStart(t, s, `{"Target":"local"}`)
	}
	var got []string
	token := ""
	for pages := 1; ; pages++ {
		a := call(t, s, "DescribeSessions", `{"State":"Active","MaxResults":2,"NextToken":"`+token+`"}`)
		got = append(got, column(a, "Sessions", "SessionId")...)
		if pages == 1 { // what comes and goes in between shifts nothing
			mustStart(t, s, `{"Target":"local"}`)
			call(t, s, "TerminateSession", `{"SessionId":"`+got[1]+`"}`)
			<-s.sessions.find(got[1]).done
		}
		token = a.text("NextToken")
		if token == "" {
			if pages != 3 {
				t.Errorf("five sessions came in %d pages of two", pages)
			}
			break
		}
	}
	if slices.Sort(got); len(got) != 5 || len(slices.Compact(got)) != 5 {
		t.Errorf("the pages have %d sessions, not each of five once: %v", len(got), got)
	}
}

// TestTheLogQuotesNoCall: a token may be in the wrong place, and a parameter may hold
// anything.
func TestTheLogQuotesNoCall(t *testing.T) {
	var log bytes.Buffer
	s, err := Start(t.Context(), Config{Log: textLog(&log)})
	if err != nil {
		t.Fatal(err)
	}
	s.play = echo
	g := mustStart(t, s, `{"Target":"local"}`)
	call(t, s, "TerminateSession", `{"SessionId":"`+g.TokenValue+`"}`)
	call(t, s, "StartSession", `{"Target":"local","DocumentName":"AWS-StartSSHSession","Parameters":{"portNumber":["hunter2"]}}`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for what, secret := range map[string]string{"the token": g.TokenValue, "the value of a parameter": "hunter2"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has %s: %s", what, log.String())
		}
	}
	for _, code := range []string{"ValidationException", "InvalidParameters"} {
		if !strings.Contains(log.String(), code) {
			t.Errorf("the log does not tell of the %s: %s", code, log.String())
		}
	}
}

// TestAnAnswerIsNotLargerThanItsCall by far: every element of a list may be wrong.
func TestAnAnswerIsNotLargerThanItsCall(t *testing.T) {
	s := startWith(t, Config{}, echo)
	a := call(t, s, "DescribeInstanceInformation", `{"Filters":[{}`+strings.Repeat(",{}", 100_000)+`]}`)
	if a.code() != "ValidationException" || len(a.message()) > bodyLimit {
		t.Errorf("a hundred thousand filters are answered with %s in %d bytes", a.code(), len(a.message()))
	}
}

// TestNamesOfMembersCount in lists as well.
func TestNamesOfMembersCount(t *testing.T) {
	s := startWith(t, Config{}, echo)
	for body, action := range map[string]string{
		`{"State":"Active","Filters":[{"Key":"Target","Value":"local"}]}`:                "DescribeSessions",
		`{"Filters":[{"key":"PingStatus","values":["Online"]}]}`:                         "DescribeInstanceInformation",
		`{"InstanceInformationFilterList":[{"Key":"PingStatus","ValueSet":["Online"]}]}`: "DescribeInstanceInformation",
		`{"Filters":[null]}`: "DescribeInstanceInformation",
	} {
		if a := call(t, s, action, body); a.code() != "ValidationException" {
			t.Errorf("%s %s is answered with %d %s", action, body, a.status, a.code())
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s := startWith(t, Config{}, echo)
	one := mustStart(t, s, `{"Target":"local"}`)
	setFaults(t, s, "resume=ThrottlingException,once")
	for range historyLimit + 20 {
		ended, err := s.sessions.start(s.ctx, sessionSpec{id: newSessionID(), agent: s.agentConfig("", agentDocument()), play: echo, faults: s.faults})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.resumeFault(ended.id); err == nil {
			t.Fatal("a call does not fail on order")
		}
		ended.terminate()
		<-ended.done
	}
	if n := len(s.faults.get().counts); n > historyLimit+2 {
		t.Errorf("faults are counted for %d sessions, more than about %d", n, historyLimit)
	}
	if n := len(s.sessions.all()); n < historyLimit || n > historyLimit+2 {
		t.Errorf("%d sessions are remembered, not about %d", n, historyLimit)
	}
	if s.sessions.find(one.SessionID) == nil {
		t.Error("a session that goes on was forgotten")
	}
}

func TestTargets(t *testing.T) {
	s := startWith(t, Config{AgentVersion: "3.1.1511.0", Targets: []Target{
		{ID: "local"},
		{ID: "mi-0123456789abcdef0", Name: "db", PlatformType: "Windows", Tags: map[string]string{"Stage": "test"}},
		{ID: "i-0123456789abcdef0", Offline: true, PlatformType: "Linux"},
		{ID: "i-1"}, {ID: "i-2"}, {ID: "i-3"},
	}}, echo)
	for target, want := range map[string]string{"local": "connected", "i-0123456789abcdef0": "notconnected", "i-9": "notconnected"} {
		a := call(t, s, "GetConnectionStatus", `{"Target":"`+target+`"}`)
		if a.status != 200 || a.text("Status") != want || a.text("Target") != target {
			t.Errorf("the status of %s is %v, not %s", target, a.members, want)
		}
	}
	tests := []struct{ name, body, want string }{
		{"all", `{}`, "local mi-0123456789abcdef0 i-0123456789abcdef0 i-1 i-2 i-3"},
		{"by id", `{"Filters":[{"Key":"InstanceIds","Values":["i-2","i-1","i-9"]}]}`, "i-1 i-2"},
		{"by id, the older way", `{"InstanceInformationFilterList":[{"key":"InstanceIds","valueSet":["i-2"]}]}`, "i-2"},
		{"by ping", `{"Filters":[{"Key":"PingStatus","Values":["ConnectionLost"]}]}`, "i-0123456789abcdef0"},
		{"by platform", `{"Filters":[{"Key":"PlatformType","Values":["Windows"]}]}`, "mi-0123456789abcdef0"},
		{"by resource", `{"Filters":[{"Key":"ResourceType","Values":["ManagedInstance"]}]}`, "mi-0123456789abcdef0"},
		{"by agent", `{"Filters":[{"Key":"AgentVersion","Values":["1.0.0.0"]}]}`, ""},
		{"by name", `{"Filters":[{"Key":"tag:Name","Values":["db"]}]}`, "mi-0123456789abcdef0"},
		{"by tag", `{"Filters":[{"Key":"tag:Stage","Values":["test","live"]}]}`, "mi-0123456789abcdef0"},
		{"by another tag", `{"Filters":[{"Key":"tag:Stage","Values":["live"]}]}`, ""},
		{"by a tag's key", `{"Filters":[{"Key":"tag-key","Values":["Stage"]}]}`, "mi-0123456789abcdef0"},
		{"by what none has", `{"Filters":[{"Key":"IamRole","Values":["x"]}]}`, ""},
		{"two filters", `{"Filters":[{"Key":"PingStatus","Values":["Online"]},{"Key":"InstanceIds","Values":["local"]}]}`, "local"},
		{"five a page", `{"MaxResults":5}`, "local mi-0123456789abcdef0 i-0123456789abcdef0 i-1 i-2"},
	}
	for _, test := range tests {
		a := call(t, s, "DescribeInstanceInformation", test.body)
		if got := strings.Join(column(a, "InstanceInformationList", "InstanceId"), " "); a.status != 200 || got != test.want {
			t.Errorf("%s: %q, not %q (%d %s)", test.name, got, test.want, a.status, a.message())
		}
		if next := a.text("NextToken"); (next != "") != (test.name == "five a page") {
			t.Errorf("%s: the next token is %q", test.name, next)
		}
	}
	first := call(t, s, "DescribeInstanceInformation", `{}`).members["InstanceInformationList"].([]any)[1].(map[string]any)
	for name, want := range map[string]any{
		"PingStatus": "Online", "AgentVersion": "3.1.1511.0", "IsLatestVersion": false, "PlatformType": "Windows",
		"ResourceType": "ManagedInstance", "Name": "db", "IPAddress": "127.0.0.1",
	} {
		if first[name] != want {
			t.Errorf("%s of an instance is %v, not %v", name, first[name], want)
		}
	}
}

// column gives one member of every element of a list.
func column(a answer, list, member string) []string {
	var values []string
	elements, _ := a.members[list].([]any)
	for _, e := range elements {
		values = append(values, e.(map[string]any)[member].(string))
	}
	return values
}

// TestDenyTheDefault: without a DocumentName the default document is asked for.
func TestDenyTheDefault(t *testing.T) {
	s := startWith(t, Config{Deny: []string{"SSM-SessionManagerRunShell"}, Region: "eu-west-1", AccountID: "123456789012"}, echo)
	a := call(t, s, "StartSession", `{"Target":"local"}`)
	want := "User: arn:aws:iam::123456789012:user/emulator is not authorized to perform: ssm:StartSession on resource: " +
		"arn:aws:ssm:eu-west-1:123456789012:document/SSM-SessionManagerRunShell because no identity-based policy allows the ssm:StartSession action"
	if a.code() != "AccessDeniedException" || a.message() != want {
		t.Errorf("the answer is %s: %s", a.code(), a.message())
	}
	if a := call(t, s, "StartSession", `{"Target":"local","DocumentName":"`+
		`arn:aws:ssm:eu-west-1:123456789012:document/SSM-SessionManagerRunShell"}`); a.code() != "AccessDeniedException" {
		t.Errorf("by its ARN the document is not denied: %s", a.code())
	}
}

// TestWhatTheAgentIsTold follows a StartSession to the agent.
func TestWhatTheAgentIsTold(t *testing.T) {
	told := make(chan agent.Config, 1)
	s := startWith(t, Config{
		AgentVersion: "2.3.539.0", Shell: []string{"bash", "-l"}, Pace: PaceReal,
		Documents: []Document{{
			Name: "AWS-StartInteractiveCommand", SessionType: "InteractiveCommands", // instead of the built-in one
			Parameters: map[string]DocumentParameter{"who": {Type: "String", Default: "world"}},
			Properties: []byte(forThisSystem(`{"commands":"greet {{ who }}"}`)),
		}},
	}, func(_ context.Context, cfg agent.Config, _ agent.Leg) agent.Result {
		told <- cfg
		return agent.Result{Status: "Success"}
	})
	g := mustStart(t, s, `{"Target":"local","DocumentName":"AWS-StartInteractiveCommand","Parameters":{"who":["you"]}}`)
	connect(t, s, g).wantClosed()
	cfg := <-told
	if cfg.SessionID != g.SessionID || cfg.Version != "2.3.539.0" || !slices.Equal(cfg.Shell, []string{"bash", "-l"}) ||
		cfg.Document.Command != "greet you" || cfg.Pace != agent.RealPace {
		t.Errorf("the agent is told %+v", cfg)
	}
}

// FuzzBodies puts any body to every action: it is answered, by an error of the
// caller's or not at all.
func FuzzBodies(f *testing.F) {
	s := startWith(f, Config{Limits: Limits{Attach: time.Millisecond}}, echo)
	var targets []string
	for target := range s.api {
		targets = append(targets, target)
	}
	slices.Sort(targets)
	for _, body := range []string{
		`{"Target":"local","Reason":"x","Parameters":{"command":["a"]},"DocumentName":"AWS-StartNonInteractiveCommand"}`,
		`{"SessionId":"x"}`, `{"State":"Active","MaxResults":1,"NextToken":"LTE=","Filters":[{"key":"InvokedAfter","value":"2024-08-29T00:00:00Z"}]}`,
		`{"Filters":[{"Key":"tag:Name","Values":["x"]}],"MaxResults":5}`, `{"InstanceInformationFilterList":[{"key":"InstanceIds","valueSet":["x"]}]}`,
		`{"Filters":[null],"InstanceInformationFilterList":[{}]}`, `null`, `[]`, `{}`,
	} {
		for i := range targets {
			f.Add(i, body)
		}
	}
	f.Fuzz(func(t *testing.T, i int, body string) {
		target := targets[uint(i)%uint(len(targets))]
		out, err := s.api[target].call(caller{host: "127.0.0.1:1"}, []byte(body))
		if err != nil && asAPIError(err).status != http.StatusBadRequest {
			t.Errorf("%s %q is the server's fault: %v", target, body, err)
		}
		if _, marshalErr := json.Marshal(out); marshalErr != nil {
			t.Errorf("the answer to %s %q cannot be written: %v", target, body, marshalErr)
		}
	})
}
