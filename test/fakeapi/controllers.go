package fakeapi

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// prepareObject does what strategies do per kind.
func prepareObject(obj Object) error {
	switch o := obj.(type) {
	case *corev1.Pod:
		o.Generation = 1
		o.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort}
		return validatePod(o)
	case *corev1.Secret:
		return prepareSecret(o)
	case *corev1.Namespace:
		metav1.SetMetaDataLabel(&o.ObjectMeta, corev1.LabelMetadataName, o.Name)
		o.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	case *corev1.Node:
		metav1.SetMetaDataLabel(&o.ObjectMeta, corev1.LabelHostname, o.Name)
	}
	return nil
}

func prepareSecret(o *corev1.Secret) error {
	o.Type = cmp.Or(o.Type, corev1.SecretTypeOpaque)
	for k, v := range o.StringData {
		if o.Data == nil {
			o.Data = map[string][]byte{}
		}
		o.Data[k] = []byte(v)
	}
	o.StringData = nil
	if o.Type == corev1.SecretTypeServiceAccountToken && o.Annotations[corev1.ServiceAccountNameKey] == "" {
		return invalid(coreKind("Secret").GroupKind(), o.Name, field.ErrorList{
			field.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), "")})
	}
	return nil
}

// controllers plays the controller-manager, at once where the real one takes a moment: every namespace gets a service
// account and the CA bundle that an injected volume refers to, and token Secrets are filled.
func (s *Server) controllers(written Object) {
	switch o := written.(type) {
	case *corev1.Namespace:
		s.ensureDefaults(o.Name)
	case *corev1.ConfigMap:
		if o.Name == rootCAConfigMap {
			s.ensureDefaults(o.Namespace)
		}
	case *corev1.Secret:
		s.fillTokenSecret(o)
	}
}

func (s *Server) ensureDefaults(namespace string) {
	meta := metav1.ObjectMeta{Namespace: namespace, Name: defaultServiceAccount}
	s.ensure("serviceaccounts", &corev1.ServiceAccount{ObjectMeta: meta})
	meta.Name, meta.Annotations = rootCAConfigMap, map[string]string{"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver " +
		"when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."}
	data := map[string]string{"ca.crt": string(s.pki.caPEM)}
	bundle := s.ensure("configmaps", &corev1.ConfigMap{ObjectMeta: meta, Data: data})
	right := bundle.DeepCopyObject().(*corev1.ConfigMap)
	right.Data = data
	s.replace(s.table("configmaps"), bundle, right)
}

// ensure creates obj if there is none of its name, and returns what is there.
func (s *Server) ensure(resource string, obj Object) Object {
	t := s.table(resource)
	v := t.items[keyOf(obj)]
	if v == nil {
		var err error
		if v, err = s.create(t, obj); err != nil {
			panic("fakeapi: " + err.Error()) // our own objects are always valid
		}
	}
	return v.obj
}

// replace stores what a controller made of an object, if that differs.
func (s *Server) replace(t *table, old, next Object) {
	if !apiequality.Semantic.DeepEqual(old, next) {
		s.store.put(t, next)
	}
}

// controllersAfterDelete brings back what controllers bring back, removes the token Secrets of an account, and empties a
// deleted namespace. The real server keeps such a namespace Terminating for a while; here all of it is gone at once,
// terminating pods included.
func (s *Server) controllersAfterDelete(gone Object) {
	switch gone.(type) {
	case *corev1.Namespace:
		s.emptyNamespace(gone.GetName())
		return
	case *corev1.ServiceAccount:
		for key, v := range s.table("secrets").items {
			if key.Namespace == gone.GetNamespace() {
				s.fillTokenSecret(v.obj.(*corev1.Secret)) // those of the account go
			}
		}
	case *corev1.ConfigMap:
	default:
		return
	}
	if _, err := s.store.get("namespaces", named("", gone.GetNamespace())); err == nil {
		s.ensureDefaults(gone.GetNamespace()) // whatever it was
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
