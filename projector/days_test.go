package projector

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// reader reads tokens as a container does, by name, and judges them.
type reader struct {
	root    *Root
	mu      sync.Mutex           // the owner reads at swaps, lastMoment at expiries
	expires map[string]time.Time // by path
	reads   int
	faults  []string
}

func (r *reader) paths(k Key) []string {
	if k.Volume == "extra" {
		return []string{filepath.Join(r.root.Path(k), "extra-token")}
	}
	return []string{filepath.Join(r.root.Path(k), "token")}
}

// read opens the file at path now, and notes a fault unless it is a good token.
func (r *reader) read(path string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	data, err := os.ReadFile(path)
	if err != nil {
		r.faults = append(r.faults, err.Error())
		return
	}
	c, err := ParseClaims(data)
	switch {
	case err != nil:
		r.faults = append(r.faults, fmt.Sprintf("%s: %v", path, err))
	case c.Lifetime.Expired(now):
		r.faults = append(r.faults, fmt.Sprintf("%s: expired %v ago", path, now.Sub(c.Lifetime.Expires)))
	}
	r.expires[path] = c.Lifetime.Expires
}

// lastMoment reads every token 1 ns before it would expire, until ctx ends.
func (r *reader) lastMoment(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(time.Until(r.soonest())-1, 1)):
		}
		for _, path := range r.expiring(time.Now().Add(1)) {
			r.read(path, time.Now())
		}
	}
}

// soonest is the earliest expiry that was last read anywhere.
func (r *reader) soonest() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := time.Now().Add(time.Hour)
	for _, at := range r.expires {
		if at.Before(next) {
			next = at
		}
	}
	return next
}

func (r *reader) expiring(by time.Time) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var paths []string
	for path, at := range r.expires {
		if !at.After(by) {
			paths = append(paths, path)
		}
	}
	return paths
}

// lineSearch is a log that remembers only how many lines hold the needle.
type lineSearch struct {
	needle      []byte
	lines, hits int
}

func (l *lineSearch) Write(line []byte) (int, error) {
	l.lines++
	if bytes.Contains(line, l.needle) {
		l.hits++
	}
	return len(line), nil
}

func (l *lineSearch) Sync() error { return nil }

// daysPods is more in `make soak`: each pod makes a thousand versions, which the race detector slows down.
var daysPods = flag.Int("pods", 8, "how many pods TestThirtyDays has")

// TestThirtyDays runs pods for 30 days of virtual time. A reader reads every
// token at every swap and 1 ns before every expiry.
func TestThirtyDays(t *testing.T) {
	t.Parallel()
	const days = 30
	pods := *daysPods
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		root := openTestRoot(t, dir)
		defer root.Close()
		r := &reader{root: root, expires: map[string]time.Time{}}
		issue := &issuer{now: time.Now, took: 20 * time.Millisecond}
		lines := &lineSearch{needle: []byte(tokenHeader)}
		p, err := New(Config{
			NodeName: "node", Root: root, Mint: issue.mint, NoWatches: true, Sweep: 6 * time.Hour,
			Log: zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), lines, zap.DebugLevel)),
			Published: func(pub Published) {
				for _, path := range r.paths(pub.Key) {
					r.read(path, time.Now())
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.Run(ctx) }()
		var wishes []Wish
		for n := range pods {
			wishes = append(wishes, Desired(testPod(n, "", 0), SelectAll))
		}
		p.Replace(wishes)
		p.Touch(rootCA, map[string][]byte{"ca.crt": []byte("certificate")})
		go r.lastMoment(ctx)

		time.Sleep(days * 24 * time.Hour)
		snap, ok := p.Snapshot(ctx)
		if !ok || snap.Tokens["fresh"] != pods || snap.Volumes["ready"] != pods {
			t.Errorf("after %d days: %+v, %v", days, snap, ok)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if len(r.faults) > 0 {
			t.Errorf("%d of %d reads failed, first: %s", len(r.faults), r.reads, r.faults[0])
		}
		// 80 % of 3607 s at the latest, 75 % at the earliest after the first.
		most, least := days*24*3600/(3607*75/100)+2, days*24*3600/(3607*80/100)
		if got := issue.requests() / pods; got < least || got > most {
			t.Errorf("%d requests a token in %d days, want %d to %d", got, days, least, most)
		}
		if lines.hits > 0 || lines.lines < issue.requests() {
			t.Errorf("%d of %d log lines hold a token; a line for every one of %d tokens was to be searched", lines.hits, lines.lines, issue.requests())
		}
		if lines.Write([]byte(sign(nil))); lines.hits != 1 {
			t.Error("the search misses a planted token")
		}
		t.Logf("%d requests, %d reads", issue.requests(), r.reads)
	})
}
