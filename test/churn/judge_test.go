package churn

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// sample is what was counted at one moment, by what it is called.
type sample map[string]float64

// What is counted of the daemon.
const (
	inotify     = "inotify descriptors"
	sockets     = "sockets"
	files       = "other descriptors"
	watches     = "inotify watches"
	goroutines  = "goroutines beside those of connections"
	heapBytes   = "heap bytes"
	heapObjects = "heap objects"
	resident    = "resident bytes"
	series      = "series"
	surplus     = "surplus directories"
)

// margins are by how much the least of a tenth may exceed that of an earlier one, although nothing leaks. The pods alive
// at two moments differ by one or two, of four descriptors each. There may be an idle connection for each request that was
// in flight at once. The least heap of some thirty samples lies above what is live by a thirtieth of what a collection
// frees. Each is below what 8,000 lives leak at one descriptor per hundred, one goroutine per thousand or a KiB each.
var margins = sample{
	inotify: 0, sockets: 16, files: 8, watches: 8, goroutines: 5, series: 10, surplus: 3,
	heapBytes: 2 << 20, heapObjects: 20_000, resident: 8 << 20,
}

// enough is how many samples a tenth must have.
const enough = 5

// tenth is the i-th tenth of the samples.
func tenth(samples []sample, i int) []sample {
	return samples[i*len(samples)/10 : (i+1)*len(samples)/10]
}

// least is the smallest value of each kind: what was there when garbage, requests and jobs were not.
func least(samples []sample) sample {
	low := sample{}
	for _, s := range samples {
		for what, n := range s {
			if m, ok := low[what]; !ok || n < m {
				low[what] = n
			}
		}
	}
	return low
}

// growth says what has grown: its least value in the last tenth is above that of the second by more than its margin. In the
// first tenth, pools and caches fill.
func growth(samples []sample) []string {
	if len(samples) < 10*enough {
		return []string{fmt.Sprintf("%d samples are too few to judge", len(samples))}
	}
	var grown []string
	before, after := least(tenth(samples, 1)), least(tenth(samples, 9))
	for _, what := range slices.Sorted(maps.Keys(margins)) {
		b, ok := before[what]
		a, ok2 := after[what]
		if !ok || !ok2 || math.IsNaN(a-b) {
			grown = append(grown, what+" were not counted")
		} else if a-b > margins[what] {
			grown = append(grown, fmt.Sprintf("%s: %.0f in the second tenth, %.0f in the last", what, b, a))
		}
	}
	return grown
}

const (
	lives = 10_000
	taken = 360 // samples
)

// calm is what a daemon without leaks shows: a heap between two collections, and more or less of the rest.
func calm(seed uint64) []sample {
	random := rand.New(rand.NewPCG(seed, 0))
	samples := make([]sample, taken)
	for i := range samples {
		live := 6 << 20
		samples[i] = sample{
			inotify: 1, sockets: float64(6 + random.IntN(4)), files: 12, watches: float64(400 + random.IntN(12)),
			goroutines: float64(300 + random.IntN(12)), series: 150, surplus: float64(random.IntN(3) - 1),
			heapBytes: float64(live + random.IntN(live)), heapObjects: float64(60_000 + random.IntN(60_000)),
			resident: float64(40<<20 + random.IntN(4<<20)),
		}
	}
	return samples
}

// leak adds so much of something per life.
func leak(samples []sample, what string, perLife float64) []sample {
	for i := range samples {
		samples[i][what] += math.Floor(perLife * float64(i*lives/taken))
	}
	return samples
}

func TestGrowthIsSeen(t *testing.T) {
	for what, perLife := range map[string]float64{
		inotify: 1. / 100, sockets: 1. / 100, files: 1. / 100, watches: 1. / 400, goroutines: 1. / 1000, series: 1. / 100,
		heapBytes: 1 << 10, heapObjects: 10, resident: 2 << 10, surplus: 1. / 1000,
	} {
		for seed := range uint64(200) {
			if got := growth(leak(calm(seed), what, perLife)); len(got) != 1 || !strings.HasPrefix(got[0], what) {
				t.Errorf("%v more %s per life, seed %d: %q", perLife, what, seed, got)
			}
		}
	}
}

func TestNoiseIsNoGrowth(t *testing.T) {
	for seed := range uint64(1000) {
		samples := calm(seed)
		for i, s := range tenth(samples, 0) { // a daemon that warms up
			s[heapBytes] /= float64(40-i) / 4
			s[goroutines] = float64(20 + i)
		}
		for _, at := range []int{40, 350} { // one bad moment
			samples[at][goroutines], samples[at][sockets] = 2000, 200
		}
		if got := growth(samples); len(got) > 0 {
			t.Errorf("seed %d: %q", seed, got)
		}
	}
}

func TestUncountedIsNotFine(t *testing.T) {
	if got := growth(calm(0)[:10*enough-1]); len(got) != 1 {
		t.Errorf("too few samples: %q", got)
	}
	samples := calm(0)
	for _, s := range tenth(samples, 9) {
		delete(s, series)
	}
	if got := growth(samples); len(got) != 1 || !strings.HasPrefix(got[0], series) {
		t.Errorf("uncounted series: %q", got)
	}
}
