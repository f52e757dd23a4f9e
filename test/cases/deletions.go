package cases

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// endWeb deletes the pod "web", which must be terminating afterwards.
func (w *World) endWeb(opts metav1.DeleteOptions) *corev1.Pod {
	w.must(w.Client.CoreV1().Pods(w.NS).Delete(w.Ctx, "web", opts))
	pod, err := w.Client.CoreV1().Pods(w.NS).Get(w.Ctx, "web", metav1.GetOptions{})
	w.must(err)
	if pod.DeletionTimestamp == nil || pod.DeletionGracePeriodSeconds == nil {
		w.Fatalf("the pod is not terminating")
	}
	return pod
}

func grace(seconds int64) metav1.DeleteOptions {
	return metav1.DeleteOptions{GracePeriodSeconds: &seconds}
}

// wantGrace: the pod ends that many seconds after it was first deleted, and not after another grace: they differ by ten or more.
func (w *World) wantGrace(pod *corev1.Pod, deleted time.Time, seconds int64) {
	w.wantEqual("grace", *pod.DeletionGracePeriodSeconds, seconds)
	if off := pod.DeletionTimestamp.Sub(deleted.Add(time.Duration(seconds) * time.Second)); off.Abs() > 9*time.Second {
		w.Errorf("it ends %v off", off)
	}
}

func deletions() []Case {
	return []Case{
		{Group: watchGroup, Name: "DELETE of a pod on a node: it is terminating for the grace of its spec", Run: func(w *World) {
			pod := w.createPod(w.newPod("web", "nowhere"))
			dying := w.endWeb(metav1.DeleteOptions{})
			w.wantGrace(dying, w.Now(), 30)
			w.wantEqual("generation", dying.Generation, pod.Generation+1)
		}},
		{Group: watchGroup, Name: "DELETE of a pod with a grace: that one, which a second DELETE can shorten but not extend", Run: func(w *World) {
			w.createPod(w.newPod("web", "nowhere"))
			began := w.Now()
			w.wantGrace(w.endWeb(grace(40)), began, 40)
			w.wantGrace(w.endWeb(grace(60)), began, 40)
			w.wantGrace(w.endWeb(metav1.DeleteOptions{}), began, 40)
			w.wantGrace(w.endWeb(grace(20)), began, 20)
			w.removePod("web")
			w.wantGone("web")
		}},
		{Group: watchGroup, Name: "DELETE of a pod on no node: gone", Run: func(w *World) {
			w.createPod(w.newPod("web", ""))
			w.must(w.Client.CoreV1().Pods(w.NS).Delete(w.Ctx, "web", metav1.DeleteOptions{}))
			w.wantGone("web")
		}},
		{Group: watchGroup, Name: "DELETE of a pod that has succeeded: gone", Run: func(w *World) {
			pod := w.createPod(w.newPod("web", "nowhere"))
			pod.Status.Phase = corev1.PodSucceeded
			_, err := w.Client.CoreV1().Pods(w.NS).UpdateStatus(w.Ctx, pod, metav1.UpdateOptions{})
			w.must(err)
			w.must(w.Client.CoreV1().Pods(w.NS).Delete(w.Ctx, "web", grace(30)))
			w.wantGone("web")
		}},
		{Group: watchGroup, Name: "DELETE with the UID of another object: 409", Run: func(w *World) {
			pod := w.createPod(w.newPod("web", "nowhere"))
			other := types.UID("other")
			err := w.Client.CoreV1().Pods(w.NS).Delete(w.Ctx, "web", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}})
			w.wantRefusal(err, answer{409, metav1.StatusReasonConflict, `Operation cannot be fulfilled on Pod "web": the UID in the precondition (other) does not match the UID in record (` +
				string(pod.UID) + `). The object might have been deleted and then recreated`})
		}},
		{Group: watchGroup, Name: "DELETE of an object with a finalizer: it is terminating until that is gone", Run: func(w *World) {
			configMaps := w.Client.CoreV1().ConfigMaps(w.NS)
			cm, err := configMaps.Create(w.Ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"example.com/hold"}}}, metav1.CreateOptions{})
			w.must(err)
			w.deleteConfigMap(cm.Name)
			cm, err = w.configMap("held")
			w.must(err)
			if cm.DeletionTimestamp == nil {
				w.Errorf("no deletionTimestamp")
			}
			cm.Finalizers = nil
			_, err = configMaps.Update(w.Ctx, cm, metav1.UpdateOptions{})
			w.must(err)
			_, err = w.configMap("held")
			w.wantRefusal(err, answer{404, metav1.StatusReasonNotFound, `configmaps "held" not found`})
		}},
	}
}

func (w *World) wantGone(pod string) {
	if _, err := w.Client.CoreV1().Pods(w.NS).Get(w.Ctx, pod, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		w.Errorf("the pod is still there: %w", err)
	}
}
