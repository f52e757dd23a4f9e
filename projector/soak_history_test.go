package projector

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// history is all that befalls one node in thirty days, as plain data: the same
// history always plays the same, and one that fails is printed to become a test.
type history struct {
	MaxInFlight  int
	Sweep        time.Duration
	AwaitStopped bool
	Skew         time.Duration // of the server's clock against the machine's
	Longest      time.Duration // life that the server grants
	Events       []happening
}

// happening is one event of a history.
type happening struct {
	At   time.Duration // since the history began, in true time
	What string
	Kind string        // see the tables in soak_test.go
	Pod  int           // whom; of faults: -1 is everybody
	For  time.Duration // how long it lasts, or by how much a clock is moved
	N    int64         // of a pod: seconds its token is to live; of a fault: seconds of Retry-After; of a suspend, 1: with the next request; of an alteration, 1: the watches tell
}

const historyLength = 30 * 24 * time.Hour

// GoString is the history as an expression to be pasted into a test.
func (h history) GoString() string {
	var b strings.Builder
	fmt.Fprintf(&b, "history{\n\tMaxInFlight: %d, Sweep: %s, AwaitStopped: %v, Skew: %s, Longest: %s,\n\tEvents: []happening{\n",
		h.MaxInFlight, goDuration(h.Sweep), h.AwaitStopped, goDuration(h.Skew), goDuration(h.Longest))
	for _, e := range h.Events {
		fmt.Fprintf(&b, "\t\t{%s, %q, %q, %d, %s, %d}, // %v\n", goDuration(e.At), e.What, e.Kind, e.Pod, goDuration(e.For), e.N, e.At)
	}
	return b.String() + "\t},\n}"
}

// goDuration keeps the milliseconds: histories have nothing finer.
func goDuration(d time.Duration) string {
	if d%time.Second == 0 {
		return fmt.Sprintf("%d * time.Second", d/time.Second)
	}
	return fmt.Sprintf("%d * time.Millisecond", d/time.Millisecond)
}

// teller makes histories up.
type teller struct {
	*rand.Rand
	events []happening
	crises []time.Duration // around which much happens at once
}

// tell makes up the history of a seed.
func tell(seed uint64) history {
	t := &teller{Rand: rand.New(rand.NewPCG(seed, 1))}
	h := history{
		MaxInFlight:  4 + t.IntN(13),
		Sweep:        pick(t, 30*time.Minute, 6*time.Hour, 6*time.Hour),
		AwaitStopped: t.IntN(3) == 0,
		Skew:         pick(t, 0, t.either(5*time.Hour), t.either(time.Minute)),
		Longest:      pick(t, 48*time.Hour, 48*time.Hour, time.Hour, 24*time.Hour),
	}
	for range 1 + t.IntN(4) {
		t.crises = append(t.crises, t.below(historyLength))
	}
	pods := 3 + t.IntN(6)
	for n := range pods {
		t.pod(n, h.AwaitStopped)
	}
	t.faults(pods)
	t.machine(pods)
	slices.SortStableFunc(t.events, func(a, b happening) int { return int((a.At - b.At) / time.Millisecond) })
	h.Events = t.events
	return h
}

func pick[T any](t *teller, of ...T) T { return of[t.IntN(len(of))] }

// below is a duration in [0, d), of whole milliseconds like all others.
func (t *teller) below(d time.Duration) time.Duration {
	return time.Duration(t.Int64N(int64(d/time.Millisecond))) * time.Millisecond
}

// either is a duration in (-d, d).
func (t *teller) either(d time.Duration) time.Duration { return t.below(2*d) - d }

// about is a duration between least and most; each order of magnitude is as likely.
func (t *teller) about(least, most time.Duration) time.Duration {
	d := float64(least) * math.Pow(float64(most)/float64(least), t.Float64())
	return time.Duration(d).Truncate(time.Millisecond)
}

// moment is a time near a crisis, or any.
func (t *teller) moment() time.Duration {
	if t.IntN(4) == 0 {
		return t.below(historyLength)
	}
	return pick(t, t.crises...) + t.about(100*time.Millisecond, 2*time.Hour)
}

func (t *teller) add(e happening) { t.events = append(t.events, e) }

// pod comes, changes, and goes or stays. The shorter its tokens live the sooner
// it goes, for a history is to be short to play.
func (t *teller) pod(n int, awaitStopped bool) {
	kind := pick(t, "access", "lone", "lone", "two", "elsewhere")
	ttl := pick[int64](t, 600, 900, 3600, 3607, 7200, 43_200, 86_400, 172_800)
	stays := time.Duration(ttl) * time.Second * time.Duration(5+t.IntN(60))
	if kind == "access" || kind == "two" {
		stays = min(stays, time.Duration(1+t.IntN(100))*time.Hour)
	}
	comes := min(t.moment(), historyLength-time.Hour)
	if t.IntN(2) == 0 {
		comes = max(0, comes-t.below(stays)) // there when the crisis comes
	}
	t.add(happening{At: comes, What: "pod", Kind: kind, Pod: n, N: ttl})
	for range t.IntN(3) {
		t.add(happening{At: comes + t.below(stays), What: "change", Pod: n})
	}
	goes := comes + stays
	if at := t.moment(); at > comes && at < goes {
		goes = at
	}
	if goes > historyLength {
		return
	}
	switch t.IntN(3) {
	case 0:
		grace := pick(t, 0, 30*time.Second, time.Hour)
		t.add(happening{At: goes, What: "end", Kind: "terminating", Pod: n, For: grace})
		goes += t.about(time.Second, 2*time.Hour)
	case 1:
		t.add(happening{At: goes, What: "end", Kind: "succeeded", Pod: n})
		goes += t.about(time.Second, 2*time.Hour)
	}
	t.add(happening{At: goes, What: "end", Kind: "gone", Pod: n})
	if awaitStopped {
		t.add(happening{At: max(0, goes+t.either(time.Hour)), What: "stopped", Pod: n})
	}
}

// faults are of the API server and of the disk.
func (t *teller) faults(pods int) {
	for range 2 + t.IntN(10) {
		what := pick(t, "server", "tokens", "tokens", "audience", "account", "pod fails", "pod fails")
		kind := pick(t, "refused", "hang", "401", "403", "404", "429", "500", "503")
		if what != "server" && t.IntN(3) == 0 {
			kind = pick(t, "empty", "for another pod", "for another audience", "expired", "not yet valid")
		}
		e := happening{At: t.moment(), What: what, Kind: kind, Pod: t.IntN(pods), For: t.about(100*time.Millisecond, time.Hour)}
		if t.IntN(20) == 0 {
			e.For = t.about(time.Hour, 12*time.Hour)
		}
		if kind == "429" || kind == "503" {
			e.N = pick[int64](t, 0, 1, 10, 3600)
		}
		t.add(e)
	}
	for range t.IntN(5) {
		t.add(happening{At: t.moment(), What: "disk", Kind: pick(t, "fails", "lies", "slow"),
			Pod: t.IntN(pods+1) - 1, For: t.about(100*time.Millisecond, time.Hour)})
	}
	for range t.IntN(6) {
		t.add(happening{At: t.moment(), What: "alter", Kind: pick(t, "token removed", "token changed", "all removed", "more"),
			Pod: t.IntN(pods), N: int64(t.IntN(2))})
	}
}

// machine are the events of the node itself, and the news that reach it.
func (t *teller) machine(pods int) {
	for range t.IntN(6) {
		t.add(happening{At: t.moment(), What: "restart",
			Kind: pick(t, "now", "now", "answered", "unpublished", "published"), For: t.about(100*time.Millisecond, 3*time.Hour)})
	}
	for range t.IntN(4) {
		t.add(happening{At: t.moment(), What: "step", For: pick(t, t.either(6*time.Hour), t.either(10*time.Minute), t.either(5*time.Second))})
	}
	for range t.IntN(3) {
		t.add(happening{At: t.moment(), What: "suspend", Kind: pick(t, "mono stands", "mono stands", "mono runs", "both stand"),
			For: t.about(time.Second, 8*time.Hour), N: int64(t.IntN(2))})
	}
	if t.IntN(4) == 0 {
		t.add(happening{At: t.moment(), What: "server steps", For: t.either(3 * time.Hour)})
	}
	for range t.IntN(8) {
		t.add(happening{At: t.moment(), What: "hear"})
	}
	for range t.IntN(6) {
		t.add(happening{At: t.moment(), What: "config", Kind: pick(t, "a", "b", "b", "absent")})
	}
	for range t.IntN(3) {
		t.add(happening{At: t.moment(), What: "list"})
	}
	for range t.IntN(3) {
		t.add(happening{At: t.moment(), What: "hints lost"})
	}
}
