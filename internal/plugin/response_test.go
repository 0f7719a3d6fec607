package plugin

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf16"
)

const (
	secret    = "AAEAAsecretsecret+/=="
	sessionID = "jane-0123456789abcdef0"
	streamURL = "wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/jane-0123456789abcdef0?role=publish_subscribe"
)

// plain is a response as the AWS CLI writes it for AWS's client.
const plain = `{"SessionId": "` + sessionID + `", "TokenValue": "` + secret + `", "StreamUrl": "` + streamURL + `"}`

// fromPowerShell is what Start-SSMSession | ConvertTo-Json of PowerShell 5.1 gives.
const fromPowerShell = "{\r\n" +
	"    \"SessionId\":  \"" + sessionID + "\",\r\n" +
	"    \"StreamUrl\":  \"wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/jane-0123456789abcdef0?role=publish_subscribe\\u0026cell-number=A\",\r\n" +
	"    \"TokenValue\":  \"" + secret + "\",\r\n" +
	"    \"ResponseMetadata\":  {\r\n" +
	"                             \"RequestId\":  \"11111111-2222-3333-4444-555555555555\",\r\n" +
	"                             \"Metadata\":  {\r\n\r\n                                          }\r\n" +
	"                         },\r\n" +
	"    \"ContentLength\":  721,\r\n" +
	"    \"HttpStatusCode\":  200,\r\n" +
	"    \"LoggedAt\":  \"\\/Date(1732400000000)\\/\"\r\n" +
	"}\r\n"

// inUTF16 gives s as PowerShell's > writes it, or pipes it.
func inUTF16(s string, order binary.AppendByteOrder, mark bool) string {
	var b []byte
	if mark {
		b = order.AppendUint16(b, 0xfeff)
	}
	for _, unit := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}

func TestAResponseIsReadAsCallersWriteIt(t *testing.T) {
	for name, document := range map[string]string{
		"as the AWS CLI writes it":           plain,
		"in camel case, as VS Code does":     `{"streamUrl":"` + streamURL + `","tokenValue":"` + secret + `","sessionId":"` + sessionID + `"}`,
		"in capitals":                        `{"SESSIONID":"` + sessionID + `","TOKENVALUE":"` + secret + `","STREAMURL":"` + streamURL + `"}`,
		"with what the SDK for Go adds":      plain[:len(plain)-1] + `,"ResultMetadata":{"a":[1,null]}}`,
		"with what botocore adds":            plain[:len(plain)-1] + `,"ResponseMetadata":{"HTTPStatusCode":200,"RetryAttempts":0}}`,
		"as ExecuteCommand answers":          `{"clusterArn":"c","interactive":true,"session":{"sessionId":"` + sessionID + `","streamUrl":"` + streamURL + `","tokenValue":"` + secret + `"},"taskArn":"t"}`,
		"with a session that is none":        plain[:len(plain)-1] + `,"session":"mine"}`,
		"with white space around":            "\n\t " + plain + " \r\n\n",
		"with a byte order mark":             "\ufeff" + plain,
		"in UTF-16LE with a mark":            inUTF16(plain, binary.LittleEndian, true),
		"in UTF-16LE":                        inUTF16(plain, binary.LittleEndian, false),
		"in UTF-16BE with a mark":            inUTF16(plain, binary.BigEndian, true),
		"in UTF-16BE":                        inUTF16(plain, binary.BigEndian, false),
		"with a member twice, the last good": `{"sessionId":"other",` + plain[1:],
		"with a null after a member":         plain[:len(plain)-1] + `,"sessionid":null}`,
		"with the token for a session id":    `{"streamUrl":"` + streamURL + `","tokenValue":"` + secret + `","sessionId":"` + secret + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ParseResponse([]byte(document))
			if err != nil {
				t.Fatalf("it is refused: %v", err)
			}
			if r.SessionID != sessionID || r.StreamURL != streamURL || r.Token() != secret {
				t.Errorf("it is read as session %q at %q with token %q", r.SessionID, r.StreamURL, r.Token())
			}
		})
	}
}

func TestAResponseOfPowerShellIsRead(t *testing.T) {
	for name, document := range map[string]string{
		"5.1, piped":           fromPowerShell,
		"5.1, piped with BOM":  "\ufeff" + fromPowerShell,
		"5.1, piped as UTF-16": inUTF16(fromPowerShell, binary.LittleEndian, true),
		"7, piped":             strings.ReplaceAll(fromPowerShell, `\u0026`, "&"),
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ParseResponse([]byte(document))
			if err != nil {
				t.Fatalf("it is refused: %v", err)
			}
			if want := streamURL + "&cell-number=A"; r.StreamURL != want {
				t.Errorf("its stream URL is %q, want %q", r.StreamURL, want)
			}
			if r.SessionID != sessionID || r.Token() != secret {
				t.Errorf("it is read as session %q with token %q", r.SessionID, r.Token())
			}
		})
	}
}

func TestWhatIsNoResponseIsRefusedInWords(t *testing.T) {
	without := func(name string) string {
		return strings.Replace(plain, `"`+name+`"`, `"No`+name+`"`, 1)
	}
	for _, test := range []struct{ name, document, want string }{
		{"nothing", "", "the response is empty"},
		{"white space", " \r\n", "the response is empty"},
		{"a mark alone", "\xff\xfe", "the response is empty"},
		{"words", "An error occurred", "the response is no JSON, from byte 1 on"},
		{"a list", `["` + secret + `"]`, "the response is no JSON object"},
		{"a text", `"` + secret + `"`, "the response is no JSON object"},
		{"half of it", plain[:70], "the response is no JSON: it ends too soon"},
		{"half of a member", plain[:100], "the response is no JSON: it ends too soon"},
		{"all but its end", plain[:len(plain)-1], "the response is no JSON: it ends too soon"},
		{"a token unquoted", `{"TokenValue": ` + secret + `}`, "the response is no JSON, from byte 16 on"},
		{"a name unquoted", `{` + secret + `: 1}`, "the response is no JSON, from byte 2 on"},
		{"two of them", plain + plain, "the response is JSON with something after it"},
		{"one with words after", plain + secret, "the response is JSON with something after it"},
		{"no session id", without("SessionId"), "the response has no SessionId"},
		{"no token", without("TokenValue"), "the response has no TokenValue"},
		{"no stream URL", without("StreamUrl"), "the response has no StreamUrl"},
		{"an empty token", strings.Replace(plain, secret, "", 1), "the response has no TokenValue"},
		{"a token that is a number", `{"SessionId":"s","TokenValue":7,"StreamUrl":"u"}`, "the response's TokenValue is no text"},
		{"a token in a list", `{"SessionId":"s","TokenValue":["` + secret + `"],"StreamUrl":"u"}`, "the response's TokenValue is no text"},
		{"a session that is a text", `{"session":"` + secret + `"}`, "the response's session is no JSON object"},
		{"a session without a token", `{"session":{"sessionId":"s"}}`, "the response has no TokenValue"},
		{"an answer that is over", `{"SessionId":"` + sessionID + `"}`, "the response has no TokenValue"},
		{"a token for an id, and a stream URL without one", `{"SessionId":"t","TokenValue":"t","StreamUrl":"wss://h/"}`,
			"the response has its token for a SessionId"},
		{"Latin-1", "{\"a\":\"\xe9\"," + plain[1:], "the response is neither UTF-8 nor UTF-16"},
		{"an odd number of bytes", inUTF16(plain, binary.LittleEndian, true) + " ", "the response is UTF-16 with half a character at its end"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseResponse([]byte(test.document))
			if err == nil {
				t.Fatal("it is taken for one")
			}
			if err.Error() != test.want {
				t.Errorf("the error is %q, want %q", err, test.want)
			}
			for _, shown := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
				if strings.Contains(shown, "secret") {
					t.Errorf("the error shows the token: %s", shown)
				}
			}
		})
	}
}

func TestATokenShowsItselfNowhereButInTheDocument(t *testing.T) {
	r, err := ParseResponse([]byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		R       Response
		hidden  Response
		pointer *Response
	}
	h := holder{r, r, &r}
	if h.hidden.Token() != secret || h.pointer.Token() != secret {
		t.Fatal("there is no token to show")
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("a", "r", r, "h", h)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("a", "r", r, "h", h)
	encoded, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{log.String(), string(encoded), r.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		shown = append(shown, fmt.Sprintf(verb, r), fmt.Sprintf(verb, &r), fmt.Sprintf(verb, h), fmt.Sprintf(verb, NewResponse(sessionID, secret, streamURL, "i-1")))
	}
	hex := fmt.Sprintf("%x", secret)
	bytes := strings.Trim(fmt.Sprint([]byte(secret)), "[]")
	for _, s := range shown {
		if strings.Contains(s, "secret") || strings.Contains(s, hex) || strings.Contains(s, bytes) {
			t.Errorf("the token is shown: %s", s)
		}
	}
	if zero := (Response{}); zero.Token() != "" {
		t.Error("a response that was never read has a token")
	} else if document, err := zero.Document(); err == nil {
		t.Errorf("a response that was never read is printed: %s", document)
	}
}

func TestARegionIsThatOfTheDataChannel(t *testing.T) {
	for _, test := range []struct{ url, want string }{
		{streamURL, "eu-west-1"},
		{"wss://ssmmessages.cn-north-1.amazonaws.com.cn/v1/data-channel/x", "cn-north-1"},
		{"wss://ssmmessages-fips.us-gov-west-1.amazonaws.com/v1/data-channel/x", "us-gov-west-1"},
		{"wss://ssmmessages.us-east-1.api.aws/v1/data-channel/x", "us-east-1"},
		{"wss://vpce-0abc-1def.ssmmessages.us-east-1.vpce.amazonaws.com/v1/data-channel/x", "us-east-1"},
		{"ws://127.0.0.1:8080/v1/data-channel/x", ""},
		{"wss://localhost/v1/data-channel/x", ""},
		{"wss://ssmmessages", ""},
		{"://", ""},
		{"", ""},
	} {
		if got := (Response{StreamURL: test.url}).Region(); got != test.want {
			t.Errorf("the region of %q is %q, want %q", test.url, got, test.want)
		}
	}
}

func TestAResponsePrintedIsTheServicesOwn(t *testing.T) {
	doc, err := NewResponse("s-1", "t<&>", "wss://h/?a=1&b=2", "").Document()
	if err != nil {
		t.Fatal(err)
	}
	const want = "{\n  \"SessionId\": \"s-1\",\n  \"TokenValue\": \"t<&>\",\n  \"StreamUrl\": \"wss://h/?a=1&b=2\"\n}\n"
	if string(doc) != want {
		t.Errorf("it is printed as\n%s\nwant\n%s", doc, want)
	}
}

// TestAResponsePrintedIsReadAgain is the promise of start --no-connect and connect:
// any response, in any of the forms that are read, printed and read again is the
// same, and has all the members it had.
func TestAResponsePrintedIsReadAgain(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 500 {
		id, token, url := randomText(random), randomText(random)+"t", randomText(random)
		made := NewResponse(id, token, url, randomText(random))
		document, err := made.Document()
		if err != nil {
			t.Fatal(err)
		}
		checkReadAgain(t, made, document)

		extra := randomObject(random)
		document = append(append(bytes.TrimRight(document, "}\n"), ','), extra[1:]...)
		read, err := ParseResponse(document)
		if err != nil {
			t.Fatalf("%s\nis refused: %v", document, err)
		}
		again, err := read.Document()
		if err != nil {
			t.Fatal(err)
		}
		checkReadAgain(t, read, again)
		if before, after := decoded(t, document), decoded(t, again); !reflect.DeepEqual(before, after) {
			t.Fatalf("%s\nwas printed as\n%s\nwhich has other members", document, again)
		}
	}
}

func checkReadAgain(t *testing.T, r Response, document []byte) {
	t.Helper()
	for name, form := range map[string]string{
		"UTF-8":              string(document),
		"UTF-8 with a mark":  "\ufeff" + string(document),
		"UTF-16LE":           inUTF16(string(document), binary.LittleEndian, false),
		"UTF-16LE with mark": inUTF16(string(document), binary.LittleEndian, true),
		"UTF-16BE with mark": inUTF16(string(document), binary.BigEndian, true),
	} {
		again, err := ParseResponse([]byte(form))
		if err != nil {
			t.Fatalf("%s\nin %s is refused: %v", document, name, err)
		}
		if again.SessionID != r.SessionID || again.Token() != r.Token() || again.StreamURL != r.StreamURL {
			t.Fatalf("%s\nin %s is read as session %q at %q with token %q", document, name, again.SessionID, again.StreamURL, again.Token())
		}
	}
}

func decoded(t *testing.T, document []byte) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal(document, &v); err != nil {
		t.Fatalf("%s\nis no JSON: %v", document, err)
	}
	return v
}

// randomText is not empty, and has what JSON has to escape.
func randomText(r *rand.Rand) string {
	const letters = "aZ0+/=&<>\"\\\u2028é\U0001f511\t\x01 %"
	runes := []rune(letters)
	s := make([]rune, 1+r.IntN(20))
	for i := range s {
		s[i] = runes[r.IntN(len(runes))]
	}
	return string(s)
}

// randomObject has members of names that are in no response.
func randomObject(r *rand.Rand) []byte {
	members := map[string]any{}
	for range 1 + r.IntN(5) {
		members["x"+randomText(r)] = randomValue(r, 3)
	}
	data, err := json.Marshal(members)
	if err != nil {
		panic(err) // of a test
	}
	return data
}

func randomValue(r *rand.Rand, depth int) any {
	switch kind := r.IntN(6); {
	case kind == 0:
		return nil
	case kind == 1:
		return r.IntN(2) == 0
	case kind == 2:
		return r.Int32()
	case kind == 3 && depth > 0:
		return []any{randomValue(r, depth-1), randomValue(r, depth-1)}
	case kind == 4 && depth > 0:
		return map[string]any{randomText(r): randomValue(r, depth-1)}
	}
	return randomText(r)
}

func FuzzParseResponse(f *testing.F) {
	f.Add([]byte(plain))
	f.Add([]byte(fromPowerShell))
	f.Add([]byte(inUTF16(plain, binary.LittleEndian, true)))
	f.Add([]byte(inUTF16(plain, binary.BigEndian, false)))
	f.Add([]byte(`{"session":{"sessionId":"s","streamUrl":"u","tokenValue":"t"}}`))
	f.Add([]byte(`{"SessionId":null,"sessionid":"\ud800","TokenValue":"t","StreamUrl":"u"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseResponse(data)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("the error has more than one line: %q", err)
			}
			return
		}
		if r.SessionID == "" || r.StreamURL == "" || r.Token() == "" {
			t.Errorf("%q is taken for a response, and a member is empty", data)
		}
		if r.SessionID == r.Token() {
			t.Errorf("the token of %q is shown as its session", data)
		}
		document, err := r.Document()
		if err != nil {
			t.Fatalf("%q is read and cannot be printed: %v", data, err)
		}
		again, err := ParseResponse(document)
		if err != nil {
			t.Fatalf("%q is printed as %q, which is refused: %v", data, document, err)
		}
		if again.SessionID != r.SessionID || again.StreamURL != r.StreamURL || again.Token() != r.Token() {
			t.Errorf("%q is printed as %q, which is another response", data, document)
		}
	})
}
