package projector

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
)

// TestFeedKeepsWhatIsRead: of a pod that a reflector collects from a streamed list there stays what its volumes hold, and
// nothing else, however much of that there is; and what comes out at the end is what comes of the pod itself.
func TestFeedKeepsWhatIsRead(t *testing.T) {
	const bulk, small = 200 << 10, 4 << 10
	fat := strings.Repeat("x", bulk)
	pod := testPod(1, "vault", 600)
	pod.Labels = map[string]string{"app": "web"}
	pod.Annotations = map[string]string{"last-applied": fat, "read": "me"}
	pod.Spec.Containers = []corev1.Container{{Name: "main", Env: []corev1.EnvVar{{Name: "E", Value: fat}}}}
	pod.ManagedFields = []metav1.ManagedFieldsEntry{{FieldsV1: metav1.NewFieldsV1(fat)}}
	pod.Status.Message = fat
	named := func(path, field string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: path, FieldRef: &corev1.ObjectFieldSelector{FieldPath: field}}
	}
	sources := &pod.Spec.Volumes[0].Projected.Sources
	*sources = append(*sources, downwardSource(named("a", "metadata.labels['app']"), named("b", "metadata.annotations['read']")))

	feed := podFeed{&Projector{config: Config{Selection: SelectAll, PodSelector: labels.Everything()}}}
	store := cache.NewStore(cache.DeletionHandlingMetaNamespaceKeyFunc, cache.WithTransformer(feed.Transformer()))
	if err := store.Add(pod); err != nil {
		t.Fatal(err)
	}
	kept, err := feed.wanted(store.List()[0])
	if err != nil {
		t.Fatal(err)
	}
	if held, whole := reachable(store.List()[0]), reachable(pod); held > small || whole < 4*bulk {
		t.Errorf("%d bytes are kept of a pod of %d", held, whole)
	}
	if diff := cmp.Diff(feed.wish(pod), kept); diff != "" || !cmp.Equal(literals(kept), map[string]string{"namespace": "default", "a": "web", "b": "me"}) {
		t.Errorf("%v %s", literals(kept), diff)
	}
	*sources = append(*sources, downwardSource(named("c", "metadata.annotations['last-applied']")))
	if held := reachable(feed.wish(pod)); held < bulk {
		t.Errorf("%d bytes are kept of a pod that wants %d", held, bulk)
	}
	if _, err := feed.Transformer()("no pod"); err == nil {
		t.Error("what is no pod is kept")
	}
}

func literals(w Wish) map[string]string {
	all := make(map[string]string)
	for _, v := range w.Volumes {
		for _, s := range v.Sources {
			for _, l := range s.Literal {
				all[l.Path] = string(l.Data)
			}
		}
	}
	return all
}

// TestFeedKeepsData: of an object there stays what it holds.
func TestFeedKeepsData(t *testing.T) {
	fat := strings.Repeat("x", 200<<10)
	meta := metav1.ObjectMeta{Name: "n", Annotations: map[string]string{"last-applied": fat}}
	feed := objectFeed{ref: ObjectRef{Kind: KindConfigMap, Name: "n"}, held: map[string]map[string][]byte{}}
	object := &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"k": "v"}}
	if err := feed.hold(object); err != nil {
		t.Fatal(err)
	}
	if held, whole := reachable(feed.held), reachable(object); held > 1<<10 || whole < len(fat) || string(feed.held["n"]["k"]) != "v" {
		t.Errorf("%d bytes are kept of %d: %q", held, whole, feed.held)
	}
}

// reachable is how many bytes a value keeps from being collected.
func reachable(value any) int {
	seen := make(map[uintptr]bool)
	var below func(reflect.Value) int
	below = func(v reflect.Value) (n int) {
		switch v.Kind() {
		case reflect.String:
			return v.Len()
		case reflect.Interface:
			if !v.IsNil() {
				n = int(v.Elem().Type().Size()) + below(v.Elem())
			}
		case reflect.Pointer:
			if !v.IsNil() && !seen[v.Pointer()] {
				seen[v.Pointer()] = true
				n = int(v.Elem().Type().Size()) + below(v.Elem())
			}
		case reflect.Slice:
			n = v.Cap() * int(v.Type().Elem().Size())
			for i := range v.Len() {
				n += below(v.Index(i))
			}
		case reflect.Map:
			for k, e := range v.Seq2() {
				n += int(k.Type().Size()+e.Type().Size()) + below(k) + below(e)
			}
		case reflect.Struct:
			for i := range v.NumField() {
				n += below(v.Field(i))
			}
		}
		return n
	}
	return below(reflect.ValueOf(&value))
}
