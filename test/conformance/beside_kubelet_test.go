//go:build e2e

package conformance

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/utils/ptr"
)

const (
	// unmountedVolumes is how many each pod has. First refreshes are spread over seven eighths of what is left to a token, so
	// that of many one is due soon.
	unmountedVolumes = 12
	besideMount      = "/var/run/secrets/vault" // where the container sees them
	kubeletVolume    = "own"                    // a token volume that the container mounts
	kubeletUser      = 65534                    // whom a container runs as that says nothing
	vaultUser        = 1234
	daemonAgent      = "token-projector"
)

// besideKubelet is a node with a kubelet, and the daemon beside it.
type besideKubelet struct {
	*node
	kubelet *kubelet
	made    map[string]fs.FileInfo // the volume directories that were there before the daemon's files, by path
	own     tree                   // the kubelet's volumes
	readers []*reader
}

// A pod declares token volumes that it does not mount, and mounts them from the daemon's root instead, by subPathExpr. The
// kubelet makes and binds the directory, the daemon fills it, in whichever order. The steps share the node, in this order.
func TestBesideKubelet(t *testing.T) {
	n := &besideKubelet{
		node: &node{whole: t, name: "node-kubelet", user: "system:node:node-kubelet", root: filepath.Join(t.TempDir(), "root")},
		made: map[string]fs.FileInfo{},
	}
	config, err := plane.Node(n.name)
	if err != nil {
		t.Fatal(err)
	}
	n.kubelet = startKubelet(t, n.name, config)
	createNamespace(t, n.name)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"the kubelet makes the root", n.testRootOfKubelet},
		{"the daemon is first", n.testDaemonFirst},
		{"the kubelet is first", n.testKubeletFirst},
		{"each has its own volumes", n.testShares},
		{"inspect", n.testInspect},
		{"rotation, kill -9, rotation", n.testRotation},
		{"what was read", n.testRead},
		{"the kubelet's volumes are untouched", n.testUntouched},
		{"deletion", n.testBothDelete},
		{"SIGTERM", n.testTerminate},
	} {
		if !t.Run(step.name, step.run) {
			return // the next would fail for the same reason
		}
	}
}

// No daemon has ever been there.
func (n *besideKubelet) testRootOfKubelet(t *testing.T) {
	pod := n.besidePod(t, "first", nil)
	n.kubelet.awaitRunning(t, pod)
	n.noteEmpty(t, pod, 0o755)
	n.start(t, "--volumes=unmounted")
	n.awaitRead(t, pod)
	n.filled(t, pod)
	wantMode(t, n.root, 0o700, 0, 0)
}

func (n *besideKubelet) testDaemonFirst(t *testing.T) {
	n.kubelet.suspend(t)
	pod := n.besidePod(t, "second", nil)
	for i := range unmountedVolumes {
		dir := volumeDir(n.root, pod, unmountedVolume(i))
		eventually(t, func() error { return missing(dir, vaultFile) })
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		n.made[dir] = info
	}
	if _, err := os.Stat(n.container(pod)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the container of a suspended kubelet: %v", err)
	}
	n.kubelet.resume(t)
	n.kubelet.awaitRunning(t, pod)
	n.awaitRead(t, pod)
	n.filled(t, pod)
}

// The daemon is down. The kubelet makes the directories as private as the root, and no user could enter them.
func (n *besideKubelet) testKubeletFirst(t *testing.T) {
	n.kill(t)
	pod := n.besidePod(t, "third", ptr.To[int64](vaultUser))
	n.kubelet.awaitRunning(t, pod)
	n.noteEmpty(t, pod, 0o700)
	if _, err := readAs(vaultUser, n.container(pod), unmountedFiles()[0]); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a directory of mode 0700, read by another: %v", err)
	}
	n.start(t, "--volumes=unmounted")
	n.awaitRead(t, pod)
	n.filled(t, pod)
}

// Each of the two projects what is its own, and asks for nothing else. From here on the kubelet's volumes are watched.
func (n *besideKubelet) testShares(t *testing.T) {
	ours := make([]string, unmountedVolumes)
	for i := range ours {
		ours[i] = unmountedVolume(i)
	}
	for _, pod := range n.pods {
		theirs := []string{kubeletVolume, apiAccess(t, pod)}
		mine, its := projectedDir(n.root, pod), projectedDir(n.kubelet.root, pod)
		if otherThan(mine, append(theirs, ours...)) == nil || otherThan(its, append(ours, theirs...)) == nil {
			t.Fatal("a volume too few was not noticed")
		}
		if err := errors.Join(otherThan(mine, ours), otherThan(its, theirs)); err != nil {
			t.Error(err)
		}
	}
	agents := map[string]int{"kubelet": 2 * len(n.pods), daemonAgent: unmountedVolumes * len(n.pods)}
	eventually(t, func() error {
		if got := n.granted(t); !maps.Equal(got, agents) {
			return fmt.Errorf("granted to %v, want %v", got, agents)
		}
		return nil
	})
	n.planted(t)
	n.own = n.kubeletVolumes(t)
}

func (n *besideKubelet) testUntouched(t *testing.T) {
	if err := n.own.changed(n.kubeletVolumes(t)); err != nil {
		t.Errorf("of the kubelet's volumes %v", err)
	}
}

// awaitRotation waits until more tokens than before have been read in the place of others.
func (n *besideKubelet) awaitRotation(t *testing.T, before int) {
	t.Helper()
	begun := time.Now()
	within(t, 6*time.Minute, func() error {
		if n.rotations() == before {
			return errors.New("no token was rotated")
		}
		return nil
	})
	t.Logf("a token was rotated after %v", time.Since(begun).Round(time.Second))
}

// Tokens live for ten minutes, and one of many is due a minute or so after it came.
func (n *besideKubelet) testRotation(t *testing.T) {
	n.awaitRotation(t, 0)
	for range 3 {
		wantNoLeak(t, n.logFile, n.tokens())
		n.kill(t)
		before := n.rotations()
		n.start(t, "--volumes=unmounted")
		eventually(t, func() error {
			return n.wantMetric(float64(unmountedVolumes*len(n.pods)), "token_projector_adopted_tokens_total")
		})
		n.awaitRotation(t, before)
	}
	for _, pod := range n.pods {
		n.filled(t, pod)
	}
}

// What the containers' users have read, all the time and by name, was one whole token after the other, each their pod's own.
func (n *besideKubelet) testRead(t *testing.T) {
	sum := 0
	for i, r := range n.readers {
		seen, err := r.result()
		if err != nil {
			t.Errorf("in %s: %v", n.pods[i].Name, err)
		}
		for name, tokens := range seen {
			for _, token := range tokens {
				sum++
				if err := notTokenOf(review(t, token, vaultAud), n.pods[i]); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if notTokenOf(review(t, seen[unmountedFiles()[0]][0], vaultAud), n.pods[(i+1)%len(n.pods)]) == nil {
			t.Error("a token of another pod was not noticed")
		}
	}
	if got := n.granted(t)[daemonAgent]; got < sum || sum <= unmountedVolumes*len(n.pods) {
		t.Errorf("%d tokens were read, %d were granted", sum, got)
	}
	n.seen = n.tokens()
}

// Both clean up, and neither keeps the other from it.
func (n *besideKubelet) testBothDelete(t *testing.T) {
	pod := n.popPod()
	uid := string(pod.UID)
	if len(mountsWith(t, uid)) == 0 {
		t.Fatal("nothing of a running pod is mounted")
	}
	n.readers[len(n.pods)].stop()
	deletePod(t, pod, 1)
	eventually(t, func() error { return n.gone(pod) })
	within(t, 3*time.Minute, func() error {
		if points := mountsWith(t, uid); len(points) > 0 {
			return fmt.Errorf("still mounted: %v", points)
		}
		_, err := os.Stat(podDir(n.kubelet.root, pod))
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the kubelet's directory of the pod: %v", err)
		}
		return nil
	})
	for _, pod := range n.pods {
		n.filled(t, pod)
		for _, name := range unmountedFiles() {
			content, err := readAs(userOf(pod), n.container(pod), name)
			if err := errors.Join(err, unusable(content, time.Now())); err != nil {
				t.Errorf("in %s, %s: %v", pod.Name, name, err)
			}
		}
	}
	for i, r := range n.readers { // also of the deleted pod, until its end
		if _, err := r.result(); err != nil {
			t.Errorf("in container %d: %v", i, err)
		}
	}
}
