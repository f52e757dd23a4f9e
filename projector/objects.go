package projector

import (
	"encoding/pem"
	"maps"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// objectData is what the objects that ref names hold together, as Touch wants
// it: nil if there are none, and never nil if there is one, though empty.
func objectData(ref ObjectRef, held map[string]runtime.Object) map[string][]byte {
	if len(held) == 0 {
		return nil
	}
	data := make(map[string][]byte)
	if ref.Kind == KindClusterTrustBundle {
		data[TrustBundleKey] = joinTrustBundles(held)
		return data
	}
	for _, o := range held {
		switch o := o.(type) {
		case *corev1.ConfigMap:
			for k, v := range o.Data {
				data[k] = []byte(v)
			}
			maps.Copy(data, o.BinaryData)
		case *corev1.Secret:
			maps.Copy(data, o.Data)
		case *corev1.Node:
			for _, name := range allocatableResources {
				data[string(name)] = []byte(o.Status.Allocatable.Name(name, "").String())
			}
		}
	}
	return data
}

func joinTrustBundles(held map[string]runtime.Object) []byte {
	var bundles []string
	for _, o := range held {
		if b, ok := o.(*certificatesv1.ClusterTrustBundle); ok {
			bundles = append(bundles, b.Spec.TrustBundle)
		}
	}
	return NormalizeTrustBundles(bundles...)
}

// NormalizeTrustBundles puts the certificates of PEM bundles together, each
// once and without headers or comments, as the kubelet projects them. The order
// tells consumers nothing: the kubelet shuffles, and changes its order at every
// restart; here it is sorted, so that the same certificates are the same bytes.
func NormalizeTrustBundles(bundles ...string) []byte {
	certificates := make(map[string]bool)
	for _, bundle := range bundles {
		for block, rest := pem.Decode([]byte(bundle)); block != nil; block, rest = pem.Decode(rest) {
			certificates[string(block.Bytes)] = true
		}
	}
	joined := []byte{}
	for _, der := range slices.Sorted(maps.Keys(certificates)) {
		joined = append(joined, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(der)})...)
	}
	return joined
}
