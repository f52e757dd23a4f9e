package projector

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/token-projector/token-projector/atomicwriter"
)

// errPart is what a publish that had too much to remove says.
var errPart = fmt.Errorf("publish: link: %w", errors.Join(atomicwriter.ErrUnfinished))

// stuck is the same beside an entry that resists.
var stuck = errors.Join(fmt.Errorf("unlinkat file: %w", unix.EPERM), atomicwriter.ErrUnfinished)

// jobsIn lets that much time pass and counts the jobs of a kind.
func (r *rig) jobsIn(kind func(job) bool, long time.Duration) (n int) {
	end := r.now.Mono + long
	for {
		for jobs := r.turn(); len(jobs) > 0; jobs = r.turn() {
			for _, j := range jobs {
				if kind(j) {
					n++
				}
				r.finish(j)
			}
		}
		if r.now.Mono >= end {
			return n
		}
		r.pass(min(max(r.s.wake(r.now), time.Millisecond), end-r.now.Mono))
	}
}

// TestRemovalGoesOn: the parts of a removal follow one another at once and are nobody's failure, unless something resists, or
// there are so many that somebody makes entries as fast as they go.
func TestRemovalGoesOn(t *testing.T) {
	for name, tt := range map[string]struct {
		err      error
		long     time.Duration
		min, max int
		said     bool
	}{
		"a few parts":     {errPart, 5 * time.Second, 20, 26, false},
		"for ever":        {errPart, 10 * time.Minute, maxParts, maxParts + 20, true},
		"some are stuck":  {stuck, 10 * time.Minute, 4, 20, true},
		"all of it stays": {unix.EPERM, 10 * time.Minute, 4, 20, true},
	} {
		r := settled(t, 1, 600)
		r.broken = tt.err
		r.s.forget(uid(0), r.now)
		if n := r.jobsIn(isRemoval, tt.long); n < tt.min || n > tt.max {
			t.Errorf("%s: %d attempts in %v, want %d to %d", name, n, tt.long, tt.min, tt.max)
		}
		if said := r.says("pod directory could not be removed"); said != tt.said {
			t.Errorf("%s: a warning: %v", name, said)
		}
		r.broken = nil
		r.run(5 * time.Minute)
		if len(r.s.pods) != 0 {
			t.Errorf("%s: the pod is still known", name)
		}
	}
}

// TestPublishGoesOn: so do the parts of what stands in the way of a publish, or of an old version that is swept.
func TestPublishGoesOn(t *testing.T) {
	for name, tt := range map[string]struct {
		err, leftover error
		long          time.Duration
		min, max      int
		failed        bool
	}{
		"a few parts":          {errPart, nil, 5 * time.Second, 20, 26, false},
		"for ever":             {errPart, nil, time.Minute, maxParts, maxParts + 30, true},
		"some are stuck":       {stuck, nil, time.Minute, 10, 30, true},
		"parts to be swept":    {nil, errPart, 5 * time.Second, 20, 26, false},
		"stuck, to be swept":   {nil, stuck, time.Minute, 3, 20, true},
		"parts of both":        {errPart, errPart, 5 * time.Second, 20, 26, false},
		"parts beside a fault": {unix.EPERM, errPart, time.Minute, 10, 30, true},
	} {
		r := settled(t, 1, 600)
		v := r.volume(extra(0))
		v.dirty = true
		r.s.examine(v, r.s.now)
		v.verifyAt = r.s.now
		r.s.plan(v, r.s.now)
		n, end := 0, r.now.Mono+tt.long
		for r.now.Mono < end {
			for jobs := r.turn(); len(jobs) > 0; jobs = r.turn() {
				for _, j := range jobs {
					if !isPublish(j) {
						r.finish(j)
						continue
					}
					n++
					r.flying = nil
					result := atomicwriter.Result{Version: v.version}
					if tt.err == nil {
						result = r.publish(j.publish)
					}
					r.s.finishPublish(j.publish, result, found{err: tt.err, leftover: tt.leftover}, r.now)
				}
			}
			r.pass(min(max(r.s.wake(r.now), time.Millisecond), end-r.now.Mono))
		}
		if n < tt.min || n > tt.max {
			t.Errorf("%s: %d attempts in %v, want %d to %d", name, n, tt.long, tt.min, tt.max)
		}
		if failed := v.diskErr != nil; failed != tt.failed || failed != (v.failures > 0) || failed != r.says(ReasonDisk) {
			t.Errorf("%s: %d failures, %v", name, v.failures, v.diskErr)
		}
		r.run(5 * time.Minute)
		if v.diskErr != nil || v.failures > 0 || v.parts > 0 {
			t.Errorf("%s: not over: %v", name, v.diskErr)
		}
	}
}

// TestOnlyUnfinished: nothing else may hide behind it.
func TestOnlyUnfinished(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {unix.EPERM, false}, {errors.New("too much"), false}, {stuck, false}, {fmt.Errorf("publish: %w", stuck), false},
		{errors.Join(errPart, unix.EPERM), false}, {fmt.Errorf("%w: %w", atomicwriter.ErrUnfinished, unix.EBUSY), false},
		{atomicwriter.ErrUnfinished, true}, {errPart, true}, {errors.Join(errPart, errPart), true},
	} {
		if got := onlyUnfinished(tt.err); got != tt.want {
			t.Errorf("%v: %v", tt.err, got)
		}
	}
}
