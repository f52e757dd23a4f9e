//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/token-projector/token-projector/test/daemontest"
)

const (
	blindBegins = `"msg":"no watches left; `
	blindEnds   = `"msg":"all volumes are watched again"`
)

// without gives what follows a user namespace that has none of a resource of the kernel's.
func without(resource string) []string {
	return []string{"unshare", "--user", "--map-root-user", "sh", "-c", `echo 0 >/proc/sys/user/` + resource + ` && exec "$@"`, "sh"}
}

// allow sets how many of the resource the daemon's namespace may have.
func (n *node) allow(resource string, number int) {
	n.t.Helper()
	enter := exec.Command("nsenter", "--user", "--preserve-credentials", "--target", fmt.Sprint(n.PID()),
		"sh", "-c", fmt.Sprintf("echo %d >/proc/sys/user/%s", number, resource))
	if out, err := enter.CombinedOutput(); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
}

// TestNoInotifyWatches: with none left, or no inotify instance to have them of, the daemon says so once and in a metric, and
// still repairs. Seconds after there are some again it has them, has found what was altered meanwhile, and has said so.
func TestNoInotifyWatches(t *testing.T) {
	for _, resource := range []string{"max_inotify_watches", "max_inotify_instances"} {
		t.Run(resource, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, daemontest.MemoryDir(t))
			n.Process = daemontest.StartUnder(t, without(resource), n.api, n.root)
			var paths []string
			for i := range 10 {
				paths = append(paths, n.pod(fmt.Sprint("web-", i)))
			}
			whole := n.allPublished(paths)
			n.measure("the tokens", whole)
			n.measure("the metric", n.shows("token_projector_watch_degraded 1"))
			n.expectLines(blindBegins, 1)
			n.harm(paths)
			swept := n.measure("repair without watches", whole)

			n.harm(paths)
			n.allow(resource, 100)
			found := n.measure("repair", whole)
			watching := found + n.measure("watches again", n.shows("token_projector_watch_degraded 0"))
			n.expectLines(blindEnds, 1)
			if watching > promptly {
				t.Errorf("whole %v, watching %v after there were watches", found, watching)
			}
			watched := n.watched(paths, whole)
			t.Logf("without watches repaired after %v; whole %v and all watched %v after there were some; then repaired after %v", swept, found, watching, watched)
			if resource == "max_inotify_watches" { // what was watched stays so, but each repair needs a watch for its version
				n.allow(resource, 0)
				check(t, os.WriteFile(paths[0], []byte("altered"), 0o600))
				n.measure("the metric", n.shows("token_projector_watch_degraded 1"))
				n.expectLines(blindBegins, 2)
				n.allow(resource, 100)
				n.measure("watches again", n.shows("token_projector_watch_degraded 0"))
				n.expectLines(blindEnds, 2)
			} else {
				n.expectLines(blindBegins, 1)
			}
			n.Terminate()
		})
	}
}

// watched is after how long harmed volumes are whole, which are watched: without watches the last of ten takes twenty seconds. A time that is over
// its bound is taken once more.
func (n *node) watched(paths []string, whole func() bool) (took time.Duration) {
	n.t.Helper()
	const bound = 15 * time.Second
	for range 2 {
		n.harm(paths)
		if took = n.measure("repair with watches", whole); took <= bound {
			return took
		}
	}
	n.t.Errorf("repaired after %v, twice in a row", took)
	return took
}

func (n *node) harm(paths []string) {
	n.t.Helper()
	for _, p := range paths {
		check(n.t, os.Remove(p))
	}
}
