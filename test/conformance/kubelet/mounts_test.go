package kubelet

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// mountsOf are the mounts of every container.
func mountsOf(spec *corev1.PodSpec) []*[]corev1.VolumeMount {
	var mounts []*[]corev1.VolumeMount
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			mounts = append(mounts, &list[i].VolumeMounts)
		}
	}
	for i := range spec.EphemeralContainers {
		mounts = append(mounts, &spec.EphemeralContainers[i].VolumeMounts)
	}
	return mounts
}

// unmount takes out the mounts of the last containers that are below the volume, where it has something. It says whether
// there were any.
func (w *world) unmount(volume string, last int, has func(firstElement string) bool) bool {
	unmounted := false
	all := mountsOf(&w.pod.Spec)
	for _, mounts := range all[len(all)-last:] {
		var kept []corev1.VolumeMount
		for _, m := range *mounts {
			below, ok := belowVolume(*mounts, volume, m)
			if ok && has(firstElement(below)) {
				unmounted = true
				continue
			}
			kept = append(kept, m)
		}
		*mounts = kept
	}
	return unmounted
}

// belowVolume is where a mount is below one of the volume, relative to it.
func belowVolume(mounts []corev1.VolumeMount, volume string, m corev1.VolumeMount) (string, bool) {
	for _, of := range mounts {
		if of.Name != volume {
			continue
		}
		if below, ok := strings.CutPrefix(path.Clean(m.MountPath), path.Clean(of.MountPath)+"/"); ok {
			return below, true
		}
	}
	return "", false
}

func firstElement(p string) string {
	first, _, _ := strings.Cut(p, "/")
	return first
}
