package main

import (
	"context"
	"errors"
	"io"
	"os"
)

// openFile opens a file to be read whole.
func openFile(name string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return os.Open(name) }
}

// readWhole reads what open gives to its end, but no more than a byte above limit.
// Nobody can abandon the opening of a FIFO or the read of a terminal, so its goroutine
// is left behind if ctx ends. The bytes are never nil without an error.
func readWhole(ctx context.Context, open func() (io.ReadCloser, error), limit int64) ([]byte, error) {
	type whole struct {
		data []byte
		err  error
	}
	done := make(chan whole, 1)
	go func() {
		from, err := open()
		if err != nil {
			done <- whole{err: err}
			return
		}
		data, err := io.ReadAll(io.LimitReader(from, limit+1))
		done <- whole{data, errors.Join(err, from.Close())}
	}()
	select {
	case w := <-done:
		if w.err != nil {
			return nil, w.err
		}
		return w.data, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
