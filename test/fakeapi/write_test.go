package fakeapi

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What admission and defaulting make of the simplest pod.
func TestPodDefaults(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	in := newPod("web")
	in.Spec.Volumes = []corev1.Volume{{Name: "vault", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault", Path: "t"}}},
	}}}}
	untouched := in.DeepCopy()
	pod, err := clientset(t, s).CoreV1().Pods("default").Create(testContext(t), in, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(untouched, in); diff != "" {
		t.Errorf("the argument was changed: %s", diff)
	}
	name := pod.Spec.Volumes[1].Name
	if len(name) != len(apiAccessPrefix)+5 || !strings.HasPrefix(name, apiAccessPrefix) {
		t.Errorf("the injected volume is called %q", name)
	}
	got, err := json.Marshal(pod.Spec)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"volumes":[` +
		`{"name":"vault","projected":{"sources":[{"serviceAccountToken":{"audience":"vault","expirationSeconds":3600,"path":"t"}}],"defaultMode":420}},` +
		`{"name":"` + name + `","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},` +
		`{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}},` +
		`{"downwardAPI":{"items":[{"path":"namespace","fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"}}]}}],"defaultMode":420}}],` +
		`"containers":[{"name":"main","image":"example.com/app:1","resources":{},"volumeMounts":[{"name":"` + name + `","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}]}],` +
		`"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default","serviceAccount":"default","nodeName":"node-1",` +
		`"securityContext":{},"schedulerName":"default-scheduler","enableServiceLinks":true}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("spec: -want +got\n%s", diff)
	}
	if pod.Status.Phase != corev1.PodPending || pod.UID == "" || pod.Generation != 1 {
		t.Errorf("phase %s, uid %q, generation %d", pod.Status.Phase, pod.UID, pod.Generation)
	}
}

func TestNoAPIAccessVolume(t *testing.T) {
	t.Parallel()
	for opts, want := range map[bool]int{false: 1, true: 0} {
		if got := mustCreate(t, start(t, Options{NoAPIAccessVolume: opts}), newPod("web")).Spec.Volumes; len(got) != want {
			t.Errorf("switched off %v: got %d volumes, want %d", opts, len(got), want)
		}
	}
}

func TestRefusedWrites(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	mustCreate(t, s, newPod("there"))
	withToken := func(expiration int64, path string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: path, ExpirationSeconds: &expiration}}}}}}}
		}
	}
	for _, c := range []struct {
		name string
		edit func(*corev1.Pod)
		code int32
		says string
	}{
		{"name taken", func(p *corev1.Pod) { p.Name = "there" }, 409, `pods "there" already exists`},
		{"no name", func(p *corev1.Pod) { p.Name = "" }, 422, "name or generateName is required"},
		{"bad name", func(p *corev1.Pod) { p.Name = "A" }, 422, "lowercase RFC 1123 subdomain"},
		{"no namespace", func(p *corev1.Pod) { p.Namespace = "nowhere" }, 404, `namespaces "nowhere" not found`},
		{"no container", func(p *corev1.Pod) { p.Spec.Containers = nil }, 422, "spec.containers: Required value"},
		{"version set", func(p *corev1.Pod) { p.ResourceVersion = "1" }, 400, "resourceVersion should not be set"},
		{"token too short", withToken(599, "t"), 422, "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"},
		{"token too long", withToken(1<<32+1, "t"), 422, "may not specify a duration larger than 2^32 seconds"},
		{"no path", withToken(600, ""), 422, "spec.volumes[0].projected.path: Required value"},
		{"absolute path", withToken(600, "/etc"), 422, "must be a relative path"},
		{"path upwards", withToken(600, "a/../b"), 422, "must not contain '..'"},
		{"reserved path", withToken(600, "..data"), 422, "must not start with '..'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := newPod("web")
			c.edit(pod)
			_, err := Create(s, pod)
			status, ok := err.(apierrors.APIStatus)
			if !ok || status.Status().Code != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %d %s", err, c.code, c.says)
			}
		})
	}
}

func TestUpdates(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	ctx, pods := testContext(t), clientset(t, s).CoreV1().Pods("default")
	first := mustCreate(t, s, newPod("web"))

	changed := first.DeepCopy()
	changed.Labels = map[string]string{"a": "1"}
	changed.Status.Phase = corev1.PodFailed // not through this door
	changed.CreationTimestamp = metav1.NewTime(time.Unix(0, 0))
	second, err := pods.Update(ctx, changed, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if second.Labels["a"] != "1" || second.Status.Phase != corev1.PodPending || !second.CreationTimestamp.Equal(&first.CreationTimestamp) {
		t.Errorf("got labels %v, phase %s, created %v", second.Labels, second.Status.Phase, second.CreationTimestamp)
	}
	if _, err := pods.Update(ctx, changed, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("an update from an old version: %v", err)
	}
	if same, err := pods.Update(ctx, second, metav1.UpdateOptions{}); err != nil || same.ResourceVersion != second.ResourceVersion {
		t.Errorf("an update that changes nothing: %v", err)
	}

	second.Status.Phase, second.Spec.NodeName = corev1.PodRunning, "elsewhere"
	third, err := pods.UpdateStatus(ctx, second, metav1.UpdateOptions{})
	if err != nil || third.Status.Phase != corev1.PodRunning || third.Spec.NodeName != "node-1" {
		t.Errorf("got phase %s on %s, %v", third.Status.Phase, third.Spec.NodeName, err)
	}
	third.Spec.NodeName = "elsewhere"
	if _, err := pods.Update(ctx, third, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a pod moved to another node: %v", err)
	}
}

func TestPatches(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	ctx, pods := testContext(t), clientset(t, s).CoreV1().Pods("default")
	mustCreate(t, s, newPod("web"))
	for _, c := range []struct {
		kind        types.PatchType
		patch       string
		subresource []string
		check       func(*corev1.Pod) bool
	}{
		{types.StrategicMergePatchType, `{"spec":{"containers":[{"name":"side","image":"i"}]}}`, nil, func(p *corev1.Pod) bool { return len(p.Spec.Containers) == 2 }},
		{types.MergePatchType, `{"metadata":{"labels":{"a":"1"}}}`, nil, func(p *corev1.Pod) bool { return p.Labels["a"] == "1" && len(p.Spec.Containers) == 2 }},
		{types.JSONPatchType, `[{"op":"replace","path":"/metadata/labels/a","value":"2"}]`, nil, func(p *corev1.Pod) bool { return p.Labels["a"] == "2" }},
		{types.StrategicMergePatchType, `{"status":{"phase":"Running"}}`, []string{"status"}, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning }},
	} {
		got, err := pods.Patch(ctx, "web", c.kind, []byte(c.patch), metav1.PatchOptions{}, c.subresource...)
		if err != nil || !c.check(got) {
			t.Errorf("%s %s: got %v, %v", c.kind, c.patch, got, err)
		}
	}
	for patch, code := range map[string]int32{`{"metadata":{"resourceVersion":"1"}}`: 409, `{"metadata":{"name":"x"}}`: 400, `{`: 400} {
		_, err := pods.Patch(ctx, "web", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if status, ok := err.(apierrors.APIStatus); !ok || status.Status().Code != code {
			t.Errorf("%s: got %v, want %d", patch, err, code)
		}
	}
	if _, err := pods.Patch(ctx, "web", types.ApplyYAMLPatchType, []byte("{}"), metav1.PatchOptions{FieldManager: "t"}); !apierrors.IsUnsupportedMediaType(err) {
		t.Errorf("apply: %v", err)
	}
}

func TestFinalizePods(t *testing.T) {
	t.Parallel()
	s := start(t, Options{FinalizePods: true})
	_, events := podInformer(t, clientset(t, s), onNode)
	pod := mustCreate(t, s, newPod("web"))
	grace := int64(1)
	if err := s.Delete(pod, metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil {
		t.Fatal(err)
	}
	expect(t, events, "add web", "update web", "update web", "delete web")
}

func TestEvents(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	ctx, client := testContext(t), clientset(t, s)
	if _, err := client.CoreV1().Events("default").Create(ctx, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e.1"}, Reason: "FailedMount"}, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := client.CoreV1().Events("default").Patch(ctx, "e.1", types.StrategicMergePatchType, []byte(`{"count":2}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
}
