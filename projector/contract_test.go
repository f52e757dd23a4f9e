package projector

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/token-projector/token-projector/atomicwriter"
)

// outOfOrder has n lone pods of which all tokens are due, the server out, and
// all volumes held but for the probe.
func outOfOrder(t *testing.T, n int) *rig {
	r := settled(t, n, 600)
	r.s.sweep = 240 * time.Hour
	r.run(sweepEvery + time.Second) // the sweep that was set before
	r.pass(480 * time.Second)
	r.answer = refusing(503, 0)
	r.drain()
	if len(r.s.held) != n {
		t.Fatalf("%d held", len(r.s.held))
	}
	return r
}

// TestContractHeldVolumeIsNotProbedWhileBusy: at most one job in flight per volume,
// also for one that is held and is just being read back.
func TestContractHeldVolumeIsNotProbedWhileBusy(t *testing.T) {
	r := outOfOrder(t, 1)
	r.s.verify(extra(0), r.now)
	r.pass(time.Second)
	r.until(isPublish)
	r.pass(2 * time.Second)
	if jobs := r.turn(); len(jobs) != 0 {
		t.Errorf("%s started beside %s", describe(jobs[0]), describe(r.flying[0]))
	}
}

// TestContractDroppedVolumeIsNotHeld: a volume that is not wanted any more when its
// request fails is not asked for again.
func TestContractDroppedVolumeIsNotHeld(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(1, "vault", 600))
	mint := r.until(isMint)
	for mint.mint.v.key != access(1) {
		r.finish(mint)
		mint = r.until(isMint)
	}
	r.apply(lonePod(1, 600)) // a container mounts the other volume now
	r.answer = refusing(503, 0)
	r.finish(mint)
	asked := len(r.requests)
	r.run(time.Minute)
	r.answer = r.good
	r.run(2 * time.Hour)
	for _, q := range r.requests[asked:] {
		if q.Audience != "vault" {
			t.Fatal("a request for a volume that is not wanted")
		}
	}
}

// TestContractWatchesOfADroppedVolume: the watches that its last job has made are
// closed, not those that it had before.
func TestContractWatchesOfADroppedVolume(t *testing.T) {
	made := found{watch: watchHandle{dir: 40, version: 41}}
	for name, again := range map[string]bool{"dropped": false, "gone and wanted again": true} {
		r := newRig(t)
		r.apply(testPod(1, "vault", 600))
		var read job
		for r.turn(); read.read == nil || read.read.key != access(1); {
			read = r.flight(isRead)
			if read.read.key != access(1) {
				r.finish(read)
			}
		}
		if again {
			r.s.forget(uid(1), r.now)
			r.apply(testPod(1, "vault", 600))
			for _, j := range r.flying {
				if j != read {
					r.finish(j)
				}
			}
		} else {
			r.apply(lonePod(1, 600))
		}
		r.s.finishRead(read.read, atomicwriter.Version{}, nil, nil, made, r.now)
		r.turn()
		closed := 0
		for _, j := range r.flying {
			if j.remove != nil {
				for _, h := range j.remove.watches {
					closed += len(h.descriptors())
				}
			}
		}
		want := 2
		if again {
			want = 0 // the volume that takes its place has them: one directory has one watch
		}
		if closed != want || len(r.s.watched) != 2-want {
			t.Errorf("%s: %d descriptors are being closed, want %d; still watched %d", name, closed, want, len(r.s.watched))
		}
	}
}

// TestContractRemovalWaitsForADroppedVolume: a publish that is in flight for a
// volume that was dropped would make the pod's directory again.
func TestContractRemovalWaitsForADroppedVolume(t *testing.T) {
	r := settled(t, 0, 0)
	r.apply(testPod(1, "vault", 600))
	r.touchCA()
	publish := r.until(isPublish)
	for publish.publish.key != access(1) {
		r.finish(publish)
		publish = r.until(isPublish)
	}
	r.apply(lonePod(1, 600))
	r.s.forget(uid(1), r.now)
	for range 20 {
		r.turn()
		for _, j := range r.flying {
			if isRemoval(j) {
				t.Fatal("the pod is being removed beside a publish into it")
			}
			if j != publish {
				r.finish(j)
				break
			}
		}
	}
}

// TestContractOneJobPerKey: a volume that is dropped and wanted again while its job
// is in flight gets no second one.
func TestContractOneJobPerKey(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(1, "vault", 600))
	r.turn()
	r.apply(lonePod(1, 600))
	r.apply(testPod(1, "vault", 600))
	r.turn()
	of := 0
	for _, j := range r.flying {
		if v := jobVolume(j); v != nil && v.key == access(1) {
			of++
		}
	}
	if of != 1 {
		t.Errorf("%d jobs in flight for one key", of)
	}
}

// TestContractHintDuringAJob: a hint that comes while the volume is being read or
// published may tell of what that job has not seen.
func TestContractHintDuringAJob(t *testing.T) {
	r := settled(t, 1, 86400)
	r.s.verify(extra(0), r.now)
	r.pass(time.Second)
	publish := r.until(isPublish)
	result := r.publish(publish.publish)
	clear(r.files[extra(0)]) // after the job has looked, before its result is taken in
	r.s.verify(extra(0), r.now)
	r.flying = nil
	r.s.finishPublish(publish.publish, result, found{}, r.now)
	r.run(5 * time.Second)
	if len(r.files[extra(0)]) != 1 {
		t.Errorf("not repaired; the volume will be read in %v", r.volume(extra(0)).verifyAt.Sub(r.server()))
	}
}

// TestContractEarlyHintsOfTwoVolumes: the result of one job does not make the
// early hints of another one's watches forgotten.
func TestContractEarlyHintsOfTwoVolumes(t *testing.T) {
	r := newRig(t)
	r.apply(lonePod(1, 3600))
	r.apply(lonePod(2, 3600))
	r.turn()
	first, second := r.flying[0], r.flying[1]
	r.s.hint(41, r.now)
	r.s.hint(51, r.now)
	r.s.finishRead(first.read, atomicwriter.Version{}, nil, nil, found{watch: watchHandle{dir: 40, version: 41}}, r.now)
	r.s.finishRead(second.read, atomicwriter.Version{}, nil, nil, found{watch: watchHandle{dir: 50, version: 51}}, r.now)
	for _, j := range []job{first, second} {
		if got := j.read.v.verifyAt.Sub(r.server()); got != hintDelay {
			t.Errorf("the early hint of %v is looked after in %v", j.read.key, got)
		}
	}
}

// TestContractCorrectionShiftsRemovals too, and when a token came.
func TestContractCorrectionShiftsRemovals(t *testing.T) {
	r := settled(t, 1, 3600)
	r.step(5 * time.Hour)
	r.broken = errors.New("device or resource busy")
	r.s.forget(uid(0), r.now)
	r.drain() // fails, and is put off by a clock five hours ahead
	r.broken = nil
	r.s.hear(r.server(), r.now, r.now)
	r.run(time.Minute)
	if len(r.s.pods) != 0 {
		next, _ := r.s.removals.Next(r.server())
		t.Errorf("the removal is tried again in %v", next.Sub(r.server()))
	}
}

// TestContractCorrectionBeforePublish: a token that was minted under a wrong clock is
// refreshed in time when that is put right before the token is on disk.
func TestContractCorrectionBeforePublish(t *testing.T) {
	r := newRig(t)
	r.heard = false
	r.apply(testPod(1, "", 0)) // waits for its configMap
	r.until(isMint)
	r.step(55 * time.Minute)
	r.drain()
	r.s.hear(r.server(), r.now, r.now)
	r.touchCA()
	r.drain()
	v := r.volume(access(1))
	if late := v.tokens[0].due.Sub(v.tokens[0].life.Limit()); late > 0 {
		t.Errorf("due %v after the limit", late)
	}
}

// TestContractWrittenWithAnError: an error after the swap comes with a version that is
// current; who waits for it is told.
func TestContractWrittenWithAnError(t *testing.T) {
	r := newRig(t)
	r.apply(lonePod(1, 3600))
	publish := r.until(isPublish)
	result := r.publish(publish.publish)
	r.flying = nil
	r.s.finishPublish(publish.publish, result, found{err: errors.New("remove old links: input/output error")}, r.now)
	r.run(time.Minute)
	if len(r.published) != 1 || r.published[0].Version != result.Version {
		t.Errorf("notified of %+v, want one of %s", r.published, result.Version)
	}
}

// TestContractServerTimeWentBack: tokens that say they were issued in the future are
// not valid to anybody, so they are replaced.
func TestContractServerTimeWentBack(t *testing.T) {
	r := settled(t, 1, 86400)
	r.ahead -= 2 * time.Hour // the server's own clock is put back
	r.s.hear(r.server(), r.now, r.now)
	r.run(10 * time.Minute)
	if issued := r.onDisk(extra(0), "extra-token").Lifetime.Issued; issued.After(r.server()) {
		t.Errorf("the token on disk is valid only in %v", issued.Sub(r.server()))
	}
}

// TestContractUnheardClockRefusesNothing: while nobody has told the server's time, the
// local clock is no ground to call an answer untimely.
func TestContractUnheardClockRefusesNothing(t *testing.T) {
	for _, ahead := range []time.Duration{2 * time.Hour, -2 * time.Hour} {
		r := newRig(t)
		r.s = newState(&Config{NodeName: "node", MaxInFlight: 16, Sweep: time.Hour, Log: r.s.log})
		r.heard, r.ahead = false, ahead
		r.apply(lonePod(1, 3600))
		r.run(time.Minute)
		if r.made != 1 {
			t.Errorf("server %v ahead: not published: %v", ahead, r.volume(extra(1)).err)
		}
	}
}

// TestContractResultsHaveRoom: workers never wait for the owner, so no more jobs may be
// in flight than there is room for results.
func TestContractResultsHaveRoom(t *testing.T) {
	r := newRig(t)
	r.s.maxInFlight = 1
	pod := lonePod(1, 600)
	for i := range 20 {
		pod.Spec.Volumes = append(pod.Spec.Volumes, projected(string(rune('a'+i)), tokenSource("x", 600, "t")))
	}
	r.apply(pod)
	r.drain()
	r.apply(lonePod(1, 600))
	if r.turn(); len(r.flying) > 1+diskWorkers+1 {
		t.Errorf("%d jobs in flight", len(r.flying))
	}
}

// TestContractStorm: while somebody keeps altering a volume, repairs become fewer, one in
// 30 s in the end; a minute of calm ends it.
func TestContractStorm(t *testing.T) {
	r := settled(t, 1, 86400)
	alter := func() {
		f := r.files[extra(0)]
		f["more"] = simFile{data: fmt.Sprint(r.now.Mono), mode: 0o644}
		r.s.verify(extra(0), r.now)
	}
	for range 600 {
		alter()
		r.run(500 * time.Millisecond)
	}
	if got := r.made - 1; got < 9 || got > 25 {
		t.Errorf("%d repairs in five minutes of it", got)
	}
	if got := strings.Count(r.logged.String(), "repairing"); got != 1 {
		t.Errorf("logged %d times", got)
	}
	r.run(2 * time.Minute)
	before := r.made
	if alter(); r.volume(extra(0)).pace != maxPace {
		t.Errorf("pace %v", r.volume(extra(0)).pace)
	}
	r.run(31 * time.Second)
	alter()
	r.run(time.Second)
	if r.made != before+2 {
		t.Errorf("%d repairs after the calm, want 2", r.made-before)
	}
}

// TestContractStepForthAndBack: a retry that was put off while the wall clock was ahead
// comes soon after that was put back, also when no server spoke in between.
func TestContractStepForthAndBack(t *testing.T) {
	r := newRig(t)
	r.apply(lonePod(1, 3600))
	publish := r.until(isPublish)
	r.step(2 * time.Hour)
	r.broken = errors.New("no space left on device")
	r.finish(publish)
	r.turn()
	r.broken = nil
	r.step(-2 * time.Hour)
	r.run(5 * time.Minute)
	if r.made != 1 {
		t.Errorf("the disk is tried again in %v", r.volume(extra(1)).retryAt.Sub(r.server()))
	}
}

// TestContractFailedRepairIsRetried after the disk's backoff, not after the sweep.
func TestContractFailedRepairIsRetried(t *testing.T) {
	r := settled(t, 1, 86400)
	clear(r.files[extra(0)])
	r.s.verify(extra(0), r.now)
	r.pass(time.Second)
	publish := r.until(isPublish)
	r.broken = errors.New("no space left on device")
	r.finish(publish)
	r.broken = nil
	r.run(10 * time.Second)
	if len(r.files[extra(0)]) != 1 {
		v := r.volume(extra(0))
		t.Errorf("the token is gone; the volume is %s and will be read in %v", v.condition(), v.verifyAt.Sub(r.server()))
	}
}
