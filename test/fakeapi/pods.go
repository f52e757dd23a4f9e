package fakeapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
)

const (
	defaultServiceAccount = "default"
	rootCAConfigMap       = "kube-root-ca.crt"
	apiAccessPrefix       = "kube-api-access-"
	apiAccessMountPath    = "/var/run/secrets/kubernetes.io/serviceaccount"

	// injectedExpiration is the lifetime that admission asks for. Tokens of exactly this lifetime are extended.
	injectedExpiration = 3607
)

// defaultPod fills the defaults that a reader of projected volumes, or a person, looks at.
func defaultPod(pod *corev1.Pod) {
	spec := &pod.Spec
	spec.ServiceAccountName = cmp.Or(spec.ServiceAccountName, spec.DeprecatedServiceAccount)
	spec.DeprecatedServiceAccount = spec.ServiceAccountName
	spec.RestartPolicy = cmp.Or(spec.RestartPolicy, corev1.RestartPolicyAlways)
	spec.DNSPolicy = cmp.Or(spec.DNSPolicy, corev1.DNSClusterFirst)
	spec.SchedulerName = cmp.Or(spec.SchedulerName, corev1.DefaultSchedulerName)
	spec.TerminationGracePeriodSeconds = cmp.Or(spec.TerminationGracePeriodSeconds, new(int64(corev1.DefaultTerminationGracePeriodSeconds)))
	spec.SecurityContext = cmp.Or(spec.SecurityContext, &corev1.PodSecurityContext{})
	spec.EnableServiceLinks = cmp.Or(spec.EnableServiceLinks, new(corev1.DefaultEnableServiceLinks))
	for i := range spec.Volumes {
		defaultVolume(&spec.Volumes[i].VolumeSource)
	}
}

func defaultVolume(v *corev1.VolumeSource) {
	switch {
	case *v == (corev1.VolumeSource{}):
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	case v.Secret != nil:
		v.Secret.DefaultMode = cmp.Or(v.Secret.DefaultMode, new(corev1.SecretVolumeSourceDefaultMode))
	case v.ConfigMap != nil:
		v.ConfigMap.DefaultMode = cmp.Or(v.ConfigMap.DefaultMode, new(corev1.ConfigMapVolumeSourceDefaultMode))
	case v.DownwardAPI != nil:
		v.DownwardAPI.DefaultMode = cmp.Or(v.DownwardAPI.DefaultMode, new(corev1.DownwardAPIVolumeSourceDefaultMode))
		defaultFieldRefs(v.DownwardAPI.Items)
	case v.Projected != nil:
		v.Projected.DefaultMode = cmp.Or(v.Projected.DefaultMode, new(corev1.ProjectedVolumeSourceDefaultMode))
		defaultSources(v.Projected.Sources)
	}
}

func defaultSources(sources []corev1.VolumeProjection) {
	for _, s := range sources {
		if s.ServiceAccountToken != nil {
			s.ServiceAccountToken.ExpirationSeconds = cmp.Or(s.ServiceAccountToken.ExpirationSeconds, new(int64(3600)))
		}
		if s.DownwardAPI != nil {
			defaultFieldRefs(s.DownwardAPI.Items)
		}
	}
}

func defaultFieldRefs(items []corev1.DownwardAPIVolumeFile) {
	for _, i := range items {
		if i.FieldRef != nil {
			i.FieldRef.APIVersion = cmp.Or(i.FieldRef.APIVersion, "v1")
		}
	}
}

// admitPod sets defaults and plays the ServiceAccount admission plugin. The pod may have no name yet.
func (s *Server) admitPod(pod *corev1.Pod) error {
	defaultPod(pod)
	if _, isMirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; isMirror {
		return s.forbidPod(pod, checkMirror(&pod.Spec))
	}
	pod.Spec.ServiceAccountName = cmp.Or(pod.Spec.ServiceAccountName, defaultServiceAccount)
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	v, err := s.store.get("serviceaccounts", named(pod.Namespace, pod.Spec.ServiceAccountName))
	if err != nil {
		return s.forbidPod(pod, fmt.Sprintf("error looking up service account %s/%s: serviceaccount %q not found", pod.Namespace, pod.Spec.ServiceAccountName, pod.Spec.ServiceAccountName))
	}
	sa := v.obj.(*corev1.ServiceAccount)
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, sa.ImagePullSecrets...)
	}
	automounts := *cmp.Or(pod.Spec.AutomountServiceAccountToken, sa.AutomountServiceAccountToken, new(true))
	if automounts && !s.opts.NoAPIAccessVolume {
		injectAPIAccess(&pod.Spec)
	}
	return nil
}

// forbidPod is the 403 of admission, nil for no reason.
func (s *Server) forbidPod(pod *corev1.Pod, why string) error {
	if why == "" {
		return nil
	}
	return apierrors.NewForbidden(s.table("pods").res.group(), cmp.Or(pod.Name, pod.GenerateName), errors.New(why))
}

// secretField is the name of a field that refers to a Secret, wherever in a pod's spec it is.
var secretField = regexp.MustCompile(`"\w*[sS]ecret\w*":`)

// checkMirror says what the mirror of a static pod must not have.
func checkMirror(spec *corev1.PodSpec) string {
	fields, _ := json.Marshal(spec) // it came that way
	switch {
	case spec.ServiceAccountName != "":
		return "a mirror pod may not reference service accounts"
	case secretField.Match(fields):
		return "a mirror pod may not reference secrets"
	case bytes.Contains(fields, []byte(`"serviceAccountToken":`)):
		return "a mirror pod may not use ServiceAccountToken volume projections"
	}
	return ""
}

// injectAPIAccess mounts the token of the API into every container that has nothing at its path yet, and adds the
// volume only if at least one container needs it.
func injectAPIAccess(spec *corev1.PodSpec) {
	name, needed := apiAccessPrefix+rand.String(5), false
	exists := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return strings.HasPrefix(v.Name, apiAccessPrefix) })
	if exists >= 0 {
		name = spec.Volumes[exists].Name
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			mounts := &containers[i].VolumeMounts
			if slices.ContainsFunc(*mounts, func(m corev1.VolumeMount) bool { return m.MountPath == apiAccessMountPath }) {
				continue
			}
			*mounts = append(*mounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: apiAccessMountPath})
			needed = true
		}
	}
	if needed && exists < 0 {
		spec.Volumes = append(spec.Volumes, apiAccessVolume(name))
	}
}

// apiAccessVolume is the injected volume, source by source in the real order.
func apiAccessVolume(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: new(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(injectedExpiration))}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCAConfigMap},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path:     "namespace",
				FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		},
	}}}
}

// deletionGrace is the grace in seconds that a DELETE gives obj. Only pods are deleted gracefully, and only while a
// node may still run them.
func deletionGrace(obj Object, asked *int64) int64 {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return 0
	}
	// If it terminates already it keeps what was said first.
	grace := *cmp.Or(asked, pod.DeletionGracePeriodSeconds, pod.Spec.TerminationGracePeriodSeconds, new(int64))
	if grace < 0 {
		return 1
	}
	return grace
}

// bindPod is POST pods/NAME/binding, by which a scheduler gives a pod its node.
func (c *call) bindPod(t *table) error {
	b := &corev1.Binding{}
	if err := decode(c.ContentType, c.body, coreKind("Binding"), b); err != nil {
		return err
	}
	bind := func(obj Object) (Object, error) {
		pod := obj.(*corev1.Pod)
		if pod.Spec.NodeName != "" {
			return nil, apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, pod.Name, fmt.Errorf("pod %s is already assigned to node %q", pod.Name, pod.Spec.NodeName))
		}
		pod.Spec.NodeName = b.Target.Name
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: c.s.timestamp()})
		return pod, nil
	}
	_, err := locked(c.s, func() (*version, error) { return c.s.update(t, c.key(), c.Subresource, bind) })
	if err == nil {
		c.replyStatus(&metav1.Status{TypeMeta: statusKind, Status: metav1.StatusSuccess, Code: http.StatusCreated})
	}
	return err
}
