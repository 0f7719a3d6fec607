package emulator

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// publicKeyLife is how long Instance Connect lets a key in.
	publicKeyLife = 60 * time.Second
	// rewriteAgain is when to try again to take a key out of its file.
	rewriteAgain = 5 * time.Second
	// publicKeyLimit is how many keys there may be at a time.
	publicKeyLimit = 1000
	// authorizedKeysTitle is the first line of the file, by which it is known.
	authorizedKeysTitle = "# keys of an emulator, each for 60 s; this file is written anew and removed\n"
)

// authorizedKeys are the keys that are let in just now, in a file that an sshd
// reads. Nothing runs while there is no key; a timer does until the last is gone.
type authorizedKeys struct {
	path string // empty: none
	log  *slog.Logger

	mu     sync.Mutex           // guards the rest, and the file
	live   map[string]time.Time // in the file, and when each key ends
	timer  *time.Timer
	closed bool
}

var errTooManyKeys = errors.New("too many keys at a time")

// check tells what is wrong with the path: that it has what is not ours.
func (k *authorizedKeys) check() error {
	if k.path == "" {
		return nil
	}
	content, err := os.ReadFile(k.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("cannot read the file of keys: %w", err)
	case len(content) > 0 && !strings.HasPrefix(string(content), authorizedKeysTitle):
		return fmt.Errorf("the file of keys, %s, is not an emulator's and would be overwritten", k.path)
	}
	return nil
}

// add lets a key in for its time, from now on if it is there already. A key that
// cannot be written is not let in.
func (k *authorizedKeys) add(key string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return errStopped
	}
	live := map[string]time.Time{key: time.Now().Add(publicKeyLife)}
	for other, end := range k.live {
		if other != key {
			live[other] = end
		}
	}
	if len(live) > publicKeyLimit {
		return errTooManyKeys
	}
	return k.write(live)
}

// expire takes the keys out whose time is over.
func (k *authorizedKeys) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	if err := k.write(maps.Clone(k.live)); err != nil {
		k.wake(rewriteAgain)
		k.log.Error("a key's time is over, but it is still in its file", "error", err)
	}
}

// write makes live, but for those whose time is over, the keys that are let in. When
// the file cannot be written nothing has changed. The caller holds mu.
func (k *authorizedKeys) write(live map[string]time.Time) error {
	now := time.Now()
	maps.DeleteFunc(live, func(_ string, end time.Time) bool { return !now.Before(end) })
	lines := slices.Sorted(maps.Keys(live))
	content := authorizedKeysTitle + strings.Join(lines, "\n") + "\n"
	if err := replaceFile(k.path, content); err != nil {
		return fmt.Errorf("write the file of keys: %w", err)
	}
	k.live = live
	if len(live) > 0 {
		k.wake(slices.MinFunc(slices.Collect(maps.Values(live)), time.Time.Compare).Sub(now))
	}
	return nil
}

// wake looks for keys whose time is over after a while, instead of when it was to.
func (k *authorizedKeys) wake(after time.Duration) {
	if k.timer != nil {
		k.timer.Stop()
	}
	k.timer = time.AfterFunc(after, k.expire)
}

// close lets no key in any more and removes the file, if there is one.
func (k *authorizedKeys) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.timer != nil {
		k.timer.Stop()
	}
	if k.path == "" {
		return nil
	}
	if err := os.Remove(k.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the file of keys: %w", err)
	}
	return nil
}
