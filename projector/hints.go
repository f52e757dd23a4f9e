package projector

import (
	"go.uber.org/zap"

	"github.com/token-projector/token-projector/rotation"
)

// verify takes in a hint that a volume's directory may have been changed.
func (s *state) verify(k Key, now rotation.Time) {
	p := s.pods[k.PodUID]
	if p == nil {
		return
	}
	if v := p.volumes.find(k.Volume); v != nil {
		s.verifyVolume(v, now)
	}
}

// hint takes in that something happened to a watched directory.
func (s *state) hint(descriptor int, now rotation.Time) {
	if v := s.watched[descriptor]; v != nil {
		s.verifyVolume(v, now)
		return
	}
	if len(s.stray) >= maxStray {
		clear(s.stray) // of watches that have long been closed
	}
	s.stray[descriptor] = true
}

const maxStray = 4096

// hintsLost takes in that the kernel dropped events: any volume may have changed.
func (s *state) hintsLost(err error, now rotation.Time) {
	if s.lostAt == 0 || now.Mono-s.lostAt > sayCalm { // a pod may make as many as it likes
		s.log.Warn("events on disk were lost; reading every volume", zap.Error(err))
	}
	s.lostAt = max(now.Mono, 1)
	for _, p := range s.pods {
		for _, v := range p.volumes {
			s.verifyVolume(v, now)
		}
	}
}

func (s *state) verifyVolume(v *volume, now rotation.Time) {
	if v.busy { // the job may have looked already
		v.hinted = true
		return
	}
	at := s.server(now).Add(hintDelay)
	if v.verifyAt.After(at) {
		v.verifyAt = at
		s.plan(v, s.server(now))
	}
}

// unwatched reports whether only the sweep notices what is done to the published volume.
func (v *volume) unwatched() bool { return v.watch.blind != nil && v.whole && !v.gone && !v.pod.gone }

// noteWatches takes in, before they are the volume's own, why its watches could not be set; nil: they are.
func (s *state) noteWatches(v *volume, why error) {
	switch {
	case why != nil && !s.blind && v.whole: // one that is not published yet has nothing to watch
		s.blind, s.watchAt = true, s.mono+watchRetry
		s.log.Warn("no watches left; what is altered in volumes without one is found later, and watching is tried again every few seconds. "+
			"Raise fs.inotify.max_user_watches, fs.inotify.max_user_instances, or the limit of open files", append(v.fields(), zap.Error(why))...)
	case why == nil && v.watch.blind != nil:
		v.hinted = true    // what was done between the job's look and its watch gave no hint
		s.watchAt = s.mono // there may be more for the others
	}
}

// retryWatches has the volume read that has waited longest to be watched. If its watches can be set, the next follows at
// once, else after watchRetry: however many there are, one attempt fails in that time.
func (s *state) retryWatches(now rotation.Time) {
	if !s.blind || now.Mono < s.watchAt {
		return
	}
	s.watchAt = now.Mono + watchRetry
	var next *volume
	s.blind = false
	for _, p := range s.pods {
		for _, v := range p.volumes {
			s.blind = s.blind || v.unwatched()
			if v.unwatched() && !v.busy && (next == nil || v.triedAt < next.triedAt) {
				next = v
			}
		}
	}
	if next != nil {
		server := s.server(now)
		next.triedAt, next.verifyAt = now.Mono, server
		s.plan(next, server)
	}
	if !s.blind {
		s.log.Info("all volumes are watched again")
	}
}
