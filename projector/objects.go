package projector

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"maps"
	"slices"

	"github.com/token-projector/token-projector/rotation"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// joinData is what the objects that ref names hold together, as Touch wants
// it: nil if there are none, and never nil if there is one, though empty. held is what each of them holds.
func joinData(ref ObjectRef, held map[string]map[string][]byte) map[string][]byte {
	if ref.Kind == KindClusterTrustBundle && len(held) > 0 {
		var bundles []string
		for _, data := range held {
			bundles = append(bundles, string(data[TrustBundleKey]))
		}
		return map[string][]byte{TrustBundleKey: NormalizeTrustBundles(bundles...)}
	}
	for _, data := range held { // the one of that name
		return data
	}
	return nil
}

// objectData is what one object holds, without the rest of it.
func objectData(o runtime.Object) map[string][]byte {
	data := make(map[string][]byte)
	switch o := o.(type) {
	case *corev1.ConfigMap:
		for k, v := range o.Data {
			data[k] = []byte(v)
		}
		maps.Copy(data, o.BinaryData)
	case *corev1.Secret:
		maps.Copy(data, o.Data)
	case *certificatesv1.ClusterTrustBundle:
		data[TrustBundleKey] = []byte(o.Spec.TrustBundle)
	case *corev1.Node:
		for _, name := range allocatableResources {
			data[string(name)] = []byte(o.Status.Allocatable.Name(name, "").String())
		}
	}
	return data
}

// NormalizeTrustBundles puts the certificates of PEM bundles together, each
// once and without headers or comments, as the kubelet projects them. The order
// tells consumers nothing: the kubelet shuffles, anew whenever a cache of
// five minutes expires; here it is sorted, so that the same certificates are the same bytes.
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

// watchObjects notes the volume as a user of the objects it is made of.
func (s *state) watchObjects(v *volume) {
	for i := range v.wish.Sources {
		src := v.wish.Sources[i].Object
		if src == nil {
			continue
		}
		o := s.objects[src.Ref]
		if o == nil {
			o = &object{ref: src.Ref, users: make(map[*volume]bool)}
			s.objects[src.Ref] = o
			s.watching = append(s.watching, src.Ref)
		}
		o.users[v] = true
		v.uses = append(v.uses, o)
	}
}

// releaseObjects ends that use; an object without users is watched no more.
func (s *state) releaseObjects(v *volume) {
	for _, o := range v.uses {
		if delete(o.users, v); len(o.users) == 0 && s.objects[o.ref] == o {
			delete(s.objects, o.ref)
			s.released = append(s.released, o.ref)
		}
	}
	v.uses = nil
}

// touch takes in what an object holds now; nil data: it does not exist.
func (s *state) touch(ref ObjectRef, data map[string][]byte, now rotation.Time) {
	o := s.objects[ref]
	if o == nil {
		return
	}
	same := o.known && o.err == "" && (data == nil) == (o.data == nil) && maps.EqualFunc(data, o.data, bytes.Equal)
	o.known, o.data, o.err, o.refused = true, data, "", false
	if same {
		return
	}
	o.sums = nil
	s.reexamine(o, now)
}

// sum is the hash of a key's data. It is computed once, however many volumes look at it however often: the data may be
// a megabyte, and the owner waits for it.
func (o *object) sum(key string) [32]byte {
	sum, ok := o.sums[key]
	if !ok {
		if o.sums == nil {
			o.sums = make(map[string][32]byte)
		}
		sum = sha256.Sum256(o.data[key])
		o.sums[key] = sum
	}
	return sum
}

// untouchable takes in why an object cannot be read, or that it can again, which
// is ""; what it last held stays.
func (s *state) untouchable(ref ObjectRef, why string, refused bool, now rotation.Time) {
	o := s.objects[ref]
	if o == nil || o.err == why {
		return
	}
	o.err, o.refused = why, refused
	s.reexamine(o, now)
}

func (s *state) reexamine(o *object, now rotation.Time) {
	for v := range o.users {
		s.replan(v, now)
	}
}

// replan brings a volume up to date with what has changed of what it is made of.
func (s *state) replan(v *volume, now rotation.Time) {
	server := s.server(now)
	s.examine(v, server)
	s.plan(v, server)
}
