package stream_test

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// TestMain runs this binary as the far end of the benchmarks when it is asked
// to: what the far end costs must not be counted as the client's.
func TestMain(m *testing.M) {
	if os.Getenv("SSMSESSION_TEST_FAR_END") != "" {
		if err := serveFarEnd(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// startFarEnd starts the far end and gives its URL. It ends with the test.
func startFarEnd(t testing.TB) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SSMSESSION_TEST_FAR_END=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("far end: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// serveFarEnd serves until stdin ends. /?messages=N sends so many output
// messages as fast as they are acknowledged and then closes the channel; /?taken=N
// takes so many bytes of input; both encrypt with &sealed=yes. /echo sends every
// input payload back.
func serveFarEnd() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("ws://%s\n", l.Addr())
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{ReadBufferSize: 64 << 10, WriteBufferSize: 8 << 10}
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		switch r.URL.Path {
		case "/echo":
			echo(conn)
			return
		case "/flood":
			flood(conn, r.URL.Query().Get("kind"))
			return
		}
		query := r.URL.Query()
		f, err := meet(conn, query.Has("sealed"))
		if err != nil {
			return
		}
		if n, err := strconv.Atoi(query.Get("messages")); err == nil {
			f.pour(n)
		} else if n, err := strconv.Atoi(query.Get("taken")); err == nil {
			f.take(n)
		}
	})}
	go func() {
		// The parent's end is this process's.
		_, _ = bufio.NewReader(os.Stdin).ReadString(0)
		srv.Close()
	}()
	if err := srv.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

const farWindow = 4000 // messages unacknowledged

// farEnd is the far end of a channel whose opening frame was read.
type farEnd struct {
	conn   *websocket.Conn
	next   int64       // sequence number
	sealer cipher.AEAD // of what it says; nil where nothing is encrypted
}

// meet reads the opening frame and begins the session, encrypted with the data key
// of kms if it shall be.
func meet(conn *websocket.Conn, sealed bool) (*farEnd, error) {
	f := &farEnd{conn: conn}
	if _, _, err := conn.ReadMessage(); err != nil || !sealed {
		return f, err
	}
	sealer, err := newSealer(1)
	if err != nil {
		return nil, err
	}
	challenge, err := json.Marshal(frame.EncChallengePayload{Challenge: sealer.Seal(nil, nil, make([]byte, 64), nil)})
	if err != nil {
		return nil, err
	}
	for _, step := range []struct {
		says    frame.PayloadType
		payload []byte
		awaits  frame.PayloadType // besides the acknowledgement; 0 for nothing
	}{
		{frame.HandshakeRequest, []byte(`{"AgentVersion":"3.3.0.0","RequestedClientActions":[` +
			`{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream","Properties":null}},` +
			`{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"k"}}]}`), frame.HandshakeResponse},
		{frame.EncChallengeRequest, challenge, frame.EncChallengeResponse},
		{frame.HandshakeComplete, []byte(`{}`), 0},
	} {
		if err := f.say(step.says, step.payload); err != nil {
			return nil, err
		}
		for acked, answered := false, step.awaits == 0; !acked || !answered; {
			m, err := f.hear()
			if err != nil {
				return nil, err
			}
			acked = acked || m.Type == frame.Acknowledge
			answered = answered || m.Type == frame.InputStreamData && m.PayloadType == step.awaits
		}
	}
	f.sealer = sealer
	return f, nil
}

// newSealer is one direction of an agent's with the data key of kms: that of ones
// for what it seals, that of twos for what it opens.
func newSealer(of byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(bytes.Repeat([]byte{of}, 32))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// say sends one message of output.
func (f *farEnd) say(typ frame.PayloadType, payload []byte) error {
	if f.sealer != nil {
		payload = f.sealer.Seal(nil, nil, payload, nil)
	}
	f.next++
	return f.send(&frame.Message{Type: frame.OutputStreamData, Sequence: f.next - 1, PayloadType: typ, Payload: payload})
}

func (f *farEnd) send(m *frame.Message) error {
	m.Created = time.Now()
	raw, err := m.Append(nil)
	if err != nil {
		return err
	}
	return f.conn.WriteMessage(websocket.BinaryMessage, raw)
}

// hear reads one message, and acknowledges what is input.
func (f *farEnd) hear() (frame.Message, error) {
	_, p, err := f.conn.ReadMessage()
	if err != nil {
		return frame.Message{}, err
	}
	m, err := frame.Parse(p)
	if err != nil || m.Type != frame.InputStreamData {
		return m, err
	}
	ack := frame.Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence}
	return m, f.send(&frame.Message{Type: frame.Acknowledge, Payload: ack.Append(nil)})
}

// take reads n bytes of input and says so.
func (f *farEnd) take(n int) {
	if f.say(frame.Output, []byte("$")) != nil { // it has begun
		return
	}
	for next := int64(-1); n > 0; {
		m, err := f.hear()
		if err != nil {
			return
		}
		if m.Type != frame.InputStreamData || m.PayloadType != frame.Output || m.Sequence <= next {
			continue
		}
		next = m.Sequence
		if n -= len(m.Payload); f.sealer != nil {
			n += f.sealer.Overhead()
		}
	}
	_ = f.say(frame.Output, []byte("taken")) // the client may be gone
	for {
		if _, err := f.hear(); err != nil {
			return
		}
	}
}

// pour sends n output messages of 1024 bytes, then channel_closed. It writes
// websocket frames by hand, many at once, so that it is faster than any client.
func (f *farEnd) pour(n int) {
	conn := f.conn
	var acked atomic.Int64
	wake := make(chan struct{}, 1)
	go func() {
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				acked.Store(1 << 62)
			} else {
				acked.Add(1)
			}
			select {
			case wake <- struct{}{}:
			default:
			}
			if acked.Load() >= 1<<62 {
				return
			}
		}
	}()
	m := frame.Message{
		Type: frame.OutputStreamData, Created: time.Now(), PayloadType: frame.Output,
		Payload: []byte(strings.Repeat("x", 1023) + "\n"),
	}
	if f.sealer != nil {
		m.Payload = f.sealer.Seal(nil, nil, m.Payload, nil)
	}
	raw, err := m.Append(nil)
	if err != nil {
		panic(err)
	}
	buf := make([]byte, 0, 64<<10)
	for i := 0; i < n; {
		for int64(i)-acked.Load() > farWindow {
			<-wake
		}
		if acked.Load() >= 1<<62 {
			return
		}
		buf = buf[:0]
		for ; i < n && len(buf) < 56<<10; i++ {
			buf = append(buf, 0x82, 126, byte(len(raw)>>8), byte(len(raw)))
			at := len(buf)
			buf = append(buf, raw...)
			putSequence(buf[at:], f.next+int64(i))
		}
		if _, err := conn.NetConn().Write(buf); err != nil {
			return
		}
	}
	for acked.Load() < int64(n) {
		<-wake
	}
	m = frame.Message{Type: frame.ChannelClosed, Created: time.Now(), HeaderLength: frame.ShortHeaderLen, Payload: []byte("{}")}
	if raw, err = m.Append(nil); err == nil {
		_ = conn.WriteMessage(websocket.BinaryMessage, raw) // the client may be gone
	}
}

func putSequence(b []byte, n int64) {
	for i := range 8 {
		b[48+i] = byte(n >> (56 - 8*i))
	}
}

// echo says something first, as a shell does, and then acknowledges and returns
// what it gets.
func echo(conn *websocket.Conn) {
	sequence := int64(0)
	send := func(m frame.Message) bool {
		m.Created = time.Now()
		raw, err := m.Append(nil)
		return err == nil && conn.WriteMessage(websocket.BinaryMessage, raw) == nil
	}
	say := func(p []byte) bool {
		ok := send(frame.Message{Type: frame.OutputStreamData, Sequence: sequence, PayloadType: frame.Output, Payload: p})
		sequence++
		return ok
	}
	if _, _, err := conn.ReadMessage(); err != nil || !say([]byte("$")) {
		return
	}
	for {
		_, p, err := conn.ReadMessage()
		if err != nil {
			return
		}
		m, err := frame.Parse(p)
		if err != nil || m.Type != frame.InputStreamData {
			continue
		}
		ack := frame.Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence}
		if !send(frame.Message{Type: frame.Acknowledge, Payload: ack.Append(nil)}) || !say(m.Payload) {
			return
		}
	}
}

// flood is a far end that means harm: it sends one kind of message as fast as
// it can and ignores what comes back, until the client has had enough.
func flood(conn *websocket.Conn, kind string) {
	if kind == "empty pings, and nothing read" {
		pings := bytes.Repeat([]byte{0x89, 0}, 32<<10)
		for {
			if _, err := conn.NetConn().Write(pings); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			if _, _, err := conn.NextReader(); err != nil {
				return
			}
		}
	}()
	payload := []byte(strings.Repeat("x", 1024))
	for i := int64(0); ; i++ {
		m := frame.Message{Type: frame.OutputStreamData, Created: time.Now(), Sequence: i, PayloadType: frame.Output, Payload: payload}
		typ := websocket.BinaryMessage
		switch kind {
		case "a gap that never fills":
			m.Sequence = i + 1
		case "numbers far ahead":
			m.Sequence = i * 1_000_000_007
		case "one byte of alternating types":
			m.Payload = payload[:1]
			m.PayloadType = frame.Output + frame.PayloadType(i%2)*(frame.StdErr-frame.Output)
		case "large messages":
			m.Payload = make([]byte, 250<<10)
		case "handshakes":
			m.PayloadType = frame.HandshakeRequest
			m.Payload = []byte(`{"RequestedClientActions":[` + strings.Repeat(`{"ActionType":"x"},`, 500) + `{}]}`)
		case "handshakes that ask for much":
			m.PayloadType = frame.HandshakeRequest
			m.Payload = []byte(`{"RequestedClientActions":[` + strings.Repeat(`{},`, 80_000) + `{}]}`)
		case "acknowledgements":
			m.Type = frame.Acknowledge
			m.Payload = frame.Ack{Type: frame.InputStreamData, Sequence: i}.Append(nil)
		case "unknown types":
			m.Type = frame.MessageType(fmt.Sprintf("type_%d", i))
		case "pings":
			typ = websocket.PingMessage
		}
		raw, err := m.Append(nil)
		if typ == websocket.PingMessage {
			raw = raw[:125]
		}
		if err != nil || conn.WriteMessage(typ, raw) != nil {
			return
		}
	}
}
