package projector

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	erred     = `"level":"error"`
	faultEnds = `"msg":"work on the root no longer fails"`
)

// TestFaultOfTheRootIsSaidOnce: a disk that fails a hundred volumes, be it their first publish, a refresh or the removal of
// their pods, is one line when it begins and one when it ends, for each kind of failure, in every episode.
func TestFaultOfTheRootIsSaidOnce(t *testing.T) {
	for name, errno := range map[string]unix.Errno{"full": unix.ENOSPC, "read-only": unix.EROFS, "broken": unix.EIO} {
		t.Run(name, func(t *testing.T) {
			r := settled(t, 100, 600)
			r.s.log.Error("planted")
			if r.count(erred) != 1 {
				t.Fatal("a planted line is not counted")
			}
			r.logged.Reset()
			for episode := range 2 {
				r.broken = fmt.Errorf("publish: %w", &fs.PathError{Op: "mkdirat", Path: "v", Err: errno})
				for i := range 100 {
					if i%2 == 0 {
						r.s.forget(uid(100*episode+i), r.now)
					}
					r.apply(lonePod(100*(episode+1)+i, 600))
				}
				r.run(10 * time.Minute) // past the refresh of those that stay
				if got := r.count(erred); got != episode+1 || r.count(faultEnds) != episode || r.count(`"fault":"`+errno.Error()) != 2*episode+1 {
					t.Fatalf("episode %d: %d errors, %d ends", episode, got, r.count(faultEnds))
				}
				if snap := r.s.snapshot(r.now); snap.VolumeErrors[ReasonDisk] != len(r.wishes()) {
					t.Errorf("episode %d: %d volumes fail", episode, snap.VolumeErrors[ReasonDisk])
				}
				r.broken = nil
				r.run(2 * diskRetry)
				if r.count(erred) != episode+1 || r.count(faultEnds) != episode+1 || r.says("in order again") {
					t.Fatalf("episode %d: %d errors, %d ends", episode, r.count(erred), r.count(faultEnds))
				}
				if snap := r.s.snapshot(r.now); snap.Volumes["ready"] != len(r.wishes()) || len(r.files) != len(r.wishes()) {
					t.Errorf("episode %d: %v, %d on disk, of %d", episode, snap.Volumes, len(r.files), len(r.wishes()))
				}
			}
		})
	}
}

// TestFaultsOfTheRootOverlap: each kind is said, and ends when nothing fails by it any more, also because that is gone.
func TestFaultsOfTheRootOverlap(t *testing.T) {
	r := settled(t, 0, 0)
	for i, errno := range []unix.Errno{unix.ENOSPC, unix.EIO} {
		r.broken = errno
		r.apply(lonePod(i, 600))
		r.drain()
	}
	if r.count(erred) != 2 || r.says(faultEnds) {
		t.Errorf("%d errors", r.count(erred))
	}
	r.run(time.Minute) // the first one fails by the other now
	if r.count(erred) != 2 || r.count(faultEnds) != 1 {
		t.Errorf("%d errors, %d ends", r.count(erred), r.count(faultEnds))
	}
	r.broken = nil
	for i := range 2 {
		r.s.forget(uid(i), r.now)
	}
	r.run(time.Minute)
	if r.count(erred) != 2 || r.count(faultEnds) != 2 || len(r.s.faults) != 0 {
		t.Errorf("%d errors, %d ends, left %v", r.count(erred), r.count(faultEnds), r.s.faults)
	}
}

// TestFaultOfAVolumeIsItsOwn: what says nothing of the root is said of the volume.
func TestFaultOfAVolumeIsItsOwn(t *testing.T) {
	for _, fault := range []error{errors.New("too big"), &fs.PathError{Op: "renameat", Path: "token", Err: unix.ENOTEMPTY}} {
		r := settled(t, 0, 0)
		r.broken = fault
		r.apply(lonePod(0, 600))
		r.apply(lonePod(1, 600))
		r.run(time.Minute)
		r.broken = nil
		r.run(time.Minute)
		if r.count("volume is not as wanted") != 2 || r.count("volume is in order again") != 2 || r.says(faultEnds) {
			t.Errorf("%v: %s", fault, r.logged.String())
		}
	}
}

// TestUnusableUID: a pod without a directory of its own is said once, however often it comes, and again when it had gone.
func TestUnusableUID(t *testing.T) {
	r := settled(t, 0, 0)
	odd := lonePod(0, 600)
	odd.UID = "../up"
	for range 3 {
		r.apply(odd)
	}
	if got := r.count(erred); got != 1 {
		t.Errorf("said %d times", got)
	}
	r.s.forget(odd.UID, r.now)
	r.apply(odd)
	r.s.replace(nil, r.now)
	if r.apply(odd); r.count(erred) != 3 || len(r.s.pods) != 0 {
		t.Errorf("said %d times; %d pods", r.count(erred), len(r.s.pods))
	}
}
