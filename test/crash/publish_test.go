//go:build crash

package crash

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// changing are the system calls that change a file system, and those that open files and so may create them.
var changing = []string{"openat", "openat2", "mkdirat", "write", "pwrite64", "fchmod", "fchmodat", "fchown", "fchownat", "symlinkat",
	"linkat", "renameat", "renameat2", "unlinkat", "fsync", "fdatasync", "ftruncate"}

// scenario is one act on a volume that holds something already.
type scenario struct {
	name   string
	before []string                  // what is published first; nil: nothing
	damage func(volume string) error // done to it afterwards
	act    string                    // publish or remove
	after  []string                  // what the act publishes
	// piecemeal: a reader may see some files as they were before and some as afterwards. A publish is seen wholly or not
	// at all, unless it repairs links that others have broken; a removal cannot be.
	piecemeal bool
}

var (
	oldFiles = []string{"token=old token", "ca.crt=the bundle", "gone=dropped", "dir/gone=dropped", "dir/kept=kept"}
	newFiles = []string{"token=new token", "ca.crt=the bundle", "added=added", "dir/added=added", "dir/kept=kept", "more/added=added"}
)

var scenarios = []scenario{
	{name: "first publish", act: "publish", after: newFiles},
	{name: "changed file", before: []string{"token=old", "ca.crt=same"}, act: "publish", after: []string{"token=new", "ca.crt=same"}},
	{name: "added and removed files", before: oldFiles, act: "publish", after: newFiles},
	{name: "repair of a file", before: newFiles, act: "publish", after: newFiles,
		damage: func(v string) error { return os.WriteFile(filepath.Join(v, "token"), []byte("altered"), 0o600) }},
	{name: "repair of links", before: newFiles, act: "publish", after: newFiles, piecemeal: true,
		damage: func(v string) error {
			return errors.Join(os.Remove(filepath.Join(v, "token")), os.Remove(filepath.Join(v, "dir")),
				os.MkdirAll(filepath.Join(v, "dir", "full"), 0o755), os.Symlink("..data/no", filepath.Join(v, "no")))
		}},
	{name: "repair of ..data", before: newFiles, act: "publish", after: newFiles,
		damage: func(v string) error { return os.Remove(filepath.Join(v, "..data")) }},
	{name: "removal", before: oldFiles, act: "remove", piecemeal: true},
}

// A publisher killed at each of its calls: readers see the old volume or the new one, the next publish succeeds, and
// nothing is left that an undisturbed one would not leave.
func TestKilledAtEverySystemCall(t *testing.T) {
	publisher := buildPublisher(t)
	for fs, dir := range fileSystems(t) {
		t.Run(fs, func(t *testing.T) {
			t.Run("planted", func(t *testing.T) { testPlanted(t, publisher, dir) })
			for _, s := range scenarios {
				t.Run(s.name, func(t *testing.T) {
					h := &harness{t: t, publisher: publisher, parent: dir}
					kills := h.killAll(s)
					t.Logf("%d kills", kills)
					for _, fault := range h.faults {
						t.Error(fault)
					}
				})
			}
		})
	}
}

// testPlanted: a writer in place tears files, and the harness must see it.
func testPlanted(t *testing.T, publisher, dir string) {
	h := &harness{t: t, publisher: publisher, parent: dir}
	h.killAll(scenario{name: "in place", before: []string{"token=old"}, act: "inplace", after: []string{"token=new", "added=added"}})
	if len(h.faults) == 0 {
		t.Fatal("a writer in place was not caught")
	}
}

func buildPublisher(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "publisher")
	if out, err := exec.Command("go", "build", "-o", binary, "./publisher").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// harness kills one scenario over and over.
type harness struct {
	t                 *testing.T
	publisher, parent string
	faults            []string
}

// killAll kills the act at the 1st, 2nd, ... of each kind of call, until it ends by itself, and returns how often.
func (h *harness) killAll(s scenario) int {
	h.t.Helper()
	clean := h.fresh(s)
	h.run(s.act, clean, s.after)
	want, kills := snapshot(clean), 0
	for _, call := range changing {
		n := 1
		for h.killOnce(s, call, n, want) {
			n++
		}
		kills += n - 1
	}
	if kills == 0 {
		h.t.Fatal("nothing was ever killed")
	}
	return kills
}

// killOnce reports whether there was an n-th call of that kind to be killed at.
func (h *harness) killOnce(s scenario, call string, n int, want map[string]string) bool {
	h.t.Helper()
	dir := h.fresh(s)
	before := view(dir)
	killed := h.runKilled(call, n, s.act, dir, s.after)
	where := fmt.Sprintf("%s, killed at %s number %d", s.name, call, n)
	if !killed {
		where = s.name + ", not killed"
	}
	h.judge(s, where, before, view(dir))
	h.run(s.act, dir, s.after)
	if diff := difference(snapshot(dir), want); diff != "" {
		h.faultf("%s: after the next %s the tree differs:\n%s", where, s.act, diff)
	}
	if err := os.RemoveAll(dir); err != nil {
		h.t.Fatal(err)
	}
	return killed
}

func (h *harness) faultf(format string, args ...any) {
	h.faults = append(h.faults, fmt.Sprintf(format, args...))
}

// fresh is a pod directory in the state that the act finds.
func (h *harness) fresh(s scenario) string {
	h.t.Helper()
	dir, err := os.MkdirTemp(h.parent, "pod-")
	if err != nil {
		h.t.Fatal(err)
	}
	if s.before != nil {
		h.run("publish", dir, s.before)
	}
	if s.damage != nil {
		if err := s.damage(filepath.Join(dir, "volume")); err != nil {
			h.t.Fatal(err)
		}
	}
	return dir
}

// run does an act undisturbed.
func (h *harness) run(act, dir string, files []string) {
	h.t.Helper()
	if out, err := exec.Command(h.publisher, append([]string{act, dir}, files...)...).CombinedOutput(); err != nil {
		h.t.Fatalf("%s: %v: %s", act, err, out)
	}
}

// runKilled does an act and kills it as it enters its n-th call of a kind. It reports whether there was one.
func (h *harness) runKilled(call string, n int, act, dir string, files []string) bool {
	h.t.Helper()
	args := []string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call,
		"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n), h.publisher, act, dir}
	out, err := exec.Command("strace", append(args, files...)...).CombinedOutput()
	if err == nil {
		return false
	}
	// strace ends as the traced process did.
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		if ws := e.Sys().(syscall.WaitStatus); ws.Signaled() && ws.Signal() == syscall.SIGKILL {
			return true
		}
	}
	h.t.Fatalf("strace: %v: %s", err, out)
	return false
}

// judge compares what a reader saw before with what it sees after the kill.
func (h *harness) judge(s scenario, where string, before, after map[string]string) {
	wanted := viewOf(s.after)
	if !s.piecemeal && !maps.Equal(after, before) && !maps.Equal(after, wanted) {
		h.faultf("%s: a reader sees neither the old nor the new volume:\n%s", where, difference(after, wanted))
	}
	for _, f := range slices.Concat(oldFiles, newFiles) {
		path, _, _ := strings.Cut(f, "=")
		if after[path] != before[path] && after[path] != wanted[path] {
			h.faultf("%s: %s shows %q", where, path, after[path])
		}
	}
}

// view is what a reader sees by name, of all paths of all scenarios.
func view(dir string) map[string]string {
	seen := map[string]string{}
	for _, f := range slices.Concat(oldFiles, newFiles) {
		path, _, _ := strings.Cut(f, "=")
		if b, err := os.ReadFile(filepath.Join(dir, "volume", path)); err == nil {
			seen[path] = string(b)
		}
	}
	return seen
}

func viewOf(files []string) map[string]string {
	seen := map[string]string{}
	for _, f := range files {
		path, content, _ := strings.Cut(f, "=")
		seen[path] = content
	}
	return seen
}
