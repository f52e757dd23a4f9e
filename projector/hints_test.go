package projector

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	blindBegins = `"msg":"no watches left; `
	blindEnds   = `"msg":"all volumes are watched again"`
)

// spoilt removes the token of a lone pod, of which nobody hears, and returns how to see that it is back.
func (r *rig) spoilt(n int) (whole func() bool) {
	clear(r.files[extra(n)])
	return func() bool { return len(r.files[extra(n)]) == 1 }
}

// TestWatchesRunOut: while there are none, that is one line, the gauge and a volume each two seconds that is read for it;
// when there are some again, all are taken in a moment, what was altered meanwhile is found, and that is another line.
// The same again in the next episode.
func TestWatchesRunOut(t *testing.T) {
	r := settled(t, 50, 86400)
	r.unswept()
	for episode := range 2 {
		r.blind = func(Key) error { return unix.ENOSPC }
		for n := range 50 {
			r.s.verify(extra(n), r.now)
		}
		r.run(time.Second)
		if snap := r.s.snapshot(r.now); !snap.WatchDegraded || r.count(blindBegins) != episode+1 || !r.says("no space left on device") {
			t.Errorf("episode %d: gauge %v, %d lines", episode, snap.WatchDegraded, r.count(blindBegins))
		}
		r.run(time.Minute) // the sweep that comes for all of them in the first minute
		if n := r.publishes(t, 50*time.Second); n < 20 || n > 80 {
			t.Errorf("episode %d: %d volumes read in 50 s for want of watches", episode, n)
		}
		whole := r.spoilt(7)
		r.blind = nil
		r.run(watchRetry + 2*hintDelay)
		if snap := r.s.snapshot(r.now); snap.WatchDegraded || r.count(blindBegins) != episode+1 || r.count(blindEnds) != episode+1 {
			t.Errorf("episode %d: gauge %v, %d lines, %d ends", episode, snap.WatchDegraded, r.count(blindBegins), r.count(blindEnds))
		}
		if !whole() {
			t.Errorf("episode %d: what was altered is not found when the watches come back", episode)
		}
	}
	if n := r.publishes(t, 5*time.Minute); n > 1 { // the one that was repaired sweeps its old version
		t.Errorf("%d volumes read while all are watched", n)
	}
}

// TestAlteredBeforeTheWatch: what is done between the look that brings the watch and the watch itself is found.
func TestAlteredBeforeTheWatch(t *testing.T) {
	r := settled(t, 1, 86400)
	r.blind = func(Key) error { return errNoInstance }
	r.s.verify(extra(0), r.now)
	r.run(time.Second)
	r.blind = nil
	r.pass(watchRetry)
	look := r.until(isPublish).publish
	result := r.publish(look)
	whole := r.spoilt(0)
	r.flying = nil
	r.s.finishPublish(look, result, found{}, r.now)
	r.run(2 * hintDelay)
	if !whole() {
		t.Error("not found")
	}
}

// TestTooFewWatches: where there are some, but not enough, each that becomes free is found, those without take turns, and
// one that is gone is not waited for.
func TestTooFewWatches(t *testing.T) {
	r := settled(t, 4, 86400)
	poor := []Key{extra(2), extra(3)}
	r.blind = func(k Key) error {
		if slices.Contains(poor, k) {
			return unix.ENOSPC
		}
		return nil
	}
	for n := range 4 {
		r.s.verify(extra(n), r.now)
	}
	r.run(10 * time.Second)
	for _, n := range []int{2, 3} {
		whole := r.spoilt(n)
		if r.run(2*watchRetry + hintDelay); !whole() {
			t.Errorf("volume %d waits for its turn", n)
		}
	}
	poor = poor[1:]
	r.run(2*watchRetry + hintDelay)
	if r.volume(extra(2)).unwatched() || !r.volume(extra(3)).unwatched() || r.says(blindEnds) {
		t.Error("the watch that became free is not found")
	}
	r.s.awaitStopped = true // its directory stays
	r.s.forget(uid(3), r.now)
	r.run(2 * watchRetry)
	if snap := r.s.snapshot(r.now); snap.WatchDegraded || r.count(blindBegins) != 1 || r.count(blindEnds) != 1 {
		t.Errorf("gauge %v, %d lines, %d ends", snap.WatchDegraded, r.count(blindBegins), r.count(blindEnds))
	}
}

// TestUnwatchedBeforeItIsWhole: that a volume without watches cannot be published is not told as an end of their lack, and
// a new beginning, at each attempt.
func TestUnwatchedBeforeItIsWhole(t *testing.T) {
	r := settled(t, 0, 0)
	r.blind = func(Key) error { return unix.ENOSPC }
	r.apply(lonePod(1, 86400))
	r.until(isPublish)
	r.broken = unix.EROFS
	r.run(time.Minute)
	if r.count(blindBegins) > 1 || r.count(blindEnds) > 0 {
		t.Errorf("%d lines, %d ends, while it is not whole", r.count(blindBegins), r.count(blindEnds))
	}
	r.broken = nil
	r.run(time.Minute)
	if r.count(blindBegins) != 1 || r.count(blindEnds) != 0 {
		t.Errorf("%d lines, %d ends, when it is whole", r.count(blindBegins), r.count(blindEnds))
	}
	r.blind = nil
	r.run(time.Minute)
	if r.count(blindBegins) != 1 || r.count(blindEnds) != 1 {
		t.Errorf("%d lines, %d ends, when it is watched", r.count(blindBegins), r.count(blindEnds))
	}
}

// publishes counts the publishes of that much time.
func (r *rig) publishes(t *testing.T, d time.Duration) int {
	t.Helper()
	n := 0
	blind := r.blind
	r.blind = func(k Key) error {
		if n++; blind != nil {
			return blind(k)
		}
		return nil
	}
	r.run(d)
	r.blind = blind
	return n
}
