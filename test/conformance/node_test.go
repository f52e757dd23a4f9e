package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/token-projector/token-projector/test/conformance/controlplane"
)

// node is a node with its pods and the daemon that projects them, with the node's own credentials.
type node struct {
	name string
	user string
	root string
	pods []*corev1.Pod
	*daemon
	whole *testing.T // at its end the daemon ends
	seen  []string   // every token that was on disk
}

// The whole life of a daemon on a node without a kubelet. The steps share the node, in this order.
func TestNodeCredentials(t *testing.T) {
	n := newNode(t, "node-a")
	n.start(t)
	t.Run("every token is on disk", n.testProjected)
	t.Run("every token was requested once", n.testRequestedOnce)
	t.Run("metrics agree", n.testMetrics)
	t.Run("every token is its pod's", n.testReviews)
	t.Run("a directory is enough for a client", n.testClientInPod)
	t.Run("kill -9 and restart", n.testRestart)
	t.Run("deletion", n.testDeletion)
	t.Run("a terminating pod", n.testTerminating)
	t.Run("SIGTERM", n.testTerminate)
}

// emptyNode makes a node without pods.
func emptyNode(t *testing.T, name string) *node {
	t.Helper()
	createNode(t, name)
	return &node{whole: t, name: name, user: "system:node:" + name, root: filepath.Join(t.TempDir(), "root")}
}

// newNode makes thirty pods of three namespaces and two service accounts. A third has a vault token of ten minutes, a
// third one of two hours, a third none.
func newNode(t *testing.T, name string) *node {
	t.Helper()
	n := emptyNode(t, name)
	namespaces := []string{name + "-x", name + "-y", name + "-z"}
	for _, namespace := range namespaces {
		createNamespace(t, namespace)
	}
	volumes := [][]corev1.Volume{{vault(600)}, {vault(7200)}, nil}
	accounts := []string{"default", appAccount}
	for i := range 30 {
		pod := newPod(namespaces[i/10], fmt.Sprintf("pod-%02d", i), accounts[i%2], name, volumes[i%3]...)
		n.pods = append(n.pods, createPod(t, pod))
	}
	return n
}

// start starts the daemon, or a next one, on the node's root.
func (n *node) start(t *testing.T, flags ...string) {
	t.Helper()
	config, err := plane.Node(n.name)
	if err != nil {
		t.Fatal(err)
	}
	n.startWith(t, config, flags...)
}

// startWith is start with other credentials or another server.
func (n *node) startWith(t *testing.T, config *rest.Config, flags ...string) {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, config); err != nil {
		t.Fatal(err)
	}
	n.daemon = startDaemon(t, n.whole, append([]string{
		"--node-name=" + n.name, "--kubeconfig=" + kubeconfig, "--root-dir=" + n.root, "--log-level=debug",
	}, flags...)...)
}

// awaitFiles waits until every token of the pods is on disk, and ca.crt and namespace beside the API server's. It remembers
// the tokens, for none may be in a log.
func (n *node) awaitFiles(t *testing.T, pods ...*corev1.Pod) {
	t.Helper()
	for _, token := range tokensOf(pods) {
		files := []string{token.path}
		if token.audience == "" {
			files = append(files, "ca.crt", "namespace")
		}
		dir := volumeDir(n.root, token.pod, token.volume)
		eventually(t, func() error { return missing(dir, files...) })
		n.seen = append(n.seen, readToken(t, dir, token.path))
	}
}

func (n *node) testProjected(t *testing.T) {
	n.awaitFiles(t, n.pods...)
	dir := volumeDir(n.root, n.pods[0], apiAccess(t, n.pods[0]))
	if missing(dir, "ca.crt", "no-such-file") == nil {
		t.Error("a file that is not there was not missed")
	}
	target, err := os.Readlink(filepath.Join(dir, "token"))
	if err != nil || target != "..data/token" {
		t.Errorf("token is a link to %q, %v, want ..data/token as the kubelet's", target, err)
	}
}

func (n *node) testRequestedOnce(t *testing.T) {
	want := len(tokensOf(n.pods))
	if want != 50 {
		t.Fatalf("thirty pods ask for %d tokens, want 50", want)
	}
	eventually(t, func() error {
		granted, err := plane.TokensGranted(n.user)
		if err == nil && len(granted) != want {
			err = fmt.Errorf("%d tokens granted to %s, want %d", len(granted), n.user, want)
		}
		return err
	})
}

func (n *node) testMetrics(t *testing.T) {
	eventually(t, func() error {
		return n.wantMetric(float64(len(tokensOf(n.pods))), "token_projector_tokens", "state", "fresh")
	})
	for _, state := range []string{"stale", "expired", "pending"} {
		if err := n.wantMetric(0, "token_projector_tokens", "state", state); err != nil {
			t.Error(err)
		}
	}
	volumes := float64(len(tokensOf(n.pods))) // each of these volumes has one token
	for _, err := range []error{
		n.wantMetric(volumes, "token_projector_volumes", "state", "ready"),
		n.wantMetric(volumes, "token_projector_token_requests_total", "code", "201"),
		n.wantMetric(volumes, "token_projector_publishes_total", "result", "written"),
		n.wantMetric(0, "token_projector_adopted_tokens_total"),
		n.wantMetric(1, "token_projector_root_lock_held"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if n.wantMetric(-1, "token_projector_root_lock_held") == nil || n.wantMetric(0, "no_such_metric") == nil {
		t.Error("a wrong value was not noticed")
	}
}

// review asks the API server whose token it is.
func review(t *testing.T, token, audience string) authenticationv1.TokenReviewStatus {
	t.Helper()
	request := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	answer, err := client.AuthenticationV1().TokenReviews().Create(t.Context(), request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status
}

// notTokenOf says in what the reviewed token is not this pod's.
func notTokenOf(status authenticationv1.TokenReviewStatus, pod *corev1.Pod) error {
	account := "system:serviceaccount:" + pod.Namespace + ":" + pod.Spec.ServiceAccountName
	got := func(key string) string {
		return fmt.Sprint(status.User.Extra["authentication.kubernetes.io/"+key])
	}
	switch {
	case !status.Authenticated:
		return fmt.Errorf("not authenticated: %s", status.Error)
	case status.User.Username != account:
		return fmt.Errorf("user %s, want %s", status.User.Username, account)
	case got("pod-name") != "["+pod.Name+"]" || got("pod-uid") != "["+string(pod.UID)+"]":
		return fmt.Errorf("pod %s %s, want %s %s", got("pod-name"), got("pod-uid"), pod.Name, pod.UID)
	case got("node-name") != "["+pod.Spec.NodeName+"]":
		return fmt.Errorf("node %s, want %s", got("node-name"), pod.Spec.NodeName)
	}
	return nil
}

func (n *node) testReviews(t *testing.T) {
	tokens := tokensOf(n.pods)
	for i, token := range tokens {
		name := token.pod.Namespace + "/" + token.pod.Name + " " + token.path
		value := readToken(t, volumeDir(n.root, token.pod, token.volume), token.path)
		status := review(t, value, token.audience)
		if err := notTokenOf(status, token.pod); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if token.audience != "" && !slices.Equal(status.Audiences, []string{token.audience}) {
			t.Errorf("%s: audiences %q", name, status.Audiences)
		}
		if i > 0 {
			continue
		}
		other := token.pod.DeepCopy()
		other.UID = types.UID("another")
		if notTokenOf(status, other) == nil {
			t.Error("a token of another pod was not noticed")
		}
		if review(t, value+"x", token.audience).Authenticated || review(t, value, "elsewhere").Authenticated {
			t.Error("a forged token, or one for another audience, was accepted")
		}
	}
}
