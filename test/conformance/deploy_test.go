package conformance

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Names that deploy/ gives.
const (
	deployNamespace = "token-projector"
	deployName      = "token-projector"
)

// manifests returns what `kubectl kustomize deploy` prints.
func manifests(t *testing.T) []*resource.Resource {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).
		Run(filesys.MakeFsOnDisk(), filepath.Join("..", "..", "deploy"))
	if err != nil {
		t.Fatal(err)
	}
	return resources.Resources()
}

// apply does what `kubectl apply --server-side --validate=strict` does with one object, given extra fields.
func apply(t *testing.T, object *resource.Resource, extra map[string]any) error {
	t.Helper()
	groups, err := restmapper.GetAPIGroupResources(client.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	gvk := object.GetGvk()
	mapping, err := restmapper.NewDiscoveryRESTMapper(groups).
		RESTMapping(schema.GroupKind{Group: gvk.Group, Kind: gvk.Kind}, gvk.Version)
	if err != nil {
		return err
	}
	content, err := object.Map()
	if err != nil {
		return err
	}
	maps.Copy(content, extra)
	body, err := json.Marshal(content)
	if err != nil {
		return err
	}
	dynamicClient, err := dynamic.NewForConfig(plane.Admin())
	if err != nil {
		t.Fatal(err)
	}
	_, err = dynamicClient.Resource(mapping.Resource).Namespace(object.GetNamespace()).Patch(t.Context(), object.GetName(),
		types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: "conformance", FieldValidation: metav1.FieldValidationStrict})
	return err
}

// applyDeploy applies deploy/ for the first test that needs it.
var applied sync.Once

func applyDeploy(t *testing.T) {
	t.Helper()
	applied.Do(func() {
		for _, object := range manifests(t) {
			if err := apply(t, object, nil); err != nil {
				t.Errorf("apply %s %s: %v", object.GetKind(), object.GetName(), err)
			}
		}
		awaitNamespace(t, deployNamespace)
	})
}

// The API server must take every manifest, each field of it, a second time too.
func TestDeployIsApplied(t *testing.T) {
	applyDeploy(t)
	kinds := map[string]bool{}
	for _, object := range manifests(t) {
		kinds[object.GetKind()] = true
		if err := apply(t, object, nil); err != nil {
			t.Errorf("apply %s %s again: %v", object.GetKind(), object.GetName(), err)
		}
		if err := apply(t, object, map[string]any{"misspelled": "field"}); err == nil || !strings.Contains(err.Error(), ".misspelled") {
			t.Errorf("apply %s %s with an unknown field: %v", object.GetKind(), object.GetName(), err)
		}
	}
	for _, kind := range []string{"Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "DaemonSet"} {
		if !kinds[kind] {
			t.Errorf("deploy/ has no %s", kind)
		}
	}
}

// The manifests in the directory are those in the kustomization.
func TestDeployIsWhole(t *testing.T) {
	dir := filepath.Join("..", "..", "deploy")
	kustomization, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) < 2 {
		t.Fatalf("files of deploy/: %v, %v", files, err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if name != "kustomization.yaml" && !strings.Contains(string(kustomization), "\n- "+name+"\n") {
			t.Errorf("%s is not in the kustomization", name)
		}
	}
}

func daemonSet(t *testing.T) *appsv1.DaemonSet {
	t.Helper()
	applyDeploy(t)
	ds, err := client.AppsV1().DaemonSets(deployNamespace).Get(t.Context(), deployName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ds
}
