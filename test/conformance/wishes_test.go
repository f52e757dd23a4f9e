package conformance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/utils/ptr"
)

// What pods want, and how it changes, as the real server says it. The steps share a node and its daemon.
func TestWishes(t *testing.T) {
	n := emptyNode(t, "node-wishes")
	createNamespace(t, n.name)
	n.start(t)
	t.Run("configMaps and secrets", n.testObjects)
	t.Run("trust bundles", n.testTrustBundles)
	t.Run("labels and resources", n.testDownward)
	t.Run("an ephemeral container", n.testEphemeralContainer)
	t.Run("events", n.testEvents)
	t.Run("pods of every kind", n.testKinds)
	t.Run("the same name again", n.testRecreated)
	t.Run("moved by a StatefulSet", n.testMoved)
	t.Run("a thousand at once", n.testThousand)
	if err := n.terminate(t); err != nil {
		t.Errorf("SIGTERM: %v, want exit code 0", err)
	}
	wantNoLeak(t, n.logFile, n.seen)
}

// mixed makes a pod with one volume of a token and these sources, which no container mounts.
func (n *node) mixed(t *testing.T, name string, change func(*corev1.Pod), sources ...corev1.VolumeProjection) *corev1.Pod {
	t.Helper()
	volume := vault(3600)
	volume.Projected.Sources = append(volume.Projected.Sources, sources...)
	pod := newPod(n.name, name, appAccount, n.name, volume)
	if change != nil {
		change(pod)
	}
	return createPod(t, pod)
}

// holds says what the file of the pod's volume lacks.
func (n *node) holds(pod *corev1.Pod, file, want string) error {
	got, err := os.ReadFile(filepath.Join(volumeDir(n.root, pod, vaultVolume), file))
	if err == nil && string(got) != want {
		err = fmt.Errorf("%s holds %q, want %q", file, got, want)
	}
	return err
}

func (n *node) awaitContent(t *testing.T, pod *corev1.Pod, file, want string) {
	t.Helper()
	eventually(t, func() error { return n.holds(pod, file, want) })
}

// Objects that are missing, made, changed, deleted and made again.
func (n *node) testObjects(t *testing.T) {
	named := corev1.LocalObjectReference{Name: "settings"}
	pod := n.mixed(t, "objects", nil,
		corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named}},
		corev1.VolumeProjection{Secret: &corev1.SecretProjection{
			LocalObjectReference: named, Items: []corev1.KeyToPath{{Key: "password", Path: "deep/password"}}, Optional: ptr.To(true),
		}})
	meta := metav1.ObjectMeta{Name: "settings"}
	configMaps, secrets := client.CoreV1().ConfigMaps(n.name), client.CoreV1().Secrets(n.name)
	configMap := func(v string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"colour": v}}
	}
	eventually(t, func() error { return n.wantMetric(1, "token_projector_volume_errors", "reason", "ObjectMissing") })
	if err := missing(volumeDir(n.root, pod, vaultVolume), vaultFile); err == nil {
		t.Error("half a volume was published")
	}
	must[*corev1.ConfigMap](t)(configMaps.Create(t.Context(), configMap("blue"), metav1.CreateOptions{}))
	n.awaitContent(t, pod, "colour", "blue")
	must[*corev1.ConfigMap](t)(configMaps.Update(t.Context(), configMap("green"), metav1.UpdateOptions{}))
	n.awaitContent(t, pod, "colour", "green")
	secret := &corev1.Secret{ObjectMeta: meta, StringData: map[string]string{"password": "none"}}
	must[*corev1.Secret](t)(secrets.Create(t.Context(), secret, metav1.CreateOptions{}))
	n.awaitContent(t, pod, "deep/password", "none")
	if err := errors.Join(configMaps.Delete(t.Context(), "settings", metav1.DeleteOptions{}),
		secrets.Delete(t.Context(), "settings", metav1.DeleteOptions{})); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { // the optional one goes, the other keeps its bytes
		if _, err := os.Lstat(filepath.Join(volumeDir(n.root, pod, vaultVolume), "deep")); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("deep is still there: %v", err)
		}
		return n.wantMetric(1, "token_projector_volume_errors", "reason", "ObjectMissing")
	})
	if err := n.holds(pod, "colour", "green"); err != nil {
		t.Error(err)
	}
	must[*corev1.ConfigMap](t)(configMaps.Create(t.Context(), configMap("red"), metav1.CreateOptions{}))
	n.awaitContent(t, pod, "colour", "red")
	n.seen = append(n.seen, readToken(t, volumeDir(n.root, pod, vaultVolume), vaultFile))
}

// must ends the test on an error.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Trust bundles by name, and by signer and labels.
func (n *node) testTrustBundles(t *testing.T) {
	signer := "conformance.invalid/signer"
	bundles := client.CertificatesV1().ClusterTrustBundles()
	bundle := &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: "conformance.invalid:signer:one", Labels: map[string]string{"live": "yes"}},
		Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: "comment\n" + string(plane.CA())},
	}
	live := &metav1.LabelSelector{MatchLabels: map[string]string{"live": "yes"}}
	pod := n.mixed(t, "bundles", nil,
		corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{
			Name: ptr.To(bundle.Name), Path: "named.pem", Optional: ptr.To(true)}},
		corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{
			SignerName: &signer, LabelSelector: live, Path: "selected.pem", Optional: ptr.To(true)}})
	n.awaitContent(t, pod, "named.pem", "")
	n.awaitContent(t, pod, "selected.pem", "")
	created := must[*certificatesv1.ClusterTrustBundle](t)(bundles.Create(t.Context(), bundle, metav1.CreateOptions{}))
	n.awaitContent(t, pod, "named.pem", string(plane.CA()))
	n.awaitContent(t, pod, "selected.pem", string(plane.CA()))
	created.Labels = nil
	must[*certificatesv1.ClusterTrustBundle](t)(bundles.Update(t.Context(), created, metav1.UpdateOptions{}))
	n.awaitContent(t, pod, "selected.pem", "")
	if err := n.holds(pod, "named.pem", string(plane.CA())); err != nil {
		t.Error(err)
	}
	if err := bundles.Delete(t.Context(), bundle.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	n.awaitContent(t, pod, "named.pem", "")
}

// Labels, a container's limit, and the node's memory where there is none.
func (n *node) testDownward(t *testing.T) {
	memory := func(path, container string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: path, ResourceFieldRef: &corev1.ResourceFieldSelector{
			ContainerName: container, Resource: "limits.memory", Divisor: resource.MustParse("1Mi"),
		}}
	}
	allocatable := func(amount string) {
		object := must[*corev1.Node](t)(client.CoreV1().Nodes().Get(t.Context(), n.name, metav1.GetOptions{}))
		object.Status.Allocatable = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(amount)}
		must[*corev1.Node](t)(client.CoreV1().Nodes().UpdateStatus(t.Context(), object, metav1.UpdateOptions{}))
	}
	allocatable("64Mi")
	pod := n.mixed(t, "downward", func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": "web"}
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "free", Image: "none.invalid/app"})
	}, corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
		{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
		memory("limited", "app"), memory("free", "free"),
	}}})
	n.awaitContent(t, pod, "labels", `app="web"`)
	n.awaitContent(t, pod, "limited", "32")
	n.awaitContent(t, pod, "free", "64")
	patch := []byte(`{"metadata":{"labels":{"tier":"front"}}}`)
	must[*corev1.Pod](t)(client.CoreV1().Pods(n.name).Patch(t.Context(), pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}))
	n.awaitContent(t, pod, "labels", "app=\"web\"\ntier=\"front\"")
	allocatable("96Mi")
	n.awaitContent(t, pod, "free", "96")
	resize := []byte(`{"spec":{"containers":[{"name":"app","resources":{"limits":{"memory":"48Mi"}}}]}}`)
	must[*corev1.Pod](t)(client.CoreV1().Pods(n.name).Patch(t.Context(), pod.Name, types.StrategicMergePatchType, resize, metav1.PatchOptions{}, "resize"))
	n.awaitContent(t, pod, "limited", "48")
}

// An ephemeral container of another user changes the mode at once, and no token.
func (n *node) testEphemeralContainer(t *testing.T) {
	user := int64(os.Geteuid()) // whom anybody may give files to
	pod := n.mixed(t, "debugged", func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user}
	})
	token := filepath.Join(volumeDir(n.root, pod, vaultVolume), vaultFile)
	awaitMode := func(want os.FileMode) {
		t.Helper()
		eventually(t, func() error {
			info, err := os.Stat(token)
			if err == nil && info.Mode() != want {
				err = fmt.Errorf("mode %v, want %v", info.Mode(), want)
			}
			return err
		})
	}
	awaitMode(0o600)
	before := readToken(t, volumeDir(n.root, pod, vaultVolume), vaultFile)
	debug := corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "debug", Image: "none.invalid/debug", ImagePullPolicy: corev1.PullIfNotPresent, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		SecurityContext: &corev1.SecurityContext{RunAsUser: ptr.To(user + 1)},
	}}
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{debug}
	must[*corev1.Pod](t)(client.CoreV1().Pods(n.name).UpdateEphemeralContainers(t.Context(), pod.Name, pod, metav1.UpdateOptions{}))
	awaitMode(0o644)
	if readToken(t, volumeDir(n.root, pod, vaultVolume), vaultFile) != before {
		t.Error("there is a new token")
	}
}

// A pod is told what it lacks, and that it does no longer, by the node.
func (n *node) testEvents(t *testing.T) {
	pod := n.mixed(t, "eventful", nil, corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
		LocalObjectReference: corev1.LocalObjectReference{Name: "late"}}})
	await := func(kind, reason, text string) {
		t.Helper()
		eventually(t, func() error {
			options := metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(pod.UID)}
			events, err := client.CoreV1().Events(n.name).List(t.Context(), options)
			for _, e := range events.Items {
				if e.Type == kind && e.Reason == reason && strings.Contains(e.Message, text) && e.Source.Host == n.name {
					return nil
				}
			}
			return errors.Join(err, fmt.Errorf("no %s %s among %d events", kind, reason, len(events.Items)))
		})
	}
	await("Warning", "ProjectionFailed", "ConfigMap "+n.name+"/late does not exist; create it")
	late := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "late"}}
	must[*corev1.ConfigMap](t)(client.CoreV1().ConfigMaps(n.name).Create(t.Context(), late, metav1.CreateOptions{}))
	await("Normal", "ProjectionRecovered", vaultVolume)
}

// Whatever may start has its volume; what has ended has none, though its object is there.
func (n *node) testKinds(t *testing.T) {
	host := n.mixed(t, "host-network", func(p *corev1.Pod) { p.Spec.HostNetwork = true })
	users := n.mixed(t, "host-users", func(p *corev1.Pod) { p.Spec.HostUsers = ptr.To(false) })
	var ended []*corev1.Pod
	for _, name := range []string{"succeeded", "failed", "evicted"} {
		ended = append(ended, n.mixed(t, name, nil))
	}
	for _, pod := range append([]*corev1.Pod{host, users}, ended...) {
		eventually(t, func() error { return missing(volumeDir(n.root, pod, vaultVolume), vaultFile) })
	}
	for i, status := range []corev1.PodStatus{
		{Phase: corev1.PodSucceeded}, {Phase: corev1.PodFailed}, {Phase: corev1.PodFailed, Reason: "Evicted"},
	} {
		ended[i].Status = status
		must[*corev1.Pod](t)(client.CoreV1().Pods(n.name).UpdateStatus(t.Context(), ended[i], metav1.UpdateOptions{}))
	}
	for _, pod := range ended {
		eventually(t, func() error { return n.gone(pod) })
	}
	if err := errors.Join(n.exists(host), n.exists(users)); err != nil {
		t.Error(err)
	}
	mirror := newPod(n.name, "mirror", "", n.name, vault(600))
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "hash"}
	if _, err := client.CoreV1().Pods(n.name).Create(t.Context(), mirror, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a mirror pod with a token: %v, want Forbidden by the server", err)
	}
}

// A pod that is deleted and made again at once under its name has tokens of its own.
func (n *node) testRecreated(t *testing.T) {
	old := n.mixed(t, "again", nil)
	deletePod(t, old, 0)
	pod := n.mixed(t, "again", nil)
	eventually(t, func() error { return missing(volumeDir(n.root, pod, vaultVolume), vaultFile) })
	token := readToken(t, volumeDir(n.root, pod, vaultVolume), vaultFile)
	if err := notTokenOf(review(t, token, vaultAud), pod); err != nil {
		t.Error(err)
	}
	eventually(t, func() error { return n.gone(old) })
	n.seen = append(n.seen, token)
}

// A pod of the same name that now runs on another node is not ours, until it comes back.
func (n *node) testMoved(t *testing.T) {
	createNode(t, n.name+"-elsewhere")
	here := n.mixed(t, "db-0", nil)
	eventually(t, func() error { return missing(volumeDir(n.root, here, vaultVolume), vaultFile) })
	deletePod(t, here, 0)
	there := n.mixed(t, "db-0", func(p *corev1.Pod) { p.Spec.NodeName = n.name + "-elsewhere" })
	eventually(t, func() error { return n.gone(here) })
	deletePod(t, there, 0)
	back := n.mixed(t, "db-0", nil)
	eventually(t, func() error { return missing(volumeDir(n.root, back, vaultVolume), vaultFile) })
	if err := n.gone(there); err != nil {
		t.Errorf("another node's pod: %v", err)
	}
}

// A thousand pods made as fast as the server takes them: a token each, for one request each.
func (n *node) testThousand(t *testing.T) {
	const pods = 1000
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "many"}} // whose tokens are counted
	must[*corev1.ServiceAccount](t)(client.CoreV1().ServiceAccounts(n.name).Create(t.Context(), account, metav1.CreateOptions{}))
	made := make([]*corev1.Pod, pods)
	var g errgroup.Group
	g.SetLimit(16)
	for i := range made {
		g.Go(func() (err error) {
			pod := newPod(n.name, fmt.Sprintf("many-%d", i), account.Name, n.name, vault(3600))
			pod.Spec.AutomountServiceAccountToken = ptr.To(false)
			made[i], err = client.CoreV1().Pods(n.name).Create(t.Context(), pod, metav1.CreateOptions{})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, pod := range made {
		eventually(t, func() error { return missing(volumeDir(n.root, pod, vaultVolume), vaultFile) })
	}
	eventually(t, func() error {
		granted, err := plane.TokensGranted(n.user)
		granted = slices.DeleteFunc(granted, func(e auditv1.Event) bool { return e.ObjectRef.Name != account.Name })
		if err == nil && len(granted) != pods {
			err = fmt.Errorf("%d tokens granted for %d", len(granted), pods)
		}
		return err
	})
}

// Pods are taken on by their labels. One that is served stays so whatever becomes of them.
func TestPodSelector(t *testing.T) {
	n := emptyNode(t, "node-selector")
	createNamespace(t, n.name)
	labelled := func(name, app string) *corev1.Pod {
		return n.mixed(t, name, func(p *corev1.Pod) { p.Labels = map[string]string{"app": app} })
	}
	other, pod := labelled("other", "other"), labelled("web", "web")
	n.start(t, "--pod-selector=app=web")
	eventually(t, func() error { return missing(volumeDir(n.root, pod, vaultVolume), vaultFile) })
	patch := []byte(`{"metadata":{"labels":{"app":"debugged"}}}`)
	must[*corev1.Pod](t)(client.CoreV1().Pods(n.name).Patch(t.Context(), pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}))
	next := labelled("next", "web") // events come in order: when this one is projected, the other's labels have been seen
	eventually(t, func() error { return missing(volumeDir(n.root, next, vaultVolume), vaultFile) })
	if err := errors.Join(missing(volumeDir(n.root, pod, vaultVolume), vaultFile), n.gone(other)); err != nil {
		t.Error(err)
	}
	if err := n.terminate(t); err != nil {
		t.Errorf("SIGTERM: %v, want exit code 0", err)
	}
}
