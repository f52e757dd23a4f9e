package atomicwriter

import (
	"errors"
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

// TestOpen: only directories below, by no link and no "..".
func TestOpen(t *testing.T) {
	top := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(top, "root/a/b"), 0o755))
	check(t, os.WriteFile(filepath.Join(top, "root/file"), nil, 0o644))
	check(t, os.Symlink("a", filepath.Join(top, "root/link")))
	check(t, os.Symlink("root", filepath.Join(top, "operator")))
	root := must(OpenRoot(filepath.Join(top, "operator")))(t)
	defer root.Close()
	for path, want := range map[string]error{
		"a": nil, "a/b": nil, ".": nil, "./a//b/": nil,
		"": fs.ErrInvalid, "..": fs.ErrInvalid, "a/../a": fs.ErrInvalid, "/a": fs.ErrInvalid, "a\x00": fs.ErrInvalid,
		"absent": fs.ErrNotExist, "a/absent/b": fs.ErrNotExist,
		"file": unix.ENOTDIR, "file/a": unix.ENOTDIR, "link": unix.ENOTDIR, "link/b": unix.ELOOP,
	} {
		for _, open := range []func(string) (*Dir, error){root.Open, root.OpenCrossing} {
			d, err := open(path)
			var pathErr *fs.PathError
			if !errors.Is(err, want) || err != nil && !errors.As(err, &pathErr) {
				t.Errorf("open %q: %v, want %v", path, err, want)
			}
			if err == nil {
				check(t, d.Close())
			}
		}
	}
	if _, err := OpenRoot(filepath.Join(top, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent root: %v", err)
	}
}

// TestOpenMount: /proc is a mount wherever the tests run. Open stays out of it; OpenCrossing enters.
func TestOpenMount(t *testing.T) {
	root := must(OpenRoot("/"))(t)
	defer root.Close()
	for _, path := range []string{"proc", "proc/self"} {
		if _, err := root.Open(path); !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.ELOOP) {
			t.Errorf("open %s: %v", path, err)
		}
	}
	proc := must(root.OpenCrossing("proc/sys"))(t)
	defer proc.Close()
	if name := must(proc.Filesystem())(t); name != "proc" {
		t.Errorf("the file system is %s", name)
	}
}

// TestDirTells: identity, links, file system.
func TestDirTells(t *testing.T) {
	top := t.TempDir()
	root := must(OpenRoot(top))(t)
	defer root.Close()
	one := must(root.Mkdir("one", 0o755))(t)
	defer one.Close()
	same := must(root.Open("one"))(t)
	defer same.Close()
	id := must(one.ID())(t)
	if got := must(same.ID())(t); got != id {
		t.Errorf("one directory has IDs %v and %v", id, got)
	}
	if !must(one.Linked())(t) {
		t.Error("not linked")
	}
	other := must(root.Mkdir("other", 0o755))(t)
	defer other.Close()
	check(t, os.Remove(filepath.Join(top, "one")))
	check(t, os.Rename(filepath.Join(top, "other"), filepath.Join(top, "one")))
	if must(one.Linked())(t) {
		t.Error("linked after its removal")
	}
	if got := must(other.ID())(t); got == id {
		t.Error("another directory has the same ID")
	}
	var st unix.Statfs_t
	check(t, unix.Statfs(top, &st))
	memory := st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
	if got := must(one.Memory())(t); got != memory {
		t.Errorf("memory: %v", got)
	}
	if name := (&Dir{magic: 0x1234}); must(name.Filesystem())(t) != "0x1234" {
		t.Error("an unknown file system has another name")
	}
	check(t, one.Close())
	check(t, one.Close())
}

// withUmask runs f under a umask.
func withUmask(mask int, f func()) {
	defer syscall.Umask(syscall.Umask(mask))
	f()
}

func expectMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	check(t, err)
	if got := info.Mode() &^ fs.ModeType; got != want {
		t.Errorf("%s has mode %v, want %v", path, got, want)
	}
}

// TestModes: modes are exact under every umask, of directories made or adopted, of files and versions.
func TestModes(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o077, 0o777} {
		top := t.TempDir()
		root := must(OpenRoot(top))(t)
		check(t, os.MkdirAll(filepath.Join(top, "old/adopted"), 0o755))
		check(t, os.Chmod(filepath.Join(top, "old/adopted"), 0o2311))
		check(t, os.Chmod(filepath.Join(top, "old"), 0o700))
		wish := []File{{Path: "a", Mode: 0o644}, {Path: "b/c/d", Mode: 0o600}, {Path: "b/e", Mode: 0o666}, {Path: "f", Mode: 0}, {Path: "g", Mode: 0o777}}
		var d *Dir
		withUmask(mask, func() {
			check(t, must(root.Mkdir("pods/uid", 0o700))(t).Close())
			d = must(root.Mkdir("old/adopted", 0o755))(t)
			publish(t, d, Written, wish, at(0))
		})
		expectMode(t, filepath.Join(top, "pods"), 0o700)
		expectMode(t, filepath.Join(top, "pods/uid"), 0o700)
		expectMode(t, filepath.Join(top, "old"), 0o700)
		volume := filepath.Join(top, "old/adopted")
		expectMode(t, volume, 0o755)
		version := filepath.Join(volume, versions(t, d)[0])
		for _, dir := range []string{version, filepath.Join(version, "b"), filepath.Join(version, "b/c")} {
			expectMode(t, dir, 0o755)
		}
		for _, f := range wish {
			want := f.Mode
			if !d.readsAll { // then its owner may
				want |= 0o400
			}
			expectMode(t, filepath.Join(version, f.Path), want)
		}
		check(t, d.Close())
		check(t, root.Close())
	}
}

// TestSetgid: in a setgid directory a version is as anywhere else, and stays so.
func TestSetgid(t *testing.T) {
	dir, d := volume(t)
	check(t, os.Chmod(dir, 0o755|fs.ModeSetgid))
	if os.Geteuid() == 0 {
		check(t, os.Chown(dir, 0, 4321))
		check(t, os.Chmod(dir, 0o755|fs.ModeSetgid))
	}
	wish := files("token", "t", "d/e", "e")
	publish(t, d, Written, wish, at(0))
	publish(t, d, Unchanged, wish, at(1))
}

// TestMkdirInTheWay: neither a link nor a file is followed or replaced.
func TestMkdirInTheWay(t *testing.T) {
	top := t.TempDir()
	root := must(OpenRoot(top))(t)
	defer root.Close()
	check(t, os.Mkdir(filepath.Join(top, "target"), 0o700))
	check(t, os.Symlink("target", filepath.Join(top, "link")))
	check(t, os.WriteFile(filepath.Join(top, "file"), nil, 0o600))
	before := snapshot(t, top)
	for _, path := range []string{"link", "link/a", "file", "file/a", "", "../x", "/x"} {
		if _, err := root.Mkdir(path, 0o755); err == nil {
			t.Errorf("made %q", path)
		}
	}
	expectTree(t, snapshot(t, top), before)
}

// deepTree makes a chain of directories that no path names.
func deepTree(t *testing.T, path string, depth int) {
	check(t, os.Mkdir(path, 0o755))
	fd, err := unix.Open(path, openDir, 0)
	check(t, err)
	for range depth {
		check(t, unix.Mkdirat(fd, "d", 0o755))
		next, err := unix.Openat(fd, "d", openDir, 0)
		check(t, err)
		check(t, unix.Close(fd))
		fd = next
	}
	check(t, unix.Close(fd))
}

// withDescriptors runs f with a limit of open files.
func withDescriptors(t *testing.T, n uint64, f func()) {
	var limit syscall.Rlimit
	check(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	defer func() { check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)) }()
	check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: min(n, limit.Cur), Max: limit.Max}))
	f()
}

// TestRemove: trees of any depth and width, with few descriptors; links are not followed.
func TestRemove(t *testing.T) {
	outside := outsider(t)
	before := snapshot(t, outside)
	top := t.TempDir()
	root := must(OpenRoot(top))(t)
	defer root.Close()
	deepTree(t, filepath.Join(top, "deep"), 3000)
	check(t, os.Mkdir(filepath.Join(top, "wide"), 0o755))
	for i := range 2000 {
		check(t, os.Symlink(outside, filepath.Join(top, "wide", strings.Repeat("x", i%200+1)+string(rune('a'+i/200)))))
	}
	check(t, garbage["tree"](filepath.Join(top, "tree"), outside))
	check(t, os.Chmod(filepath.Join(top, "tree/a/b"), 0o500))
	withDescriptors(t, 256, func() {
		for _, name := range []string{"deep", "wide", "tree", "absent"} {
			check(t, root.Remove(name))
		}
	})
	if names := must(root.Names())(t); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
	for _, name := range []string{"", ".", "..", "a/b", "/"} {
		if err := root.Remove(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("remove %q: %v", name, err)
		}
	}
	expectTree(t, snapshot(t, outside), before)
}

// TestSweep: neither the current version nor anything of another shape goes.
func TestSweep(t *testing.T) {
	dir, d := volume(t)
	wish := files("token", "t")
	r := publish(t, d, Written, wish, at(0))
	old := versionName(testTime, 1)
	check(t, os.Mkdir(filepath.Join(dir, old), 0o755))
	check(t, os.Mkdir(filepath.Join(dir, "..other"), 0o755))
	check(t, d.Sweep([]string{r.Version, old, "..other", "token", "..data", "../volume", ""}))
	want := []string{dataLink, r.Version, "..other", "token"}
	if got := must(d.Names())(t); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("left: %v", got)
	}
	expectView(t, dir, wish)
}

const inNamespace = "ATOMICWRITER_TEST_MOUNTS"

// TestRemoveMount runs itself in a mount namespace of its own, and there removeAroundMount. Where the kernel makes none for us, what is left of the
// rule is TestOpenMount: Remove enters directories by the same call as Open.
func TestRemoveMount(t *testing.T) {
	if top := os.Getenv(inNamespace); top != "" {
		removeAroundMount(t, top)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestRemoveMount$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil && strings.Contains(string(out), "removed around a mount"):
	case errors.As(err, &exit), err == nil:
		t.Errorf("%v\n%s", err, out)
	default:
		t.Logf("no mount namespace: %v", err)
		TestOpenMount(t)
	}
}

// removeAroundMount is the part of TestRemoveMount inside the namespace.
func removeAroundMount(t *testing.T, top string) {
	check(t, unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	outside := filepath.Join(top, "outside")
	check(t, os.MkdirAll(filepath.Join(outside, "dir"), 0o755))
	check(t, os.WriteFile(filepath.Join(outside, "file"), []byte("outside"), 0o644))
	tree := filepath.Join(top, "root/tree")
	check(t, os.MkdirAll(filepath.Join(tree, "a/mount"), 0o755))
	check(t, os.MkdirAll(filepath.Join(tree, "b/c"), 0o755))
	check(t, os.WriteFile(filepath.Join(tree, "a/file"), nil, 0o644))
	check(t, os.WriteFile(filepath.Join(tree, "mounted file"), nil, 0o644))
	check(t, unix.Mount(outside, filepath.Join(tree, "a/mount"), "", unix.MS_BIND, ""))
	check(t, unix.Mount(filepath.Join(outside, "file"), filepath.Join(tree, "mounted file"), "", unix.MS_BIND, ""))
	before := snapshot(t, outside)
	root := must(OpenRoot(filepath.Join(top, "root")))(t)
	defer root.Close()
	err := root.Remove("tree")
	if !errors.Is(err, errMount) || !strings.Contains(err.Error(), "mount:") || !strings.Contains(err.Error(), "mounted file:") {
		t.Errorf("the mounts are not named: %v", err)
	}
	expectTree(t, snapshot(t, outside), before)
	left := slices.DeleteFunc(slices.Collect(maps.Keys(snapshot(t, tree))), func(p string) bool { return strings.HasPrefix(p, "a/mount/") })
	slices.Sort(left)
	if want := []string{".", "a", "a/mount", "mounted file"}; !slices.Equal(left, want) {
		t.Errorf("left: %q, want %q", left, want)
	}
	check(t, os.RemoveAll(filepath.Join(tree, "a/mount/dir"))) // a careless walk would have
	if treeDiff(snapshot(t, outside), before) == "" {
		t.Error("a removal through the mount was not caught")
	}
	t.Log("removed around a mount")
}

// TestRemoveInParts: what gets new entries as fast as they go is not finished for ever, but given back to the caller; and so is
// what has very many. Another call goes on.
func TestRemoveInParts(t *testing.T) {
	defer func(was int) { maxWork = was }(maxWork)
	maxWork = 300
	top := t.TempDir()
	root := must(OpenRoot(top))(t)
	defer root.Close()
	tree := filepath.Join(top, "tree")
	check(t, os.MkdirAll(filepath.Join(tree, "sub"), 0o755))
	made, removed := 0, 0
	root.hook = func(op, name string, done bool) error {
		if op != "unlinkat" || !done || removed > 4*maxWork {
			return nil
		}
		removed++
		for range 2 { // from another process
			made++
			_ = os.WriteFile(filepath.Join(tree, "sub", fmt.Sprint(made)), nil, 0o644)
			if made%20 == 0 {
				_ = os.MkdirAll(filepath.Join(tree, fmt.Sprint(made)+strings.Repeat("/d", maxWalk+1)), 0o755)
			}
		}
		return nil
	}
	check(t, os.WriteFile(filepath.Join(tree, "file"), nil, 0o644))
	if err := root.Remove("tree"); !errors.Is(err, ErrUnfinished) || removed > maxWork+1 {
		t.Fatalf("%v after %d entries, want an end after %d", err, removed, maxWork)
	}
	root.hook = nil
	for part := 1; ; part++ {
		err := root.Remove("tree")
		if err == nil {
			break
		}
		if !errors.Is(err, ErrUnfinished) || part > made {
			t.Fatalf("part %d: %v", part, err)
		}
	}
	if names := must(root.Names())(t); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
}

// TestRemoveTellsFew: a thousand entries that resist, in directories of many levels, are an error of a few lines. What does not
// resist goes.
func TestRemoveTellsFew(t *testing.T) {
	top := t.TempDir()
	root := must(OpenRoot(top))(t)
	defer root.Close()
	for i := range 1000 {
		dir := filepath.Join(top, "tree", fmt.Sprint(i%10), strings.Repeat("d/", i%40))
		check(t, os.MkdirAll(dir, 0o755))
		check(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("stuck", i)), nil, 0o644))
		check(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("loose", i)), nil, 0o644))
	}
	root.hook = func(op, name string, done bool) error {
		if op == "unlinkat" && strings.HasPrefix(name, "stuck") {
			return unix.EPERM
		}
		return nil
	}
	err := root.Remove("tree")
	if !errors.Is(err, unix.EPERM) || len(err.Error()) > 4096 || !strings.Contains(err.Error(), "more") {
		t.Errorf("%d bytes: %.300v", len(fmt.Sprint(err)), err)
	}
	stuck := 0
	for name := range snapshot(t, filepath.Join(top, "tree")) {
		if strings.Contains(filepath.Base(name), "loose") {
			t.Errorf("left: %s", name)
		}
		if strings.Contains(filepath.Base(name), "stuck") {
			stuck++
		}
	}
	if stuck != 1000 {
		t.Errorf("%d of 1000 that resist are there", stuck)
	}
}
