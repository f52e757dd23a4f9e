package rotation

import (
	"fmt"
	"testing"
	"time"
)

const ms = time.Millisecond

func mayProbe(o *Outage, now time.Duration) bool {
	ok, _ := o.Probe(now)
	return ok
}

func TestOutageInOrder(t *testing.T) {
	var o Outage
	if o.Open() || !mayProbe(&o, 0) {
		t.Error("the zero value is not a server in order")
	}
	if o.Succeeded(second) || o.Open() {
		t.Error("a success ended what had not begun")
	}
}

// TestOutageProbePace: from the failure that opens it on, one request in 1 to 2 s,
// at the edge to the nanosecond, whatever the node.
func TestOutageProbePace(t *testing.T) {
	paces := map[time.Duration]bool{}
	for i := range 1000 {
		o := NewOutage(NewSeed(fmt.Sprint("node", i)))
		now := 10 * second
		if !o.Failed(9*second, now, 0, false) || !o.Open() {
			t.Fatal("a failure did not open it")
		}
		for range 5 {
			_, at := o.Probe(now)
			if wait := at - now; wait < second || wait >= 2*second {
				t.Fatalf("node %d: next probe in %v", i, wait)
			}
			if mayProbe(&o, at-1) || !mayProbe(&o, at) {
				t.Fatalf("node %d: the probe is not at %v sharp", i, at)
			}
			paces[at-now] = true
			now = at
			o.Probing(now)
			if mayProbe(&o, now) {
				t.Fatalf("node %d: two probes at once", i)
			}
		}
	}
	if len(paces) < 4900 {
		t.Errorf("only %d different paces of 5000", len(paces))
	}
}

// TestOutageProbeFailureAddsNothing: the failure of a probe, or of one of the
// requests that were in flight, does not put off the next probe.
func TestOutageProbeFailureAddsNothing(t *testing.T) {
	o := NewOutage(1)
	o.Failed(0, second, 0, false)
	_, at := o.Probe(second)
	for range 16 {
		o.Failed(0, second+900*ms, 0, false)
	}
	if _, again := o.Probe(second); again != at {
		t.Errorf("probe put off from %v to %v", at, again)
	}
}

func TestOutageRetryAfter(t *testing.T) {
	for asked, least := range map[time.Duration]time.Duration{
		0: second, second: second, 7 * second: 7 * second,
		time.Minute: time.Minute, time.Hour: time.Minute, 1 << 62: time.Minute,
	} {
		o := NewOutage(3)
		o.Failed(0, 5*second, asked, false)
		_, at := o.Probe(5 * second)
		if wait := at - 5*second; wait < least || wait >= least+second {
			t.Errorf("Retry-After %v: probe in %v, want [%v, %v)", asked, wait, least, least+second)
		}
	}
}

// TestOutageRetryAfterOfAProbe: it holds for an outage that is open already, and
// a shorter one does not take it back.
func TestOutageRetryAfterOfAProbe(t *testing.T) {
	o := NewOutage(3)
	o.Failed(0, 0, 0, false)
	o.Probing(2 * second)
	o.Failed(2*second, 2*second, 30*second, false)
	_, at := o.Probe(2 * second)
	if at < 32*second || at >= 33*second {
		t.Errorf("probe at %v", at)
	}
	o.Failed(2*second, 3*second, second, false)
	if _, again := o.Probe(3 * second); again != at {
		t.Errorf("a shorter Retry-After moved the probe to %v", again)
	}
}

// TestOutageSentOrder: what was sent before the failing request was sent proves
// nothing about it, and the other way round.
func TestOutageSentOrder(t *testing.T) {
	for name, tt := range map[string]struct {
		sent time.Duration
		ends bool
	}{
		"sent 1 ns before": {4*second - 1, false},
		"sent with it":     {4 * second, true},
		"sent after it":    {4*second + 1, true},
	} {
		o := NewOutage(1)
		o.Failed(4*second, 5*second, 0, false)
		if got := o.Succeeded(tt.sent); got != tt.ends || o.Open() == tt.ends {
			t.Errorf("%s: ended %v, open %v", name, got, o.Open())
		}
		if tt.ends && !mayProbe(&o, 0) {
			t.Errorf("%s: requests are held back after the end", name)
		}
	}
}

// TestOutageSuspect: a failure is a token's own if it failed before while others
// succeeded, or if a request that was sent later has succeeded.
func TestOutageSuspect(t *testing.T) {
	o := NewOutage(1)
	if o.Failed(second, 2*second, 0, true) || o.Open() {
		t.Error("a suspect opened an outage")
	}
	o.Succeeded(5 * second)
	if o.Failed(5*second-1, 6*second, 0, false) || o.Open() {
		t.Error("a request sent before one that succeeded opened an outage")
	}
	o.Succeeded(3 * second) // sent earlier, answered later
	if o.Failed(4*second, 6*second, 0, false) {
		t.Error("an older success made the latest one forgotten")
	}
	if !o.Failed(5*second, 6*second, 0, false) || !o.Open() {
		t.Error("a request sent with one that succeeded did not open an outage")
	}
	if o.Failed(6*second, 7*second, 20*second, true) {
		t.Error("a suspect counts in an outage that is open")
	}
	if _, at := o.Probe(0); at > 8*second {
		t.Error("a suspect's Retry-After put off the probes of all")
	}
}

func TestOutageReopens(t *testing.T) {
	o := NewOutage(1)
	o.Failed(0, second, time.Minute, false)
	if !o.Succeeded(2 * second) {
		t.Fatal("not ended")
	}
	if !o.Failed(3*second, 4*second, 0, false) || !o.Open() {
		t.Fatal("not opened again")
	}
	if _, at := o.Probe(4 * second); at < 5*second || at >= 6*second {
		t.Errorf("probe at %v: the Retry-After of the last outage holds on", at)
	}
	if o.Succeeded(2*second + 1) {
		t.Error("ended by a success of the time before it")
	}
}

// TestBackoffLadder: doubling from 100 ms to 2 min, less up to a quarter, never
// shorter than the attempt before, for any seed.
func TestBackoffLadder(t *testing.T) {
	for i := range 2000 {
		s := NewSeed(fmt.Sprint(i))
		rung, before := 100*ms, time.Duration(0)
		for n := 1; n <= 14; n++ {
			got := Backoff(s, n, 0)
			if got > rung || got < rung*3/4 {
				t.Fatalf("seed %d: failure %d: %v, want [%v, %v]", i, n, got, rung*3/4, rung)
			}
			if rung < 2*time.Minute && got < before {
				t.Fatalf("seed %d: failure %d: %v after %v", i, n, got, before)
			}
			before, rung = got, min(2*rung, 2*time.Minute)
		}
		for _, n := range []int{-1, 0} {
			if got := Backoff(s, n, 0); got > 100*ms || got < 75*ms {
				t.Fatalf("%d failures: %v", n, got)
			}
		}
		for _, n := range []int{17, 64, 1000, 1 << 40} {
			if got := Backoff(s, n, -time.Hour); got > 2*time.Minute || got < 90*second {
				t.Fatalf("%d failures: %v", n, got)
			}
		}
	}
}

// TestBackoffShortensTowardsExpiry: within a quarter of what is left, but not
// within less than 75 ms.
func TestBackoffShortensTowardsExpiry(t *testing.T) {
	for i := range 500 {
		s := NewSeed(fmt.Sprint(i))
		for remaining, most := range map[time.Duration]time.Duration{
			1:               100 * ms,
			200 * ms:        100 * ms,
			2 * second:      500 * ms,
			4 * second:      second,
			time.Minute:     15 * second,
			8 * time.Minute: 2 * time.Minute,
			time.Hour:       2 * time.Minute,
		} {
			if got := Backoff(s, 50, remaining); got > most || got < most*3/4 {
				t.Fatalf("seed %d: with %v left: %v, want [%v, %v]", i, remaining, got, most*3/4, most)
			}
		}
	}
}

// TestBackoffSpreads: pods that fail together do not retry together.
func TestBackoffSpreads(t *testing.T) {
	const n, buckets, longest = 10_000, 50, firstRetry << 4
	var count [buckets]int
	for i := range n {
		got := Backoff(NewSeed("pod", fmt.Sprint(i)), 5, 0)
		count[min(int((longest-got)*buckets/(longest/4)), buckets-1)]++
	}
	even(t, count[:], n)
}
