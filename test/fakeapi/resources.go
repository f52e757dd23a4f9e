package fakeapi

import (
	"maps"
	"reflect"
	"strconv"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
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
	shortNames []string // kubectl's
	namespaced bool
	hasStatus  bool // as a subresource
	// returnsDeleted: DELETE answers with the object instead of a Status.
	returnsDeleted bool
}

var coreKind = corev1.SchemeGroupVersion.WithKind

// newResources lists everything that is served.
func newResources() []*resource {
	return []*resource{
		{name: "pods", kind: coreKind("Pod"), shortNames: []string{"po"}, namespaced: true, hasStatus: true, returnsDeleted: true},
		{name: "configmaps", kind: coreKind("ConfigMap"), shortNames: []string{"cm"}, namespaced: true},
		{name: "secrets", kind: coreKind("Secret"), namespaced: true},
		{name: "serviceaccounts", kind: coreKind("ServiceAccount"), shortNames: []string{"sa"}, namespaced: true, returnsDeleted: true},
		{name: "namespaces", kind: coreKind("Namespace"), shortNames: []string{"ns"}, hasStatus: true, returnsDeleted: true},
		{name: "nodes", kind: coreKind("Node"), shortNames: []string{"no"}, hasStatus: true},
		{name: "events", kind: coreKind("Event"), shortNames: []string{"ev"}, namespaced: true},
		{name: "clustertrustbundles", kind: certificatesv1.SchemeGroupVersion.WithKind("ClusterTrustBundle")},
	}
}

func (r *resource) group() schema.GroupResource {
	return schema.GroupResource{Group: r.kind.Group, Resource: r.name}
}

// selectable are the fields of an object for field selectors.
func (r *resource) selectable(obj Object) fields.Set {
	set := fields.Set{"metadata.name": obj.GetName()}
	if r.namespaced {
		set["metadata.namespace"] = obj.GetNamespace()
	}
	maps.Copy(set, fieldsOf(obj))
	return set
}

func (r *resource) newObject() Object { return newOf(r.kind).(Object) }

// newOf makes an empty object or list of a kind that is served, all of which client-go knows.
func newOf(kind schema.GroupVersionKind) runtime.Object {
	obj, err := scheme.Scheme.New(kind)
	if err != nil {
		panic(err)
	}
	return obj
}

// shallow copies the struct only; what it points to stays shared and must not be written.
func shallow(obj Object) Object {
	c := reflect.New(reflect.TypeOf(obj).Elem())
	c.Elem().Set(reflect.ValueOf(obj).Elem())
	return c.Interface().(Object)
}

// takeStatus copies src's status into dst, which is of the same kind.
func takeStatus(dst, src Object) {
	reflect.ValueOf(dst).Elem().FieldByName("Status").Set(reflect.ValueOf(src).Elem().FieldByName("Status"))
}

// named returns obj with its kind filled in, as it must go on the wire alone. In the store, and as an
// item of a list, an object has none: that is what a client of the real server sees.
func (r *resource) named(obj Object) Object {
	obj = shallow(obj)
	obj.GetObjectKind().SetGroupVersionKind(r.kind)
	return obj
}

// makeList builds the typed list of objs at a resource version.
func (r *resource) makeList(objs []runtime.Object, rv string) runtime.Object {
	kind := r.kind.GroupVersion().WithKind(r.kind.Kind + "List")
	l := newOf(kind)
	if err := meta.SetList(l, objs); err != nil {
		panic(err) // all of them are of the list's type
	}
	l.GetObjectKind().SetGroupVersionKind(kind)
	l.(metav1.ListInterface).SetResourceVersion(rv)
	return l
}

// fieldsOf are those for field selectors beyond metadata.name and metadata.namespace; nil is none. Those of pods are of
// kubernetes pkg/apis/core/v1/conversion.go, those of events the ones that people ask for.
func fieldsOf(obj Object) fields.Set {
	switch o := obj.(type) {
	case *corev1.Pod:
		return fields.Set{
			"spec.nodeName":            o.Spec.NodeName,
			"spec.restartPolicy":       string(o.Spec.RestartPolicy),
			"spec.schedulerName":       o.Spec.SchedulerName,
			"spec.serviceAccountName":  o.Spec.ServiceAccountName,
			"spec.hostNetwork":         strconv.FormatBool(o.Spec.HostNetwork),
			"status.phase":             string(o.Status.Phase),
			"status.podIP":             o.Status.PodIP,
			"status.podIPs":            "", // accepted, and no pod has a value
			"status.nominatedNodeName": o.Status.NominatedNodeName,
		}
	case *corev1.Secret:
		return fields.Set{"type": string(o.Type)}
	case *corev1.Namespace:
		return fields.Set{"status.phase": string(o.Status.Phase)}
	case *corev1.Node:
		return fields.Set{"spec.unschedulable": strconv.FormatBool(o.Spec.Unschedulable)}
	case *certificatesv1.ClusterTrustBundle:
		return fields.Set{"spec.signerName": o.Spec.SignerName}
	case *corev1.Event:
		return fields.Set{
			"involvedObject.kind":      o.InvolvedObject.Kind,
			"involvedObject.namespace": o.InvolvedObject.Namespace,
			"involvedObject.name":      o.InvolvedObject.Name,
			"involvedObject.uid":       string(o.InvolvedObject.UID),
			"reason":                   o.Reason,
			"type":                     o.Type,
		}
	}
	return nil
}
