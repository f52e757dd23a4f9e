package projector

import (
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

// downward evaluates the items of a downwardAPI source, in their order; what the
// node must tell is a source of its own between the others.
func (a attributes) downward(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile) ([]Source, *VolumeError) {
	out := []Source{{Literal: make([]Literal, 0, len(items))}}
	for _, item := range items {
		mode, user, err := a.plain(item.Mode, item.User)
		if err != nil {
			return nil, err
		}
		// The kubelet cleans these paths, and these alone
		// (pkg/volume/downwardapi/downwardapi.go).
		file := Literal{Path: path.Clean(item.Path), Mode: mode, User: user}
		switch {
		case item.FieldRef != nil:
			err = file.field(pod, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			var allocatable *Item
			if allocatable, err = file.resource(pod, item.ResourceFieldRef); allocatable != nil {
				out = append(out, ofNode(pod.Spec.NodeName, *allocatable), Source{})
				continue
			}
		default:
			err = volumeErrorf(ReasonInvalid, "downwardAPI %q has neither fieldRef nor resourceFieldRef", item.Path)
		}
		if err != nil {
			return nil, err
		}
		last := &out[len(out)-1]
		last.Literal = append(last.Literal, file)
	}
	return slices.DeleteFunc(out, func(s Source) bool { return s.Object == nil && len(s.Literal) == 0 }), nil
}

// ofNode is the source of a file that depends on the node.
func ofNode(node string, item Item) Source {
	return Source{Object: &ObjectSource{Ref: ObjectRef{Kind: KindNode, Name: node}, Items: []Item{item}}}
}

func (l *Literal) field(pod *corev1.Pod, name string) *VolumeError {
	value, ok := podField(pod, name)
	if !ok {
		return volumeErrorf(ReasonInvalid, "downwardAPI field %q is not one a volume may have", name)
	}
	l.Data = []byte(value)
	return nil
}

// resource evaluates a resourceFieldRef (pkg/api/v1/resource/helpers.go). A
// limit that the container does not set is what the node has to give: then
// there is no value, but an item of the node's.
func (l *Literal) resource(pod *corev1.Pod, ref *corev1.ResourceFieldSelector) (*Item, *VolumeError) {
	c := container(&pod.Spec, ref.ContainerName)
	if c == nil {
		return nil, volumeErrorf(ReasonInvalid, "downwardAPI %q: there is no container %q", l.Path, ref.ContainerName)
	}
	list, name, ok := strings.Cut(ref.Resource, ".")
	resources := map[string]corev1.ResourceList{"limits": c.Resources.Limits, "requests": c.Resources.Requests}
	amounts, known := resources[list]
	kind := corev1.ResourceName(name)
	common := slices.Contains(allocatableResources, kind)
	if !ok || !known || !common && !strings.HasPrefix(name, corev1.ResourceHugePagesPrefix) {
		return nil, volumeErrorf(ReasonInvalid, "downwardAPI resource %q is not one a volume may have", ref.Resource)
	}
	amount := amounts[kind]
	if list == "limits" && common && amount.IsZero() {
		return &Item{Key: name, Path: l.Path, Mode: l.Mode, User: l.User, Divisor: &ref.Divisor}, nil
	}
	l.Data = inUnits(amount, kind, ref.Divisor)
	return nil, nil
}

// allocatableResources are those of which a container without a limit may have
// as much as the node can give.
var allocatableResources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}

// container finds a regular or init container.
func container(spec *corev1.PodSpec, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// inUnits counts an amount in units of the divisor, rounded up; 0 is a divisor of 1.
func inUnits(amount resource.Quantity, kind corev1.ResourceName, divisor resource.Quantity) []byte {
	if divisor.IsZero() {
		divisor = *resource.NewQuantity(1, resource.DecimalSI)
	}
	n, unit := amount.Value(), divisor.Value()
	if kind == corev1.ResourceCPU {
		n, unit = amount.MilliValue(), divisor.MilliValue()
	}
	// As floating point numbers, because the kubelet computes so.
	return strconv.AppendInt(nil, int64(math.Ceil(float64(n)/float64(unit))), 10)
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
	name, key, ok := subscript(field)
	switch {
	case ok && name == "metadata.labels" && len(validation.IsQualifiedName(key)) == 0:
		return pod.Labels[key], true
	case ok && name == "metadata.annotations" && len(validation.IsQualifiedName(strings.ToLower(key))) == 0:
		return pod.Annotations[key], true
	}
	return "", false
}

// subscript takes apart FIELD['KEY'].
func subscript(s string) (field, key string, ok bool) {
	s, ok = strings.CutSuffix(s, "']")
	if !ok {
		return "", "", false
	}
	return strings.Cut(s, "['")
}

// formatMap renders labels as the kubelet does: key="value", sorted, a line each.
func formatMap(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, fmt.Sprintf("%s=%q", k, m[k]))
	}
	return strings.Join(lines, "\n")
}
