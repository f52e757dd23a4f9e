package projector

import (
	"net/http"
	"time"

	"github.com/token-projector/token-projector/rotation"
)

// crowd is what is known of a namespace in which requests are refused as too many: how many in a row were put down to a pressed
// server, and since when.
type crowd struct {
	refused int
	since   time.Duration // Mono
}

// maxCrowds is of how many namespaces that is remembered.
const maxCrowds = 1000

// press takes in that a request was refused as too many, and reports whether that is all there is to do: a server which answers
// others has refused it, the node asks more slowly, and the token comes again soon. Where one namespace alone is refused, by
// a webhook, say, each of its tokens backs off alone, and the rest of the node does not wait.
func (s *state) press(j *mintJob, t *token, failed *MintError, now rotation.Time) bool {
	if failed.Code != http.StatusTooManyRequests {
		return false
	}
	if c := s.crowds[j.request.Namespace]; s.outage.Singled(c.since, now.Mono, c.refused) {
		t.suspect = true
		s.pace.Answered(now.Mono)
		return false
	}
	if !s.outage.Pressed(now.Mono, t.failures) {
		return false
	}
	if s.pace.Refused(j.sent.Mono, now.Mono) {
		s.pace.AtLeast(s.need(s.server(now)))
		s.crowd(j.request.Namespace, now.Mono)
	}
	s.backOff(t, failed, s.server(now))
	s.tellPace(now)
	return true
}

// crowd counts a refusal in a namespace.
func (s *state) crowd(namespace string, now time.Duration) {
	c, ok := s.crowds[namespace]
	if !ok {
		c.since = now
	}
	if len(s.crowds) >= maxCrowds {
		clear(s.crowds) // of namespaces that are long gone
	}
	c.refused++
	s.crowds[namespace] = c
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
