package fakeapi

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// prepareObject does what admission and strategies do per kind. The store is locked.
func (s *Server) prepareObject(obj Object) error {
	switch o := obj.(type) {
	case *corev1.Pod:
		return s.preparePod(o)
	case *corev1.Secret:
		prepareSecret(o)
	case *corev1.Namespace:
		metav1.SetMetaDataLabel(&o.ObjectMeta, corev1.LabelMetadataName, o.Name)
		o.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	case *corev1.Node:
		metav1.SetMetaDataLabel(&o.ObjectMeta, corev1.LabelHostname, o.Name)
	}
	return nil
}

func prepareSecret(o *corev1.Secret) {
	setZero(&o.Type, corev1.SecretTypeOpaque)
	for k, v := range o.StringData {
		if o.Data == nil {
			o.Data = map[string][]byte{}
		}
		o.Data[k] = []byte(v)
	}
	o.StringData = nil
}

// controllers plays the controller-manager, at once where the real one takes a moment: every namespace gets a
// service account and the CA bundle that an injected volume refers to.
func (s *Server) controllers(created Object) {
	if ns, ok := created.(*corev1.Namespace); ok {
		s.ensureDefaults(ns.Name)
	}
}

func (s *Server) ensureDefaults(namespace string) {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: namespace, Name: name} }
	s.ensure("serviceaccounts", &corev1.ServiceAccount{ObjectMeta: meta(defaultServiceAccount)})
	s.ensure("configmaps", &corev1.ConfigMap{ObjectMeta: meta(rootCAConfigMap), Data: map[string]string{"ca.crt": string(s.pki.caPEM)}})
}

func (s *Server) ensure(resource string, obj Object) {
	t := s.table(resource)
	if t.items[keyOf(obj)] != nil {
		return
	}
	if _, err := s.create(t, obj); err != nil {
		panic("fakeapi: " + err.Error()) // our own objects are always valid
	}
}

// controllersAfterDelete brings back what controllers bring back, and empties a deleted namespace. The real server
// keeps such a namespace Terminating for a while; here all of it is gone at once, terminating pods included.
func (s *Server) controllersAfterDelete(gone Object) {
	if ns, ok := gone.(*corev1.Namespace); ok {
		s.emptyNamespace(ns.Name)
		return
	}
	_, isAccount := gone.(*corev1.ServiceAccount)
	_, isConfigMap := gone.(*corev1.ConfigMap)
	if isAccount && gone.GetName() == defaultServiceAccount || isConfigMap && gone.GetName() == rootCAConfigMap {
		if _, err := s.store.get("namespaces", named("", gone.GetNamespace())); err == nil {
			s.ensureDefaults(gone.GetNamespace())
		}
	}
}

func (s *Server) emptyNamespace(name string) {
	for _, t := range s.store.tables {
		for key, v := range t.items {
			if key.Namespace == name {
				s.store.remove(t, v)
			}
		}
	}
}

func (s *Server) table(resource string) *table { return s.store.tables[resource] }
