package conformance

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/token-projector/token-projector/projector"
)

// hostileSpec is what somebody may ask of the API server for a pod, and what becomes of it.
type hostileSpec struct {
	change func(pod *corev1.Pod) // its first volume has a token and an item of a configMap
	let    bool                  // the server lets it through
	ours   string                // reason of our error; "": projected
}

func hostileToken(pod *corev1.Pod) *corev1.ServiceAccountTokenProjection {
	return pod.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken
}

func hostileItem(pod *corev1.Pod) *corev1.KeyToPath {
	return &pod.Spec.Volumes[0].Projected.Sources[1].ConfigMap.Items[0]
}

// hostilePaths are paths of a token or of an item, alike.
func hostilePaths() map[string]hostileSpec {
	const bad = projector.ReasonInvalid
	return map[string]hostileSpec{
		"": {nil, false, bad}, "/": {nil, false, bad}, "/abs": {nil, false, bad}, "..": {nil, false, bad}, "../x": {nil, false, bad},
		"a/../../x": {nil, false, bad}, "a/../x": {nil, false, bad}, "a/..": {nil, false, bad}, "..data": {nil, false, bad},
		"..data_tmp": {nil, false, bad}, "..2026_01_01_00_00_00.1": {nil, false, bad}, "./../x": {nil, false, bad},
		".": {nil, true, bad}, "./": {nil, true, bad}, "./..data": {nil, true, bad}, "./..2026_01_01_00_00_00.1/x": {nil, true, bad},
		"a\x00b": {nil, true, bad}, strings.Repeat("a/", 2048) + "b": {nil, true, bad}, strings.Repeat("a", 256): {nil, true, bad},
		strings.Repeat("d/", 64) + "f": {nil, true, bad},
		"file/":                        {nil, true, ""}, "a//b": {nil, true, ""}, "new\nline": {nil, true, ""}, "a/..data": {nil, true, ""}, "-": {nil, true, ""},
		strings.Repeat("a", 255): {nil, true, ""}, strings.Repeat("d/", 63) + "f": {nil, true, ""},
	}
}

func hostileSpecs() map[string]hostileSpec {
	const bad = projector.ReasonInvalid
	all := map[string]hostileSpec{
		"as it should be":    {func(*corev1.Pod) {}, true, ""},
		"a negative mode":    {func(p *corev1.Pod) { p.Spec.Volumes[0].Projected.DefaultMode = ptr.To[int32](-1) }, false, bad},
		"a setuid mode":      {func(p *corev1.Pod) { p.Spec.Volumes[0].Projected.DefaultMode = ptr.To[int32](0o4755) }, false, bad},
		"an item's mode":     {func(p *corev1.Pod) { hostileItem(p).Mode = ptr.To[int32](-1) }, false, bad},
		"a strange audience": {func(p *corev1.Pod) { hostileToken(p).Audience = "../../x\n\"" + strings.Repeat("a", 1<<16) }, true, ""},
		"no object":          {func(p *corev1.Pod) { p.Spec.Volumes[0].Projected.Sources[1].ConfigMap.Name = "" }, false, bad},
		"a negative group":   {func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr.To[int64](-1)} }, false, bad},
		"the greatest group": {func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr.To[int64](1<<31 - 1)}
		}, true, ""},
		"too many sources":      {func(p *corev1.Pod) { manyTokens(p, 4096) }, true, bad},
		"as many as fit":        {func(p *corev1.Pod) { manyTokens(p, 4094) }, true, ""},
		"an account with a way": {func(p *corev1.Pod) { p.Spec.ServiceAccountName = "../x" }, false, ""},
	}
	for path, s := range hostilePaths() {
		all[fmt.Sprintf("the path %.40q", path)] = hostileSpec{func(p *corev1.Pod) { hostileToken(p).Path = path }, s.let, s.ours}
		all[fmt.Sprintf("the item's path %.40q", path)] = hostileSpec{func(p *corev1.Pod) { hostileItem(p).Path = path }, s.let, s.ours}
	}
	for _, name := range []string{"", ".", "..", "../w", "a/../../x", "/abs", "a\x00", strings.Repeat("v", 256)} {
		all[fmt.Sprintf("the volume %.40q", name)] = hostileSpec{func(p *corev1.Pod) { p.Spec.Volumes[0].Name = name }, false, bad}
	}
	return all
}

func manyTokens(pod *corev1.Pod, n int) {
	sources := &pod.Spec.Volumes[0].Projected.Sources
	for i := range n {
		s := corev1.VolumeProjection{ServiceAccountToken: hostileToken(pod).DeepCopy()}
		s.ServiceAccountToken.Path = fmt.Sprint("token-", i)
		*sources = append(*sources, s)
	}
}

// TestHostileSpecs: of what test/hostile has a server hand out that was broken into, the real one lets through what the table says; and
// all that it lets through is projected or a visible error. What it refuses is an error of ours, too, if it concerns the volume.
func TestHostileSpecs(t *testing.T) {
	const namespace = "hostile"
	createNamespace(t, namespace)
	let := 0
	for name, tt := range hostileSpecs() {
		volume := projected("v",
			corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "a", ExpirationSeconds: ptr.To[int64](600), Path: "token"}},
			corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "c"},
				Items: []corev1.KeyToPath{{Key: "k", Path: "item"}}}})
		volume.Projected.DefaultMode = ptr.To[int32](0o644)
		pod := newPod(namespace, "pod", appAccount, "", volume)
		tt.change(pod)
		stored, err := client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		switch {
		case tt.let && err != nil:
			t.Errorf("%s: refused: %.300v", name, err)
		case !tt.let && !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err):
			t.Errorf("%s: not refused: %v", name, err)
		}
		if err != nil {
			stored = pod
		} else {
			let++
		}
		stored.UID = "uid"
		volumes := projector.Desired(stored, projector.SelectAll).Volumes
		if len(volumes) == 0 {
			t.Errorf("%s: the volume is not wanted at all", name)
			continue
		}
		got := ""
		if volumes[0].Err != nil {
			got = volumes[0].Err.Reason
		}
		if got != tt.ours {
			t.Errorf("%s: our reason is %q, want %q", name, got, tt.ours)
		}
	}
	t.Logf("%d of %d let through", let, len(hostileSpecs()))
}
