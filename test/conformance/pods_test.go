package conformance

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/token-projector/token-projector/test/conformance/controlplane"
)

// Names that every test's objects use.
const (
	appAccount  = "app"
	vaultVolume = "vault"
	vaultFile   = "vault-token"
	vaultAud    = "vault"
)

func createNode(t *testing.T, name string) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// createNamespace makes a namespace with the service account "app" and waits until pods can be created in it.
func createNamespace(t *testing.T, name string) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: appAccount}}
	if _, err := client.CoreV1().ServiceAccounts(name).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitNamespace(t, name)
}

func awaitNamespace(t *testing.T, name string) {
	t.Helper()
	eventually(t, func() error {
		ready, err := controlplane.NamespaceReady(t.Context(), client, name)
		if err == nil && !ready {
			err = fmt.Errorf("namespace %s is not ready", name)
		}
		return err
	})
}

// newPod returns a pod bound to the node, as it is before admission gives it kube-api-access.
func newPod(namespace, name, account, node string, volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			NodeName:           node,
			ServiceAccountName: account,
			Containers:         []corev1.Container{{Name: "app", Image: "none.invalid/app"}},
			Volumes:            volumes,
		},
	}
}

// vault returns the volume of the Kubernetes documentation: a token for an audience of its own, mounted by nobody.
func vault(seconds int64) corev1.Volume {
	return projected(vaultVolume, corev1.VolumeProjection{
		ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
			Audience: vaultAud, ExpirationSeconds: ptr.To(seconds), Path: vaultFile,
		},
	})
}

func projected(name string, sources ...corev1.VolumeProjection) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		Projected: &corev1.ProjectedVolumeSource{Sources: sources},
	}}
}

func createPod(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	created, err := client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func deletePod(t *testing.T, pod *corev1.Pod, grace int64) {
	t.Helper()
	options := metav1.DeleteOptions{GracePeriodSeconds: &grace}
	if err := client.CoreV1().Pods(pod.Namespace).Delete(t.Context(), pod.Name, options); err != nil {
		t.Fatal(err)
	}
}

// projectedToken is one token that a pod's spec asks for.
type projectedToken struct {
	pod      *corev1.Pod
	volume   string
	path     string
	audience string // "" is the API server's
}

// tokensOf lists every token that the pods' specs ask for.
func tokensOf(pods []*corev1.Pod) []projectedToken {
	var tokens []projectedToken
	for _, pod := range pods {
		for _, volume := range pod.Spec.Volumes {
			if volume.Projected == nil {
				continue
			}
			for _, source := range volume.Projected.Sources {
				if token := source.ServiceAccountToken; token != nil {
					tokens = append(tokens, projectedToken{pod, volume.Name, token.Path, token.Audience})
				}
			}
		}
	}
	return tokens
}

// apiAccess returns the name of the volume that admission has injected.
func apiAccess(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	for _, token := range tokensOf([]*corev1.Pod{pod}) {
		if token.audience == "" && token.path == corev1.ServiceAccountTokenKey {
			return token.volume
		}
	}
	t.Fatalf("pod %s/%s has no kube-api-access volume", pod.Namespace, pod.Name)
	return ""
}
