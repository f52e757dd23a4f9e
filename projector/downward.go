package projector

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// downward evaluates the items of a downwardAPI source.
func downward(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode fs.FileMode) ([]Literal, *VolumeError) {
	literals := make([]Literal, 0, len(items))
	for _, item := range items {
		if item.FieldRef == nil {
			return nil, unsupported("downwardAPI resourceFieldRef")
		}
		value, ok := podField(pod, item.FieldRef.FieldPath)
		if !ok {
			return nil, volumeErrorf(ReasonInvalid, "downwardAPI field %q is not one a volume may have", item.FieldRef.FieldPath)
		}
		m := mode
		if item.Mode != nil {
			m = fs.FileMode(*item.Mode)
		}
		// The kubelet cleans these paths, and these alone
		// (pkg/volume/downwardapi/downwardapi.go).
		literals = append(literals, Literal{Path: path.Clean(item.Path), Data: []byte(value), Mode: m})
	}
	return literals, nil
}

// podField is the value of a field that the API allows in a downwardAPI volume
// (pkg/fieldpath). A label or annotation that is not there is empty.
func podField(pod *corev1.Pod, field string) (string, bool) {
	switch field {
	case "metadata.name":
		return pod.Name, true
	case "metadata.namespace":
		return pod.Namespace, true
	case "metadata.uid":
		return string(pod.UID), true
	case "metadata.labels":
		return formatMap(pod.Labels), true
	case "metadata.annotations":
		return formatMap(pod.Annotations), true
	}
	if key, ok := subscript(field, "metadata.labels"); ok {
		return pod.Labels[key], true
	}
	if key, ok := subscript(field, "metadata.annotations"); ok {
		return pod.Annotations[key], true
	}
	return "", false
}

// subscript takes KEY out of field['KEY'].
func subscript(s, field string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(s, field+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// formatMap renders labels as the kubelet does: key="value", sorted, a line each.
func formatMap(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, fmt.Sprintf("%s=%q", k, m[k]))
	}
	return strings.Join(lines, "\n")
}
