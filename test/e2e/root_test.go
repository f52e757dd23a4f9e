//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	rootReplaced = `"msg":"somebody deleted or replaced the root; `
	rootLost     = `"msg":"root is lost, `
	rootFound    = `"msg":"root is there again"`
)

// place is where a root is: a directory of a file system, or one of another file system that is mounted on it.
type place struct {
	around, root string
	inside       string // the directory that is mounted on root; "": nothing
}

func newPlace(t *testing.T, mounted bool) place {
	t.Helper()
	p := place{around: tmpfs(t)}
	p.root = filepath.Join(p.around, "root")
	if mounted {
		p.inside = filepath.Join(tmpfs(t), "inside")
		check(t, errors.Join(os.Mkdir(p.root, 0o755), os.Mkdir(p.inside, 0o755)))
		check(t, p.mount())
		t.Cleanup(func() { p.unmount() })
	}
	return p
}

func tmpfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	check(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { check(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

func (p place) mount() error   { return unix.Mount(p.inside, p.root, "", unix.MS_BIND, "") }
func (p place) unmount() error { return unix.Unmount(p.root, unix.MNT_DETACH) }
func (p place) remove() error  { return os.RemoveAll(p.root) }
func (p place) fill() error    { return fill(p.around, 4096) }
func (p place) empty() error   { return empty(p.around) }

// The mount and not its file system is read-only: a directory that was deleted and is held open keeps that from it.
func (p place) close() error { return remount(unix.MS_BIND | unix.MS_RDONLY)(p.around) }
func (p place) open() error  { return remount(unix.MS_BIND)(p.around) }

// TestRootLost: the root is deleted, or its mount goes, and for 20 s a new one can not be made. The daemon stays up, is not
// ready, says why once, and in a metric; seconds after the cause has gone all is there. What comes back with a mount is
// adopted. It is healthy, unless what is mounted was deleted where it is mounted from: only another mount helps then, and
// who restarts a container makes it.
func TestRootLost(t *testing.T) {
	for name, tt := range map[string]struct {
		mounted            bool
		spoil, fix         func(p place) error // no fix: nothing keeps a new one from being made
		adopted, unhealthy bool
	}{
		"deleted":                       {spoil: place.remove},
		"deleted, read-only around":     {spoil: place.removeAndClose, fix: place.open},
		"unmounted, full below":         {mounted: true, spoil: place.fillAndUnmount, fix: place.empty},
		"unmounted and mounted again":   {mounted: true, spoil: place.closeAndUnmount, fix: place.mount, adopted: true},
		"unmounted, nothing else amiss": {mounted: true, spoil: place.unmount},
		"deleted below its mount":       {mounted: true, spoil: place.replaceInside, fix: place.remount, unhealthy: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, tt.mounted)
			n := newNode(t, p.root)
			n.start()
			var paths []string
			for i := range 10 {
				paths = append(paths, n.pod(fmt.Sprint("web-", i)))
			}
			n.measure("the tokens", n.allPublished(paths))
			n.measure("recovery in the metrics", n.whole(paths))
			token, err := os.ReadFile(paths[0])
			check(t, err)

			n.Suspend() // it is not to make a new one before all is amiss
			check(t, tt.spoil(p))
			n.Resume()
			lines := 0
			if tt.fix != nil {
				lines = 1
				told := n.measure("the metric", n.shows("token_projector_root_failed 1"))
				n.expectUnready("the root is lost: ")
				time.Sleep(20 * time.Second) // the fault's length
				n.expectUnready("the root is lost: ")
				n.expectHealth(!tt.unhealthy)
				n.expectLines(rootLost, 1)
				check(t, tt.fix(p))
				t.Logf("in the metrics after %v", told)
			}
			whole := n.measure("all of it", n.whole(paths))
			if whole > promptly {
				t.Errorf("whole again after %v", whole)
			}
			t.Logf("whole again after %v", whole)
			if got, err := os.ReadFile(paths[0]); err != nil || (string(got) == string(token)) != tt.adopted {
				t.Errorf("adopted: %v, want %v; %v", !tt.adopted, tt.adopted, err)
			}
			n.expectLines(rootReplaced, 1)
			n.expectLines(rootLost, lines)
			n.expectLines(rootFound, lines)
			for _, perVolume := range []string{onset, others, `"msg":"volume directory was deleted`, `"msg":"volume was altered`} {
				n.expectLines(perVolume, 0)
			}
			n.Terminate()
		})
	}
}

// TestRootLostUnderStandby: who waits for a root that is lost stays up as well, and afterwards one of the two has it.
func TestRootLostUnderStandby(t *testing.T) {
	t.Parallel()
	p := newPlace(t, false)
	holder := newNode(t, p.root)
	holder.start()
	path := holder.pod("web")
	holder.measure("the token", holder.published(path))
	standby := *holder
	standby.start()
	standby.Line("another process holds the root; standing by")
	both := []*node{holder, &standby}
	for _, n := range both {
		n.Suspend()
	}
	check(t, p.removeAndClose())
	for _, n := range both {
		n.Resume()
	}
	for _, n := range both {
		n.measure("the metric", n.shows("token_projector_root_failed 1"))
		n.expectUnready("the root is lost: ")
	}
	check(t, p.open())
	holder.measure("the token", holder.published(path))
	const held = "token_projector_root_lock_held 1"
	holder.measure("one holder", func() bool {
		return holder.shows(held)() != standby.shows(held)() && holder.readiness() == "ok\n" && standby.readiness() == "ok\n"
	})
	for _, n := range both {
		n.expectLines(rootLost, 1)
		n.expectLines(rootFound, 1)
		n.Terminate()
	}
}

func (p place) removeAndClose() error  { return errors.Join(p.remove(), p.close()) }
func (p place) fillAndUnmount() error  { return errors.Join(p.fill(), p.unmount()) }
func (p place) closeAndUnmount() error { return errors.Join(p.unmount(), p.close()) }
func (p place) remount() error         { return errors.Join(p.unmount(), p.mount()) }

// replaceInside deletes what is mounted, and makes another one under its name, which is not mounted.
func (p place) replaceInside() error {
	return errors.Join(os.RemoveAll(p.inside), os.Mkdir(p.inside, 0o755))
}

// whole reports whether every token is there, and the daemon says so.
func (n *node) whole(paths []string) func() bool {
	return func() bool {
		return n.allPublished(paths)() && n.shows("token_projector_root_failed 0")() && n.shows("token_projector_root_lock_held 1")() &&
			n.shows(fmt.Sprintf(`token_projector_volumes{state="ready"} %d`, len(paths)))() && n.readiness() == "ok\n" && n.probe("/healthz") == "ok\n"
	}
}

func (n *node) expectUnready(why string) {
	n.t.Helper()
	if got := n.readiness(); !strings.Contains(got, why) {
		n.t.Errorf("readyz says %q, want %q", got, why)
	}
}

// expectHealth wants /healthz to be ok, or to fail and say that the root is lost.
func (n *node) expectHealth(ok bool) {
	n.t.Helper()
	want := "the root is lost: "
	if ok {
		want = "ok\n"
	}
	if got := n.probe("/healthz"); !strings.HasPrefix(got, want) {
		n.t.Errorf("healthz says %q, want %q", got, want)
	}
}

func (n *node) readiness() string { return n.probe("/readyz") }

// probe is what the probe answers.
func (n *node) probe(path string) string {
	n.t.Helper()
	resp, err := http.Get("http://" + n.Health + path)
	check(n.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(n.t, err)
	if ok := resp.StatusCode == http.StatusOK; ok != (string(body) == "ok\n") {
		n.t.Errorf("%s: %s, %q", path, resp.Status, body)
	}
	return string(body)
}
