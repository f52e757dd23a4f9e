package projector

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestConflictingKeys: a key that appears in an object and conflicts with another
// source's path keeps its own source from changing, and no token from being renewed.
func TestConflictingKeys(t *testing.T) {
	r := newRig(t)
	whole := configMapSource("kube-root-ca.crt", "")
	whole.ConfigMap.Items = nil
	labels := namespaceSource()
	labels.DownwardAPI.Items[0].Path = "labels/namespace"
	pod := testPod(1, "", 0)
	pod.Spec.Volumes = []corev1.Volume{projected("v", tokenSource("", 600, "token"), labels, whole)}
	r.apply(pod)
	r.touchCA()
	r.drain()
	v := r.volume(Key{uid(1), "v"})
	if v.condition() != "ready" {
		t.Fatalf("%s: %v", v.condition(), v.err)
	}
	r.s.touch(rootCA, map[string][]byte{"ca.crt": []byte("new"), "labels": nil}, r.now)
	r.run(20 * time.Minute)
	if v.err == nil || v.err.Reason != ReasonInvalid {
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

// TestUnwatchablePodsAreSaidOnce, and that it is over.
func TestUnwatchablePodsAreSaidOnce(t *testing.T) {
	r := settled(t, 1, 600)
	for range 3 {
		r.s.unwatchable("connection refused")
	}
	r.s.unwatchable("")
	r.s.unwatchable("")
	if !r.says("connection refused") || !r.says("pods are watched again") || r.s.podsErr != "" {
		t.Errorf("log: %s", r.logged.String())
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

// settingsSource projects the key "k" of ConfigMap or Secret "c" to a path; no path: every key.
func settingsSource(kind, path string, optional bool) corev1.VolumeProjection {
	name := corev1.LocalObjectReference{Name: "c"}
	var items []corev1.KeyToPath
	if path != "" {
		items = []corev1.KeyToPath{{Key: "k", Path: path}}
	}
	if kind == KindSecret {
		return corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: name, Items: items, Optional: &optional}}
	}
	return corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: name, Items: items, Optional: &optional}}
}

func settingsRef(kind string) ObjectRef {
	return ObjectRef{Kind: kind, Namespace: "default", Name: "c"}
}

func settingsData(value string) map[string][]byte { return map[string][]byte{"k": []byte(value)} }

// withSources has the volume of a lone pod have these sources as well.
func withSources(ttl int64, sources ...corev1.VolumeProjection) *corev1.Pod {
	pod := lonePod(1, ttl)
	pod.Spec.Volumes[0].Projected.Sources = append(pod.Spec.Volumes[0].Projected.Sources, sources...)
	return pod
}

// TestShadowedToken: a token whose path an optional object takes over is neither asked for nor missed. When the object
// gives the path back, a token is minted at once: the object's last bytes are not taken for it.
func TestShadowedToken(t *testing.T) {
	for name, source := range map[string]corev1.VolumeProjection{
		"item":      settingsSource(KindConfigMap, "extra-token", true),
		"every key": settingsSource(KindSecret, "", true),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			ref := settingsRef(KindConfigMap)
			pod := withSources(86400, source)
			if source.Secret != nil {
				ref = settingsRef(KindSecret)
				pod.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken.Path = "k"
			}
			path := pod.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken.Path
			r.apply(pod)
			r.s.touch(ref, nil, r.now)
			r.drain()
			r.onDisk(extra(1), path)
			r.s.touch(ref, settingsData("object"), r.now)
			r.drain()
			if got := r.files[extra(1)][path].data; got != "object" {
				t.Fatalf("the object does not win: %q", got)
			}
			requests := len(r.requests)
			r.run(48 * time.Hour)
			if ready, err := r.s.ready(pod.UID, r.server()); !ready || err != nil {
				t.Errorf("a container may start: %v %v", ready, err)
			}
			if snap := r.s.snapshot(r.now); len(r.requests) != requests || len(snap.Tokens) != 0 || snap.Volumes["ready"] != 1 {
				t.Errorf("%d requests for a token that nobody sees; tokens %v, volumes %v", len(r.requests)-requests, snap.Tokens, snap.Volumes)
			}
			r.s.touch(ref, nil, r.now)
			r.drain()
			if c := r.onDisk(extra(1), path); c.Lifetime.Expired(r.server()) || len(r.requests) != requests+1 {
				t.Errorf("expires %v, %d requests", c.Lifetime.Expires, len(r.requests)-requests)
			}
		})
	}
}

// TestShadowedTokenAfterRestart: what stands in a token's path then is not adopted as one.
func TestShadowedTokenAfterRestart(t *testing.T) {
	ref := settingsRef(KindConfigMap)
	pod := withSources(86400, settingsSource(KindConfigMap, "extra-token", true))
	first := newRig(t)
	first.apply(pod)
	first.s.touch(ref, settingsData("object"), first.now)
	first.drain()
	r := newRig(t)
	r.files = first.files
	r.apply(pod)
	r.s.touch(ref, settingsData("object"), r.now)
	r.drain()
	if r.made != 0 {
		t.Errorf("%d versions written", r.made)
	}
	r.s.touch(ref, nil, r.now)
	r.drain()
	r.onDisk(extra(1), "extra-token")
}

// TestFailingSourceKeepsWhatItTook: what a source took from an earlier one stays its own while it fails: bytes, mode
// and owner.
func TestFailingSourceKeepsWhatItTook(t *testing.T) {
	ref := settingsRef(KindSecret)
	earlier := corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
		LocalObjectReference: corev1.LocalObjectReference{Name: "earlier"}, Items: []corev1.KeyToPath{{Key: "k", Path: "k"}},
	}}
	named := field("k", "metadata.name")
	for name, source := range map[string]corev1.VolumeProjection{
		"configMap": earlier, "downwardAPI": downwardSource(named), "token": tokenSource("other", 86400, "k"),
	} {
		for _, path := range []string{"k", ""} {
			r := newRig(t)
			pod := withSources(86400, source, settingsSource(KindSecret, path, false))
			security(new(int64(7)), new(int64(9)), nil)(pod)
			r.apply(pod)
			r.s.touch(ObjectRef{Kind: KindConfigMap, Namespace: "default", Name: "earlier"}, settingsData("earlier"), r.now)
			r.s.touch(ref, settingsData("secret"), r.now)
			r.drain()
			before := r.files[extra(1)]["k"]
			if before.data != "secret" {
				t.Fatalf("%s: %q", name, before.data)
			}
			for _, gone := range []map[string][]byte{nil, {"other": nil}} {
				r.s.touch(ref, gone, r.now)
				r.run(25 * time.Hour) // and over a refresh of the token
				after, listed := r.files[extra(1)]["k"]
				if path == "" && gone != nil { // every key there is: none of that name
					if after.data == "secret" {
						t.Errorf("%s: a key that is gone stays", name)
					}
					continue
				}
				if after != before || !listed || r.volume(extra(1)).err == nil {
					t.Errorf("%s by %q: %v, was %v", name, path, after, before)
				}
			}
		}
	}
}

// TestDownwardOrder: of two items with one path, the later wins, also if one of them asks the node.
func TestDownwardOrder(t *testing.T) {
	limit := corev1.DownwardAPIVolumeFile{Path: "f", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "main", Resource: "limits.cpu"}}
	for want, items := range map[string][]corev1.DownwardAPIVolumeFile{
		"2": {field("f", "metadata.name"), limit}, "pod-1": {limit, field("f", "metadata.name")},
	} {
		r := newRig(t)
		pod := withSources(600, downwardSource(items...))
		pod.Spec.NodeName, pod.Spec.Containers = "node", []corev1.Container{{Name: "main"}}
		r.apply(pod)
		r.s.touch(ObjectRef{Kind: KindNode, Name: "node"}, map[string][]byte{"cpu": []byte("2")}, r.now)
		r.drain()
		if got := r.files[extra(1)]["f"].data; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestWorkingSourceDropsBesideAFailingOne: one source fails, another gives less than before: that goes at once.
func TestWorkingSourceDropsBesideAFailingOne(t *testing.T) {
	r := newRig(t)
	r.apply(withSources(86400, settingsSource(KindSecret, "deep/secret", true), settingsSource(KindConfigMap, "", false)))
	r.s.touch(settingsRef(KindSecret), settingsData("secret"), r.now)
	r.s.touch(settingsRef(KindConfigMap), settingsData("map"), r.now)
	r.drain()
	r.s.touch(settingsRef(KindConfigMap), nil, r.now)
	r.s.touch(settingsRef(KindSecret), nil, r.now)
	r.drain()
	files := r.files[extra(1)]
	if _, ok := files["deep/secret"]; ok || files["k"].data != "map" || files["extra-token"].data == "" || len(files) != 2 {
		t.Errorf("published: %v", slices.Sorted(maps.Keys(files)))
	}
}
