package projector

import (
	"flag"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seeds     = flag.Int("seeds", 100, "how many random histories TestSoak plays")
	firstSeed = flag.Uint64("first-seed", 0, "the first of them")
)

// TestSoak is the model check: each seed is a random history of thirty days in
// virtual time, of pods, wishes, faults, restarts and clocks. What must hold is
// judged at every event, at every swap, and at the last nanosecond of every token.
//
// A seed that fails prints a minimal history: paste it into TestHistories.
func TestSoak(t *testing.T) {
	var next, requests, versions, turns atomic.Int64
	var failures sync.Mutex
	deadline := time.Now().Add(24 * time.Hour) // for minimising; from the first failure on, a minute
	failed := 0
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for n := next.Add(1); n <= int64(*seeds); n = next.Add(1) {
				seed := *firstSeed + uint64(n) - 1
				h := tell(seed)
				w := play(t, h, nil)
				requests.Add(int64(len(w.requests)))
				versions.Add(int64(w.made))
				turns.Add(int64(w.turns))
				if w.wrong == "" {
					continue
				}
				failures.Lock()
				if failed++; failed == 1 {
					deadline = time.Now().Add(time.Minute)
				}
				least := minimise(h, func(h history) bool { return kind(play(t, h, nil).wrong) == kind(w.wrong) }, deadline)
				t.Errorf("seed %d: after %v: %s\nand after this: %s\n%#v", seed, w.at, w.wrong, play(t, least, nil).wrong, least)
				failures.Unlock()
			}
		})
	}
	workers.Wait()
	t.Logf("%d histories, %d requests, %d versions, %d turns", *seeds, requests.Load(), versions.Load(), turns.Load())
	if int(versions.Load()) < 50**seeds {
		t.Error("hardly anything happens in these histories")
	}
}

// kind is what is wrong, without where.
func kind(wrong string) string {
	what, _, _ := strings.Cut(wrong, ": ")
	return strings.Trim(what, "0123456789 ")
}
