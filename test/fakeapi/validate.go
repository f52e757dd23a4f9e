package fakeapi

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	minTokenSeconds = 10 * 60
	maxTokenSeconds = 1 << 32
)

// validatePod checks what concerns token sources, and that there is a container. Everything else is accepted.
func validatePod(pod *corev1.Pod) error {
	var errs field.ErrorList
	if len(pod.Spec.Containers) == 0 {
		errs = append(errs, field.Required(field.NewPath("spec", "containers"), ""))
	}
	for i, v := range pod.Spec.Volumes {
		if v.Projected != nil {
			errs = append(errs, validateProjected(v.Projected, field.NewPath("spec", "volumes").Index(i).Child("projected"))...)
		}
	}
	return invalid(coreKind("Pod").GroupKind(), pod.Name, errs)
}

func validateProjected(p *corev1.ProjectedVolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m := *p.DefaultMode; m < 0 || m > 0o777 {
		errs = append(errs, field.Invalid(at.Child("defaultMode"), m, "must be a number between 0 and 0777 (octal), both inclusive"))
	}
	for i, s := range p.Sources {
		if t := s.ServiceAccountToken; t != nil {
			errs = append(errs, validateExpiration(*t.ExpirationSeconds, at.Child("sources").Index(i).Child("serviceAccountToken", "expirationSeconds"))...)
			errs = append(errs, validateTokenPath(t.Path, at.Child("path"))...) // without the source's index, as the real one
		}
	}
	return errs
}

// validateExpiration holds for pods and for TokenRequests alike.
func validateExpiration(n int64, at *field.Path) field.ErrorList {
	switch {
	case n < minTokenSeconds:
		return field.ErrorList{field.Invalid(at, n, "may not specify a duration less than 10 minutes")}
	case n > maxTokenSeconds:
		return field.ErrorList{field.Invalid(at, n, "may not specify a duration larger than 2^32 seconds")}
	}
	return nil
}

func validateTokenPath(p string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p == "" {
		errs = append(errs, field.Required(at, ""))
	}
	if path.IsAbs(p) {
		errs = append(errs, field.Invalid(at, p, "must be a relative path"))
	}
	if slices.Contains(strings.Split(p, "/"), "..") {
		errs = append(errs, field.Invalid(at, p, "must not contain '..'"))
	}
	if strings.HasPrefix(p, "..") && !strings.HasPrefix(p, "../") {
		errs = append(errs, field.Invalid(at, p, "must not start with '..'"))
	}
	return errs
}

// validateUpdate refuses to move a pod that has a node. It lets a test change the rest of the spec, where the real
// server allows only a little.
func validateUpdate(cur, next Object) error {
	old, ok := cur.(*corev1.Pod)
	if !ok {
		return nil
	}
	pod := next.(*corev1.Pod)
	defaultPod(pod)
	if old.Spec.NodeName != "" && pod.Spec.NodeName != old.Spec.NodeName {
		return invalid(coreKind("Pod").GroupKind(), pod.Name, field.ErrorList{
			field.Forbidden(field.NewPath("spec", "nodeName"), fmt.Sprintf("pod updates may not move a pod from node %q", old.Spec.NodeName))})
	}
	return validatePod(pod)
}
