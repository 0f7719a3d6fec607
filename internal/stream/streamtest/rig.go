// Package streamtest plays the far end of a data channel in memory: a test
// injects messages, cuts sockets, and says what it wants to see come out. It is
// for use inside a testing/synctest bubble.
package streamtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

// Rig is a Channel and its far end.
type Rig struct {
	t       testing.TB
	Channel *stream.Channel

	mu      sync.Mutex // guards what the Channel's goroutines share with the test
	socket  *Socket
	dials   []bool // resume, one entry a dial
	refuse  error
	blocked bool
	delay   chan struct{} // not nil: dials wait for it
}

// New opens a Channel on a far end of its own. The Channel is closed, and its
// goroutines are waited for, when the test ends.
func New(t testing.TB, cfg stream.Config) *Rig {
	t.Helper()
	r := &Rig{t: t}
	cfg.Dial = r.dial
	ctx, cancel := context.WithCancel(t.Context())
	r.Channel = stream.Open(ctx, cfg)
	t.Cleanup(func() {
		cancel()
		// Its error is the business of the tests that look at it.
		_ = r.Channel.Close()
	})
	synctest.Wait()
	return r
}

func (r *Rig) dial(ctx context.Context, resume bool) (stream.Socket, string, error) {
	r.mu.Lock()
	r.dials = append(r.dials, resume)
	err, blocked, delay := r.refuse, r.blocked, r.delay
	r.mu.Unlock()
	if delay != nil {
		<-delay
	}
	if blocked {
		<-ctx.Done()
		return nil, "", context.Cause(ctx)
	}
	if err != nil {
		return nil, "", err
	}
	s := &Socket{in: make(chan item, 1<<16), stop: make(chan struct{})}
	r.mu.Lock()
	r.socket = s
	token := fmt.Sprintf("token-%d", len(r.dials))
	r.mu.Unlock()
	return s, token, nil
}

// Dials tells for each dial so far whether it was to resume.
func (r *Rig) Dials() []bool {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]bool(nil), r.dials...)
}

// Refuse makes dials fail with err until it is called with nil.
func (r *Rig) Refuse(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = err
}

// Block makes dials hang until they are cancelled.
func (r *Rig) Block(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocked = on
}

// Delay makes dials wait, whatever becomes of their context, until the returned func
// is called.
func (r *Rig) Delay() (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := make(chan struct{})
	r.delay = c
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.delay = nil
		close(c)
	}
}

// Socket is the current one.
func (r *Rig) Socket() *Socket {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.socket
}

// Socket0 is Socket for a caller that runs while the bubble is not idle.
func (r *Rig) Socket0() *Socket {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.socket
}

// Open takes the opening frame off the current socket.
func (r *Rig) Open() frame.OpenDataChannel {
	r.t.Helper()
	sent := r.Socket().take()
	if len(sent) == 0 || sent[0].kind != frame.Text {
		r.t.Fatalf("the first thing on a socket is not a text frame: %v", sent)
	}
	r.Socket().untake(sent[1:])
	var open frame.OpenDataChannel
	if err := json.Unmarshal(sent[0].data, &open); err != nil {
		r.t.Fatalf("the opening frame is not JSON: %v", err)
	}
	return open
}

// Inject sends messages to the Channel, as one batch, and waits until they were
// taken.
func (r *Rig) Inject(messages ...[]byte) {
	r.t.Helper()
	r.Socket().Inject(frame.Binary, messages...)
	synctest.Wait()
}

// Want fails unless exactly these have been sent since the last call.
func (r *Rig) Want(why string, want ...string) {
	r.t.Helper()
	var got []string
	for _, it := range r.Socket().take() {
		got = append(got, it.String())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Fatalf("%s:\n got %q\nwant %q", why, got, want)
	}
}

// Sent gives what has been sent since the last call, described.
func (r *Rig) Sent() []string {
	var got []string
	for _, it := range r.Socket().take() {
		got = append(got, it.String())
	}
	return got
}

// Socket is one in-memory socket.
type Socket struct {
	in   chan item
	stop chan struct{}
	once sync.Once

	mu    sync.Mutex
	sent  []item
	block chan struct{} // not nil: Send waits for it
	fail  error         // not nil: Send fails
}

type item struct {
	kind  frame.Kind
	batch [][]byte
	data  []byte
	err   error
}

// String is how a Want names a message.
func (it item) String() string {
	switch it.kind {
	case frame.Text:
		return "open"
	case frame.Ping:
		return "ping"
	case frame.Pong:
		return "pong " + string(it.data)
	}
	m, err := frame.Parse(it.data)
	if err == nil {
		err = m.Verify()
	}
	if err != nil {
		return err.Error()
	}
	switch m.Type {
	case frame.Acknowledge:
		n, err := frame.ParseAck(m.Payload)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("ack %d", n)
	case frame.InputStreamData:
		return fmt.Sprintf("%d:%d:%s", m.Sequence, m.PayloadType, m.Payload)
	}
	return string(m.Type)
}

// Receive implements stream.Socket.
func (s *Socket) Receive(deliver func(*frame.Batch) *frame.Batch) error {
	b := deliver(nil)
	for b != nil {
		select {
		case it := <-s.in:
			if it.err != nil {
				return it.err
			}
			for _, p := range it.batch {
				b.Add(it.kind, p)
			}
			b = deliver(b)
		case <-s.stop:
			return errors.New("socket closed")
		}
	}
	return errors.New("stopped")
}

// Send implements stream.Socket.
func (s *Socket) Send(b *frame.Batch) error {
	s.mu.Lock()
	block := s.block
	s.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-s.stop:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stop:
		return errors.New("socket closed")
	default:
	}
	if s.fail != nil {
		return s.fail
	}
	for i := range b.Len() {
		kind, p := b.Message(i)
		s.sent = append(s.sent, item{kind: kind, data: append([]byte(nil), p...)})
	}
	return nil
}

// Close implements stream.Socket.
func (s *Socket) Close() error {
	s.once.Do(func() { close(s.stop) })
	return nil
}

// Closed tells whether the Channel has closed it.
func (s *Socket) Closed() bool {
	synctest.Wait()
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// Block makes Send wait, as a full TCP buffer does, until the returned func is
// called.
func (s *Socket) Block() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{})
	s.block = c
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.block = nil
		close(c)
	}
}

// FailSend makes Send fail, while reading goes on.
func (s *Socket) FailSend(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// Raw gives the binary messages sent since the last call.
func (s *Socket) Raw() (messages [][]byte) {
	synctest.Wait()
	for _, it := range s.take() {
		messages = append(messages, it.data)
	}
	return messages
}

// Inject queues messages for the Channel.
func (s *Socket) Inject(kind frame.Kind, messages ...[]byte) {
	s.in <- item{kind: kind, batch: messages}
}

// Cut ends the socket's reading side with err, after what was injected before.
func (s *Socket) Cut(err error) { s.in <- item{err: err} }

func (s *Socket) take() []item {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := s.sent
	s.sent = nil
	return sent
}

func (s *Socket) untake(items []item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(items, s.sent...)
}

// Data is an output_stream_data message of the far end.
func Data(sequence int64, typ frame.PayloadType, payload string) []byte {
	return message(frame.Message{
		Type: frame.OutputStreamData, Sequence: sequence, PayloadType: typ, Payload: []byte(payload),
	})
}

// Output is Data of payload type 1.
func Output(sequence int64, payload string) []byte { return Data(sequence, frame.Output, payload) }

// Ack acknowledges one input message.
func Ack(sequence int64) []byte {
	ack := frame.Ack{Type: frame.InputStreamData, ID: uuid.Nil, Sequence: sequence}
	return message(frame.Message{Type: frame.Acknowledge, Flags: 3, Payload: ack.Append(nil)})
}

// Control is a message of the service: pause_publication, start_publication.
func Control(typ frame.MessageType) []byte {
	return message(frame.Message{Type: typ, HeaderLength: frame.ShortHeaderLen, Payload: []byte(typ)})
}

// ChannelClosed ends the session with a text for the user.
func ChannelClosed(output string) []byte {
	p, err := json.Marshal(frame.ChannelClosedPayload{MessageType: "channel_closed", SchemaVersion: 1, Output: output})
	if err != nil {
		panic(err) // a struct of strings cannot fail
	}
	return message(frame.Message{Type: frame.ChannelClosed, HeaderLength: frame.ShortHeaderLen, Payload: p})
}

func message(m frame.Message) []byte {
	m.Created = time.Now()
	m.ID = uuid.New()
	b, err := m.Append(nil)
	if err != nil {
		panic(err) // a test that cannot be meant
	}
	return b
}
