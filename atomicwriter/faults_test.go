package atomicwriter

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// fault is what happens at one changing system call.
type fault int

const (
	refused  fault = iota // not done
	reported              // done, but reported as failed
	crash                 // the process ends before it
	crashed               // the process ends after it
)

var faultNames = [...]string{"refused", "reported", "crash", "crashed"}

// scenario is a publish of after onto a volume that shows before.
type scenario struct {
	name          string
	before, after []File // before nil: the directory is empty
	spoil         func(t *testing.T, dir string)
	mixed         bool // the old view was damaged, and is repaired file by file
	sync          bool
}

func scenarios() []scenario {
	old := files("token", "old", "ca.crt", "ca", "d/e/f", "old f")
	link := func(t *testing.T, target, name string) {
		check(t, os.Remove(name))
		check(t, os.Symlink(target, name))
	}
	return []scenario{
		{name: "first", after: old},
		{name: "first synced", after: old, sync: true},
		{name: "changed", before: old, after: files("token", "new", "ca.crt", "ca", "d/e/f", "new f")},
		{name: "changed synced", before: old, after: files("token", "new", "ca.crt", "ca", "d/e/f", "new f"), sync: true},
		{name: "added and dropped", before: old, after: files("token", "new", "more", "m", "d/e/g", "g")},
		{name: "file becomes directory", before: old, after: files("token/a", "new", "ca.crt", "ca", "d", "file")},
		{name: "chmodded", before: old, after: chmodded(old, 0o600)},
		{name: "links", before: old, after: old, mixed: true, spoil: func(t *testing.T, dir string) {
			link(t, "nowhere", filepath.Join(dir, "token"))
			check(t, os.Remove(filepath.Join(dir, "ca.crt")))
			check(t, os.Remove(filepath.Join(dir, "d")))
			check(t, os.MkdirAll(filepath.Join(dir, "d/garbage/more"), 0o755))
			check(t, os.Symlink(inData+"gone", filepath.Join(dir, "gone")))
			check(t, os.WriteFile(filepath.Join(dir, tempLink), nil, 0o644))
		}},
		{name: "data is a directory", before: old, after: files("token", "new"), mixed: true, spoil: func(t *testing.T, dir string) {
			check(t, os.Remove(filepath.Join(dir, dataLink)))
			check(t, os.MkdirAll(filepath.Join(dir, dataLink, "garbage"), 0o755))
			check(t, os.MkdirAll(filepath.Join(dir, tempLink, "garbage"), 0o755))
		}},
	}
}

func chmodded(list []File, mode os.FileMode) []File {
	list = slices.Clone(list)
	for i := range list {
		list[i].Mode = mode
	}
	return list
}

// whole says why a view is neither the old nor the new one, or "".
func (s scenario) whole(got, old map[string]string) string {
	fresh := viewOf(s.after)
	if maps.Equal(got, old) || maps.Equal(got, fresh) {
		return ""
	}
	if !s.mixed {
		return fmt.Sprintf("a reader sees %v, neither %v nor %v", got, old, fresh)
	}
	for path, content := range got {
		if content != old[path] && content != fresh[path] {
			return fmt.Sprintf("a reader sees %q in %s", content, path)
		}
	}
	return ""
}

// setUp makes the volume of a scenario.
func (s scenario) setUp(t *testing.T) (dir string, d *Dir, old map[string]string) {
	dir, d = volume(t)
	if s.before != nil {
		publish(t, d, Written, s.before, at(0))
	}
	if s.spoil != nil {
		s.spoil(t, dir)
	}
	return dir, reopen(t, dir), view(dir, s.before, s.after)
}

var errFault = fmt.Errorf("planted: %w", syscall.EIO)

// errnos are what a failing disk says: broken, full, read-only, over quota, no descriptor left.
var errnos = []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT, syscall.EMFILE}

// injector makes the step'th changing call fail, and looks at the volume before and after each.
type injector struct {
	step, kind int
	errno      syscall.Errno // 0: that of errFault
	seen       int
	op         string // what failed
	look       func(where string)
}

func (in *injector) hook(op, name string, done bool) error {
	in.look(fmt.Sprintf("%s %s, done %v", op, name, done))
	hit := in.seen == in.step
	if done {
		in.seen++
	}
	after := fault(in.kind) == reported || fault(in.kind) == crashed
	if !hit || after != done {
		return nil
	}
	in.op = op
	in.seen++
	if kind := fault(in.kind); kind == crash || kind == crashed {
		panic(errFault)
	}
	if in.errno != 0 {
		return in.errno
	}
	return errFault
}

// run publishes with the fault and tells whether a crash ended it.
func (in *injector) run(d *Dir, publish func() error) (err error, died bool) {
	d.hook = in.hook
	defer func() {
		if r := recover(); r != nil {
			if r != any(errFault) {
				panic(r)
			}
			died = true
		}
	}()
	return publish(), false
}

// TestFaults fails every changing system call of every scenario in every way. Whatever happens, a reader sees
// the old or the new volume, and the next publish leaves what an undisturbed one leaves.
func TestFaults(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			clean := cleanTree(t, s.after)
			steps := 0
			for kind, name := range faultNames {
				for _, in := range injectors(fault(kind)) {
					for step := 0; s.faultAt(t, step, in, name, clean); step++ {
						steps++
					}
				}
			}
			if least := (2*len(errnos) + 2) * 5; steps < least {
				t.Fatalf("only %d faults could be planted, want at least %d", steps, least)
			}
			t.Logf("%d faults", steps)
		})
	}
}

// injectors are one for each error that a fault can give.
func injectors(kind fault) (list []injector) {
	if kind == crash || kind == crashed {
		return []injector{{kind: int(kind)}}
	}
	for _, e := range errnos {
		list = append(list, injector{kind: int(kind), errno: e})
	}
	return list
}

// faultAt plants one fault; false if the publish has no such step.
func (s scenario) faultAt(t *testing.T, step int, in injector, name string, clean map[string]string) bool {
	dir, d, old := s.setUp(t)
	in.step = step
	in.look = func(where string) {
		if why := s.whole(view(dir, s.before, s.after), old); why != "" {
			t.Fatalf("step %d %s: at %s: %s", step, name, where, why)
		}
	}
	o := at(1)
	o.Sync = s.sync
	before := versions(t, d)
	var r Result
	err, died := in.run(d, func() (err error) { r, err = d.Publish(s.after, o); return err })
	if in.op == "" {
		check(t, err)
		return false
	}
	at := fmt.Sprintf("step %d %s at %s", step, name, in.op)
	in.look("the end")
	if !died {
		s.checkFailure(t, at, dir, r, err, in.errno)
		if r.Outcome != Written && in.op != "mkdirat" && !slices.Equal(versions(t, d), before) {
			t.Fatalf("%s: the staged version stayed", at)
		}
	}
	s.recover(t, at, dir, clean)
	return true
}

// checkFailure checks what a failed publish says.
func (s scenario) checkFailure(t *testing.T, at, dir string, r Result, err error, planted syscall.Errno) {
	t.Helper()
	if !errors.Is(err, planted) {
		t.Fatalf("%s: the error is %v", at, err)
	}
	current, _ := os.Readlink(filepath.Join(dir, dataLink))
	if isVersion(current) && r.Version != current {
		t.Fatalf("%s: Result says %q is current, but %q is", at, r.Version, current)
	}
	if r.Outcome == Written && !maps.Equal(view(dir, s.after, s.before), viewOf(s.after)) {
		t.Fatalf("%s: written, but not to be seen", at)
	}
}

// recover publishes once more, sweeps, and expects a clean tree, twice.
func (s scenario) recover(t *testing.T, at, dir string, clean map[string]string) {
	t.Helper()
	d := reopen(t, dir)
	r, err := d.Publish(s.after, Options{Now: testTime.Add(2)})
	if err == nil {
		err = d.Sweep(r.Stale)
	}
	if err != nil {
		t.Fatalf("%s: the next publish: %v", at, err)
	}
	if diff := treeDiff(snapshot(t, dir), clean); diff != "" {
		t.Fatalf("%s: after the next publish (%v) and sweep:\n%s", at, r.Outcome, diff)
	}
	publish(t, d, Unchanged, s.after, Options{Now: testTime.Add(3)})
}

// versions lists the version directories.
func versions(t *testing.T, d *Dir) []string {
	names := must(d.Names())(t)
	return slices.DeleteFunc(names, func(n string) bool { return !isVersion(n) })
}

// TestWholeCatches shows that the check of TestFaults sees a publisher that links after the swap, as the
// kubelet does, and one that writes in place.
func TestWholeCatches(t *testing.T) {
	s := scenarios()[0]
	dir, d, old := s.setUp(t)
	publish(t, d, Written, s.after, at(0))
	check(t, os.Remove(filepath.Join(dir, "token")))
	if s.whole(view(dir, s.after), old) == "" {
		t.Error("a missing link was not caught")
	}
	s = scenarios()[2]
	dir, _, old = s.setUp(t)
	check(t, os.WriteFile(filepath.Join(dir, "token"), []byte("new"), 0o644))
	if s.whole(view(dir, s.before, s.after), old) == "" {
		t.Error("a mixed volume was not caught")
	}
}

// TestRemoveFaults fails every changing call of a removal; a second one then finishes it.
func TestRemoveFaults(t *testing.T) {
	steps := 0
	for kind := range faultNames {
		for step := 0; ; step++ {
			dir, d := volume(t)
			root := must(OpenRoot(filepath.Dir(dir)))(t)
			publish(t, d, Written, files("token", "t", "d/e/f", "f", "d/g", "g"), at(0))
			check(t, os.Chmod(filepath.Join(dir, versions(t, d)[0], "d"), 0o500))
			in := injector{step: step, kind: kind, look: func(string) {}}
			err, died := in.run(root, func() error { return root.Remove("volume") })
			if in.op != "" && !died && !errors.Is(err, errFault) {
				t.Fatalf("step %d: the error is %v", step, err)
			}
			root.hook = nil
			check(t, root.Remove("volume"))
			if _, err := os.Lstat(dir); !os.IsNotExist(err) {
				t.Fatalf("step %d: still there: %v", step, err)
			}
			check(t, root.Close())
			if in.op == "" {
				break
			}
			steps++
		}
	}
	if least := len(faultNames) * 8; steps < least {
		t.Fatalf("only %d faults could be planted, want at least %d", steps, least)
	}
}

// TestSync: with Sync, everything is synced before it is named: files, then their directories, then the volume's, and
// the swap itself last. On memory nothing is.
func TestSync(t *testing.T) {
	ops := func(sync bool) (list []string) {
		_, d := volume(t)
		d.hook = func(op, name string, done bool) error {
			if done && (op == "fsync" || op == "renameat" || op == "write") {
				list = append(list, op)
			}
			return nil
		}
		o := at(0)
		o.Sync = sync
		publish(t, d, Written, files("a/b", "b", "token", "t"), o)
		return list
	}
	want := []string{"write", "fsync", "write", "fsync", "fsync", "fsync", "fsync", "renameat", "fsync"}
	if got := ops(true); !slices.Equal(got, want) {
		t.Errorf("synced: %q, want %q", got, want)
	}
	if got := ops(false); slices.Contains(got, "fsync") {
		t.Errorf("on memory: %q", got)
	}
}
