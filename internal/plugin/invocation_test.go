package plugin

import (
	"maps"
	"reflect"
	"strings"
	"testing"
)

// request is what the AWS CLI gives as the parameters of StartSession.
const request = `{"Target": "i-0123456789abcdef0", "DocumentName": "AWS-StartInteractiveCommand", "Parameters": {"command": ["top"]}}`

// vars is an environment; what is taken is gone.
type vars map[string]string

func (v vars) take(name string) (string, bool) {
	value, ok := v[name]
	delete(v, name)
	return value, ok
}

// asked is an Invocation without its response.
type asked struct {
	Action                                                Action
	Word, Region, Profile, Target, DocumentName, Endpoint string
}

func withoutResponse(v Invocation) asked {
	return asked{v.Action, v.Word, v.Region, v.Profile, v.Target, v.DocumentName, v.Endpoint}
}

func TestArgumentsOfEveryCallerAreUnderstood(t *testing.T) {
	const (
		node     = "i-0123456789abcdef0"
		envRoute = "AWS_SSM_START_SESSION_RESPONSE"
	)
	full := asked{Action: Session, Region: "eu-west-1", Profile: "prod", Target: node,
		DocumentName: "AWS-StartInteractiveCommand", Endpoint: "https://ssm.eu-west-1.amazonaws.com"}
	for _, test := range []struct {
		caller string
		args   []string
		want   asked
	}{
		{"somebody who looks whether it is installed", nil, asked{Action: Installed}},
		{"the AWS CLI, for the version", []string{"--version"}, asked{Action: Version}},
		{"somebody curious", []string{"--help"}, asked{Action: UnknownOperation, Word: "--help"}},
		{"somebody with a version and more", []string{"--version", "x"}, asked{Action: UnknownOperation, Word: "--version"}},
		{"somebody with too little", []string{plain, "eu-west-1"}, asked{Action: UnknownOperation, Word: plain}},
		{"the AWS CLI since 2.15", []string{envRoute, "eu-west-1", "StartSession", "prod", request, "https://ssm.eu-west-1.amazonaws.com"}, full},
		{"the AWS CLI before", []string{plain, "eu-west-1", "StartSession", "prod", request, "https://ssm.eu-west-1.amazonaws.com"}, full},
		{"the AWS CLI without a profile", []string{plain, "eu-west-1", "StartSession", "", `{"Target": "` + node + `"}`, "https://ssm.eu-west-1.amazonaws.com"},
			asked{Action: Session, Region: "eu-west-1", Target: node, Endpoint: "https://ssm.eu-west-1.amazonaws.com"}},
		{"aws ecs execute-command", []string{plain, "us-east-1", "StartSession", "", `{"Target": "ecs:c_1_1-2"}`, "https://ecs.us-east-1.amazonaws.com"},
			asked{Action: Session, Region: "us-east-1", Target: "ecs:c_1_1-2", Endpoint: "https://ssm.us-east-1.amazonaws.com"}},
		{"VS Code and JetBrains", []string{plain, "us-west-2", "StartSession"},
			asked{Action: Session, Region: "us-west-2"}},
		{"a caller of four", []string{plain, "us-west-2", "StartSession", "dev"},
			asked{Action: Session, Region: "us-west-2", Profile: "dev"}},
		{"gossm, for ssh", []string{plain, "us-west-2", "StartSession", "dev", `{"Target":"` + node + `","DocumentName":"AWS-StartSSHSession","Parameters":{"portNumber":["22"]},"Reason":null}`},
			asked{Action: Session, Region: "us-west-2", Profile: "dev", Target: node, DocumentName: "AWS-StartSSHSession"}},
		{"Packer", []string{plain, "us-west-2", "StartSession", "", `{"DocumentName":"AWS-StartPortForwardingSession","Parameters":{"localPortNumber":["8081"],"portNumber":["22"]},"Target":"` + node + `"}`, ""},
			asked{Action: Session, Region: "us-west-2", Target: node, DocumentName: "AWS-StartPortForwardingSession"}},
		{"ecsta", []string{plain, "us-west-2", "StartSession", "", `{"Target":"ecs:c_1_1-2"}`, "https://ssm.us-west-2.amazonaws.com"},
			asked{Action: Session, Region: "us-west-2", Target: "ecs:c_1_1-2", Endpoint: "https://ssm.us-west-2.amazonaws.com"}},
		{"a caller with the stream URL at the end", []string{plain, "us-west-2", "StartSession", "", `{"Target":"` + node + `"}`, streamURL},
			asked{Action: Session, Region: "us-west-2", Target: node}},
		{"a caller with more than there are", []string{plain, "eu-west-1", "StartSession", "prod", request, "https://ssm.eu-west-1.amazonaws.com", "--x", "y"}, full},
		{"a caller of another operation", []string{plain, "us-west-2", "ResumeSession", "", "{}", ""}, asked{Action: InvalidOperation}},
		{"a caller without a request", []string{plain, "us-west-2", "StartSession", "", ""}, asked{Action: Session, Region: "us-west-2"}},
		{"a caller without a target", []string{plain, "us-west-2", "StartSession", "", `{"Target":null}`}, asked{Action: Session, Region: "us-west-2"}},
		{"a caller in small letters", []string{plain, "us-west-2", "StartSession", "", `{"target":"` + node + `"}`},
			asked{Action: Session, Region: "us-west-2", Target: node}},
	} {
		t.Run(test.caller, func(t *testing.T) {
			got, err := Parse(test.args, vars{envRoute: plain}.take)
			if err != nil {
				t.Fatalf("it is refused: %v", err)
			}
			if withoutResponse(got) != test.want {
				t.Errorf("it is understood as\n%+v, want\n%+v", withoutResponse(got), test.want)
			}
			if is := got.Response.SessionID != ""; is != (got.Action == Session) {
				t.Errorf("there is a response: %v", is)
			}
		})
	}
}

func TestAResponseInTheEnvironmentIsTakenOutOfIt(t *testing.T) {
	for _, name := range []string{"AWS_SSM_START_SESSION_RESPONSE", "AWS_SSM_START_SESSION_RESPONSE_i_0abc"} {
		for _, operation := range []string{"StartSession", "Other"} {
			env := vars{name: plain, "PATH": "/bin"}
			v, err := Parse([]string{name, "r", operation}, env.take)
			if err != nil {
				t.Fatal(err)
			}
			if operation == "StartSession" && v.Response.Token() != secret {
				t.Errorf("the response in %s is not read", name)
			}
			if want := (vars{"PATH": "/bin"}); !maps.Equal(env, want) {
				t.Errorf("after %s with %s the environment has %v", operation, name, reflect.ValueOf(env).MapKeys())
			}
		}
	}
}

func TestAnInvocationThatCannotBeMeantIsRefusedInWords(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"a variable that is not set", []string{"AWS_SSM_START_SESSION_RESPONSE_secret", "r", "StartSession"},
			"the variable AWS_SSM_START_SESSION_RESPONSE is not set"},
		{"a response that is none", []string{"secret", "r", "StartSession"}, "the response is no JSON, from byte 1 on"},
		{"a response without a member", []string{`{"SessionId":"s"}`, "r", "StartSession"}, "the response has no TokenValue"},
		{"a request that is none", []string{plain, "r", "StartSession", "", "secret"}, "the request is no JSON, from byte 1 on"},
		{"a request that is a list", []string{plain, "r", "StartSession", "", "[]"}, "the request is no JSON object"},
		{"a target that is none", []string{plain, "r", "StartSession", "", `{"Target":["secret"]}`}, "the request's Target is no text"},
		{"a document that is none", []string{plain, "r", "StartSession", "", `{"Target":"i","DocumentName":1}`}, "the request's DocumentName is no text"},
		{"an endpoint that is none", []string{plain, "r", "StartSession", "", `{"Target":"i"}`, "secret"}, "the endpoint is no URL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse(test.args, vars{}.take)
			if err == nil {
				t.Fatal("it is taken")
			}
			if err.Error() != test.want {
				t.Errorf("the error is %q, want %q", err, test.want)
			}
		})
	}
}

func TestAnEndpointIsThatOfSystemsManager(t *testing.T) {
	for _, test := range []struct{ given, want string }{
		{"", ""},
		{"https://ssm.us-east-1.amazonaws.com", "https://ssm.us-east-1.amazonaws.com"},
		{"https://ecs.us-east-1.amazonaws.com", "https://ssm.us-east-1.amazonaws.com"},
		{"https://ecs.us-east-1.amazonaws.com/", "https://ssm.us-east-1.amazonaws.com/"},
		{"https://ecs.us-east-1.amazonaws.com:443", "https://ssm.us-east-1.amazonaws.com:443"},
		{"https://ecs-fips.us-gov-west-1.amazonaws.com", "https://ssm-fips.us-gov-west-1.amazonaws.com"},
		{"https://ecs.cn-north-1.amazonaws.com.cn", "https://ssm.cn-north-1.amazonaws.com.cn"},
		{"https://ecs.eu-west-1.api.aws", "https://ssm.eu-west-1.api.aws"},
		{"https://vpce-0abc.ecs.us-east-1.vpce.amazonaws.com", ""},
		{"https://vpce-0abc.ssm.us-east-1.vpce.amazonaws.com", "https://vpce-0abc.ssm.us-east-1.vpce.amazonaws.com"},
		{"http://127.0.0.1:4566", "http://127.0.0.1:4566"},
		{"http://ecs.localhost:4566", "http://ecs.localhost:4566"},
		{"https://ecs.example.com", "https://ecs.example.com"},
		{"wss://ssmmessages.us-east-1.amazonaws.com/v1/data-channel/x", ""},
		{"ws://127.0.0.1:1/v1/data-channel/x", ""},
	} {
		got, err := endpoint(test.given)
		if err != nil {
			t.Errorf("%s is refused: %v", test.given, err)
		}
		if got != test.want {
			t.Errorf("%s becomes %q, want %q", test.given, got, test.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	const separator = "\x00"
	for _, args := range [][]string{
		nil, {"--version"}, {"a", "b"}, {plain, "r", "StartSession"},
		{plain, "r", "StartSession", "p", request, "https://ecs.us-east-1.amazonaws.com", "more"},
		{"AWS_SSM_START_SESSION_RESPONSE", "r", "StartSession", "", `{"target":null}`, streamURL},
		{"{", "", "Other", "", "{}", "::"},
	} {
		f.Add(strings.Join(args, separator), plain)
	}
	f.Fuzz(func(t *testing.T, joined, variable string) {
		args := strings.Split(joined, separator)
		v, err := Parse(args, func(string) (string, bool) { return variable, variable != "" })
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("the error has more than one line: %q", err)
			}
			return
		}
		if (v.Action == Session) != (v.Response.Token() != "") {
			t.Errorf("%q is action %d, and there is a token: %v", args, v.Action, v.Response.Token() != "")
		}
		if strings.HasPrefix(v.Endpoint, "ws") {
			t.Errorf("%q has a data channel for an endpoint: %s", args, v.Endpoint)
		}
	})
}
