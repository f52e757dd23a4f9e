package cases

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/pager"
)

const watchGroup = "LIST and WATCH"

// streamingList is what an informer asks for first.
const streamingList = "&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"

// createConfigMap makes one with the label case=yes, which kube-root-ca.crt has not.
func (w *World) createConfigMap(name string) *corev1.ConfigMap {
	cm, err := w.Client.CoreV1().ConfigMaps(w.NS).Create(w.Ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"case": "yes"}},
		Data:       map[string]string{"a": "1"},
	}, metav1.CreateOptions{})
	w.must(err)
	return cm
}

// changeConfigMap sets a datum.
func (w *World) changeConfigMap(cm *corev1.ConfigMap, value string) *corev1.ConfigMap {
	cm = cm.DeepCopy()
	cm.Data = map[string]string{"a": value}
	cm, err := w.Client.CoreV1().ConfigMaps(w.NS).Update(w.Ctx, cm, metav1.UpdateOptions{})
	w.must(err)
	return cm
}

func (w *World) deleteConfigMap(name string) {
	w.must(w.Client.CoreV1().ConfigMaps(w.NS).Delete(w.Ctx, name, metav1.DeleteOptions{}))
}

// listOptionRefusals are combinations that no server takes.
func listOptionRefusals() []Case {
	invalid := func(message string) answer {
		return answer{422, metav1.StatusReasonInvalid, `ListOptions.meta.k8s.io "" is invalid: ` + message}
	}
	badRequest := func(message string) answer { return answer{400, metav1.StatusReasonBadRequest, message} }
	const notANumber = `resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax`
	var cases []Case
	for _, c := range []struct {
		name, query string
		want        answer
	}{
		{"LIST with sendInitialEvents: 422", "?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=1",
			invalid("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list")},
		{"LIST with resourceVersionMatch alone: 422", "?resourceVersionMatch=NotOlderThan",
			invalid("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided")},
		{"LIST of exactly version 0: 422", "?resourceVersion=0&resourceVersionMatch=Exact",
			invalid(`resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"`)},
		{"LIST with an unknown resourceVersionMatch: 422", "?resourceVersion=1&resourceVersionMatch=Newest",
			invalid(`resourceVersionMatch: Unsupported value: "Newest": supported values: "Exact", "NotOlderThan", ""`)},
		{"LIST of a version that is no number: 400", "?resourceVersion=abc", badRequest("invalid resource version: " + notANumber)},
		{"LIST of exactly a version that is no number: 400", "?resourceVersion=abc&resourceVersionMatch=Exact", badRequest("invalid resource version: " + notANumber)},
		{"LIST by a field that cannot be selected: 400", "?fieldSelector=spec.replicas%3D1",
			badRequest(`"spec.replicas" is not a known field selector: only "metadata.name", "metadata.namespace"`)},
		{"LIST by a label selector that is none: 400", "?labelSelector=a%3D%3D%3D",
			badRequest("unable to parse requirement: found '=', expected: identifier")},
		{"LIST with a continue token that is none: 400", "?continue=abc",
			badRequest("invalid continue token: continue key is not valid: invalid character 'i' looking for beginning of value")},
		{"WATCH with sendInitialEvents alone: 422", "?watch=true&sendInitialEvents=true",
			invalid("resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")},
		{"WATCH with resourceVersionMatch alone: 422", "?watch=true&resourceVersionMatch=NotOlderThan",
			invalid("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")},
		{"WATCH with initial events of exactly a version: 422", "?watch=true&sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1",
			invalid(`[resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan, resourceVersionMatch: Unsupported value: "Exact": supported values: "NotOlderThan"]`)},
		{"WATCH from a version that is no number: 500", "?watch=true&resourceVersion=abc", answer{500, "", notANumber}},
	} {
		cases = append(cases, Case{Group: watchGroup, Name: c.name, Run: func(w *World) {
			w.wantEqual("refusal", answerOf(w.refusalOf(w.configMaps()+c.query)), c.want)
		}})
	}
	return cases
}

func chunks() []Case {
	return []Case{
		{Group: watchGroup, Name: "LIST in chunks: the rest is as it was when the first chunk was read", Run: listInChunks},
		{Group: watchGroup, Name: "LIST in chunks by a selector: no remainingItemCount, and the last chunk may be empty", Run: chunksOfSelector},
		{Group: watchGroup, Name: "LIST of any version: a limit is ignored", Run: func(w *World) {
			w.createConfigMap("a")
			list := w.listConfigMaps(metav1.ListOptions{Limit: 1, ResourceVersion: "0"})
			w.wantEqual("items", len(list.Items), 2)
			w.wantEqual("continue", list.Continue, "")
		}},
		{Group: watchGroup, Name: "LIST with continue and a resourceVersion: 400", Run: func(w *World) {
			w.createConfigMap("a")
			list := w.listConfigMaps(metav1.ListOptions{Limit: 1})
			_, err := w.Client.CoreV1().ConfigMaps(w.NS).List(w.Ctx, metav1.ListOptions{Limit: 1, Continue: list.Continue, ResourceVersion: list.ResourceVersion})
			w.wantRefusal(err, answer{400, metav1.StatusReasonBadRequest, "specifying resource version is not allowed when using continue"})
		}},
		{Group: watchGroup, Name: "LIST of exactly a version of the past: the objects as they were", Run: func(w *World) {
			listOfThePast(w, metav1.ListOptions{ResourceVersionMatch: metav1.ResourceVersionMatchExact})
		}},
		{Group: watchGroup, Name: "LIST with a limit and a version of the past: the objects as they were", Run: func(w *World) { listOfThePast(w, metav1.ListOptions{Limit: 10}) }},
		{Group: watchGroup, Name: "LIST not older than a version of the past: the objects as they are", Run: func(w *World) {
			old := w.createConfigMap("a")
			w.changeConfigMap(old, "2")
			list := w.listConfigMaps(metav1.ListOptions{ResourceVersion: old.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
			w.wantNewer(list.ResourceVersion, old.ResourceVersion)
		}},
		{Group: watchGroup, Name: "LIST of the pods by a field that cannot be selected: 400", Run: func(w *World) {
			st := w.refusalOf("/api/v1/namespaces/" + w.NS + "/pods?fieldSelector=spec.replicas%3D1")
			w.wantEqual("refusal", answerOf(st), answer{400, metav1.StatusReasonBadRequest, "field label not supported: spec.replicas"})
		}},
		{Group: watchGroup, Name: "LIST by every field of pods that can be selected", Run: listByFields},
		{Group: watchGroup, Name: "LIST by client-go's pager: everything, once", Run: listByPager},
		{Group: watchGroup, Name: "LIST is ordered by namespace/name, as strings", Run: func(w *World) {
			for _, name := range []string{"b", "a.c", "a-b", "a"} {
				w.createConfigMap(name)
			}
			w.wantEqual("names", namesOf(w.listConfigMaps(metav1.ListOptions{LabelSelector: "case=yes"})), []string{"a", "a-b", "a.c", "b"})
		}},
	}
}

func (w *World) listConfigMaps(opts metav1.ListOptions) *corev1.ConfigMapList {
	list, err := w.Client.CoreV1().ConfigMaps(w.NS).List(w.Ctx, opts)
	w.must(err)
	return list
}

func namesOf(list *corev1.ConfigMapList) []string {
	names := []string{}
	for _, cm := range list.Items {
		names = append(names, cm.Name)
	}
	return names
}

// wantNewer compares two resource versions.
func (w *World) wantNewer(got, than string) {
	a, err1 := strconv.ParseUint(got, 10, 64)
	b, err2 := strconv.ParseUint(than, 10, 64)
	if err1 != nil || err2 != nil || a <= b {
		w.Errorf("version %s is not newer than %s", got, than)
	}
}

func listInChunks(w *World) {
	var made []*corev1.ConfigMap
	for i := range 5 {
		made = append(made, w.createConfigMap(fmt.Sprintf("cm-%d", i)))
	}
	first := w.listConfigMaps(metav1.ListOptions{Limit: 2}) // kube-root-ca.crt is the last of six
	w.wantEqual("first chunk", namesOf(first), []string{"cm-0", "cm-1"})
	w.wantEqual("remaining", first.RemainingItemCount, new(int64(4)))
	w.deleteConfigMap("cm-2")
	w.changeConfigMap(made[3], "2")
	w.createConfigMap("cm-9")
	second := w.listConfigMaps(metav1.ListOptions{Limit: 2, Continue: first.Continue})
	w.wantEqual("second chunk", namesOf(second), []string{"cm-2", "cm-3"})
	w.wantEqual("version of the changed one", second.Items[1].ResourceVersion, made[3].ResourceVersion)
	w.wantEqual("remaining", second.RemainingItemCount, new(int64(2)))
	third := w.listConfigMaps(metav1.ListOptions{Limit: 2, Continue: second.Continue})
	w.wantEqual("third chunk", namesOf(third), []string{"cm-4", "kube-root-ca.crt"})
	w.wantEqual("the last one's continue", third.Continue, "")
	w.wantEqual("remaining", third.RemainingItemCount, (*int64)(nil))
	w.wantEqual("versions", []string{second.ResourceVersion, third.ResourceVersion}, []string{first.ResourceVersion, first.ResourceVersion})
}

func chunksOfSelector(w *World) {
	w.createConfigMap("a")
	w.createConfigMap("b")
	first := w.listConfigMaps(metav1.ListOptions{Limit: 2, LabelSelector: "case=yes"})
	w.wantEqual("first chunk", namesOf(first), []string{"a", "b"})
	w.wantEqual("remaining", first.RemainingItemCount, (*int64)(nil))
	second := w.listConfigMaps(metav1.ListOptions{Limit: 2, LabelSelector: "case=yes", Continue: first.Continue})
	w.wantEqual("second chunk", namesOf(second), []string{})
	w.wantEqual("the last one's continue", second.Continue, "")
}

func listOfThePast(w *World, opts metav1.ListOptions) {
	changed, gone := w.createConfigMap("changed"), w.createConfigMap("gone")
	w.changeConfigMap(changed, "2")
	w.deleteConfigMap("gone")
	w.createConfigMap("new")
	opts.ResourceVersion = gone.ResourceVersion
	list := w.listConfigMaps(opts)
	w.wantEqual("names", namesOf(list), []string{"changed", "gone", "kube-root-ca.crt"})
	w.wantEqual("version of the changed one", list.Items[0].ResourceVersion, changed.ResourceVersion)
	w.wantEqual("version of the list", list.ResourceVersion, gone.ResourceVersion)
}

// listByFields selects one of two pods by each field.
func listByFields(w *World) {
	pod := w.newPod("one", "nowhere")
	pod.Spec.RestartPolicy, pod.Spec.SchedulerName, pod.Spec.HostNetwork = corev1.RestartPolicyNever, "mine", true
	pod.Spec.ServiceAccountName = w.createAccount("mine").Name
	pod = w.createPod(pod)
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}, HostIP: "10.0.0.9", HostIPs: []corev1.HostIP{{IP: "10.0.0.9"}}}
	pod, err := w.Client.CoreV1().Pods(w.NS).UpdateStatus(w.Ctx, pod, metav1.UpdateOptions{})
	w.must(err)
	other := w.createPod(w.newPod("other", ""))
	other.Status.NominatedNodeName = "there"
	_, err = w.Client.CoreV1().Pods(w.NS).UpdateStatus(w.Ctx, other, metav1.UpdateOptions{})
	w.must(err)
	for _, selector := range []string{
		"metadata.name=one", "metadata.namespace=" + w.NS + ",metadata.name!=other", "spec.nodeName=nowhere", "spec.restartPolicy=Never",
		"spec.schedulerName=mine", "spec.serviceAccountName=mine", "spec.hostNetwork=true", "status.phase=Running", "status.podIP=10.0.0.1",
		"status.podIPs!=10.0.0.1,metadata.name=one", "status.nominatedNodeName!=there", // the real server has no value for podIPs
	} {
		list, err := w.Client.CoreV1().Pods(w.NS).List(w.Ctx, metav1.ListOptions{FieldSelector: selector})
		if err != nil || len(list.Items) != 1 || list.Items[0].Name != pod.Name {
			w.Errorf("%s: got %d pods, %w", selector, len(list.Items), err)
		}
	}
}

func listByPager(w *World) {
	want := []string{}
	for i := range 7 {
		want = append(want, w.createConfigMap(fmt.Sprintf("cm-%d", i)).Name)
	}
	p := pager.New(func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		return w.Client.CoreV1().ConfigMaps(w.NS).List(ctx, opts)
	})
	p.PageSize = 3
	got := []string{}
	w.must(p.EachListItem(w.Ctx, metav1.ListOptions{}, func(obj runtime.Object) error {
		got = append(got, obj.(*corev1.ConfigMap).Name)
		return nil
	}))
	w.wantEqual("names", got, append(want, "kube-root-ca.crt"))
}
