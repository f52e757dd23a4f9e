package projector

import (
	"github.com/token-projector/token-projector/rotation"
	"go.uber.org/zap"
)

// verify takes in a hint that a volume's directory may have been changed.
func (s *state) verify(k Key, now rotation.Time) {
	p := s.pods[k.PodUID]
	if p == nil || p.volumes[k.Volume] == nil {
		return
	}
	s.verifyVolume(p.volumes[k.Volume], now)
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
	s.log.Warn("events on disk were lost; reading every volume", zap.Error(err))
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
