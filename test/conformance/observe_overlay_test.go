package conformance

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/yaml"
)

// The overlay observe shares no object with any other, so that it goes beside each: the others share the DaemonSet.
func TestObserveIsApart(t *testing.T) {
	observe := manifests(t, "overlays", "observe")
	shared := func(overlay string, with []*resource.Resource) (shared []string) {
		for _, object := range manifests(t, "overlays", overlay) {
			if among(with, object) {
				shared = append(shared, object.CurId().String())
			}
		}
		return shared
	}
	for _, overlay := range overlays(t) {
		if overlay == "observe" {
			continue
		}
		if with := shared(overlay, observe); len(with) > 0 {
			t.Errorf("observe and %s both have %q", overlay, with)
		}
		if len(shared(overlay, manifests(t))) == 0 {
			t.Errorf("what %s shares with deploy/ is not noticed", overlay)
		}
	}
}

// Nothing leaves the pod but answers: the policy of the other overlays lets it reach an API server.
func TestObserveHasNoEgress(t *testing.T) {
	egress := func(elem ...string) bool {
		var policy networkingv1.NetworkPolicy
		if err := yaml.UnmarshalStrict([]byte(ofKind(t, manifests(t, elem...), "NetworkPolicy").MustYaml()), &policy); err != nil {
			t.Fatal(err)
		}
		return len(policy.Spec.Egress) > 0 || !slices.Contains(policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	}
	if !egress() || egress("overlays", "observe") {
		t.Errorf("egress of deploy/: %v, of observe: %v", egress(), egress("overlays", "observe"))
	}
}

// The monitor of prometheus-operator goes with it as deploy/README.md says: it is moved into the namespace, and selects the Service.
func TestObserveMonitored(t *testing.T) {
	dir := t.TempDir()
	top, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	of := func(elem ...string) string {
		abs, err := filepath.Abs(deployDir(elem...))
		if err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(top, abs)
		if err != nil {
			t.Fatal(err)
		}
		return rel
	}
	text, err := yaml.Marshal(map[string]any{
		"namespace": "token-projector-observe",
		"resources": []string{of("overlays", "observe"), of("overlays", "prometheus-operator", "monitor")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	objects := kustomized(t, dir)
	var service corev1.Service
	if err := yaml.UnmarshalStrict([]byte(ofKind(t, objects, "Service").MustYaml()), &service); err != nil {
		t.Fatal(err)
	}
	monitor := ofKind(t, objects, "ServiceMonitor")
	var spec struct {
		Spec struct {
			Selector  metav1.LabelSelector
			Endpoints []struct{ Port string }
		}
	}
	if err := yaml.Unmarshal([]byte(monitor.MustYaml()), &spec); err != nil {
		t.Fatal(err)
	}
	if monitor.GetNamespace() != service.Namespace || !matches(t, &spec.Spec.Selector, service.Labels) || matches(t, &spec.Spec.Selector, nil) ||
		len(spec.Spec.Endpoints) != 1 || spec.Spec.Endpoints[0].Port != service.Spec.Ports[0].Name {
		t.Errorf("a monitor in %s of %+v, and a service in %s: %v, %+v", monitor.GetNamespace(), spec.Spec, service.Namespace, service.Labels, service.Spec)
	}
}

// Kubernetes lets nothing be read-only further down that is to see what is mounted later, as the overlay's comment says.
func TestObserveCannotBeReadOnlyFurtherDown(t *testing.T) {
	const nodeName = "node-observe-read-only"
	createNamespace(t, nodeName)
	try := func(recursive *corev1.RecursiveReadOnlyMode) error {
		pod := overlayPod(t, "observe", nodeName)
		pod.Namespace, pod.Spec.ServiceAccountName = nodeName, ""
		pod.Spec.Containers[0].VolumeMounts[0].RecursiveReadOnly = recursive
		_, err := client.CoreV1().Pods(nodeName).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	if err := try(nil); err != nil {
		t.Errorf("as it is: %v", err)
	}
	if err := try(ptr.To(corev1.RecursiveReadOnlyEnabled)); !apierrors.IsInvalid(err) {
		t.Errorf("with recursiveReadOnly: %v", err)
	}
}
