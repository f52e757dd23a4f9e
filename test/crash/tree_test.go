//go:build crash

package crash

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// snapshot describes everything below dir, with the current version's name replaced so that trees of different times
// compare.
func snapshot(dir string) map[string]string {
	version, _ := os.Readlink(filepath.Join(dir, "volume", "..data"))
	tree := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		line := describe(path)
		if version != "" {
			rel, line = strings.ReplaceAll(rel, version, "VERSION"), strings.ReplaceAll(line, version, "VERSION")
		}
		tree[rel] = line
		return nil
	})
	if err != nil {
		tree["error"] = err.Error()
	}
	return tree
}

// describe is one line about a file: mode, owner, links, and content or target.
func describe(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return err.Error()
	}
	st := info.Sys().(*syscall.Stat_t)
	line := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
	switch {
	case info.Mode().IsRegular():
		b, err := os.ReadFile(path)
		line += fmt.Sprintf(" %q %v", b, err)
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		line += fmt.Sprintf(" -> %s %v", target, err)
	}
	return line
}

func difference(got, want map[string]string) string {
	var b strings.Builder
	all := maps.Clone(got)
	maps.Copy(all, want)
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if got[k] != want[k] {
			fmt.Fprintf(&b, "%s: got %q, want %q\n", k, got[k], want[k])
		}
	}
	return b.String()
}

// fileSystems are a directory on tmpfs and one on ext4, which is made in a file if the machine's own disk is something
// else.
func fileSystems(t *testing.T) map[string]string {
	t.Helper()
	memory, err := os.MkdirTemp("/dev/shm", "crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(memory) })
	disk := t.TempDir()
	if magic(t, disk) != unix.EXT4_SUPER_MAGIC {
		mountExt4(t, disk)
	}
	if magic(t, memory) != unix.TMPFS_MAGIC || magic(t, disk) != unix.EXT4_SUPER_MAGIC {
		t.Fatalf("%s is not tmpfs or %s is not ext4", memory, disk)
	}
	return map[string]string{"tmpfs": memory, "ext4": disk}
}

func magic(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Type)
}

func mountExt4(t *testing.T, dir string) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "ext4")
	for _, command := range [][]string{
		{"truncate", "-s", "64M", image}, {"/sbin/mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", command, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}
