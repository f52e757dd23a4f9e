package projector

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/token-projector/token-projector/rotation"
)

// wander drives a rig at random and checks after every event what must always hold.
type wander struct {
	*rig
	random *rand.Rand
	steps  []string // the latest, to be shown
	listed bool
	wanted map[int]bool
}

const wanderers = 6

// TestInvariants runs random histories: pods come, change and go, answers and disk
// jobs succeed and fail in any order, files vanish, clocks step, time passes.
func TestInvariants(t *testing.T) {
	base := rand.Uint64()
	for n := range uint64(60) {
		w := &wander{rig: newRig(t), random: rand.New(rand.NewPCG(base, n)), wanted: map[int]bool{}}
		w.s.maxInFlight = 1 + w.random.IntN(4)
		w.s.awaitStopped = n%2 == 0
		for range 400 {
			w.event()
			if wrong := w.wrong(); wrong != "" {
				t.Fatalf("seed %d, %d: %s\nafter %q", base, n, wrong, w.steps)
			}
		}
		w.calm()
	}
}

func (w *wander) note(format string, args ...any) {
	w.steps = append(w.steps, fmt.Sprintf(format, args...))
	w.steps = w.steps[max(0, len(w.steps)-25):]
}

// event is one thing that happens, and the owner's turn after it.
func (w *wander) event() {
	n := w.random.IntN(wanderers)
	switch w.random.IntN(17) {
	case 0, 1:
		w.want(n)
	case 2:
		w.note("forget %d", n)
		w.wanted[n] = false
		w.s.forget(uid(n), w.now)
	case 3:
		w.list()
	case 4:
		data := [][]byte{nil, []byte("a"), []byte("b")}[w.random.IntN(3)]
		w.note("touch %q", data)
		if data == nil {
			w.s.touch(rootCA, nil, w.now)
		} else {
			w.s.touch(rootCA, map[string][]byte{"ca.crt": data}, w.now)
		}
	case 5:
		w.alter(n)
	case 6:
		w.leap()
	case 7, 8:
		d := time.Duration(w.random.Int64N(int64(5 * time.Minute)))
		w.note("%v pass", d)
		w.pass(d)
	case 9:
		pause := w.s.wake(w.now)
		w.note("wake after %v", pause)
		w.pass(pause)
	case 10:
		w.note("stopped %d", n)
		w.s.stop(uid(n), w.now)
	default:
		w.end()
	}
	w.turn()
}

// want applies a pod: both volumes, or one of them, or terminating.
func (w *wander) want(n int) {
	pod := testPod(n, "vault", 600)
	if n%2 == 1 {
		pod = lonePod(n, 600)
	}
	if n%3 == 0 && w.random.IntN(4) == 0 { // a container mounts the other one now
		pod.Spec.Volumes = pod.Spec.Volumes[:1]
	}
	w.note("apply %d with %d volumes", n, len(pod.Spec.Volumes))
	w.wanted[n] = true
	w.apply(pod)
}

func (w *wander) list() {
	w.note("list")
	w.listed = true
	w.s.replace(w.wishesAgain(), w.now)
}

// wishesAgain are the last wishes of the pods that are wanted.
func (w *wander) wishesAgain() []Wish {
	var wishes []Wish
	for _, p := range w.s.pods {
		switch {
		case p.again != nil:
			wishes = append(wishes, *p.again)
		case !p.gone:
			wishes = append(wishes, p.wish)
		}
	}
	return wishes
}

func (w *wander) alter(n int) {
	w.note("alter %d", n)
	for _, k := range []Key{access(n), extra(n)} {
		if files := w.files[k]; files != nil && w.random.IntN(2) == 0 {
			delete(files, []string{"token", "ca.crt", "extra-token"}[w.random.IntN(3)])
			w.s.verify(k, w.now)
		}
	}
}

func (w *wander) leap() {
	d := time.Duration(w.random.Int64N(int64(4*time.Hour))) - 2*time.Hour
	w.note("the wall clock steps by %v", d)
	w.step(d)
	if w.random.IntN(2) == 0 {
		w.s.hear(w.server(), w.now, w.now)
	}
}

// end finishes some job in flight, well or badly.
func (w *wander) end() {
	if len(w.flying) == 0 {
		return
	}
	w.answer, w.broken = w.good, nil
	switch w.random.IntN(6) {
	case 0:
		w.answer = refusing([]int{0, 401, 429, 500, 503}[w.random.IntN(5)], time.Duration(w.random.IntN(3))*time.Second)
	case 1:
		w.answer = refusing([]int{403, 404, unusable}[w.random.IntN(3)], 0)
	case 2:
		w.broken = errors.New("input/output error")
	}
	i := w.random.IntN(len(w.flying))
	w.note("%s ends", describe(w.flying[i]))
	w.finish(w.flying[i])
	w.broken = nil
}

func describe(j job) string {
	switch {
	case j.mint != nil:
		return fmt.Sprintf("mint %v", j.mint.v.key)
	case j.read != nil:
		return fmt.Sprintf("read %v", j.read.key)
	case j.publish != nil:
		return fmt.Sprintf("publish %v", j.publish.key)
	case j.remove.p == nil:
		return "unwatch"
	}
	return "remove " + j.remove.uid
}

// jobVolume is the volume that a job is for; nil for those of no volume.
func jobVolume(j job) *volume {
	switch {
	case j.mint != nil:
		return j.mint.v
	case j.read != nil:
		return j.read.v
	case j.publish != nil:
		return j.publish.v
	}
	return nil
}

// wrong says which invariant does not hold, or "".
func (w *wander) wrong() string {
	for _, check := range []func() string{w.wrongJobs, w.wrongCounts, w.wrongVolumes, w.wrongHeld, w.wrongRemovals} {
		if wrong := check(); wrong != "" {
			return wrong
		}
	}
	return ""
}

// wrongJobs: one job per volume, none beside the removal of its pod, none begun
// for a volume that is not wanted.
func (w *wander) wrongJobs() string {
	busy := map[Key]job{}
	removing := map[string]bool{}
	for _, j := range w.flying {
		if isRemoval(j) {
			removing[j.remove.uid] = true
		}
	}
	for _, j := range w.flying {
		v := jobVolume(j)
		if v == nil {
			continue
		}
		if other, ok := busy[v.key]; ok {
			return fmt.Sprintf("two jobs: %s and %s", describe(j), describe(other))
		}
		busy[v.key] = j
		if removing[string(v.key.PodUID)] {
			return describe(j) + " beside the removal of its pod"
		}
		if !v.busy {
			return describe(j) + " in flight, and its volume is not busy"
		}
	}
	return ""
}

func (w *wander) wrongCounts() string {
	mints, disks := 0, 0
	for _, j := range w.flying {
		if j.mint != nil {
			mints++
		} else {
			disks++
		}
	}
	switch {
	case mints != len(w.s.asked) || disks != w.s.onDisk:
		return fmt.Sprintf("%d and %d jobs in flight, counted %d and %d", mints, disks, len(w.s.asked), w.s.onDisk)
	case mints > w.s.maxInFlight:
		return fmt.Sprintf("%d requests in flight", mints)
	case len(w.flying) > w.s.maxInFlight+diskWorkers+1:
		return fmt.Sprintf("%d jobs in flight: more than there is room for results", len(w.flying))
	}
	return ""
}

// wrongVolumes: nothing that is wanted is ever forgotten.
func (w *wander) wrongVolumes() string {
	mints, disks := queued(&w.s.mints), queued(&w.s.disks)
	for n, want := range w.wanted {
		p := w.s.pods[uid(n)]
		if want && (p == nil || p.gone && p.again == nil) {
			return fmt.Sprintf("pod %d is wanted and not known", n)
		} else if !want && p != nil && !p.gone {
			return fmt.Sprintf("pod %d is not wanted and lives on", n)
		}
		if p == nil || p.gone {
			continue
		}
		dead := !p.wish.Retire.IsZero() && !w.s.now.Before(p.wish.Retire)
		for _, v := range p.volumes {
			working := v.busy || mints[v] || disks[v]
			free := slices.ContainsFunc(v.tokens, func(t token) bool { return !t.held })
			switch {
			case !working && free && (v.whole || !dead):
				return fmt.Sprintf("volume %v is forgotten", v.key)
			case v.known && !v.busy && free && !mints[v] && !dead:
				return fmt.Sprintf("tokens of %v will never be refreshed", v.key)
			case v.whole && !v.busy && !disks[v]:
				return fmt.Sprintf("volume %v will never be read back", v.key)
			case v.busy && (mints[v] || disks[v]):
				return fmt.Sprintf("volume %v is busy and queued", v.key)
			}
			delete(mints, v)
			delete(disks, v)
		}
	}
	if len(mints)+len(disks) > 0 {
		return "something is queued that nobody wants"
	}
	return ""
}

// wrongHeld: held are tokens that are wanted, once each, and only in an outage.
func (w *wander) wrongHeld() string {
	if len(w.s.held) > 0 && !w.s.outage.Open() {
		return "tokens are held without an outage"
	}
	for i, h := range w.s.held {
		switch v := h.v; {
		case v.pod.gone || v.pod.volumes.find(v.key.Volume) != v:
			return fmt.Sprintf("volume %v is held, and nobody wants it", v.key)
		case !h.t.held || slices.Contains(w.s.held[:i], h):
			return fmt.Sprintf("a token of %v is held twice", v.key)
		}
	}
	return ""
}

func (w *wander) wrongRemovals() string {
	removals := queued(&w.s.removals)
	for _, p := range w.s.pods {
		busy := slices.ContainsFunc(w.flying, func(j job) bool {
			v := jobVolume(j)
			return v != nil && v.key.PodUID == p.wish.UID
		})
		waits := p.removing || busy || removals[p]
		may := w.listed && (w.s.stopped[p.wish.UID] || !w.s.awaitStopped)
		if p.gone && may && !waits {
			return fmt.Sprintf("pod %s will never be removed", p.wish.UID)
		}
		if (p.removing || removals[p]) && (!p.gone || !may) {
			return fmt.Sprintf("pod %s is removed: gone %v, listed %v, stopped %v", p.wish.UID, p.gone, w.listed, w.s.stopped[p.wish.UID])
		}
	}
	return ""
}

// queued is what a queue holds. It has no method for that, and needs none but here.
func queued[K any](q *rotation.Queue[*K]) map[*K]bool {
	held := map[*K]bool{}
	for _, key := range reflect.ValueOf(q).Elem().FieldByName("entries").MapKeys() {
		held[(*K)(key.UnsafePointer())] = true
	}
	return held
}

// calm ends all failures: soon all that is wanted is there and fresh, and nothing else.
func (w *wander) calm() {
	w.t.Helper()
	w.answer, w.broken, w.heard = w.good, nil, true
	w.s.hear(w.server(), w.now, w.now)
	w.list()
	w.run(time.Minute)
	w.s.touch(rootCA, certificate, w.now) // to watches that have just begun, too
	w.run(4 * time.Minute)
	volumes := 0
	for n := range wanderers {
		if !w.wanted[n] {
			continue
		}
		for _, v := range w.s.pods[uid(n)].volumes {
			volumes++
			c := w.onDisk(v.key, v.tokens[0].source.Path)
			// An attempt that a wrong clock had made too early, and that failed, is
			// reported until the next one.
			early := v.err != nil && v.err.Reason == ReasonTokenRequest && w.server().Before(v.tokens[0].due)
			if v.condition() != "ready" && !early || c.Lifetime.Expired(w.server()) {
				w.t.Fatalf("volume %v is %s (%v) five minutes after all failures ended\nafter %q", v.key, v.condition(), v.err, w.steps)
			}
		}
	}
	if len(w.flying) > 0 || len(w.s.held) > 0 {
		w.t.Fatalf("%d jobs in flight, %d held", len(w.flying), len(w.s.held))
	}
}
