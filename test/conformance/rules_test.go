package conformance

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/token-projector/token-projector/projector"
)

// What the API server lets into a projected volume, and what our own reading of a pod says of the same volume: what the
// server refuses may never reach a disk, and what it accepts is either projected or a visible error.
func TestPodAPIRules(t *testing.T) {
	const namespace = "rules"
	createNamespace(t, namespace)
	for name, tt := range podAPIRules() {
		volume := projected("v", tt.sources...)
		volume.Projected.DefaultMode = tt.mode
		pod := newPod(namespace, "pod", appAccount, "", volume)
		options := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
		stored, err := client.CoreV1().Pods(namespace).Create(t.Context(), pod, options)
		switch {
		case tt.server == "" && err != nil:
			t.Errorf("%s: the server refuses it: %v", name, err)
		case tt.server != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tt.server)):
			t.Errorf("%s: the server says %v, want %q", name, err, tt.server)
		}
		if tt.server != "" {
			stored = withDefaults(pod)
		}
		stored.UID = "uid"
		if err := judged(stored, tt.ours); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// podAPIRule is one projected volume, and what is said of it.
type podAPIRule struct {
	mode    *int32
	sources []corev1.VolumeProjection
	server  string // what it refuses with; "": accepted
	ours    string // reason of our error; "": projected
}

func podAPIRules() map[string]podAPIRule {
	token := func(change func(*corev1.ServiceAccountTokenProjection)) corev1.VolumeProjection {
		p := &corev1.ServiceAccountTokenProjection{Audience: "a", Path: "token"}
		if change != nil {
			change(p)
		}
		return corev1.VolumeProjection{ServiceAccountToken: p}
	}
	seconds := func(n int64) corev1.VolumeProjection {
		return token(func(p *corev1.ServiceAccountTokenProjection) { p.ExpirationSeconds = &n })
	}
	at := func(path string) corev1.VolumeProjection {
		return token(func(p *corev1.ServiceAccountTokenProjection) { p.Path = path })
	}
	item := func(path string) corev1.VolumeProjection {
		return corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Items: []corev1.KeyToPath{{Key: "k", Path: path}}}}
	}
	both := token(nil)
	both.ConfigMap = item("x").ConfigMap
	return map[string]podAPIRule{
		"nothing said":        {nil, []corev1.VolumeProjection{token(nil)}, "", ""},
		"no audience":         {nil, []corev1.VolumeProjection{token(func(p *corev1.ServiceAccountTokenProjection) { p.Audience = "" })}, "", ""},
		"any audience":        {nil, []corev1.VolumeProjection{token(func(p *corev1.ServiceAccountTokenProjection) { p.Audience = "any thing, \"quoted\"" })}, "", ""},
		"too short":           {nil, []corev1.VolumeProjection{seconds(599)}, "may not specify a duration less than 10 minutes", ""},
		"shortest":            {nil, []corev1.VolumeProjection{seconds(600)}, "", ""},
		"longest":             {nil, []corev1.VolumeProjection{seconds(1 << 32)}, "", ""},
		"too long":            {nil, []corev1.VolumeProjection{seconds(1<<32 + 1)}, "may not specify a duration larger than 2^32 seconds", ""},
		"a mode":              {ptr.To[int32](0o777), []corev1.VolumeProjection{token(nil)}, "", ""},
		"no mode":             {ptr.To[int32](0o1000), []corev1.VolumeProjection{token(nil)}, "must be a number between 0 and 0777", projector.ReasonInvalid},
		"no path":             {nil, []corev1.VolumeProjection{at("")}, "Required value", projector.ReasonInvalid},
		"absolute":            {nil, []corev1.VolumeProjection{at("/a")}, "must be a relative path", projector.ReasonInvalid},
		"up":                  {nil, []corev1.VolumeProjection{at("a/../../b")}, "must not contain '..'", projector.ReasonInvalid},
		"reserved":            {nil, []corev1.VolumeProjection{at("..a")}, "must not start with '..'", projector.ReasonInvalid},
		"reserved below":      {nil, []corev1.VolumeProjection{at("a/..b")}, "", ""},
		"hidden reserved":     {nil, []corev1.VolumeProjection{at("./..data")}, "", projector.ReasonInvalid},
		"the volume itself":   {nil, []corev1.VolumeProjection{at(".")}, "", projector.ReasonInvalid},
		"a long path":         {nil, []corev1.VolumeProjection{at(strings.Repeat("a/", 3000) + "b")}, "", projector.ReasonInvalid},
		"a long element":      {nil, []corev1.VolumeProjection{at(strings.Repeat("a", 256))}, "", projector.ReasonInvalid},
		"two kinds":           {nil, []corev1.VolumeProjection{both}, "may not specify more than 1 volume type", ""},
		"no kind":             {nil, []corev1.VolumeProjection{token(nil), {}}, "", ""},
		"two tokens, a path":  {nil, []corev1.VolumeProjection{token(nil), token(nil)}, "", ""},
		"a token on an item":  {nil, []corev1.VolumeProjection{item("token"), token(nil)}, "", ""},
		"two items, a path":   {nil, []corev1.VolumeProjection{token(nil), item("x"), item("x")}, "conflicting duplicate paths", ""},
		"below another":       {nil, []corev1.VolumeProjection{at("a"), at("a/b")}, "", projector.ReasonInvalid},
		"the same, otherwise": {nil, []corev1.VolumeProjection{at("a"), at("./a")}, "", projector.ReasonInvalid},
	}
}

// withDefaults is a pod that bypassed the API server: what it would have defaulted is there.
func withDefaults(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	p := pod.Spec.Volumes[0].Projected
	if p.DefaultMode == nil {
		p.DefaultMode = ptr.To[int32](0o644)
	}
	for i := range p.Sources {
		if token := p.Sources[i].ServiceAccountToken; token != nil && token.ExpirationSeconds == nil {
			token.ExpirationSeconds = ptr.To[int64](3600)
		}
	}
	return pod
}

// judged says in what our reading of the volume is not as wanted: an error of that reason, or a volume to project.
func judged(pod *corev1.Pod, reason string) error {
	for _, v := range projector.Desired(pod, projector.SelectAll).Volumes {
		switch {
		case v.Name != "v":
		case v.Err != nil && v.Err.Reason != reason:
			return v.Err
		case v.Err == nil && reason != "":
			return errors.New("projected, want the error " + reason)
		default:
			return nil
		}
	}
	return errors.New("the volume is not wanted at all")
}
