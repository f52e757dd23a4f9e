package cases

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// podWatch is a watch of the namespace's pods that match a selector.
type podWatch struct {
	w *World
	watch.Interface
}

func (w *World) watchPods(opts metav1.ListOptions) *podWatch {
	in, err := w.Client.CoreV1().Pods(w.NS).Watch(w.Ctx, opts)
	w.must(err)
	return &podWatch{w, in}
}

// next is the next event, which must be of that kind and about the pod "web".
func (pw *podWatch) next(kind watch.EventType) *corev1.Pod {
	select {
	case e, ok := <-pw.ResultChan():
		if pod, isPod := e.Object.(*corev1.Pod); ok && isPod && e.Type == kind && pod.Name == "web" {
			return pod
		}
		pw.w.Fatalf("got %s %T, want %s web", e.Type, e.Object, kind)
	case <-pw.w.Ctx.Done():
		pw.w.Fatalf("no event, want %s", kind)
	}
	return nil
}

func transitions() []Case {
	return []Case{
		{Group: watchGroup, Name: "a pod that is bound to a node comes into the node's selector: ADDED", Run: func(w *World) {
			pods := w.watchPods(metav1.ListOptions{FieldSelector: "spec.nodeName=nowhere"})
			defer pods.Stop()
			created := w.createPod(w.newPod("web", ""))
			w.bindPod("web", "nowhere")
			bound := pods.next(watch.Added)
			w.wantEqual("node", bound.Spec.NodeName, "nowhere")
			w.wantNewer(bound.ResourceVersion, created.ResourceVersion)
			if len(bound.Status.Conditions) == 1 {
				bound.Status.Conditions[0].LastTransitionTime = metav1.Time{}
			}
			w.wantEqual("conditions", bound.Status.Conditions, []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}})
		}},
		{Group: watchGroup, Name: "a pod that is bound already: 409", Run: func(w *World) {
			w.createPod(w.newPod("web", "nowhere"))
			err := w.Client.CoreV1().Pods(w.NS).Bind(w.Ctx, binding("web", "elsewhere"), metav1.CreateOptions{})
			w.wantRefusal(err, answer{409, metav1.StatusReasonConflict, `Operation cannot be fulfilled on pods/binding "web": pod web is already assigned to node "nowhere"`})
		}},
		{Group: watchGroup, Name: "a pod that is deleted without grace is MODIFIED to a grace of 0, then DELETED", Run: func(w *World) {
			pods := w.watchPods(metav1.ListOptions{})
			defer pods.Stop()
			for _, node := range []string{"", "nowhere"} {
				pod := w.createPod(w.newPod("web", node))
				pods.next(watch.Added)
				w.removePod("web")
				dying := pods.next(watch.Modified)
				if dying.DeletionTimestamp == nil {
					w.Errorf("no deletionTimestamp")
				}
				w.wantEqual("grace", dying.DeletionGracePeriodSeconds, new(int64(0)))
				w.wantEqual("generation", dying.Generation, pod.Generation+1)
				w.wantNewer(pods.next(watch.Deleted).ResourceVersion, dying.ResourceVersion)
			}
		}},
		{Group: watchGroup, Name: "a pod that leaves a label selector: DELETED with its previous state at the new version", Run: leaveByLabel},
		{Group: watchGroup, Name: "a pod that leaves a field selector: DELETED with its previous state at the new version", Run: leaveByPhase},
		{Group: watchGroup, Name: "a change outside of the selector is not sent, and one inside is MODIFIED", Run: func(w *World) {
			pods := w.watchPods(metav1.ListOptions{LabelSelector: "app=web"})
			defer pods.Stop()
			w.createPod(w.newPod("other", ""))
			w.labelPod("other", `"x"`)
			w.createPod(w.newPod("web", ""))
			w.labelPod("web", `"web"`)
			pods.next(watch.Added)
			w.removePod("other")
			_, err := w.Client.CoreV1().Pods(w.NS).Patch(w.Ctx, "web", types.MergePatchType, []byte(`{"metadata":{"labels":{"more":"1"}}}`), metav1.PatchOptions{})
			w.must(err)
			w.wantEqual("labels", pods.next(watch.Modified).Labels, map[string]string{"app": "web", "more": "1"})
		}},
	}
}

func binding(pod, node string) *corev1.Binding {
	return &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}
}

// bindPod does what a scheduler does.
func (w *World) bindPod(pod, node string) {
	w.must(w.Client.CoreV1().Pods(w.NS).Bind(w.Ctx, binding(pod, node), metav1.CreateOptions{}))
}

func (w *World) removePod(name string) {
	w.must(w.Client.CoreV1().Pods(w.NS).Delete(w.Ctx, name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
}

// labelPod sets the label app to a JSON value.
func (w *World) labelPod(name, value string) *corev1.Pod {
	pod, err := w.Client.CoreV1().Pods(w.NS).Patch(w.Ctx, name, types.MergePatchType, []byte(`{"metadata":{"labels":{"app":`+value+`}}}`), metav1.PatchOptions{})
	w.must(err)
	return pod
}

func leaveByLabel(w *World) {
	pods := w.watchPods(metav1.ListOptions{LabelSelector: "app=web"})
	defer pods.Stop()
	w.createPod(w.newPod("web", ""))
	w.labelPod("web", `"web"`)
	pods.next(watch.Added)
	out := w.labelPod("web", "null")
	left := pods.next(watch.Deleted)
	w.wantEqual("labels", left.Labels, map[string]string{"app": "web"})
	w.wantEqual("version", left.ResourceVersion, out.ResourceVersion)
	w.labelPod("web", `"web"`)
	pods.next(watch.Added)
}

func leaveByPhase(w *World) {
	pods := w.watchPods(metav1.ListOptions{FieldSelector: "status.phase!=Running"})
	defer pods.Stop()
	pod := w.createPod(w.newPod("web", "nowhere"))
	pods.next(watch.Added)
	pod.Status.Phase = corev1.PodRunning
	out, err := w.Client.CoreV1().Pods(w.NS).UpdateStatus(w.Ctx, pod, metav1.UpdateOptions{})
	w.must(err)
	left := pods.next(watch.Deleted)
	w.wantEqual("phase", left.Status.Phase, corev1.PodPending)
	w.wantEqual("version", left.ResourceVersion, out.ResourceVersion)
}
