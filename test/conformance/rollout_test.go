package conformance

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The controller of DaemonSets rolls deploy/ out on a node whose kubelet is this test: the new pod's daemon stands by beside
// the old one, on the same root, and is Ready; only then does the controller delete the old pod, and the new one takes over
// what is on disk. Were a standby not Ready, nothing more would happen, which is shown, too.
func TestRollOut(t *testing.T) {
	const nodeName = "node-roll-out"
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName, Labels: map[string]string{"kubernetes.io/os": "linux"}}}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	createNamespace(t, nodeName)
	applyDeploy(t)
	stop, err := plane.StartController("daemonset-controller")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	root := t.TempDir()
	first := scheduled(t, nodeName)
	before := startInSandbox(t, first, root, boundToken(t, first))
	reportReady(t, first, before)
	app := createPod(t, newPod(nodeName, "app", appAccount, nodeName, vault(600)))
	dir := volumeDir(root, app, vaultVolume)
	eventually(t, func() error { return missing(dir, vaultFile) })
	token, requested := readToken(t, dir, vaultFile), tokenRequests(t)

	change(t, `{"template":{"metadata":{"annotations":{"conformance":"next"}}}}`)
	defer change(t, `{"revisionHistoryLimit":null,"template":{"metadata":{"annotations":{"conformance":null}}}}`)
	second := scheduled(t, nodeName, first)
	after := startInSandbox(t, second, root, boundToken(t, second)) // which waits until it is ready
	if err := errors.Join(before.wantMetric(1, held), after.wantMetric(0, held)); err != nil {
		t.Error(err)
	}
	change(t, `{"revisionHistoryLimit":9}`) // once this has been observed, so has been the new pod, which is not said to be Ready
	eventually(t, observed(t))
	if again := read(t, first); again.DeletionTimestamp != nil {
		t.Error("the old pod is deleted before the new one is Ready")
	}
	reportReady(t, second, after)
	eventually(t, func() error {
		if read(t, first).DeletionTimestamp == nil {
			return errors.New("the old pod is not deleted, and the new one is Ready")
		}
		return nil
	})
	if err := before.terminate(t); err != nil {
		t.Errorf("SIGTERM: %v, want exit code 0", err)
	}
	deletePod(t, first, 0)
	eventually(t, func() error {
		return errors.Join(after.wantMetric(1, held), after.wantMetric(1, "token_projector_adopted_tokens_total"))
	})
	eventually(t, rolledOut(t))
	if got := readToken(t, dir, vaultFile); got != token {
		t.Error("the token was changed by the roll-out")
	}
	if got := tokenRequests(t); got != requested {
		t.Errorf("%d TokenRequests for the roll-out", got-requested)
	}
	stop()
	deletePod(t, second, 0)
}

// held is the metric of who has the root.
const held = "token_projector_root_lock_held"

// scheduled waits for a pod that the controller has made for the node, which is none of those, and binds it, as the
// scheduler would.
func scheduled(t *testing.T, nodeName string, but ...*corev1.Pod) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	eventually(t, func() error {
		pods, err := client.CoreV1().Pods(deployNamespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, pod := range pods.Items {
			if meant(&pod) == nodeName && !slices.ContainsFunc(but, func(of *corev1.Pod) bool { return of.UID == pod.UID }) {
				found = &pod
				return nil
			}
		}
		return fmt.Errorf("the controller has made no pod for node %s", nodeName)
	})
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: found.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: nodeName},
	}
	if err := client.CoreV1().Pods(deployNamespace).Bind(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return read(t, found)
}

// meant is the node that the controller has made a pod for.
func meant(pod *corev1.Pod) string {
	affinity := pod.Spec.Affinity
	if affinity == nil || affinity.NodeAffinity == nil || affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, term := range affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, field := range term.MatchFields {
			if field.Key == metav1.ObjectNameField {
				return field.Values[0]
			}
		}
	}
	return ""
}

func read(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	again, err := client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// reportReady reports what the daemon answers to the readiness probe, as the kubelet would.
func reportReady(t *testing.T, pod *corev1.Pod, d *daemon) {
	t.Helper()
	if err := d.ready(); err != nil {
		t.Fatal(err)
	}
	again := read(t, pod)
	again.Status.Phase = corev1.PodRunning
	again.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	if _, err := client.CoreV1().Pods(pod.Namespace).UpdateStatus(t.Context(), again, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// change changes the spec of the DaemonSet.
func change(t *testing.T, spec string) {
	t.Helper()
	_, err := client.AppsV1().DaemonSets(deployNamespace).Patch(t.Context(), deployName, types.MergePatchType,
		[]byte(`{"spec":`+spec+`}`), metav1.PatchOptions{FieldManager: "conformance-roll-out"})
	if err != nil {
		t.Fatal(err)
	}
}

// observed says when the controller has not yet acted on the present spec.
func observed(t *testing.T) func() error {
	return func() error {
		if ds := daemonSet(t); ds.Status.ObservedGeneration != ds.Generation {
			return fmt.Errorf("generation %d, observed %d", ds.Generation, ds.Status.ObservedGeneration)
		}
		return nil
	}
}

// rolledOut says what is missing until the node's one pod is of the present template, and available.
func rolledOut(t *testing.T) func() error {
	return func() error {
		s := daemonSet(t).Status
		if s.UpdatedNumberScheduled != 1 || s.NumberAvailable != 1 || s.NumberUnavailable != 0 {
			return fmt.Errorf("status %+v", s)
		}
		return observed(t)()
	}
}

// tokenRequests is how many the daemons have sent, for pods.
func tokenRequests(t *testing.T) int {
	t.Helper()
	events, err := plane.TokenRequests(daemonUser)
	if err != nil {
		t.Fatal(err)
	}
	return len(events)
}
