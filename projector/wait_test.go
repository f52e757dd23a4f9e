package projector

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/rotation"
)

// verdict is what WaitReady would say now: "ready", "waits", or the error.
func (r *rig) verdict(n int) string {
	switch ready, err := r.s.ready(uid(n), r.server()); {
	case err != nil:
		return err.Error()
	case ready:
		return "ready"
	}
	return "waits"
}

func (r *rig) wantVerdict(n int, when, want string) {
	r.t.Helper()
	if got := r.verdict(n); got != want && (want == "waits" || want == "ready" || !strings.HasPrefix(got, want)) {
		r.t.Errorf("%s: %q, want %q", when, got, want)
	}
}

// TestReadyNeedsEveryVolume published, and nothing else.
func TestReadyNeedsEveryVolume(t *testing.T) {
	r := newRig(t)
	r.wantVerdict(1, "not seen", "waits")
	r.apply(testPod(1, "vault", 3600))
	r.wantVerdict(1, "seen", "waits")
	r.drain()
	if v := r.volume(extra(1)); !v.ready(r.server()) {
		t.Fatal("the volume that needs no configMap is not ready")
	}
	r.wantVerdict(1, "one of two volumes", "waits")
	r.touchCA()
	publish := r.until(isPublish)
	r.wantVerdict(1, "while it is being published", "waits")
	r.finish(publish)
	r.wantVerdict(1, "published", "ready")
	r.s.touch(rootCA, nil, r.now)
	r.drain()
	if v := r.volume(access(1)); v.condition() != "failed" {
		t.Fatalf("%s without its configMap", v.condition())
	}
	r.wantVerdict(1, "a source failed later", "ready")
	r.s.forget(uid(1), r.now)
	r.wantVerdict(1, "gone", "waits")

	volume := Volume{Name: "ca", Sources: []Source{{Object: &ObjectSource{Ref: rootCA, Mode: 0o644}}}}
	r.s.apply(Wish{UID: uid(2), Volumes: []Volume{volume}}, r.now)
	r.drain()
	r.wantVerdict(2, "a volume without a token, which no pod has but a caller may", "waits")
	r.touchCA()
	r.drain()
	r.wantVerdict(2, "a volume without a token", "ready")
}

// TestReadyNeedsUnexpiredTokens by the server's time, to the nanosecond.
func TestReadyNeedsUnexpiredTokens(t *testing.T) {
	r := settled(t, 1, 600)
	r.step(5 * time.Hour) // of no importance
	r.s.hear(r.server(), r.now, r.now)
	r.answer = refusing(403, 0)
	r.run(10*time.Minute - 1)
	r.wantVerdict(0, "1 ns before the expiry", "ready")
	r.pass(1)
	r.wantVerdict(0, "at the expiry", "waits")
	r.answer = r.good
	r.run(3 * time.Minute)
	r.wantVerdict(0, "renewed", "ready")
	next := r.restarted(time.Second)
	next.apply(lonePod(0, 600))
	next.wantVerdict(0, "after a restart", "waits")
	next.drain()
	next.wantVerdict(0, "adopted", "ready")
	late := r.restarted(time.Hour)
	late.answer = refusing(403, 0)
	late.apply(lonePod(0, 600))
	late.drain()
	late.wantVerdict(0, "adopted when it had expired", "waits")
}

// TestReadyAtOnce: pods that want nothing are remembered, until they are gone.
func TestReadyAtOnce(t *testing.T) {
	phase := func(p corev1.PodPhase) func(*corev1.Pod) { return func(pod *corev1.Pod) { pod.Status.Phase = p } }
	for name, alter := range map[string]func(*corev1.Pod){
		"succeeded": phase(corev1.PodSucceeded),
		"failed":    phase(corev1.PodFailed),
		"mirror":    func(pod *corev1.Pod) { pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} },
		"no volume": func(pod *corev1.Pod) { pod.Spec.Volumes = nil },
	} {
		r := newRig(t)
		pod, other := lonePod(1, 600), lonePod(2, 600)
		alter(pod)
		alter(other)
		r.apply(pod)
		r.wantVerdict(1, name, "ready")
		r.s.forget(uid(1), r.now)
		r.wantVerdict(1, name+", forgotten", "waits")
		r.s.replace([]Wish{Desired(pod, SelectAll), Desired(other, SelectAll)}, r.now)
		r.wantVerdict(1, name+", listed", "ready")
		r.s.replace([]Wish{Desired(other, SelectAll)}, r.now)
		r.wantVerdict(1, name+", not listed", "waits")
		r.wantVerdict(2, name+", listed", "ready")
		r.apply(lonePod(2, 600))
		r.wantVerdict(2, name+", and wants a volume after all", "waits")
		if len(r.s.idle) != 0 {
			t.Errorf("%s: %d pods are remembered for ever", name, len(r.s.idle))
		}
	}
}

// TestReadyNever: what cannot come right by itself is told, with the volume's name.
func TestReadyNever(t *testing.T) {
	r := newRig(t)
	unsupported := testPod(1, "vault", 600)
	unsupported.Spec.Volumes[1].Projected.Sources = append(unsupported.Spec.Volumes[1].Projected.Sources,
		corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{}})
	r.apply(unsupported)
	r.wantVerdict(1, "unsupported", `Unsupported: volume "extra": `)
	r.touchCA()
	r.drain()
	r.wantVerdict(1, "with a neighbour in order", `Unsupported: volume "extra": `)

	changed := lonePod(2, 600)
	r.apply(changed)
	r.drain()
	r.wantVerdict(2, "published", "ready")
	r.apply(lonePod(2, 601))
	r.wantVerdict(2, "its sources have changed", `Invalid: volume "extra": `)

	conflict := testPod(3, "", 0)
	conflict.Spec.Volumes[0].Projected.Sources[1].ConfigMap.Items = nil
	r.apply(conflict)
	r.s.touch(rootCA, map[string][]byte{"token": []byte("a"), "..bad": []byte("b")}, r.now)
	r.drain()
	r.wantVerdict(3, "a key that is no path, which can be renamed", "waits")
}

// TestLacks names, of every volume, what is missing, and nothing else.
func TestLacks(t *testing.T) {
	r := newRig(t)
	says := func(n int, when string, wants ...string) {
		t.Helper()
		got := r.s.lacks(uid(n), r.server())
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q does not say %q", when, got, want)
			}
		}
		if parts := strings.Split(got, "; volume"); len(parts) != max(len(wants), 1) {
			t.Errorf("%s: %q", when, got)
		}
	}
	says(1, "no list", "the pod has not come yet")
	r.s.unwatchable("connection refused", "")
	says(1, "no watch", "pods cannot be watched: connection refused")
	r.s.unwatchable("", "")
	r.s.replace(nil, r.now)
	says(1, "not listed", "is not, or no longer, among")
	r.apply(testPod(1, "vault", 600))
	says(1, "seen", `volume "kube-api-access-x": not published yet`, `volume "extra": not published yet`)
	r.s.touch(rootCA, nil, r.now)
	r.drain()
	says(1, "one published, one without its configMap", `volume "kube-api-access-x": ObjectMissing: `)
	r.touchCA()
	r.drain()
	r.pass(time.Hour)
	says(1, "expired", `volume "extra": a token in it has expired`)
}

// waiting adds a waiter for the pod and returns its answer.
func (r *rig) waiting(n int) chan error {
	w := &waiter{answer: make(chan error, 1)}
	w.ready = func(s *state, now time.Time) (bool, error) { return s.ready(uid(n), now) }
	r.s.waiters[w] = true
	return w.answer
}

// TestWaitersAreAnswered once each, all of a pod, in the turn in which it becomes ready.
func TestWaitersAreAnswered(t *testing.T) {
	r := newRig(t)
	answers := []chan error{r.waiting(1), r.waiting(1), r.waiting(2)}
	r.apply(lonePod(1, 600))
	r.finish(r.until(isPublish))
	if len(answers[0])+len(answers[1]) != 0 {
		t.Fatal("answered before the turn's end")
	}
	r.turn()
	if len(answers[0]) != 1 || len(answers[1]) != 1 || len(answers[2]) != 0 || len(r.s.waiters) != 1 {
		t.Errorf("%d, %d and %d answers, %d still wait", len(answers[0]), len(answers[1]), len(answers[2]), len(r.s.waiters))
	}
	r.turn() // a second answer would block here
	r.step(3 * time.Hour)
	late := r.waiting(1)
	if r.turn(); len(late) != 0 {
		t.Fatal("ready, with a token that seems to have expired")
	}
	r.s.hear(r.server(), r.now, r.now) // the wall clock was wrong
	if r.turn(); len(late) != 1 {
		t.Error("not answered when the time was put right")
	}
}

// running runs a Projector in the bubble. The returned func ends it.
func running(t *testing.T, dir string, mint Mint, alter func(*Config)) (*Projector, func()) {
	t.Helper()
	root := openTestRoot(t, dir)
	c := Config{NodeName: "node", Root: root, Mint: mint, NoWatches: true}
	if alter != nil {
		alter(&c)
	}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	return p, func() {
		cancel()
		if err := errors.Join(<-ended, root.Close()); err != nil {
			t.Error(err)
		}
	}
}

// waiters is how many the owner knows.
func (p *Projector) waitersKnown(t *testing.T) int {
	t.Helper()
	n := -1
	if err := p.query(t.Context(), func(s *state, _ rotation.Time) { n = len(s.waiters) }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestWaitReady waits for a pod that comes later and whose token takes its time,
// and returns in that very moment.
func TestWaitReady(t *testing.T) {
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		issue := &issuer{now: time.Now, took: 7 * time.Second}
		p, end := running(t, dir, issue.mint, nil)
		defer end()
		begun := time.Now()
		done := make(chan error)
		go func() { done <- p.WaitReady(t.Context(), uid(1)) }()
		time.Sleep(time.Minute)
		if n := p.waitersKnown(t); n != 1 {
			t.Fatalf("%d wait", n)
		}
		p.Replace([]Wish{Desired(lonePod(1, 600), SelectAll)})
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took != 67*time.Second {
			t.Errorf("ready after %v, want 1m7s", took)
		}
		if err := p.WaitReady(t.Context(), uid(1)); err != nil || time.Since(begun) != 67*time.Second {
			t.Errorf("again: %v after %v", err, time.Since(begun))
		}
	})
}

// TestWaitReadyGivesUp with the cause and what is missing, and leaves nothing behind.
func TestWaitReadyGivesUp(t *testing.T) {
	dir := memoryDir(t)
	cause := errors.New("the pod was deleted")
	synctest.Test(t, func(t *testing.T) {
		issue := &issuer{now: time.Now, fail: func(Request) error { return &MintError{Code: 403, Message: "no relationship found"} }}
		p, end := running(t, dir, issue.mint, nil)
		defer end()
		p.Replace([]Wish{Desired(testPod(1, "vault", 600), SelectAll)})
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(cause) })
		err := p.WaitReady(ctx, uid(1))
		if !errors.Is(err, cause) {
			t.Errorf("%v does not wrap the cause", err)
		}
		for _, want := range []string{"uid-1", `volume "extra": TokenRequestFailed: `, "no relationship found", `volume "kube-api-access-x": `} {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %s", err, want)
			}
		}
		if _, permanent := errors.AsType[*VolumeError](err); permanent {
			t.Error("the error passes for a permanent one")
		}
		if n := p.waitersKnown(t); n != 0 {
			t.Errorf("%d still wait", n)
		}
		if err := p.WaitReady(ctx, uid(1)); !errors.Is(err, cause) {
			t.Errorf("with a context that has ended: %v", err)
		}
	})
}

// TestWaitEnds when Run does, and says so from then on.
func TestWaitEnds(t *testing.T) {
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		p, end := running(t, dir, (&issuer{now: time.Now}).mint, nil)
		done := make(chan error)
		go func() { done <- p.WaitReady(t.Context(), uid(1)) }()
		go func() { done <- p.WaitSynced(t.Context()) }()
		synctest.Wait()
		end()
		for range 2 {
			if err := <-done; err != ErrEnded {
				t.Errorf("while waiting: %v", err)
			}
		}
		_, err := p.Status(t.Context())
		if ready, synced := p.WaitReady(t.Context(), uid(1)), p.WaitSynced(t.Context()); ready != ErrEnded || synced != ErrEnded || err != ErrEnded {
			t.Errorf("afterwards: %v, %v, %v", ready, synced, err)
		}
	})
}

// TestWaitBeforeRun gives up with ctx; nobody answers yet.
func TestWaitBeforeRun(t *testing.T) {
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		root := openTestRoot(t, dir)
		defer root.Close()
		p, err := New(Config{NodeName: "node", Root: root, Mint: (&issuer{now: time.Now}).mint})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.WaitReady(ctx, uid(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// TestWaitSynced waits for the first complete list; what comes before is none.
func TestWaitSynced(t *testing.T) {
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		p, end := running(t, dir, (&issuer{now: time.Now}).mint, nil)
		defer end()
		p.Apply(Desired(lonePod(1, 600), SelectAll))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.WaitSynced(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "list") {
			t.Errorf("before the list: %v", err)
		}
		time.AfterFunc(time.Minute, func() { p.Replace(nil) })
		begun := time.Now()
		if err := p.WaitSynced(t.Context()); err != nil || time.Since(begun) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}
