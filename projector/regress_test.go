package projector

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// conflictPod has a volume that a key "labels" of its configMap would conflict with.
func conflictPod() *corev1.Pod {
	whole := configMapSource("kube-root-ca.crt", "")
	whole.ConfigMap.Items = nil
	labels := namespaceSource()
	labels.DownwardAPI.Items[0].Path = "labels/namespace"
	pod := testPod(1, "", 0)
	pod.Spec.Volumes = []corev1.Volume{projected("v", tokenSource("", 600, "token"), labels, whole)}
	return pod
}

// TestConflictingKeys: a key that appears in an object and conflicts with another
// source's path keeps its own source from changing, and no token from being renewed.
func TestConflictingKeys(t *testing.T) {
	r := newRig(t)
	r.apply(conflictPod())
	r.touchCA()
	r.drain()
	v := r.volume(Key{uid(1), "v"})
	if v.condition() != "ready" {
		t.Fatalf("%s: %v", v.condition(), v.err)
	}
	r.s.touch(rootCA, map[string][]byte{"ca.crt": []byte("new"), "labels": nil}, r.now)
	r.run(20 * time.Minute)
	if v.err == nil || v.err.Reason != ReasonConflict {
		t.Errorf("the conflict is not reported: %v", v.err)
	}
	if c := r.onDisk(v.key, "token"); c.Lifetime.Expired(r.server()) {
		t.Error("the token expired while the server answered")
	}
	if got := r.files[v.key]["ca.crt"].data; got == "new" {
		t.Error("half of the conflicting object was published")
	}
	r.touchCA()
	r.drain()
	if v.condition() != "ready" {
		t.Errorf("after the conflict: %s: %v", v.condition(), v.err)
	}
}

// TestProbesLeaveAFailingNamespace: many tokens of one namespace whose requests fail do
// not hold up the one of another, which is due.
func TestProbesLeaveAFailingNamespace(t *testing.T) {
	r := settled(t, 1, 600)
	due := r.volume(extra(0)).tokens[0].due
	r.run(due.Sub(r.server()) - 5*time.Second)
	r.answer = func(q Request) (Minted, error) {
		if q.Namespace == "broken" {
			return Minted{}, &MintError{Code: 500}
		}
		return r.good(q)
	}
	for i := range 100 {
		pod := lonePod(100+i, 600)
		pod.Namespace = "broken"
		r.apply(pod)
	}
	r.run(5 * time.Second)
	if !r.s.outage.Open() {
		t.Fatal("the failing namespace opens no outage")
	}
	r.run(15 * time.Second)
	if c := r.onDisk(extra(0), "extra-token"); c.Lifetime.Issued.Before(due.Add(-time.Second)) {
		t.Errorf("%v after it was due the good token is still the old one", r.server().Sub(due))
	}
}

// TestUncleanPathIsAdopted: what lies on disk under its clean path is found again.
func TestUncleanPathIsAdopted(t *testing.T) {
	pod := testPod(1, "", 0)
	pod.Spec.Volumes = []corev1.Volume{projected("v", tokenSource("", 600, "./a//token"))}
	w := Desired(pod, SelectAll)
	if got := w.Volumes[0].Sources[0].Token.Path; got != "a/token" || w.Volumes[0].Err != nil {
		t.Errorf("path %q, %v", got, w.Volumes[0].Err)
	}
}

// TestChangedTokenSources: a pod's sources never change; a caller's might.
func TestChangedTokenSources(t *testing.T) {
	r := settled(t, 1, 600)
	pod := lonePod(0, 600)
	pod.Spec.Volumes[0].Projected.Sources = append(pod.Spec.Volumes[0].Projected.Sources, tokenSource("x", 600, "x"))
	r.apply(pod)
	r.run(time.Minute)
	if v := r.volume(extra(0)); v.err == nil || v.err.Reason != ReasonInvalid {
		t.Errorf("%v", v.err)
	}
	r.apply(lonePod(0, 600))
	if v := r.volume(extra(0)); v.err != nil {
		t.Errorf("the old sources again: %v", v.err)
	}
}

// TestUnwatchablePodsAreSaidOnce, and that it is over; what can be done about it is said whenever that has become another
// thing, also when the server could not be reached before.
func TestUnwatchablePodsAreSaidOnce(t *testing.T) {
	r := settled(t, 1, 600)
	said := func(text string) int { return strings.Count(r.logged.String(), text) }
	want := func(when string, counts map[string]int) {
		t.Helper()
		for text, n := range counts {
			if got := said(text); got != n {
				t.Errorf("%s: %q is said %d times, want %d:\n%s", when, text, got, n, r.logged.String())
			}
		}
	}
	for range 3 {
		r.s.unwatchable("connection refused", "")
	}
	want("no server", map[string]int{"connection refused": 1, "advice": 0})
	for range 3 {
		r.s.unwatchable("forbidden", "upgrade")
		r.s.unwatchable("connection reset", "")
	}
	want("refused", map[string]int{"connection": 1, "forbidden": 1, "upgrade": 1})
	r.s.unwatchable("forbidden", "grant")
	want("refused otherwise", map[string]int{"forbidden": 2, "upgrade": 1, "grant": 1, "watched again": 0})
	r.s.unwatchable("", "")
	r.s.unwatchable("", "")
	want("over", map[string]int{"forbidden": 2, "watched again": 1})
	r.s.unwatchable("forbidden", "grant")
	want("again", map[string]int{"forbidden": 3, "grant": 2, "watched again": 1})
	if r.s.podsErr != "forbidden" {
		t.Errorf("%q", r.s.podsErr)
	}
}

// runOn runs a Projector on dir until do has returned.
func runOn(t *testing.T, dir string, do func(*Projector, *Root)) {
	t.Helper()
	root := openTestRoot(t, dir)
	defer root.Close()
	issue := &issuer{now: time.Now}
	p, err := New(Config{NodeName: "node", Root: root, Mint: issue.mint})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	do(p, root)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestRunClosesItsDescriptors: a Projector that is run and ended leaves no descriptor.
func TestRunClosesItsDescriptors(t *testing.T) {
	dir := memoryDir(t)
	before := openDescriptors(t)
	during := 0
	for range 3 {
		runOn(t, dir, func(p *Projector, root *Root) {
			for n := range 5 {
				p.Apply(Desired(lonePod(n, 600), SelectAll))
			}
			for n := range 5 {
				waitFor(t, "publication", func() bool {
					_, err := os.Stat(filepath.Join(root.Path(extra(n)), "extra-token"))
					return err == nil
				})
			}
			waitFor(t, "watches", func() bool { during = openDescriptors(t); return during >= before+10 })
		})
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors before, %d during, %d after", before, during, after)
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		// The runtime keeps its poller; a directory that was read for this list is gone again.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" {
			n++
		}
	}
	return n
}

// TestEmptiedRoot: somebody removes everything but the marker; it is published anew.
func TestEmptiedRoot(t *testing.T) {
	dir := memoryDir(t)
	runOn(t, dir, func(p *Projector, root *Root) {
		p.Replace([]Wish{Desired(lonePod(1, 600), SelectAll)})
		file := filepath.Join(root.Path(extra(1)), "extra-token")
		there := func() bool { _, err := os.Stat(file); return err == nil }
		waitFor(t, "publication", there)
		waitFor(t, "watches", func() bool {
			snap, ok := p.Snapshot(t.Context())
			return ok && snap.Volumes["ready"] == 1
		})
		if err := os.RemoveAll(filepath.Join(dir, podsName)); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "publication into an emptied root", there)
		waitFor(t, "detached", func() bool {
			snap, ok := p.Snapshot(t.Context())
			return ok && snap.Volumes["detached"] == 1
		})
		p.Forget(uid(1))
		waitFor(t, "removal", func() bool {
			_, err := os.Stat(filepath.Join(dir, podsName, fmt.Sprint(uid(1))))
			return os.IsNotExist(err)
		})
	})
}

// TestRuntimeDirectoryIsAdopted: the empty directories that a container runtime made for a
// subPath mount, before any daemon ran, are filled and not replaced: it has bound the last one.
func TestRuntimeDirectoryIsAdopted(t *testing.T) {
	dir := memoryDir(t)
	made := filepath.Join(dir, volumePath(extra(1)))
	if err := os.MkdirAll(made, 0o700); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(made)
	if err != nil {
		t.Fatal(err)
	}
	runOn(t, dir, func(p *Projector, root *Root) {
		p.Replace([]Wish{Desired(lonePod(1, 600), SelectAll)})
		waitFor(t, "publication", func() bool {
			_, err := os.Stat(filepath.Join(made, "extra-token"))
			return err == nil
		})
	})
	after, err := os.Stat(made)
	if err != nil || !os.SameFile(before, after) || after.Mode().Perm() != sharedMode {
		t.Errorf("%v, the same directory %v, mode %v", err, os.SameFile(before, after), after.Mode())
	}
}

// TestHintDuringARequest: what somebody alters while a request keeps the volume is repaired as soon as that has ended,
// also when it brought nothing to publish.
func TestHintDuringARequest(t *testing.T) {
	r := settled(t, 1, 3600)
	r.s.sweep = 24 * time.Hour
	r.run(time.Hour) // the watches are of the sweep that is set now
	r.run(r.volume(extra(0)).tokens[0].due.Sub(r.server()) - time.Millisecond)
	r.pass(time.Millisecond)
	r.turn()
	mint := r.flight(isMint)
	r.files[extra(0)]["more"] = simFile{data: "x"}
	r.s.verify(extra(0), r.now)
	r.answer = refusing(403, 0)
	r.finish(mint)
	r.run(hintDelay)
	if _, ok := r.files[extra(0)]["more"]; ok {
		t.Error("not repaired")
	}
}

// TestPublishBeforeRequest: a token that has come is published before its neighbour is asked for, which may take long.
func TestPublishBeforeRequest(t *testing.T) {
	r := newRig(t)
	pod := lonePod(1, 600)
	pod.Spec.Volumes[0] = projected("extra", tokenSource("a", 600, "a"), tokenSource("b", 600, "b"))
	r.apply(pod)
	r.drain()
	r.pass(9 * time.Minute) // both are due
	r.finish(r.until(isMint))
	if jobs := r.turn(); len(jobs) != 1 || !isPublish(jobs[0]) {
		t.Errorf("%d jobs, the first %s", len(jobs), describe(jobs[0]))
	}
}
