package projector

import (
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

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

// TestErrorOfAShadowedToken: a token is refused before the object that shadows it is known; afterwards nobody
// asks for it, nothing is missing, and the volume is in order.
func TestErrorOfAShadowedToken(t *testing.T) {
	r := newRig(t)
	pod := withSources(86400, settingsSource(KindConfigMap, "extra-token", true))
	r.answer = refusing(403, 0)
	r.apply(pod)
	r.drain() // refused, while the configMap's watch has not answered
	r.s.touch(settingsRef(KindConfigMap), settingsData("object"), r.now)
	r.run(time.Hour)
	v := r.volume(extra(1))
	if len(r.files[extra(1)]) != 1 || !v.tokens[0].shadowed {
		t.Fatal("not published")
	}
	if v.err != nil || v.condition() != "ready" {
		t.Errorf("%d requests, %s: %v; told %d times", len(r.requests), v.condition(), v.err, len(r.events.Events))
	}
}

// TestShadowedTokenRestart: P4 for a token whose path a whole configMap gives: a restart sends no request and
// writes nothing, whether the configMap's watch answers at once, late, or never.
func TestShadowedTokenRestart(t *testing.T) {
	ref := settingsRef(KindSecret)
	pod := withSources(86400, settingsSource(KindSecret, "", false))
	pod.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken.Path = "k"
	first := newRig(t)
	first.apply(pod)
	first.s.touch(ref, settingsData("object"), first.now)
	first.drain()
	if got := first.files[extra(1)]["k"].data; got != "object" {
		t.Fatalf("%q", got)
	}
	for name, after := range map[string]func(*rig){
		"it answers a second later": func(r *rig) { r.run(time.Second); r.s.touch(ref, settingsData("object"), r.now); r.drain() },
		"it may not be read":        func(r *rig) { r.s.untouchable(ref, "forbidden", true, r.now); r.run(time.Minute) },
		"it is gone":                func(r *rig) { r.s.touch(ref, nil, r.now); r.run(time.Minute) },
	} {
		first.files[extra(1)]["k"] = simFile{data: "object", mode: 0o644, owner: first.s.self}
		r := first.restarted(time.Minute)
		r.apply(pod)
		r.drain()
		after(r)
		if got := r.files[extra(1)]["k"].data; len(r.requests) != 0 || r.made != first.made || got != "object" {
			t.Errorf("%s: %d requests, %d versions written, the object's file is still its own: %v", name, len(r.requests), r.made-first.made, got == "object")
		}
	}
}

// TestResizeBesideAFailingSource: a container gets its first limit (in-place resize) while a configMap is gone.
// The configMap's last bytes stay: its number among the sources has changed, because the node is no source any more.
func TestResizeBesideAFailingSource(t *testing.T) {
	r := newRig(t)
	limit := corev1.DownwardAPIVolumeFile{Path: "limit", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "main", Resource: "limits.cpu"}}
	pod := withSources(86400, downwardSource(limit, field("name", "metadata.name")), settingsSource(KindConfigMap, "", false))
	pod.Spec.NodeName, pod.Spec.Containers = "node", []corev1.Container{{Name: "main"}}
	r.apply(pod)
	r.s.touch(ObjectRef{Kind: KindNode, Name: "node"}, map[string][]byte{"cpu": []byte("4")}, r.now)
	r.s.touch(settingsRef(KindConfigMap), settingsData("settings"), r.now)
	r.drain()
	if r.files[extra(1)]["k"].data != "settings" || r.files[extra(1)]["limit"].data != "4" {
		t.Fatalf("%v", slices.Sorted(maps.Keys(r.files[extra(1)])))
	}
	r.s.touch(settingsRef(KindConfigMap), nil, r.now) // deleted
	r.drain()
	if r.files[extra(1)]["k"].data != "settings" {
		t.Fatal("lost at once")
	}
	pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}
	r.apply(pod)
	r.drain()
	files := r.files[extra(1)]
	if files["limit"].data != "2" || files["k"].data != "settings" || files["name"].data != "pod-1" {
		t.Errorf("limit %q, the configMap's file %q, name %q", files["limit"].data, files["k"].data, files["name"].data)
	}
}

// TestWishWithErrAndSources: the exported Volume may hold an Err beside its sources.
func TestWishWithErrAndSources(t *testing.T) {
	r := settled(t, 1, 600)
	pod := lonePod(0, 600)
	pod.Spec.Volumes[0].Projected.Sources = append(pod.Spec.Volumes[0].Projected.Sources, tokenSource("x", 600, "x"))
	w := Desired(pod, SelectAll)
	w.Volumes[0].Err = &VolumeError{ReasonInvalid, "says the caller"}
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("the owner panics: %v", p)
		}
	}()
	r.s.apply(w, r.now)
}

// TestWaitConflict: keys of a configMap that conflict with a path keep the first version back, but whoever edits
// the configMap puts it right: no error that says never.
func TestWaitConflict(t *testing.T) {
	r := newRig(t)
	pod := conflictPod()
	r.apply(pod)
	r.s.touch(rootCA, map[string][]byte{"labels": nil}, r.now)
	r.drain()
	if done, err := r.s.ready(pod.UID, r.server()); done {
		t.Errorf("WaitReady gives up: %v", err)
	}
	r.touchCA()
	r.drain()
	if ready, err := r.s.ready(pod.UID, r.server()); !ready || err != nil {
		t.Errorf("%v %v", ready, err)
	}
}
