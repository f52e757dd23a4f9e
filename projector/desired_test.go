package projector

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/atomicwriter"
)

// vaultPod is the pod of the Kubernetes documentation, as admission leaves it:
// two containers, the injected volume and one for vault.
func vaultPod() *corev1.Pod {
	pod := testPod(1, "", 0)
	pod.Labels = map[string]string{"app": "shop", "tier": "web"}
	mounts := []corev1.VolumeMount{
		{Name: "kube-api-access-x", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true},
		{Name: "vault-token", MountPath: "/var/run/secrets/tokens"},
	}
	pod.Spec.Containers = []corev1.Container{
		{Name: "main", Image: "nginx", VolumeMounts: mounts},
		{Name: "sidecar", Image: "proxy", VolumeMounts: mounts[:1]},
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes,
		projected("vault-token", tokenSource("vault", 7200, "vault-token")),
		corev1.Volume{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	return pod
}

// TestDesiredBorn: a pod comes to its node when it is bound; if nobody says when that was, it did when it was created.
func TestDesiredBorn(t *testing.T) {
	pod := vaultPod()
	expect := func(want time.Time) {
		t.Helper()
		if got := Desired(pod, SelectAll).Born; !got.Equal(want) {
			t.Errorf("born %v, want %v", got, want)
		}
	}
	expect(time.Time{})
	pod.CreationTimestamp = metav1.NewTime(issuedAt)
	expect(issuedAt)
	pod.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(issuedAt.Add(time.Hour))},
		{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(issuedAt.Add(time.Second))},
	}
	expect(issuedAt)
	pod.Status.Conditions[1].Status = corev1.ConditionTrue
	expect(issuedAt.Add(time.Second))
	pod.Status.Conditions[1].LastTransitionTime = metav1.Time{} // whoever bound it did not say
	expect(issuedAt)
}

func TestDesiredVaultPod(t *testing.T) {
	want := Wish{
		UID: "uid-1", Namespace: "default", Name: "pod-1", ServiceAccount: "default",
		Volumes: []Volume{
			{Name: "kube-api-access-x", Sources: []Source{
				{Token: &TokenSource{ExpirationSeconds: 3607, Path: "token", Mode: 0o644}},
				{Index: 1, Object: &ObjectSource{Ref: rootCA, Mode: 0o644, Items: []Item{{Key: "ca.crt", Path: "ca.crt", Mode: 0o644}}}},
				{Index: 2, Literal: []Literal{{Path: "namespace", Data: []byte("default"), Mode: 0o644}}},
			}},
			{Name: "vault-token", Sources: []Source{
				{Token: &TokenSource{Audience: "vault", ExpirationSeconds: 7200, Path: "vault-token", Mode: 0o644}},
			}},
		},
	}
	if diff := cmp.Diff(want, Desired(vaultPod(), SelectAll)); diff != "" {
		t.Error(diff)
	}
}

// desiredOne is what Desired makes of a pod with one volume of these sources.
func desiredOne(t *testing.T, change func(*corev1.Pod), sources ...corev1.VolumeProjection) Volume {
	t.Helper()
	pod := testPod(1, "", 0)
	pod.Spec.Volumes = []corev1.Volume{projected("v", sources...)}
	if change != nil {
		change(pod)
	}
	w := Desired(pod, SelectAll)
	if len(w.Volumes) != 1 || w.Volumes[0].Name != "v" {
		t.Fatalf("volumes %+v", w.Volumes)
	}
	return w.Volumes[0]
}

func downwardSource(items ...corev1.DownwardAPIVolumeFile) corev1.VolumeProjection {
	return corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: items}}
}

func field(path, field string) corev1.DownwardAPIVolumeFile {
	return corev1.DownwardAPIVolumeFile{Path: path, FieldRef: &corev1.ObjectFieldSelector{FieldPath: field}}
}

func TestDesiredObjectSource(t *testing.T) {
	ref := ObjectRef{Kind: "ConfigMap", Namespace: "default", Name: "c"}
	named := corev1.LocalObjectReference{Name: "c"}
	for name, tt := range map[string]struct {
		source corev1.ConfigMapProjection
		want   ObjectSource
	}{
		"every key": {corev1.ConfigMapProjection{LocalObjectReference: named}, ObjectSource{Ref: ref, Mode: 0o644}},
		"optional": {corev1.ConfigMapProjection{LocalObjectReference: named, Optional: new(true)},
			ObjectSource{Ref: ref, Mode: 0o644, Optional: true}},
		"not optional": {corev1.ConfigMapProjection{LocalObjectReference: named, Optional: new(false)},
			ObjectSource{Ref: ref, Mode: 0o644}},
		"items": {corev1.ConfigMapProjection{LocalObjectReference: named, Items: []corev1.KeyToPath{
			{Key: "k", Path: "sub/p", Mode: new(int32(0o400))}, {Key: "k", Path: "q"},
		}}, ObjectSource{Ref: ref, Mode: 0o644, Items: []Item{
			{Key: "k", Path: "sub/p", Mode: 0o400}, {Key: "k", Path: "q", Mode: 0o644},
		}}},
	} {
		v := desiredOne(t, nil, tokenSource("", 600, "token"), corev1.VolumeProjection{ConfigMap: &tt.source})
		if v.Err != nil || len(v.Sources) != 2 {
			t.Fatalf("%s: %+v", name, v)
		}
		if diff := cmp.Diff(&tt.want, v.Sources[1].Object); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		// A secret is the same, but for its kind.
		secret := corev1.SecretProjection(tt.source)
		v = desiredOne(t, nil, tokenSource("", 600, "token"), corev1.VolumeProjection{Secret: &secret})
		tt.want.Ref.Kind = "Secret"
		if diff := cmp.Diff(&tt.want, v.Sources[1].Object); diff != "" || v.Err != nil {
			t.Errorf("%s, as a secret: %v %s", name, v.Err, diff)
		}
	}
}

func TestDesiredDownwardSource(t *testing.T) {
	mode := field("mode", "metadata.uid")
	mode.Mode = new(int32(0o440))
	v := desiredOne(t, func(pod *corev1.Pod) {
		pod.Labels = map[string]string{"b": "2", "a": "1\n\"x\"", "dotted.io/key": "v"}
		pod.Annotations = map[string]string{"note": "n"}
	}, tokenSource("", 600, "token"), downwardSource(
		field("name", "metadata.name"), field("./deep//namespace", "metadata.namespace"), mode,
		field("labels", "metadata.labels"), field("annotations", "metadata.annotations"),
		field("one", "metadata.labels['dotted.io/key']"), field("note", "metadata.annotations['note']"),
		field("absent", "metadata.labels['absent']")))
	literal := func(path, data string, mode fs.FileMode) Literal {
		return Literal{Path: path, Data: []byte(data), Mode: mode}
	}
	want := []Literal{
		literal("name", "pod-1", 0o644), literal("deep/namespace", "default", 0o644), literal("mode", "uid-1", 0o440),
		literal("labels", "a=\"1\\n\\\"x\\\"\"\nb=\"2\"\ndotted.io/key=\"v\"", 0o644),
		literal("annotations", `note="n"`, 0o644), literal("one", "v", 0o644),
		literal("note", "n", 0o644), literal("absent", "", 0o644),
	}
	if v.Err != nil {
		t.Fatal(v.Err)
	}
	if diff := cmp.Diff(want, v.Sources[1].Literal); diff != "" {
		t.Error(diff)
	}
}

// TestDesiredRefuses: what cannot be projected as the kubelet would is an error
// of that one volume, which says where and why, and leaves no sources.
func TestDesiredRefuses(t *testing.T) {
	resource := func(container, name string) corev1.VolumeProjection {
		return downwardSource(corev1.DownwardAPIVolumeFile{Path: "r", ResourceFieldRef: &corev1.ResourceFieldSelector{
			ContainerName: container, Resource: name,
		}})
	}
	bundle := func(b corev1.ClusterTrustBundleProjection) corev1.VolumeProjection {
		b.Path = "bundle"
		return corev1.VolumeProjection{ClusterTrustBundle: &b}
	}
	signer := new("example.com/signer")
	token := tokenSource("", 600, "token")
	item := func(path string) corev1.VolumeProjection {
		s := configMapSource("c", "k")
		s.ConfigMap.Items[0].Path = path
		return s
	}
	for name, tt := range map[string]struct {
		source corev1.VolumeProjection
		reason string
		says   string
	}{
		"certificate":                {corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{}}, ReasonUnsupported, "source 1: podCertificate"},
		"bundle of nobody":           {bundle(corev1.ClusterTrustBundleProjection{}), ReasonInvalid, "neither name nor signerName"},
		"bundle without labels":      {bundle(corev1.ClusterTrustBundleProjection{SignerName: signer}), ReasonInvalid, "labelSelector"},
		"bundle with a bad selector": {bundle(corev1.ClusterTrustBundleProjection{SignerName: signer, LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Operator: "maybe"}}}}), ReasonInvalid, "maybe"},
		"no such container":          {resource("gone", "limits.cpu"), ReasonInvalid, "gone"},
		"no such list":               {resource("main", "wishes.cpu"), ReasonInvalid, "wishes.cpu"},
		"no such resource":           {resource("main", "limits.gpu"), ReasonInvalid, "limits.gpu"},
		"no kind of resource":        {resource("main", "limits"), ReasonInvalid, "limits"},
		"neither":                    {downwardSource(corev1.DownwardAPIVolumeFile{Path: "f"}), ReasonInvalid, "resourceFieldRef"},
		"bad key":                    {downwardSource(field("f", "metadata.labels['no key']")), ReasonInvalid, "no key"},
		"unknown field":              {downwardSource(field("f", "spec.nodeName")), ReasonInvalid, "spec.nodeName"},
		"bad subscript":              {downwardSource(field("f", "metadata.labels['x'")), ReasonInvalid, "metadata.labels"},
		"no expiration":              {corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "t"}}, ReasonInvalid, "expirationSeconds"},
		"absolute token path":        {tokenSource("", 600, "/etc/passwd"), ReasonInvalid, "/etc/passwd"},
		"token path up":              {tokenSource("", 600, "a/../../b"), ReasonInvalid, "a/../../b"},
		"token path reserved":        {tokenSource("", 600, "..data"), ReasonInvalid, "..data"},
		"hidden reserved":            {tokenSource("", 600, "./..data"), ReasonInvalid, "..data"},
		"empty token path":           {tokenSource("", 600, ""), ReasonInvalid, "empty"},
		"item up":                    {item("../x"), ReasonInvalid, "../x"},
		"item below a file":          {item("token/x"), ReasonInvalid, "token"},
		"downward up":                {downwardSource(field("a/../../x", "metadata.name")), ReasonInvalid, "../x"},
		"same path, spelt otherwise": {item("./token"), ReasonInvalid, "token"},
	} {
		v := desiredOne(t, func(p *corev1.Pod) { p.Spec.Containers = []corev1.Container{{Name: "main"}} }, token, tt.source)
		if v.Err == nil || v.Err.Reason != tt.reason || !strings.Contains(v.Err.Message, tt.says) || v.Sources != nil {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestDesiredNoDefaultMode(t *testing.T) {
	v := desiredOne(t, func(pod *corev1.Pod) { pod.Spec.Volumes[0].Projected.DefaultMode = nil }, tokenSource("", 600, "token"))
	if v.Err == nil || v.Err.Reason != ReasonInvalid || !strings.Contains(v.Err.Message, "defaultMode") {
		t.Errorf("%+v", v)
	}
}

// TestDesiredCertificateAlone: a podCertificate without any token is refused as visibly as beside one.
func TestDesiredCertificateAlone(t *testing.T) {
	v := desiredOne(t, nil, corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{}})
	if v.Err == nil || v.Err.Reason != ReasonUnsupported {
		t.Errorf("%+v", v)
	}
}

func TestDesiredNoAccount(t *testing.T) {
	v := desiredOne(t, func(pod *corev1.Pod) { pod.Spec.ServiceAccountName = "" }, tokenSource("", 600, "token"))
	if v.Err == nil || v.Err.Reason != ReasonInvalid || !strings.Contains(v.Err.Message, "serviceAccountName") {
		t.Errorf("%+v", v)
	}
}

func TestDesiredDefaultMode(t *testing.T) {
	v := desiredOne(t, func(pod *corev1.Pod) { pod.Spec.Volumes[0].Projected.DefaultMode = new(int32(0o400)) },
		tokenSource("", 600, "token"), namespaceSource(), configMapSource("c", "k"))
	if v.Err != nil || v.Sources[0].Token.Mode != 0o400 || v.Sources[1].Literal[0].Mode != 0o400 || v.Sources[2].Object.Items[0].Mode != 0o400 {
		t.Errorf("%+v", v)
	}
}

// TestDesiredShadowed: a token whose file a later source overwrites is not asked
// for, and an empty source is nothing.
func TestDesiredShadowed(t *testing.T) {
	v := desiredOne(t, nil, tokenSource("a", 600, "token"), corev1.VolumeProjection{}, tokenSource("b", 600, "other"),
		tokenSource("c", 600, "token"), configMapSource("m", "other"))
	var audiences []string
	for _, s := range v.Sources {
		if s.Token != nil {
			audiences = append(audiences, s.Token.Audience)
		}
	}
	if diff := cmp.Diff([]string{"c"}, audiences); diff != "" || v.Err != nil {
		t.Errorf("%v %s", v.Err, diff)
	}
}

// TestDesiredNothing: pods that want nothing, whatever their volumes.
func TestDesiredNothing(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"mirror":           func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: ""} },
		"succeeded":        func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded },
		"failed":           func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed },
		"no volumes":       func(p *corev1.Pod) { p.Spec.Volumes = nil },
		"no token":         func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{projected("v", namespaceSource())} },
		"no projection":    func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "v"}} },
		"nothing in it":    func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{projected("v")} },
		"failed, deleting": func(p *corev1.Pod) { p.Status.Phase, p.DeletionTimestamp = corev1.PodFailed, new(metav1.Now()) },
	} {
		pod := vaultPod()
		change(pod)
		if w := Desired(pod, SelectAll); len(w.Volumes) != 0 || w.UID != "uid-1" {
			t.Errorf("%s: %+v", name, w)
		}
	}
	for _, phase := range []corev1.PodPhase{"", corev1.PodPending, corev1.PodRunning, corev1.PodUnknown} {
		pod := vaultPod()
		pod.Status.Phase = phase
		if w := Desired(pod, SelectAll); len(w.Volumes) != 2 {
			t.Errorf("phase %q: %+v", phase, w)
		}
	}
}

// TestDesiredRetire: a terminating pod keeps its volumes, and says until when.
func TestDesiredRetire(t *testing.T) {
	deleted := metav1.NewTime(time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)) // with its grace period
	pod := vaultPod()
	pod.DeletionTimestamp = &deleted
	w := Desired(pod, SelectAll)
	if want := deleted.Add(time.Minute); !w.Retire.Equal(want) || len(w.Volumes) != 2 {
		t.Errorf("%+v", w)
	}
}

func TestDesiredUnmounted(t *testing.T) {
	mount := []corev1.VolumeMount{{Name: "extra"}}
	device := []corev1.VolumeDevice{{Name: "extra"}}
	for name, tt := range map[string]struct {
		change func(*corev1.PodSpec)
		want   bool // extra is unmounted
	}{
		"no mounts":      {func(*corev1.PodSpec) {}, true},
		"another volume": {func(s *corev1.PodSpec) { s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "extra2"}} }, true},
		"container":      {func(s *corev1.PodSpec) { s.Containers[0].VolumeMounts = mount }, false},
		"device":         {func(s *corev1.PodSpec) { s.Containers[0].VolumeDevices = device }, false},
		"second":         {func(s *corev1.PodSpec) { s.Containers[1].VolumeMounts = mount }, false},
		"init container": {func(s *corev1.PodSpec) { s.InitContainers = []corev1.Container{{VolumeMounts: mount}} }, false},
		"ephemeral": {func(s *corev1.PodSpec) {
			s.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{VolumeMounts: mount}}}
		}, true}, // it came later: what is ours stays ours
		"ephemeral device": {func(s *corev1.PodSpec) {
			s.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{VolumeDevices: device}}}
		}, true},
	} {
		pod := testPod(1, "vault", 600)
		pod.Spec.Containers = make([]corev1.Container, 2)
		tt.change(&pod.Spec)
		has := func(which Selection) bool {
			return slices.ContainsFunc(Desired(pod, which).Volumes, func(v Volume) bool { return v.Name == "extra" })
		}
		if got := has(SelectUnmounted); got != tt.want || !has(SelectAll) {
			t.Errorf("%s: unmounted %v, all %v", name, got, has(SelectAll))
		}
	}
}

// TestDesiredFailsAlone: one volume's error touches no neighbour.
func TestDesiredFailsAlone(t *testing.T) {
	pod := vaultPod()
	pod.Spec.Volumes[0] = projected("bad", tokenSource("", 600, "../up"))
	w := Desired(pod, SelectAll)
	if len(w.Volumes) != 2 || w.Volumes[0].Err == nil || w.Volumes[1].Err != nil {
		t.Errorf("%+v", w.Volumes)
	}
}

// FuzzDesired: any pod that JSON can say gives a wish whose paths are safe and which is
// the same when asked again; the pod is not changed.
func FuzzDesired(f *testing.F) {
	every := testPod(3, "a", 600)
	security(new(int64(7)), new(int64(9)), nil)(every)
	every.Spec.Volumes[1].Projected.Sources = append(every.Spec.Volumes[1].Projected.Sources,
		corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{SignerName: new("s"), LabelSelector: &metav1.LabelSelector{}, Path: "b", User: new(int64(5))}},
		downwardSource(corev1.DownwardAPIVolumeFile{Path: "r", ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}))
	for _, pod := range []*corev1.Pod{vaultPod(), testPod(2, "a", 600), every} {
		text, err := json.Marshal(pod)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"spec":{"volumes":[{"name":"v","projected":{"defaultMode":-1,"sources":[{"serviceAccountToken":{"path":"a/../..","expirationSeconds":0}},{}]}}]}}`))
	f.Add([]byte(`{"spec":{"volumes":[{"name":"v","projected":{"defaultMode":420,"sources":[{"serviceAccountToken":{"path":"t","expirationSeconds":1}},{"downwardAPI":{"items":[{"path":"..//x","fieldRef":{"fieldPath":"metadata.labels['']"}}]}}]}}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var pod corev1.Pod
		if json.Unmarshal(text, &pod) != nil {
			return
		}
		before := pod.DeepCopy()
		for _, which := range []Selection{SelectAll, SelectUnmounted} {
			w := Desired(&pod, which)
			checkWish(t, w)
			if diff := cmp.Diff(w, Desired(&pod, which)); diff != "" {
				t.Error("not the same again:", diff)
			}
		}
		if diff := cmp.Diff(before, &pod); diff != "" {
			t.Error("the pod was changed:", diff)
		}
	})
}

func checkWish(t *testing.T, w Wish) {
	for _, v := range w.Volumes {
		if (v.Err == nil) == (v.Sources == nil) {
			t.Errorf("volume %q: error %v, %d sources", v.Name, v.Err, len(v.Sources))
		}
		if err := atomicwriter.ValidatePaths(staticPaths(v.Sources)); err != nil {
			t.Errorf("volume %q: %v", v.Name, err)
		}
		tokens := 0
		for _, s := range v.Sources {
			if s.Token != nil {
				tokens++
			}
		}
		if v.Err == nil && tokens == 0 {
			t.Errorf("volume %q has no token", v.Name)
		}
	}
}

// BenchmarkDesired is the pod of a documentation page: two containers, the
// injected volume and one for vault.
func BenchmarkDesired(b *testing.B) {
	pod := vaultPod()
	b.ReportAllocs()
	for b.Loop() {
		if w := Desired(pod, SelectAll); len(w.Volumes) != 2 || !bytes.Equal(w.Volumes[0].Sources[2].Literal[0].Data, []byte("default")) {
			b.Fatalf("%+v", w)
		}
	}
}
