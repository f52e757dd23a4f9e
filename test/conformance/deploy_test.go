package conformance

import (
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resource"
	kustomize "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// Names that deploy/ gives.
const (
	deployNamespace = "token-projector"
	deployName      = "token-projector"
)

// deployDir is deploy/, or a directory in it.
func deployDir(elem ...string) string {
	return filepath.Join(append([]string{"..", "..", "deploy"}, elem...)...)
}

// manifests returns what `kubectl kustomize deploy` prints, or of a directory in it.
func manifests(t *testing.T, elem ...string) []*resource.Resource {
	t.Helper()
	return kustomized(t, deployDir(elem...))
}

func kustomized(t *testing.T, dir string) []*resource.Resource {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return resources.Resources()
}

// apply does what `kubectl apply --server-side --validate=strict` does with one object, given extra fields.
func apply(t *testing.T, object *resource.Resource, extra map[string]any) error {
	t.Helper()
	_, _, err := applied(t, object, extra)
	return err
}

// applied is apply; it returns what is stored then, and the server's warnings.
func applied(t *testing.T, object *resource.Resource, extra map[string]any, dryRun ...string) (*unstructured.Unstructured, []string, error) {
	t.Helper()
	content, err := object.Map()
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(content, extra)
	body, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	var heard warnings
	stored, err := resourceOf(t, object, &heard).Patch(t.Context(), object.GetName(), types.ApplyPatchType, body, metav1.PatchOptions{
		FieldManager: "kubectl", FieldValidation: metav1.FieldValidationStrict, DryRun: dryRun,
	})
	return stored, heard, err
}

// resourceOf is where the server keeps objects like this one.
func resourceOf(t *testing.T, object *resource.Resource, heard *warnings) dynamic.ResourceInterface {
	t.Helper()
	groups, err := restmapper.GetAPIGroupResources(client.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	gvk := object.GetGvk()
	mapping, err := restmapper.NewDiscoveryRESTMapper(groups).
		RESTMapping(schema.GroupKind{Group: gvk.Group, Kind: gvk.Kind}, gvk.Version)
	if err != nil {
		t.Fatal(err)
	}
	config := plane.Admin()
	config.WarningHandler = heard
	dynamicClient, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return dynamicClient.Resource(mapping.Resource).Namespace(object.GetNamespace())
}

// warnings are those of the server's answers to one client.
type warnings []string

// HandleWarningHeader is client-go's.
func (w *warnings) HandleWarningHeader(_ int, _ string, text string) { *w = append(*w, text) }

var deployed sync.Once

// applyDeploy applies deploy/ for the first test that needs it.
func applyDeploy(t *testing.T) {
	t.Helper()
	deployed.Do(func() { applyAll(t, manifests(t)) })
}

// applyAll applies objects in their order, and waits until pods can be made.
func applyAll(t *testing.T, objects []*resource.Resource) {
	t.Helper()
	for _, object := range objects {
		if err := apply(t, object, nil); err != nil {
			t.Errorf("apply %s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
	awaitNamespace(t, deployNamespace)
}

func daemonSet(t *testing.T) *appsv1.DaemonSet {
	t.Helper()
	applyDeploy(t)
	return storedDaemonSet(t, deployNamespace, deployName)
}

// storedDaemonSet is one as the server has it.
func storedDaemonSet(t *testing.T, namespace, name string) *appsv1.DaemonSet {
	t.Helper()
	ds, err := client.AppsV1().DaemonSets(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

// ofKind is the only object of that kind.
func ofKind(t *testing.T, objects []*resource.Resource, kind string) *resource.Resource {
	t.Helper()
	var found []*resource.Resource
	for _, object := range objects {
		if object.GetKind() == kind {
			found = append(found, object)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of kind %s, want one", len(found), kind)
	}
	return found[0]
}

// Every file is part of what is applied, and the README speaks of every overlay, and of none that is not there.
func TestDeployIsWhole(t *testing.T) {
	planted := t.TempDir()
	for name, content := range map[string]string{
		"kustomization.yaml": "resources: [listed.yaml]\npatches: [{path: patch.yaml}]\n", "listed.yaml": "", "patch.yaml": "", "lost.yaml": "",
	} {
		if err := os.WriteFile(filepath.Join(planted, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := unlisted(t, planted); !slices.Equal(got, []string{"lost.yaml"}) {
		t.Errorf("of a directory with lost.yaml: %q", got)
	}
	err := filepath.WalkDir(deployDir(), func(dir string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		if files, err := filepath.Glob(filepath.Join(dir, "*.yaml")); err != nil || len(files) == 0 {
			return err // of overlays, or code
		}
		for _, name := range unlisted(t, dir) {
			t.Errorf("%s: %s is not in the kustomization", dir, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(deployDir("README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, overlay := range overlays(t) {
		if !strings.Contains(string(readme), "| `"+overlay+"` |") {
			t.Errorf("the README has no line for the overlay %s", overlay)
		}
	}
	if lines := strings.Count(string(readme), "\n| `"); lines != len(overlays(t)) {
		t.Errorf("the README's table has %d lines, for %d overlays", lines, len(overlays(t)))
	}
}

// unlisted are the manifests of a directory that its kustomization does not name.
func unlisted(t *testing.T, dir string) (names []string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var k kustomize.Kustomization
	if err := yaml.UnmarshalStrict(content, &k); err != nil {
		t.Fatal(err)
	}
	listed := append(k.Resources, "kustomization.yaml")
	for _, patch := range k.Patches {
		listed = append(listed, patch.Path)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if name := filepath.Base(file); !slices.Contains(listed, name) {
			names = append(names, name)
		}
	}
	return names
}
