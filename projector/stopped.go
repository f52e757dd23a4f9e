package projector

import (
	"maps"

	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/rotation"
)

// maxStopped bounds what is remembered of pods that are not known (any more).
const maxStopped = 4096

// Stopped tells that nothing of the pod runs, or will run again. Under
// Config.AwaitStopped the pod's directory is removed when the pod is stopped and
// gone, in either order; without it, Stopped does nothing. A pod is gone when its
// object is deleted, forgotten or not in the list, or has succeeded or failed.
//
// Call it also for a pod of which nothing was ever started, and again after a
// restart: what Status says is Gone waits for it. Once too often is harmless.
func (p *Projector) Stopped(podUID types.UID) {
	p.send(func(s *state, now rotation.Time) { s.stop(podUID, now) })
}

// stop takes in that nothing of a pod runs. That may come before the pod itself
// does; it is remembered until the directory is removed.
func (s *state) stop(uid types.UID, now rotation.Time) {
	if !s.awaitStopped {
		return
	}
	if len(s.stopped) >= maxStopped {
		maps.DeleteFunc(s.stopped, func(uid types.UID, _ bool) bool { return s.pods[uid] == nil })
	}
	s.stopped[uid] = true
	if p := s.pods[uid]; p != nil {
		s.settle(p, now)
	}
}
