package projector

import (
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/atomicwriter"
)

func desiredVolume(pod *corev1.Pod, v *corev1.Volume) Volume {
	out := Volume{Name: v.Name}
	switch {
	case !component(v.Name):
		out.Err = volumeErrorf(ReasonInvalid, "volume name %q cannot name a directory", v.Name)
		return out
	case pod.Spec.ServiceAccountName == "":
		out.Err = volumeErrorf(ReasonInvalid, "pod has no serviceAccountName; the API server sets it")
		return out
	}
	if n := countFiles(v.Projected); n > atomicwriter.MaxFiles {
		out.Err = volumeErrorf(ReasonInvalid, "volume names %d files and sources; there may be %d", n, atomicwriter.MaxFiles)
		return out
	}
	attrs, err := attributesOf(pod, v.Projected)
	if err != nil {
		out.Err = err
		return out
	}
	for i := range v.Projected.Sources {
		parts, err := attrs.source(pod, &v.Projected.Sources[i])
		if err != nil {
			return Volume{Name: v.Name, Err: err.in(fmt.Sprintf("source %d", i))}
		}
		for _, s := range parts {
			s.Index = i
			out.Sources = append(dropShadowed(out.Sources, s), s)
		}
	}
	if err := atomicwriter.ValidatePaths(staticPaths(out.Sources)); err != nil {
		return Volume{Name: v.Name, Err: volumeErrorf(ReasonInvalid, "%v", err)}
	}
	cleanPaths(out.Sources)
	out.Group = attrs.group
	out.Mountpoints = mountpoints(&pod.Spec, v.Name)
	return out
}

// countFiles counts what a volume names, so that too much is refused before anything is made of it: no token is asked for that
// cannot be published. The API server's only limit is the size of a pod.
func countFiles(p *corev1.ProjectedVolumeSource) int {
	n := 0
	for i := range p.Sources {
		s, items := &p.Sources[i], 0
		switch {
		case s.Secret != nil:
			items = len(s.Secret.Items)
		case s.ConfigMap != nil:
			items = len(s.ConfigMap.Items)
		case s.DownwardAPI != nil:
			items = len(s.DownwardAPI.Items)
		}
		n += max(items, 1)
	}
	return n
}

// cleanPaths makes of valid paths the ones that will be found on disk.
func cleanPaths(sources []Source) {
	for _, s := range sources {
		if s.Token != nil {
			s.Token.Path = path.Clean(s.Token.Path)
		}
		if s.Object != nil {
			for i := range s.Object.Items {
				s.Object.Items[i].Path = path.Clean(s.Object.Items[i].Path)
			}
		}
		for i := range s.Literal {
			s.Literal[i].Path = path.Clean(s.Literal[i].Path)
		}
	}
}

// dropShadowed takes out earlier tokens whose file the later source overwrites,
// so that nobody asks for them.
func dropShadowed(sources []Source, later Source) []Source {
	if o := later.Object; o != nil && o.Optional && o.Ref.Kind != KindClusterTrustBundle {
		return sources // it may project nothing
	}
	paths := staticPaths([]Source{later})
	return slices.DeleteFunc(sources, func(s Source) bool {
		return s.Token != nil && slices.Contains(paths, s.Token.Path)
	})
}

// staticPaths are the paths that the spec alone determines, each once: a later
// source may overwrite an earlier one's.
func staticPaths(sources []Source) []string {
	var paths []string
	for _, s := range sources {
		if s.Token != nil {
			paths = append(paths, s.Token.Path)
		}
		if s.Object != nil {
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

func (a attributes) source(pod *corev1.Pod, s *corev1.VolumeProjection) (parts []Source, err *VolumeError) {
	var one Source
	switch {
	case s.Secret != nil:
		ref := ObjectRef{Kind: KindSecret, Namespace: pod.Namespace, Name: s.Secret.Name}
		one, err = a.object(ref, s.Secret.Items, s.Secret.Optional)
	case s.ConfigMap != nil:
		ref := ObjectRef{Kind: KindConfigMap, Namespace: pod.Namespace, Name: s.ConfigMap.Name}
		one, err = a.object(ref, s.ConfigMap.Items, s.ConfigMap.Optional)
	case s.DownwardAPI != nil:
		return a.downward(pod, s.DownwardAPI.Items)
	case s.ServiceAccountToken != nil:
		one, err = a.token(s.ServiceAccountToken)
	case s.ClusterTrustBundle != nil:
		one, err = a.trustBundle(s.ClusterTrustBundle)
	case s.PodCertificate != nil:
		err = unsupported("podCertificate")
	default:
		return nil, nil // an empty source projects nothing, as with the kubelet
	}
	return []Source{one}, err
}

func (a attributes) token(t *corev1.ServiceAccountTokenProjection) (Source, *VolumeError) {
	if t.ExpirationSeconds == nil {
		return Source{}, volumeErrorf(ReasonInvalid, "serviceAccountToken %q has no expirationSeconds; the API server sets it", t.Path)
	}
	mode, user, err := a.private(t.User)
	return Source{Token: &TokenSource{
		Audience: t.Audience, ExpirationSeconds: *t.ExpirationSeconds, Path: t.Path, Mode: mode, User: user,
	}}, err
}

func (a attributes) object(ref ObjectRef, items []corev1.KeyToPath, optional *bool) (Source, *VolumeError) {
	if ref.Name == "" {
		return Source{}, volumeErrorf(ReasonInvalid, "%s has no name", ref.Kind)
	}
	out := &ObjectSource{Ref: ref, Optional: isTrue(optional)}
	out.Mode, out.User, _ = a.plain(nil, nil)
	for _, item := range items {
		mode, user, err := a.plain(item.Mode, item.User)
		if err != nil {
			return Source{}, err
		}
		out.Items = append(out.Items, Item{Key: item.Key, Path: item.Path, Mode: mode, User: user})
	}
	return Source{Object: out}, nil
}

// trustBundle names one bundle, or all of a signer with certain labels. A nil
// selector matches nothing, an empty one everything
// (pkg/kubelet/clustertrustbundle/clustertrustbundle_manager.go).
func (a attributes) trustBundle(b *corev1.ClusterTrustBundleProjection) (Source, *VolumeError) {
	mode, user, err := a.private(b.User)
	if err != nil {
		return Source{}, err
	}
	ref := ObjectRef{Kind: KindClusterTrustBundle}
	switch {
	case b.Name != nil && *b.Name != "":
		ref.Name = *b.Name
	case b.SignerName == nil:
		return Source{}, volumeErrorf(ReasonInvalid, "clusterTrustBundle %q has neither name nor signerName; give it one", b.Path)
	case b.LabelSelector == nil && isTrue(b.Optional):
		return Source{Literal: []Literal{{Path: b.Path, Mode: mode, User: user}}}, nil
	case b.LabelSelector == nil:
		return Source{}, volumeErrorf(ReasonInvalid, "clusterTrustBundle %q has no labelSelector, which matches no bundle; {} matches all of the signer", b.Path)
	default:
		selector, err := metav1.LabelSelectorAsSelector(b.LabelSelector)
		if err != nil {
			return Source{}, volumeErrorf(ReasonInvalid, "clusterTrustBundle %q: labelSelector: %v", b.Path, err)
		}
		ref.SignerName, ref.LabelSelector = *b.SignerName, selector.String()
	}
	item := Item{Key: TrustBundleKey, Path: b.Path, Mode: mode, User: user}
	return Source{Object: &ObjectSource{Ref: ref, Items: []Item{item}, Optional: isTrue(b.Optional), Mode: mode, User: user}}, nil
}

func isTrue(b *bool) bool { return b != nil && *b }
