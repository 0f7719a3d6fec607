package emulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/ssmsession/ssmsession/internal/stream/frame"
)

func taken(t *testing.T, q *queue) []string {
	t.Helper()
	var batch frame.Batch
	if err := q.take(t.Context(), &batch); err != nil {
		t.Fatalf("taking fails: %v", err)
	}
	var all []string
	for i := range batch.Len() {
		_, m := batch.Message(i)
		all = append(all, string(m))
	}
	return all
}

func TestQueueGivesAllInOrder(t *testing.T) {
	q := newQueue(100)
	for i := range 3 {
		if err := q.put(t.Context(), frame.Binary, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(taken(t, q)); got != "[0 1 2]" {
		t.Errorf("one take gives %s", got)
	}
}

func TestQueueBlocksAPutWhileItIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(10)
		put := make(chan error, 2)
		for range 3 { // the first finds room
			go func() { put <- q.put(t.Context(), frame.Binary, []byte("12345678")) }()
		}
		synctest.Wait()
		if err := <-put; err != nil || len(put) > 0 {
			t.Fatalf("%d messages of 8 bytes went into a queue of 10, %v", len(put)+1, err)
		}
		for range 2 {
			taken(t, q)
			synctest.Wait()
			if err := <-put; err != nil || len(put) > 0 {
				t.Errorf("a take let in %d messages, %v", len(put)+1, err)
			}
		}
	})
}

func TestQueueTakesOneTooLargeMessage(t *testing.T) {
	q := newQueue(10)
	large := bytes.Repeat([]byte("x"), 100)
	if err := q.put(t.Context(), frame.Binary, large); err != nil {
		t.Fatal(err)
	}
	if taken, err := q.tryPut(frame.Pong, nil); taken || err != nil {
		t.Errorf("a second message beside it: taken %v, %v", taken, err)
	}
	q.force([]byte("forced"))
	if got := taken(t, q); len(got) != 2 || got[1] != "forced" {
		t.Errorf("the queue gave %d messages", len(got))
	}
}

// TestQueueIsFullOfEmptyMessages, too: a client that pings and does not read sends
// such.
func TestQueueIsFullOfEmptyMessages(t *testing.T) {
	q := newQueue(toClientLimit)
	for range toClientLimit {
		taken, err := q.tryPut(frame.Pong, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !taken {
			return
		}
	}
	t.Errorf("%d messages without a byte went into a queue of so many", toClientLimit)
}

func TestQueueWakesEverybody(t *testing.T) {
	cause := errors.New("enough")
	tests := []struct {
		name string
		end  func(q *queue, cancel context.CancelCauseFunc)
		want error
	}{
		{"closing", func(q *queue, _ context.CancelCauseFunc) { q.close() }, errQueueClosed},
		{"a context's end", func(_ *queue, cancel context.CancelCauseFunc) { cancel(cause) }, cause},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				full, empty := newQueue(1), newQueue(1)
				full.force([]byte("x"))
				ends := make(chan error, 2)
				go func() { ends <- full.put(ctx, frame.Binary, []byte("y")) }()
				go func() { ends <- empty.take(ctx, &frame.Batch{}) }()
				synctest.Wait()
				test.end(full, cancel)
				test.end(empty, cancel)
				for range 2 {
					if err := <-ends; err != test.want {
						t.Errorf("%s gives %v, not %v", test.name, err, test.want)
					}
				}
			})
		})
	}
}

func TestClosedQueueGivesWhatItHas(t *testing.T) {
	q := newQueue(10)
	q.force([]byte("last"))
	q.close()
	q.close()
	q.force([]byte("late"))
	if err := q.put(t.Context(), frame.Binary, nil); err != errQueueClosed {
		t.Errorf("putting into a closed queue: %v", err)
	}
	if got := fmt.Sprint(taken(t, q)); got != "[last]" {
		t.Errorf("a closed queue gives %s", got)
	}
	if err := q.take(t.Context(), &frame.Batch{}); err != errQueueClosed {
		t.Errorf("an empty closed queue gives %v", err)
	}
}
