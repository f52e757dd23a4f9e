package rotation

import (
	"fmt"
	"testing"
	"time"
)

func lifetime(ttl time.Duration) Lifetime {
	return Lifetime{Issued: epoch, Expires: epoch.Add(ttl)}
}

func TestLimit(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{
		time.Second:                   800 * time.Millisecond,
		600 * time.Second:             480 * time.Second,
		3607 * time.Second:            2885600 * time.Millisecond, // the kubelet's 2886 s are past 80 %
		7200 * time.Second:            5760 * time.Second,
		86400 * time.Second:           69120 * time.Second,
		108000*time.Second - 5:        24*time.Hour - 4,
		108000 * time.Second:          24 * time.Hour,
		108001 * time.Second:          24 * time.Hour,
		365 * 24 * time.Hour:          24 * time.Hour,
		(1 << 32) * time.Second:       24 * time.Hour,
		(1<<33 - 1) * time.Second:     24 * time.Hour,
		7 * time.Nanosecond:           4, // rounds down
		600*time.Second - 1:           480*time.Second - 4,
		10 * 365 * 24 * time.Hour:     24 * time.Hour,
		29*time.Hour + 59*time.Minute: (29*time.Hour + 59*time.Minute) / 5 * 4,
	} {
		l := lifetime(ttl)
		if got := l.Limit().Sub(epoch); got != want {
			t.Errorf("%v: limit at %v, want %v", ttl, got, want)
		}
		if l.TTL() != ttl {
			t.Errorf("TTL %v, want %v", l.TTL(), ttl)
		}
	}
}

// TestExpired probes the edge: good up to, not at, the expiry.
func TestExpired(t *testing.T) {
	l := lifetime(time.Hour)
	if l.Expired(l.Expires.Add(-1)) || !l.Expired(l.Expires) {
		t.Error("expiry is not at T")
	}
	if !(Lifetime{}).Expired(epoch) {
		t.Error("no token is not expired")
	}
}

// TestPhase: seeds spread evenly over the whole period, and each keeps its place.
func TestPhase(t *testing.T) {
	const seeds = 10_000
	var tenths [10]int
	for n := range seeds {
		s := NewSeed("node", fmt.Sprint(n))
		phase := s.Phase(time.Minute)
		if phase < 0 || phase >= time.Minute || phase != s.Phase(time.Minute) {
			t.Fatalf("phase %v", phase)
		}
		tenths[phase*10/time.Minute]++
	}
	for i, got := range tenths {
		if got < seeds/10*9/10 || got > seeds/10*11/10 {
			t.Errorf("%d of %d in tenth %d", got, seeds, i)
		}
	}
}

// TestDueWindow: for any seed a first refresh lies in [1/32, 1) of the limit and a
// later one in [31/32, 1), spread evenly, and always at the same time.
func TestDueWindow(t *testing.T) {
	for _, ttl := range []time.Duration{10 * time.Second, 600 * time.Second, 3607 * time.Second, 86400 * time.Second, 90 * 24 * time.Hour} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprint(ttl, first), func(t *testing.T) { dueWindow(t, lifetime(ttl), first) })
		}
	}
}

func dueWindow(t *testing.T, l Lifetime, first bool) {
	const seeds, buckets = 100_000, 100
	from, to := 31.0/32, 1.0
	if first {
		from = 1.0 / 32
	}
	var count [buckets]int
	for i := range seeds {
		s := NewSeed("uid", fmt.Sprint(i), "token")
		due := l.Due(s, first)
		if !due.Equal(l.Due(s, first)) {
			t.Fatalf("seed %d: due was redrawn", i)
		}
		at := float64(due.Sub(l.Issued)) / float64(l.Limit().Sub(l.Issued))
		if at < from || !due.Before(l.Limit()) {
			t.Fatalf("seed %d: due at %v of the limit, want [%v, 1)", i, at, from)
		}
		count[int((at-from)/(to-from)*buckets)]++
	}
	even(t, count[:], seeds)
}

// even fails if the counts are not those of a uniform distribution. With 99
// degrees of freedom chi-square exceeds 200 once in 10^8.
func even(t *testing.T, count []int, of int) {
	t.Helper()
	if chi := chiSquare(count, of); chi > 200 {
		t.Errorf("not even: chi-square %.0f over %v", chi, count)
	}
}

func chiSquare(count []int, of int) float64 {
	want, chi := float64(of)/float64(len(count)), 0.0
	for _, c := range count {
		chi += (float64(c) - want) * (float64(c) - want) / want
	}
	return chi
}

// TestChiSquareCatchesLumps keeps the check above honest.
func TestChiSquareCatchesLumps(t *testing.T) {
	lumps := make([]int, 100)
	for i := range lumps {
		lumps[i] = 950 + 100*(i%2)
	}
	if chi := chiSquare(lumps, 100_000); chi < 200 {
		t.Errorf("chi-square %.0f", chi)
	}
}

// TestDueMovesWithIssue: one token's successive refreshes are spread too, and
// tokens of neighbouring seconds do not follow each other in step.
func TestDueMovesWithIssue(t *testing.T) {
	const n, buckets = 100_000, 100
	var count, steps [buckets]int
	seed, before := NewSeed("uid", "volume", "token"), 0
	for i := range n {
		l := Lifetime{Issued: time.Unix(1_700_000_000+int64(i), 0)}
		l.Expires = l.Issued.Add(time.Hour)
		at := float64(l.Due(seed, false).Sub(l.Issued)) / float64(48*time.Minute)
		bucket := int((at - 31.0/32) * 32 * buckets)
		count[bucket]++
		steps[(bucket-before+buckets)%buckets]++
		before = bucket
	}
	even(t, count[:], n)
	even(t, steps[:], n)
}

func TestNewSeedSeparatesParts(t *testing.T) {
	seen := map[Seed][]string{}
	for _, parts := range [][]string{{}, {""}, {"", ""}, {"ab"}, {"a", "b"}, {"b", "a"}, {"a", "b", ""}, {"", "ab"}} {
		s := NewSeed(parts...)
		if old, ok := seen[s]; ok {
			t.Errorf("%q and %q have one seed", old, parts)
		}
		seen[s] = parts
	}
}

// TestDueAdopted: a token found on disk is due when it was before; but later than now for as long as it
// is within its limit: in the wide window, then in the narrow one, then at the limit.
func TestDueAdopted(t *testing.T) {
	l := lifetime(time.Hour)
	for i := range 2000 {
		s := NewSeed(fmt.Sprint(i))
		wide, narrow := l.Due(s, true), l.Due(s, false)
		if !wide.Before(narrow) {
			t.Fatalf("seed %d: wide %v, narrow %v", i, wide, narrow)
		}
		for now, want := range map[time.Time]time.Time{
			l.Issued.Add(-time.Hour): wide,
			l.Issued:                 wide,
			wide.Add(-1):             wide,
			wide:                     narrow,
			narrow.Add(-1):           narrow,
			narrow:                   l.Limit(),
			l.Limit().Add(-1):        l.Limit(),
			l.Limit():                l.Limit(),
			l.Expires.Add(time.Hour): l.Limit(),
		} {
			for _, first := range []bool{true, false} {
				if want.Equal(wide) && !first {
					want = narrow
				}
				got := l.DueAdopted(s, first, now)
				if !got.Equal(want) {
					t.Fatalf("seed %d: first %v, at %v due at %v, want %v", i, first, now.Sub(epoch), got.Sub(epoch), want.Sub(epoch))
				}
				if now.Before(l.Limit()) && !got.After(now) {
					t.Fatalf("seed %d: at %v, within the limit, due at once", i, now.Sub(epoch))
				}
			}
		}
	}
}

// TestFirst: whatever was issued before the earliest refresh of one that was asked for at once.
func TestFirst(t *testing.T) {
	l := lifetime(time.Hour) // the first refresh comes after a thirty-second of 48 minutes
	for before, want := range map[time.Duration]bool{0: true, -time.Minute: true, 90*time.Second - 1: true, 90 * time.Second: false, time.Hour: false} {
		if got := l.First(epoch.Add(-before)); got != want {
			t.Errorf("issued %v after: %v", before, got)
		}
	}
	if l.First(time.Time{}) {
		t.Error("the first of nobody knows whom")
	}
}

func TestFloor(t *testing.T) {
	received := epoch.Add(30 * time.Second)
	for ttl, want := range map[time.Duration]time.Duration{
		10 * time.Second:     time.Second,
		600 * time.Second:    time.Minute,
		24 * time.Hour:       144 * time.Minute,
		24*time.Hour + 10:    144 * time.Minute,
		365 * 24 * time.Hour: 144 * time.Minute,
	} {
		if got := lifetime(ttl).Floor(received, false).Sub(received); got != want {
			t.Errorf("%v: floor %v after receipt, want %v", ttl, got, want)
		}
		if got := lifetime(ttl).Floor(received, true).Sub(received); got != want/4 {
			t.Errorf("%v, wide: floor %v after receipt, want %v", ttl, got, want/4)
		}
	}
}
