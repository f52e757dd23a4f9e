package projector

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/atomicwriter"
)

// Selection says which of a pod's projected volumes are wanted.
type Selection string

// Selections, as the values of the flag --volumes.
const (
	SelectAll       Selection = "all"       // every projected volume with a token source
	SelectUnmounted Selection = "unmounted" // those that no container mounts; a kubelet skips them
)

// Key names a volume on the node.
type Key struct {
	PodUID types.UID
	Volume string
}

// Wish is what one pod wants on disk. A Wish without Volumes wants nothing;
// what is there for the pod may be removed.
type Wish struct {
	UID            types.UID
	Namespace      string
	Name           string
	ServiceAccount string
	// Retire is when the pod's tokens die and their rotation ends: 60 s past
	// its deletionTimestamp, the leeway of the API server's validator
	// (pkg/serviceaccount/claims.go). Zero: the pod is not terminating.
	Retire  time.Time
	Volumes []Volume
}

// Volume is one wanted volume. Its sources are immutable for the life of a
// pod; what downwardAPI sources say, and Err, are not.
type Volume struct {
	Name    string
	Sources []Source
	// Err says why the volume cannot be projected at all; nil if it can.
	Err *VolumeError
}

// Source is one source of a projected volume; exactly one field is set.
type Source struct {
	Token   *TokenSource
	Object  *ObjectSource // configMap or secret
	Literal []Literal     // downwardAPI, evaluated
}

// TokenSource is a serviceAccountToken source.
type TokenSource struct {
	Audience          string // "": the API server's own
	ExpirationSeconds int64
	Path              string
	Mode              fs.FileMode
}

// ObjectSource is a configMap or secret source.
type ObjectSource struct {
	Ref      ObjectRef
	Items    []Item // nil: every key, as a path of its own
	Optional bool
	Mode     fs.FileMode // of keys that no item names
}

// Item projects one key of an object to a path.
type Item struct {
	Key, Path string
	Mode      fs.FileMode
}

// Literal is a file whose bytes the pod itself determines.
type Literal struct {
	Path string
	Data []byte
	Mode fs.FileMode
}

// ObjectRef names an object that volumes are made of.
type ObjectRef struct {
	Kind      string // one of the kinds below
	Namespace string
	Name      string
}

// Kinds of objects.
const (
	KindConfigMap = "ConfigMap"
	KindSecret    = "Secret"
)

// tokenLeeway is for how long past deletionTimestamp the API server still
// accepts a token (pkg/serviceaccount/claims.go).
const tokenLeeway = time.Minute

// Desired computes what a pod wants. It is pure. Mirror pods, and pods that
// have succeeded or failed, want nothing.
func Desired(pod *corev1.Pod, which Selection) Wish {
	w := Wish{
		UID: pod.UID, Namespace: pod.Namespace, Name: pod.Name,
		ServiceAccount: pod.Spec.ServiceAccountName,
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return w
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return w
	}
	if pod.DeletionTimestamp != nil {
		w.Retire = pod.DeletionTimestamp.Add(tokenLeeway)
	}
	mounted := mountedVolumes(&pod.Spec)
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if !hasToken(v) || which == SelectUnmounted && mounted[v.Name] {
			continue
		}
		w.Volumes = append(w.Volumes, desiredVolume(pod, v))
	}
	return w
}

// mountedVolumes names the volumes that an init or regular container mounts or
// uses as a device. Ephemeral containers do not count, although the kubelet's
// populator counts them: they come later, and a volume that is ours stays ours
// for the pod's life.
func mountedVolumes(spec *corev1.PodSpec) map[string]bool {
	mounted := make(map[string]bool)
	each := func(mounts []corev1.VolumeMount, devices []corev1.VolumeDevice) {
		for _, m := range mounts {
			mounted[m.Name] = true
		}
		for _, d := range devices {
			mounted[d.Name] = true
		}
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		each(c.VolumeMounts, c.VolumeDevices)
	}
	return mounted
}

func hasToken(v *corev1.Volume) bool {
	return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
		return s.ServiceAccountToken != nil
	})
}

// component reports whether s can be the name of a directory entry. The API
// server sees to it for pods' UIDs and volumes; a caller of Apply might not.
func component(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 255 && !strings.ContainsAny(s, "/\x00")
}

func desiredVolume(pod *corev1.Pod, v *corev1.Volume) Volume {
	out := Volume{Name: v.Name}
	if !component(v.Name) {
		out.Err = volumeErrorf(ReasonInvalid, "volume name %q cannot name a directory", v.Name)
		return out
	}
	if err := ownerRules(&pod.Spec); err != nil {
		out.Err = err
		return out
	}
	if v.Projected.DefaultMode == nil {
		out.Err = volumeErrorf(ReasonInvalid, "projected volume has no defaultMode; the API server sets it")
		return out
	}
	for i := range v.Projected.Sources {
		s, err := desiredSource(pod, &v.Projected.Sources[i], fs.FileMode(*v.Projected.DefaultMode))
		if err != nil {
			out.Sources, out.Err = nil, err.in(fmt.Sprintf("source %d", i))
			return out
		}
		out.Sources = append(dropShadowed(out.Sources, s), s)
	}
	if err := atomicwriter.ValidatePaths(staticPaths(out.Sources)); err != nil {
		out.Sources, out.Err = nil, &VolumeError{ReasonInvalid, err.Error()}
	}
	cleanPaths(out.Sources)
	return out
}

// cleanPaths makes of valid paths the ones that will be found on disk.
func cleanPaths(sources []Source) {
	for _, s := range sources {
		switch {
		case s.Token != nil:
			s.Token.Path = path.Clean(s.Token.Path)
		case s.Object != nil:
			for i := range s.Object.Items {
				s.Object.Items[i].Path = path.Clean(s.Object.Items[i].Path)
			}
		}
	}
}

// dropShadowed takes out earlier tokens whose file the later source overwrites,
// so that nobody asks for them.
func dropShadowed(sources []Source, later Source) []Source {
	paths := staticPaths([]Source{later})
	return slices.DeleteFunc(sources, func(s Source) bool {
		return s.Token != nil && !(later.Object != nil && later.Object.Optional) && slices.Contains(paths, s.Token.Path)
	})
}

func desiredSource(pod *corev1.Pod, s *corev1.VolumeProjection, mode fs.FileMode) (Source, *VolumeError) {
	switch {
	case s.ServiceAccountToken != nil:
		return desiredToken(s.ServiceAccountToken, mode)
	case s.ConfigMap != nil:
		ref := ObjectRef{Kind: KindConfigMap, Namespace: pod.Namespace, Name: s.ConfigMap.Name}
		return Source{Object: desiredObject(ref, s.ConfigMap.Items, s.ConfigMap.Optional, mode)}, nil
	case s.Secret != nil:
		ref := ObjectRef{Kind: KindSecret, Namespace: pod.Namespace, Name: s.Secret.Name}
		return Source{Object: desiredObject(ref, s.Secret.Items, s.Secret.Optional, mode)}, nil
	case s.DownwardAPI != nil:
		literals, err := downward(pod, s.DownwardAPI.Items, mode)
		return Source{Literal: literals}, err
	case s.ClusterTrustBundle != nil:
		return Source{}, unsupported("clusterTrustBundle")
	case s.PodCertificate != nil:
		return Source{}, unsupported("podCertificate")
	}
	return Source{}, nil // an empty source projects nothing, as with the kubelet
}

func desiredToken(t *corev1.ServiceAccountTokenProjection, mode fs.FileMode) (Source, *VolumeError) {
	if t.ExpirationSeconds == nil {
		return Source{}, volumeErrorf(ReasonInvalid, "serviceAccountToken %q has no expirationSeconds; the API server sets it", t.Path)
	}
	return Source{Token: &TokenSource{
		Audience: t.Audience, ExpirationSeconds: *t.ExpirationSeconds, Path: t.Path, Mode: mode,
	}}, nil
}

func desiredObject(ref ObjectRef, items []corev1.KeyToPath, optional *bool, mode fs.FileMode) *ObjectSource {
	out := &ObjectSource{Ref: ref, Optional: optional != nil && *optional, Mode: mode}
	for _, item := range items {
		m := mode
		if item.Mode != nil {
			m = fs.FileMode(*item.Mode)
		}
		out.Items = append(out.Items, Item{Key: item.Key, Path: item.Path, Mode: m})
	}
	return out
}

// staticPaths are the paths that the spec alone determines, each once: a later
// source may overwrite an earlier one's.
func staticPaths(sources []Source) []string {
	var paths []string
	for _, s := range sources {
		switch {
		case s.Token != nil:
			paths = append(paths, s.Token.Path)
		case s.Object != nil:
			for _, item := range s.Object.Items {
				paths = append(paths, item.Path)
			}
		}
		for _, l := range s.Literal {
			paths = append(paths, l.Path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// ownerRules refuses pods whose token files the kubelet would give to another
// owner (pkg/volume/projected/projected.go): until those rules are built, a
// file with the wrong owner or mode would be a leak or an outage.
func ownerRules(spec *corev1.PodSpec) *VolumeError {
	sc := spec.SecurityContext
	if sc != nil && sc.FSGroup != nil {
		return unsupported("securityContext.fsGroup")
	}
	if commonUser(spec) != nil {
		return unsupported("securityContext.runAsUser")
	}
	return nil
}

// commonUser is the one runAsUser in effect in every container, or nil
// (pkg/volume/util/util.go).
func commonUser(spec *corev1.PodSpec) *int64 {
	var podUser *int64
	if spec.SecurityContext != nil {
		podUser = spec.SecurityContext.RunAsUser
	}
	contexts := make([]*corev1.SecurityContext, 0, len(spec.Containers))
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		contexts = append(contexts, c.SecurityContext)
	}
	for _, c := range spec.EphemeralContainers {
		contexts = append(contexts, c.SecurityContext)
	}
	var common *int64
	for i, sc := range contexts {
		user := podUser
		if sc != nil && sc.RunAsUser != nil {
			user = sc.RunAsUser
		}
		if user == nil || i > 0 && *user != *common {
			return nil
		}
		common = user
	}
	return common
}
