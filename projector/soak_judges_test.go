package projector

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// judgeSwap reads the volume at a swap, as a reader does, before and after it.
func (w *world) judgeSwap(p *publishJob, publish func()) {
	before, made := maps.Clone(w.files[p.key]), w.made
	quiet := w.at
	for _, pod := range w.pods {
		if pod.pod.UID == p.key.PodUID {
			quiet = pod.quiet
		}
	}
	publish()
	after := w.files[p.key]
	if w.made == made && !maps.Equal(before, after) {
		w.fail("files of %v have changed without a version", p.key)
	}
	for path, old := range before {
		now, ok := after[path]
		switch {
		case path == "more", !ok && old.data == "x": // somebody else's
		case !ok:
			w.fail("a swap removes %v %s", p.key, path)
		case path == "ca.crt" && old.data != now.data && now.data != string(w.content) && max(quiet, w.renewed)+graceAlive < w.at:
			w.fail("a swap damages %v %s", p.key, path)
		}
	}
	for path, f := range after {
		if t := w.token(p.key, path); t != nil {
			w.judgeToken(t, f.data, before[path].data)
		}
	}
}

// judgeToken judges a token that a reader finds after a swap.
func (w *world) judgeToken(t *liveToken, data, old string) {
	if data == old {
		return
	}
	made, ok := w.minted[data]
	switch {
	case !ok:
		w.fail("%v %s is no token that was made", t.key, t.path)
	case made.request != t.request:
		w.fail("%v %s is a token for something else", t.key, t.path)
	case w.unheard || w.behind() >= slack: // nothing here can know how old it is
	case made.life.Issued.Before(t.life.Issued) && !w.backed:
		w.fail("%v %s is older than before", t.key, t.path)
	case made.life.Expired(w.server()) && t.quiet+graceLost < w.at:
		w.fail("%v %s has expired before it came", t.key, t.path)
	}
	late := t.life != rotationNone && w.server().Add(slack).After(t.life.Limit())
	t.data, t.wide = data, t.life == rotationNone || w.untimely(t) || late
	t.life, t.adopted, t.doubted = made.life, time.Time{}, false
}

// judgeRemoval: nothing of a live pod is removed.
func (w *world) judgeRemoval(j job, remove func()) {
	before := slices.Collect(maps.Keys(w.files))
	remove()
	for _, k := range before {
		_, there := w.files[k]
		for _, p := range w.pods {
			if !there && p.pod.UID == k.PodUID && !p.gone {
				w.fail("a live pod's %v is removed", k)
			}
		}
	}
}

// noteRead notes that the daemon has found tokens on disk.
func (w *world) noteRead(j job) {
	if j.read == nil || w.rig.broken != nil {
		return
	}
	for _, p := range w.pods {
		for _, t := range p.tokens {
			if t.key == j.read.key && t.life != rotationNone {
				t.adopted = w.server().Add(-max(w.behind(), 0)) // as the daemon sees it
			}
		}
	}
}

// check judges the state after a turn.
func (w *world) check() {
	w.look = false
	for _, t := range w.tokens() {
		if t.data != "" && w.files[t.key][t.path].data != t.data && w.wanted[t.pod.n] {
			w.fail("a token on disk is damaged: %v %s", t.key, t.path)
		}
	}
	if wrong := w.wander.wrong(); wrong != "" {
		w.fail("%s", wrong)
	}
	if wrong := w.wrongSize(); wrong != "" {
		w.fail("%s", wrong)
	}
	for _, p := range w.s.pods {
		for _, v := range p.volumes {
			if slices.ContainsFunc(v.tokens, func(t token) bool { return !t.fresh.empty() && t.sum == sha256.Sum256(t.fresh.reveal()) }) {
				w.fail("a token that is published stays in memory: %v", v.key)
			}
		}
	}
	if w.secretsLogged() {
		w.fail("a token is logged")
	}
}

// secretsLogged reports whether the log holds a token.
func (w *world) secretsLogged() bool {
	found := bytes.Contains(w.logged.Bytes(), []byte(tokenHeader))
	w.logged.Reset()
	return found
}

// wrongSize: nothing grows but with what there is now.
func (w *world) wrongSize() string {
	s := w.s
	volumes, tokens := 0, 0
	for _, p := range s.pods {
		volumes += len(p.volumes)
		for _, v := range p.volumes {
			tokens += len(v.tokens)
		}
	}
	idle := len(w.pods)
	if w.listAt > 0 { // the end of some has not been heard of yet
		idle = len(w.history.Events)
	}
	sizes := map[string][2]int{
		"pods": {len(s.pods), len(w.history.Events)}, "idle": {len(s.idle), idle}, "stopped": {len(s.stopped), len(w.stopped)},
		"objects": {len(s.objects), 1}, "mints": {s.mints.Len(), volumes}, "disks": {s.disks.Len(), volumes},
		"news": {s.news.Len(), volumes}, "removals": {s.removals.Len(), len(s.pods)}, "held": {len(s.held), tokens},
		"struck": {len(s.struck), 2}, "stray": {len(s.stray), 0}, "watched": {len(s.watched), 0}, "closing": {len(s.closing), 0},
	}
	var wrong []string
	for what, is := range sizes {
		if is[0] > is[1] {
			wrong = append(wrong, fmt.Sprintf("%d %s, of at most %d", is[0], what, is[1]))
		}
	}
	slices.Sort(wrong)
	return strings.Join(wrong, "; ")
}

// finishHistory ends all faults: soon all that is wanted is there, and nothing else.
func (w *world) finishHistory() {
	if w.wrong != "" {
		return
	}
	w.faults, w.kill = nil, ""
	if w.upAt > 0 {
		w.until(w.upAt)
	}
	for n, p := range w.pods {
		if p.gone {
			w.happen(happening{What: "stopped", Pod: n})
		}
	}
	w.news(happening{What: "hear"})
	w.news(happening{What: "list"})
	w.step()
	w.until(w.at + graceLost + w.history.Sweep)
	w.judgeEnd()
}

func (w *world) judgeEnd() {
	if len(w.flights) > 0 && w.wrong == "" {
		w.until(w.at + time.Second)
	}
	for _, p := range w.pods {
		if p.gone || p.pod.DeletionTimestamp != nil {
			continue
		}
		for _, t := range p.tokens {
			v := w.s.pods[t.key.PodUID].volumes.find(t.key.Volume)
			if v == nil || v.condition() != "ready" && (w.content != nil || v.err == nil || v.err.Reason != ReasonMissing) {
				w.fail("%v is not ready at the end: %+v", t.key, v)
			}
			if len(w.stale[t.key]) > 1 {
				w.fail("%v has old versions at the end: %v", t.key, w.stale[t.key])
			}
			if f, ok := w.files[t.key]["ca.crt"]; ok && w.content != nil && f.data != string(w.content) {
				w.fail("%v has an old configMap at the end", t.key)
			}
		}
	}
	if len(w.s.held)+len(w.s.asked) > 0 {
		w.fail("%d held, %d requests in flight at the end", len(w.s.held), len(w.s.asked))
	}
}
