package projector

import (
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const fiveMinutes = 5 * time.Minute

func accountOf(n int) accountRef { return accountRef{"default", fmt.Sprintf("app-%d", n)} }

func accountPod(n, account int, ttl int64) *corev1.Pod {
	pod := lonePod(n, ttl)
	pod.Spec.ServiceAccountName = accountOf(account).name
	return pod
}

// employed has so many pods published, of so many accounts in turn, which are looked up.
func employed(t testing.TB, pods, accounts int, ttl int64) *rig {
	t.Helper()
	r := newRig(t)
	r.s.lookUp, r.s.sweep = true, 24*time.Hour
	r.accounts = map[accountRef]types.UID{}
	for n := range accounts {
		r.accounts[accountOf(n)] = types.UID(fmt.Sprintf("account-%d", n))
	}
	for n := range pods {
		r.apply(accountPod(n, n%accounts, ttl))
	}
	r.s.replace(r.wishes(), r.now)
	r.drain()
	if r.made != pods || len(r.requests) != pods || len(r.lookups) != 0 {
		t.Fatalf("%d versions, %d requests, %d look-ups for %d pods", r.made, len(r.requests), len(r.lookups), pods)
	}
	return r
}

// rest has every token due at its limit: with lives of a day, none is meanwhile.
func (r *rig) rest() {
	for _, p := range r.s.pods {
		for _, v := range p.volumes {
			for i := range v.tokens {
				v.tokens[i].due = v.tokens[i].life.Limit()
			}
			r.s.plan(v, r.s.server(r.now))
		}
	}
}

// nextLookup runs until one more look-up was answered.
func (r *rig) nextLookup() {
	r.t.Helper()
	for before := len(r.lookups); len(r.lookups) == before; {
		r.run(time.Second)
	}
}

// ofUID counts the first n pods' tokens that are of the account with that UID.
func (r *rig) ofUID(uid types.UID, n int) int {
	r.t.Helper()
	count := 0
	for i := range n {
		if r.onDisk(extra(i), "extra-token").AccountUID == uid {
			count++
		}
	}
	return count
}

// TestAccountMadeAnew: at the worst moment, right after it was looked up, an account is
// made anew. Within five minutes all its pods have a token of it, for one request each,
// in place; no other pod is disturbed. They do not come back together for the next one.
func TestAccountMadeAnew(t *testing.T) {
	r := employed(t, 40, 2, 24*3600)
	for r.nextLookup(); r.lookups[len(r.lookups)-1].accountRef != accountOf(0); r.nextLookup() {
	}
	asked := len(r.requests)
	r.accounts[accountOf(0)] = "anew"
	r.run(time.Minute)
	if got := r.ofUID("anew", 40); got != 0 || len(r.requests) != asked {
		t.Fatalf("%d of the new account without a look-up, %d requests: not the worst case", got, len(r.requests)-asked)
	}
	r.run(fiveMinutes - time.Minute)
	if a, b := r.ofUID("anew", 40), r.ofUID("account-1", 40); a != 20 || b != 20 {
		t.Errorf("%d tokens are of the new account, %d of the other", a, b)
	}
	if got := len(r.requests) - asked; got != 20 || r.made != 60 {
		t.Errorf("%d requests, %d versions", got, r.made)
	}
	if got := r.count("service account was made anew"); got != 1 {
		t.Errorf("said %d times", got)
	}
	var first, last time.Time
	for i := 0; i < 40; i += 2 {
		due := r.volume(extra(i)).tokens[0].due
		if first.IsZero() || due.Before(first) {
			first = due
		}
		last = later(last, due)
	}
	if spread := last.Sub(first); spread < 10*time.Hour {
		t.Errorf("the next requests of all come within %v", spread)
	}
}

// TestAccountGone: it is told once for each volume, nothing on disk is touched, and a new
// one is noticed at the usual pace.
func TestAccountGone(t *testing.T) {
	r := employed(t, 3, 1, 24*3600)
	r.run(fiveMinutes)
	delete(r.accounts, accountOf(0))
	r.lookups = nil
	asked := len(r.requests)
	r.run(time.Hour)
	for i := range 3 {
		v := r.volume(extra(i))
		if v.err == nil || v.err.Reason != ReasonMissing || v.condition() != "failed" || v.tokens[0].condition(r.server()) != "fresh" {
			t.Errorf("pod %d: %s, %v", i, v.condition(), v.err)
		}
	}
	if r.ofUID("account-0", 3) != 3 || r.made != 3 || len(r.requests) != asked {
		t.Errorf("%d versions, %d requests, for an account that is gone", r.made-3, len(r.requests)-asked)
	}
	if got := r.count("service account default/app-0 does not exist"); got != 3 {
		t.Errorf("said %d times for three volumes", got)
	}
	r.checkGaps(lookupEvery)
	r.nextLookup()
	r.accounts[accountOf(0)] = "anew"
	r.run(fiveMinutes)
	if r.ofUID("anew", 3) != 3 || r.volume(extra(0)).err != nil {
		t.Errorf("%d tokens of the new account, %v", r.ofUID("anew", 3), r.volume(extra(0)).err)
	}
}

// TestGoneByAStaleCache: a token that is granted afterwards proves that the account is there.
func TestGoneByAStaleCache(t *testing.T) {
	r := employed(t, 2, 1, 24*3600)
	r.cached = func(accountRef) (types.UID, error) { return "", &MintError{Code: 404} }
	r.nextLookup()
	if r.volume(extra(0)).err == nil {
		t.Fatal("not believed to be gone")
	}
	r.apply(accountPod(2, 0, 600))
	r.drain()
	for i := range 3 {
		if v := r.volume(extra(i)); v.err != nil {
			t.Errorf("pod %d: %v", i, v.err)
		}
	}
}

// TestAccountMadeAnewMeanwhile: the claims of the tokens on disk tell a restarted daemon of
// which account they are. It requests nothing for those that are still right.
func TestAccountMadeAnewMeanwhile(t *testing.T) {
	r := employed(t, 4, 2, 24*3600)
	again := newRig(t)
	again.now, again.files, again.made, again.accounts = r.now, r.files, r.made, r.accounts
	again.s.lookUp = true
	again.accounts[accountOf(0)] = "anew"
	for n := range 4 {
		again.apply(accountPod(n, n%2, 24*3600))
	}
	again.run(lookupGrace)
	if len(again.requests) != 0 {
		t.Fatalf("%d requests at the restart", len(again.requests))
	}
	again.run(fiveMinutes - lookupGrace)
	if a, b := again.ofUID("anew", 4), again.ofUID("account-1", 4); a != 2 || b != 2 || len(again.requests) != 2 {
		t.Errorf("%d tokens of the new account, %d of the other, %d requests", a, b, len(again.requests))
	}
}

// TestDeadTokenStays: while no token of the new account can be had, the old one stays, the
// failure is told at once, and its own back-off spaces the attempts.
func TestDeadTokenStays(t *testing.T) {
	r := employed(t, 2, 1, 24*3600)
	r.answer = refusing(403, 0)
	r.accounts[accountOf(0)] = "anew"
	r.run(fiveMinutes)
	v := r.volume(extra(0))
	if r.ofUID("account-0", 2) != 2 || r.made != 2 {
		t.Error("a token was damaged")
	}
	if v.err == nil || v.err.Reason != ReasonTokenRequest || v.tokens[0].condition(r.server()) != "stale" {
		t.Errorf("%v, %s", v.err, v.tokens[0].condition(r.server()))
	}
	r.requests = nil
	r.run(time.Hour)
	if got := len(r.requests); got < 60 || got > 90 { // of two tokens, each 90 s to 2 min
		t.Errorf("%d attempts in an hour", got)
	}
	r.answer = r.good
	r.run(2 * time.Minute)
	if r.ofUID("anew", 2) != 2 || v.err != nil {
		t.Errorf("%d of the new account, %v", r.ofUID("anew", 2), v.err)
	}
}

// TestStaleLookup: a cache that is behind tells an account's former UID for ever. It costs a
// request for each token, once.
func TestStaleLookup(t *testing.T) {
	r := employed(t, 10, 1, 1<<32)
	r.cached = func(accountRef) (types.UID, error) { return "former", nil }
	r.run(2 * time.Hour)
	if got := len(r.requests); got != 20 {
		t.Errorf("%d requests for 10 tokens", got)
	}
	r.cached = nil
	r.accounts[accountOf(0)] = "anew"
	r.run(fiveMinutes)
	if got := r.ofUID("anew", 10); got != 10 {
		t.Errorf("%d tokens of the new account", got)
	}
}

// TestMintUnderWay: a token that was requested before the account was made anew, and comes
// after that was noticed, is not mistaken for the newer.
func TestMintUnderWay(t *testing.T) {
	r := employed(t, 1, 1, 600)
	due := r.volume(extra(0)).tokens[0].due
	r.run(due.Sub(r.server()) - time.Millisecond)
	r.pass(time.Millisecond)
	r.turn()
	slow := r.flight(isMint)
	old, err := r.good(slow.mint.request)
	if err != nil {
		t.Fatal(err)
	}
	r.pass(time.Second)
	r.accounts[accountOf(0)] = "anew"
	r.s.finishLookup(r.lookedUp(), "anew", nil, r.now)
	r.pass(time.Second)
	r.answer = func(Request) (Minted, error) { return old, nil }
	r.finish(slow)
	r.answer = r.good
	r.drain()
	if got := r.ofUID("anew", 1); got != 1 || r.volume(extra(0)).account.refuted != "" {
		t.Errorf("%d tokens of the new account, refuted %q", got, r.volume(extra(0)).account.refuted)
	}
}

// lookedUp is a look-up of the first account, sent now.
func (r *rig) lookedUp() *lookupJob {
	a := r.s.accounts[accountOf(0)]
	r.s.lookups.Remove(a)
	a.busy = true
	r.s.looking++
	return &lookupJob{account: a, sent: r.now}
}

// TestUnknownAccounts: tokens that do not say of which account they are, and pods that are
// not looked after, are left alone.
func TestUnknownAccounts(t *testing.T) {
	r := employed(t, 2, 1, 1<<32)
	for i := range 2 {
		r.volume(extra(i)).tokens[0].uid = ""
	}
	r.run(time.Hour)
	if len(r.requests) != 2 || len(r.lookups) == 0 {
		t.Errorf("%d requests, %d look-ups", len(r.requests), len(r.lookups))
	}
	off := settled(t, 2, 1<<32)
	off.run(time.Hour)
	if len(off.lookups) != 0 {
		t.Errorf("%d look-ups by nobody", len(off.lookups))
	}
}

// TestAnewAndDropped: a token of the new account waits for the disk, and is dropped because the server's clock is put
// back. The one on disk is of the account that is no more, and does not wait for its own refresh.
func TestAnewAndDropped(t *testing.T) {
	r := employed(t, 1, 1, 24*3600)
	r.run(2 * time.Hour)
	r.accounts[accountOf(0)], r.broken = "anew", errors.New("no space left on device")
	r.run(fiveMinutes)
	token := &r.volume(extra(0)).tokens[0]
	if token.fresh.empty() || !token.anew || token.dead {
		t.Fatalf("waits %v, anew %v, dead %v", !token.fresh.empty(), token.anew, token.dead)
	}
	asked := len(r.requests)
	r.answer, r.ahead = refusing(403, 0), r.ahead-time.Hour
	r.s.hear(r.server(), r.now, r.now)
	r.drain()
	if len(r.requests) != asked+1 || !token.fresh.empty() {
		t.Errorf("%d requests at once, dropped %v", len(r.requests)-asked, token.fresh.empty())
	}
	looked := len(r.lookups)
	r.run(2 * fiveMinutes)
	if len(r.lookups) == looked || !token.dead {
		t.Errorf("after %d look-ups dead %v", len(r.lookups)-looked, token.dead)
	}
	r.answer, r.broken = r.good, nil
	r.run(2 * time.Minute)
	if got := r.ofUID("anew", 1); got != 1 || token.dead {
		t.Errorf("%d tokens of the new account, dead %v", got, token.dead)
	}
}

// TestAnewTwice: a token of the new account that is minted again before it could be published is still one that came
// together with many.
func TestAnewTwice(t *testing.T) {
	r := employed(t, 1, 1, 3600)
	r.accounts[accountOf(0)], r.broken = "anew", errors.New("no space left on device")
	r.run(time.Hour)
	token := &r.volume(extra(0)).tokens[0]
	if len(r.requests) < 3 || token.fresh.empty() || !token.anew {
		t.Errorf("%d requests, waits %v, anew %v", len(r.requests), !token.fresh.empty(), token.anew)
	}
}
