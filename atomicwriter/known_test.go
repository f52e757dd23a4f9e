package atomicwriter

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRememberedLinks: whatever is done to links after a look has remembered them, the next look repairs it.
func TestRememberedLinks(t *testing.T) {
	wish := files("a", "1", "b", "2", "d/e", "3")
	again := func(target, link string) error {
		if err := os.Remove(link); err != nil {
			return err
		}
		return os.Symlink(target, link)
	}
	for name, spoil := range map[string]func(dir, version string) error{
		"another file": func(dir, _ string) error { return again("..data/b", dir+"/a") },
		"same file":    func(dir, version string) error { return again(version+"/a", dir+"/a") },
		"made again":   func(dir, _ string) error { return again("b", dir+"/a") },
		"gone":         func(dir, _ string) error { return os.Remove(dir + "/b") },
		"a file": func(dir, _ string) error {
			return replaceBy(os.WriteFile(dir+"/x", []byte("1"), 0o644), dir+"/x", dir+"/a")
		},
		"a hard link":    func(dir, _ string) error { return replaceBy(unix.Link(dir+"/a", dir+"/x"), dir+"/x", dir+"/b") },
		"data elsewhere": func(dir, _ string) error { return again(".", dir+"/"+dataLink) },
		"remains":        func(dir, _ string) error { return os.Symlink("x", dir+"/"+tempLink) },
		"stale link":     func(dir, _ string) error { return os.Symlink("..data/z", dir+"/z") },
		"data gone":      func(dir, _ string) error { return os.Remove(dir + "/" + dataLink) },
		"exchanged": func(dir, _ string) error {
			return unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/b", unix.RENAME_EXCHANGE)
		},
		"a directory": func(dir, _ string) error {
			if err := os.Remove(dir + "/a"); err != nil {
				return err
			}
			return os.Mkdir(dir+"/a", 0o755)
		},
		"owner": func(dir, _ string) error {
			if os.Geteuid() != 0 {
				return os.Remove(dir + "/a") // only root gives links away
			}
			return os.Lchown(dir+"/a", 1234, 4321)
		},
	} {
		dir, d := volume(t)
		version := publish(t, d, Written, wish, at(0)).Version
		var links Links
		old := Options{Now: time.Now().Add(time.Hour), Links: &links}
		publish(t, d, Unchanged, wish, old)
		known := links
		if publish(t, d, Unchanged, wish, old); known == 0 || links != known {
			t.Fatalf("%s: links %x, then %x", name, known, links)
		}
		check(t, spoil(dir, version))
		if r := must(d.Publish(wish, old))(t); r.Outcome == Unchanged {
			t.Errorf("%s: not noticed", name)
		} else {
			check(t, d.Sweep(r.Stale))
		}
		expectView(t, dir, wish)
		expectTree(t, snapshot(t, dir), cleanTree(t, wish))
		publish(t, d, Unchanged, wish, old)
	}
}

// replaceBy renames from to to, after err.
func replaceBy(err error, from, to string) error {
	if err != nil {
		return err
	}
	return os.Rename(from, to)
}

// TestYoungLinks: links that are so young that others could have taken their place unseen are not remembered; nor those of
// other paths taken for the ones that were.
func TestYoungLinks(t *testing.T) {
	dir, d := volume(t)
	wish := files("a", "1", "b", "2")
	publish(t, d, Written, wish, at(0))
	info := must(os.Lstat(filepath.Join(dir, "b")))(t)
	var links Links
	for age, want := range map[time.Duration]bool{0: false, linksAge: false, 3 * linksAge: true, -time.Hour: false} {
		links = 0
		publish(t, d, Unchanged, wish, Options{Now: info.ModTime().Add(age), Links: &links})
		if got := links != 0; got != want {
			t.Errorf("links %v old are remembered: %v", age, got)
		}
	}
	old := Options{Now: time.Now().Add(time.Hour), Links: &links}
	publish(t, d, Unchanged, wish, old)
	all := links
	publish(t, d, Written, wish[:1], old) // the other link goes
	publish(t, d, Unchanged, wish[:1], old)
	if links == 0 || links == all {
		t.Errorf("links %x of both, %x of one", all, links)
	}
}
