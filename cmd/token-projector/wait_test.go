package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWaitForHungFile: a file that is never read to its end keeps nobody beyond the time-out, and one that is read as it runs out is heard.
// The sleep is virtual: it is the file system's time.
func TestWaitForHungFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := make(chan struct{})
		for name, c := range map[string]struct {
			usable func() error
			says   string
		}{
			"hung": {func() error { <-hung; return nil }, "f cannot be read"},
			"slow": {func() error { time.Sleep(time.Second + waitPoll/2); return errors.New("of its own") }, "of its own"},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := patient(ctx, "f", c.usable); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", name, err)
			}
			cancel()
		}
		close(hung)
	})
}
