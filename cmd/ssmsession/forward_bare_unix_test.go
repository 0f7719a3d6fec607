//go:build unix

package main

import (
	"encoding/binary"
	"encoding/json"
	"net"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// barePayload is the most of one message, in bytes, as of our client; bareFrame is
// that of a frame of smux (docs/protocol.md, "Mux port forwarding").
const (
	barePayload = 1024
	bareFrame   = 32 << 10
)

// bareTunnel is the least that speaks to the agent of a tunnel: it reads and
// acknowledges, or writes, and neither repeats, orders, bounds nor resumes anything.
// It carries one stream.
type bareTunnel struct {
	conn     *websocket.Conn
	sequence int64
	buf, ack []byte
	header   []byte // of the frame that is coming, as far as it has come
	left     int    // bytes of its data to come
}

// dialBare opens a tunnel to a port of the target and the stream in it.
func dialBare(b *testing.B, e *scriptEmulator, service string) *bareTunnel {
	b.Helper()
	_, port, err := net.SplitHostPort(service)
	if err != nil {
		b.Fatal(err)
	}
	o := &opening{target: exampleTarget, document: "AWS-StartPortForwardingSession", parsed: map[string][]string{"portNumber": {port}}}
	grant, err := apiOf(b, e).Start(b.Context(), o.request()) // it ends with the emulator
	if err != nil {
		b.Fatal(err)
	}
	conn, _, err := websocket.DefaultDialer.Dial(grant.StreamURL, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	t := &bareTunnel{conn: conn}
	if err := t.open(grant.Token.Reveal()); err != nil {
		b.Fatal(err)
	}
	return t
}

// open agrees with the agent on the session.
func (t *bareTunnel) open(token string) error {
	const version = "1.2.650.0"
	err := t.conn.WriteJSON(frame.OpenDataChannel{
		MessageSchemaVersion: "1.0", RequestID: uuid.NewString(), ClientID: uuid.NewString(), TokenValue: token, ClientVersion: version,
	})
	for err == nil {
		var m frame.Message
		if m, err = t.read(); err != nil {
			break
		}
		switch m.PayloadType {
		case frame.HandshakeRequest:
			var answer []byte
			if answer, err = json.Marshal(frame.HandshakeResponsePayload{
				ClientVersion:          version,
				ProcessedClientActions: []frame.ProcessedAction{{ActionType: frame.ActionSessionType, ActionStatus: frame.ActionSuccess}},
			}); err == nil {
				err = t.write(frame.HandshakeResponse, answer)
			}
		case frame.HandshakeComplete:
			return t.write(frame.Output, []byte("\x01\x00\x00\x00\x03\x00\x00\x00")) // SYN
		default:
		}
	}
	return err
}

// read reads one message and acknowledges it if it is output.
func (t *bareTunnel) read() (m frame.Message, err error) {
	_, p, err := t.conn.ReadMessage()
	if err != nil {
		return m, err
	}
	if m, err = frame.Parse(p); err != nil || m.Type != frame.OutputStreamData {
		return m, err
	}
	ack := frame.Message{Type: frame.Acknowledge, Created: m.Created, Flags: 3, Payload: frame.Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence}.Append(nil)}
	if t.ack, err = ack.Append(t.ack[:0]); err != nil {
		return m, err
	}
	return m, t.conn.WriteMessage(websocket.BinaryMessage, t.ack)
}

// write sends one message.
func (t *bareTunnel) write(typ frame.PayloadType, p []byte) (err error) {
	m := frame.Message{Type: frame.InputStreamData, Created: time.Now(), Sequence: t.sequence, ID: uuid.New(), PayloadType: typ, Payload: p}
	t.sequence++
	if t.buf, err = m.Append(t.buf[:0]); err != nil {
		return err
	}
	return t.conn.WriteMessage(websocket.BinaryMessage, t.buf)
}

// send sends zeros on the stream.
func (t *bareTunnel) send(size int) error {
	full := make([]byte, 8+bareFrame)
	copy(full, "\x01\x02\x00\x00\x03\x00\x00\x00")
	for size > 0 {
		n := min(size, bareFrame)
		binary.LittleEndian.PutUint16(full[2:], uint16(n))
		for p := full[:8+n]; len(p) > 0; {
			piece := p[:min(len(p), barePayload)]
			if err := t.write(frame.Output, piece); err != nil {
				return err
			}
			p = p[len(piece):]
		}
		size -= n
	}
	return nil
}

// receive reads that many bytes of the stream.
func (t *bareTunnel) receive(size int) error {
	for size > 0 {
		m, err := t.read()
		if err != nil {
			return err
		}
		if m.Type != frame.OutputStreamData || m.PayloadType != frame.Output {
			continue
		}
		for p := m.Payload; len(p) > 0; {
			if t.left > 0 {
				n := min(len(p), t.left)
				t.left, p, size = t.left-n, p[n:], size-n
				continue
			}
			n := min(len(p), 8-len(t.header))
			if t.header, p = append(t.header, p[:n]...), p[n:]; len(t.header) == 8 {
				t.left = int(binary.LittleEndian.Uint16(t.header[2:]))
				t.header = t.header[:0]
			}
		}
	}
	return nil
}

// upload sends as the near end of BenchmarkForwardUpload does, and reads meanwhile:
// nothing but acknowledgements, until the far end has everything.
func (t *bareTunnel) upload(size int) error {
	came := make(chan error, 1)
	go func() { came <- t.receive(1) }()
	if err := t.send(size); err != nil {
		return err
	}
	return <-came
}

// download receives as that of BenchmarkForwardDownload does.
func (t *bareTunnel) download(size int) error {
	if err := t.send(1); err != nil {
		return err
	}
	return t.receive(size)
}
