package kubelet

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/projector"
)

// refusal is the difference by which ours refuses a volume that the kubelet does not refuse, or not always; nil if there is none.
func refusal(v *corev1.ProjectedVolumeSource) *difference {
	paths := staticPaths(v)
	for i, raw := range paths {
		clean := path.Clean(raw)
		switch {
		case impossible(raw):
			return impossiblePath
		case strings.HasPrefix(clean, ".."):
			return reservedName
		}
		for _, other := range paths[:i] {
			switch c := path.Clean(other); {
			case c == clean && other != raw:
				return twoSpellings
			case strings.HasPrefix(c, clean+"/"), strings.HasPrefix(clean, c+"/"):
				return conflictingPaths
			}
		}
	}
	return nil
}

// impossible says that nobody projects a file to such a path.
func impossible(p string) bool {
	elements := strings.Split(p, "/")
	tooLong := slices.ContainsFunc(elements, func(e string) bool { return len(e) > 255 })
	return path.IsAbs(p) || path.Clean(p) == "." || strings.HasPrefix(p, "..") || slices.Contains(elements, "..") || tooLong
}

// staticPaths are the paths in a volume's spec, as the kubelet takes them: it cleans downwardAPI's, and these alone.
func staticPaths(v *corev1.ProjectedVolumeSource) []string {
	var paths []string
	for _, p := range rawPaths(v) {
		paths = append(paths, *p)
	}
	for _, s := range v.Sources {
		if s.DownwardAPI != nil {
			for _, item := range s.DownwardAPI.Items {
				paths = append(paths, path.Clean(item.Path))
			}
		}
	}
	return paths
}

// surePaths are the paths that a source gives unless it fails.
func surePaths(s corev1.VolumeProjection) []string {
	optional := func(b *bool) bool { return b != nil && *b }
	if s.ConfigMap != nil && optional(s.ConfigMap.Optional) || s.Secret != nil && optional(s.Secret.Optional) {
		return nil
	}
	return staticPaths(&corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{s}})
}

// rawPaths are the paths in a volume's spec that the kubelet takes as they are.
func rawPaths(v *corev1.ProjectedVolumeSource) []*string {
	var paths []*string
	add := func(items []corev1.KeyToPath) {
		for i := range items {
			paths = append(paths, &items[i].Path)
		}
	}
	for _, s := range v.Sources {
		switch {
		case s.ServiceAccountToken != nil:
			paths = append(paths, &s.ServiceAccountToken.Path)
		case s.ClusterTrustBundle != nil:
			paths = append(paths, &s.ClusterTrustBundle.Path)
		case s.ConfigMap != nil:
			add(s.ConfigMap.Items)
		case s.Secret != nil:
			add(s.Secret.Items)
		}
	}
	return paths
}

// freeKeys are the keys that are paths themselves.
func (w *world) freeKeys(v *corev1.ProjectedVolumeSource) map[string]bool {
	keys := map[string]bool{}
	add := func(kind, name string) {
		for key := range w.objects[w.ref(kind, name)] {
			keys[key] = true
		}
	}
	for _, s := range v.Sources {
		switch {
		case s.ConfigMap != nil && len(s.ConfigMap.Items) == 0:
			add(projector.KindConfigMap, s.ConfigMap.Name)
		case s.Secret != nil && len(s.Secret.Items) == 0:
			add(projector.KindSecret, s.Secret.Name)
		}
	}
	return keys
}

// clean cleans the paths of the volume that are another spelling of an object's key, and says whether there were any.
func (w *world) clean(volume string) bool {
	keys, cleaned := w.freeKeys(w.volumes()[volume]), false
	for _, p := range rawPaths(w.volumes()[volume]) {
		if clean := path.Clean(*p); clean != *p && keys[clean] {
			*p, cleaned = clean, true
		}
	}
	return cleaned
}
