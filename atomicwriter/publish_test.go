package atomicwriter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

// TestLayout: byte for byte the kubelet's.
func TestLayout(t *testing.T) {
	dir, d := volume(t)
	r := publish(t, d, Written, files("token", "t", "d/e", "e"), at(0))
	self := fmt.Sprintf(" %d:%d", os.Geteuid(), os.Getegid())
	expectTree(t, snapshot(t, dir), map[string]string{
		".": "drwxr-xr-x" + self, "VERSION": "drwxr-xr-x" + self, "VERSION/d": "drwxr-xr-x" + self,
		"..data":        "Lrwxrwxrwx" + self + " -> VERSION <nil>",
		"token":         "Lrwxrwxrwx" + self + " -> ..data/token <nil>",
		"d":             "Lrwxrwxrwx" + self + " -> ..data/d <nil>",
		"VERSION/token": "-rw-r--r--" + self + ` "t" <nil>`,
		"VERSION/d/e":   "-rw-r--r--" + self + ` "e" <nil>`,
	})
	if want := "..2026_11_22_10_15_04.123456789"; r.Version != want {
		t.Errorf("the version is %s, want %s", r.Version, want)
	}
	check(t, fstest.TestFS(os.DirFS(filepath.Join(dir, r.Version)), "token", "d/e"))
	got := must(d.Read())(t)
	if got.Name != r.Version || len(got.Files) != 2 || got.Files[0].Path != "d/e" || string(got.Files[1].Data) != "t" ||
		got.Files[1].Mode != 0o644 || got.Files[1].Owner != d.self || got.Files[1].ModTime.IsZero() {
		t.Errorf("read %+v", got)
	}
}

// TestNoExtendedAttributes: none is set, no SELinux label either: labelling a volume is the runtime's.
func TestNoExtendedAttributes(t *testing.T) {
	dir, d := volume(t)
	version := filepath.Join(dir, publish(t, d, Written, files("token", "t"), at(0)).Version)
	elsewhere := attributes(t, t.TempDir()) // what the file system gives to everything
	for _, path := range []string{dir, version, filepath.Join(version, "token"), filepath.Join(dir, "token")} {
		if got := attributes(t, path); got != elsewhere {
			t.Errorf("%s has the attributes %q, others %q", filepath.Base(path), got, elsewhere)
		}
	}
	if err := unix.Setxattr(version, "user.planted", nil, 0); err == nil && attributes(t, version) == elsewhere {
		t.Error("a planted attribute was not seen")
	}
}

func attributes(t *testing.T, path string) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatal(err)
	}
	return string(buf[:max(n, 0)])
}

// TestUnchanged: a second publish touches nothing; nor does one of no files.
func TestUnchanged(t *testing.T) {
	for _, list := range [][]File{files("token", "t", "d/e", "e", "d/f/g", ""), nil} {
		_, d := volume(t)
		publish(t, d, Written, list, at(0))
		d.hook = func(op, name string, done bool) error { return errFault }
		publish(t, d, Unchanged, list, at(1))
	}
	if v := must((must2(volume(t))).Read())(t); v.Name != "" || len(v.Files) > 0 {
		t.Errorf("read %+v from an empty directory", v)
	}
}

func must2(_ string, d *Dir) *Dir { return d }

// TestDifferences: each of these is repaired by a new version, with new files.
func TestDifferences(t *testing.T) {
	wish := files("token", "t", "d/e", "e")
	for name, spoil := range map[string]func(version string) error{
		"mode":         func(v string) error { return os.Chmod(v+"/token", 0o600) },
		"setuid":       func(v string) error { return os.Chmod(v+"/token", 0o644|fs.ModeSetuid) },
		"version mode": func(v string) error { return os.Chmod(v, 0o700) },
		"dir mode":     func(v string) error { return os.Chmod(v+"/d", 0o777) },
		"same size":    func(v string) error { return os.WriteFile(v+"/token", []byte("x"), 0) },
		"longer":       func(v string) error { return os.WriteFile(v+"/token", []byte("tt"), 0) },
		"gone":         func(v string) error { return os.Remove(v + "/d/e") },
		"dir gone":     func(v string) error { return os.RemoveAll(v + "/d") },
		"surplus":      func(v string) error { return os.WriteFile(v+"/a", nil, 0o644) },
		"surplus end":  func(v string) error { return os.WriteFile(v+"/z", nil, 0o644) },
		"surplus deep": func(v string) error { return os.WriteFile(v+"/d/z", nil, 0o644) },
		"linked":       func(v string) error { return os.Link(v+"/token", filepath.Dir(v)+"/copy") },
		"other owner": func(v string) error {
			if os.Geteuid() != 0 {
				return os.Chmod(v+"/token", 0o640) // only root gives files away
			}
			return os.Chown(v+"/token", 1234, -1)
		},
	} {
		dir, d := volume(t)
		version := filepath.Join(dir, publish(t, d, Written, wish, at(0)).Version)
		held, err := os.Open(version + "/token")
		check(t, err)
		check(t, spoil(version))
		info, _ := held.Stat()
		before := describeInfo(info)
		r := must(d.Publish(wish, at(1)))(t)
		if r.Outcome != Written || len(r.Stale) != 1 {
			t.Errorf("%s: %v, stale %v", name, r.Outcome, r.Stale)
		}
		if info, _ = held.Stat(); describeInfo(info) != before {
			t.Errorf("%s: the published file was changed", name)
		}
		check(t, held.Close())
		expectView(t, dir, wish)
		publish(t, d, Unchanged, wish, at(2))
	}
}

func describeInfo(info fs.FileInfo) string {
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprint(info.Mode(), info.Size(), info.ModTime(), st.Uid, st.Gid)
}

// TestLinkOwner: links belong to the directory's owner, where we may give them away, and are given back when somebody
// chowns them.
func TestLinkOwner(t *testing.T) {
	dir, d := volume(t)
	links := []string{"a", "b", dataLink}
	want := Owner{UID: os.Geteuid(), GID: os.Getegid()}
	if os.Geteuid() == 0 {
		want = Owner{UID: 1234, GID: 4321}
		check(t, os.Chown(dir, want.UID, want.GID))
	}
	publish(t, d, Written, files("a", "1", "b", "2"), at(0))
	check(t, os.Remove(filepath.Join(dir, "b")))
	publish(t, d, Relinked, files("a", "1", "b", "2"), at(1))
	expectOwners(t, dir, links, want)
	publish(t, d, Unchanged, files("a", "1", "b", "2"), at(2))
	if os.Geteuid() != 0 {
		return // nobody but root gives anything away
	}
	for i, name := range links {
		for _, stranger := range []Owner{{UID: 5678, GID: 5678}, {UID: 5678, GID: -1}, {UID: -1, GID: 5678}} {
			check(t, os.Lchown(filepath.Join(dir, name), stranger.UID, stranger.GID))
			publish(t, d, Relinked, files("a", "1", "b", "2"), at(3+i))
			expectOwners(t, dir, links, want)
			publish(t, d, Unchanged, files("a", "1", "b", "2"), at(3+i))
		}
	}
	must(d.Settle(at(9)))(t)
	publish(t, d, Relinked, files("a", "1", "b", "2"), at(9))
	expectOwners(t, dir, links, d.self)
}

// TestLinkOwnerRefused: who may not give links away leaves its own alone, and replaces a stranger's by its own once.
func TestLinkOwnerRefused(t *testing.T) {
	dir, d := volume(t)
	list := files("a", "1")
	publish(t, d, Written, list, at(0))
	outcomes := []Outcome{Unchanged, Unchanged}
	if os.Geteuid() == 0 {
		check(t, os.Lchown(filepath.Join(dir, "a"), 5678, 5678))
		check(t, os.Chown(dir, 1234, 4321))
		outcomes[0] = Relinked
	}
	for i, want := range outcomes {
		var r Result
		var err error
		withCapabilities(t, []int{unix.CAP_DAC_OVERRIDE}, func() { r, err = d.Publish(list, at(i)) })
		if err != nil || r.Outcome != want {
			t.Errorf("%v %v, want %v", r.Outcome, err, want)
		}
	}
	expectOwners(t, dir, []string{"a", dataLink}, d.self)
}

func expectOwners(t *testing.T, dir string, names []string, want Owner) {
	t.Helper()
	for _, name := range names {
		var st unix.Stat_t
		check(t, unix.Lstat(filepath.Join(dir, name), &st))
		if got := (Owner{UID: int(st.Uid), GID: int(st.Gid)}); got != want {
			t.Errorf("%s belongs to %v, want %v", name, got, want)
		}
	}
}

// TestDeleted: a deleted directory takes nothing.
func TestDeleted(t *testing.T) {
	dir, d := volume(t)
	check(t, os.Remove(dir))
	if r, err := d.Publish(files("a", "1"), at(0)); !errors.Is(err, fs.ErrNotExist) || r.Outcome == Written {
		t.Errorf("%v %v", r.Outcome, err)
	}
}

// TestOutcomes: names are for logs and metrics.
func TestOutcomes(t *testing.T) {
	for o, want := range map[Outcome]string{Unchanged: "unchanged", Relinked: "relinked", Written: "written", Incomplete: "incomplete", 7: "Outcome(7)"} {
		if o.String() != want {
			t.Errorf("%d is %s", int(o), o)
		}
	}
}

// FuzzPublish puts garbage of every kind everywhere, as the script says, then reads and publishes.
func FuzzPublish(f *testing.F) {
	for _, seed := range [][]byte{{}, {0, 0}, {1, 2, 3, 4}, {2, 11, 4, 9, 7, 3}, {8, 1, 6, 5, 10, 10, 3, 0}} {
		f.Add(seed)
	}
	kinds := []string{"nothing", "fifo", "socket", "loop", "link to file", "link to dir", "hard link", "empty file", "sparse", "tree", "closed dir", "device"}
	wish := files("token", "t", "dir/f", "f")
	f.Fuzz(func(t *testing.T, script []byte) {
		dir, d := volume(t)
		outside := outsider(t)
		version := publish(t, d, Written, wish, at(0)).Version
		for i := 0; i+1 < len(script) && i < 16; i += 2 {
			all := append(places(version), fmt.Sprintf("x%d", i), version+fmt.Sprintf("/x%d", i))
			path := filepath.Join(dir, all[int(script[i])%len(all)])
			if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
				continue // os.RemoveAll would open, and wait for, a FIFO
			}
			if script[i+1] >= 128 {
				_ = os.RemoveAll(path)
			}
			if _, err := os.Lstat(path); err == nil {
				continue
			}
			// In a directory that is closed, nothing can be planted.
			_ = garbage[kinds[int(script[i+1])%len(kinds)]](path, outside)
		}
		openUp(outside) // the script itself may have come here, through a link of its own
		before := snapshot(t, outside)
		within(t, func() { healed(t, dir, wish) })
		expectView(t, dir, wish)
		openUp(dir)
		expectTree(t, snapshot(t, outside), before)
	})
}
