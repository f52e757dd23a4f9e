package atomicwriter

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// swapper puts something else in the place of what the step'th changing call is about to act on, or has just made.
type swapper struct {
	dir, outside string
	plant        func(path, outside string) error
	step         int
	after        bool // the call was done
	seen         int
	swapped      string
}

func (s *swapper) hook(op, name string, done bool) error {
	hit := s.seen == s.step && done == s.after
	if done {
		s.seen++
	}
	if !hit {
		return nil
	}
	s.swapped = op + " " + name
	path := filepath.Join(s.dir, name)
	if path == s.dir || strings.Contains(name, "/proc/") {
		return nil
	}
	_ = os.Rename(path, path+".away") // if there is anything
	_ = s.plant(path, s.outside)      // what is still in its way keeps it out
	return nil
}

// TestSwappedAtEveryStep: whatever is put in the place of a new directory, file or link, at whatever moment of a publish, nothing
// outside is touched, and the next publish heals. The volume's group and the link's owner are others, so that all is given away
// that can be.
func TestSwappedAtEveryStep(t *testing.T) {
	outside := outsider(t)
	before := snapshot(t, outside)
	path := filepath.Join(t.TempDir(), "link")
	check(t, garbage["hard link"](path, outside))
	check(t, os.Chmod(path, 0o604))
	if treeDiff(snapshot(t, outside), before) == "" {
		t.Fatal("a chmod by name is not caught")
	}
	least := 12
	if os.Geteuid() != 0 {
		least = 10 // nothing is given to another owner
	}
	for kind, plant := range garbage {
		for _, after := range []bool{false, true} {
			steps := 0
			for ; swappedAt(t, &swapper{plant: plant, step: steps, after: after}, kind); steps++ {
			}
			if steps < least {
				t.Errorf("%s: only %d steps", kind, steps)
			}
		}
	}
}

// swappedAt does one publish with one swap; false if it has no such step.
func swappedAt(t *testing.T, s *swapper, kind string) bool {
	wish := files("token", "t", "dir/f", "f")
	dir, d := volume(t)
	s.dir, s.outside = dir, outsider(t)
	o, group := at(1), d.self.GID
	if os.Geteuid() == 0 {
		group = 4321
		check(t, os.Chown(dir, 1234, group))
	}
	o.Group = &group
	publish(t, d, Written, files("token", "old"), at(0))
	d = reopen(t, dir)
	d.hook = s.hook
	before := snapshot(t, s.outside)
	within(t, func() { _, _ = d.Publish(wish, o) }) // it may fail
	if s.swapped == "" {
		return false
	}
	if diff := treeDiff(snapshot(t, s.outside), before); diff != "" {
		t.Fatalf("%s at %s, after it: %v: outside differs:\n%s", kind, s.swapped, s.after, diff)
	}
	within(t, func() { healed(t, dir, wish) })
	expectView(t, dir, wish)
	openUp(dir)
	return true
}
