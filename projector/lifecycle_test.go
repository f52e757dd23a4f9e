package projector

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/atomicwriter"
	"github.com/token-projector/token-projector/rotation"
)

// TestDeleteDuringAJob: the removal waits for the job, whatever its outcome, and
// then nothing of the pod remains, nor is anything else done for it.
func TestDeleteDuringAJob(t *testing.T) {
	for name, kind := range map[string]func(job) bool{"mint": isMint, "read": isRead, "publish": isPublish} {
		for outcome, spoil := range map[string]func(*rig){
			"success": func(*rig) {}, "refused": func(r *rig) { r.answer = refusing(403, 0) },
			"unanswered": func(r *rig) { r.answer = refusing(0, 0) },
			"disk":       func(r *rig) { r.broken = errors.New("input/output error") },
		} {
			r := settled(t, 0, 0)
			r.apply(lonePod(1, 3600))
			j := r.until(kind)
			r.s.forget(uid(1), r.now)
			if jobs := r.turn(); len(jobs) != 0 {
				t.Errorf("%s, %s: %+v started beside the job", name, outcome, jobs)
			}
			spoil(r)
			asked := len(r.requests)
			r.finish(j)
			r.broken, r.answer = nil, r.good
			jobs := r.turn()
			if len(jobs) != 1 || !isRemoval(jobs[0]) {
				t.Fatalf("%s, %s: %+v after the job", name, outcome, jobs)
			}
			r.run(2 * time.Hour)
			if len(r.files) != 0 || len(r.s.pods) != 0 || len(r.requests) != asked {
				t.Errorf("%s, %s: %d files, %d pods, %d more requests", name, outcome, len(r.files), len(r.s.pods), len(r.requests)-asked)
			}
			if r.s.mints.Len()+r.s.disks.Len()+r.s.removals.Len()+len(r.s.held) != 0 {
				t.Errorf("%s, %s: something is still queued", name, outcome)
			}
		}
	}
}

// TestAgainWhileBeingRemoved: a pod that is wanted after all begins anew, with
// whatever the removal has left.
func TestAgainWhileBeingRemoved(t *testing.T) {
	for name, broken := range map[string]error{"removed": nil, "not removed": errors.New("busy")} {
		r := settled(t, 1, 3600)
		r.s.forget(uid(0), r.now)
		removal := r.until(isRemoval)
		r.apply(lonePod(0, 3600))
		if jobs := r.turn(); len(jobs) != 0 {
			t.Errorf("%s: %+v started beside the removal", name, jobs)
		}
		r.broken = broken
		r.finish(removal)
		r.broken = nil
		r.drain()
		v := r.volume(extra(0))
		want := 2 // minted anew
		if broken != nil {
			want = 1 // adopted
		}
		if v.condition() != "ready" || len(r.requests) != want || len(r.files) != 1 || v.pod.gone {
			t.Errorf("%s: %s, %d requests", name, v.condition(), len(r.requests))
		}
	}
}

// TestAgainAndForgottenWhileBeingRemoved: the last word counts.
func TestAgainAndForgottenWhileBeingRemoved(t *testing.T) {
	r := settled(t, 1, 3600)
	r.s.forget(uid(0), r.now)
	removal := r.until(isRemoval)
	r.apply(lonePod(0, 3600))
	r.s.forget(uid(0), r.now)
	r.finish(removal)
	r.drain()
	if len(r.s.pods) != 0 || len(r.files) != 0 {
		t.Errorf("%d pods, %d volumes on disk", len(r.s.pods), len(r.files))
	}
}

// TestAgainWhileAJobEnds: gone and wanted again before the job ended.
func TestAgainWhileAJobEnds(t *testing.T) {
	for name, kind := range map[string]func(job) bool{"mint": isMint, "read": isRead, "publish": isPublish} {
		r := settled(t, 0, 0)
		r.apply(lonePod(1, 3600))
		j := r.until(kind)
		r.s.forget(uid(1), r.now)
		r.apply(lonePod(1, 3600))
		r.turn()
		if len(r.flying) != 1 {
			t.Errorf("%s: %d jobs", name, len(r.flying))
		}
		r.finish(j)
		r.drain()
		if v := r.volume(extra(1)); v.condition() != "ready" || len(r.files) != 1 {
			t.Errorf("%s: %s", name, v.condition())
		}
	}
}

// TestNothingRemovedBeforeTheList, neither what is forgotten nor what nobody knows.
func TestNothingRemovedBeforeTheList(t *testing.T) {
	r := newRig(t)
	r.files[extra(5)] = map[string]simFile{"stray": {}}
	r.s.orphans(map[types.UID]bool{uid(5): true, uid(1): true}, r.now)
	r.apply(lonePod(1, 3600))
	r.apply(lonePod(2, 3600))
	r.drain()
	r.s.forget(uid(2), r.now)
	r.run(24 * time.Hour)
	if len(r.files) != 3 || r.s.synced {
		t.Errorf("%d volumes on disk", len(r.files))
	}
	r.s.replace([]Wish{Desired(lonePod(1, 3600), SelectAll)}, r.now)
	r.drain()
	if _, ok := r.files[extra(1)]; !ok || len(r.files) != 1 || len(r.s.pods) != 1 {
		t.Errorf("on disk %v, %d pods", r.files, len(r.s.pods))
	}
}

// TestReplaceForgetsWhatIsNotListed, and an empty list is a list.
func TestReplaceForgetsWhatIsNotListed(t *testing.T) {
	r := settled(t, 3, 3600)
	r.s.replace([]Wish{Desired(lonePod(1, 3600), SelectAll), {UID: uid(2)}}, r.now)
	r.drain()
	if _, ok := r.files[extra(1)]; !ok || len(r.files) != 1 {
		t.Errorf("%d volumes on disk", len(r.files))
	}
	r.s.replace(nil, r.now)
	r.drain()
	if len(r.files) != 0 || len(r.s.pods) != 0 {
		t.Errorf("%d volumes on disk", len(r.files))
	}
}

// TestRemovalRetries, ever more slowly, until it is done.
func TestRemovalRetries(t *testing.T) {
	r := settled(t, 1, 3600)
	r.broken = errors.New("device or resource busy")
	r.s.forget(uid(0), r.now)
	r.run(time.Hour)
	if p := r.s.pods[uid(0)]; p == nil || p.failures < 25 || p.failures > 60 {
		t.Fatalf("%+v", p)
	}
	if got := strings.Count(r.logged.String(), "could not be removed"); got != 1 {
		t.Errorf("logged %d times", got)
	}
	r.broken = nil
	r.run(2 * time.Minute)
	if len(r.s.pods) != 0 {
		t.Error("not removed")
	}
}

// TestVolumeNoLongerWanted: a container now mounts it, so it is the kubelet's.
func TestVolumeNoLongerWanted(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(1, "vault", 600))
	r.touchCA()
	r.drain()
	token, asked := r.files[extra(1)]["extra-token"], len(r.requests)
	r.apply(lonePod(1, 600))
	r.drain()
	if len(r.requests) != asked || r.files[extra(1)]["extra-token"] != token {
		t.Error("the other volume's token was asked for again")
	}
	r.run(3 * time.Hour)
	for _, q := range r.requests[asked:] {
		if q.Audience != "vault" {
			t.Fatal("a request for a volume that is not wanted")
		}
	}
	if len(r.watching) != 0 || r.volume(extra(1)).condition() != "ready" {
		t.Errorf("watching %v", r.watching)
	}
}

// restarted is a new owner over the same disk, some time later.
func (r *rig) restarted(after time.Duration) *rig {
	next := newRig(r.t)
	next.files, next.made, next.ahead = r.files, r.made, r.ahead
	next.now = rotation.Time{Mono: time.Minute, Wall: r.now.Wall.Add(after)}
	next.s.clock = rotation.ServerClock{}
	next.s.hear(next.server(), next.now, next.now)
	return next
}

// TestAdoption: what is right on disk costs no request and no write, however long
// it lives; anything odd is minted anew, for that entry alone, in place.
func TestAdoption(t *testing.T) {
	put := func(changes map[string]any) func(*rig) {
		return func(r *rig) { r.files[extra(0)]["extra-token"] = simFile{data: altered(changes), mode: 0o644} }
	}
	own := func(changes map[string]any) map[string]any { // altered speaks of uid-1; the pod is uid-0
		m := map[string]any{"kubernetes.io": map[string]any{"pod": map[string]any{"uid": "uid-0"}}}
		for k, v := range changes {
			m[k] = v
		}
		return m
	}
	at := issuedAt.Unix()
	for name, tt := range map[string]struct {
		spoil           func(*rig)
		requests, moved int
	}{
		"right":             {func(*rig) {}, 0, 0},
		"right, other life": {put(own(map[string]any{"exp": at + 86400})), 0, 0},
		"a year, warnafter": {put(own(map[string]any{"exp": at + 31536000, "kubernetes.io": map[string]any{
			"pod": map[string]any{"uid": "uid-0"}, "warnafter": at + 3607}})), 0, 0},
		"wrong audience": {put(own(map[string]any{"aud": "other"})), 1, 1},
		"wrong pod":      {put(nil), 1, 1},
		"wrong account":  {put(own(map[string]any{"sub": "system:serviceaccount:default:x"})), 1, 1},
		"expired":        {put(own(map[string]any{"iat": at - 900, "exp": at - 300})), 1, 1},
		"past its limit": {put(own(map[string]any{"iat": at - 3000, "exp": at + 500})), 1, 1},
		"opaque":         {func(r *rig) { r.files[extra(0)]["extra-token"] = simFile{data: "opaque", mode: 0o644} }, 1, 1},
		"wrong mode": {func(r *rig) {
			f := r.files[extra(0)]["extra-token"]
			r.files[extra(0)]["extra-token"] = simFile{data: f.data, mode: 0o600}
		}, 0, 1},
		"surplus file": {func(r *rig) { r.files[extra(0)]["more"] = simFile{data: "x", mode: 0o644} }, 0, 1},
		"gone":         {func(r *rig) { delete(r.files, extra(0)) }, 1, 1},
		"no version":   {func(r *rig) { r.files[extra(0)] = nil }, 1, 1},
	} {
		r := settled(t, 2, 3600)
		other := r.files[extra(1)]["extra-token"]
		tt.spoil(r)
		spoilt := r.files[extra(0)]["extra-token"]
		next := r.restarted(10 * time.Second)
		next.s.replace([]Wish{Desired(lonePod(0, 3600), SelectAll), Desired(lonePod(1, 3600), SelectAll)}, next.now)
		next.drain()
		if len(next.requests) != tt.requests || next.made-2 != tt.moved || len(next.published) != tt.moved {
			t.Errorf("%s: %d requests, %d versions, %d notifications", name, len(next.requests), next.made-2, len(next.published))
		}
		if tt.requests == 1 && next.files[extra(0)]["extra-token"] == spoilt || next.files[extra(1)]["extra-token"] != other {
			t.Errorf("%s: the wrong token was replaced", name)
		}
		if next.volume(extra(0)).condition() != "ready" {
			t.Errorf("%s: %s", name, next.volume(extra(0)).condition())
		}
	}
}

// TestAdoptionOfAWholeVolume: the configMap may come late; what is there serves on.
func TestAdoptionOfAWholeVolume(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(1, "", 0))
	r.touchCA()
	r.drain()
	next := r.restarted(time.Minute)
	next.apply(testPod(1, "", 0))
	next.drain()
	if len(next.requests) != 0 || next.made != 1 || next.volume(access(1)).condition() != "ready" {
		t.Errorf("before the configMap: %d requests, %d versions", len(next.requests), next.made)
	}
	next.touchCA()
	next.drain()
	if next.made != 1 {
		t.Error("the same content was written again")
	}
	next.s.touch(rootCA, map[string][]byte{"ca.crt": []byte("new")}, next.now)
	next.drain()
	if next.made != 2 || next.files[access(1)]["ca.crt"].data != "new" || len(next.requests) != 0 {
		t.Errorf("%d versions, %d requests", next.made, len(next.requests))
	}
}

// TestUnreadDiskIsReadSoon: a disk that fails for long after a restart is tried often, since
// a token that nobody has read yet may expire at any time.
func TestUnreadDiskIsReadSoon(t *testing.T) {
	next := settled(t, 1, 600).restarted(time.Minute)
	next.broken = errors.New("input/output error")
	next.apply(lonePod(0, 600))
	next.run(7 * time.Minute)
	if next.volume(extra(0)).failures < 5 {
		t.Fatal("the disk does not fail")
	}
	next.broken = nil
	next.run(15 * time.Second)
	if v := next.volume(extra(0)); !v.known || v.condition() != "ready" {
		t.Errorf("15 s after it works again: known %v, %s", v.known, v.condition())
	}
}

// TestDiskIsTriedSoon: a disk that was full or read-only for an hour is written again within seconds, be the next
// token due or not, and a pod that came meanwhile gets its volume.
func TestDiskIsTriedSoon(t *testing.T) {
	r := settled(t, 1, 7200)
	r.broken = errors.New("no space left on device")
	r.apply(lonePod(1, 7200))
	r.s.verifyVolume(r.volume(extra(0)), r.now)
	r.run(time.Hour)
	if r.volume(extra(0)).failures < 5 || r.volume(extra(1)).failures < 5 {
		t.Fatal("the disk does not fail")
	}
	r.broken = nil
	r.run(diskRetry)
	for i := range 2 {
		if v := r.volume(extra(i)); v.condition() != "ready" {
			t.Errorf("%v after it works again volume %d is %s", diskRetry, i, v.condition())
		}
	}
}

// TestAdoptedTokensKeepTheirTimes: a restart moves no due time, neither of first tokens nor of later ones, whether the pods
// came to a daemon or the daemon to the pods, and however wrong the machine's clock is; so it brings no pods together.
func TestAdoptedTokensKeepTheirTimes(t *testing.T) {
	for name, tt := range map[string]struct{ podAge, ahead time.Duration }{
		"new pods": {0, 0}, "old pods on a new root": {24 * time.Hour, 0}, "server ahead": {24 * time.Hour, 5 * time.Hour}, "server behind": {24 * time.Hour, -5 * time.Hour},
	} {
		for _, uptime := range []time.Duration{30 * time.Second, 3 * time.Hour} {
			r := newRig(t)
			r.ahead, r.s.clock = tt.ahead, rotation.ServerClock{}
			r.s.hear(r.server(), r.now, r.now)
			root, created := r.now.Wall, metav1.NewTime(r.server().Add(-tt.podAge))
			pod := func(i int) *corev1.Pod {
				p := lonePod(i, 3600)
				p.CreationTimestamp = created
				return p
			}
			for i := range 50 {
				r.apply(pod(i))
			}
			r.run(uptime)
			next := r.restarted(0)
			next.s.rootBorn = root
			for i := range 50 {
				next.apply(pod(i))
			}
			next.drain()
			wide := 0
			for i := range 50 {
				old, adopted := r.volume(extra(i)).tokens[0], next.volume(extra(i)).tokens[0]
				if !old.due.Equal(adopted.due) || !old.life.Expires.Equal(adopted.life.Expires) || adopted.floor.Sub(old.floor).Abs() > slack {
					t.Errorf("%s, after %v: pod %d is due %v, then %v", name, uptime, i, old.due, adopted.due)
				}
				if old.due.Before(old.life.Limit().Add(-5 * time.Minute)) {
					wide++
				}
			}
			if first := uptime < time.Hour; first != (wide > 25) || first != (wide > 0) {
				t.Errorf("%s, after %v: %d of 50 with the wide window", name, uptime, wide)
			}
		}
	}
}

// TestRepair: whatever somebody did to a volume is put right, with a request
// only if the token's own bytes are lost.
func TestRepair(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil    func(map[string]simFile)
		requests int
	}{
		"token gone":     {func(f map[string]simFile) { delete(f, "token") }, 1},
		"token altered":  {func(f map[string]simFile) { f["token"] = simFile{data: "x", mode: 0o644} }, 1},
		"configMap gone": {func(f map[string]simFile) { delete(f, "ca.crt") }, 0},
		"more":           {func(f map[string]simFile) { f["more"] = simFile{data: "x", mode: 0o644} }, 0},
		"mode":           {func(f map[string]simFile) { f["token"] = simFile{data: f["token"].data, mode: 0o777} }, 0},
		"all gone":       {func(f map[string]simFile) { clear(f) }, 1},
	} {
		r := newRig(t)
		r.apply(testPod(1, "", 0))
		r.touchCA()
		r.drain()
		tt.spoil(r.files[access(1)])
		r.s.verify(access(1), r.now)
		if r.drain(); r.made != 1 {
			t.Errorf("%s: repaired without the pause that gathers hints", name)
		}
		r.run(time.Second)
		got := r.files[access(1)]
		if len(got) != 3 || got["ca.crt"].data != "certificate" || got["token"].mode != 0o644 || len(r.requests) != 1+tt.requests {
			t.Errorf("%s: %d files, %d requests", name, len(got), len(r.requests)-1)
		}
		r.onDisk(access(1), "token")
		if !r.says("repairing") {
			t.Errorf("%s: not logged", name)
		}
	}
}

// TestSweep reads every volume back now and then, hint or no hint.
func TestSweep(t *testing.T) {
	r := settled(t, 1, 86400)
	clear(r.files[extra(0)])
	r.run(sweepEvery + time.Second)
	if len(r.files[extra(0)]) != 1 {
		t.Error("not repaired after ten minutes")
	}
	if got := r.s.sweepOf(watchHandle{blind: errNoInstance}); got != time.Minute {
		t.Errorf("a volume without watches is read every %v", got)
	}
	if r.s.sweep = time.Second; r.s.sweepOf(watchHandle{blind: errNoInstance}) != time.Second {
		t.Error("slower than the sweep that was asked for")
	}
}

// TestDetached: a live volume's directory was deleted or replaced.
func TestDetached(t *testing.T) {
	r := settled(t, 1, 3600)
	r.s.verify(extra(0), r.now)
	r.pass(time.Second)
	publish := r.until(isPublish)
	r.flying = nil
	files := publish.publish.files
	result := atomicwriter.Result{Outcome: atomicwriter.Incomplete, Lost: []string{files[0].Path}}
	r.s.finishPublish(publish.publish, result, found{detached: true}, r.now)
	delete(r.files, extra(0))
	r.drain()
	v := r.volume(extra(0))
	if v.condition() != "detached" || len(r.files[extra(0)]) != 1 || !r.says("containers still hold the old one") {
		t.Errorf("%s, %d files", v.condition(), len(r.files[extra(0)]))
	}
	if snap := r.s.snapshot(r.now); snap.Volumes["detached"] != 1 {
		t.Errorf("%+v", snap.Volumes)
	}
}

// TestStaleVersionsAreSwept, each ten seconds after it was replaced.
func TestStaleVersionsAreSwept(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(1, "", 0))
	r.touchCA()
	r.drain()
	r.s.touch(rootCA, map[string][]byte{"ca.crt": []byte("new")}, r.now)
	r.drain()
	v := r.volume(access(1))
	if len(v.stale) != 1 || v.stale[0].name != "..v1" {
		t.Fatalf("%+v", v.stale)
	}
	r.pass(staleAge - 1)
	if jobs := r.turn(); len(jobs) != 0 {
		t.Errorf("%d jobs 1 ns before ten seconds", len(jobs))
	}
	r.pass(1)
	jobs := r.turn()
	if len(jobs) != 1 || !slices.Equal(jobs[0].publish.sweep, []string{"..v1"}) {
		t.Errorf("%+v", jobs)
	}
}

// TestYoungVersionsStay: a reader may still be in a version that was replaced a moment ago, whatever else there is to do.
func TestYoungVersionsStay(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(1, "", 0))
	r.touchCA()
	r.drain()
	r.s.touch(rootCA, map[string][]byte{"ca.crt": []byte("new")}, r.now)
	r.drain()
	for _, pause := range []time.Duration{staleAge - 1, 1} { // the next version is stale when the first may go
		r.pass(pause)
		r.s.touch(rootCA, map[string][]byte{"ca.crt": []byte(pause.String())}, r.now)
		jobs := r.turn()
		want := map[time.Duration][]string{1: {"..v1"}}[pause]
		if len(jobs) != 1 || !slices.Equal(jobs[0].publish.sweep, want) {
			t.Fatalf("%v later: %+v", pause, jobs)
		}
		r.drain()
	}
}

// TestHintOfADescriptor finds its volume, also when it came before the job ended
// that made the watch.
func TestHintOfADescriptor(t *testing.T) {
	r := newRig(t)
	r.apply(lonePod(1, 3600))
	publish := r.until(isPublish)
	result := r.publish(publish.publish)
	r.flying = nil
	r.s.hint(41, r.now) // the watch was just made
	r.s.finishPublish(publish.publish, result, found{watch: watchHandle{dir: 40, version: 41}}, r.now)
	v := r.volume(extra(1))
	if got := v.verifyAt.Sub(r.server()); got != hintDelay {
		t.Errorf("the early hint is looked after in %v", got)
	}
	v.verifyAt = r.server().Add(time.Hour)
	r.s.hint(99, r.now)
	if got := v.verifyAt.Sub(r.server()); got != time.Hour {
		t.Errorf("a hint of another directory moved the check to %v", got)
	}
	r.s.hint(40, r.now)
	if got := v.verifyAt.Sub(r.server()); got != hintDelay {
		t.Errorf("the hint is looked after in %v", got)
	}
	v.verifyAt = r.server().Add(time.Hour)
	r.s.hintsLost(errors.New("overflow"), r.now)
	if got := v.verifyAt.Sub(r.server()); got != hintDelay {
		t.Errorf("after lost hints it is looked after in %v", got)
	}
	for _, later := range []time.Duration{time.Second, sayCalm, sayCalm + 1} {
		r.pass(later)
		r.s.hintsLost(errors.New("overflow"), r.now)
	}
	if got := r.count("events on disk were lost"); got != 2 {
		t.Errorf("lost hints were said %d times", got)
	}
	r.s.forget(uid(1), r.now)
	r.s.synced = true
	r.s.settle(r.s.pods[uid(1)], r.now)
	removal := r.until(isRemoval)
	if len(r.s.watched) != 0 || len(removal.remove.watches) != 1 || removal.remove.watches[0].dir != 40 {
		t.Errorf("watched %v, to be closed %+v", r.s.watched, removal.remove.watches)
	}
}

// TestNoSecretInReports: what a server or an object's reader says is scrubbed
// before it is kept, logged or counted.
func TestNoSecretInReports(t *testing.T) {
	secret := altered(nil)
	body := strings.Split(secret, ".")[1]
	r := settled(t, 0, 0)
	r.s.log.Info(secret)
	if !r.says(body) {
		t.Fatal("a planted token is not found in the log")
	}
	r.logged.Reset()
	r.apply(testPod(1, "vault", 600))
	r.answer = func(Request) (Minted, error) { return Minted{}, errors.New("header Bearer " + secret) }
	r.s.untouchable(rootCA, scrub("denied "+secret), true, r.now)
	r.run(time.Minute)
	for _, k := range []Key{access(1), extra(1)} {
		v := r.volume(k)
		if v.err == nil || strings.Contains(v.err.Error(), body) {
			t.Errorf("%v", v.err)
		}
		for _, token := range v.tokens {
			if token.err != nil && strings.Contains(token.err.Error(), body) {
				t.Error(token.err)
			}
		}
	}
	r.answer = r.good
	r.touchCA()
	r.run(2 * time.Minute)
	for k, files := range r.files {
		for path, f := range files {
			if strings.Contains(path, "token") && r.says(strings.Split(f.data, ".")[1]) {
				t.Errorf("the token of %v is in the log", k)
			}
		}
	}
	if r.says(body) || len(r.files) != 2 {
		t.Errorf("the log holds what the server said; %d volumes", len(r.files))
	}
}

// TestUnselected: a pod that is not selected is left alone. One that is ours stays ours whatever becomes of its labels,
// also after a restart, when only its directory tells.
func TestUnselected(t *testing.T) {
	r := newRig(t)
	other := Desired(lonePod(2, 600), SelectAll)
	other.Unselected = true
	ours := Desired(lonePod(1, 600), SelectAll)
	r.s.replace([]Wish{ours, other}, r.now)
	r.drain()
	if len(r.requests) != 1 || r.files[extra(2)] != nil {
		t.Fatalf("%d requests; the pod that is not selected has %v", len(r.requests), r.files[extra(2)])
	}
	ours.Unselected = true
	r.s.apply(ours, r.now)
	r.s.replace([]Wish{ours, other}, r.now)
	r.run(9 * time.Minute)
	if len(r.requests) != 2 || r.files[extra(1)] == nil {
		t.Errorf("after its labels changed: %d requests, files %v", len(r.requests), r.files[extra(1)])
	}
	again := newRig(t)
	again.files, again.ahead, again.now = r.files, r.ahead, r.now
	again.s.orphans(map[types.UID]bool{ours.UID: true}, again.now)
	again.s.replace([]Wish{ours, other}, again.now)
	again.run(9 * time.Minute)
	if len(again.requests) != 1 || again.files[extra(1)] == nil {
		t.Errorf("after a restart: %d requests, files %v", len(again.requests), again.files[extra(1)])
	}
	again.s.replace([]Wish{other}, again.now)
	again.drain()
	if again.files[extra(1)] != nil {
		t.Error("it stays when it is gone")
	}
}

// TestUnselectedWithARuntimesDirectory: a pod that is not selected mounts the root by subPath, so that the
// runtime has made its directories, which are empty. After a restart it is still not ours, and nothing is asked for.
func TestUnselectedWithARuntimesDirectory(t *testing.T) {
	other := Desired(lonePod(2, 600), SelectAll)
	other.Unselected = true
	r := newRig(t)
	r.s.replace([]Wish{other}, r.now)
	r.drain()
	if len(r.requests) != 0 {
		t.Fatal("taken on")
	}
	next := newRig(t)
	next.s.orphans(map[types.UID]bool{other.UID: false}, next.now) // pods/uid-2/volumes/kubernetes.io~projected/extra, empty
	next.s.replace([]Wish{other}, next.now)
	next.drain()
	if len(next.requests) != 0 {
		t.Errorf("%d requests for a pod that was never selected", len(next.requests))
	}
}

// TestSuspendedMint: the machine sleeps while a request is under way. What comes is old,
// and does not stand for a tenth of its life first.
func TestSuspendedMint(t *testing.T) {
	r := settled(t, 0, 0)
	r.apply(lonePod(1, 600))
	j := r.until(isMint)
	m, _ := r.good(j.mint.request)
	m.ServerTime = time.Time{}
	r.now.Wall = r.now.Wall.Add(570 * time.Second)
	r.answer = func(Request) (Minted, error) { return m, nil }
	r.finish(j)
	r.answer = r.good
	r.drain()
	if c := r.onDisk(extra(1), "extra-token"); c.Lifetime.Issued.Before(r.server().Add(-time.Minute)) {
		t.Errorf("the token on disk expires in %v", c.Lifetime.Expires.Sub(r.server()))
	}
}

// TestServerPutBackBeforePublish: a token that waits to be published, and which nobody accepts
// any more because the server's clock was put back, is minted anew before anything is published.
func TestServerPutBackBeforePublish(t *testing.T) {
	r := settled(t, 1, 3600)
	r.apply(testPod(1, "", 0))
	r.drain() // its configMap does not come yet
	r.ahead -= 2 * time.Hour
	r.s.hear(r.server(), r.now, r.now)
	r.touchCA()
	r.drain()
	if c := r.onDisk(access(1), "token"); c.Lifetime.Issued.After(r.server()) || r.volume(access(1)).condition() != "ready" {
		t.Errorf("the token is valid in %v, the volume is %s", c.Lifetime.Issued.Sub(r.server()), r.volume(access(1)).condition())
	}
}

// TestClockOfAVolumeThatIsGone: a volume that is not wanted any more, and waits for its job to end, has nothing to tell
// when the clock moves.
func TestClockOfAVolumeThatIsGone(t *testing.T) {
	for name, wanted := range map[string]bool{"wanted": true, "gone": false} {
		r := newRig(t)
		r.answer = func(q Request) (Minted, error) {
			if q.Audience == "refused" {
				return refusing(403, 0)(q)
			}
			return r.good(q)
		}
		pod := testPod(1, "vault", 600)
		more := &pod.Spec.Volumes[1].Projected.Sources
		*more = append(*more, tokenSource("refused", 600, "b"), configMapSource("another", "x"))
		r.apply(pod)
		r.touchCA()
		r.s.touch(ObjectRef{Kind: "ConfigMap", Namespace: "default", Name: "another"}, nil, r.now)
		r.run(time.Minute) // it is told that it misses the configMap, and its token waits
		v := r.volume(extra(1))
		v.verifyAt = r.server()
		r.s.disks.Set(v, r.server(), r.server())
		r.turn()
		if !v.busy || !v.told || v.tokens[0].fresh.empty() {
			t.Fatalf("%s: busy %v, told %v, waits %v", name, v.busy, v.told, !v.tokens[0].fresh.empty())
		}
		if !wanted {
			r.apply(testPod(1, "", 0))
		}
		said := r.count("volume is not as wanted")
		r.ahead -= time.Hour
		r.s.hear(r.server(), r.now, r.now)
		if got := queued(&r.s.news)[v]; got != wanted || v.gone == wanted || r.count("volume is not as wanted") != said {
			t.Errorf("%s: gone %v, and yet to be told %v, said %d times more", name, v.gone, got, r.count("volume is not as wanted")-said)
		}
	}
}
