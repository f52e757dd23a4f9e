package projector

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// pemOf is a bundle of blocks that only look like certificates: nobody parses them.
func pemOf(contents ...string) string {
	var out strings.Builder
	for _, c := range contents {
		block := &pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"note": "x"}, Bytes: []byte(c)}
		fmt.Fprintf(&out, "comment\n%s", pem.EncodeToMemory(block))
	}
	return out.String()
}

func blocks(t *testing.T, bundle []byte) []string {
	t.Helper()
	var contents []string
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			t.Errorf("block %q with headers %v", block.Type, block.Headers)
		}
		contents = append(contents, string(block.Bytes))
	}
	return contents
}

// TestNormalizeTrustBundles: each certificate once, without headers and comments, the same bytes in whatever order
// the bundles come.
func TestNormalizeTrustBundles(t *testing.T) {
	one, two := pemOf("b", "a", "b"), pemOf("c", "a")
	got := NormalizeTrustBundles(one, two)
	if diff := cmp.Diff([]string{"a", "b", "c"}, blocks(t, got)); diff != "" || bytes.Contains(got, []byte("comment")) {
		t.Errorf("%s\n%s", diff, got)
	}
	if !bytes.Equal(got, NormalizeTrustBundles(two, one)) {
		t.Error("the order of the bundles shows")
	}
	if empty := NormalizeTrustBundles(); empty == nil || len(empty) != 0 {
		t.Errorf("of nothing: %q", empty)
	}
}

func bundleOf(name, signer, content string) *certificatesv1.ClusterTrustBundle {
	return &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: pemOf(content)},
	}
}

// TestObjectData: what each kind of object gives, and that an empty one exists.
func TestObjectData(t *testing.T) {
	of := func(kind string, objects ...runtime.Object) map[string]string {
		held := make(map[string]map[string][]byte)
		for i, o := range objects {
			held[fmt.Sprint(i)] = objectData(o)
		}
		data := joinData(ObjectRef{Kind: kind}, held)
		if data == nil {
			return nil
		}
		text := make(map[string]string)
		for k, v := range data {
			text[k] = string(v)
		}
		return text
	}
	node := &corev1.Node{Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("3500m"), corev1.ResourceMemory: resource.MustParse("2Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}}}
	for name, tt := range map[string]struct{ got, want map[string]string }{
		"absent":          {of(KindConfigMap), nil},
		"empty configMap": {of(KindConfigMap, &corev1.ConfigMap{}), map[string]string{}},
		"empty secret":    {of(KindSecret, &corev1.Secret{}), map[string]string{}},
		"configMap": {of(KindConfigMap, &corev1.ConfigMap{Data: map[string]string{"a": "1"}, BinaryData: map[string][]byte{"b": {0}}}),
			map[string]string{"a": "1", "b": "\x00"}},
		"secret": {of(KindSecret, &corev1.Secret{Data: map[string][]byte{"a": []byte("1")}}), map[string]string{"a": "1"}},
		"node":   {of(KindNode, node), map[string]string{"cpu": "3500m", "memory": "2Gi", "ephemeral-storage": "0"}},
		"bundles": {of(KindClusterTrustBundle, bundleOf("x", "s", "2"), bundleOf("y", "s", "1")),
			map[string]string{TrustBundleKey: string(NormalizeTrustBundles(pemOf("1"), pemOf("2")))}},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestTrustBundleSource: by name or by signer and labels, with the mode and owner of tokens.
func TestTrustBundleSource(t *testing.T) {
	all := &metav1.LabelSelector{}
	some := &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "web", "app": "shop"}}
	for name, tt := range map[string]struct {
		source corev1.ClusterTrustBundleProjection
		want   ObjectRef
	}{
		"by name":   {corev1.ClusterTrustBundleProjection{Name: new("roots")}, ObjectRef{Kind: KindClusterTrustBundle, Name: "roots"}},
		"by signer": {corev1.ClusterTrustBundleProjection{SignerName: new("e.x/s"), LabelSelector: all}, ObjectRef{Kind: KindClusterTrustBundle, SignerName: "e.x/s"}},
		"by labels": {corev1.ClusterTrustBundleProjection{SignerName: new("e.x/s"), LabelSelector: some}, ObjectRef{Kind: KindClusterTrustBundle, SignerName: "e.x/s", LabelSelector: "app=shop,tier=web"}},
	} {
		tt.source.Path = "./bundle.pem"
		v := desiredOne(t, nil, tokenSource("", 600, "token"), corev1.VolumeProjection{ClusterTrustBundle: &tt.source})
		want := &ObjectSource{Ref: tt.want, Mode: 0o644, Items: []Item{{Key: TrustBundleKey, Path: "bundle.pem", Mode: 0o644}}}
		if v.Err != nil {
			t.Fatal(v.Err)
		}
		if diff := cmp.Diff(want, v.Sources[1].Object); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		options := metav1.ListOptions{}
		tt.want.narrow(&options)
		if (tt.want.Name == "") == strings.Contains(options.FieldSelector, "metadata.name") || options.LabelSelector != tt.want.LabelSelector {
			t.Errorf("%s is watched by %+v", name, options)
		}
	}
	nothing := corev1.ClusterTrustBundleProjection{SignerName: new("e.x/s"), Optional: new(true), Path: "bundle.pem"}
	v := desiredOne(t, nil, tokenSource("", 600, "token"), corev1.VolumeProjection{ClusterTrustBundle: &nothing})
	if diff := cmp.Diff([]Literal{{Path: "bundle.pem", Mode: 0o644}}, v.Sources[1].Literal); diff != "" || v.Err != nil {
		t.Errorf("optional, and no selector: %v %s", v.Err, diff)
	}
}

// TestTrustBundleOnDisk: a missing bundle holds the first version back, or is an empty file if optional; a change
// is published; one that is deleted keeps its last bytes, or becomes the empty file.
func TestTrustBundleOnDisk(t *testing.T) {
	ref := ObjectRef{Kind: KindClusterTrustBundle, Name: "roots"}
	content := func(c string) map[string][]byte {
		return map[string][]byte{TrustBundleKey: NormalizeTrustBundles(pemOf(c))}
	}
	for _, optional := range []bool{false, true} {
		r := newRig(t)
		pod := lonePod(1, 600)
		pod.Spec.Volumes[0].Projected.Sources = append(pod.Spec.Volumes[0].Projected.Sources, corev1.VolumeProjection{
			ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: new("roots"), Path: "roots.pem", Optional: &optional},
		})
		r.apply(pod)
		r.drain()
		if len(r.files) != 0 || !r.watching[ref] {
			t.Fatal("published before the watch has answered, or there is none")
		}
		r.s.touch(ref, nil, r.now)
		r.drain()
		if got, ok := r.files[extra(1)]["roots.pem"]; ok != optional || got.data != "" {
			t.Errorf("optional %v: absent, %v %q", optional, ok, got.data)
		}
		for _, c := range []string{"1", "2"} {
			r.s.touch(ref, content(c), r.now)
			r.drain()
			if diff := cmp.Diff([]string{c}, blocks(t, []byte(r.files[extra(1)]["roots.pem"].data))); diff != "" {
				t.Errorf("optional %v: %s", optional, diff)
			}
		}
		r.s.touch(ref, nil, r.now)
		r.drain()
		want := string(content("2")[TrustBundleKey])
		if optional {
			want = ""
		}
		if got := r.files[extra(1)]["roots.pem"].data; got != want {
			t.Errorf("optional %v: deleted, %q", optional, got)
		}
		if failed := r.volume(extra(1)).err != nil; failed == optional {
			t.Errorf("optional %v: reported %v", optional, failed)
		}
	}
}

// TestResourceFields: units are rounded up, an absent request is 0, an absent limit is what the node can give.
func TestResourceFields(t *testing.T) {
	amounts := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("1500m"), corev1.ResourceMemory: resource.MustParse("100Mi"),
		"hugepages-2Mi": resource.MustParse("4Mi"),
	}
	change := func(p *corev1.Pod) {
		p.Spec.NodeName = "node"
		p.Spec.Containers = []corev1.Container{{Name: "full", Resources: corev1.ResourceRequirements{Limits: amounts, Requests: amounts}}, {Name: "bare"}}
		p.Spec.InitContainers = []corev1.Container{{Name: "init", Resources: corev1.ResourceRequirements{Limits: amounts}}}
	}
	allocatable := map[string][]byte{"cpu": []byte("3500m"), "memory": []byte("2Gi"), "ephemeral-storage": []byte("0")}
	for _, tt := range []struct{ container, resource, divisor, want string }{
		{"full", "limits.cpu", "", "2"},
		{"full", "limits.cpu", "1m", "1500"},
		{"full", "requests.cpu", "1", "2"},
		{"full", "limits.memory", "", "104857600"},
		{"full", "limits.memory", "30Mi", "4"},
		{"full", "requests.memory", "1Mi", "100"},
		{"full", "limits.hugepages-2Mi", "1Mi", "4"},
		{"full", "requests.ephemeral-storage", "", "0"},
		{"init", "limits.cpu", "1m", "1500"},
		{"bare", "requests.cpu", "1m", "0"},
		{"bare", "limits.hugepages-2Mi", "", "0"},
		{"bare", "limits.cpu", "", "4"},
		{"bare", "limits.cpu", "1m", "3500"},
		{"bare", "limits.memory", "1Gi", "2"},
		{"full", "limits.ephemeral-storage", "", "0"},
	} {
		r := newRig(t)
		pod := lonePod(1, 600)
		change(pod)
		ref := &corev1.ResourceFieldSelector{ContainerName: tt.container, Resource: tt.resource}
		if tt.divisor != "" {
			ref.Divisor = resource.MustParse(tt.divisor)
		}
		pod.Spec.Volumes[0].Projected.Sources = append(pod.Spec.Volumes[0].Projected.Sources,
			downwardSource(corev1.DownwardAPIVolumeFile{Path: "r", ResourceFieldRef: ref}, field("name", "metadata.name")))
		r.apply(pod)
		for watched := range r.s.objects {
			r.s.touch(watched, allocatable, r.now)
		}
		r.drain()
		files := r.files[extra(1)]
		if files["r"].data != tt.want || files["name"].data != "pod-1" {
			t.Errorf("%s of %s in %s: %q, want %q (%v)", tt.resource, tt.container, tt.divisor, files["r"].data, tt.want, slices.Sorted(maps.Keys(files)))
		}
	}
}
