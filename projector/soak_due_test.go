package projector

import (
	"slices"
	"time"

	"github.com/token-projector/token-projector/rotation"
)

// What a token may wait for after the last thing that disturbed it has ended.
const (
	// A request that was sent just before the end hangs for 10 s, the next probe
	// goes out 2 s later, and then the rest is asked for, a few at once.
	graceAlive = 15 * time.Second
	// A token that lives is tried again within a quarter of what is left of its
	// life, which is soon enough; one that has expired, or never was, within the
	// longest backoff.
	graceLost = 2*time.Minute + graceAlive
	// While a Retry-After lasts, of whichever request, nothing is asked for; and as
	// long as nothing else has succeeded, each token that fails may bring another, of
	// which every second goes to what is due.
	longestRetryAfter = time.Minute + time.Second
	// No token need be so late against its limit, if nothing disturbs it.
	graceLate = 30 * time.Second
	// The daemon has its list, and has read the disk back.
	toStart = 3 * time.Second
	// The estimate of the server's time is off by less.
	slack = 4 * time.Second
)

var rotationNone rotation.Lifetime

// noteHeard notes that the daemon has heard the server's time.
func (w *world) noteHeard() {
	if w.unheard || w.behind() > slack {
		for _, t := range w.tokens() {
			t.quiet = max(t.quiet, w.at)
		}
	}
	w.unheard = false
	w.told = reading{w.server(), w.now.Mono, w.now.Wall}
}

// behind is by how much the best estimate that the local clocks allow is behind
// the server's time: both may have stood still. Negative: one was put ahead.
func (w *world) behind() time.Duration {
	if w.told.server.IsZero() {
		return 0
	}
	return w.server().Sub(w.told.server) - max(w.now.Mono-w.told.mono, w.now.Wall.Sub(w.told.wall))
}

// trueTime is when the server's clock says so.
func (w *world) trueTime(server time.Time) time.Duration { return w.at + server.Sub(w.server()) }

// judge finds what should have been done by now, and is not; else it returns
// when to look again: at the last nanosecond of every token on disk, or when
// something has been quiet for long enough.
func (w *world) judge() (next time.Duration) {
	next = w.at + historyLength
	if w.unheard || w.behind() > slack {
		return next // nothing here can know
	}
	by := func(must time.Duration, what string, k Key, path string) {
		if must <= w.at {
			w.fail("%s: %v %s", what, k, path)
		}
		next = min(next, must)
	}
	for _, p := range w.pods {
		if p.gone {
			if key, ok := w.remains(p); ok && (w.stopped[p.n] || !w.history.AwaitStopped) {
				by(p.quiet+graceLost, "a gone pod's files stay", key, "")
			}
			continue
		}
		for _, t := range p.tokens {
			must, what := w.due(t)
			if d := p.pod.DeletionTimestamp; d == nil || must < w.trueTime(d.Add(tokenLeeway)) {
				by(must, what, t.key, t.path)
			}
		}
	}
	return next
}

// due is by when the token must have been replaced, and what it is if not.
func (w *world) due(t *liveToken) (must time.Duration, what string) {
	alive := graceAlive
	if w.asked > t.quiet {
		alive += longestRetryAfter * time.Duration(2*w.askers)
	}
	lost := t.quiet + alive - graceAlive + graceLost
	if t.life == rotationNone {
		if w.content == nil && t.request.ExpirationSeconds == 3607 {
			return w.at + historyLength, "" // its volume waits for its configMap
		}
		for _, other := range t.pod.tokens { // and for its other token
			lost = max(lost, other.quiet+alive-graceAlive+graceLost)
		}
		return lost, "a token is missing"
	}
	if t.life.Issued.After(w.server().Add(tokenLeeway + slack)) {
		return lost, "a token that is not valid yet stays"
	}
	last := w.trueTime(t.life.Expires) - 1
	if t.quiet+alive >= last { // it could not be saved
		return max(last, lost), "an expired token stays"
	}
	late := max(w.trueTime(t.life.Limit())+alive+graceLate, lost)
	if late < last {
		return late, "a token is refreshed late"
	}
	return last, "a token expires"
}

// remains finds something of a pod on disk.
func (w *world) remains(p *livePod) (Key, bool) {
	for k := range w.files {
		if k.PodUID == p.pod.UID {
			return k, true
		}
	}
	if p.deleted && !w.wanted[p.n] {
		delete(w.pods, p.n)
	}
	return Key{}, false
}

// judgeRequest: nothing is asked for that is not due, unless something explains it.
func (w *world) judgeRequest(m *mintJob) {
	t := w.token(m.v.key, m.v.tokens[m.token].source.Path)
	if t == nil {
		return // the pod is gone, and the daemon has not heard it yet
	}
	server := w.server()
	ahead := w.behind() < -slack/2
	switch {
	case t.life == rotationNone, w.untimely(t):
	case !server.Add(slack).Before(w.earliest(t)):
	case w.at < w.troubled+longestRetryAfter+graceAlive, w.answered < w.troubled: // a probe, or what an outage has left
	case w.unheard, w.disordered():
	case ahead && len(w.flights) == 0, ahead && !slices.ContainsFunc(w.flights, func(f flight) bool { return f.job.mint != nil && f.job.mint.sent.Mono > w.moved }):
	default:
		w.fail("a needless request: %v %s of age %v, limit %v", t.key, t.path, server.Sub(t.life.Issued), t.life.Limit().Sub(t.life.Issued))
	}
}

// untimely reports whether the token on disk was issued in the server's future, now or once: the daemon drops it.
func (w *world) untimely(t *liveToken) bool {
	return t.doubted || t.life.Issued.After(w.server().Add(tokenLeeway-slack))
}

// disordered reports whether answers from before and after a step of the server's
// clock may still come in any order.
func (w *world) disordered() bool { return w.stepped > 0 && w.at < w.stepped+graceAlive }

// earliest is when the token on disk may be refreshed at the earliest.
func (w *world) earliest(t *liveToken) time.Time {
	seed := rotation.NewSeed(string(t.key.PodUID), t.key.Volume, t.path)
	due := t.life.Due(seed, t.wide)
	if !t.adopted.IsZero() {
		for _, now := range []time.Time{t.adopted.Add(-slack), t.adopted.Add(slack)} {
			if other := t.life.DueAdopted(seed, t.life.First(t.pod.pod.CreationTimestamp.Time), now); other.Before(due) || now.Before(t.adopted) {
				due = other
			}
		}
	}
	return later(due, t.life.Issued.Add(t.life.Limit().Sub(t.life.Issued)/32))
}

// judgeAnswer: no token is minted twice within a tenth of its life, or a fortieth of a first or a late one's, unless
// something explains it: a restart, a token that was lost on disk, a clock that moved.
func (w *world) judgeAnswer(f flight) {
	m := f.job.mint
	t := w.token(m.v.key, m.v.tokens[m.token].source.Path)
	made, good := w.minted[string(f.minted.Token.reveal())]
	if !good || t == nil || made.life.Expired(w.server()) || made.life.Issued.After(w.server().Add(tokenLeeway-slack)) {
		return
	}
	ttl := min(time.Duration(t.request.ExpirationSeconds)*time.Second, w.history.Longest, rotation.MaxAge)
	least := ttl / 10
	if t.wide {
		least = ttl / 40
	}
	if t.last > 0 && !t.excused && !w.disordered() && w.at-t.last < least-slack {
		w.fail("minted again %v later: %v %s", w.at-t.last, t.key, t.path)
	}
	if f.misleads { // it may be old, and stays for a tenth of its life all the same
		t.quiet = max(t.quiet, w.at+ttl/10)
	}
	t.last, t.excused = w.at, f.stale || w.server().Sub(made.life.Issued) > time.Minute // it was old when it came
}

// judgeOutage: what fails alone, while others are granted, is taken for an outage once, and
// not again before it has succeeded, lest it delay all others.
func (w *world) judgeOutage(f flight, opens bool) {
	t := w.token(f.job.mint.v.key, f.job.mint.v.tokens[f.job.mint.token].source.Path)
	switch {
	case t == nil:
	case f.err == nil, f.fault == "server", f.fault == "tokens":
		t.opened = 0
	case opens && t.opened > 0 && w.granted > t.opened:
		w.fail("a token alone opens an outage again: %v %s", t.key, t.path)
	case opens:
		t.opened = w.at
	}
}
