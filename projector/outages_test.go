package projector

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/token-projector/token-projector/metrics"
)

// TestOutage: while the server fails all of it, the node asks once per 1 to 2 s,
// each time for another token; the first success releases all.
func TestOutage(t *testing.T) {
	for name, code := range map[string]int{"no answer": 0, "401": 401, "429": 429, "500": 500, "503": 503} {
		r := settled(t, 20, 3600)
		r.s.sweep = 24 * time.Hour
		r.run(90 * time.Second) // 1/32 of the limit: nothing is due yet
		r.answer = refusing(code, 0)
		asked := len(r.requests)
		r.run(2 * time.Hour)
		probes := r.requests[asked:]
		if got := len(probes); got < 3000 || got > 7200 {
			t.Errorf("%s: %d probes in two hours", name, got)
		}
		first := firstProbe(probes)
		for i := first + 1; i < len(probes); i++ {
			gap := probes[i].at.Sub(probes[i-1].at)
			if gap < time.Second || gap >= 2*time.Second {
				t.Fatalf("%s: probe %d after %v", name, i, gap)
			}
			if probes[i].PodName == probes[i-1].PodName {
				t.Fatalf("%s: probes %d and %d ask for the same token", name, i-1, i)
			}
		}
		if !r.s.outage.Open() || r.made != 20 {
			t.Errorf("%s: open %v, %d versions", name, r.s.outage.Open(), r.made)
		}
		r.answer = r.good
		r.run(2 * time.Second)
		for i := range 20 {
			if r.onDisk(extra(i), "extra-token").Lifetime.Expired(r.server()) {
				t.Errorf("%s: pod %d still has an expired token 2 s after the outage", name, i)
			}
		}
		if r.s.outage.Open() || len(r.s.held) != 0 {
			t.Errorf("%s: open %v, %d held", name, r.s.outage.Open(), len(r.s.held))
		}
	}
}

// firstProbe is the first of the requests that are spaced as probes: those that
// were in flight when it began are not.
func firstProbe(probes []sentRequest) int {
	for i := 1; i < len(probes); i++ {
		if probes[i].at.Sub(probes[i-1].at) < 2*time.Second {
			return i
		}
	}
	return 0
}

// TestOutageProbesSoonestExpiryFirst.
func TestOutageProbesSoonestExpiryFirst(t *testing.T) {
	r := newRig(t)
	r.s.sweep = 24 * time.Hour
	for i := range 5 {
		r.apply(lonePod(i, int64(7200-600*i)))
	}
	r.drain()
	r.pass(90 * time.Minute) // all are due
	r.s.maxInFlight = 1
	r.answer = refusing(503, 0)
	asked := len(r.requests)
	r.run(8 * time.Second)
	for i, q := range r.requests[asked:] {
		if i < 5 && q.PodUID != uid(4-i) {
			t.Errorf("probe %d is for %s", i, q.PodName)
		}
	}
}

// TestOutageHonoursRetryAfter, of a 429 as of a 503, up to a minute.
func TestOutageHonoursRetryAfter(t *testing.T) {
	for _, code := range []int{429, 503} {
		for asked, least := range map[time.Duration]time.Duration{10 * time.Second: 10 * time.Second, time.Hour: time.Minute} {
			r := settled(t, 3, 600)
			r.pass(480 * time.Second)
			r.answer = refusing(code, asked)
			before := len(r.requests)
			r.run(3*least + 10*time.Second)
			probes := r.requests[before:]
			for i := 4; i < len(probes); i++ {
				if gap := probes[i].at.Sub(probes[i-1].at); gap < least || gap >= least+time.Second {
					t.Errorf("%d, Retry-After %v: probe %d after %v", code, asked, i, gap)
				}
			}
			if len(probes) < 5 {
				t.Errorf("%d, Retry-After %v: %d requests", code, asked, len(probes))
			}
		}
	}
}

// TestLateRefreshesAreSpread: tokens that an outage has delayed are renewed together when it ends, and do not come back
// together; those that were in time do not lose more than a thirty-second of their time.
func TestLateRefreshesAreSpread(t *testing.T) {
	r := settled(t, 100, 600)
	early := func() (n int) { // those that will be due long before their limit
		for i := range 100 {
			if life := r.volume(extra(i)).tokens[0].life; r.volume(extra(i)).tokens[0].due.Before(life.Limit().Add(-time.Minute)) {
				n++
			}
		}
		return n
	}
	r.run(16 * time.Minute) // each was renewed twice, in time
	if n := early(); n > 0 {
		t.Errorf("%d of 100 tokens have a wide window although they came in time", n)
	}
	r.answer = refusing(503, 0)
	r.run(10 * time.Minute)
	r.answer = r.good
	r.run(3 * time.Second)
	if n := early(); n < 75 { // seven eighths, if all are late
		t.Errorf("%d of 100 tokens that came late have a wide window", n)
	}
}

// TestOutageEndedByARefusal: an answer that is not of an outage ends it too.
func TestOutageEndedByARefusal(t *testing.T) {
	r := settled(t, 2, 600)
	r.pass(480 * time.Second)
	r.answer = refusing(503, 0)
	r.drain()
	if !r.s.outage.Open() {
		t.Fatal("not open")
	}
	r.answer = refusing(403, 0)
	r.run(5 * time.Second)
	if r.s.outage.Open() {
		t.Error("a server that refuses is out")
	}
}

// TestLoneFailure: a token that alone fails with a server's error, or times out,
// opens the outage once at most, then backs off alone; nobody else is late.
func TestLoneFailure(t *testing.T) {
	for _, code := range []int{0, 429, 500} {
		r := settled(t, 6, 600)
		r.s.sweep = 24 * time.Hour
		r.answer = func(q Request) (Minted, error) {
			if q.PodName == "pod-3" {
				return refusing(code, 0)(q)
			}
			return r.good(q)
		}
		r.run(20 * time.Minute) // the first failure, and the end of what it opened
		if !r.volume(extra(3)).tokens[0].suspect {
			t.Errorf("%d: not suspected", code)
		}
		asked := len(r.requests)
		for range 4 * 60 {
			r.run(30 * time.Second)
			if r.s.outage.Open() {
				t.Fatalf("%d: the outage is open again", code)
			}
			for i := range 6 {
				life := r.onDisk(extra(i), "extra-token").Lifetime
				if i != 3 && !r.server().Before(life.Limit().Add(time.Second)) {
					t.Fatalf("%d: pod %d is late", code, i)
				}
			}
		}
		alone := 0
		for _, q := range r.requests[asked:] {
			if q.PodName == "pod-3" {
				alone++
			}
		}
		if alone < 60 || alone > 90 { // of a pause of 90 s to 2 min
			t.Errorf("%d: %d attempts in two hours", code, alone)
		}
		r.answer = r.good
		r.run(2 * time.Minute)
		if v := r.volume(extra(3)); v.err != nil || v.tokens[0].suspect {
			t.Errorf("%d: %v, suspect %v", code, v.err, v.tokens[0].suspect)
		}
	}
}

// TestStaleFailureOpensNothing: a request that was sent before one that succeeded.
func TestStaleFailureOpensNothing(t *testing.T) {
	r := settled(t, 2, 600)
	r.unswept()
	r.pass(480 * time.Second)
	r.s.maxInFlight = 1
	r.turn()
	slow := r.flight(isMint)
	r.s.maxInFlight = 2
	r.pass(time.Second)
	r.turn()
	for _, j := range r.flying {
		if j.mint != nil && j != slow {
			r.finish(j)
		}
	}
	r.answer = refusing(500, 0)
	r.finish(slow)
	if r.s.outage.Open() {
		t.Error("the server answers, and yet is said to be out")
	}
	if token := slow.mint.v.tokens[0]; !token.suspect || !token.retryAt.After(r.server()) || token.held {
		t.Errorf("suspect %v, tried again in %v, held %v", token.suspect, token.retryAt.Sub(r.server()), token.held)
	}
}

// TestDoubtfulClockAsksOnce: after the wall clock leapt, or the machine slept,
// one request goes out; its answer tells the time, and then the rest is judged.
func TestDoubtfulClockAsksOnce(t *testing.T) {
	leaps := map[string]func(*rig){
		"wall clock stepped ahead": func(r *rig) { r.step(2 * time.Hour) },
		"machine suspended": func(r *rig) {
			r.now.Wall = r.now.Wall.Add(2 * time.Hour)
		},
	}
	for name, leap := range leaps {
		leapAfter(t, name, leap, time.Minute) // within a tenth of the lifetime
		leapAfter(t, name, leap, 6*time.Minute)
	}
}

func leapAfter(t *testing.T, name string, leap func(*rig), age time.Duration) {
	t.Helper()
	r := settled(t, 10, 3600)
	r.s.sweep = 240 * time.Hour
	r.run(age)
	asked := len(r.requests)
	leap(r)
	r.turn()
	if got := len(r.requests) - asked; got != 1 {
		t.Errorf("%s: %d requests at once", name, got)
	}
	r.turn()
	if got := len(r.requests) - asked; got != 1 {
		t.Errorf("%s: %d requests before the answer", name, got)
	}
	r.drain()
	want := 1 // the clock was wrong, nothing is due
	if name == "machine suspended" {
		want = 10 // all have expired meanwhile
	}
	if got := len(r.requests) - asked; got != want {
		t.Errorf("%s: %d requests after the answer, want %d", name, got, want)
	}
	if r.s.clock.Doubtful(r.now) {
		t.Errorf("%s: still in doubt", name)
	}
}

// TestDoubtfulWhileRefusing: also of a server that refuses everything, of which what was not refused yet is asked for
// beside the probes.
func TestDoubtfulWhileRefusing(t *testing.T) {
	r := settled(t, 4, 3600)
	r.s.sweep, r.answer = 24*time.Hour, refusing(403, 0)
	for i := range 5 {
		r.apply(lonePod(10+i, 600))
	}
	r.run(time.Minute)
	if !r.s.refusing || len(r.s.held) != 5 {
		t.Fatalf("refusing %v, %d held", r.s.refusing, len(r.s.held))
	}
	r.s.outage.Probing(r.now.Mono) // none is due now
	r.step(2 * time.Hour)
	asked := len(r.requests)
	r.turn()
	pause := r.s.wake(r.now)
	if got := len(r.requests) - asked; got != 1 || pause < time.Second {
		t.Errorf("%d requests at once, and the owner sleeps for %v", got, pause)
	}
	r.drain()
	if got := len(r.requests) - asked; got != 1 {
		t.Errorf("%d requests after the answer, and nothing is due", got)
	}
}

// TestWallClockSetBack: no token is refreshed late, whatever the wall clock says.
func TestWallClockSetBack(t *testing.T) {
	r := settled(t, 5, 600)
	for range 20 {
		r.step(-7 * time.Hour)
		r.run(5 * time.Minute)
		for i := range 5 {
			if life := r.onDisk(extra(i), "extra-token").Lifetime; !r.server().Before(life.Limit().Add(2 * time.Second)) {
				t.Fatalf("pod %d is late", i)
			}
		}
	}
}

// TestClockCorrectionShiftsRetries: what was put off by a wrong clock is not put
// off by the size of the error.
func TestClockCorrectionShiftsRetries(t *testing.T) {
	r := settled(t, 2, 3600)
	r.apply(lonePod(8, 3600))
	r.answer = refusing(403, 0)
	r.heard = false
	r.step(5 * time.Hour) // until the server speaks, its time seems five hours later
	r.drain()
	v := r.volume(extra(8))
	retry, verify := v.tokens[0].retryAt, v.verifyAt
	if retry.Before(r.server().Add(4 * time.Hour)) {
		t.Fatalf("retry at %v: the clock was not wrong", retry)
	}
	r.s.hear(r.server(), r.now, r.now)
	if got := v.tokens[0].retryAt.Sub(retry); got > -5*time.Hour+2*time.Second || got < -5*time.Hour-2*time.Second {
		t.Errorf("the retry moved by %v", got)
	}
	if got := v.verifyAt.Sub(verify); got > -5*time.Hour+2*time.Second {
		t.Errorf("the sweep moved by %v", got)
	}
	r.answer, r.heard = r.good, true
	r.run(2 * time.Minute)
	if v.condition() != "ready" {
		t.Errorf("%s two minutes after the clock was put right", v.condition())
	}
}

// TestSmallCorrectionsShiftNothing: an answer's whole seconds are noise.
func TestSmallCorrectionsShiftNothing(t *testing.T) {
	r := settled(t, 1, 3600)
	before := r.volume(extra(0)).verifyAt
	r.s.hear(r.server().Add(1500*time.Millisecond), r.now, r.now)
	if got := r.volume(extra(0)).verifyAt; !got.Equal(before) {
		t.Errorf("moved by %v", got.Sub(before))
	}
}

// refusals are of the token itself: the server answers, and does not grant it.
var refusals = map[string]func(Request) (Minted, error){
	"403": refusing(403, 0), "404": refusing(404, 0), "422": refusing(422, 0), "an unusable token": refusing(unusable, 0),
}

// TestAllRefused: a server that refuses everything for minutes is probed like one that is out, at first about once in
// 1 to 2 s, and all tokens are fresh soon after it grants again. A pod that comes meanwhile is asked for at once.
func TestAllRefused(t *testing.T) {
	for name, refuse := range refusals {
		r := settled(t, 110, 600)
		r.run(14 * time.Second) // 1/32 of the limit: nothing is due yet
		r.answer = refuse
		asked, began := len(r.requests), r.now.Mono
		r.run(10 * time.Minute)
		if sent, seconds := len(r.requests)-asked, int((r.now.Mono - began).Seconds()); sent > seconds || sent < seconds/10 {
			t.Errorf("%s: %d requests in %d s", name, sent, seconds)
		}
		asked = len(r.requests)
		r.apply(lonePod(200, 600))
		r.drain()
		if len(r.requests) != asked+1 {
			t.Errorf("%s: %d requests for a pod that has just come", name, len(r.requests)-asked)
		}
		r.answer = r.good
		r.run(8 * time.Second) // a hundredth of ten minutes, and the spread
		for i := range 110 {
			if r.onDisk(extra(i), "extra-token").Lifetime.Expired(r.server()) {
				t.Fatalf("%s: pod %d still has an expired token", name, i)
			}
		}
		if r.s.outage.Open() || r.s.refusing || len(r.s.held) != 0 {
			t.Errorf("%s: open %v, refusing %v, %d held", name, r.s.outage.Open(), r.s.refusing, len(r.s.held))
		}
	}
}

// TestOutageTurnsIntoRefusals: a server that is out, and then refuses everything, as one does whose own caches are still
// empty, is probed all the same; and so it is when it is out again. Soon after it grants again all tokens are fresh.
func TestOutageTurnsIntoRefusals(t *testing.T) {
	type phase struct {
		code  int
		lasts time.Duration
	}
	for name, then := range map[string][]phase{
		"refuses":                        {{403, 3 * time.Minute}},
		"refuses, is out":                {{403, 3 * time.Minute}, {503, 3 * time.Minute}},
		"refuses for a moment, is out":   {{403, 5 * time.Second}, {503, 3 * time.Minute}},
		"refuses, is out, refuses":       {{403, 3 * time.Minute}, {503, 3 * time.Minute}, {403, 3 * time.Minute}},
		"is out in another way, refuses": {{0, 3 * time.Minute}, {404, 3 * time.Minute}},
		"gives what is unusable":         {{unusable, 3 * time.Minute}},
	} {
		r := settled(t, 50, 600)
		r.s.sweep = 24 * time.Hour
		r.run(14 * time.Second)
		r.answer = refusing(503, 0)
		r.run(10 * time.Minute) // all have failed
		for _, p := range then {
			r.answer = refusing(p.code, 0)
			r.run(p.lasts)
		}
		asked := len(r.requests)
		r.run(time.Minute)
		if sent := len(r.requests) - asked; !r.s.outage.Open() || sent > 60 {
			t.Errorf("%s: open %v, %d requests in a minute", name, r.s.outage.Open(), sent)
		}
		r.answer = r.good
		r.run(8 * time.Second)
		late := 0
		for i := range 50 {
			if r.onDisk(extra(i), "extra-token").Lifetime.Expired(r.server()) {
				late++
			}
		}
		if late > 0 {
			t.Errorf("%s: %d tokens are still expired", name, late)
		}
	}
}

// TestFailingBesideRefused: of the only two tokens of a node one fails and the other is refused, for hours. That is one
// outage, which is not opened at every attempt again.
func TestFailingBesideRefused(t *testing.T) {
	r := settled(t, 2, 600)
	r.s.sweep = 24 * time.Hour
	r.answer = func(q Request) (Minted, error) {
		if q.PodName == "pod-0" {
			return refusing(500, 0)(q)
		}
		return refusing(403, 0)(q)
	}
	r.run(20 * time.Minute)
	opened := r.count("does not grant token requests")
	if opened == 0 {
		t.Fatal("there was no outage")
	}
	r.run(2 * time.Hour)
	if got := r.count("does not grant token requests"); got != opened || r.s.outage.Open() {
		t.Errorf("%d outages more, open %v", got-opened, r.s.outage.Open())
	}
}

// TestSomeRefused: tokens that are refused while others are granted are on their own, however many they are.
func TestSomeRefused(t *testing.T) {
	for name, refuse := range refusals {
		r := settled(t, 20, 600)
		r.answer = func(q Request) (Minted, error) {
			if q.PodName < "pod-5" { // pod-0 to pod-4, and pod-10 to pod-19
				return refuse(q)
			}
			return r.good(q)
		}
		r.run(20 * time.Minute) // all have failed, and others have succeeded
		asked := len(r.requests)
		for range 60 {
			r.run(time.Minute)
			if r.s.outage.Open() {
				t.Fatalf("%s: an outage of those that are refused alone", name)
			}
		}
		if sent := len(r.requests) - asked; sent > 15*60*60/90+5*60/7+5 { // each in 90 s to 2 min; five rotate
			t.Errorf("%s: %d requests in an hour", name, sent)
		}
	}
}

// TestRefusedAtStart: refusals of the first seconds, of a cache that lags, are retried fast, by each pod.
func TestRefusedAtStart(t *testing.T) {
	r := newRig(t)
	r.answer = refusing(403, 0)
	for i := range 30 {
		r.apply(lonePod(i, 600))
	}
	r.s.replace(r.wishes(), r.now)
	r.run(3 * time.Second)
	if r.s.refusing {
		t.Error("an outage after three seconds")
	}
	r.answer = r.good
	r.run(4 * time.Second)
	if r.made != 30 {
		t.Errorf("%d of 30 volumes four seconds after the refusals", r.made)
	}
}

// TestNewcomerBesideRefused: pods that have been refused for an hour do not slow the retries of one that has just come.
func TestNewcomerBesideRefused(t *testing.T) {
	r := newRig(t)
	lag := 2
	r.answer = func(q Request) (Minted, error) {
		switch {
		case q.PodName == "pod-8" && lag > 0:
			lag--
			return refusing(403, 0)(q)
		case q.PodName < "pod-8":
			return refusing(403, 0)(q)
		}
		return r.good(q)
	}
	for i := range 5 {
		r.apply(lonePod(i, 600))
	}
	r.s.replace(r.wishes(), r.now)
	r.run(time.Minute)
	if !r.s.refusing {
		t.Fatal("no outage although all are refused")
	}
	r.apply(lonePod(9, 24*3600))
	r.run(time.Hour)
	r.apply(lonePod(8, 600))
	r.run(3 * time.Second)
	if r.files[extra(8)] == nil {
		t.Errorf("no token after 3 s; refusing %v", r.s.refusing)
	}
}

// TestHungRequestIsGivenUp: a request that the server has not answered when an outage ends is not waited for.
func TestHungRequestIsGivenUp(t *testing.T) {
	r := settled(t, 3, 600)
	another := func(than ...job) job {
		for {
			for _, j := range r.flying {
				if !slices.Contains(than, j) {
					return j
				}
			}
			r.pass(r.s.wake(r.now))
			r.turn()
		}
	}
	r.unswept()
	r.s.metrics = metrics.New("", "")
	hung := another()
	r.answer = refusing(503, 0)
	r.finish(another(hung))
	if !r.s.outage.Open() || len(r.s.overtaken) != 0 {
		t.Fatalf("open %v, %d given up", r.s.outage.Open(), len(r.s.overtaken))
	}
	r.answer = r.good
	r.finish(another(hung))
	if len(r.s.overtaken) != 1 || r.s.overtaken[0] != hung.mint {
		t.Fatalf("%d given up, want the one that hangs", len(r.s.overtaken))
	}
	r.answer = refusing(0, 0) // as of one that was cancelled
	counted := r.count("volume is not as wanted")
	r.finish(hung)
	if token := hung.mint.v.tokens[0]; token.suspect || token.failures != 0 || token.err != nil || !token.retryAt.IsZero() || r.s.outage.Open() {
		t.Errorf("what was given up counts as a failure: outage %v, suspect %v, %d failures, %v", r.s.outage.Open(), token.suspect, token.failures, token.err)
	}
	if got := r.count("volume is not as wanted"); got != counted || counted != 1 {
		t.Errorf("said %d times before, %d times after", counted, got)
	}
	scraped := httptest.NewRecorder()
	r.s.metrics.Handler().ServeHTTP(scraped, httptest.NewRequest(http.MethodGet, "/", nil))
	if got := scraped.Body.String(); !strings.Contains(got, `requests_total{code="503"} 1`) || !strings.Contains(got, `requests_total{code="none"} 0`) {
		t.Error("what was given up is counted as unanswered")
	}
	r.answer = r.good
	asked := len(r.requests)
	r.run(200 * time.Millisecond) // after an outage a node begins slowly
	if !slices.ContainsFunc(r.requests[asked:], func(q sentRequest) bool { return q.Request == hung.mint.request }) {
		t.Error("what was given up is not asked for again at once")
	}
}

// TestAnswerOfTheGivenUp: an answer that was quicker than its cancellation is one.
func TestAnswerOfTheGivenUp(t *testing.T) {
	for name, answer := range map[string]func(*rig) func(Request) (Minted, error){
		"a token": func(r *rig) func(Request) (Minted, error) { return r.good },
		"403":     func(*rig) func(Request) (Minted, error) { return refusing(403, 0) },
	} {
		r := settled(t, 1, 600)
		r.run(r.volume(extra(0)).tokens[0].due.Sub(r.server()) - time.Millisecond)
		r.pass(time.Millisecond)
		r.turn()
		j := r.flight(isMint)
		r.s.overtake(r.now.Mono+1, true)
		r.answer = answer(r)
		r.finish(j)
		if token := j.mint.v.tokens[0]; token.fresh.empty() != (token.err != nil) || token.err != nil && token.failures != 1 {
			t.Errorf("%s: fresh %v, %v, %d failures", name, !token.fresh.empty(), token.err, token.failures)
		}
	}
}

// TestNewcomersDoNotPutOffProbes: while pods that are refused keep coming, those that wait are still probed for.
func TestNewcomersDoNotPutOffProbes(t *testing.T) {
	r := newRig(t)
	r.answer = refusing(403, 0)
	for i := range 5 {
		r.apply(lonePod(i, 600))
	}
	r.s.replace(r.wishes(), r.now)
	r.run(2 * time.Hour)
	r.answer = func(q Request) (Minted, error) {
		if len(q.PodName) == len("pod-0") {
			return r.good(q)
		}
		return refusing(403, 0)(q)
	}
	for n := range 10 {
		r.apply(lonePod(100+n, 600))
		r.run(20 * time.Second)
	}
	if r.files[extra(0)] == nil {
		t.Error("no token after 200 s in which others were refused")
	}
}
