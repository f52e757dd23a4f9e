package projector

import (
	"time"

	"github.com/token-projector/token-projector/rotation"
)

// press takes in that a server which answers has refused a request as too many: the node asks more slowly, and the token
// comes again soon.
func (s *state) press(j *mintJob, t *token, failed *MintError, now rotation.Time) {
	if s.pace.Refused(j.sent.Mono, now.Mono) {
		s.pace.AtLeast(s.need(s.server(now)))
	}
	s.backOff(t, failed, s.server(now))
	s.tellPace(now)
}

// need is how many requests a second renew every token on disk before it expires, though every other request is refused: two in
// what remains of its life, but not in less than a minute. It looks at all tokens, which a refusal is rare enough for.
func (s *state) need(now time.Time) (perSecond float64) {
	for _, p := range s.pods {
		for _, v := range p.volumes {
			if v.gone || p.gone || v.wish.Err != nil || s.retired(p) {
				continue
			}
			for i := range v.tokens {
				if t := &v.tokens[i]; !t.shadowed && !t.life.Expires.IsZero() {
					perSecond += 2 / max(t.life.Expires.Sub(now), time.Minute).Seconds()
				}
			}
		}
	}
	return perSecond
}

// sayCalm is how long a server has refused nothing as too many before that is said: it may be pressed each minute.
const sayCalm = 10 * time.Minute

// tellPace says that the server is pressed, or is so no longer.
func (s *state) tellPace(now rotation.Time) {
	switch {
	case s.pace.Pressed():
		if s.slowed == 0 {
			s.log.Warn("API server refuses part of the token requests as too many (429); asking more slowly")
		}
		s.slowed = max(now.Mono, 1)
	case s.slowed > 0 && now.Mono-s.slowed > sayCalm:
		s.log.Info("API server refuses no token requests any more as too many")
		s.slowed = 0
	}
}
