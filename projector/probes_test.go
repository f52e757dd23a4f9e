package projector

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestProbesAskForTheOtherToken: of a volume with two tokens one fails for hours, and
// with it the only volume of the node. The other is renewed in its time.
func TestProbesAskForTheOtherToken(t *testing.T) {
	r := newRig(t)
	pod := lonePod(1, 600)
	pod.Spec.Volumes[0] = projected("extra", tokenSource("a", 600, "a"), tokenSource("b", 900, "b"))
	r.apply(pod)
	r.drain()
	r.answer = func(q Request) (Minted, error) {
		if q.Audience == "a" {
			return refusing(500, 0)(q)
		}
		return r.good(q)
	}
	r.run(2 * time.Minute) // until the first refresh of either, at the earliest
	for range 3 * 3600 {
		r.run(time.Second)
		if life := r.onDisk(extra(1), "b").Lifetime; !r.server().Before(life.Limit().Add(4 * time.Second)) {
			t.Fatalf("its neighbour fails, and the token is %v late", r.server().Sub(life.Limit()))
		}
	}
}

// TestProbesPreferWhatIsDue: of those that failed in the outage, one that is due does not
// wait until all that were asked for early have failed again, at a minute each.
func TestProbesPreferWhatIsDue(t *testing.T) {
	r := settled(t, 8, 3600)
	next, _ := r.s.mints.Next(r.server())
	r.run(next.Sub(r.server()) - time.Second)
	r.answer = refusing(503, 0)
	r.run(20 * time.Second)
	due := ""
	for _, w := range r.s.held {
		if !r.server().Before(w.t.at()) {
			due = w.v.pod.wish.Name
		}
	}
	if len(r.s.held) != 8 || due == "" {
		t.Fatalf("%d held, due %q", len(r.s.held), due)
	}
	r.answer = func(q Request) (Minted, error) {
		if q.PodName == due {
			return r.good(q)
		}
		return refusing(503, time.Minute)(q)
	}
	if r.run(2*time.Minute + 5*time.Second); r.s.outage.Open() {
		t.Error("what is due is not asked for")
	}
}

// TestDueWhenAskedFor: a failure counts against a token that was due when it was asked
// for, though the answer puts the clock back by a second.
func TestDueWhenAskedFor(t *testing.T) {
	r := settled(t, 2, 600)
	due, _ := r.s.mints.Next(r.server())
	r.run(due.Sub(r.server()) - time.Second)
	r.pass(time.Second)
	r.turn()
	j := r.flight(isMint)
	r.ahead -= 2 * time.Second
	r.answer = refusing(500, 0)
	r.finish(j)
	if token := j.mint.v.tokens[0]; !r.server().Before(token.due) || token.err == nil {
		t.Errorf("due in %v, error %v", token.due.Sub(r.server()), token.err)
	}
}

// TestProbesLeaveWhatIsStillToPublish: a token that waits in memory for its volume's
// other sources is not asked for again as a probe.
func TestProbesLeaveWhatIsStillToPublish(t *testing.T) {
	r := settled(t, 1, 600)
	due := r.volume(extra(0)).tokens[0].due
	r.run(due.Sub(r.server()) - 10*time.Second)
	r.apply(testPod(1, "", 0))
	r.drain() // its configMap does not come
	r.answer = refusing(500, 0)
	before := len(r.requests)
	r.run(2 * time.Minute) // less than a tenth of the token's life
	if !r.s.outage.Open() || len(r.requests) < before+60 {
		t.Fatal("there was no outage")
	}
	for _, q := range r.requests[before:] {
		if q.PodUID == uid(1) {
			t.Fatal("it was asked for again")
		}
	}
}

// TestProbeIsOneRequest: of volumes with several tokens that are due, each probe asks for one, and in turn for all.
func TestProbeIsOneRequest(t *testing.T) {
	for name, code := range map[string]int{"out": 503, "refusing": 403} {
		r := newRig(t)
		for n := range 4 {
			pod := lonePod(n, 600)
			pod.Spec.Volumes[0] = projected("extra", tokenSource("a", 600, "a"), tokenSource("b", 600, "b"), tokenSource("c", 600, "c"))
			r.apply(pod)
		}
		r.drain()
		r.answer = refusing(code, 0)
		r.run(10 * time.Minute)
		if len(r.s.held) != 12 {
			t.Fatalf("%s: %d tokens are held", name, len(r.s.held))
		}
		asked := len(r.requests)
		r.run(3 * time.Minute)
		seen := map[Request]bool{}
		for i, q := range r.requests[asked:] {
			seen[q.Request] = true
			if gap := q.at.Sub(r.requests[asked+i-1].at); gap < time.Second {
				t.Fatalf("%s: a request %v after another", name, gap)
			}
		}
		if len(seen) != 12 {
			t.Errorf("%s: %d of 12 tokens are asked for", name, len(seen))
		}
	}
}

// TestProbesLeaveWhatIsNotWanted: tokens that failed in an outage and are not wanted now are not asked for.
func TestProbesLeaveWhatIsNotWanted(t *testing.T) {
	mixed := func(n int, path string) *corev1.Pod {
		pod, all := lonePod(n, 600), configMapSource("kube-root-ca.crt", "")
		all.ConfigMap.Items = nil
		pod.Spec.Volumes[0] = projected("extra", tokenSource("a", 600, path), tokenSource("b", 600, "b"), all)
		return pod
	}
	for name, unwant := range map[string]func(*rig){
		"nothing": func(*rig) {},
		"a later source has its path": func(r *rig) {
			r.s.touch(rootCA, map[string][]byte{"ca.crt": nil, "a": nil}, r.now)
		},
		"its volume cannot be projected any more": func(r *rig) { r.apply(mixed(1, "another")) },
		"its pod has ended": func(r *rig) {
			pod := mixed(1, "a")
			pod.DeletionTimestamp = &metav1.Time{Time: r.server().Add(-time.Hour)}
			r.apply(pod)
		},
	} {
		r := newRig(t)
		r.apply(mixed(1, "a"))
		r.apply(lonePod(2, 600))
		r.s.touch(rootCA, certificate, r.now)
		r.drain()
		r.answer = refusing(503, 0)
		r.run(10 * time.Minute)
		if len(r.s.held) != 3 {
			t.Fatalf("%s: %d held", name, len(r.s.held))
		}
		unwant(r)
		r.drain()
		asked, found := len(r.requests), 0
		r.run(time.Minute)
		for _, q := range r.requests[asked:] {
			if q.Audience == "a" {
				found++
			}
		}
		if wanted := name == "nothing"; (found > 0) != wanted || len(r.requests) < asked+30 {
			t.Errorf("%s: asked for %d times in %d probes", name, found, len(r.requests)-asked)
		}
	}
}

// TestRefusedBeforeTheOutage: pods that have long been refused are refused on by a server that can grant nothing, as one is
// without its storage. That does not end the outage: one probe a second or two, and all are renewed when it is over.
func TestRefusedBeforeTheOutage(t *testing.T) {
	for _, refused := range []int{0, 1, 10} {
		r := settled(t, 40, 3600)
		others := r.good
		r.answer = func(q Request) (Minted, error) {
			if q.Audience == "refused" {
				return refusing(403, 0)(q)
			}
			return others(q)
		}
		for n := range refused {
			pod := lonePod(100+n, 3600)
			pod.Spec.Volumes[0] = projected("extra", tokenSource("refused", 3600, "token"))
			r.apply(pod)
		}
		r.run(30 * time.Minute)
		for episode := range 2 {
			others = refusing(500, 0)
			for !r.s.outage.Open() {
				r.run(time.Second)
			}
			for n := range refused { // as if they had not all come at once, to be told from the rest by a probe
				r.volume(extra(100 + n)).tokens[0].suspect = false
			}
			r.run(70 * time.Minute)
			before := len(r.requests)
			r.run(time.Minute)
			if n := len(r.requests) - before; !r.s.outage.Open() || n < 30 || n > 60 {
				t.Errorf("%d refused, episode %d: out %v, %d requests in a minute", refused, episode, r.s.outage.Open(), n)
			}
			others = r.good
			r.run(time.Duration(4+2*refused) * time.Second)
			if snap := r.s.snapshot(r.now); snap.Tokens["fresh"] != 40 || r.s.outage.Open() {
				t.Errorf("%d refused, episode %d: %v after its end, out %v", refused, episode, snap.Tokens, r.s.outage.Open())
			}
		}
	}
}

// TestOnlyRefusedAreLeft: an outage ends by a refusal if those that waited for its end are gone.
func TestOnlyRefusedAreLeft(t *testing.T) {
	r := settled(t, 0, 0)
	r.answer = refusing(403, 0)
	r.apply(lonePod(0, 600))
	r.apply(lonePod(1, 600))
	r.run(time.Minute)
	r.answer = func(q Request) (Minted, error) {
		if q.PodUID == uid(2) {
			return refusing(500, 0)(q)
		}
		return refusing(403, 0)(q)
	}
	r.apply(lonePod(2, 600))
	if r.run(5 * time.Minute); !r.s.outage.Open() {
		t.Fatal("there was no outage")
	}
	r.s.forget(uid(2), r.now)
	if r.run(5 * time.Minute); r.s.outage.Open() || len(r.s.held) > 0 {
		t.Errorf("out %v, %d held", r.s.outage.Open(), len(r.s.held))
	}
}
