package projector

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// TestLookupsPerHour: each account of the node once in 4m45s, whatever the number of its
// pods, spread over that time, and no token requested for it.
func TestLookupsPerHour(t *testing.T) {
	for _, accounts := range []int{1, 10, 110} {
		r := employed(t, 110, accounts, 1<<32)
		r.rest()
		r.run(time.Hour)
		r.lookups = nil
		r.run(time.Hour)
		t.Logf("110 pods of %d accounts: %d look-ups an hour", accounts, len(r.lookups))
		if got := len(r.lookups); got < 12*accounts || got > 13*accounts {
			t.Errorf("%d accounts: %d look-ups an hour", accounts, got)
		}
		if len(r.requests) != 110 {
			t.Errorf("%d accounts: %d tokens requested", accounts, len(r.requests))
		}
		r.checkGaps(lookupEvery)
		if got := r.busiest(10 * time.Second); got > 3+accounts/10 {
			t.Errorf("%d accounts: %d look-ups within 10 s", accounts, got)
		}
	}
}

// checkGaps wants two look-ups of one account no closer than least, and to be
// no more than five minutes apart.
func (r *rig) checkGaps(least time.Duration) {
	r.t.Helper()
	latest := map[accountRef]time.Time{}
	for _, l := range r.lookups {
		if at, ok := latest[l.accountRef]; ok && (l.at.Sub(at) < least || l.at.Sub(at) > fiveMinutes) {
			r.t.Errorf("%s looked up again after %v", l.name, l.at.Sub(at))
		}
		latest[l.accountRef] = l.at
	}
}

// busiest is the most look-ups within any time as long as window.
func (r *rig) busiest(window time.Duration) int {
	most := 0
	for i, from := 0, 0; i < len(r.lookups); i++ {
		for r.lookups[i].at.Sub(r.lookups[from].at) >= window {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

// TestLookupsOfPodsThatComeAndGo cost no more than those of one that stays, and end.
func TestLookupsOfPodsThatComeAndGo(t *testing.T) {
	r := employed(t, 1, 1, 600)
	for n := range 180 {
		r.s.forget(uid(n), r.now)
		r.apply(accountPod(n+1, 0, 600))
		r.run(20 * time.Second)
	}
	if got := len(r.lookups); got < 12 || got > 13 {
		t.Errorf("%d look-ups in an hour", got)
	}
	r.checkGaps(lookupEvery)
	r.s.forget(uid(180), r.now)
	r.lookups = nil
	r.run(time.Hour)
	if len(r.lookups) != 0 || len(r.s.accounts) != 0 {
		t.Errorf("%d look-ups for nobody, %d accounts remembered", len(r.lookups), len(r.s.accounts))
	}
}

// lookedUp is said when look-ups no longer fail.
const lookedUp = "no look-up of a service account fails so any more"

// TestLookupFailsOfNobody: the last account that could not be looked up is forgotten, and that is an end, too.
func TestLookupFailsOfNobody(t *testing.T) {
	r := employed(t, 1, 1, 600)
	r.cached = func(accountRef) (types.UID, error) { return "", &MintError{Code: 403, Message: "no"} }
	r.run(time.Hour)
	r.s.forget(uid(0), r.now)
	r.run(time.Hour)
	if r.count("cannot be looked up") != 1 || r.count(lookedUp) != 1 {
		t.Errorf("said %d times, its end %d times", r.count("cannot be looked up"), r.count(lookedUp))
	}
}

// TestLookupFails: refused by an older API server, failed or unanswered. Said once, as is its end, and
// nothing else happens; who is refused asks less often. When it works, it works.
func TestLookupFails(t *testing.T) {
	for code, perHour := range map[int][2]int{403: {1, 2}, 401: {12, 13}, 429: {12, 13}, 500: {12, 13}, 0: {12, 13}, unusable: {12, 13}} {
		r := employed(t, 20, 2, 24*3600)
		r.rest()
		r.accounts[accountOf(0)] = "anew"
		r.cached = func(accountRef) (types.UID, error) { return "", &MintError{Code: code, Message: "no"} }
		if code == unusable {
			r.cached = func(accountRef) (types.UID, error) { return "", nil }
		}
		r.run(fiveMinutes)
		r.run(time.Hour)
		r.lookups = nil
		r.run(time.Hour)
		if got := len(r.lookups); got < 2*perHour[0] || got > 2*perHour[1] {
			t.Errorf("%d: %d look-ups of two accounts an hour", code, got)
		}
		if got := r.count("cannot be looked up"); got != 1 || r.says(lookedUp) {
			t.Errorf("%d: said %d times", code, got)
		}
		if r.made != 20 || len(r.requests) != 20 || r.volume(extra(0)).err != nil || r.s.outage.Open() {
			t.Errorf("%d: %d versions, %d requests, outage %v, %v", code, r.made, len(r.requests), r.s.outage.Open(), r.volume(extra(0)).err)
		}
		r.cached = nil
		r.run(40 * time.Minute)
		if got := r.ofUID("anew", 20); got != 10 {
			t.Errorf("%d: %d tokens of the new account after all", code, got)
		}
		if got := r.count(lookedUp); got != 1 || r.count("cannot be looked up") != 1 || len(r.s.unlooked) != 0 {
			t.Errorf("%d: its end was said %d times, %v are left", code, got, r.s.unlooked)
		}
	}
}

// TestNoLookupInAnOutage: while the server is out, the probe of the tokens is all that is
// asked. Afterwards each account is looked up in time, and not all of them at once.
func TestNoLookupInAnOutage(t *testing.T) {
	r := employed(t, 110, 110, 24*3600)
	r.run(fiveMinutes)
	r.answer = refusing(503, 0)
	r.apply(accountPod(110, 0, 600)) // its request fails
	r.drain()
	if !r.s.outage.Open() {
		t.Fatal("no outage")
	}
	r.lookups = nil
	r.run(time.Hour)
	if len(r.lookups) > 0 {
		t.Errorf("%d look-ups in the outage", len(r.lookups))
	}
	r.answer = r.good
	for n := range 110 {
		r.accounts[accountOf(n)] = "anew"
	}
	r.run(3 * time.Second)
	if r.s.outage.Open() {
		t.Fatal("the outage goes on")
	}
	r.run(fiveMinutes)
	if got := r.ofUID("anew", 110); got != 110 {
		t.Errorf("%d tokens of the new accounts five minutes after the outage", got)
	}
	if got := r.busiest(time.Second); got > 11 {
		t.Errorf("%d look-ups in a second after the outage", got)
	}
}

// TestLookupsOverClockSteps: a step of the wall clock, a suspended machine and a server that
// puts us right bring none forward and put none off.
func TestLookupsOverClockSteps(t *testing.T) {
	for name, leap := range map[string]func(*rig){
		"ahead": func(r *rig) { r.step(3 * time.Hour) },
		"back":  func(r *rig) { r.step(-3 * time.Hour) },
		"suspended": func(r *rig) {
			r.now.Wall = r.now.Wall.Add(3 * time.Hour)
		},
		"put right": func(r *rig) {
			r.step(3 * time.Hour)
			r.run(10 * time.Second)
			r.s.hear(r.server(), r.now, r.now)
		},
	} {
		r := employed(t, 110, 110, 1<<32)
		r.run(7 * time.Minute)
		r.lookups = nil
		leap(r)
		for n := range 110 {
			r.accounts[accountOf(n)] = "anew"
		}
		r.run(time.Minute)
		if got := len(r.lookups); got < 10 || got > 50 {
			t.Errorf("%s: %d look-ups in the minute after", name, got)
		}
		r.run(fiveMinutes - time.Minute)
		if got := r.ofUID("anew", 110); got != 110 {
			t.Errorf("%s: %d tokens of the new accounts", name, got)
		}
	}
}

// TestHungLookup: look-ups that hang delay no token, and there are few of them.
func TestHungLookup(t *testing.T) {
	r := employed(t, 20, 20, 600)
	for range 600 {
		for _, j := range r.turn() {
			if j.lookup == nil {
				r.finish(j)
			}
		}
		if len(r.flying) > maxLookups {
			t.Fatalf("%d look-ups in flight", len(r.flying))
		}
		r.pass(time.Second)
	}
	if len(r.flying) != maxLookups {
		t.Fatalf("%d look-ups hang", len(r.flying))
	}
	for i := range 20 {
		if life := r.onDisk(extra(i), "extra-token").Lifetime; !r.server().Before(life.Limit().Add(2 * time.Second)) {
			t.Errorf("pod %d is late", i)
		}
	}
	r.accounts[accountOf(3)] = "anew"
	r.drain()
	r.run(fiveMinutes)
	if got := r.ofUID("anew", 20); got != 1 {
		t.Errorf("%d tokens of the new account once they hang no more", got)
	}
}
