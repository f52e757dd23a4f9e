package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// prometheusOperator is the module that has the CRDs of prometheus-operator, and its hash: nothing that is compiled needs it,
// so that no go.mod can name it.
const (
	prometheusOperator    = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
	prometheusOperatorSum = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
)

// overlays are the names of the directories in deploy/overlays.
func overlays(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(deployDir("overlays"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// kindsOf are the kinds of objects that every overlay has, and those that some have besides or not.
var (
	commonKinds = []string{"DaemonSet", "Namespace", "NetworkPolicy", "Service", "ServiceAccount"}
	withKinds   = map[string][]string{
		"beside-kubelet":      {"ClusterRole", "ClusterRoleBinding", "PriorityClass"},
		"kubelet-less":        {"PriorityClass"}, // whose rights are its node's
		"observe":             nil,
		"prometheus-operator": {"ClusterRole", "ClusterRoleBinding", "PriorityClass", "PrometheusRule", "ServiceMonitor"},
		"service-account":     {"ClusterRole", "ClusterRoleBinding", "PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"},
	}
	// beyondBaseline is what keeps the pod from that level of Pod Security, if it is more than the directory of the node.
	beyondBaseline = map[string][]string{"observe": {"non-default capabilities", "hostPath volumes"}}
)

// The API server takes every object of every overlay, each field of it, without a warning; a second time nothing changes.
// The DaemonSet asks for no more than it may, and its pod is let in at the level that the namespace states.
func TestOverlays(t *testing.T) {
	applyDeploy(t)
	installCRDs(t)
	base := manifests(t)
	defer applyAll(t, base) // for the tests that come
	for _, overlay := range overlays(t) {
		t.Run(overlay, func(t *testing.T) {
			objects := manifests(t, "overlays", overlay)
			var kinds []string
			for _, object := range objects {
				kinds = append(kinds, object.GetKind())
				testApplied(t, object)
				if !among(base, object) && !apart(object) {
					defer deleteObject(t, object)
				}
			}
			if want, known := withKinds[overlay]; known {
				want = slices.Sorted(slices.Values(append(slices.Clone(want), commonKinds...)))
				if slices.Sort(kinds); !slices.Equal(kinds, want) {
					t.Errorf("kinds %q, want %q", kinds, want)
				}
			}
			object := ofKind(t, objects, "DaemonSet")
			ds := storedDaemonSet(t, object.GetNamespace(), object.GetName())
			for _, fault := range faults(ds, needsOf(overlay)) {
				t.Error(fault)
			}
			baseline := beyondBaseline[overlay]
			if baseline == nil {
				baseline = []string{"hostPath volumes"}
			}
			admitted(t, ds, baseline)
		})
	}
}

// among reports whether an object of that kind and name is one of these.
func among(objects []*resource.Resource, object *resource.Resource) bool {
	return slices.ContainsFunc(objects, func(of *resource.Resource) bool { return of.CurId() == object.CurId() })
}

// apart reports whether an object is, or is in, another namespace than that of deploy/, where it disturbs no other test.
func apart(object *resource.Resource) bool {
	return object.GetKind() == "Namespace" || object.GetNamespace() != "" && object.GetNamespace() != deployNamespace
}

// testApplied applies an object as it is, again, with a field that does not exist, and with a label more.
func testApplied(t *testing.T, object *resource.Resource) {
	t.Helper()
	what := object.GetKind() + " " + object.GetName()
	first, heard, err := applied(t, object, nil)
	if err != nil {
		t.Errorf("apply %s: %v", what, err)
		return
	}
	if len(heard) > 0 {
		t.Errorf("apply %s: warnings %q", what, heard)
	}
	second, _, err := applied(t, object, nil)
	if err != nil || second.GetResourceVersion() != first.GetResourceVersion() {
		t.Errorf("apply %s again: %v, or it has changed", what, err)
	}
	if _, _, err := applied(t, object, map[string]any{"misspelled": "field"}); err == nil || !strings.Contains(err.Error(), ".misspelled") {
		t.Errorf("apply %s with an unknown field: %v", what, err)
	}
	changed, _, err := applied(t, object, withLabel(t, object))
	if err != nil || changed.GetResourceVersion() == first.GetResourceVersion() {
		t.Errorf("apply %s with one more label: %v, or the change is not noticed", what, err)
	}
	if err := apply(t, object, nil); err != nil {
		t.Errorf("apply %s at last: %v", what, err)
	}
}

// withLabel is the object's metadata with one more label.
func withLabel(t *testing.T, object *resource.Resource) map[string]any {
	t.Helper()
	content, err := object.Map()
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetLabels(labels.Merge(u.GetLabels(), labels.Set{"planted": "true"}))
	return map[string]any{"metadata": content["metadata"]}
}

func deleteObject(t *testing.T, object *resource.Resource) {
	t.Helper()
	err := resourceOf(t, object, new(warnings)).Delete(t.Context(), object.GetName(), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Errorf("delete %s %s: %v", object.GetKind(), object.GetName(), err)
	}
}

// installCRDs installs what prometheus-operator's objects are defined by.
func installCRDs(t *testing.T) {
	t.Helper()
	dir := moduleDir(t, prometheusOperator, prometheusOperatorSum)
	for _, plural := range []string{"servicemonitors", "prometheusrules"} {
		file := "monitoring.coreos.com_" + plural + ".yaml"
		fSys := filesys.MakeFsInMemory()
		content, err := os.ReadFile(filepath.Join(dir, "example", "prometheus-operator-crd", file))
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{file: string(content), "kustomization.yaml": "resources: [" + file + "]"} {
			if err := fSys.WriteFile("/"+name, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fSys, "/")
		if err != nil {
			t.Fatal(err)
		}
		for _, crd := range resources.Resources() {
			if err := apply(t, crd, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, func() error {
		for _, kind := range []string{"servicemonitors", "prometheusrules"} {
			list, err := client.Discovery().ServerResourcesForGroupVersion("monitoring.coreos.com/v1")
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == kind }) {
				return fmt.Errorf("the server has no %s", kind)
			}
		}
		return nil
	})
}

// moduleDir downloads a Go module, by the caches and the proxy that are set, and checks its hash.
func moduleDir(t *testing.T, module, sum string) string {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", module)
	cmd.Dir = t.TempDir() // in no module
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("download %s: %v\n%s", module, err, out)
	}
	var got struct{ Dir, Sum string }
	if err := json.Unmarshal(out, &got); err != nil || got.Sum != sum {
		t.Fatalf("%s has the hash %q, want %s: %v", module, got.Sum, sum, err)
	}
	return got.Dir
}

// admitted wants the pod of a DaemonSet to be let into its namespace, under the level that this states, and that the next
// level would refuse it for these reasons alone.
func admitted(t *testing.T, ds *appsv1.DaemonSet, beyondBaseline []string) {
	t.Helper()
	awaitNamespace(t, ds.Namespace)
	namespace, err := client.CoreV1().Namespaces().Get(t.Context(), ds.Namespace, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const enforce = "pod-security.kubernetes.io/enforce"
	if got := namespace.Labels[enforce]; got != "privileged" {
		t.Errorf("the namespace states the level %q", got)
	}
	if reasons := refusals(t, ds.Namespace, ds); len(reasons) != 0 {
		t.Errorf("in its own namespace the pod is refused: %q", reasons)
	}
	if reasons := refusals(t, atLevel(t, "baseline"), ds); !slices.Equal(reasons, beyondBaseline) {
		t.Errorf("at the level baseline the pod is refused for %q, want %q", reasons, beyondBaseline)
	}
	if reasons, want := refusals(t, atLevel(t, "restricted"), ds), []string{
		"unrestricted capabilities", "restricted volume types", "runAsNonRoot != true", "runAsUser=0",
	}; !slices.Equal(reasons, want) {
		t.Errorf("at the level restricted the pod is refused for %q, want %q", reasons, want)
	}
	planted := ds.DeepCopy()
	planted.Spec.Template.Spec.HostNetwork = true
	if reasons := refusals(t, atLevel(t, "baseline"), planted); !slices.Contains(reasons, "host namespaces") {
		t.Errorf("a pod on the host's network is refused for %q", reasons)
	}
}

// atLevel makes a namespace of that level, if there is none yet.
func atLevel(t *testing.T, level string) string {
	t.Helper()
	name := "level-" + level
	_, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{"pod-security.kubernetes.io/enforce": level},
	}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	awaitNamespace(t, name)
	return name
}

// refusals are the reasons, in the server's order, for which Pod Security keeps the pod of a DaemonSet out of a namespace.
func refusals(t *testing.T, namespace string, ds *appsv1.DaemonSet) (reasons []string) {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "try"}, Spec: *ds.Spec.Template.Spec.DeepCopy()}
	if namespace != ds.Namespace {
		pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = "default", ""
	}
	_, err := client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil {
		return nil
	}
	_, text, found := strings.Cut(err.Error(), `violates PodSecurity "`)
	if !apierrors.IsForbidden(err) || !found {
		t.Fatalf("the pod is refused, and not by Pod Security: %v", err)
	}
	_, text, _ = strings.Cut(text, `": `)
	for reason := range strings.SplitSeq(text, "), ") {
		reason, _, _ = strings.Cut(reason, " (")
		reasons = append(reasons, reason)
	}
	return reasons
}
