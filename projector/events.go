package projector

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/rotation"
)

// Reasons of the events on pods.
const (
	EventFailed    = "ProjectionFailed"    // Warning: a volume is not as wanted; the message says why and what to do
	EventRecovered = "ProjectionRecovered" // Normal: it is in order again
)

const (
	// eventGrace is for how long a failure must last to be told: the Node
	// authorizer and a new namespace's CA bundle lag behind new pods.
	eventGrace = 5 * time.Second
	// eventEvery is how often a failure that lasts is told again, since events
	// expire. The recorder counts them up as one.
	eventEvery = 10 * time.Minute
)

// announce takes in that what is wrong with a volume has changed, or is nothing
// any more.
func (s *state) announce(v *volume, now time.Time) {
	switch {
	case v.err == nil:
		s.news.Remove(v)
		v.tellAt = time.Time{}
		if v.told {
			v.told = false
			s.event(v, corev1.EventTypeNormal, EventRecovered, "is projected in full again")
		}
	case v.told, v.err.permanent(): // another failure, or one that no patience helps
		s.tellAt(v, now)
	default:
		s.tellAt(v, now.Add(eventGrace))
	}
}

func (s *state) tellAt(v *volume, at time.Time) {
	v.tellAt = at
	s.news.Set(v, at, at)
}

// tell sends the events that are due.
func (s *state) tell(now rotation.Time) {
	server := s.server(now)
	for v, ok := s.news.Pop(server); ok; v, ok = s.news.Pop(server) {
		what := v.err.Error()
		if v.whole {
			what += "; what is published stays in place"
		}
		s.event(v, corev1.EventTypeWarning, EventFailed, what)
		v.told = true
		s.tellAt(v, server.Add(eventEvery))
	}
}

// permanent reports whether the volume's own words must change first.
func (e *VolumeError) permanent() bool {
	return e.Reason == ReasonUnsupported || e.Reason == ReasonInvalid
}

func (s *state) event(v *volume, kind, reason, what string) {
	if s.events == nil {
		return
	}
	w := &v.pod.wish
	pod := &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: w.Namespace, Name: w.Name, UID: w.UID}
	s.events.Event(pod, kind, reason, fmt.Sprintf("volume %q: %s", v.key.Volume, what))
}
