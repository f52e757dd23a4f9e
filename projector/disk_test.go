package projector

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/token-projector/token-projector/rotation"
)

// runOn is run with the disk's jobs done on a real one.
func (r *rig) runOn(d *disk, long time.Duration) {
	end := r.now.Mono + long
	for {
		for r.turn(); len(r.flying) > 0; r.turn() {
			r.finishOn(d, r.flying[0])
		}
		if r.now.Mono >= end {
			return
		}
		r.pass(min(max(r.s.wake(r.now), time.Millisecond), end-r.now.Mono))
	}
}

func (r *rig) finishOn(d *disk, j job) {
	switch {
	case j.read != nil:
		version, sums, claims, f := d.read(j.read)
		r.s.finishRead(j.read, version, sums, claims, f, r.now)
	case j.publish != nil:
		result, f := d.publish(j.publish)
		r.s.finishPublish(j.publish, result, f, r.now)
	case j.remove != nil:
		r.s.finishRemove(j.remove, d.remove(j.remove), r.now)
	default:
		r.finish(j)
		return
	}
	r.flying = slices.DeleteFunc(r.flying, func(f job) bool { return f == j })
}

// TestKeptMode: somebody (the file's owner is the pod's user) has set a setuid bit on a file of a source that
// fails after a restart. The token beside it is renewed all the same.
func TestKeptMode(t *testing.T) {
	dir := memoryDir(t)
	root := openTestRoot(t, dir)
	defer root.Close()
	d := &disk{root: root}
	r := newRig(t)
	r.s.self = root.owner()
	pod := withSources(600, settingsSource(KindConfigMap, "k", false))
	r.apply(pod)
	r.s.touch(settingsRef(KindConfigMap), settingsData("settings"), r.now)
	r.runOn(d, time.Second)
	file := filepath.Join(root.Path(extra(1)), "k")
	token := filepath.Join(root.Path(extra(1)), "extra-token")
	if err := os.Chmod(file, 0o644|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	next := newRig(t)
	next.s.self, next.ahead = root.owner(), r.ahead
	next.now = rotation.Time{Mono: time.Minute, Wall: r.now.Wall.Add(time.Second)}
	next.s.clock = rotation.ServerClock{}
	next.s.hear(next.server(), next.now, next.now)
	next.apply(pod)
	next.s.touch(settingsRef(KindConfigMap), nil, next.now) // deleted meanwhile
	next.runOn(d, 20*time.Minute)
	data, err := os.ReadFile(token)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseClaims(data)
	if err != nil || c.Lifetime.Expired(next.server()) {
		t.Errorf("%v; the token has expired while the server answered %d requests: %v", err, len(next.requests), next.volume(extra(1)).err)
	}
}

// TestLeftoverDelaysNoFile: a mount point that can never be made keeps no file back: a changed object is on
// disk within a second, a token that comes after an outage as well.
func TestLeftoverDelaysNoFile(t *testing.T) {
	r := newRig(t)
	pod := withSources(600, settingsSource(KindConfigMap, "k", true))
	r.apply(pod)
	r.s.touch(settingsRef(KindConfigMap), settingsData("old"), r.now)
	// As rig.drain, but every publish says that a mount point could not be made.
	drain := func() {
		for range 1000 {
			r.turn()
			if len(r.flying) == 0 {
				return
			}
			j := r.flying[0]
			if j.publish == nil {
				r.finish(j)
				continue
			}
			r.flying = r.flying[1:]
			result := r.publish(j.publish)
			r.s.finishPublish(j.publish, result, found{leftover: errors.New("not a directory"), stale: result.Stale}, r.now)
		}
	}
	run := func(d time.Duration) {
		end := r.now.Mono + d
		for drain(); r.now.Mono < end; drain() {
			r.pass(min(r.s.wake(r.now), end-r.now.Mono))
		}
	}
	run(30 * time.Minute) // backoff is at its top, bounded by a quarter of what is left of the token
	r.s.touch(settingsRef(KindConfigMap), settingsData("new"), r.now)
	for waited := time.Duration(0); r.files[extra(1)]["k"].data != "new"; waited += time.Second {
		if waited == 2*time.Minute {
			t.Error("not published after 2 minutes")
			break
		}
		run(time.Second)
		if waited > 2*time.Second && r.files[extra(1)]["k"].data == "new" {
			t.Errorf("a changed configMap was on disk after %v", waited+time.Second)
		}
	}
	good := r.answer
	r.answer = refusing(503, 0)
	run(20 * time.Minute) // past the token's expiry
	r.answer = good
	asked := len(r.requests)
	waited := time.Duration(0)
	for r.onDisk(extra(1), "extra-token").Lifetime.Expired(r.server()) && waited < 5*time.Minute {
		run(time.Second)
		waited += time.Second
	}
	if waited > 5*time.Second {
		t.Errorf("after the outage the expired token stayed for %v (%d requests answered meanwhile)", waited, len(r.requests)-asked)
	}
}
