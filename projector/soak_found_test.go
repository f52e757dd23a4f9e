package projector

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestHistories plays histories that once failed, as TestSoak printed them.
func TestHistories(t *testing.T) {
	for name, h := range map[string]history{
		// Every probe of the outage asked for the token that failed, none for its neighbour.
		"one of two tokens fails for hours": {
			MaxInFlight: 11, Sweep: 1800 * time.Second, AwaitStopped: false, Skew: -31410 * time.Millisecond, Longest: 172800 * time.Second,
			Events: []happening{
				{417622419 * time.Millisecond, "pod", "two", 3, 0 * time.Second, 43200},              // 116h0m22.419s
				{600865765 * time.Millisecond, "audience", "500", 4, 13510290 * time.Millisecond, 0}, // 166h54m25.765s
			},
		},
		// Unread, it was tried two minutes apart.
		"the disk fails after a restart": {
			MaxInFlight: 14, Sweep: 21600 * time.Second, AwaitStopped: false, Skew: 15434136 * time.Millisecond, Longest: 3600 * time.Second,
			Events: []happening{
				{0 * time.Second, "pod", "lone", 2, 0 * time.Second, 43200},                                   // 0s
				{2023877043 * time.Millisecond, "pod", "two", 3, 0 * time.Second, 86400},                      // 562h11m17.043s
				{2301247581 * time.Millisecond, "tokens", "for another pod", 2, 229156 * time.Millisecond, 0}, // 639h14m7.581s
				{2301275121 * time.Millisecond, "restart", "answered", 0, 175 * time.Millisecond, 0},          // 639h14m35.121s
				{2301297045 * time.Millisecond, "tokens", "empty", 6, 233970 * time.Millisecond, 0},           // 639h14m57.045s
				{2301397833 * time.Millisecond, "disk", "fails", 3, 603018 * time.Millisecond, 0},             // 639h16m37.833s
			},
		},
		// The answer that came after the sleep was from before it, and was believed.
		"suspended while a request is under way": {
			MaxInFlight: 15, Sweep: 1800 * time.Second, AwaitStopped: false, Skew: 0 * time.Second, Longest: 172800 * time.Second,
			Events: []happening{
				{1088350998 * time.Millisecond, "pod", "elsewhere", 1, 0 * time.Second, 7200},               // 302h19m10.998s
				{1088351008 * time.Millisecond, "suspend", "mono stands", 0, 5442193 * time.Millisecond, 0}, // 302h19m11.008s
			},
		},
		// As a probe, the token that waits for the configMap was asked for again.
		"a token waits while another fails": {
			MaxInFlight: 6, Sweep: 1800 * time.Second, AwaitStopped: false, Skew: 0 * time.Second, Longest: 172800 * time.Second,
			Events: []happening{
				{1733446222 * time.Millisecond, "config", "absent", 0, 0 * time.Second, 0},            // 481h30m46.222s
				{1888415604 * time.Millisecond, "pod", "lone", 2, 0 * time.Second, 900},               // 524h33m35.604s
				{1888415933 * time.Millisecond, "audience", "500", 2, 16378736 * time.Millisecond, 0}, // 524h33m35.933s
				{1888439406 * time.Millisecond, "pod", "access", 4, 0 * time.Second, 172800},          // 524h33m59.406s
			},
		},
		// Its tokens were believed to be dead, so that nothing was asked for that could have told the time.
		"the only pod terminates, and the clock steps past its end": {
			MaxInFlight: 9, Sweep: 21600 * time.Second, AwaitStopped: false, Skew: 0 * time.Second, Longest: 172800 * time.Second,
			Events: []happening{
				{106084782 * time.Millisecond, "pod", "two", 1, 0 * time.Second, 86400},        // 29h28m4.782s
				{248127197 * time.Millisecond, "step", "", 0, 6049443 * time.Millisecond, 0},   // 68h55m27.197s
				{248142937 * time.Millisecond, "end", "terminating", 1, 3600 * time.Second, 0}, // 68h55m42.937s
			},
		},
		// It was under way as a probe when the outage that it had opened ended, and was given up without becoming suspect.
		"the probe that is given up": {
			MaxInFlight: 9, Sweep: 21600 * time.Second, AwaitStopped: false, Skew: -9435679 * time.Millisecond, Longest: 86400 * time.Second,
			Events: []happening{
				{0 * time.Second, "pod", "lone", 2, 0 * time.Second, 86400},                           // 0s
				{820106393 * time.Millisecond, "pod", "two", 0, 0 * time.Second, 3600},                // 227h48m26.393s
				{930278419 * time.Millisecond, "audience", "hang", 0, 34257364 * time.Millisecond, 0}, // 258h24m38.419s
			},
		},
		// The hint came while a probe hung and was forgotten with it, and each probe followed the last without a pause.
		"altered while it is probed for": {
			MaxInFlight: 14, Sweep: 21600 * time.Second, AwaitStopped: true, Skew: 0 * time.Second, Longest: 172800 * time.Second,
			Events: []happening{
				{2304541537 * time.Millisecond, "pod", "elsewhere", 0, 0 * time.Second, 7200},        // 640h9m1.537s
				{2308150970 * time.Millisecond, "pod", "two", 1, 0 * time.Second, 600},               // 641h9m10.97s
				{2308162678 * time.Millisecond, "audience", "hang", 3, 878873 * time.Millisecond, 0}, // 641h9m22.678s
				{2308784125 * time.Millisecond, "alter", "token changed", 0, 0 * time.Second, 1},     // 641h19m44.125s
			},
		},
	} {
		if w := play(t, h, nil); w.wrong != "" {
			t.Errorf("%s: after %v: %s", name, w.at, w.wrong)
		}
	}
}

// TestHistoriesRepeat: the same history always plays the same.
func TestHistoriesRepeat(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		h := tell(seed)
		if again := tell(seed); fmt.Sprintf("%#v", h) != fmt.Sprintf("%#v", again) {
			t.Fatalf("seed %d tells two histories", seed)
		}
		a, b := play(t, h, nil), play(t, h, nil)
		if !slices.Equal(a.requests, b.requests) || !slices.Equal(a.published, b.published) || a.turns != b.turns {
			t.Errorf("seed %d: %d and %d requests, %d and %d versions, %d and %d turns", seed,
				len(a.requests), len(b.requests), a.made, b.made, a.turns, b.turns)
		}
		if c := play(t, tell(seed+1), nil); slices.Equal(a.requests, c.requests) {
			t.Errorf("seeds %d and %d play alike", seed, seed+1)
		}
	}
}

// TestMinimise: of a hundred events the three that matter are left, in their order.
func TestMinimise(t *testing.T) {
	var h history
	for n := range 100 {
		h.Events = append(h.Events, happening{N: int64(n)})
	}
	plays := 0
	least := minimise(h, func(h history) bool {
		plays++
		has := func(n int64) bool {
			return slices.ContainsFunc(h.Events, func(e happening) bool { return e.N == n })
		}
		return has(3) && has(50) && has(97)
	}, time.Now().Add(time.Minute))
	if len(least.Events) != 3 || least.Events[1].N != 50 || len(h.Events) != 100 || plays > 200 {
		t.Errorf("%v are left after %d plays", least.Events, plays)
	}
	if at := time.Now(); len(minimise(h, func(history) bool { return true }, at).Events) != 100 {
		t.Error("it goes on after its deadline")
	}
}
