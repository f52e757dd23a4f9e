package conformance

import (
	"os"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// The DaemonSet of the overlay kubelet-less, as a pod of one node, with the node's kubeconfig and no token of its own: it
// projects what containers mount, too.
func TestKubeletLess(t *testing.T) {
	const nodeName = "node-kubelet-less"
	createNode(t, nodeName)
	createNamespace(t, nodeName)
	applyDeploy(t)
	pod := createPod(t, overlayPod(t, "kubelet-less", nodeName))
	for _, volume := range pod.Spec.Volumes {
		if volume.HostPath == nil {
			t.Errorf("the daemon's own pod waits for the volume %s", volume.Name)
		}
	}
	app := createPod(t, newPod(nodeName, "app", appAccount, nodeName, vault(600)))
	root := t.TempDir()
	d := startInSandbox(t, pod, root, "")
	mounted := volumeDir(root, app, apiAccess(t, app))
	eventually(t, func() error { return missing(mounted, "token", "ca.crt", "namespace") })
	eventually(t, func() error { return missing(volumeDir(root, app, vaultVolume), vaultFile) })
	if err := notTokenOf(review(t, readToken(t, mounted, "token"), ""), app); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(podDir(root, pod)); err == nil {
		t.Errorf("the daemon projects for its own pod: %v", entries)
	}
	if err := d.terminate(t); err != nil {
		t.Errorf("SIGTERM: %v, want exit code 0", err)
	}
}

// overlayPod is the pod that the DaemonSet's controller would make of an overlay.
func overlayPod(t *testing.T, overlay, nodeName string) *corev1.Pod {
	t.Helper()
	ds := overlayDaemonSet(t, overlay)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ds.Namespace, Name: nodeName, Labels: ds.Spec.Template.Labels},
		Spec:       ds.Spec.Template.Spec,
	}
	pod.Spec.NodeName = nodeName
	return pod
}

// overlayDaemonSet is the one of an overlay, as it is before a server has seen it.
func overlayDaemonSet(t *testing.T, overlay string) *appsv1.DaemonSet {
	t.Helper()
	var ds appsv1.DaemonSet
	if err := yaml.UnmarshalStrict([]byte(ofKind(t, manifests(t, "overlays", overlay), "DaemonSet").MustYaml()), &ds); err != nil {
		t.Fatal(err)
	}
	return &ds
}
