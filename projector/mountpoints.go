package projector

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/token-projector/token-projector/atomicwriter"
)

// mountpoints are the directories that a volume needs because containers mount
// something else below it: the mount is read-only, so no runtime can make them
// (pkg/volume/util/nested_volumes.go). What lies below one of them is in the
// other volume.
//
// One that a file of the volume is in the way of is left out. The kubelet makes
// it, and the file never appears.
func mountpoints(spec *corev1.PodSpec, volume string, sources []Source) []string {
	found := sets.New[string]()
	mounts := func(all []corev1.VolumeMount) {
		for _, m := range all {
			if m.Name == volume {
				found.Insert(nested(path.Clean(m.MountPath), all)...)
			}
		}
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		mounts(c.VolumeMounts)
	}
	for _, c := range spec.EphemeralContainers {
		mounts(c.VolumeMounts)
	}
	files := sets.New[string]()
	for _, p := range staticPaths(sources) {
		files.Insert(firstElement(p))
	}
	var list []string
	for _, p := range sets.List(found) {
		if !files.Has(firstElement(p)) && atomicwriter.ValidatePaths([]string{p}) == nil {
			list = append(list, p)
		}
	}
	return list
}

// nested are the paths of mounts below dir, relative to it, without those below
// one another.
func nested(dir string, mounts []corev1.VolumeMount) []string {
	var below []string
	for _, m := range mounts {
		if p, ok := strings.CutPrefix(path.Clean(m.MountPath), dir+"/"); ok {
			below = append(below, p)
		}
	}
	return slices.DeleteFunc(slices.Clone(below), func(p string) bool {
		return slices.ContainsFunc(below, func(q string) bool { return strings.HasPrefix(p, q+"/") })
	})
}

func firstElement(p string) string {
	first, _, _ := strings.Cut(p, "/")
	return first
}
