package projector

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
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
	// Born is when the pod came to the node. It tells which of the tokens that a restart finds are the pod's first, of
	// which the refresh is spread widely, so that the restart moves none. Zero: unknown.
	Born time.Time
	// Retire is when the pod's tokens die and their rotation ends: 60 s past
	// its deletionTimestamp, the leeway of the API server's validator
	// (pkg/serviceaccount/claims.go). Zero: the pod is not terminating.
	Retire time.Time
	// Unselected pods are not taken on. One that is ours already, or has
	// something published from before, stays ours: its containers may be using it.
	Unselected bool
	Volumes    []Volume
}

// Volume is one wanted volume. Its sources are immutable for the life of a
// pod; what downwardAPI sources say, modes, owners and Err are not.
type Volume struct {
	Name    string
	Sources []Source // of which nothing counts if there is an Err
	// Group is the pod's fsGroup: of the volume's directories, which then are
	// setgid, and of all its files. Nil: the daemon's own.
	Group *int64
	// Mountpoints are directories that it needs beside its files, because
	// containers mount other volumes there. Clean, relative.
	Mountpoints []string
	// Err says why the volume cannot be projected at all; nil if it can.
	Err *VolumeError
}

// Source is one source of a projected volume, or a part of one. Exactly one of
// Token, Object and Literal is set.
type Source struct {
	// Index is the source's in the pod's spec, which tells it from the others
	// also when it falls into other parts after a change. From 0, ascending.
	Index   int
	Token   *TokenSource
	Object  *ObjectSource // configMap, secret, clusterTrustBundle, or what a downwardAPI source asks of the node
	Literal []Literal     // downwardAPI, evaluated
}

// TokenSource is a serviceAccountToken source.
type TokenSource struct {
	Audience          string // "": the API server's own
	ExpirationSeconds int64
	Path              string
	Mode              fs.FileMode
	User              *int64 // owner of the file; nil: the daemon's own
}

// ObjectSource is a source whose bytes come from an object.
type ObjectSource struct {
	Ref      ObjectRef
	Items    []Item // nil: every key, as a path of its own
	Optional bool   // an absent object, or key, is no error
	Mode     fs.FileMode
	User     *int64 // as Mode, of keys that no item names; nil: the daemon's own
}

// Item projects one key of an object to a path.
type Item struct {
	Key, Path string
	Mode      fs.FileMode
	User      *int64 // nil: the daemon's own
	// Divisor, of a node's allocatable resource, is the unit it is given in,
	// rounded up. Nil: the key's bytes as they are.
	Divisor *resource.Quantity
}

// Literal is a file whose bytes the pod itself determines.
type Literal struct {
	Path string
	Data []byte
	Mode fs.FileMode
	User *int64 // nil: the daemon's own
}

// ObjectRef names an object that volumes are made of, or, for trust bundles,
// all those of a signer that have certain labels.
type ObjectRef struct {
	Kind      string // one of the kinds below
	Namespace string // "": of no namespace
	Name      string // "": by SignerName and LabelSelector
	// SignerName and LabelSelector choose ClusterTrustBundles if there is no
	// Name; the selector "" matches every bundle of the signer.
	SignerName, LabelSelector string
}

// Kinds of objects, and the keys of what Touch is given for them.
const (
	KindConfigMap          = "ConfigMap"          // the keys of data and binaryData
	KindSecret             = "Secret"             // the keys of data
	KindClusterTrustBundle = "ClusterTrustBundle" // TrustBundleKey alone; see NormalizeTrustBundles
	KindNode               = "Node"               // of status.allocatable: cpu, memory, ephemeral-storage
)

// TrustBundleKey is the one key of trust bundles.
const TrustBundleKey = "trustBundle"

// String names the object in messages.
func (r ObjectRef) String() string {
	switch {
	case r.Namespace != "":
		return r.Kind + " " + r.Namespace + "/" + r.Name
	case r.Name != "":
		return r.Kind + " " + r.Name
	}
	return fmt.Sprintf("%s of signer %s with labels %q", r.Kind, r.SignerName, r.LabelSelector)
}

// tokenLeeway is for how long past deletionTimestamp the API server still
// accepts a token (pkg/serviceaccount/claims.go).
const tokenLeeway = time.Minute

// Desired computes what a pod wants. It is pure. Mirror pods, and pods that
// have succeeded or failed, want nothing. Projected volumes without a token
// source are not ours, whatever the selection.
func Desired(pod *corev1.Pod, which Selection) Wish {
	w := Wish{
		UID: pod.UID, Namespace: pod.Namespace, Name: pod.Name,
		ServiceAccount: pod.Spec.ServiceAccountName, Born: born(pod),
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
		if !hasCredential(v) || which == SelectUnmounted && mounted[v.Name] {
			continue
		}
		w.Volumes = append(w.Volumes, desiredVolume(pod, v))
	}
	return w
}

// born is when the pod was bound to its node, before which it may have been pending for long; or, if its status does not say,
// when it was created.
func born(pod *corev1.Pod) time.Time {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodScheduled && c.Status == corev1.ConditionTrue {
			return later(c.LastTransitionTime.Time, pod.CreationTimestamp.Time)
		}
	}
	return pod.CreationTimestamp.Time
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

// hasCredential reports whether a volume is ours to project, or to refuse: a
// podCertificate is a credential of the pod as well.
func hasCredential(v *corev1.Volume) bool {
	return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
		return s.ServiceAccountToken != nil || s.PodCertificate != nil
	})
}

// component reports whether s can be the name of a directory entry. The API
// server sees to it for pods' UIDs and volumes; a caller of Apply might not.
func component(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 255 && !strings.ContainsAny(s, "/\x00")
}
