package projector

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/token-projector/token-projector/rotation"
)

// cost is what a Projector spends on that many tokens while nothing is to be done for an hour.
type cost struct {
	goroutines int
	turns      int64 // of the owner: whatever wakes it, a timer, a ticker or an event, makes one
	wakes      int   // moments at which it made any: in virtual time, what is done together takes none
}

func idle(t *testing.T, tokens int, sweep time.Duration) (c cost) {
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		root := openTestRoot(t, dir)
		defer root.Close()
		var turns atomic.Int64
		moments := make(map[time.Time]bool) // the owner's alone, until it has ended
		system, issue := rotation.SystemClock(), &issuer{now: time.Now}
		p, err := New(Config{NodeName: "node", Root: root, Mint: issue.mint, NoWatches: true, Sweep: sweep, Clock: func() rotation.Time {
			turns.Add(1)
			moments[time.Now()] = true
			return system()
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		before := runtime.NumGoroutine()
		go func() { ended <- p.Run(ctx) }()
		p.Replace(nil)
		for n := range tokens { // each at a moment of its own
			pod := testPod(n, "vault", 1<<32) // due in 45 minutes or later, as any token is that lives for a day or longer
			pod.Spec.Volumes = pod.Spec.Volumes[1:]
			p.Apply(Desired(pod, SelectAll))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute) // all are published, and the last jobs have ended
		c.goroutines, c.turns = runtime.NumGoroutine()-before, turns.Load()
		idle := time.Now()
		time.Sleep(40 * time.Minute)
		c.turns = turns.Load() - c.turns
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for at := range moments {
			if at.After(idle) {
				c.wakes++
			}
		}
		if issue.requests() != tokens {
			t.Errorf("%d requests for %d tokens", issue.requests(), tokens)
		}
	})
	return c
}

// TestNothingPerToken: tokens that are only held cost neither a goroutine nor a wake-up.
func TestNothingPerToken(t *testing.T) {
	few, many := idle(t, 2, 1000*time.Hour), idle(t, 500, 1000*time.Hour)
	// Goroutines of earlier tests may end meanwhile, and the time begins at another moment of a minute.
	if many.goroutines > few.goroutines+10 || many.turns > few.turns+2 {
		t.Errorf("%+v for 2 tokens, %+v for 500", few, many)
	}
	if few.turns < 33 || few.turns > 47 {
		t.Errorf("%d turns in 40 minutes, want one a minute", few.turns)
	}
}

// TestSweepWakesForManyAtOnce: that all are read every ten minutes costs a wake-up a minute, however many they are.
func TestSweepWakesForManyAtOnce(t *testing.T) {
	c := idle(t, 200, sweepEvery)
	if c.turns < 4*200 {
		t.Errorf("%d turns: not all of 200 volumes were read four times", c.turns)
	}
	if c.wakes > 40+40+5 { // those of 40 minutes without sweeps, and the parts of four
		t.Errorf("%d wake-ups in 40 minutes", c.wakes)
	}
}

// TestSweepAt: a volume is read within the time of a sweep, however short or long that is, and whatever the clock says: one without a
// battery begins in 1970.
func TestSweepAt(t *testing.T) {
	for _, now := range []time.Time{issuedAt, time.Unix(0, 0), time.Unix(30, 0), time.Unix(-1, 0), time.Unix(1<<40, 0)} {
		for _, every := range []time.Duration{1, 9, time.Minute, sweepEvery, 24 * time.Hour} {
			for i := range 100 {
				v := &volume{key: extra(i)}
				if in := v.sweepAt(now, every).Sub(now); in <= 0 || in > every {
					t.Fatalf("at %v, volume %d of a sweep each %v is read in %v", now, i, every, in)
				}
			}
		}
	}
}
