package projector

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestFirstPublicationNeedsEverySource, whatever comes last.
func TestFirstPublicationNeedsEverySource(t *testing.T) {
	for name, late := range map[string]bool{"the token last": false, "the configMap last": true} {
		r := newRig(t)
		r.apply(testPod(1, "", 0))
		if !late {
			r.touchCA()
			r.answer = refusing(403, 0)
		}
		r.run(time.Second)
		v := r.volume(access(1))
		if r.made != 0 || v.whole || v.condition() == "ready" {
			t.Errorf("%s: published without it: %v", name, r.files)
		}
		if late {
			r.touchCA()
		} else {
			r.answer = r.good
		}
		r.run(5 * time.Second)
		if r.made != 1 || !v.whole || v.condition() != "ready" || v.err != nil {
			t.Errorf("%s: %d versions, %s, %v", name, r.made, v.condition(), v.err)
		}
		got := r.files[access(1)]
		if len(got) != 3 || got["ca.crt"].data != "certificate" || got["namespace"].data != "default" || r.onDisk(access(1), "token").PodUID != "uid-1" {
			t.Errorf("%s: %d files", name, len(got))
		}
		if !v.tokens[0].fresh.empty() {
			t.Errorf("%s: the token stays in memory", name)
		}
	}
}

// TestMissingObject: it is an error only when its absence is known.
func TestMissingObject(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(1, "", 0))
	r.run(time.Second)
	v := r.volume(access(1))
	if v.condition() != "pending" || !r.watching[rootCA] {
		t.Errorf("%s, watching %v", v.condition(), r.watching)
	}
	for _, tt := range []struct {
		touch  func()
		reason string
	}{
		{func() { r.s.touch(rootCA, nil, r.now) }, ReasonMissing},
		{func() { r.s.touch(rootCA, map[string][]byte{"other": nil}, r.now) }, ReasonMissing},
		{func() { r.s.touch(rootCA, nil, r.now); r.s.untouchable(rootCA, "forbidden", true, r.now) }, ReasonUnreadable},
	} {
		tt.touch()
		r.drain()
		if v.condition() != "failed" || v.err.Reason != tt.reason || r.made != 0 {
			t.Errorf("%s, %v, want %s", v.condition(), v.err, tt.reason)
		}
	}
	r.touchCA()
	r.drain()
	if v.condition() != "ready" || len(r.requests) != 1 {
		t.Errorf("%s, %v, %d requests", v.condition(), v.err, len(r.requests))
	}
	r.s.forget(uid(1), r.now)
	r.drain()
	if len(r.watching) != 0 || len(r.s.objects) != 0 {
		t.Errorf("still watching %v", r.watching)
	}
}

// TestSharedObject is watched once, until the last volume has gone.
func TestSharedObject(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(1, "", 0))
	r.apply(testPod(2, "", 0))
	r.touchCA()
	r.drain()
	if r.made != 2 || len(r.s.objects) != 1 {
		t.Errorf("%d versions, %d objects", r.made, len(r.s.objects))
	}
	r.s.forget(uid(1), r.now)
	r.turn()
	if !r.watching[rootCA] {
		t.Error("released while a volume needs it")
	}
	r.s.forget(uid(2), r.now)
	r.turn()
	if r.watching[rootCA] {
		t.Error("not released with the last")
	}
}

// TestConfigMapChange is published at once, without a request; the same content
// again is not.
func TestConfigMapChange(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(1, "", 0))
	r.touchCA()
	r.drain()
	token := r.files[access(1)]["token"]
	r.touchCA()
	r.drain()
	if r.made != 1 {
		t.Error("published again for nothing")
	}
	r.s.touch(rootCA, map[string][]byte{"ca.crt": []byte("new"), "unnamed": nil}, r.now)
	r.drain()
	if got := r.files[access(1)]; r.made != 2 || got["ca.crt"].data != "new" || got["token"] != token || len(got) != 3 {
		t.Errorf("%d versions, %v", r.made, got["ca.crt"])
	}
	if len(r.requests) != 1 || len(r.published) != 2 {
		t.Errorf("%d requests, %d notifications", len(r.requests), len(r.published))
	}
}

// TestFailingSourceKeepsItsBytes: once published, a source that fails is
// reported, its files stay, and the token goes on being refreshed.
func TestFailingSourceKeepsItsBytes(t *testing.T) {
	for name, data := range map[string]map[string][]byte{"absent": nil, "key absent": {"other": []byte("x")}} {
		r := newRig(t)
		r.apply(testPod(1, "", 0))
		r.touchCA()
		r.drain()
		r.s.touch(rootCA, data, r.now)
		r.run(3 * time.Hour)
		v := r.volume(access(1))
		if v.condition() != "failed" || v.err.Reason != ReasonMissing {
			t.Errorf("%s: %s, %v", name, v.condition(), v.err)
		}
		if got := r.files[access(1)]; got["ca.crt"].data != "certificate" || len(got) != 3 {
			t.Errorf("%s: %v", name, got["ca.crt"])
		}
		if c := r.onDisk(access(1), "token"); len(r.requests) < 4 || c.Lifetime.Expired(r.server()) {
			t.Errorf("%s: %d requests, expires %v", name, len(r.requests), c.Lifetime.Expires)
		}
		r.touchCA()
		r.drain()
		if v.err != nil || !r.says("volume is in order again") {
			t.Errorf("%s: %v", name, v.err)
		}
	}
}

// TestRenewal: over ten days every token is replaced in time, none early or
// twice, and at the nanosecond that rotation says.
func TestRenewal(t *testing.T) {
	for _, ttl := range []int64{600, 3607, 86400, 400_000} {
		r := settled(t, 3, ttl)
		r.run(10 * 24 * time.Hour)
		limit := min(time.Duration(ttl)*time.Second/5*4, 24*time.Hour)
		last := map[string]time.Time{}
		for i, q := range r.requests {
			age := q.at.Sub(last[q.PodName])
			if i >= 6 && (age > limit || age < limit*15/16-2*time.Second) {
				t.Errorf("ttl %d: request %d after %v, limit %v", ttl, i, age, limit)
			}
			last[q.PodName] = q.at
		}
		if r.made != len(r.requests) || len(r.published) != r.made {
			t.Errorf("ttl %d: %d requests, %d versions, %d notifications", ttl, len(r.requests), r.made, len(r.published))
		}
	}
}

func TestRenewalEdge(t *testing.T) {
	r := settled(t, 1, 600)
	v := r.volume(extra(0))
	due := v.tokens[0].due
	v.verifyAt = due.Add(time.Hour) // no sweep in between
	r.pass(due.Sub(r.server()) - 1)
	if jobs := r.turn(); len(jobs) != 0 {
		t.Errorf("%d jobs 1 ns before", len(jobs))
	}
	if pause := r.s.wake(r.now); pause != 1 {
		t.Errorf("1 ns before, the owner sleeps for %v", pause)
	}
	r.pass(1)
	if jobs := r.turn(); len(jobs) != 1 || jobs[0].mint == nil {
		t.Errorf("%+v at the time", jobs)
	}
}

// TestTwoTokensInOneVolume are minted one after the other, published together
// first, and then each in its own time.
func TestTwoTokensInOneVolume(t *testing.T) {
	r := newRig(t)
	pod := lonePod(1, 600)
	pod.Spec.Volumes[0] = projected("extra", tokenSource("a", 600, "a"), tokenSource("b", 7200, "b"))
	r.apply(pod)
	r.drain()
	if r.made != 1 || len(r.requests) != 2 || len(r.files[extra(1)]) != 2 {
		t.Fatalf("%d versions, %d requests", r.made, len(r.requests))
	}
	b := r.files[extra(1)]["b"]
	r.run(10 * time.Minute)
	if r.onDisk(extra(1), "a").Lifetime.Issued.Equal(issuedAt) {
		t.Error("a was not refreshed")
	}
	if got := r.files[extra(1)]["b"]; got != b && r.onDisk(extra(1), "b").Lifetime.Issued.Sub(issuedAt) < 12*time.Minute {
		t.Error("b was refreshed with a")
	}
}

// TestSourcesAlike: two sources of one audience and lifetime have a token each, where the kubelet's cache gives both the
// same. One that is altered concerns itself alone.
func TestSourcesAlike(t *testing.T) {
	r := newRig(t)
	pod := lonePod(1, 600)
	pod.Spec.Volumes[0] = projected("extra", tokenSource("a", 600, "one"), tokenSource("a", 600, "two"))
	r.apply(pod)
	r.drain()
	one, two := r.files[extra(1)]["one"], r.files[extra(1)]["two"]
	if len(r.requests) != 2 || one.data == two.data {
		t.Errorf("%d requests, the same token %v", len(r.requests), one.data == two.data)
	}
	r.files[extra(1)]["one"] = simFile{data: "altered", mode: one.mode}
	r.s.verify(extra(1), r.now)
	r.run(time.Second)
	if got := r.files[extra(1)]; got["two"] != two || len(r.requests) != 3 {
		t.Errorf("%d requests, the other token is left alone: %v", len(r.requests), got["two"] == two)
	}
}

// TestTokensAreNotKept: what is on disk is not in memory as well.
func TestTokensAreNotKept(t *testing.T) {
	r := newRig(t)
	r.apply(lonePod(1, 600))
	publish := r.until(isPublish)
	kept := func() bool { return !r.volume(extra(1)).tokens[0].fresh.empty() }
	if !kept() {
		t.Fatal("the token is nowhere between answer and publish: nothing would be seen here")
	}
	r.finish(publish)
	if kept() {
		t.Error("a published token is kept")
	}
	r.run(9 * time.Minute)
	if kept() || len(r.requests) != 2 {
		t.Errorf("kept %v after %d requests", kept(), len(r.requests))
	}
}

// TestRefusedAlone: other 4xx are the token's own. Fast retries first, then
// slower, for ever; the old token stays; nobody else waits.
func TestRefusedAlone(t *testing.T) {
	for _, code := range []int{400, 403, 404, 409, 422, unusable} {
		r := settled(t, 2, 3600)
		r.answer = func(q Request) (Minted, error) {
			if q.PodName == "pod-9" {
				return refusing(code, 0)(q)
			}
			return r.good(q)
		}
		begin, before := r.server(), len(r.requests)
		r.apply(lonePod(9, 3600))
		r.run(30 * time.Minute)
		var at []time.Duration
		for _, q := range r.requests[before:] {
			if q.PodName == "pod-9" {
				at = append(at, q.at.Sub(begin))
			}
		}
		if len(at) < 15 || len(at) > 30 || at[4] > 3*time.Second || at[1] < 60*time.Millisecond {
			t.Fatalf("%d: %d attempts in half an hour: %v", code, len(at), at)
		}
		for i := 2; i < len(at); i++ {
			gap, last := at[i]-at[i-1], at[i-1]-at[i-2]
			if gap > 2*time.Minute || gap < last*3/4 {
				t.Errorf("%d: attempt %d after %v, the one before after %v", code, i, gap, last)
			}
		}
		v := r.volume(extra(9))
		if r.s.outage.Open() || r.says("probing") || v.condition() != "failed" || v.err.Reason != ReasonTokenRequest {
			t.Errorf("%d: outage %v, %s, %v", code, r.s.outage.Open(), v.condition(), v.err)
		}
		r.answer = r.good
		r.run(2 * time.Minute)
		if v.condition() != "ready" || v.tokens[0].failures != 0 {
			t.Errorf("%d: %s after it was allowed", code, v.condition())
		}
	}
}

// TestRefusedRefreshKeepsTheToken until it expires and beyond, and tries more
// often towards the end.
func TestRefusedRefreshKeepsTheToken(t *testing.T) {
	r := settled(t, 1, 600)
	old := r.files[extra(0)]["extra-token"]
	r.answer = refusing(403, 0)
	r.run(20 * time.Minute)
	if r.files[extra(0)]["extra-token"] != old || r.made != 1 {
		t.Error("the old token is not there any more")
	}
	if got := r.volume(extra(0)).tokens[0].condition(r.server()); got != "expired" {
		t.Errorf("condition %s", got)
	}
	r.answer = r.good
	r.run(2 * time.Minute)
	if r.files[extra(0)]["extra-token"] == old {
		t.Error("not refreshed after it was allowed again")
	}
}

// TestDiskFailure: the token that was minted is published when the disk works
// again, and is not asked for twice.
func TestDiskFailure(t *testing.T) {
	r := newRig(t)
	r.apply(lonePod(1, 3600))
	publish := r.until(isPublish)
	r.broken = fmt.Errorf("no space left on device")
	r.finish(publish)
	v := r.volume(extra(1))
	if v.condition() != "failed" || v.err.Reason != ReasonDisk || v.tokens[0].fresh.empty() {
		t.Errorf("%s, %v", v.condition(), v.err)
	}
	r.run(5 * time.Minute)
	r.broken = nil
	r.run(2 * time.Minute)
	if v.condition() != "ready" || len(r.requests) != 1 || r.made != 1 {
		t.Errorf("%s, %d requests, %d versions", v.condition(), len(r.requests), r.made)
	}
}

// TestReadFailure: what cannot be read is not minted over.
func TestReadFailure(t *testing.T) {
	r := newRig(t)
	r.broken = fmt.Errorf("input/output error")
	r.apply(lonePod(1, 3600))
	r.run(time.Minute)
	if v := r.volume(extra(1)); len(r.requests) != 0 || v.known || v.diskErr == nil {
		t.Errorf("%d requests, %v", len(r.requests), v.diskErr)
	}
	r.broken = nil
	r.run(2 * time.Minute)
	if r.made != 1 {
		t.Error("not published after the disk works again")
	}
}

// TestInFlightBounds: never more jobs than the two limits allow.
func TestInFlightBounds(t *testing.T) {
	r := newRig(t)
	r.s.maxInFlight = 3
	for i := range 50 {
		r.apply(lonePod(i, 3600))
	}
	for range 1000 {
		r.turn()
		if len(r.s.asked) > 3 || r.s.onDisk > diskWorkers {
			t.Fatalf("%d mints, %d disk jobs", len(r.s.asked), r.s.onDisk)
		}
		if len(r.flying) == 0 {
			break
		}
		r.finish(r.flying[len(r.flying)-1])
	}
	if r.made != 50 {
		t.Errorf("%d versions", r.made)
	}
}

// TestSoonestExpiryFirst: when more is due than may be in flight.
func TestSoonestExpiryFirst(t *testing.T) {
	r := newRig(t)
	r.s.sweep = 24 * time.Hour // a volume that is being read is minted after that
	for i := range 5 {
		r.apply(lonePod(i, int64(3600-600*i)))
	}
	r.drain()
	r.s.maxInFlight = 1
	r.pass(time.Hour) // nobody was awake: all are due
	asked := len(r.requests)
	r.drain()
	for i, q := range r.requests[asked : asked+5] {
		if want := fmt.Sprintf("pod-%d", 4-i); q.PodName != want {
			t.Errorf("request %d is for %s, want %s", i, q.PodName, want)
		}
	}
}

// TestTerminating: rotation goes on until the tokens are dead, then ends; the
// files stay until the pod's object is gone.
func TestTerminating(t *testing.T) {
	r := settled(t, 1, 600)
	pod := lonePod(0, 600)
	deleted := metav1.NewTime(r.server().Add(20 * time.Minute)) // now, with 20 minutes of grace
	pod.DeletionTimestamp = &deleted
	r.apply(pod)
	r.run(21*time.Minute - 1)
	inTime := len(r.requests)
	if c := r.onDisk(extra(0), "extra-token"); inTime < 3 || c.Lifetime.Expired(r.server()) {
		t.Errorf("%d requests, expires %v", inTime, c.Lifetime.Expires)
	}
	r.run(3 * time.Hour)
	if len(r.requests) != inTime {
		t.Errorf("%d requests for dead tokens", len(r.requests)-inTime)
	}
	if len(r.files) != 1 {
		t.Error("the files are gone before the pod's object is")
	}
	if snap := r.s.snapshot(r.now); len(snap.Tokens) != 0 || len(snap.Volumes) != 0 {
		t.Errorf("dead tokens count: %+v", snap)
	}
	r.s.forget(uid(0), r.now)
	r.drain()
	if len(r.files) != 0 || len(r.s.pods) != 0 {
		t.Error("not removed")
	}
}

// TestUnprojectableVolume is reported, and no work is done for it until it may be.
func TestUnprojectableVolume(t *testing.T) {
	r := newRig(t)
	pod := testPod(1, "vault", 600)
	pod.Spec.Volumes[0].Projected.DefaultMode = nil
	r.apply(pod)
	r.run(time.Hour)
	if v := r.volume(access(1)); v.condition() != "failed" || v.err.Reason != ReasonInvalid || v.known {
		t.Errorf("%s %v", v.condition(), v.err)
	}
	if v := r.volume(extra(1)); v.condition() != "ready" {
		t.Errorf("the neighbour is %s", v.condition())
	}
	r.apply(testPod(1, "vault", 600))
	r.touchCA()
	r.drain()
	if v := r.volume(access(1)); v.condition() != "ready" {
		t.Errorf("%s %v", v.condition(), v.err)
	}
}

// TestSnapshot counts what the owner knows.
func TestSnapshot(t *testing.T) {
	r := settled(t, 2, 3600)
	r.apply(testPod(7, "", 0)) // no configMap yet
	r.drain()
	snap := r.s.snapshot(r.now)
	if snap.Tokens["fresh"] != 2 || snap.Tokens["pending"] != 1 || snap.Volumes["ready"] != 2 || snap.Volumes["pending"] != 1 {
		t.Errorf("%+v", snap)
	}
	if want := issuedAt.Add(time.Hour); !snap.EarliestExpiration.Equal(want) || !snap.SkewKnown || snap.ClockSkew != 0 {
		t.Errorf("earliest %v, want %v; skew %v", snap.EarliestExpiration, want, snap.ClockSkew)
	}
	for at, want := range map[time.Duration]string{
		0: "fresh", 48*time.Minute - 1: "fresh", 48 * time.Minute: "stale", time.Hour - 1: "stale", time.Hour: "expired",
	} {
		if got := r.volume(extra(0)).tokens[0].condition(issuedAt.Add(at)); got != want {
			t.Errorf("at %v %s, want %s", at, got, want)
		}
	}
}

// TestRefusedAloneHonoursRetryAfter, up to a minute: a server may pace one token as
// it may pace all.
func TestRefusedAloneHonoursRetryAfter(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{30 * time.Second: 30 * time.Second, time.Hour: time.Minute} {
		r := newRig(t)
		r.answer = refusing(403, asked)
		r.apply(lonePod(1, 3600))
		r.run(3 * time.Minute)
		for i := 1; i < len(r.requests); i++ {
			if gap := r.requests[i].at.Sub(r.requests[i-1].at); gap < want || gap > want+time.Second {
				t.Errorf("Retry-After %v: attempt %d after %v", asked, i, gap)
			}
		}
		if len(r.requests) < 3 {
			t.Errorf("Retry-After %v: %d attempts", asked, len(r.requests))
		}
	}
}
