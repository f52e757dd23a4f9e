package kubelet

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/projector"
)

// volume has at least one token: one without is none of ours.
func (d dice) volume(w *world) *corev1.ProjectedVolumeSource {
	v := &corev1.ProjectedVolumeSource{DefaultMode: d.optionalMode(99), DefaultUser: d.user(10)}
	add := func(n int, source func() corev1.VolumeProjection) {
		for range n {
			v.Sources = append(v.Sources, source())
		}
	}
	some := func(percent float64) int {
		if !d.chance(percent) {
			return 0
		}
		return 1 + d.IntN(pick(d, 1, 2, 4))
	}
	add(1+d.IntN(pick(d, 1, 2, 4)), d.token)
	add(some(60), func() corev1.VolumeProjection { return d.configMap(w) })
	add(some(50), func() corev1.VolumeProjection { return d.secret(w) })
	add(some(50), func() corev1.VolumeProjection { return d.downwardAPI(w) })
	add(some(2), func() corev1.VolumeProjection { return corev1.VolumeProjection{} })
	add(some(40), d.bundle)
	d.Shuffle(len(v.Sources), func(i, j int) { v.Sources[i], v.Sources[j] = v.Sources[j], v.Sources[i] })
	return v
}

func (d dice) token() corev1.VolumeProjection {
	return corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
		Audience: pick(d, "", "vault", "https://example.com/ä"), ExpirationSeconds: new(pick(d, int64(600), renewed, 86400, 1<<32)),
		Path: d.path(), User: d.user(10),
	}}
}

func (d dice) configMap(w *world) corev1.VolumeProjection {
	name, optional, items := d.object(w, projector.KindConfigMap)
	return corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Items: items, Optional: optional,
	}}
}

func (d dice) secret(w *world) corev1.VolumeProjection {
	name, optional, items := d.object(w, projector.KindSecret)
	return corev1.VolumeProjection{Secret: &corev1.SecretProjection{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Items: items, Optional: optional,
	}}
}

// object refers to an object of that kind. What is not there is mostly optional.
func (d dice) object(w *world, kind string) (name string, optional *bool, items []corev1.KeyToPath) {
	name = objectName(d.IntN(2))
	data, exists := w.objects[w.ref(kind, name)]
	complete := exists
	if d.chance(50) {
		for range 1 + d.IntN(3) {
			item := corev1.KeyToPath{Key: d.knownKey(data), Path: d.path(), Mode: d.optionalMode(40), User: d.user(10)}
			_, there := data[item.Key]
			complete = complete && there
			items = append(items, item)
		}
	}
	if complete {
		return name, maybe(d, 50, true, false), items
	}
	return name, maybe(d, 97, true, true, true, true, true, true, true, true, true, false), items
}

// knownKey is mostly one that is there.
func (d dice) knownKey(data map[string][]byte) string {
	if len(data) == 0 || d.chance(10) {
		return d.key()
	}
	return pick(d, slices.Sorted(maps.Keys(data))...)
}

func (d dice) downwardAPI(w *world) corev1.VolumeProjection {
	source := &corev1.DownwardAPIProjection{}
	for range 1 + d.IntN(4) {
		item := corev1.DownwardAPIVolumeFile{Path: d.path(), Mode: d.optionalMode(40), User: d.user(10)}
		if d.chance(30) {
			item.ResourceFieldRef = d.resource(w)
		} else {
			item.FieldRef = &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: d.field()}
		}
		source.Items = append(source.Items, item)
	}
	return corev1.VolumeProjection{DownwardAPI: source}
}

func (d dice) field() string {
	if d.chance(1) {
		return pick(d, "spec.nodeName", "status.podIP", "metadata.generateName", "metadata.name['x']")
	}
	if d.chance(1) {
		return pick(d, "metadata.labels['']", "metadata.labels['no key']", "metadata.annotations['no/such/key']")
	}
	return pick(d,
		"metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations",
		"metadata.labels['app']", "metadata.labels['a.b/c']", "metadata.annotations['MixedCase']", "metadata.annotations['not/there']",
	)
}
