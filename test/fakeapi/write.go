package fakeapi

import (
	"errors"
	"fmt"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// create is POST: obj, whose namespace is set, is owned by the store afterwards. The store is locked.
func (s *Server) create(t *table, obj Object) (*version, error) {
	if err := s.prepareMeta(t.res, obj); err != nil {
		return nil, err
	}
	if err := prepareObject(obj); err != nil {
		return nil, err
	}
	if t.items[keyOf(obj)] != nil {
		return nil, apierrors.NewAlreadyExists(t.res.group(), obj.GetName())
	}
	v := s.store.put(t, obj)
	s.controllers(v.obj)
	return v, nil
}

// prepareMeta fills what the server alone decides, checks the namespace, asks admission, and only then finds a name.
func (s *Server) prepareMeta(r *resource, obj Object) error {
	if obj.GetResourceVersion() != "" {
		return apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	if r.namespaced {
		if _, err := s.store.get("namespaces", named("", obj.GetNamespace())); err != nil {
			return err
		}
	}
	obj.SetUID(uuid.NewUUID())
	obj.SetCreationTimestamp(s.timestamp())
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetGeneration(0)
	if pod, ok := obj.(*corev1.Pod); ok {
		if err := s.admitPod(pod); err != nil {
			return err
		}
	}
	return nameObject(r, obj)
}

// timestamp is the server's time at the precision that objects carry.
func (s *Server) timestamp() metav1.Time {
	return metav1.NewTime(s.now().Truncate(time.Second))
}

// nameObject generates the name if that is wanted, and checks it.
func nameObject(r *resource, obj Object) error {
	if obj.GetName() == "" && obj.GetGenerateName() != "" {
		obj.SetName(obj.GetGenerateName() + rand.String(5))
	}
	path, name := field.NewPath("metadata", "name"), obj.GetName()
	var errs field.ErrorList
	if name == "" {
		errs = append(errs, field.Required(path, "name or generateName is required"))
	} else {
		for _, msg := range nameErrors(obj, name) {
			errs = append(errs, field.Invalid(path, name, msg))
		}
	}
	return invalid(r.kind.GroupKind(), name, errs)
}

// nameErrors: a bundle of a signer has the signer's name before its own.
func nameErrors(obj Object, name string) []string {
	if b, ok := obj.(*certificatesv1.ClusterTrustBundle); ok && b.Spec.SignerName != "" {
		prefix := strings.ReplaceAll(b.Spec.SignerName, "/", ":") + ":"
		if !strings.HasPrefix(name, prefix) {
			return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", b.Spec.SignerName, prefix)}
		}
		name = strings.TrimPrefix(name, prefix)
	}
	return validation.IsDNS1123Subdomain(name)
}

// update is PUT and PATCH: edit turns a private copy of the current object into the wanted one. The store is locked.
func (s *Server) update(t *table, key types.NamespacedName, subresource string, edit func(Object) (Object, error)) (*version, error) {
	cur, err := s.store.get(t.res.name, key)
	if err != nil {
		return nil, err
	}
	next, err := edit(cur.obj.DeepCopyObject().(Object))
	if err != nil {
		return nil, err
	}
	if err := checkPreconditions(t.res, cur.obj, next); err != nil {
		return nil, err
	}
	next = merge(t.res, cur.obj, next, subresource)
	keepMeta(cur.obj, next)
	if err := validateUpdate(cur.obj, next); err != nil {
		return nil, err
	}
	if finished(next) {
		return s.remove(t, cur), nil
	}
	if apiequality.Semantic.DeepEqual(cur.obj, next) {
		return cur, nil // like the real server: no change, no event, no new resource version
	}
	v := s.store.put(t, next)
	s.controllers(v.obj)
	return v, nil
}

var errModified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

func checkPreconditions(r *resource, cur, next Object) error {
	if rv := next.GetResourceVersion(); rv != "" && rv != cur.GetResourceVersion() {
		return apierrors.NewConflict(r.group(), cur.GetName(), errModified)
	}
	if uid := next.GetUID(); uid != "" && uid != cur.GetUID() {
		message := fmt.Sprintf("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, cur.GetUID())
		return apierrors.NewConflict(r.group(), cur.GetName(), errors.New(message))
	}
	return nil
}

// merge keeps what a write to the given subresource may not change.
func merge(r *resource, cur, next Object, subresource string) Object {
	if !r.hasStatus || subresource == "binding" {
		return next
	}
	if subresource == "" {
		takeStatus(next, cur)
		return next
	}
	out := cur.DeepCopyObject().(Object)
	out.SetLabels(next.GetLabels())
	out.SetAnnotations(next.GetAnnotations())
	takeStatus(out, next)
	return out
}

// keepMeta restores the metadata that no client may change.
func keepMeta(cur, next Object) {
	next.GetObjectKind().SetGroupVersionKind(cur.GetObjectKind().GroupVersionKind())
	kept, wanted := *metaOf(cur).DeepCopy(), metaOf(next)
	kept.Labels, kept.Annotations = wanted.Labels, wanted.Annotations
	kept.OwnerReferences, kept.Finalizers = wanted.OwnerReferences, wanted.Finalizers
	*wanted = kept
}

func metaOf(obj Object) *metav1.ObjectMeta {
	return obj.(metav1.ObjectMetaAccessor).GetObjectMeta().(*metav1.ObjectMeta)
}

// finished: the object was deleted, its grace was over, and its last finalizer is gone.
func finished(o Object) bool {
	grace := o.GetDeletionGracePeriodSeconds()
	return o.GetDeletionTimestamp() != nil && len(o.GetFinalizers()) == 0 && (grace == nil || *grace == 0)
}

// delete is DELETE. What it returns is gone, or still terminating. The store is locked.
func (s *Server) delete(t *table, key types.NamespacedName, opts metav1.DeleteOptions) (*version, error) {
	v, err := s.store.get(t.res.name, key)
	if err != nil {
		return nil, err
	}
	kind := schema.GroupResource{Group: t.res.kind.Group, Resource: t.res.kind.Kind}
	if p := opts.Preconditions; p != nil && p.UID != nil && *p.UID != v.obj.GetUID() {
		return nil, apierrors.NewConflict(kind, key.Name, fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, v.obj.GetUID()))
	} else if p != nil && p.ResourceVersion != nil && *p.ResourceVersion != v.obj.GetResourceVersion() {
		return nil, apierrors.NewConflict(kind, key.Name, fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, v.obj.GetResourceVersion()))
	}
	grace, held := deletionGrace(v.obj, opts.GracePeriodSeconds), len(v.obj.GetFinalizers()) > 0
	if _, isPod := v.obj.(*corev1.Pod); isPod || held {
		v = s.markDeleted(t, v, grace) // watchers see the last grace of a pod, even one of 0
	}
	if grace > 0 || held {
		return v, nil
	}
	return s.remove(t, v), nil
}

func (s *Server) remove(t *table, v *version) *version {
	last := s.store.remove(t, v)
	s.controllersAfterDelete(last.obj)
	return last
}

// markDeleted sets or shortens the time of deletion. A terminating object's grace can only become shorter.
func (s *Server) markDeleted(t *table, v *version, grace int64) *version {
	now := s.timestamp().Time
	at, was := now.Add(seconds(grace)), v.obj.GetDeletionTimestamp()
	if was != nil {
		old := v.obj.GetDeletionGracePeriodSeconds()
		if old == nil || grace >= *old {
			return v
		}
		if at = was.Add(seconds(grace - *old)); at.Before(now) {
			at = now
		}
	}
	next := v.obj.DeepCopyObject().(Object)
	next.SetDeletionTimestamp(&metav1.Time{Time: at})
	next.SetDeletionGracePeriodSeconds(&grace)
	if was == nil && next.GetGeneration() > 0 {
		next.SetGeneration(next.GetGeneration() + 1)
	}
	out := s.store.put(t, next)
	s.finalizeLater(t, out.obj, grace)
	return out
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// finalizeLater plays the kubelet when Options.FinalizePods says so: the pod is gone once its grace is over.
func (s *Server) finalizeLater(t *table, obj Object, grace int64) {
	if !s.opts.FinalizePods || t.res.name != "pods" || grace == 0 {
		return
	}
	opts := metav1.DeleteOptions{GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions(string(obj.GetUID()))}
	s.after(seconds(grace), func() {
		_, _ = s.delete(t, keyOf(obj), opts) // an error means that the pod is gone already, or another one has its name
	})
}
