package projector

import (
	"io/fs"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/token-projector/token-projector/atomicwriter"
)

// attributes decide the mode and owner of the files of one volume, as the
// kubelet does (pkg/volume/projected/projected.go, pkg/volume/volume_linux.go).
type attributes struct {
	mode        fs.FileMode // defaultMode
	defaultUser *int64
	common      *int64 // the one runAsUser of all containers
	group       *int64 // fsGroup
}

func attributesOf(pod *corev1.Pod, p *corev1.ProjectedVolumeSource) (attributes, *VolumeError) {
	if p.DefaultMode == nil {
		return attributes{}, volumeErrorf(ReasonInvalid, "projected volume has no defaultMode; the API server sets it")
	}
	if err := validMode(*p.DefaultMode); err != nil {
		return attributes{}, err
	}
	a := attributes{mode: fs.FileMode(*p.DefaultMode), defaultUser: p.DefaultUser, common: commonUser(&pod.Spec)}
	if sc := pod.Spec.SecurityContext; sc != nil {
		a.group = sc.FSGroup
	}
	for _, id := range []*int64{a.defaultUser, a.common, a.group} {
		if err := validID(id); err != nil {
			return a, err
		}
	}
	return a, nil
}

func validMode(mode int32) *VolumeError {
	if mode < 0 || mode > 0o777 {
		return volumeErrorf(ReasonInvalid, "%#o is no mode; the API server refuses it", mode)
	}
	return nil
}

func validID(id *int64) *VolumeError {
	if id != nil && len(validation.IsValidUserID(*id)) > 0 { // the same range as a group's
		return volumeErrorf(ReasonInvalid, "%d is no user or group; the API server refuses it", *id)
	}
	return nil
}

// private are the mode and owner of a token or trust bundle. As soon as anybody
// can be named who is to read it, nobody else is, whatever defaultMode says.
func (a attributes) private(user *int64) (fs.FileMode, *int64, *VolumeError) {
	mode, owner := a.mode, a.common
	for _, u := range []*int64{a.defaultUser, user} {
		if u != nil {
			owner = u
		}
	}
	if owner != nil || a.group != nil {
		mode = 0o600
	}
	return a.shared(mode), owner, validID(user)
}

// plain are those of everything else.
func (a attributes) plain(itemMode *int32, user *int64) (fs.FileMode, *int64, *VolumeError) {
	mode, owner := a.mode, a.defaultUser
	if itemMode != nil {
		if err := validMode(*itemMode); err != nil {
			return 0, nil, err
		}
		mode = fs.FileMode(*itemMode)
	}
	if user != nil {
		owner = user
	}
	return a.shared(mode), owner, validID(user)
}

// shared lets the group read.
func (a attributes) shared(mode fs.FileMode) fs.FileMode {
	if a.group != nil {
		mode |= 0o440
	}
	return mode
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

// owner is whom a file of the volume with this user is to belong to: whoever is
// wanted, unless that was refused before.
func (s *state) owner(v *volume, user *int64) atomicwriter.Owner {
	o := s.self
	if user != nil {
		o.UID = int(*user)
	}
	if v.wish.Group != nil {
		o.GID = int(*v.wish.Group)
	}
	return allowed(o, s.self, v.refused)
}

// group is the group of the volume's directories; nil: the daemon's own.
func (s *state) group(v *volume) *int {
	if v.wish.Group == nil {
		return nil
	}
	wanted := atomicwriter.Owner{UID: s.self.UID, GID: int(*v.wish.Group)}
	if allowed(wanted, s.self, v.refused) != wanted {
		return nil
	}
	return &wanted.GID
}

// ungrouped is the mode of a file whose group is not the wanted one: another
// group has no right that not everybody has.
func ungrouped(mode fs.FileMode, wanted int64, o atomicwriter.Owner) fs.FileMode {
	if o.GID == int(wanted) {
		return mode
	}
	return mode &^ (0o070 &^ (mode << 3))
}

// allowed is the owner that comes closest to o and was not refused. A daemon
// that may not chown publishes all the same, and never more readable than asked.
func allowed(o, self atomicwriter.Owner, refused []atomicwriter.Owner) atomicwriter.Owner {
	for o != self && slices.Contains(refused, o) {
		if o.UID == self.UID {
			return self
		}
		o.UID = self.UID
	}
	return o
}
