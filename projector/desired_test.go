package projector

import (
	"bytes"
	"encoding/json"
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

func TestDesiredVaultPod(t *testing.T) {
	want := Wish{
		UID: "uid-1", Namespace: "default", Name: "pod-1", ServiceAccount: "default",
		Volumes: []Volume{
			{Name: "kube-api-access-x", Sources: []Source{
				{Token: &TokenSource{ExpirationSeconds: 3607, Path: "token", Mode: 0o644}},
				{Object: &ObjectSource{Ref: rootCA, Mode: 0o644, Items: []Item{{Key: "ca.crt", Path: "ca.crt", Mode: 0o644}}}},
				{Literal: []Literal{{Path: "namespace", Data: []byte("default"), Mode: 0o644}}},
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
	want := []Literal{
		{"name", []byte("pod-1"), 0o644}, {"deep/namespace", []byte("default"), 0o644},
		{"mode", []byte("uid-1"), 0o440},
		{"labels", []byte("a=\"1\\n\\\"x\\\"\"\nb=\"2\"\ndotted.io/key=\"v\""), 0o644},
		{"annotations", []byte(`note="n"`), 0o644}, {"one", []byte("v"), 0o644},
		{"note", []byte("n"), 0o644}, {"absent", []byte(""), 0o644},
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
	resource := downwardSource(corev1.DownwardAPIVolumeFile{Path: "cpu", ResourceFieldRef: &corev1.ResourceFieldSelector{}})
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
		"bundle":                     {corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}}, ReasonUnsupported, "source 1: clusterTrustBundle"},
		"certificate":                {corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{}}, ReasonUnsupported, "source 1: podCertificate"},
		"resource":                   {resource, ReasonUnsupported, "resourceFieldRef"},
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
		v := desiredOne(t, nil, token, tt.source)
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
		has := func(which Selection) bool { w := Desired(pod, which); return wants(&w, "extra") }
		if got := has(SelectUnmounted); got != tt.want || !has(SelectAll) {
			t.Errorf("%s: unmounted %v, all %v", name, got, has(SelectAll))
		}
	}
}

// TestDesiredOwnerRules: until files get the kubelet's owners, a pod whose files
// would need one is refused.
func TestDesiredOwnerRules(t *testing.T) {
	pod := func(user *int64, group *int64) *corev1.PodSecurityContext {
		return &corev1.PodSecurityContext{RunAsUser: user, FSGroup: group}
	}
	user := func(id int64) *corev1.SecurityContext { return &corev1.SecurityContext{RunAsUser: &id} }
	debug := func(sc *corev1.SecurityContext) []corev1.EphemeralContainer {
		return []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{SecurityContext: sc}}}
	}
	two := func(a, b *corev1.SecurityContext) []corev1.Container {
		return []corev1.Container{{SecurityContext: a}, {SecurityContext: b}}
	}
	for name, tt := range map[string]struct {
		spec corev1.PodSpec
		says string // "": accepted
	}{
		"nothing":                  {corev1.PodSpec{Containers: two(nil, nil)}, ""},
		"empty contexts":           {corev1.PodSpec{SecurityContext: pod(nil, nil), Containers: two(&corev1.SecurityContext{}, nil)}, ""},
		"fsGroup":                  {corev1.PodSpec{SecurityContext: pod(nil, new(int64(0))), Containers: two(nil, nil)}, "fsGroup"},
		"pod user":                 {corev1.PodSpec{SecurityContext: pod(new(int64(7)), nil), Containers: two(nil, nil)}, "runAsUser"},
		"root counts":              {corev1.PodSpec{SecurityContext: pod(new(int64(0)), nil), Containers: two(nil, nil)}, "runAsUser"},
		"same in each":             {corev1.PodSpec{Containers: two(user(7), user(7))}, "runAsUser"},
		"two users":                {corev1.PodSpec{Containers: two(user(7), user(8))}, ""},
		"one has none":             {corev1.PodSpec{Containers: two(user(7), nil)}, ""},
		"first has none":           {corev1.PodSpec{Containers: two(nil, user(7))}, ""},
		"pod's, one overrides":     {corev1.PodSpec{SecurityContext: pod(new(int64(7)), nil), Containers: two(user(8), nil)}, ""},
		"pod's, override alike":    {corev1.PodSpec{SecurityContext: pod(new(int64(7)), nil), Containers: two(user(7), nil)}, "runAsUser"},
		"init differs":             {corev1.PodSpec{InitContainers: two(user(8), user(7)), Containers: two(user(7), user(7))}, ""},
		"init alike":               {corev1.PodSpec{InitContainers: two(user(7), user(7)), Containers: two(user(7), user(7))}, "runAsUser"},
		"ephemeral differs":        {corev1.PodSpec{Containers: two(user(7), user(7)), EphemeralContainers: debug(user(8))}, ""},
		"ephemeral without a user": {corev1.PodSpec{Containers: two(user(7), user(7)), EphemeralContainers: debug(nil)}, ""},
		"ephemeral alike":          {corev1.PodSpec{Containers: two(user(7), user(7)), EphemeralContainers: debug(user(7))}, "runAsUser"},
	} {
		v := desiredOne(t, func(p *corev1.Pod) {
			tt.spec.Volumes = p.Spec.Volumes
			p.Spec = tt.spec
		}, tokenSource("", 600, "token"))
		switch {
		case tt.says == "" && v.Err != nil:
			t.Errorf("%s: refused: %v", name, v.Err)
		case tt.says != "" && (v.Err == nil || v.Err.Reason != ReasonUnsupported || !strings.Contains(v.Err.Message, tt.says)):
			t.Errorf("%s: %+v", name, v)
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
	for _, pod := range []*corev1.Pod{vaultPod(), testPod(2, "a", 600)} {
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
