package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
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

// TestWaitForWholeToken: a token that is cut off in its signature, wherever, is not whole; of RSA, whose signatures are as long as the key, but for a
// multiple of 64 bytes.
func TestWaitForWholeToken(t *testing.T) {
	for algorithm, sizes := range map[string][]int{"ES256": {64}, "ES384": {96}, "ES512": {132}, "RS256": {128, 192, 256, 384, 512}} {
		head := base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprintf(`{"alg":%q}`, algorithm)))
		for n := range 600 {
			token := head + ".e30." + base64.RawURLEncoding.EncodeToString(make([]byte, n))
			want := slices.Contains(sizes, n) || algorithm == "RS256" && n >= 128 && n%64 == 0
			if err := whole([]byte(token + "\n")); (err == nil) != want {
				t.Errorf("%s with a signature of %d bytes: %v", algorithm, n, err)
			}
		}
	}
}
