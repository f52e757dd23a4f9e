//go:build e2e

package conformance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ownMountsEnv tells this process that its mounts are its own.
const ownMountsEnv = "CONFORMANCE_OWN_MOUNTS"

// What is mounted here, nobody else sees, and the kernel unmounts it with the last process of ours, whatever ended that.
func init() {
	if os.Getenv(ownMountsEnv) != "" || os.Getenv(sandboxEnv) != "" { // a sandbox has its own, and sees what it should of ours
		return
	}
	runtime.LockOSThread() // the thread that left is the one that goes on
	err := unix.Unshare(unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err == nil {
		err = unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), ownMountsEnv+"=1"))
	}
	fmt.Fprintln(os.Stderr, "take mounts of our own, which needs root:", err)
	os.Exit(1)
}

// kernelTunables is what a kubelet wants of the kernel, and writes if need be: of the whole machine.
var kernelTunables = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// kubeletDir is where every kubelet keeps the sockets of device plugins, wherever its root is. In /var/log are links to the
// containers' logs.
const kubeletDir = "/var/lib/kubelet"

// coverMachine lets a kubelet find what it wants of the machine, and write where its paths are fixed, and all of it is ours.
func coverMachine(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	cover := func(what, place string) {
		if err := unix.Mount(what, place, "", unix.MS_BIND, ""); err != nil {
			t.Fatalf("cover %s: %v", place, err)
		}
		t.Cleanup(func() { unmount(t, place) })
	}
	for name, value := range kernelTunables {
		file := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o444); err != nil {
			t.Fatal(err)
		}
		cover(file, filepath.Join("/proc/sys", name))
	}
	for name, place := range map[string]string{"log": "/var/log", "lib": filepath.Dir(kubeletDir)} {
		empty := filepath.Join(dir, name)
		if err := os.Mkdir(empty, 0o755); err != nil {
			t.Fatal(err)
		}
		cover(empty, place)
	}
	keepInside(t, dir, kubeletDir)
}

// keepInside wants, at the test's end, that a path was made, and that nobody sees it whose mounts are not ours. What is made in
// a directory that is not covered everybody sees.
func keepInside(t *testing.T, uncovered, path string) {
	t.Helper()
	// Our parent's mounts are the ones that we left.
	outside := func(path string) string { return fmt.Sprintf("/proc/%d/root%s", os.Getppid(), path) }
	if !isThere(t, outside(uncovered)) {
		t.Fatalf("%s is not covered, and was not noticed", uncovered)
	}
	before := isThere(t, outside(path))
	t.Cleanup(func() { // before the covers go
		if !isThere(t, path) {
			t.Errorf("nobody has made %s", path)
		}
		if after := isThere(t, outside(path)); after != before {
			t.Errorf("%s on the machine: there before: %v, after: %v", path, before, after)
		}
	})
}

func isThere(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func unmount(t *testing.T, place string) {
	t.Helper()
	if err := unix.Unmount(place, unix.MNT_DETACH); err != nil {
		t.Errorf("unmount %s: %v", place, err)
	}
}

// mountsWith lists the mount points whose path holds part, the innermost last.
func mountsWith(t *testing.T, part string) []string {
	t.Helper()
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var points []string
	for line := range strings.Lines(string(info)) {
		// No path of ours has a character that is escaped here.
		if point := strings.Fields(line)[4]; strings.Contains(point, part) {
			points = append(points, point)
		}
	}
	return points
}
