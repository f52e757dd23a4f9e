package projector

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// of is the pod with that UID; the zero PodStatus if there is none.
func (s Status) of(uid types.UID) PodStatus {
	for _, p := range s.Pods {
		if p.UID == uid {
			return p
		}
	}
	return PodStatus{}
}

// TestStatus tells everything of a pod in order, and of one that is not.
func TestStatus(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(2, "vault", 600)) // no configMap yet
	r.apply(lonePod(1, 600))
	r.drain()
	r.answer = refusing(403, 0)
	r.pass(550 * time.Second)
	r.drain()
	got := r.s.status(r.now)
	if got.Synced || !got.Time.Equal(r.server()) || len(got.Pods) != 2 {
		t.Errorf("%+v", got)
	}
	one := got.of(uid(1))
	token := one.Volumes[0].Tokens[0]
	want := PodStatus{UID: "uid-1", Namespace: "default", Name: "pod-1", ServiceAccount: "default", Volumes: []VolumeStatus{{
		Name: "extra", State: "failed", Version: r.volume(extra(1)).version, Tokens: []TokenStatus{{
			Path: "extra-token", Audience: "vault", State: "stale", Issued: issuedAt, Expires: issuedAt.Add(10 * time.Minute),
			RefreshDue: r.volume(extra(1)).tokens[0].retryAt,
			Error:      &VolumeError{ReasonTokenRequest, `token "extra-token" (audience "vault"): 403: refused; let the node request it: for a pod of its own, with an audience of the pod's spec`},
		}},
		Error: &VolumeError{ReasonTokenRequest, `token "extra-token" (audience "vault"): 403: refused; let the node request it: for a pod of its own, with an audience of the pod's spec`},
	}}}
	if diff := cmp.Diff(want, one); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(one.Volumes[0].Version, "..v") || !token.RefreshDue.After(r.server()) {
		t.Errorf("version %q, due %v", one.Volumes[0].Version, token.RefreshDue)
	}
	for _, v := range got.of(uid(2)).Volumes {
		token := v.Tokens[0]
		if v.Name == "kube-api-access-x" && (v.State != "pending" || v.Version != "" || v.Error != nil ||
			token.State != "pending" || !token.Issued.IsZero() || !token.Expires.IsZero()) {
			t.Errorf("waits for its configMap: %+v", v)
		}
	}
}

// TestStatusOfUnrenewed: no refresh is due that will not come.
func TestStatusOfUnrenewed(t *testing.T) {
	r := settled(t, 3, 600)
	due := func(n int) time.Time { return r.s.status(r.now).of(uid(n)).Volumes[0].Tokens[0].RefreshDue }
	deleted := metav1.NewTime(r.server().Add(-time.Minute))
	dead := lonePod(0, 600)
	dead.DeletionTimestamp = &deleted
	r.apply(dead)
	r.apply(lonePod(1, 601)) // other sources than it had
	r.s.forget(uid(2), r.now)
	r.turn() // its removal is in flight
	if !due(0).IsZero() || !due(1).IsZero() || !due(2).IsZero() {
		t.Errorf("dead: %v, changed: %v, gone: %v", due(0), due(1), due(2))
	}
	r.apply(lonePod(2, 600))
	if got := r.s.status(r.now).of(uid(2)); got.Gone {
		t.Error("wanted again, and gone")
	}
}

// TestStatusAfterRestart: what is adopted has its version and times; a volume that
// is not wanted any more is not shown.
func TestStatusAfterRestart(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(1, "vault", 600))
	r.touchCA()
	r.drain()
	next := r.restarted(time.Minute)
	next.s.orphans(map[types.UID]bool{uid(1): true}, next.now)
	next.apply(testPod(1, "vault", 600))
	next.drain()
	for _, v := range next.s.status(next.now).of(uid(1)).Volumes {
		if v.State != "ready" || v.Version != "..v2" || v.Tokens[0].Expires.IsZero() {
			t.Errorf("%+v", v)
		}
	}
	next.s.verify(extra(1), next.now)
	next.pass(time.Second)
	next.until(isPublish)
	pod := testPod(1, "vault", 600)
	pod.Spec.Volumes = pod.Spec.Volumes[:1]
	next.apply(pod)
	if got := next.s.status(next.now).of(uid(1)).Volumes; len(got) != 1 || got[0].Name != "kube-api-access-x" {
		t.Errorf("%+v", got)
	}
	next.s.orphans(map[types.UID]bool{uid(2): true}, next.now)
	next.s.synced = true
	next.s.settle(next.s.pods[uid(2)], next.now)
	next.until(isRemoval)
	next.apply(lonePod(2, 600))
	if got := next.s.status(next.now).of(uid(2)); got.Name != "pod-2" {
		t.Errorf("wanted again while it is being removed, and without a name: %+v", got)
	}
}

// TestStatusIsACopy: whoever has one can neither see nor do anything later.
func TestStatusIsACopy(t *testing.T) {
	r := newRig(t)
	r.answer = refusing(403, 0)
	r.apply(lonePod(1, 600))
	r.drain()
	status := r.s.status(r.now)
	before := fmt.Sprint(*status.Pods[0].Volumes[0].Error, *status.Pods[0].Volumes[0].Tokens[0].Error)
	v := &status.Pods[0].Volumes[0]
	v.Error.Message, v.Tokens[0].Error.Message = "altered", "altered"
	v = &r.s.status(r.now).Pods[0].Volumes[0]
	if after := fmt.Sprint(*v.Error, *v.Tokens[0].Error); after != before || !strings.Contains(before, "refused") {
		t.Errorf("%s, then %s", before, after)
	}
}

// TestStatusGone is said only when the pod list is complete, and no more when the
// pod is wanted again.
func TestStatusGone(t *testing.T) {
	r := newRig(t)
	r.s.awaitStopped = true
	r.s.orphans(map[types.UID]bool{uid(1): true, uid(2): true}, r.now)
	gone := func(n int) bool { return r.s.status(r.now).of(uid(n)).Gone }
	if gone(1) || gone(2) {
		t.Error("before the list")
	}
	r.apply(lonePod(1, 600))
	r.s.replace(r.wishes(), r.now)
	if gone(1) || !gone(2) {
		t.Errorf("listed %v, not listed %v", gone(1), gone(2))
	}
	r.drain()
	if due := r.s.status(r.now).of(uid(1)).Volumes[0].Tokens[0].RefreshDue; due.IsZero() {
		t.Error("no refresh is due")
	}
	succeeded := lonePod(2, 600)
	succeeded.Status.Phase = "Succeeded"
	r.apply(succeeded)
	if got := r.s.status(r.now).of(uid(2)); got.Name != "pod-2" {
		t.Errorf("a pod of which only the directory was known has a name now: %+v", got)
	}
	r.s.forget(uid(1), r.now)
	if due := r.s.status(r.now).of(uid(1)).Volumes[0].Tokens[0].RefreshDue; !due.IsZero() || !gone(1) {
		t.Errorf("gone %v, due %v", gone(1), due)
	}
}

// TestStatusIsSorted and knows the directories, and its JSON holds no token.
func TestStatusIsSorted(t *testing.T) {
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		p, end := running(t, dir, (&issuer{now: time.Now}).mint, nil)
		defer end()
		var wishes []Wish
		for _, n := range []int{3, 6, 1, 5, 2, 4} {
			w := Desired(testPod(n, "vault", 600), SelectAll)
			w.Volumes[0].Sources = append(w.Volumes[0].Sources, Source{Token: &TokenSource{Path: "a", ExpirationSeconds: 600}})
			wishes = append(wishes, w)
		}
		p.Replace(wishes)
		p.Touch(rootCA, certificate)
		for _, w := range wishes {
			if err := p.WaitReady(t.Context(), w.UID); err != nil {
				t.Fatal(err)
			}
		}
		status, err := p.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var order []string
		for _, pod := range status.Pods {
			for _, v := range pod.Volumes {
				if v.Dir != p.config.Root.Path(Key{pod.UID, v.Name}) || v.State != "ready" {
					t.Errorf("%+v", v)
				}
				for _, token := range v.Tokens {
					order = append(order, pod.Name+" "+v.Name+" "+token.Path)
				}
			}
		}
		var want []string
		for _, pod := range []string{"pod-1", "pod-2", "pod-3", "pod-4", "pod-5", "pod-6"} {
			want = append(want, pod+" extra extra-token", pod+" kube-api-access-x a", pod+" kube-api-access-x token")
		}
		if diff := cmp.Diff(want, order); diff != "" {
			t.Error(diff)
		}
		text, err := json.Marshal(status)
		if err != nil || strings.Contains(string(text), tokenHeader) || !strings.Contains(string(text)+sign(nil), tokenHeader) {
			t.Errorf("a token in the JSON, or a planted one is not found: %v", err)
		}
		var back Status
		if err := json.Unmarshal(text, &back); err != nil || cmp.Diff(status, back) != "" {
			t.Errorf("%v\n%s", err, cmp.Diff(status, back))
		}
	})
}
