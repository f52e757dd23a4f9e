package fakeapi

import (
	"strconv"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Object is a typed API object: *corev1.Pod, *corev1.ConfigMap and so on.
type Object interface {
	metav1.Object
	runtime.Object
}

// resource describes one served resource. It holds no state.
type resource struct {
	name       string
	kind       schema.GroupVersionKind
	namespaced bool
	// returnsDeleted: DELETE answers with the object instead of a Status.
	returnsDeleted bool

	newObject func() Object
	// shallow copies the struct only; what it points to stays shared and must not be written.
	shallow func(Object) Object
	list    func([]Object) runtime.Object
	// takeStatus copies src's status into dst. Nil means that there is no status subresource.
	takeStatus func(dst, src Object)
	// field answers for field selectors beyond metadata.name and metadata.namespace.
	field func(obj Object, label string) (value string, known bool)
}

func (r *resource) group() schema.GroupResource {
	return schema.GroupResource{Group: r.kind.Group, Resource: r.name}
}

// selectable is the value of a field for field selectors.
func (r *resource) selectable(obj Object, label string) (string, bool) {
	switch label {
	case "metadata.name":
		return obj.GetName(), true
	case "metadata.namespace":
		return obj.GetNamespace(), r.namespaced
	}
	return r.field(obj, label)
}

// named returns obj with its kind filled in, as it must go on the wire alone. In the store, and as an
// item of a list, an object has none: that is what a client of the real server sees.
func (r *resource) named(obj Object) Object {
	obj = r.shallow(obj)
	obj.GetObjectKind().SetGroupVersionKind(r.kind)
	return obj
}

// makeList builds the typed list of objs at a resource version.
func (r *resource) makeList(objs []Object, rv string) runtime.Object {
	l := r.list(objs)
	l.GetObjectKind().SetGroupVersionKind(r.kind.GroupVersion().WithKind(r.kind.Kind + "List"))
	l.(metav1.ListInterface).SetResourceVersion(rv)
	return l
}

// pointer ties a struct type to its pointer's methods.
type pointer[T any] interface {
	*T
	Object
}

// fieldsOf are a kind's selectable fields.
type fieldsOf[P any] map[string]func(P) string

func newResource[T any, P pointer[T]](name, kind string, list func([]T) runtime.Object, fields fieldsOf[P]) *resource {
	return &resource{
		name:           name,
		kind:           corev1.SchemeGroupVersion.WithKind(kind),
		namespaced:     kind != "Namespace" && kind != "Node" && kind != "ClusterTrustBundle",
		returnsDeleted: kind == "Pod" || kind == "ServiceAccount" || kind == "Namespace",
		newObject:      func() Object { return P(new(T)) },
		shallow:        func(o Object) Object { c := *o.(P); return P(&c) },
		list: func(objs []Object) runtime.Object {
			items := make([]T, len(objs))
			for i, o := range objs {
				items[i] = *o.(P)
			}
			return list(items)
		},
		field: func(obj Object, label string) (string, bool) {
			f := fields[label]
			if f == nil {
				return "", false
			}
			return f(obj.(P)), true
		},
	}
}

func (r *resource) withStatus(take func(dst, src Object)) *resource {
	r.takeStatus = take
	return r
}

func (r *resource) of(gv schema.GroupVersion) *resource {
	r.kind = gv.WithKind(r.kind.Kind)
	return r
}

// newResources lists everything that is served.
func newResources() []*resource {
	return []*resource{
		newResource("pods", "Pod", func(i []corev1.Pod) runtime.Object { return &corev1.PodList{Items: i} }, podFields).
			withStatus(func(dst, src Object) { dst.(*corev1.Pod).Status = src.(*corev1.Pod).Status }),
		newResource("configmaps", "ConfigMap", func(i []corev1.ConfigMap) runtime.Object { return &corev1.ConfigMapList{Items: i} }, fieldsOf[*corev1.ConfigMap]{}),
		newResource("secrets", "Secret", func(i []corev1.Secret) runtime.Object { return &corev1.SecretList{Items: i} },
			fieldsOf[*corev1.Secret]{"type": func(s *corev1.Secret) string { return string(s.Type) }}),
		newResource("serviceaccounts", "ServiceAccount", func(i []corev1.ServiceAccount) runtime.Object { return &corev1.ServiceAccountList{Items: i} }, fieldsOf[*corev1.ServiceAccount]{}),
		newResource("namespaces", "Namespace", func(i []corev1.Namespace) runtime.Object { return &corev1.NamespaceList{Items: i} },
			fieldsOf[*corev1.Namespace]{"status.phase": func(n *corev1.Namespace) string { return string(n.Status.Phase) }}).
			withStatus(func(dst, src Object) { dst.(*corev1.Namespace).Status = src.(*corev1.Namespace).Status }),
		newResource("nodes", "Node", func(i []corev1.Node) runtime.Object { return &corev1.NodeList{Items: i} },
			fieldsOf[*corev1.Node]{"spec.unschedulable": func(n *corev1.Node) string { return strconv.FormatBool(n.Spec.Unschedulable) }}).
			withStatus(func(dst, src Object) { dst.(*corev1.Node).Status = src.(*corev1.Node).Status }),
		newResource("events", "Event", func(i []corev1.Event) runtime.Object { return &corev1.EventList{Items: i} }, eventFields),
		newResource("clustertrustbundles", "ClusterTrustBundle",
			func(i []certificatesv1.ClusterTrustBundle) runtime.Object {
				return &certificatesv1.ClusterTrustBundleList{Items: i}
			}, bundleFields).
			of(certificatesv1.SchemeGroupVersion),
	}
}

var bundleFields = fieldsOf[*certificatesv1.ClusterTrustBundle]{
	"spec.signerName": func(b *certificatesv1.ClusterTrustBundle) string { return b.Spec.SignerName },
}

// podFields are those of kubernetes pkg/apis/core/v1/conversion.go.
var podFields = fieldsOf[*corev1.Pod]{
	"spec.nodeName":            func(p *corev1.Pod) string { return p.Spec.NodeName },
	"spec.restartPolicy":       func(p *corev1.Pod) string { return string(p.Spec.RestartPolicy) },
	"spec.schedulerName":       func(p *corev1.Pod) string { return p.Spec.SchedulerName },
	"spec.serviceAccountName":  func(p *corev1.Pod) string { return p.Spec.ServiceAccountName },
	"spec.hostNetwork":         func(p *corev1.Pod) string { return strconv.FormatBool(p.Spec.HostNetwork) },
	"status.phase":             func(p *corev1.Pod) string { return string(p.Status.Phase) },
	"status.podIP":             func(p *corev1.Pod) string { return p.Status.PodIP },
	"status.podIPs":            func(p *corev1.Pod) string { return "" }, // accepted, and no pod has a value
	"status.nominatedNodeName": func(p *corev1.Pod) string { return p.Status.NominatedNodeName },
}

// eventFields are those that people ask for.
var eventFields = fieldsOf[*corev1.Event]{
	"involvedObject.kind":      func(e *corev1.Event) string { return e.InvolvedObject.Kind },
	"involvedObject.namespace": func(e *corev1.Event) string { return e.InvolvedObject.Namespace },
	"involvedObject.name":      func(e *corev1.Event) string { return e.InvolvedObject.Name },
	"involvedObject.uid":       func(e *corev1.Event) string { return string(e.InvolvedObject.UID) },
	"reason":                   func(e *corev1.Event) string { return e.Reason },
	"type":                     func(e *corev1.Event) string { return e.Type },
}
