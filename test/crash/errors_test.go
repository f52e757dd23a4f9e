//go:build crash

package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// errnos are what a failing disk says: broken, full, read-only, over quota, no descriptor left.
var errnos = []string{"EIO", "ENOSPC", "EROFS", "EDQUOT", "EMFILE"}

// A publisher each of whose calls fails once, undone: readers see the old volume or the new one, it says what is wrong or
// has done its work, and a new process on the same directory makes everything as an undisturbed one does.
// (That a call fails although it was done is planted in process: TestFaults of package atomicwriter.)
func TestEverySystemCallFails(t *testing.T) {
	publisher := buildPublisher(t)
	for fs, dir := range fileSystems(t) {
		t.Run(fs, func(t *testing.T) {
			t.Run("planted", func(t *testing.T) {
				h := &harness{t: t, publisher: publisher, parent: dir}
				h.failAll(scenario{name: "in place", before: []string{"token=old"}, act: "inplace", after: []string{"token=new", "added=added"}}, "EIO")
				if len(h.faults) == 0 {
					t.Fatal("a writer in place was not caught")
				}
			})
			for _, s := range scenarios {
				t.Run(s.name, func(t *testing.T) {
					h := &harness{t: t, publisher: publisher, parent: dir}
					for _, errno := range errnos {
						t.Logf("%s: %d failures", errno, h.failAll(s, errno))
					}
					for _, fault := range h.faults {
						t.Error(fault)
					}
				})
			}
		})
	}
}

// failAll fails the 1st, 2nd, ... call of each kind of the act, until it has no more, and returns how many did.
func (h *harness) failAll(s scenario, errno string) int {
	h.t.Helper()
	clean := h.fresh(s)
	h.run(s.act, clean, s.after)
	want, failures := snapshot(clean), 0
	for _, call := range changing {
		n := 1
		for h.failOnce(s, call, errno, n, want) {
			n++
		}
		failures += n - 1
	}
	if failures == 0 {
		h.t.Fatal("nothing ever failed")
	}
	return failures
}

// failOnce reports whether there was an n-th call of that kind to fail.
func (h *harness) failOnce(s scenario, call, errno string, n int, want map[string]string) bool {
	h.t.Helper()
	dir := h.fresh(s)
	before := view(dir)
	failed, told := h.runFailing(call, errno, n, s.act, dir, s.after)
	where := fmt.Sprintf("%s, %s from %s number %d", s.name, errno, call, n)
	h.judge(s, where, before, view(dir))
	if diff := difference(snapshot(dir), want); diff != "" && told == "" {
		h.faultf("%s: no word about it, but the tree differs:\n%s", where, diff)
	}
	h.run(s.act, dir, s.after)
	if diff := difference(snapshot(dir), want); diff != "" {
		h.faultf("%s: after the next %s the tree differs:\n%s", where, s.act, diff)
	}
	if err := os.RemoveAll(dir); err != nil {
		h.t.Fatal(err)
	}
	return failed
}

// runFailing does an act and fails its n-th call of a kind. It reports whether there was one, and what the act said if it
// ended with an error.
func (h *harness) runFailing(call, errno string, n int, act, dir string, files []string) (failed bool, told string) {
	h.t.Helper()
	trace, err := os.CreateTemp(h.t.TempDir(), "trace-")
	if err != nil {
		h.t.Fatal(err)
	}
	defer trace.Close()
	args := []string{"-f", "-qq", "-o", trace.Name(), "-e", "trace=" + call, "-e", "signal=none",
		"-e", fmt.Sprintf("inject=%s:error=%s:when=%d", call, errno, n), h.publisher, act, dir}
	out, err := exec.Command("strace", append(args, files...)...).CombinedOutput()
	if err != nil {
		told = string(out)
	}
	if e, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || e.ExitCode() != 1 || strings.Contains(told, "panic:")) {
		h.t.Fatalf("strace: %v: %s", err, out)
	}
	lines, err := os.ReadFile(trace.Name())
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.Contains(string(lines), "(INJECTED)"), told
}
