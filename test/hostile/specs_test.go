package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// What becomes of a pod that no honest server hands out.
const (
	projects = "is projected"
	failed   = "is a visible error"
	ignored  = "is ignored"
)

// spec changes a pod, whose first volume has a token and an item of a configMap.
type spec struct {
	change  func(p *corev1.Pod)
	outcome string
}

func tokenOf(p *corev1.Pod) *corev1.ServiceAccountTokenProjection {
	return p.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken
}

// specs are by name; those of paths, names and UIDs are added below.
func specs() map[string]spec {
	all := map[string]spec{
		"as it should be":       {func(*corev1.Pod) {}, projects},
		"a negative mode":       {func(p *corev1.Pod) { p.Spec.Volumes[0].Projected.DefaultMode = new(int32(-1)) }, failed},
		"a setuid mode":         {func(p *corev1.Pod) { p.Spec.Volumes[0].Projected.DefaultMode = new(int32(0o4755)) }, failed},
		"no mode":               {func(p *corev1.Pod) { p.Spec.Volumes[0].Projected.DefaultMode = nil }, failed},
		"no lifetime":           {func(p *corev1.Pod) { tokenOf(p).ExpirationSeconds = nil }, failed},
		"a negative lifetime":   {func(p *corev1.Pod) { tokenOf(p).ExpirationSeconds = new(int64(-1 << 63)) }, failed},
		"an endless lifetime":   {func(p *corev1.Pod) { tokenOf(p).ExpirationSeconds = new(int64(1<<63 - 1)) }, failed},
		"a strange audience":    {func(p *corev1.Pod) { tokenOf(p).Audience = "../../x\n\"" + strings.Repeat("a", 1<<16) }, projects},
		"no service account":    {func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" }, failed},
		"an account with a way": {func(p *corev1.Pod) { p.Spec.ServiceAccountName = "../../pods/x" }, failed},
		"the volume twice":      {func(p *corev1.Pod) { p.Spec.Volumes = append(p.Spec.Volumes, twin(p)) }, failed},
		"five thousand sources": {func(p *corev1.Pod) { many(p, 5000) }, failed},
		"a negative owner":      {func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(-1))} }, failed},
		"a huge owner":          {func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(1 << 40))} }, failed},
		"an object with a way": {func(p *corev1.Pod) {
			p.Spec.Volumes[0].Projected.Sources[1].ConfigMap.Name = "../secrets/x,metadata.name=settings"
		}, failed},
		"keys with a way": {func(p *corev1.Pod) {
			c := p.Spec.Volumes[0].Projected.Sources[1].ConfigMap
			c.Name, c.Items = "hostile", nil
		}, failed},
		"annotations":          {func(p *corev1.Pod) { annotate(p, 1<<16) }, projects},
		"annotations of 2 MiB": {func(p *corev1.Pod) { annotate(p, 1<<18) }, failed},
		"a mount with a way": {func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}, {Name: "w", MountPath: "/v/../../x"}, {Name: "x", MountPath: "/v/..data/x"}}
		}, projects},
	}
	for _, path := range []string{"", "/", "/abs", "..", "../x", "a/../../x", "a/../x", "a/..", ".", "./", "..data", "./..data", "..data_tmp", "./../x",
		"..2026_01_01_00_00_00.1", "./..2026_01_01_00_00_00.1/x", "a\x00b", strings.Repeat("a/", 2048) + "b", strings.Repeat("a", 256)} {
		all[fmt.Sprintf("the path %.40q", path)] = spec{func(p *corev1.Pod) { tokenOf(p).Path = path }, failed}
		all[fmt.Sprintf("the item's path %.40q", path)] = spec{func(p *corev1.Pod) {
			p.Spec.Volumes[0].Projected.Sources[1].ConfigMap.Items[0].Path = path
		}, failed}
	}
	for _, path := range []string{"token/", "a//b", "new\nline", "-", "a/..data", "\xff\xfe", "token -> /etc", strings.Repeat("a", 255), strings.Repeat("d/", 63) + "f"} {
		all[fmt.Sprintf("the odd path %.40q", path)] = spec{func(p *corev1.Pod) { tokenOf(p).Path = path }, projects}
	}
	for _, name := range []string{"", ".", "..", "../w", "a/../../../../../../../x", "/abs", "a\x00", strings.Repeat("v", 256)} {
		all[fmt.Sprintf("the volume %.40q", name)] = spec{func(p *corev1.Pod) { p.Spec.Volumes[0].Name = name }, failed}
	}
	for _, uid := range []string{"", ".", "..", "../x", "a/b", "/abs", "a\x00b", strings.Repeat("u", 256)} {
		all[fmt.Sprintf("the UID %.40q", uid)] = spec{func(p *corev1.Pod) { p.UID = types.UID(uid) }, ignored}
	}
	return all
}

func twin(p *corev1.Pod) corev1.Volume {
	v := *p.Spec.Volumes[0].DeepCopy()
	v.Projected.Sources[0].ServiceAccountToken.Path = "another"
	return v
}

// annotate gives the pod an annotation that its volume holds, quoted.
func annotate(p *corev1.Pod, n int) {
	p.Annotations = map[string]string{"a": strings.Repeat("\n\xff\"", n)}
	field := corev1.DownwardAPIVolumeFile{Path: "annotations", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations"}}
	sources := &p.Spec.Volumes[0].Projected.Sources
	*sources = append(*sources, corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{field}}})
}

func many(p *corev1.Pod, n int) {
	sources := &p.Spec.Volumes[0].Projected.Sources
	for i := range n {
		s := corev1.VolumeProjection{ServiceAccountToken: tokenOf(p).DeepCopy()}
		s.ServiceAccountToken.Path = fmt.Sprint("token-", i)
		*sources = append(*sources, s)
	}
}

// TestSpecs has a server that was broken into hand out pods that no honest one lets through. Each is projected where it belongs, or a
// visible error, or ignored; nothing is made beside the pods' directories; and pods beside them are served.
func TestSpecs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hostile := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "hostile"}, BinaryData: map[string][]byte{}}
	for _, key := range []string{"../../../../../../../escaped", "/escaped", "..data", "a\x00"} {
		hostile.BinaryData[key] = make([]byte, 1<<20)
	}
	_, err := fakeapi.Plant(w.api, hostile)
	check(t, err)
	before := fingerprint(t, w.canary(t, "specs"), false)
	want, uids, i := map[string]int{projects: len(w.others)}, []string{}, 0
	for name, s := range specs() {
		i++
		pod := newPod(fmt.Sprint("spec-", i))
		pod.UID = types.UID(fmt.Sprint("uid-", i))
		s.change(pod)
		want[s.outcome]++
		_, err := fakeapi.Plant(w.api, pod)
		check(t, err)
		if s.outcome != ignored {
			uids = append(uids, string(pod.UID))
		}
		if s.outcome == projects {
			path := filepath.Join(w.path(pod), tokenOf(pod).Path)
			daemontest.Eventually(t, name, func() bool { data, err := os.ReadFile(path); return err == nil && len(data) > 0 })
		}
	}
	daemontest.Eventually(t, fmt.Sprint(want), func() bool {
		got := map[string]int{ignored: strings.Count(w.Output(), "pod has no usable UID")}
		for _, m := range w.Scrape()["token_projector_volumes"].GetMetric() {
			switch m.GetLabel()[0].GetValue() {
			case "ready":
				got[projects] = int(m.GetGauge().GetValue())
			case "failed":
				got[failed] = int(m.GetGauge().GetValue())
			}
		}
		return got[projects] == want[projects] && got[failed] == want[failed] && got[ignored] >= want[ignored]
	})
	w.awaitRenewals(t)
	unchanged(t, filepath.Join(w.top, "canary-specs"), false, before)
	w.expectEntries(t, w.top, "canary-specs", "root")
	w.expectEntries(t, w.root, ".token-projector", "pods")
	for _, dir := range w.others {
		uids = append(uids, filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(dir)))))
	}
	entries, err := os.ReadDir(filepath.Join(w.root, "pods"))
	check(t, err)
	for _, e := range entries { // a volume may be found out to be too big when its directory is there
		if !slices.Contains(uids, e.Name()) {
			t.Errorf("there is a pod %q", e.Name())
		}
		w.expectEntries(t, filepath.Join(w.root, "pods", e.Name(), "volumes/kubernetes.io~projected"), "v")
	}
	w.Terminate()
}

// expectEntries fails the test unless a directory has these entries.
func (w *world) expectEntries(t *testing.T, dir string, want ...string) {
	t.Helper()
	var got []string
	entries, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("%s has %q, want %q", dir, got, want)
	}
}
