package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// TestJudge: a container whose volume the test itself spoils records what a
// judge needs to see every fault.
func TestJudge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	dir := t.TempDir()
	if err := w.api.AddNamespace("demo"); err != nil {
		t.Fatal(err)
	}
	good, other := w.issue("demo"), w.issue("demo")
	remove := w.api.Inject(fakeapi.Fault{Match: fakeapi.TokenRequests, Token: &fakeapi.TokenEdit{Shift: -2 * time.Hour}})
	expired := w.issue("demo")
	remove()
	mixed := good[:len(good)-20] + other[len(other)-20:]
	box := &sandbox{Argv: []string{selfInside, "read", "/tokens/token"}, Mounts: map[string]string{"/tokens": dir}}
	if err := w.processes.start("judged", "main", box); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ name, token, fault string }{
		{"absent", "", "no such file"}, {"good", good, ""}, {"truncated", good[:len(good)/2], "not a signed JWT"},
		{"mixed of two", mixed, "nobody has issued"}, {"expired", expired, "expired 1h"}, {"good again", other, ""},
	} {
		if step.token != "" {
			plant(t, dir, step.token)
		}
		before := len(w.records("judged"))
		daemontest.Eventually(t, "two more records", func() bool { return len(w.records("judged")) > before+1 })
		faults := strings.Join(judge(w.records("judged")[before+1:], w.api.TokenBytes()), "\n")
		if (faults == "") != (step.fault == "") || !strings.Contains(faults, step.fault) {
			t.Errorf("%s: the judge says %q, want %q", step.name, faults, step.fault)
		}
	}
	alien := []record{{PID: 1, Signal: "x"}, {PID: 2, Signal: "x"}}
	if len(judge(alien, nil)) != 1 {
		t.Error("the judge does not see that a container was started anew")
	}
}

// issue has a token issued to nobody in particular.
func (w *world) issue(namespace string) string {
	w.t.Helper()
	client, err := w.api.Clientset()
	if err != nil {
		w.t.Fatal(err)
	}
	accounts := client.CoreV1().ServiceAccounts(namespace)
	answer, err := accounts.CreateToken(w.t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.Status.Token
}

func plant(t *testing.T, dir, token string) {
	t.Helper()
	staged := filepath.Join(dir, "staged")
	if err := os.WriteFile(staged, []byte(token), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(staged, filepath.Join(dir, "token")); err != nil {
		t.Fatal(err)
	}
}

// TestRestart kills the provider and starts it again. Its containers run on and
// see every rotation; what was not due is neither asked for nor rewritten.
func TestRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	w.api.Inject(fakeapi.Fault{
		Match: fakeapi.Match{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: "fast"},
		Token: &fakeapi.TokenEdit{Lifetime: 15 * time.Second},
	})
	w.start()
	fast, slow := w.pod("fast", vaultToken), w.pod("slow", apiToken)
	daemontest.Eventually(t, "a rotation", func() bool { return w.tokensSeen(fast) > 1 })
	w.waitRecords(slow, 1)
	current := filepath.Join(w.podDir(slow), "volumes/kubernetes.io~projected/vault/..data")
	version, err := os.Readlink(current)
	if err != nil {
		t.Fatal(err)
	}
	w.kill()
	w.waitRecords(fast, 10)
	w.waitRecords(slow, 10)
	w.api.ForgetRequests()
	before := w.tokensSeen(fast)
	w.start()
	daemontest.Eventually(t, "two rotations after the restart", func() bool { return w.tokensSeen(fast) > before+1 })
	w.waitRecords(slow, 1)
	w.judge(fast, slow)
	if n := len(w.api.Requests(fakeapi.Match{Verb: "create", Subresource: "token", Namespace: "slow"})); n > 0 {
		t.Errorf("%d requests for tokens that were not due", n)
	}
	if n := len(w.api.Requests(fakeapi.Match{Verb: "create", Subresource: "token", Namespace: "fast"})); n < 2 {
		t.Errorf("%d requests counted for two rotations", n)
	}
	if now, err := os.Readlink(current); err != nil || now != version {
		t.Errorf("rewritten: %s, then %s, %v", version, now, err)
	}
}

// TestDeletePod: a pod starts when its tokens are there, which takes a while; told to
// end, it ends; and then it goes with all that is remembered of it.
func TestDeletePod(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	w.api.Inject(fakeapi.Fault{Match: fakeapi.TokenRequests, Latency: time.Second})
	w.start()
	pod := w.pod("demo", apiToken)
	w.waitRecords(pod, 1)
	if err := w.api.Delete(pod, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	daemontest.Eventually(t, "end of its directory", func() bool { return !exists(w.podDir(pod)) })
	if left, err := w.processes.pods(); len(left) > 0 || err != nil {
		t.Errorf("remembered for ever: %v, %v", left, err)
	}
	if !w.signalled(pod) {
		t.Error("its process was not told to end")
	}
	if _, err := fakeapi.Get[*corev1.Pod](w.api, "demo", "web"); !apierrors.IsNotFound(err) {
		t.Errorf("its object: %v", err)
	}
	w.judge(pod)
}

// TestDeletedUnderItsContainers: a pod's object is gone, with or without a
// provider to see it, and its process takes its time. Until that has ended it
// reads its token; then everything of it goes.
func TestDeletedUnderItsContainers(t *testing.T) {
	for name, dead := range map[string]bool{"while the provider runs": false, "while it is dead": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeapi.Options{})
			w.start()
			pod, sibling := w.pod("demo", vaultToken), w.pod("other", apiToken)
			w.waitRecords(pod, 1)
			w.waitRecords(sibling, 1)
			if dead {
				w.kill()
			}
			w.deleteNow(pod)
			w.deleteNow(sibling)
			if dead {
				w.start()
			}
			daemontest.Eventually(t, "SIGTERM", func() bool { return w.signalled(pod) && w.signalled(sibling) })
			w.interrupt(sibling)
			// The Projector learns of both in this order: now it knows that the first is gone.
			daemontest.Eventually(t, "end of the sibling's directory", func() bool { return !exists(w.podDir(sibling)) })
			w.waitRecords(pod, 10)
			if !exists(w.podDir(pod)) {
				t.Error("the directory is gone under the running process")
			}
			w.interrupt(pod)
			daemontest.Eventually(t, "end of its directory", func() bool { return !exists(w.podDir(pod)) })
			w.judge(pod, sibling)
			if left, err := w.processes.pods(); len(left) > 0 || err != nil {
				t.Errorf("remembered for ever: %v, %v", left, err)
			}
		})
	}
}

// TestOnlyTheDirectoryIsLeft: the process has ended and the pod was deleted while
// no provider ran, and what was remembered is lost.
func TestOnlyTheDirectoryIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	w.start()
	pod := w.pod("demo", apiToken)
	w.waitRecords(pod, 1)
	w.kill()
	w.interrupt(pod)
	if err := w.processes.stop(t.Context(), pod.UID, "main", time.Minute); err != nil {
		t.Fatal(err)
	}
	w.deleteNow(pod)
	if err := w.processes.forget(pod.UID); err != nil || !exists(w.podDir(pod)) {
		t.Fatalf("%v, directory there: %v", err, exists(w.podDir(pod)))
	}
	w.start()
	daemontest.Eventually(t, "end of its directory", func() bool { return !exists(w.podDir(pod)) })
	w.judge(pod)
}
