package projector

import (
	"maps"
	"slices"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/rotation"
)

// apply takes in what a pod wants now.
func (s *state) apply(w Wish, now rotation.Time) {
	if !component(string(w.UID)) {
		if !s.unusable[w.UID] {
			s.unusable[w.UID] = true
			s.log.Error("pod has no usable UID; ignoring it", w.fields()...)
		}
		return
	}
	p := s.pods[w.UID]
	if len(w.Volumes) == 0 {
		if p != nil {
			p.wish = w
		}
		s.forget(w.UID, now)
		s.idle[w.UID] = true
		return
	}
	if w.Unselected && (p == nil || p.bare) {
		s.leave(w.UID)
		return
	}
	delete(s.idle, w.UID)
	if p != nil && p.gone {
		p.again = &w
		s.settle(p, now)
		return
	}
	if p == nil {
		p = &pod{}
		s.pods[w.UID] = p
	}
	s.applyTo(p, w, now)
}

// leave has nothing to do with a pod; a directory that a runtime made for it stays.
func (s *state) leave(uid types.UID) {
	if p := s.pods[uid]; p != nil {
		s.blame(&p.fault, nil, &p.wish, "")
		s.removals.Remove(p)
		delete(s.pods, uid)
	}
	s.idle[uid] = true
}

func (s *state) applyTo(p *pod, w Wish, now rotation.Time) {
	w.Volumes = slices.Clone(w.Volumes) // the caller's stay as they are; see share
	p.wish = w
	wanted := make(map[string]bool, len(w.Volumes))
	for i := range w.Volumes {
		v := &w.Volumes[i]
		if !component(v.Name) && v.Err == nil {
			v = &Volume{Name: v.Name, Err: volumeErrorf(ReasonInvalid, "volume name %.300q cannot name a directory", v.Name)}
		}
		wanted[v.Name] = true
		s.applyVolume(p, v, now)
	}
	for _, v := range slices.Clone(p.volumes) { // of which some are forgotten here
		if wanted[v.key.Volume] || v.gone {
			continue
		}
		s.drop(v)
		v.gone = true
		s.abandon(v)
	}
}

// abandon forgets a volume that is no longer ours, unless a job is in flight.
// Its directory stays until the pod's goes.
func (s *state) abandon(v *volume) {
	if !v.busy {
		v.pod.volumes = v.pod.volumes.without(v.key.Volume)
		s.unwatch(v)
	}
}

// unwatch has the watches of a volume closed.
func (s *state) unwatch(v *volume) { s.closing = append(s.closing, s.takeWatches(v)...) }

// takeWatches takes the volume's watches, for a job to close.
func (s *state) takeWatches(v *volume) []watchHandle {
	h := v.watch
	v.watch = watchHandle{}
	if len(h.descriptors()) == 0 {
		return nil
	}
	for _, fd := range h.descriptors() {
		delete(s.watched, fd)
	}
	return []watchHandle{h}
}

func (s *state) applyVolume(p *pod, wish *Volume, now rotation.Time) {
	v := p.volumes.find(wish.Name)
	if v == nil {
		v = &volume{
			key: Key{PodUID: p.wish.UID, Volume: wish.Name}, pod: p,
			seen: now.Mono, since: s.server(now),
		}
		p.volumes = p.volumes.with(v)
	}
	if len(v.tokens) > 0 && wish.Err == nil && !sameTokens(v.tokens, wish) {
		wish = &Volume{Name: wish.Name, Err: volumeErrorf(ReasonInvalid, "its token sources have changed, which those of a pod never do; give the pod a new UID")}
	}
	v.wish, v.gone = wish, false
	s.joinAccount(v, now)
	if len(v.tokens) == 0 {
		v.tokens = newTokens(v.key, wish)
	}
	if wish.Err == nil {
		v.renewSources()
	}
	if len(v.uses) == 0 {
		s.watchObjects(v)
	}
	server := s.server(now)
	s.examine(v, server)
	s.plan(v, server)
}

// renewSources has the tokens follow the wish in what may change: mode and owner.
func (v *volume) renewSources() {
	n := 0
	for _, src := range v.wish.Sources {
		if src.Token != nil {
			v.tokens[n].source = src.Token
			n++
		}
	}
}

// sameTokens reports whether the wish has just these token sources, whatever
// their mode and owner.
func sameTokens(tokens []token, wish *Volume) bool {
	sources := make([]TokenSource, 0, len(tokens))
	for _, src := range wish.Sources {
		if src.Token != nil {
			sources = append(sources, *src.Token)
		}
	}
	return slices.EqualFunc(tokens, sources, func(t token, src TokenSource) bool {
		src.Mode, src.User = t.source.Mode, t.source.User
		return *t.source == src
	})
}

func newTokens(k Key, wish *Volume) []token {
	var tokens []token
	for _, src := range wish.Sources {
		if src.Token != nil {
			seed := rotation.NewSeed(string(k.PodUID), k.Volume, src.Token.Path)
			tokens = append(tokens, token{source: src.Token, seed: seed})
		}
	}
	return tokens
}

// forget takes in that a pod is gone or wants nothing any more.
func (s *state) forget(uid types.UID, now rotation.Time) {
	delete(s.idle, uid)
	delete(s.unusable, uid)
	p := s.pods[uid]
	if p == nil {
		return
	}
	p.again = nil
	if !p.gone {
		p.gone = true
		for _, v := range p.volumes {
			s.drop(v)
			for i := range v.tokens {
				v.tokens[i].fresh = Token{} // nobody will read it
			}
		}
	}
	s.settle(p, now)
}

// settle decides about a pod that is gone, once none of its volumes has a job
// in flight: it begins anew if it is wanted after all, and is removed if the
// pod list is known to be complete, and nothing of it runs.
func (s *state) settle(p *pod, now rotation.Time) {
	if !p.gone || p.removing {
		return
	}
	for _, v := range p.volumes {
		if v.busy {
			return
		}
	}
	switch {
	case p.again != nil:
		s.revive(p, now)
	case s.synced && (s.stopped[p.wish.UID] || !s.awaitStopped):
		at := s.server(now)
		s.removals.Set(p, at, at)
	}
}

// revive begins anew with a pod whose directory may still be there.
func (s *state) revive(p *pod, now rotation.Time) {
	s.removals.Remove(p)
	w := *p.again
	s.blame(&p.fault, nil, &p.wish, "")
	next := &pod{}
	s.pods[w.UID] = next
	s.applyTo(next, w, now)
	for _, v := range p.volumes {
		if heir := next.volumes.find(v.key.Volume); heir != nil {
			s.inherit(heir, v)
		} else {
			s.unwatch(v)
		}
	}
}

// inherit hands the watches of a volume on to the one that takes its place: the
// kernel would not watch one directory twice.
func (s *state) inherit(heir, v *volume) {
	heir.watch, v.watch = v.watch, watchHandle{}
	for _, fd := range heir.watch.descriptors() {
		s.watched[fd] = heir
	}
}

// drop takes a volume out of everything but its pod's removal.
func (s *state) drop(v *volume) {
	s.mints.Remove(v)
	s.disks.Remove(v)
	s.news.Remove(v)
	s.unhold(v)
	s.blame(&v.fault, nil, &v.pod.wish, v.key.Volume)
	s.releaseObjects(v)
	s.leaveAccount(v)
}

// replace takes in a complete list of pods: what is not in it is gone.
func (s *state) replace(wishes []Wish, now rotation.Time) {
	listed := make(map[types.UID]bool, len(wishes))
	for _, w := range wishes {
		listed[w.UID] = true
		s.apply(w, now)
	}
	if !s.synced {
		s.log.Info("pod list complete", zap.Int("pods", len(wishes)))
		s.synced = true
	}
	for _, seen := range []map[types.UID]bool{s.idle, s.unusable} {
		maps.DeleteFunc(seen, func(uid types.UID, _ bool) bool { return !listed[uid] })
	}
	for uid, p := range s.pods {
		if listed[uid] {
			s.settle(p, now)
		} else {
			s.forget(uid, now)
		}
	}
}

// orphans takes in the pods that have a directory in the root, and whether
// something is published there: those that nobody wants are removed after the
// pod list is complete.
func (s *state) orphans(found map[types.UID]bool, now rotation.Time) {
	for uid, published := range found {
		if s.pods[uid] == nil {
			s.pods[uid] = &pod{wish: Wish{UID: uid}, gone: true, bare: !published}
		}
		s.settle(s.pods[uid], now)
	}
}

// unwatchable takes in why the pods cannot be watched, or that they can, which is "", and what can be done about it. An
// advice is news also when something else was wrong before: the server is not reachable yet, say, and then refuses.
func (s *state) unwatchable(why, advice string) {
	switch {
	case why != "" && advice != "" && advice != s.podsHelp:
		s.log.Error("pods cannot be watched; serving those known so far, and trying on", zap.String("error", why), zap.String("advice", advice))
		s.podsHelp = advice
	case why != "" && s.podsErr == "":
		s.log.Warn("pods cannot be watched; serving those known so far", zap.String("error", why))
	case why == "" && s.podsErr != "":
		s.log.Info("pods are watched again")
		s.podsHelp = ""
	}
	s.podsErr = why
}
