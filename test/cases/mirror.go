package cases

import (
	corev1 "k8s.io/api/core/v1"
)

// mirrored makes p the mirror of a static pod.
func mirrored(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "yes"} }

func mirrorPods() []Case {
	cases := []Case{
		{Group: accountsGroup, Name: "a mirror pod gets neither account nor volume nor imagePullSecrets", Run: func(w *World) {
			pod := w.mustPod(mirrored)
			w.wantEqual("account", pod.Spec.ServiceAccountName+pod.Spec.DeprecatedServiceAccount, "")
			w.wantEqual("volumes", len(pod.Spec.Volumes)+len(pod.Spec.Containers[0].VolumeMounts)+len(pod.Spec.ImagePullSecrets), 0)
		}},
	}
	secret := corev1.LocalObjectReference{Name: "s"}
	const noSecrets = "a mirror pod may not reference secrets"
	source := func(s corev1.VolumeProjection) func(*corev1.Pod) {
		return volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{s}}})
	}
	for _, c := range []struct {
		name string
		edit func(*corev1.Pod)
		says string
	}{
		{"with an account", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "default" }, "a mirror pod may not reference service accounts"},
		{"with an account by its deprecated name", func(p *corev1.Pod) { p.Spec.DeprecatedServiceAccount = "default" }, "a mirror pod may not reference service accounts"},
		{"with a secret volume", volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}), noSecrets},
		{"with a projected secret", source(corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: secret}}), noSecrets},
		{"with imagePullSecrets", func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{secret} }, noSecrets},
		{"with a secret in the environment", func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: secret}}}
		}, noSecrets},
		{"with a secret in a variable", func(p *corev1.Pod) {
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: secret, Key: "a"}}}}
		}, noSecrets},
		{"with a token source", source(corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "t"}}),
			"a mirror pod may not use ServiceAccountToken volume projections"},
	} {
		cases = append(cases, Case{Group: accountsGroup, Name: "a mirror pod " + c.name + ": 403", Run: func(w *World) {
			_, err := w.tryPod(func(p *corev1.Pod) { mirrored(p); c.edit(p) })
			w.wantRefusal(err, forbiddenPod(c.says))
		}})
	}
	return cases
}

func volume(source corev1.VolumeSource) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: source}} }
}
