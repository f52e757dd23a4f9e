package projector

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// happen makes one event of a history true.
func (w *world) happen(e happening) {
	p := w.pods[e.Pod]
	switch e.What {
	case "pod":
		if p == nil {
			w.pods[e.Pod] = w.newLivePod(e)
			w.tell(w.pods[e.Pod])
		}
	case "change", "end":
		if p != nil && !p.deleted {
			w.change(p, e)
			w.tell(p)
		}
	case "stopped":
		w.stopped[e.Pod] = true
		if p != nil {
			p.quiet = max(p.quiet, w.at)
		}
		if w.upAt == 0 {
			w.s.stop(uid(e.Pod), w.now)
		}
	case "server", "tokens", "audience", "account", "pod fails", "disk":
		w.begin(e)
	case "alter":
		w.alterFiles(e)
	case "restart", "step", "suspend", "server steps":
		w.disrupt(e)
	default:
		w.news(e)
	}
	w.look = true
	w.wake(e)
}

// wake has the owner turn at once if it hears of the event. Else it sleeps on,
// for a minute at most: see sleep.
func (w *world) wake(e happening) {
	switch e.What {
	case "pod", "change", "end", "stopped", "config", "hear", "list", "hints lost":
		w.wakeAt = w.now.Mono
	case "alter":
		if e.N == 1 {
			w.wakeAt = w.now.Mono
		}
	default:
		if beat := w.turned + (w.now.Mono - w.turned).Truncate(time.Minute) + time.Minute; beat < w.wakeAt {
			w.wakeAt = beat
		}
	}
}

// change is one of a pod's object.
func (w *world) change(p *livePod, e happening) {
	pod := p.pod.DeepCopy()
	p.pod = pod
	switch e.Kind {
	case "":
		pod.Annotations = map[string]string{"changing": fmt.Sprint(w.at)}
	case "terminating":
		pod.DeletionTimestamp = &metav1.Time{Time: w.server().Add(e.For).Truncate(time.Second)}
	case "succeeded":
		pod.Status.Phase, p.gone = corev1.PodSucceeded, true
	case "gone":
		p.gone, p.deleted = true, true
	}
	if p.gone {
		p.quiet = max(p.quiet, w.at)
	}
}

// tell has the daemon hear of a pod at once, or with the next list.
func (w *world) tell(p *livePod) {
	switch {
	case w.upAt > 0:
		return
	case !w.serves() || !w.listed:
		w.relist(time.Second)
		return
	case p.deleted:
		w.s.forget(p.pod.UID, w.now)
	default:
		w.s.apply(Desired(p.pod, SelectAll), w.now)
	}
	w.wanted[p.n] = !p.gone
}

// begin begins a fault, which ends by itself.
func (w *world) begin(e happening) {
	w.faults = slices.DeleteFunc(w.faults, func(f happening) bool { return f.At+f.For < w.at })
	w.faults = append(w.faults, e)
	end := e.At + e.For
	if e.What != "disk" {
		w.troubled = max(w.troubled, end)
		if e.N > 0 {
			w.asked = max(w.asked, end+longestRetryAfter)
			w.askers = max(len(w.tokens()), 1)
		}
	}
	for _, p := range w.pods {
		w.disturb(&e, p)
	}
	if e.What == "server" && w.upAt == 0 {
		w.relist(0)
	}
}

// disturb notes which tokens of a pod a fault disturbs, and until when.
func (w *world) disturb(f *happening, p *livePod) {
	end := f.At + f.For
	if f.What == "server" || f.What == "disk" && (f.Pod < 0 || f.Pod == p.n) {
		p.quiet = max(p.quiet, end)
	}
	for _, t := range p.tokens {
		if f.matches(&t.request) || p.quiet >= end {
			t.quiet = max(t.quiet, end)
		}
	}
}

// alterFiles is somebody who changes what is on disk; the watches tell, or do not.
func (w *world) alterFiles(e happening) {
	p := w.pods[e.Pod]
	if p == nil || len(p.tokens) == 0 {
		return
	}
	t := p.tokens[0]
	files := maps.Clone(w.files[t.key])
	if files == nil {
		return
	}
	found := w.at + w.history.Sweep
	if e.N == 1 {
		found = w.at + maxPace
	}
	switch e.Kind {
	case "token removed":
		delete(files, t.path)
	case "token changed":
		files[t.path] = simFile{data: "x", mode: files[t.path].mode, owner: files[t.path].owner}
	case "all removed":
		files = nil
	case "more":
		files["more"] = simFile{data: "x", mode: 0o644}
	}
	if w.files[t.key] = files; files == nil {
		delete(w.files, t.key)
	}
	for _, other := range p.tokens {
		other.quiet = max(other.quiet, found)
		if e.Kind != "more" && (e.Kind == "all removed" || other == t) {
			other.data, other.life, other.excused = "", rotationNone, true
		}
	}
	p.quiet = max(p.quiet, found)
	if e.N == 1 && w.upAt == 0 {
		w.s.verify(t.key, w.now)
	}
}

// disrupt is what the machine suffers, or the server's clock.
func (w *world) disrupt(e happening) {
	switch e.What {
	case "restart":
		if w.down = max(e.For, time.Millisecond); w.upAt > 0 {
			return
		}
		if w.kill = e.Kind; e.Kind == "now" {
			w.stop()
		}
		return
	case "step":
		w.rig.step(e.For)
		if e.For.Abs() > jump {
			w.late(false)
		}
	case "server steps":
		w.ahead += e.For
		w.unheard, w.stepped = true, w.at
		w.backed = w.backed || e.For < 0
		w.late(true)
	case "suspend":
		if e.N == 1 {
			w.asleep = &e
			return
		}
		w.suspend(e)
	}
	w.moved = w.now.Mono
	for _, t := range w.tokens() {
		t.excused = true
		t.doubted = w.untimely(t)
	}
}

// late notes that what is under way will tell no time, or a wrong one.
func (w *world) late(misleads bool) {
	for i := range w.flights {
		f := &w.flights[i]
		f.stale, f.misleads = true, f.misleads || misleads
	}
}

// fallAsleep begins the suspend that waits for a request to be under way.
func (w *world) fallAsleep() {
	under := slices.ContainsFunc(w.flights, func(f flight) bool { return f.job.mint != nil })
	if e := w.asleep; e != nil && under {
		w.asleep = nil
		w.disrupt(happening{w.at, e.What, e.Kind, e.Pod, e.For, 0})
	}
}

// suspend lets true time pass in which nothing runs here, clocks aside.
func (w *world) suspend(e happening) {
	switch e.Kind {
	case "mono stands": // as Linux does
		w.now.Wall = w.now.Wall.Add(e.For)
	case "mono runs": // the process alone was stopped
		w.pass(e.For)
	case "both stand": // a virtual machine that nobody puts right
		w.ahead += e.For
	}
	if w.at < w.troubled+longestRetryAfter+graceAlive {
		w.troubled += e.For // an outage lasts for as long as nobody asks
	}
	w.at += e.For
	for i := range w.flights {
		f := &w.flights[i]
		f.at = max(f.at, w.at+time.Millisecond)
	}
	w.late(e.Kind == "both stand")
	later := func(quiet time.Duration) time.Duration {
		if quiet > w.at-e.For { // what was to be found by then is found so much later
			quiet += e.For
		}
		return max(quiet, w.at+time.Minute) // the owner first sleeps on
	}
	for _, p := range w.pods {
		p.quiet = later(p.quiet)
		for _, t := range p.tokens {
			t.quiet = later(t.quiet)
		}
	}
	if w.listAt > 0 {
		w.listAt = max(w.listAt, w.at)
	}
}

// news are what the daemon hears of the rest of the world.
func (w *world) news(e happening) {
	if e.What == "config" {
		for _, t := range w.tokens() {
			if t.life == rotationNone {
				t.quiet = max(t.quiet, w.at)
			}
		}
		w.content, w.renewed = map[string][]byte{"a": []byte("a"), "b": []byte("b")}[e.Kind], w.at
	}
	if w.upAt > 0 {
		return
	}
	switch {
	case !w.serves() || !w.listed:
		w.relist(time.Second)
	case e.What == "config":
		for ref := range w.watching {
			w.touchOne(ref)
		}
	case e.What == "hear":
		w.s.hear(w.server().Truncate(time.Second), w.now, w.now)
		w.noteHeard()
	case e.What == "list":
		w.list()
	case e.What == "hints lost":
		w.s.hintsLost(errors.New("overflow"), w.now)
	}
}
