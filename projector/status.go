package projector

import (
	"cmp"
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/rotation"
)

// Status is everything that the Projector knows, at one instant. It holds no
// token, and shares nothing with the Projector.
type Status struct {
	Time   time.Time `json:"time"`   // the server's, as all times below; the machine's until the server has spoken
	Synced bool      `json:"synced"` // the first complete list of pods has come
	// Pods are those that want volumes and those that have a directory, by
	// namespace, name and UID. A pod that wants nothing and has nothing is not in it.
	Pods []PodStatus `json:"pods"`
}

// PodStatus is one pod.
type PodStatus struct {
	UID            types.UID `json:"uid"`
	Namespace      string    `json:"namespace,omitempty"` // "", like Name and ServiceAccount: only its directory is known
	Name           string    `json:"name,omitempty"`
	ServiceAccount string    `json:"serviceAccount,omitempty"`
	// Gone tells that the pod wants nothing any more and its directory is to be
	// removed: at once or, under Config.AwaitStopped, after Stopped. It is never set
	// before Synced: a directory may have come before its pod.
	Gone    bool           `json:"gone,omitempty"`
	Volumes []VolumeStatus `json:"volumes,omitempty"` // by name; none for a pod of which only the directory is known
}

// VolumeStatus is one volume.
type VolumeStatus struct {
	Name    string        `json:"name"`
	State   string        `json:"state"`             // ready, pending, failed or detached, as the metric's label
	Error   *VolumeError  `json:"error,omitempty"`   // why it is not wholly as wanted; nil: it is, or will be soon
	Dir     string        `json:"dir"`               // where it is or will be published: what a container mounts
	Version string        `json:"version,omitempty"` // subdirectory of Dir with the current files; "": never published
	Tokens  []TokenStatus `json:"tokens"`            // by path; without those whose path another source gives
}

// TokenStatus is one token of a volume. Times are the server's.
type TokenStatus struct {
	Path       string       `json:"path"`                // in the volume
	Audience   string       `json:"audience,omitempty"`  // as wanted; "": the API server's own
	State      string       `json:"state"`               // fresh, stale, expired or pending, as the metric's label
	Issued     time.Time    `json:"issued,omitzero"`     // of the token on disk; zero, like Expires: there is none
	Expires    time.Time    `json:"expires,omitzero"`    // it is good up to, not at, this time
	RefreshDue time.Time    `json:"refreshDue,omitzero"` // when the next one is asked for; zero: at once, or never for a pod that is gone or dead
	Error      *VolumeError `json:"error,omitempty"`     // of the latest attempt; nil: it succeeded, or there was none
}

// Status reports everything that is known now. The error is ErrEnded, or the
// cause of ctx if the owner did not answer before it ended.
func (p *Projector) Status(ctx context.Context) (Status, error) {
	var status Status
	if err := p.query(ctx, func(s *state, now rotation.Time) { status = s.status(now) }); err != nil {
		return Status{}, err
	}
	slices.SortFunc(status.Pods, func(a, b PodStatus) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	for _, pod := range status.Pods {
		slices.SortFunc(pod.Volumes, func(a, b VolumeStatus) int { return cmp.Compare(a.Name, b.Name) })
		for i := range pod.Volumes {
			v := &pod.Volumes[i]
			v.Dir = p.config.Root.Path(Key{PodUID: pod.UID, Volume: v.Name})
			slices.SortFunc(v.Tokens, func(a, b TokenStatus) int { return cmp.Compare(a.Path, b.Path) })
		}
	}
	return status, nil
}

// status copies what the owner knows; order and paths are left to the asker.
func (s *state) status(now rotation.Time) Status {
	server := s.server(now)
	status := Status{Time: server, Synced: s.synced, Pods: make([]PodStatus, 0, len(s.pods))}
	for uid, p := range s.pods {
		w := &p.wish
		if p.again != nil {
			w = p.again
		}
		pod := PodStatus{
			UID: uid, Namespace: w.Namespace, Name: w.Name, ServiceAccount: w.ServiceAccount,
			Gone: s.synced && p.gone && p.again == nil,
		}
		for _, v := range p.volumes {
			if !v.gone {
				pod.Volumes = append(pod.Volumes, v.status(server, s.retired(p)))
			}
		}
		status.Pods = append(status.Pods, pod)
	}
	return status
}

func (v *volume) status(now time.Time, retired bool) VolumeStatus {
	status := VolumeStatus{
		Name: v.key.Volume, State: v.condition(), Error: v.err.clone(), Version: v.version,
		Tokens: make([]TokenStatus, 0, len(v.tokens)),
	}
	for i := range v.tokens {
		t := &v.tokens[i]
		if t.shadowed {
			continue
		}
		token := TokenStatus{
			Path: t.source.Path, Audience: t.source.Audience, State: t.condition(now),
			Issued: t.life.Issued, Expires: t.life.Expires, Error: t.err.clone(),
		}
		if !v.pod.gone && !retired && v.wish.Err == nil {
			token.RefreshDue = t.at()
		}
		status.Tokens = append(status.Tokens, token)
	}
	return status
}

func (e *VolumeError) clone() *VolumeError {
	if e == nil {
		return nil
	}
	c := *e
	return &c
}
