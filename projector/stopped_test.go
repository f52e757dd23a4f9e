package projector

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// settledAwaiting is settled, under Config.AwaitStopped.
func settledAwaiting(t *testing.T, n int, ttl int64) *rig {
	r := settled(t, n, ttl)
	r.s.awaitStopped = true
	return r
}

// ways in which a pod can be gone.
func ways() map[string]func(*rig) {
	phase := func(p corev1.PodPhase) func(*rig) {
		return func(r *rig) {
			pod := lonePod(0, 600)
			pod.Status.Phase = p
			r.apply(pod)
		}
	}
	return map[string]func(*rig){
		"forgotten":  func(r *rig) { r.s.forget(uid(0), r.now) },
		"not listed": func(r *rig) { r.s.replace([]Wish{Desired(lonePod(1, 600), SelectAll)}, r.now) },
		"succeeded":  phase(corev1.PodSucceeded),
		"failed":     phase(corev1.PodFailed),
	}
}

// TestStopped: the directory goes when the pod is gone and stopped, in either
// order. Until then its files stay, and nothing is asked for in the name of a pod
// that is gone.
func TestStopped(t *testing.T) {
	for name, vanish := range ways() {
		r := settledAwaiting(t, 2, 600)
		vanish(r)
		asked := len(r.requests)
		r.run(3 * time.Hour)
		for _, q := range r.requests[asked:] {
			if q.PodUID == uid(0) {
				t.Fatalf("%s: a token was asked for", name)
			}
		}
		if len(r.files[extra(0)]) != 1 || len(r.requests) == asked {
			t.Fatalf("%s: %d files before it was stopped, %d requests for the other pod", name, len(r.files[extra(0)]), len(r.requests)-asked)
		}
		r.s.stop(uid(0), r.now)
		r.drain()
		r.wantOnly(1, name+", then stopped")

		r = settledAwaiting(t, 2, 600)
		r.s.stop(uid(0), r.now)
		r.run(time.Hour)
		if len(r.files[extra(0)]) != 1 || r.onDisk(extra(0), "extra-token").Lifetime.Expired(r.server()) {
			t.Fatalf("%s: stopped, and its object is still there: it may be looked at, and is renewed", name)
		}
		vanish(r)
		r.drain()
		r.wantOnly(1, "stopped, then "+name)
	}
}

// wantOnly expects that of the pods only n is left, and nothing remembered of others.
func (r *rig) wantOnly(n int, when string) {
	r.t.Helper()
	if len(r.files) != 1 || len(r.files[extra(n)]) != 1 || len(r.s.pods) != 1 || len(r.s.stopped) != 0 {
		r.t.Errorf("%s: %d volumes on disk, %d pods known, %d stopped", when, len(r.files), len(r.s.pods), len(r.s.stopped))
	}
}

// TestStoppedIsOnlyAwaitedIfAsked: without Config.AwaitStopped it does nothing.
func TestStoppedIsOnlyAwaitedIfAsked(t *testing.T) {
	r := settled(t, 2, 600)
	r.s.stop(uid(1), r.now)
	r.s.forget(uid(0), r.now)
	r.drain()
	r.wantOnly(1, "forgotten")
}

// TestStoppedWhileAJobEnds: neither word is lost on a pod with a job in flight.
func TestStoppedWhileAJobEnds(t *testing.T) {
	for name, kind := range map[string]func(job) bool{"mint": isMint, "read": isRead, "publish": isPublish} {
		r := settledAwaiting(t, 1, 600)
		r.apply(lonePod(1, 600))
		j := r.until(kind)
		r.s.forget(uid(1), r.now)
		r.s.stop(uid(1), r.now)
		if jobs := r.turn(); len(jobs) != 0 {
			t.Errorf("%s: %s beside the job", name, describe(jobs[0]))
		}
		r.finish(j)
		r.drain()
		r.wantOnly(0, name)
	}
}

// TestStoppedBeforeItCame: the caller was ahead of the pod list.
func TestStoppedBeforeItCame(t *testing.T) {
	r := settledAwaiting(t, 1, 600)
	r.s.stop(uid(1), r.now)
	r.apply(lonePod(1, 600))
	r.drain()
	r.s.forget(uid(1), r.now)
	r.drain()
	r.wantOnly(0, "stopped, seen, gone")
}

// TestStoppedIsForgottenInTheEnd: pods that never had a directory leave no trace.
func TestStoppedIsForgottenInTheEnd(t *testing.T) {
	r := settledAwaiting(t, 1, 600)
	r.s.stop(uid(0), r.now)
	for n := range 3 * maxStopped {
		r.s.stop(uid(n+1), r.now)
	}
	if n := len(r.s.stopped); n > maxStopped || !r.s.stopped[uid(0)] {
		t.Errorf("%d remembered, the one with a directory: %v", n, r.s.stopped[uid(0)])
	}
}

// TestStoppedAfterRestart: what is found on disk and not wanted stays until Stopped;
// what is wanted is not touched by it.
func TestStoppedAfterRestart(t *testing.T) {
	r := settledAwaiting(t, 2, 3600)
	next := r.restarted(time.Minute)
	next.s.awaitStopped = true
	next.s.orphans(map[types.UID]bool{uid(0): true, uid(1): true}, next.now)
	next.s.replace([]Wish{Desired(lonePod(1, 3600), SelectAll)}, next.now)
	next.run(time.Hour)
	if len(next.files) != 2 {
		t.Fatalf("%d volumes on disk before Stopped", len(next.files))
	}
	if status := next.s.status(next.now); len(status.Pods) != 2 || !status.of(uid(0)).Gone || status.of(uid(1)).Gone {
		t.Errorf("%+v", status.Pods)
	}
	next.s.stop(uid(0), next.now)
	next.drain()
	next.wantOnly(1, "stopped after a restart")
}

// TestStoppedRemovalFails and is tried again.
func TestStoppedRemovalFails(t *testing.T) {
	r := settledAwaiting(t, 2, 3600)
	r.broken = errors.New("device or resource busy")
	r.s.forget(uid(0), r.now)
	r.s.stop(uid(0), r.now)
	r.run(time.Minute)
	r.broken = nil
	r.run(time.Minute)
	r.wantOnly(1, "removed in the end")
}

// TestRunAwaitsStopped on a real disk.
func TestRunAwaitsStopped(t *testing.T) {
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		p, end := running(t, dir, (&issuer{now: time.Now}).mint, func(c *Config) { c.AwaitStopped = true })
		p.Replace([]Wish{Desired(lonePod(1, 600), SelectAll)})
		if err := p.WaitReady(t.Context(), uid(1)); err != nil {
			t.Fatal(err)
		}
		p.Forget(uid(1))
		time.Sleep(time.Hour)
		status, err := p.Status(t.Context())
		if err != nil || !status.of(uid(1)).Gone {
			t.Fatalf("%+v, %v", status, err)
		}
		v := status.of(uid(1)).Volumes[0]
		if _, err := os.Stat(filepath.Join(v.Dir, "extra-token")); err != nil || v.Tokens[0].State != "expired" {
			t.Errorf("%v, token is %s", err, v.Tokens[0].State)
		}
		p.Stopped(uid(1))
		end() // waits for the jobs in flight
		if _, err := os.Stat(filepath.Join(dir, "pods", "uid-1")); !os.IsNotExist(err) {
			t.Errorf("not removed: %v", err)
		}
	})
}

// TestGonePodHoldsNoToken: a pod that is gone waits for Stopped; no token waits with it.
func TestGonePodHoldsNoToken(t *testing.T) {
	for name, ended := range map[string]bool{"the answer comes after it is gone": false, "and before": true} {
		r := newRig(t)
		r.s.awaitStopped = true
		r.s.replace([]Wish{Desired(testPod(1, "", 0), SelectAll)}, r.now) // its configMap never comes
		mint := r.until(isMint)
		if ended {
			r.finish(mint)
			r.drain()
		}
		p := r.s.pods[uid(1)]
		r.s.forget(uid(1), r.now)
		if !ended {
			r.finish(mint)
		}
		r.drain()
		if r.s.pods[uid(1)] != p {
			t.Fatal("not kept")
		}
		for _, v := range p.volumes {
			if !v.tokens[0].fresh.empty() {
				t.Errorf("%s: its token stays in memory until Stopped", name)
			}
		}
	}
}
