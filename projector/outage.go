package projector

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/token-projector/token-projector/rotation"
)

// probe picks the token to ask the server for while it is out: each time
// another one, soonest expiry first; then one that is not due yet; then those
// that failed before, in their order, but what is due before what is not.
//
// A namespace in which nothing has failed yet goes before all that: if the cause
// lies in one namespace, such as its webhook, the others must not wait for it.
func (s *state) probe(server time.Time) want {
	if w := s.probeElsewhere(server); w.t != nil {
		return w
	}
	if w := s.popDue(server); w.t != nil {
		return w
	}
	if v, ok := s.mints.PopEarly(server); ok {
		if t := s.nextToken(v); t != nil && t.retryAt.IsZero() && !server.Before(t.earliest()) {
			return want{v, t}
		}
		s.plan(v, server)
	}
	return s.takeHeld(server)
}

// takeHeld takes, of the tokens that failed in the outage, the first that is due,
// but for the one that failed last; else the first.
func (s *state) takeHeld(server time.Time) want {
	free := func(w want) bool { // busy: it is being read back, or another token of it is asked for
		return !w.v.busy && !w.t.shadowed && w.v.wish.Err == nil && !s.retired(w.v.pod)
	}
	next := slices.IndexFunc(s.held[:max(len(s.held)-1, 0)], func(w want) bool { return free(w) && !server.Before(w.t.at()) })
	if next < 0 {
		next = slices.IndexFunc(s.held, free)
	}
	if next < 0 {
		return want{}
	}
	w := s.held[next]
	w.t.held = false
	s.held = slices.Delete(s.held, next, next+1)
	return w
}

// probeElsewhere picks the most urgent token that is due in a namespace in
// which nothing has failed in this outage, if there is any.
func (s *state) probeElsewhere(server time.Time) want {
	var skipped []*volume
	defer func() {
		for _, v := range skipped {
			s.plan(v, server)
		}
	}()
	for {
		w := s.popDue(server)
		if w.t == nil || !s.struck[w.v.pod.wish.Namespace] {
			return w
		}
		skipped = append(skipped, w.v)
	}
}

// hold puts a token that has failed in the outage behind all that have not, the
// other tokens of its volume among them.
func (s *state) hold(v *volume, t *token) {
	t.held = true
	s.held = append(s.held, want{v, t})
}

// unhold forgets the tokens of a volume that failed in the outage.
func (s *state) unhold(v *volume) {
	s.held = slices.DeleteFunc(s.held, func(w want) bool {
		if w.v != v {
			return false
		}
		w.t.held = false
		return true
	})
}

const (
	// refusedVolumes and refusedFor are how many volumes must have been refused, and for how long without a success of
	// any, for refusals to be the server's affair: at a pod's start they are usually a cache that lags.
	refusedVolumes = 3
	refusedFor     = 10 * time.Second
	// refusedPatience slows the probes of a server that refuses, from one per 1-2 s, to one in so much of the time that
	// it has lasted: it may be that somebody means it.
	refusedPatience = 100
)

// refusesAll notes that a token of v was refused, and reports whether the server refuses whatever this node asks for, as
// it does when the node's own rights are gone, or a webhook rewrites every token. Then it is probed, as in any outage.
func (s *state) refusesAll(v *volume, now time.Duration) bool {
	if len(s.refused) == 0 {
		s.refused, s.refusedAt = map[*volume]bool{}, now
	}
	if len(s.refused) < refusedVolumes {
		s.refused[v] = true
	}
	return s.refusing || len(s.refused) == refusedVolumes && now-s.refusedAt >= refusedFor
}

// foreseen reports whether a refusal of the token says nothing of the server's outage: it was refused before, as a server
// may do without its storage, while others wait that were not.
func (s *state) foreseen(t *token) bool {
	return s.outage.Open() && !s.refusing && t.failures > 0 &&
		slices.ContainsFunc(s.held, func(w want) bool { return w.t.failures == 0 })
}

// release ends an outage: every token that failed in it is tried at once, and
// one that then fails again while the server answers is on its own.
func (s *state) release(granted bool, now rotation.Time) {
	s.log.Info("API server answers token requests again", zap.Int("tokens", len(s.held)))
	held := s.held
	s.held, s.refusing = nil, false
	clear(s.struck)
	for _, w := range held {
		w.t.held = false
		w.t.accuse(granted)
	}
	for _, w := range held {
		s.plan(w.v, s.server(now))
	}
}

// accuse takes in that an outage has ended in which the token may have failed: another was granted, or at least answered. A
// server that refuses everything after it was out proves nothing against anybody.
func (t *token) accuse(granted bool) {
	t.suspect = t.suspect || t.err != nil && granted
	t.blamed = t.blamed || t.err != nil && !granted
}

// overtake gives up the requests that were sent before one that has just ended an outage: what the server has not answered
// by now it may never answer, and their tokens would wait for the time-out.
func (s *state) overtake(sent time.Duration, granted bool) {
	for _, j := range s.asked {
		if j.sent.Mono < sent {
			j.givenUp = true
			j.v.tokens[j.token].accuse(granted) // like those that are held
			s.overtaken = append(s.overtaken, j)
		}
	}
}
