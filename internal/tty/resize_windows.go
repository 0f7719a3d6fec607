package tty

import (
	"context"
	"time"
)

// Resized sends a value when the terminal's size has changed. Values not yet
// taken become one: who takes one asks Size. The channel is closed once ctx is
// over and nothing here runs any more.
//
// Windows tells of changes only among the input events, which would have to be
// read in place of the bytes; so the size is compared four times a second, and
// not at all without a terminal.
func (t *Terminal) Resized(ctx context.Context) <-chan struct{} {
	const interval = 250 * time.Millisecond
	resized := make(chan struct{}, 1)
	go func() {
		defer close(resized)
		if !t.OutIsTerminal() {
			<-ctx.Done()
			return
		}
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		cols, rows, _ := t.Size() // unknown is 0 by 0: any size that follows is news
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				c, r, err := t.Size()
				if err != nil || c == cols && r == rows {
					continue
				}
				cols, rows = c, r
				select {
				case resized <- struct{}{}:
				default: // one is waiting already
				}
			}
		}
	}()
	return resized
}
