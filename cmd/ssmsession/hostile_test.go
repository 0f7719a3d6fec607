package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// What a hostile far end may cost the program above an idle session.
const (
	hostileMemory = 64 << 10        // kB resident
	hostileCPU    = 2 * time.Second // of processor time, for 100 MB
)

// hostile writes what no far end should, beside what one does.
type hostile struct {
	*farEnd
	w     *bufio.Writer
	sent  int64 // bytes
	limit int64
	err   error
	dice  *rand.Rand
}

// The first byte of a websocket frame (RFC 6455, 5.2).
const (
	wsFinal  = 0x80
	wsRSV1   = 0x40
	wsMore   = 0x0
	wsText   = 0x1
	wsBinary = 0x2
	wsClose  = 0x8
	wsPing   = 0x9
	wsPong   = 0xa
)

// more tells whether there is more to send: the program may have gone, or leave its
// socket unread, which is its right.
func (h *hostile) more() bool { return h.err == nil && h.sent < h.limit }

// raw sends a websocket frame that says it has length bytes, and has payload.
func (h *hostile) raw(first byte, length uint64, payload []byte) {
	if h.err != nil {
		return
	}
	head := []byte{first, byte(length)}
	switch {
	case length > math.MaxUint16:
		head = binary.BigEndian.AppendUint64([]byte{first, 127}, length)
	case length > 125:
		head = binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(length))
	}
	h.write(head)
	h.write(payload)
}

func (h *hostile) whole(first byte, payload []byte) { h.raw(first, uint64(len(payload)), payload) }

// data sends a message whose number and type are the caller's.
func (h *hostile) data(sequence int64, typ frame.PayloadType, payload string) {
	h.whole(wsFinal|wsBinary, wire(frame.Message{
		Type: frame.OutputStreamData, Sequence: sequence, PayloadType: typ, Payload: []byte(payload),
	}))
}

// next sends the agent's next message.
func (h *hostile) next(typ frame.PayloadType, payload string) {
	h.data(h.sequence, typ, payload)
	h.sequence++
}

// control sends a message of another type.
func (h *hostile) control(typ frame.MessageType, payload []byte) {
	h.whole(wsFinal|wsBinary, wire(frame.Message{Type: typ, Payload: payload}))
}

// smux sends frames of the tunnel's multiplexer: version 1, a command, a length and
// a stream.
func (h *hostile) smux(version, command byte, length uint16, stream uint32, data []byte) {
	const room = 1000
	b := []byte{version, command}
	b = binary.LittleEndian.AppendUint16(b, length)
	b = binary.LittleEndian.AppendUint32(b, stream)
	b = append(b, data...)
	for len(b) > 0 {
		n := min(room, len(b))
		h.next(frame.Output, string(b[:n]))
		b = b[n:]
	}
}

// begin does the handshake of a session type, without encryption.
func (h *hostile) begin(t frame.SessionType) {
	h.next(frame.HandshakeRequest, fmt.Sprintf(`{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType",`+
		`"ActionParameters":{"SessionType":%q,"Properties":{"portNumber":"80","type":"LocalPortForwarding"}}}]}`, t))
	_ = h.w.Flush()
	h.answered()
	h.next(frame.HandshakeComplete, `{"HandshakeTimeToComplete":1,"CustomerMessage":""}`)
}

// encrypt asks for encryption with a key.
func (h *hostile) encrypt(keyID string) {
	h.next(frame.HandshakeRequest, `{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType",`+
		`"ActionParameters":{"SessionType":"Standard_Stream"}},{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":`+
		string(marshal(keyID))+`,"Challenge":"AAAA"}}]}`)
	_ = h.w.Flush()
	h.answered()
}

// hostileRow is one kind of harm.
type hostileRow struct {
	name string
	args []string // nil: start
	do   func(h *hostile)

	before int64 // messages of output that come before the connection is lost
	status int
	says   string // a pattern of what it says; empty: nothing
	prints string // that stdout has; empty: anything
}

// escapes is what must not reach a terminal but as a session's output.
const escapes = "\x1b]0;pwned\x07\x1b[2J\r\n\u202e\x9b31m\x00\b"

func hostileRows() []hostileRow {
	const survived = "survived\n"
	long := strings.Repeat("x", 1024)
	odd := []int64{math.MinInt64, math.MinInt64 + 1, -1, 1 << 31, 1 << 62, math.MaxInt64 - 1, math.MaxInt64}
	port := []string{"forward", exampleTarget, "-L", "0:80"}
	return []hostileRow{
		{name: "a gap that never fills", do: func(h *hostile) {
			for n := int64(1); h.more(); n++ {
				h.data(n, frame.Output, long)
			}
			h.sequence = 1 << 40 // of what is said in the end
		}, status: exitFailed, says: `before all of its output had arrived`},
		{name: "numbers at the edges", do: func(h *hostile) {
			for n := 0; h.more(); n++ {
				h.data(odd[n%len(odd)], frame.Output, long)
			}
		}, prints: survived},
		{name: "acknowledgements of what was never sent", do: func(h *hostile) {
			for n := 0; h.more(); n++ {
				h.control(frame.Acknowledge, frame.Ack{Type: frame.InputStreamData, Sequence: odd[n%len(odd)] + int64(n)}.Append(nil))
			}
		}, prints: survived},
		{name: "acknowledgements that are none", do: func(h *hostile) {
			for h.more() {
				h.control(frame.Acknowledge, []byte(`{"AcknowledgedMessageSequenceNumber":`+strings.Repeat("[", 400)))
			}
		}, prints: survived},
		{name: "a byte a message", do: func(h *hostile) {
			for h.more() {
				h.next(frame.Output, "x")
			}
		}, prints: survived},
		{name: "payload types that nobody knows", do: func(h *hostile) {
			for n := uint32(13); h.more(); n++ {
				h.next(frame.PayloadType(n), long)
			}
		}, prints: survived},
		{name: "sizes, flags and exit codes of the agent's", do: func(h *hostile) {
			for h.more() {
				h.next(frame.Size, `{"cols":-1,"rows":99999999999}`)
				h.next(frame.Flag, "\xff\xff\xff\xff")
				h.next(frame.ExitCode, "99999999999999999999")
			}
		}, status: exitFailed, says: `.`},
		{name: "handshakes again and again", do: func(h *hostile) {
			h.begin(frame.StandardStream)
			for n := 0; h.more(); n++ {
				h.next(frame.HandshakeRequest, `{"RequestedClientActions":[`+strings.Repeat(`{"ActionType":"x"},`, 40)+`{}]}`)
				h.next(frame.HandshakeComplete, `{"CustomerMessage":"late"}`)
			}
		}, prints: survived},
		{name: "a handshake of another type in mid-stream", do: func(h *hostile) {
			h.next(frame.Output, "begun\n")
			for h.more() {
				h.next(frame.HandshakeRequest, `{"RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"22"}}}]}`)
				h.next(frame.HandshakeComplete, `{}`)
			}
		}, prints: survived},
		{name: "a handshake of 250 actions", do: func(h *hostile) {
			h.next(frame.HandshakeRequest, `{"RequestedClientActions":[`+strings.Repeat(`{"ActionType":"KMSEncryption","ActionParameters":null},`, 250)+`{}]}`)
		}, status: exitFailed, says: `could not do what it asked`},
		{name: "a handshake of a thousand actions", do: func(h *hostile) {
			h.next(frame.HandshakeRequest, `{"RequestedClientActions":[`+strings.Repeat(`{"ActionType":"KMSEncryption","ActionParameters":null},`, 1500)+`{}]}`)
		}, status: exitFailed, says: `handshake request has [0-9]+ bytes, and 16384 are all that is read`},
		{name: "challenges that nobody asked for", do: func(h *hostile) {
			h.begin(frame.StandardStream)
			for h.more() {
				h.next(frame.EncChallengeRequest, `{"Challenge":"`+strings.Repeat("A", 124)+`"}`)
			}
		}, prints: survived},
		{name: "a challenge that does not open", do: func(h *hostile) {
			h.encrypt("k")
			for h.more() {
				h.next(frame.EncChallengeRequest, `{"Challenge":"`+strings.Repeat("A", 124)+`"}`)
			}
		}, status: exitFailed, says: `cannot be encrypted: .*another key`},
		{name: "an encrypted session in the clear", do: func(h *hostile) {
			h.encrypt("k")
			for h.more() {
				h.next(frame.Output, long)
			}
		}, status: exitFailed, says: `not encrypted with the session's key`},
		{name: "a key whose name is not for terminals", do: func(h *hostile) {
			h.encrypt("denied" + escapes + long)
			for h.more() {
				h.next(frame.Output, long)
			}
		}, status: exitFailed, says: `cannot make a data key with denied`},
		{name: "a customer message that is not for terminals", do: func(h *hostile) {
			h.next(frame.HandshakeRequest, `{"RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream"}}]}`)
			h.next(frame.HandshakeComplete, string(marshal(frame.HandshakeCompletePayload{CustomerMessage: escapes + strings.Repeat("m", 100_000)})))
		}, says: `pwned`, prints: survived},
		{name: "a last word that is not for terminals", do: func(h *hostile) {
			h.next(frame.Output, "begun\n")
			h.control(frame.ChannelClosed, marshal(frame.ChannelClosedPayload{Output: strings.Repeat(escapes, 500)}))
		}, says: `session closed: .*pwned`, prints: "begun\n"},
		{name: "message types that nobody knows", do: func(h *hostile) {
			for n := 0; h.more(); n++ {
				h.control(frame.MessageType("type_"+strconv.Itoa(n)), []byte(long))
			}
		}, prints: survived},
		{name: "noise", do: func(h *hostile) {
			noise := make([]byte, 4096)
			for h.more() {
				for i := range noise {
					noise[i] = byte(h.dice.Uint32())
				}
				h.whole(wsFinal|wsBinary, noise[:1+h.dice.IntN(len(noise))])
			}
		}, prints: survived},
		{name: "headers that lie", do: func(h *hostile) {
			for h.more() {
				b := wire(frame.Message{Type: frame.OutputStreamData, PayloadType: frame.Output, Payload: []byte(long)})
				// The length of the header, the type or the digest. That of the
				// payload is nothing that is relied on.
				at := []int{0, 1, 2, 3, 4, 10, 80, 100, 111}[h.dice.IntN(9)]
				b[at] ^= byte(1 + h.dice.IntN(255))
				h.whole(wsFinal|wsBinary, b)
			}
		}, prints: survived},
		{name: "pauses", do: func(h *hostile) {
			for h.more() {
				h.control(frame.PausePublication, []byte("pause"))
				h.control(frame.StartPublication, []byte("start"))
			}
		}, prints: survived},

		// Of the websocket. The connection is lost, and had back.
		{name: "fragments without end", do: func(h *hostile) {
			h.raw(wsBinary, 1, []byte("x"))
			for h.more() {
				h.raw(wsMore, 1, []byte("x"))
			}
		}, prints: survived},
		{name: "fragments of nothing", do: func(h *hostile) {
			h.next(frame.Output, "begun\n") // or the opening takes too long
			h.raw(wsBinary, 0, nil)
			for h.more() {
				h.raw(wsMore, 0, nil)
			}
		}, before: 1, prints: survived},
		{name: "a message in fragments, with pings between them", do: func(h *hostile) {
			for h.more() {
				b := h.message(frame.Output, long)
				h.sequence++
				h.raw(wsBinary, 1, b[:1])
				h.whole(wsFinal|wsPing, []byte("between"))
				for _, c := range b[1 : len(b)-1] {
					h.raw(wsMore, 1, []byte{c})
				}
				h.raw(wsFinal|wsMore, 1, b[len(b)-1:])
			}
		}, prints: survived},
		{name: "a message of 1 GB", do: func(h *hostile) {
			h.raw(wsFinal|wsBinary, 1<<30, nil)
			for block := make([]byte, 64<<10); h.more(); {
				h.write(block)
			}
		}, prints: survived},
		{name: "a message longer than there are bytes", do: func(h *hostile) {
			h.raw(wsFinal|wsBinary, math.MaxInt64, []byte(long))
		}, prints: survived},
		{name: "a length beyond all numbers", do: func(h *hostile) {
			h.raw(wsFinal|wsBinary, math.MaxUint64, []byte(long))
		}, prints: survived},
		{name: "compression that was not agreed on", do: func(h *hostile) {
			for h.more() {
				h.whole(wsFinal|wsRSV1|wsBinary, make([]byte, 1000))
			}
		}, prints: survived},
		{name: "kinds of frames that nobody knows", do: func(h *hostile) { h.whole(wsFinal|0x3, []byte(long)) }, prints: survived},
		{name: "a ping of 1000 bytes", do: func(h *hostile) { h.whole(wsFinal|wsPing, make([]byte, 1000)) }, prints: survived},
		{name: "pings", do: func(h *hostile) {
			for h.more() {
				h.whole(wsFinal|wsPing, make([]byte, 125))
			}
		}, prints: survived},
		{name: "pongs", do: func(h *hostile) {
			for h.more() {
				h.whole(wsFinal|wsPong, make([]byte, 125))
			}
		}, prints: survived},
		{name: "text", do: func(h *hostile) {
			for h.more() {
				h.whole(wsFinal|wsText, []byte(strings.Repeat("\xff\xfe{", 300)))
			}
		}, prints: survived},
		{name: "a close that is not for terminals", do: func(h *hostile) {
			h.whole(wsFinal|wsClose, append([]byte{0x03, 0xe8}, escapes...))
		}, prints: survived},

		// Of the tunnel's multiplexer.
		{name: "a tunnel with streams that nobody asked for", args: port, do: func(h *hostile) {
			h.begin(frame.Port)
			for id := uint32(2); h.more(); id += 2 {
				h.smux(1, 0, 0, id, nil)
			}
		}},
		{name: "a tunnel with data of streams that are not there", args: port, do: func(h *hostile) {
			h.begin(frame.Port)
			for id := uint32(1); h.more(); id++ {
				h.smux(1, 2, 60_000, id, make([]byte, 60_000))
			}
		}},
		{name: "a tunnel with data of streams that nobody asked for", args: port, do: func(h *hostile) {
			h.begin(frame.Port)
			for id := uint32(2); h.more(); id += 2 {
				h.smux(1, 0, 0, id, nil)
				h.smux(1, 2, 60_000, id, make([]byte, 60_000))
			}
		}},
		{name: "a tunnel whose frames lie about their length", args: port, do: func(h *hostile) {
			h.begin(frame.Port)
			for h.more() {
				h.smux(1, 3, 65_535, h.dice.Uint32(), []byte(long))
			}
		}},
		{name: "a tunnel that is none", args: port, do: func(h *hostile) {
			h.begin(frame.Port)
			for h.more() {
				h.smux(byte(h.dice.Uint32()), byte(h.dice.Uint32()), uint16(h.dice.Uint32()), h.dice.Uint32(), []byte(long))
			}
		}},
	}
}

// write sends bytes of the frame that has begun.
func (h *hostile) write(p []byte) {
	if h.err == nil && h.w.Available() < len(p) {
		h.err = h.conn.NetConn().SetWriteDeadline(time.Now().Add(5 * time.Second))
	}
	if h.err == nil {
		var n int
		n, h.err = h.w.Write(p)
		h.sent += int64(n)
	}
}

// TestAHostileFarEnd lets a far end do the program, built as it is released, what
// harm it can. The program ends with a reason or carries on, shows nothing that a
// terminal would obey, and takes little memory and processor time.
func TestAHostileFarEnd(t *testing.T) {
	program := released(t)
	size, limit := int64(4e6), 2*badLimit
	if os.Getenv("SOAK") != "" {
		size, limit = 100e6, 20*badLimit
	}
	idle := hostileRow{name: "idle", do: func(h *hostile) {}, prints: "survived\n"}.run(t, program, 0, limit)
	tunnel := hostileRow{name: "idle", args: []string{"forward", exampleTarget, "-L", "0:80"},
		do: func(h *hostile) { h.begin(frame.Port) }}.run(t, program, 0, limit)
	for _, row := range hostileRows() {
		t.Run(row.name, func(t *testing.T) {
			base := idle
			if row.args != nil {
				base = tunnel
			}
			cost := row.run(t, program, size, limit)
			memory, cpu := cost.memory-base.memory, cost.cpu-base.cpu
			t.Logf("%.1f MB: %d kB and %.3f s above idle", float64(cost.sent)/1e6, memory, cpu.Seconds())
			if memory > hostileMemory {
				t.Errorf("it takes %d kB of memory more than idle, want %d at most", memory, hostileMemory)
			}
			// What a process costs to begin differs from one to the next.
			const spread = 200 * time.Millisecond
			if most := hostileCPU*time.Duration(cost.sent/1e3)/100e3 + spread; cpu > most {
				t.Errorf("it takes %v of processor time for %.1f MB, want %v at most", cpu, float64(cost.sent)/1e6, most)
			}
		})
	}
}

// hostileCost is what a run of the program has cost.
type hostileCost struct {
	sent   int64 // bytes that it was sent
	memory int   // the most that was resident, in kB; 0 where the system does not tell
	cpu    time.Duration
}

// run runs the program against the row's far end.
func (row hostileRow) run(t *testing.T, program string, size int64, limit time.Duration) (cost hostileCost) {
	t.Helper()
	pid := make(chan int, 1)
	tunnel := row.args != nil
	s := newBadService(t, nil, func(s *badService) {
		s.channel = func(f *farEnd) {
			if f.nth > 1 { // the connection was lost, and is had back
				f.sequence = row.before
				if tunnel {
					f.end("")
					return
				}
				f.goOn()
				return
			}
			h := &hostile{farEnd: f, limit: size, dice: rand.New(rand.NewPCG(1, 2))}
			h.w = bufio.NewWriterSize(f.conn.NetConn(), 64<<10)
			row.do(h)
			if err := h.w.Flush(); h.err == nil {
				h.err = err
			}
			cost.sent = h.sent
			if h.err == nil {
				// Read by now, or about to be: a ping that is answered, or the end.
				h.settled()
			}
			id := <-pid
			if tunnel {
				if process, err := os.FindProcess(id); err == nil {
					_ = process.Signal(syscall.SIGTERM) // it may have ended
				}
				<-f.gone
				return
			}
			_ = f.conn.NetConn().SetWriteDeadline(time.Time{}) // or it has gone
			f.goOn()
		}
	})
	args := row.args
	if args == nil {
		args = []string{"start", exampleTarget}
	}
	memory := make(chan int, 1)
	e := endsInTime(t, limit, func(p int) {
		pid <- p
		go func() { memory <- mostResident(t, p) }()
	}, s.environment(), append([]string{program}, args...)...)
	s.tasks.Wait() // the far end, which counts
	cost.memory = <-memory
	cost.cpu = e.cpu
	if tunnel {
		if e.status != exitSignal+int(syscall.SIGTERM) && e.status != exitFailed && e.status != -1 {
			t.Errorf("it ends with status %d", e.status)
		}
	} else if e.status != row.status {
		t.Errorf("it ends with status %d, want %d", e.status, row.status)
	}
	if !strings.HasSuffix(e.stdout, row.prints) {
		t.Errorf("stdout ends in %.200q, want %q", e.stdout[max(0, len(e.stdout)-200):], row.prints)
	}
	for _, unwanted := range []*regexp.Regexp{programmer, unprinted} {
		if m := unwanted.FindString(e.stderr); m != "" {
			t.Errorf("stderr has %q:\n%.2000s", m, e.stderr)
		}
	}
	if row.says != "" && !regexp.MustCompile(row.says).MatchString(e.stderr) {
		t.Errorf("it says %.500q, which does not match %q", e.stderr, row.says)
	}
	if len(e.stderr) > 20_000 {
		t.Errorf("it says %d bytes", len(e.stderr))
	}
	return cost
}

// settled waits until the program has read what was sent, or has gone, or has not
// read for a while.
func (h *hostile) settled() {
	h.whole(wsFinal|wsPing, []byte("there?"))
	_ = h.w.Flush() // or it has gone
	select {
	case <-h.ponged:
	case <-h.gone:
	case <-time.After(5 * time.Second):
	}
}

// mostResident looks at a process until it ends: afterwards nobody can tell.
func mostResident(t *testing.T, pid int) (most int) {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		kB := resident(t, pid)
		if kB == 0 {
			return most
		}
		most = max(most, kB)
		<-look.C
	}
}

// resident is the most memory that a process ever had resident, in kB; 0 where
// the system does not tell, or the process has ended.
func resident(t *testing.T, pid int) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	m := regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`).FindSubmatch(status)
	if m == nil {
		return 0
	}
	kB, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Error(err)
	}
	return kB
}
