package frame

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func encode(t testing.TB, m Message) []byte {
	t.Helper()
	if m.Created.IsZero() {
		m.Created = time.UnixMilli(vectorTime)
	}
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseRefuses(t *testing.T) {
	good := encode(t, Message{Type: OutputStreamData, PayloadType: Output, Payload: []byte("x")})
	edit := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	length := func(n uint32) []byte { return edit(func(b []byte) { binary.BigEndian.PutUint32(b, n) }) }
	tests := []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"nothing", nil, ErrTruncated},
		{"half a header", good[:60], ErrTruncated},
		{"a long header cut before its length field", good[:118], ErrTruncated},
		{"a header length of zero", length(0), ErrHeaderLength},
		{"a header length of one too few", length(111), ErrHeaderLength},
		{"a header length between the two", length(114), ErrHeaderLength},
		{"a header length beyond the message", length(1 << 20), ErrHeaderLength},
		{"the largest header length", length(math.MaxUint32), ErrHeaderLength},
		{"no type", edit(func(b []byte) { copy(b[4:36], make([]byte, 32)) }), ErrNoType},
		{"a type of spaces", edit(func(b []byte) { copy(b[4:36], strings.Repeat(" ", 32)) }), ErrNoType},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := Parse(test.bytes); !errors.Is(err, test.want) {
				t.Errorf("Parse gives %v, want %v", err, test.want)
			}
		})
	}
}

func TestParseTolerates(t *testing.T) {
	field := func(s string) []byte {
		b := encode(t, Message{Type: OutputStreamData, PayloadType: Output, Payload: []byte("x")})
		copy(b[4:36], make([]byte, 32))
		copy(b[4:36], s)
		return b
	}
	tests := []struct {
		name, field string
		want        MessageType
	}{
		{"NUL padding", "output_stream_data", OutputStreamData},
		{"space padding", "output_stream_data" + strings.Repeat(" ", 14), OutputStreamData},
		{"leading NULs", strings.Repeat("\x00", 14) + "output_stream_data", OutputStreamData},
		{"spaces within NULs", " acknowledge ", Acknowledge},
		{"a type that nobody knows", "weather_report", "weather_report"},
		{"a type that fills the field", strings.Repeat("a", 32), MessageType(strings.Repeat("a", 32))},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, err := Parse(field(test.field))
			if err != nil || m.Type != test.want {
				t.Errorf("Parse gives type %q, %v", m.Type, err)
			}
		})
	}
}

func TestPayloadReachesToTheEndWhateverTheLengthFieldSays(t *testing.T) {
	b := encode(t, Message{Type: OutputStreamData, PayloadType: Output, Payload: []byte("hello")})
	binary.BigEndian.PutUint32(b[116:], 2)
	m, err := Parse(b)
	if err != nil || string(m.Payload) != "hello" || m.PayloadLength != 2 {
		t.Errorf("Parse gives payload %q, length %d, %v", m.Payload, m.PayloadLength, err)
	}
}

func TestVerify(t *testing.T) {
	spoilt := func(typ MessageType, length uint32) Message {
		b := encode(t, Message{Type: typ, PayloadType: Output, Payload: []byte("hello")})
		b[len(b)-1] ^= 1
		binary.BigEndian.PutUint32(b[116:], length)
		m, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	tests := []struct {
		name    string
		message Message
		want    error
	}{
		{"a spoilt payload", spoilt(OutputStreamData, 5), ErrDigest},
		{"a spoilt payload of declared length zero is not checked", spoilt(OutputStreamData, 0), nil},
		{"a publication message is not checked", spoilt(PausePublication, 5), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := test.message.Verify(); !errors.Is(err, test.want) {
				t.Errorf("Verify gives %v, want %v", err, test.want)
			}
		})
	}
}

func TestAppendRefuses(t *testing.T) {
	if _, err := (&Message{Type: InputStreamData}).Append(nil); !errors.Is(err, ErrEmptyPayload) {
		t.Errorf("an empty payload gives %v", err)
	}
	long := Message{Type: MessageType(strings.Repeat("a", 33)), Payload: []byte("x")}
	if b, err := long.Append([]byte("kept")); err == nil || string(b) != "kept" {
		t.Errorf("a type of 33 bytes gives %q, %v", b, err)
	}
}

func TestParseAck(t *testing.T) {
	canonical := string(Ack{Type: OutputStreamData, ID: uuid.MustParse(dataID), Sequence: 42}.Append(nil))
	want := `{"AcknowledgedMessageType":"output_stream_data","AcknowledgedMessageId":"` + dataID +
		`","AcknowledgedMessageSequenceNumber":42,"IsSequentialMessage":true}`
	if canonical != want {
		t.Errorf("an acknowledgement is written as %s", canonical)
	}
	tests := []struct {
		name, json string
		want       int64
		ok         bool
	}{
		{"the canonical form", canonical, 42, true},
		{"other order and spaces", `{ "IsSequentialMessage": true, "AcknowledgedMessageSequenceNumber": 7 }`, 7, true},
		{"the largest number", strings.Replace(canonical, ":42,", ":9223372036854775807,", 1), math.MaxInt64, true},
		{"a negative number", strings.Replace(canonical, ":42,", ":-1,", 1), -1, true},
		{"a number too large", strings.Replace(canonical, ":42,", ":9223372036854775808,", 1), 0, false},
		{"a fraction", strings.Replace(canonical, ":42,", ":4.2,", 1), 0, false},
		{"no number", `{"AcknowledgedMessageType":"output_stream_data"}`, 0, false},
		{"null", "null", 0, false},
		{"no JSON", "ack", 0, false},
		{"nothing", "", 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseAck([]byte(test.json))
			if got != test.want || (err == nil) != test.ok {
				t.Errorf("ParseAck gives %d, %v", got, err)
			}
		})
	}
}

func TestFlagAndExitCode(t *testing.T) {
	if f, err := ParseFlag([]byte{0, 0, 0, 3}); f != ConnectToPortError || err != nil {
		t.Errorf("ParseFlag gives %d, %v", f, err)
	}
	for _, bad := range [][]byte{nil, {1}, {0, 0, 0, 0, 1}} {
		if _, err := ParseFlag(bad); err == nil {
			t.Errorf("ParseFlag(%x) gives no error", bad)
		}
	}
	codes := []struct {
		text string
		code int64
		ok   bool
	}{
		{"EXIT_CODE: 0", 0, true}, {"EXIT_CODE: 255", 255, true}, {"EXIT_CODE: -1", -1, true},
		{"EXIT_CODE: 7\n", 7, true}, {"EXIT_CODE: 3221225477", 0xc0000005, true},
		{"EXIT_CODE: -2", 0, false}, {"EXIT_CODE: ", 0, false}, {"EXIT_CODE: x", 0, false}, {"7", 0, false}, {"", 0, false},
	}
	for _, c := range codes {
		got, err := ParseExitCode([]byte(c.text))
		if got != c.code || (err == nil) != c.ok {
			t.Errorf("ParseExitCode(%q) gives %d, %v", c.text, got, err)
		}
	}
	if b := AppendExitCode(nil, -1); string(b) != "EXIT_CODE: -1" {
		t.Errorf("AppendExitCode gives %q", b)
	}
}

func TestOpenDataChannelHidesTheToken(t *testing.T) {
	open := OpenDataChannel{MessageSchemaVersion: "1.0", RequestID: "r", TokenValue: "secret", ClientID: "c", ClientVersion: "v"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, open); strings.Contains(s, "secret") {
			t.Errorf("%s shows the token: %s", verb, s)
		}
	}
	want := `{"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"secret","ClientId":"c","ClientVersion":"v"}`
	if got := string(marshal(open)); got != want {
		t.Errorf("on the wire it is %s", got)
	}
}

func TestBatch(t *testing.T) {
	var b Batch
	b.Add(Text, []byte("open"))
	b.Add(Ping, nil)
	if err := b.AddMessage(&Message{Type: Acknowledge, Payload: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	if err := b.AddMessage(&Message{Type: Acknowledge}); err == nil {
		t.Error("a message that cannot be encoded is added")
	}
	if b.Len() != 3 || b.Size() != 4+Overhead+2+3*entryBytes {
		t.Errorf("the batch has %d messages, %d bytes", b.Len(), b.Size())
	}
	if kind, p := b.Message(0); kind != Text || string(p) != "open" {
		t.Errorf("message 0 is %d, %q", kind, p)
	}
	if kind, p := b.Message(1); kind != Ping || len(p) != 0 {
		t.Errorf("message 1 is %d, %q", kind, p)
	}
	if kind, p := b.Message(2); kind != Binary || len(p) != Overhead+2 {
		t.Errorf("message 2 is %d, %d bytes", kind, len(p))
	}
	b.Reset(1 << 20)
	if b.Len() != 0 || b.Size() != 0 || cap(b.buf) == 0 {
		t.Error("Reset does not empty the batch and keep its buffer")
	}
	b.Add(Binary, make([]byte, 100))
	if b.Reset(10); cap(b.buf) != 0 {
		t.Error("Reset keeps a buffer larger than asked")
	}
}

func TestCodecAllocatesNothing(t *testing.T) {
	m := Message{Type: OutputStreamData, Created: time.Now(), PayloadType: Output, Payload: make([]byte, 1024)}
	wire := encode(t, m)
	ack := Ack{Type: OutputStreamData, Sequence: 7}.Append(nil)
	buf := make([]byte, 0, 4096)
	for name, f := range map[string]func(){
		"Append": func() {
			if _, err := m.Append(buf); err != nil {
				t.Error(err)
			}
		},
		"Parse and Verify": func() {
			got, err := Parse(wire)
			if err == nil {
				err = got.Verify()
			}
			if err != nil {
				t.Error(err)
			}
		},
		"ParseAck": func() {
			if _, err := ParseAck(ack); err != nil {
				t.Error(err)
			}
		},
	} {
		if n := testing.AllocsPerRun(100, f); n > 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
