package projector

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/atomicwriter"
)

// mountpoints are the directories that a volume needs because containers mount
// something else below it: the mount is read-only, so no runtime can make them
// (pkg/volume/util/nested_volumes.go). What lies below one of them is in the
// other volume. A file of the volume in the same place is never seen, as with the
// kubelet; the container starts all the same.
func mountpoints(spec *corev1.PodSpec, volume string) []string {
	var found []string
	mounts := func(all []corev1.VolumeMount) {
		for i := range all {
			if all[i].Name == volume {
				found = append(found, nested(path.Clean(all[i].MountPath), all)...)
			}
		}
	}
	for i := range spec.InitContainers {
		mounts(spec.InitContainers[i].VolumeMounts)
	}
	for i := range spec.Containers {
		mounts(spec.Containers[i].VolumeMounts)
	}
	for i := range spec.EphemeralContainers {
		mounts(spec.EphemeralContainers[i].VolumeMounts)
	}
	if len(found) == 0 { // as a rule
		return nil
	}
	slices.Sort(found)
	return slices.DeleteFunc(slices.Compact(found), func(p string) bool {
		return atomicwriter.ValidatePaths([]string{p}) != nil
	})
}

// nested are the paths of mounts below dir, relative to it, without those below
// one another.
func nested(dir string, mounts []corev1.VolumeMount) []string {
	var below []string
	prefix := dir + "/"
	for i := range mounts {
		if p, ok := strings.CutPrefix(path.Clean(mounts[i].MountPath), prefix); ok {
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

// mounted reports whether the directories for mounts, and the links of the files, have been seen to.
func (v *volume) mounted() bool { return v.linked && slices.Equal(v.mountpoints, v.wish.Mountpoints) }
