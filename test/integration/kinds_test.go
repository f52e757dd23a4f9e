package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// dir is a pod's directory.
func (w *world) dir(pod *corev1.Pod) string { return filepath.Join(w.root, "pods", string(pod.UID)) }

func (w *world) waitGone(pods ...*corev1.Pod) {
	w.t.Helper()
	for _, pod := range pods {
		eventually(w.t, "removal of "+pod.Name, func() bool { _, err := os.Lstat(w.dir(pod)); return os.IsNotExist(err) })
	}
}

// phase sets a pod's phase, as its kubelet would.
func (w *world) phase(pod *corev1.Pod, status corev1.PodStatus) {
	w.t.Helper()
	pod = pod.DeepCopy()
	pod.ResourceVersion, pod.Status = "", status
	if _, err := fakeapi.UpdateStatus(w.api, pod); err != nil {
		w.t.Fatal(err)
	}
}

// boundTo fails the test unless the pod's API token is its own.
func (w *world) boundTo(pod *corev1.Pod) {
	w.t.Helper()
	data, err := os.ReadFile(w.path(pod, apiVolume(pod), "token"))
	check(w.t, err)
	if c, err := projector.ParseClaims(data); err != nil || c.PodUID != pod.UID {
		w.t.Errorf("%s has the token of pod %s (%v)", pod.Name, c.PodUID, err)
	}
}

// TestPodsOfEveryKind: whatever its phase, network or user namespace, a pod that may start has its volumes; one that has
// ended, however it did, has none although its object is still there. Others of the node are untouched by all that.
func TestPodsOfEveryKind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	d := w.start()
	bystander := w.pod("demo", "bystander")
	ended := map[string]corev1.PodStatus{
		"succeeded": {Phase: corev1.PodSucceeded},
		"failed":    {Phase: corev1.PodFailed},
		"evicted":   {Phase: corev1.PodFailed, Reason: "Evicted", Message: "The node was low on resource: memory."},
	}
	alive := map[string]func(*corev1.Pod){
		"pending":      func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending },
		"unknown":      func(p *corev1.Pod) { p.Status.Phase = corev1.PodUnknown },
		"running":      func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning },
		"host-network": func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		"host-users":   func(p *corev1.Pod) { p.Spec.HostUsers = new(false) },
	}
	var living, dying []*corev1.Pod
	for name, change := range alive {
		pod := w.pod("demo", name)
		with := pod.DeepCopy()
		change(with)
		w.phase(w.change(pod, func(p *corev1.Pod) { p.Spec = with.Spec }), with.Status)
		living = append(living, pod)
	}
	for name := range ended {
		dying = append(dying, w.pod("demo", name))
	}
	w.waitPublished(append(append(living, dying...), bystander)...)
	before := w.contents(append(living, bystander)...)
	for _, pod := range dying {
		w.phase(pod, ended[pod.Name])
	}
	w.waitGone(dying...)
	for _, pod := range append(living, bystander) {
		w.boundTo(pod)
		wantOwner(t, w.path(pod, apiVolume(pod), "token"), os.Geteuid(), os.Getegid())
	}
	for path, token := range w.contents(append(living, bystander)...) {
		if string(token) != string(before[path]) {
			t.Errorf("%s was renewed", path)
		}
	}
	d.Terminate()
}

// TestMirrorPods: the API server knows them, but their files are the kubelet's.
func TestMirrorPods(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{NoAPIAccessVolume: true})
	d := w.start()
	mirror := w.pod("demo", "mirror", tokenVolume("vault", "vault", 600))
	mirror = w.change(mirror, func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "hash"} })
	w.waitGone(mirror) // it was an ordinary one for a moment
	pod := w.pod("demo", "web", tokenVolume("vault", "vault", 600))
	w.waitPublished(pod)
	if _, err := os.Lstat(w.dir(mirror)); !os.IsNotExist(err) {
		t.Errorf("a mirror pod has a directory: %v", err)
	}
	d.Terminate()
}

// TestRecreated: pods that are deleted and made again at once under their names, ten times over, each have tokens of
// their own, and nothing is left of those before.
func TestRecreated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	d := w.start()
	var old []*corev1.Pod
	for range 10 {
		if len(old) > 0 {
			check(t, w.api.Delete(old[len(old)-1], atOnce()))
		}
		old = append(old, w.pod("demo", "web"))
	}
	last := old[9]
	w.waitPublished(last)
	w.boundTo(last)
	w.waitGone(old[:9]...)
	d.Terminate()
}

// TestMovedByAStatefulSet: a pod of the same name that now runs on another node is not ours any more, until it comes back.
func TestMovedByAStatefulSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	_, err := fakeapi.Create(w.api, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "elsewhere"}})
	check(t, err)
	d := w.start()
	here := w.pod("demo", "db-0")
	w.waitPublished(here)
	check(t, w.api.Delete(here, atOnce()))
	there, err := fakeapi.Create(w.api, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "db-0"},
		Spec:       corev1.PodSpec{NodeName: "elsewhere", Containers: here.Spec.Containers},
	})
	check(t, err)
	w.waitGone(here)
	check(t, w.api.Delete(there, atOnce()))
	back := w.pod("demo", "db-0")
	w.waitPublished(back)
	w.boundTo(back)
	if _, err := os.Lstat(w.dir(there)); !os.IsNotExist(err) {
		t.Errorf("another node's pod has a directory: %v", err)
	}
	d.Terminate()
}

// TestThousandPods: created as fast as the server takes them, each has its token, for one request each.
func TestThousandPods(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	w.api.Inject(fakeapi.Fault{Match: fakeapi.TokenRequests, Token: &fakeapi.TokenEdit{Lifetime: 24 * time.Hour}}) // none is due soon
	d := w.start()
	pods := make([]*corev1.Pod, 1000)
	for i := range pods {
		pods[i] = w.pod("demo", fmt.Sprintf("web-%d", i))
	}
	w.waitPublished(pods...)
	eventually(t, "all of them ready", func() bool { return d.metric("token_projector_volumes", "state", "ready") == 1000 })
	if n := d.metric("token_projector_token_requests_total", "code", "201"); n != 1000 {
		t.Errorf("%v requests for 1000 tokens", n)
	}
	for _, pod := range pods {
		w.boundTo(pod)
	}
	d.Terminate()
}

// TestServiceAccountRecreated: the tokens of an account that is deleted and made again under its name are the dead one's
// until their refresh, and then the new one's; no longer.
func TestServiceAccountRecreated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{MaxTokenExpiration: 5 * time.Second})
	d := w.start()
	check(t, w.api.AddNamespace("demo"))
	first, pod := w.employ("app")
	w.waitPublished(pod)
	token := w.path(pod, "vault", "token")
	if got := accountOf(t, token); got != string(first.UID) {
		t.Fatalf("the token is of account %s, want %s", got, first.UID)
	}
	check(t, w.api.Delete(first, metav1.DeleteOptions{}))
	second, err := fakeapi.Create(w.api, serviceAccount("app"))
	check(t, err)
	eventually(t, "a token of the new account", func() bool { return accountOf(t, token) == string(second.UID) })
	d.Terminate()
}

func serviceAccount(name string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name}}
}

// employ makes an account, and a pod of that name with a token of it.
func (w *world) employ(name string) (*corev1.ServiceAccount, *corev1.Pod) {
	w.t.Helper()
	account, err := fakeapi.Create(w.api, serviceAccount(name))
	check(w.t, err)
	pod, err := fakeapi.Create(w.api, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: name, AutomountServiceAccountToken: new(false), Containers: []corev1.Container{{Name: "main", Image: "scratch"}},
			Volumes: []corev1.Volume{tokenVolume("vault", "vault", 3600)},
		},
	})
	check(w.t, err)
	return account, pod
}

// accountOf is the UID of the service account that a token file names.
func accountOf(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	parsed, err := jwt.ParseSigned(string(data), []jose.SignatureAlgorithm{jose.ES256})
	check(t, err)
	var claims struct {
		Kubernetes struct {
			ServiceAccount struct {
				UID string `json:"uid"`
			} `json:"serviceaccount"`
		} `json:"kubernetes.io"`
	}
	check(t, parsed.UnsafeClaimsWithoutVerification(&claims))
	return claims.Kubernetes.ServiceAccount.UID
}
