package kubelet

import (
	"fmt"
	"maps"
	"net/url"
	"unicode/utf8"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/token-projector/token-projector/projector"
)

// world is a pod and all that its volumes are made of. Both sides project the same one.
type world struct {
	pod     *corev1.Pod
	objects map[projector.ObjectRef]map[string][]byte // configMaps and secrets; no entry: it does not exist
	bundles map[string]*certificatesv1.ClusterTrustBundle
	issue   int // of the tokens; the next one is another token
}

func (w *world) clone() *world {
	c := &world{pod: w.pod.DeepCopy(), objects: map[projector.ObjectRef]map[string][]byte{}, bundles: maps.Clone(w.bundles), issue: w.issue}
	for ref, data := range w.objects {
		c.objects[ref] = maps.Clone(data)
	}
	return c
}

func (w *world) ref(kind, name string) projector.ObjectRef {
	return projector.ObjectRef{Kind: kind, Namespace: w.pod.Namespace, Name: name}
}

// renewed is the longest lifetime, in seconds, of tokens that are renewed between the two projections.
const renewed = 3607

// token stands in for the token that such a request is answered with: it grants nothing, and says what was asked for.
func (w *world) token(r projector.Request) string {
	issue := w.issue
	if r.ExpirationSeconds > renewed {
		issue = 0
	}
	return url.QueryEscape(fmt.Sprintf("%+v issue %d", r, issue))
}

func (w *world) secret(namespace, name string) (*corev1.Secret, error) {
	data, ok := w.objects[projector.ObjectRef{Kind: projector.KindSecret, Namespace: namespace, Name: name}]
	if !ok {
		return nil, errors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}, nil
}

func (w *world) configMap(namespace, name string) (*corev1.ConfigMap, error) {
	data, ok := w.objects[projector.ObjectRef{Kind: projector.KindConfigMap, Namespace: namespace, Name: name}]
	if !ok {
		return nil, errors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
	}
	c := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Data:       map[string]string{}, BinaryData: map[string][]byte{},
	}
	for key, value := range data {
		if utf8.Valid(value) {
			c.Data[key] = string(value)
		} else {
			c.BinaryData[key] = value
		}
	}
	return c, nil
}

func (w *world) createToken(namespace, name string, tr *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	r := projector.Request{
		Namespace: namespace, ServiceAccount: name, PodName: tr.Spec.BoundObjectRef.Name, PodUID: tr.Spec.BoundObjectRef.UID,
		ExpirationSeconds: *tr.Spec.ExpirationSeconds,
	}
	if len(tr.Spec.Audiences) > 0 {
		r.Audience = tr.Spec.Audiences[0]
	}
	answer := tr.DeepCopy()
	answer.Status.Token = w.token(r)
	return answer, nil
}

// volumes are the projected volumes of the pod, by name.
func (w *world) volumes() map[string]*corev1.ProjectedVolumeSource {
	volumes := map[string]*corev1.ProjectedVolumeSource{}
	for _, v := range w.pod.Spec.Volumes {
		if v.Projected != nil {
			volumes[v.Name] = v.Projected
		}
	}
	return volumes
}

// data is what the Projector's watches would find of an object; nil: nothing.
func (w *world) data(ref projector.ObjectRef) map[string][]byte {
	switch ref.Kind {
	case projector.KindNode:
		data := map[string][]byte{}
		for name, amount := range allocatable {
			data[string(name)] = []byte(amount.String())
		}
		return data
	case projector.KindClusterTrustBundle:
		return w.trustBundles(ref)
	}
	return maps.Clone(w.objects[ref])
}

func (w *world) trustBundles(ref projector.ObjectRef) map[string][]byte {
	selector, err := labels.Parse(ref.LabelSelector)
	if err != nil {
		panic(err) // made by the Projector
	}
	var found []string
	for _, b := range w.bundles {
		if b.Name == ref.Name || ref.Name == "" && b.Spec.SignerName == ref.SignerName && selector.Matches(labels.Set(b.Labels)) {
			found = append(found, b.Spec.TrustBundle)
		}
	}
	if found == nil {
		return nil
	}
	return map[string][]byte{projector.TrustBundleKey: projector.NormalizeTrustBundles(found...)}
}
