package projector

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// start starts the daemon on what is on disk.
func (w *world) start() {
	w.upAt = 0
	w.s = newState(&w.rig.config)
	clear(w.wanted)
	w.watching = map[ObjectRef]bool{}
	found := map[types.UID]bool{}
	for k := range w.files {
		found[k.PodUID] = true
	}
	w.s.orphans(found, w.now)
	w.listed = false
	w.relist(10 * time.Millisecond)
	w.wakeAt = w.now.Mono
}

// relist has the complete list of pods come when the server can give it.
func (w *world) relist(after time.Duration) {
	w.listAt = max(w.listAt, w.at+after)
	for _, f := range w.faults {
		if f.What == "server" {
			w.listAt = max(w.listAt, f.At+f.For+time.Second)
		}
	}
}

// list has the daemon hear everything that a new list and new watches tell.
func (w *world) list() {
	w.listAt = 0
	if w.upAt > 0 {
		return
	}
	w.s.hear(w.server().Truncate(time.Second), w.now, w.now)
	w.noteHeard()
	var wishes []Wish
	for n := range w.wanted {
		w.wanted[n] = false
	}
	for n, p := range w.pods {
		wish := Desired(p.pod, SelectAll)
		if !p.deleted {
			wishes = append(wishes, wish)
		}
		w.wanted[n] = !p.gone
	}
	slices.SortFunc(wishes, func(a, b Wish) int { return cmp.Compare(a.UID, b.UID) })
	w.s.replace(wishes, w.now)
	w.listed = true
	for n := range w.stopped {
		w.s.stop(uid(n), w.now)
	}
	for ref := range w.watching {
		w.touchOne(ref)
	}
}

// stop ends the daemon as SIGKILL does.
func (w *world) stop() {
	w.flights, w.flying, w.listAt = nil, nil, 0
	w.kill = ""
	w.upAt = w.at + w.down
	for _, t := range w.tokens() {
		t.excused, t.opened = true, 0
		t.quiet = max(t.quiet, w.upAt+toStart)
	}
	for _, p := range w.pods {
		p.quiet = max(p.quiet, w.upAt+toStart)
	}
}

// tellObjects answers the watches that have begun.
func (w *world) tellObjects() {
	for ref := range w.watching {
		if o := w.s.objects[ref]; o != nil && !o.known && w.serves() {
			w.touchOne(ref)
			w.wakeAt = w.now.Mono
		}
	}
}

func (w *world) touchOne(ref ObjectRef) {
	if w.content == nil {
		w.s.touch(ref, nil, w.now)
		return
	}
	w.s.touch(ref, map[string][]byte{"ca.crt": w.content}, w.now)
}

// serves reports whether lists and watches work.
func (w *world) serves() bool {
	return !slices.ContainsFunc(w.faults, func(f happening) bool { return f.What == "server" && w.at < f.At+f.For })
}

// take puts a job under way.
func (w *world) take(j job) {
	f := flight{job: j, at: w.at + time.Millisecond}
	if j.mint != nil {
		w.judgeRequest(j.mint)
		q := j.mint.request
		f.at = w.at + 20*time.Millisecond + time.Duration(number(q, w.at)%100)*time.Millisecond
		fault := w.fault(q)
		f.fault = fault.What
		switch fault.Kind {
		case "hang":
			f.at, f.err = w.at+10*time.Second, &MintError{Message: "no answer"}
		case "refused":
			f.at, f.err = w.at+time.Millisecond, &MintError{Message: "connection refused"}
		default:
			f.date = w.server().Truncate(time.Second)
			f.minted, f.err = w.answerTo(q, fault)
		}
	} else if fault := w.diskFault(j); fault.Kind == "slow" {
		f.at = min(fault.At+fault.For, w.at+time.Minute)
	}
	w.flights = append(w.flights, f)
}

// giveUp has the requests end that the daemon has cancelled.
func (w *world) giveUp() {
	for _, j := range w.s.overtaken {
		for i := range w.flights {
			if f := &w.flights[i]; f.job.mint == j {
				f.at, f.date, f.minted, f.err = w.at, time.Time{}, Minted{}, &MintError{Message: "cancelled"}
			}
		}
	}
	w.s.overtaken = nil
}

// land has the owner take in the result of a job.
func (w *world) land(f flight) {
	w.rig.broken, w.rig.lied = nil, nil
	switch m := f.job.mint; {
	case m != nil:
		w.hearAnswer(f)
		if f.err == nil || !asMintError(f.err).ofServer() {
			w.answered = w.at
		}
		if f.err == nil {
			w.granted = w.at
		}
		w.judgeAnswer(f)
		w.answer = func(Request) (Minted, error) { return f.minted, f.err }
		open := w.s.outage.Open()
		w.finish(f.job)
		w.judgeOutage(f, !open && w.s.outage.Open())
		if f.err == nil && w.kill == "answered" {
			w.stop()
		}
		return
	}
	switch w.diskFault(f.job).Kind {
	case "fails":
		w.rig.broken = errors.New("input/output error")
	case "lies":
		w.rig.lied = errors.New("input/output error")
	}
	p := f.job.publish
	switch {
	case p != nil && w.kill == "unpublished":
		w.stop()
		return
	case p != nil:
		w.judgeSwap(p, func() { w.finish(f.job) })
		if w.kill == "published" && w.rig.broken == nil {
			w.stop()
		}
	case isRemoval(f.job):
		w.judgeRemoval(f.job, func() { w.finish(f.job) })
	default:
		w.finish(f.job)
		w.noteRead(f.job)
	}
}

// hearAnswer has the daemon hear the Date of an answer.
func (w *world) hearAnswer(f flight) {
	if f.date.IsZero() {
		return
	}
	w.s.hear(f.date, f.job.mint.sent, w.now)
	switch {
	case !f.stale:
		w.noteHeard()
	case f.misleads:
		w.unheard = true
	case !w.unheard && !w.s.clock.Doubtful(w.now) && w.s.clock.Now(w.now).Sub(w.server()).Abs() < slack: // it was good enough
		w.told = reading{w.server(), w.now.Mono, w.now.Wall}
	}
}

func (w *world) tokens() []*liveToken {
	var tokens []*liveToken
	for _, n := range slices.Sorted(maps.Keys(w.pods)) {
		tokens = append(tokens, w.pods[n].tokens...)
	}
	return tokens
}

func (w *world) token(k Key, path string) *liveToken {
	for _, p := range w.pods {
		if p.pod.UID != k.PodUID {
			continue
		}
		for _, t := range p.tokens {
			if t.key == k && t.path == path {
				return t
			}
		}
	}
	return nil
}

// shape is the pod of a happening.
func shape(e happening) *corev1.Pod {
	pod := lonePod(e.Pod, e.N)
	switch e.Kind {
	case "access":
		pod = testPod(e.Pod, "", 0)
		changing := namespaceSource()
		changing.DownwardAPI.Items[0] = corev1.DownwardAPIVolumeFile{Path: "changing",
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.annotations['changing']"}}
		pod.Spec.Volumes[0].Projected.Sources = append(pod.Spec.Volumes[0].Projected.Sources, changing)
	case "two":
		pod.Spec.Volumes[0].Projected.Sources = append(pod.Spec.Volumes[0].Projected.Sources, tokenSource("robot", 7200, "b"))
	case "elsewhere":
		pod.Namespace, pod.Spec.ServiceAccountName = "elsewhere", "robot"
	}
	return pod
}

// newLivePod is a pod that has just come.
func (w *world) newLivePod(e happening) *livePod {
	p := &livePod{n: e.Pod, pod: shape(e), comes: w.at, quiet: w.at}
	p.pod.CreationTimestamp = metav1.NewTime(w.server())
	wish := Desired(p.pod, SelectAll)
	for _, v := range wish.Volumes {
		for _, src := range v.Sources {
			if src.Token == nil {
				continue
			}
			t := &liveToken{pod: p, key: Key{wish.UID, v.Name}, path: src.Token.Path, quiet: w.at, wide: true, request: Request{
				Namespace: wish.Namespace, ServiceAccount: wish.ServiceAccount, PodName: wish.Name, PodUID: wish.UID,
				Audience: src.Token.Audience, ExpirationSeconds: src.Token.ExpirationSeconds,
			}}
			p.tokens = append(p.tokens, t)
			if w.upAt > 0 {
				t.quiet = w.upAt + toStart
			}
		}
	}
	for i := range w.faults {
		w.disturb(&w.faults[i], p)
	}
	return p
}
