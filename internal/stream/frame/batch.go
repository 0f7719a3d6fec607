package frame

// Kind says how an entry of a Batch travels on the websocket.
type Kind byte

// The kinds. Text is for the opening frame only; pings and pongs carry the
// application data of the websocket control frame.
const (
	Binary Kind = iota
	Text
	Ping
	Pong
)

// Batch is a run of whole websocket messages in one buffer, in order, passed as
// one value from the goroutine that reads or writes a socket to the one that
// owns the protocol. A Batch has one owner at a time and is reused.
type Batch struct {
	buf  []byte
	ends []entry
}

type entry struct {
	kind Kind
	end  int
}

// entryBytes is what an entry takes, in bytes: without them a run of empty messages
// would be nothing.
const entryBytes = 16

// Len is the number of messages.
func (b *Batch) Len() int { return len(b.ends) }

// Size is what all messages take, in bytes: their own, and 16 for each.
func (b *Batch) Size() int { return len(b.buf) + entryBytes*len(b.ends) }

// Message gives the i-th message. It is valid until Reset.
func (b *Batch) Message(i int) (Kind, []byte) {
	start := 0
	if i > 0 {
		start = b.ends[i-1].end
	}
	e := b.ends[i]
	return e.kind, b.buf[start:e.end:e.end]
}

// Add copies p in as one more message.
func (b *Batch) Add(kind Kind, p []byte) {
	b.buf = append(b.buf, p...)
	b.ends = append(b.ends, entry{kind, len(b.buf)})
}

// AddMessage encodes m as one more message. On an error nothing is added.
func (b *Batch) AddMessage(m *Message) error {
	buf, err := m.Append(b.buf)
	if err != nil {
		return err
	}
	b.buf = buf
	b.ends = append(b.ends, entry{Binary, len(b.buf)})
	return nil
}

// Reset empties b. A buffer that large messages, or many, made larger than keep
// bytes is let go.
func (b *Batch) Reset(keep int) {
	if cap(b.buf) > keep {
		b.buf = nil
	}
	if entryBytes*cap(b.ends) > keep {
		b.ends = nil
	}
	b.buf = b.buf[:0]
	b.ends = b.ends[:0]
}
