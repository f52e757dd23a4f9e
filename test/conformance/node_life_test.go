package conformance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// inPod returns a client made of nothing but a directory and the API server's address, as one in the pod would, and the
// namespace that the directory names.
func inPod(t *testing.T, dir string) (c *kubernetes.Clientset, namespace string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "namespace"))
	if err != nil {
		t.Fatal(err)
	}
	host, port := plane.Address()
	return clientFor(t, &rest.Config{
		Host:            "https://" + host + ":" + port,
		BearerTokenFile: filepath.Join(dir, "token"),
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(dir, "ca.crt")},
	}), string(content)
}

func (n *node) testClientInPod(t *testing.T) {
	pod := n.pods[1] // of account "app"
	c, namespace := inPod(t, volumeDir(n.root, pod, apiAccess(t, pod)))
	if namespace != pod.Namespace {
		t.Fatalf("namespace %q, want %q", namespace, pod.Namespace)
	}
	list := func(namespace string) (int, error) {
		pods, err := c.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		return len(pods.Items), err
	}
	if _, err := list(namespace); !apierrors.IsForbidden(err) {
		t.Errorf("pods listed before RBAC grants it: %v", err)
	}
	grantPodList(t, namespace, appAccount)
	eventually(t, func() error {
		got, err := list(namespace)
		if err == nil && got != 10 {
			err = fmt.Errorf("%d pods listed, want 10", got)
		}
		return err
	})
	_, err := list(n.pods[29].Namespace)
	wantForbidden(t, "pods of another namespace", "system:serviceaccount:"+namespace+":app", err)
	_, err = c.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
	wantForbidden(t, "secrets", "system:serviceaccount:"+namespace+":app", err)
}

func grantPodList(t *testing.T, namespace, account string) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "list-pods", Namespace: namespace}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
	}}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: namespace}},
	}
	if _, err := client.RbacV1().Roles(namespace).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.RbacV1().RoleBindings(namespace).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// wantForbidden wants a 403 that names the user: a 403 of someone else would prove nothing.
func wantForbidden(t *testing.T, what, user string, err error) {
	t.Helper()
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), fmt.Sprintf("%q", user)) {
		t.Errorf("%s: %v, want Forbidden for %s", what, err, user)
	}
}

func (n *node) tokenRequests(t *testing.T) int {
	t.Helper()
	requests, err := plane.TokenRequests(n.user)
	if err != nil {
		t.Fatal(err)
	}
	return len(requests)
}

func (n *node) testRestart(t *testing.T) {
	requests := n.tokenRequests(t)
	if requests < len(tokensOf(n.pods)) {
		t.Fatalf("%d requests counted for %d tokens: the counter does not count", requests, len(tokensOf(n.pods)))
	}
	before := readTree(t, filepath.Join(n.root, "pods"))
	n.kill(t)
	wantNoLeak(t, n.logFile, n.seen)
	n.start(t)
	tokens := float64(len(tokensOf(n.pods)))
	eventually(t, func() error {
		return errors.Join(
			n.wantMetric(tokens, "token_projector_tokens", "state", "fresh"),
			n.wantMetric(tokens, "token_projector_adopted_tokens_total"),
			n.wantMetric(tokens, "token_projector_volumes", "state", "ready"))
	})
	if got := n.tokenRequests(t); got != requests {
		t.Errorf("%d TokenRequests after a restart", got-requests)
	}
	if err := before.changed(readTree(t, filepath.Join(n.root, "pods"))); err != nil {
		t.Errorf("a restart: %v", err)
	}
	// The restarted daemon works, and what it does is counted.
	pod := createPod(t, newPod(n.pods[0].Namespace, "after-restart", "default", n.name, vault(600)))
	n.awaitFiles(t, pod)
	if got := n.tokenRequests(t); got < requests+2 {
		t.Errorf("%d TokenRequests for a pod with two tokens", got-requests)
	}
	for path := range before {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("gone after a restart: %v", err)
		}
	}
	n.pods = append(n.pods, pod)
}

// exists says that the pod's directory is there; gone, that it is not.
func (n *node) exists(pod *corev1.Pod) error {
	_, err := os.Lstat(podDir(n.root, pod))
	return err
}

func (n *node) gone(pod *corev1.Pod) error {
	err := n.exists(pod)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("the directory of %s/%s is still there: %v", pod.Namespace, pod.Name, err)
}

// popPod takes a pod that the next steps no longer count.
func (n *node) popPod() *corev1.Pod {
	pod := n.pods[len(n.pods)-1]
	n.pods = n.pods[:len(n.pods)-1]
	return pod
}

func (n *node) testDeletion(t *testing.T) {
	pod := n.popPod()
	if err := n.exists(pod); err != nil {
		t.Fatal(err)
	}
	neighbour := readTree(t, podDir(n.root, n.pods[0]))
	deletePod(t, pod, 0)
	eventually(t, func() error { return n.gone(pod) })
	if err := neighbour.changed(readTree(t, podDir(n.root, n.pods[0]))); err != nil {
		t.Errorf("a pod was deleted, and of its neighbour %v", err)
	}
	eventually(t, func() error {
		return n.wantMetric(float64(len(tokensOf(n.pods))), "token_projector_tokens", "state", "fresh")
	})
}

// A pod keeps its tokens while it terminates, until its object is gone: here a finalizer holds one, a grace period another.
func (n *node) testTerminating(t *testing.T) {
	held := newPod(n.pods[0].Namespace, "held", "default", n.name)
	held.Finalizers = []string{"conformance.invalid/held"}
	held = createPod(t, held)
	graceful := createPod(t, newPod(n.pods[0].Namespace, "graceful", "default", n.name))
	n.awaitFiles(t, held, graceful)
	deletePod(t, held, 0)
	deletePod(t, graceful, 600)

	// Events come in order: once a later deletion is done, these two have been seen.
	later := n.popPod()
	deletePod(t, later, 0)
	eventually(t, func() error { return n.gone(later) })
	if err := errors.Join(n.exists(held), n.exists(graceful)); err != nil {
		t.Errorf("the tokens of a terminating pod are gone: %v", err)
	}

	deletePod(t, graceful, 0)
	patch := []byte(`{"metadata":{"finalizers":null}}`)
	_, err := client.CoreV1().Pods(held.Namespace).Patch(t.Context(), held.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return errors.Join(n.gone(held), n.gone(graceful)) })
}

func (n *node) testTerminate(t *testing.T) {
	before := readTree(t, filepath.Join(n.root, "pods"))
	if err := n.terminate(t); err != nil {
		t.Errorf("SIGTERM: %v, want exit code 0", err)
	}
	if err := before.changed(readTree(t, filepath.Join(n.root, "pods"))); err != nil {
		t.Errorf("at exit %v", err)
	}
	wantNoLeak(t, n.logFile, n.seen)
}
