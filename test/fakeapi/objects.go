package fakeapi

import (
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Create stores obj as a POST would, with defaulting, admission and validation, and returns what was stored.
// Namespaced objects need their namespace. Errors are those of the API (k8s.io/apimachinery/pkg/api/errors).
// obj is not changed, and the result is the caller's.
func Create[T Object](s *Server, obj T) (T, error) {
	return direct(s, obj, func(t *table) (*version, error) { return s.create(t, obj.DeepCopyObject().(Object)) })
}

// Plant stores obj as it is, UID and all, as a server would that was broken into: nothing is filled in, nothing is refused.
// The result is the caller's.
func Plant[T Object](s *Server, obj T) (T, error) {
	return direct(s, obj, func(t *table) (*version, error) { return s.store.put(t, obj.DeepCopyObject().(Object)), nil })
}

// Update stores obj as a PUT would; an empty resourceVersion means "whatever is there now". The status is kept.
func Update[T Object](s *Server, obj T) (T, error) { return update(s, obj, "") }

// UpdateStatus is Update for the status subresource: only status, labels and annotations change.
func UpdateStatus[T Object](s *Server, obj T) (T, error) { return update(s, obj, "status") }

func update[T Object](s *Server, obj T, subresource string) (T, error) {
	return direct(s, obj, func(t *table) (*version, error) {
		return s.update(t, keyOf(obj), subresource, func(Object) (Object, error) { return obj.DeepCopyObject().(Object), nil })
	})
}

// Get returns the object of T's kind with that name; namespace is "" for namespaces and nodes.
func Get[T Object](s *Server, namespace, name string) (T, error) {
	var kind T
	return direct(s, kind, func(t *table) (*version, error) { return s.store.get(t.res.name, named(namespace, name)) })
}

// List returns the objects of T's kind in a namespace, or in all for "", in no certain order.
func List[T Object](s *Server, namespace string) ([]T, error) {
	var kind T
	t, err := tableOf(s, kind)
	if err != nil {
		return nil, err
	}
	return locked(s, func() (list []T, err error) {
		for _, v := range t.items {
			if namespace == "" || v.obj.GetNamespace() == namespace {
				list = append(list, v.obj.DeepCopyObject().(T))
			}
		}
		return list, nil
	})
}

// Delete removes an object of obj's kind, namespace and name, as a DELETE with these options would: a pod on a node
// stays, terminating, for its grace period unless opts say 0. A UID in obj is a precondition.
func (s *Server) Delete(obj Object, opts metav1.DeleteOptions) error {
	if uid := obj.GetUID(); uid != "" && opts.Preconditions == nil {
		opts.Preconditions = metav1.NewUIDPreconditions(string(uid))
	}
	_, err := direct(s, obj, func(t *table) (*version, error) { return s.delete(t, keyOf(obj), opts) })
	return err
}

// AddNamespace creates a namespace with its default service account and CA bundle; one that exists is fine.
func (s *Server) AddNamespace(name string) error {
	_, err := Create(s, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// direct runs f, without HTTP, on the table of kind, and returns a private copy of its result.
func direct[T Object](s *Server, kind T, f func(*table) (*version, error)) (out T, err error) {
	t, err := tableOf(s, kind)
	if err != nil {
		return out, err
	}
	return locked(s, func() (T, error) {
		v, err := f(t)
		if err != nil {
			return out, err
		}
		return v.obj.DeepCopyObject().(T), nil
	})
}

// tableOf finds the table of kind's type.
func tableOf(s *Server, kind Object) (*table, error) {
	for _, t := range s.store.tables {
		if reflect.TypeOf(t.res.newObject()) == reflect.TypeOf(kind) {
			return t, nil
		}
	}
	return nil, fmt.Errorf("fakeapi does not serve %T", kind)
}
