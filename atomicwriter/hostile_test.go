package atomicwriter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// garbage is what somebody with power inside a volume may put at a path, which is free. outside is a directory
// that must not be touched.
var garbage = map[string]func(path, outside string) error{
	"nothing":      func(string, string) error { return nil },
	"fifo":         func(path, _ string) error { return unix.Mkfifo(path, 0o666) },
	"socket":       func(path, _ string) error { return unix.Mknod(path, unix.S_IFSOCK|0o666, 0) },
	"loop":         func(path, _ string) error { return os.Symlink(filepath.Base(path), path) },
	"link to file": func(path, outside string) error { return os.Symlink(filepath.Join(outside, "file"), path) },
	"link to dir":  func(path, outside string) error { return os.Symlink(outside, path) },
	"hard link":    func(path, outside string) error { return os.Link(filepath.Join(outside, "file"), path) },
	"empty file":   func(path, _ string) error { return os.WriteFile(path, nil, 0) },
	"sparse": func(path, _ string) error {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		return os.Truncate(path, 1<<40)
	},
	"tree": func(path, outside string) error {
		deep := filepath.Join(path, "a", "b", "c")
		if err := os.MkdirAll(deep, 0o755); err != nil {
			return err
		}
		if err := os.Symlink(outside, filepath.Join(deep, "link")); err != nil {
			return err
		}
		if err := os.Link(filepath.Join(outside, "file"), filepath.Join(deep, "file")); err != nil {
			return err
		}
		return os.Chmod(deep, 0)
	},
	"closed dir": func(path, _ string) error { return os.Mkdir(path, 0) },
	"device": func(path, _ string) error {
		if os.Geteuid() != 0 {
			return unix.Mkfifo(path, 0) // only root makes devices
		}
		return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(5, 0))) // /dev/tty
	},
}

// places are where garbage is put, given the name of the current version.
func places(version string) []string {
	return []string{
		"token", "dir", dataLink, tempLink, version, version + "/token", version + "/dir", version + "/dir/f",
		version + "/surplus", "foreign", versionName(testTime.AddDate(1, 0, 0), 1),
	}
}

// outsider makes a directory that nobody may touch, beside the volume's.
func outsider(t *testing.T) string {
	outside := t.TempDir()
	check(t, os.WriteFile(filepath.Join(outside, "file"), []byte("outside"), 0o640))
	check(t, os.Mkdir(filepath.Join(outside, "dir"), 0o750))
	check(t, os.WriteFile(filepath.Join(outside, "dir", "file"), []byte("inner"), 0o600))
	return outside
}

// TestHostile puts every kind of garbage in every place. A publish replaces it, touches nothing outside and
// does not wait.
func TestHostile(t *testing.T) {
	wish := files("token", "t", "dir/f", "f")
	clean := cleanTree(t, wish)
	for kind := range garbage {
		for i := range places("") {
			place := places("VERSION")[i]
			t.Run(kind+" at "+place, func(t *testing.T) {
				dir, d := volume(t)
				outside := outsider(t)
				r := publish(t, d, Written, wish, at(0))
				path := filepath.Join(dir, places(r.Version)[i])
				check(t, d.Remove("nothing"))
				check(t, os.RemoveAll(path))
				check(t, garbage[kind](path, outside))
				before := snapshot(t, outside)
				within(t, func() { healed(t, dir, wish) })
				expectTree(t, snapshot(t, outside), before)
				expectView(t, dir, wish)
				if place == "foreign" && kind != "nothing" { // in nobody's way: it stays
					takeAway(t, path)
				}
				expectTree(t, snapshot(t, dir), clean)
			})
		}
	}
}

// healed reads and publishes as a new daemon would.
func healed(t *testing.T, dir string, wish []File) {
	d := reopen(t, dir)
	v, err := d.Read()
	if err != nil {
		t.Errorf("read: %v", err)
	}
	for _, e := range v.Files {
		if string(e.Data) == "outside" || string(e.Data) == "inner" {
			t.Errorf("read a file of outside as %s", e.Path)
		}
	}
	r, err := d.Publish(wish, at(1))
	if err != nil {
		t.Errorf("publish: %v", err)
	}
	if err := d.Sweep(r.Stale); err != nil {
		t.Errorf("sweep: %v", err)
	}
	if r, err = d.Publish(wish, at(2)); err != nil || r.Outcome != Unchanged {
		t.Errorf("publishing once more: %v %v", r.Outcome, err)
	}
}

// takeAway removes what must be there.
func takeAway(t *testing.T, path string) {
	t.Helper()
	info, err := os.Lstat(path)
	check(t, err)
	if info.IsDir() {
		check(t, os.Chmod(path, 0o700))
		openUp(path)
	}
	check(t, os.RemoveAll(path))
}

// openUp lets the test's own clean-up remove directories that nobody may enter.
func openUp(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			path := filepath.Join(dir, e.Name())
			_ = os.Chmod(path, 0o700) // what cannot be opened up fails the clean-up
			openUp(path)
		}
	}
}

// TestSnapshotCatches shows that TestHostile's check sees what a careless publisher would do.
func TestSnapshotCatches(t *testing.T) {
	careless := map[string]func(path string) error{
		"write through a link": func(path string) error { return os.WriteFile(path, []byte("t"), 0o644) },
		"chmod through a link": func(path string) error { return os.Chmod(path, 0o644) },
	}
	for name, act := range careless {
		outside := outsider(t)
		dir := t.TempDir()
		path := filepath.Join(dir, "token")
		check(t, garbage["link to file"](path, outside))
		before := snapshot(t, outside)
		check(t, act(path))
		if treeDiff(snapshot(t, outside), before) == "" {
			t.Errorf("not caught: %s", name)
		}
	}
}

// TestOpensNoGarbage: what is not a regular file is not even opened, as that alone can have effects; and a FIFO
// that came after the listing is not waited for.
func TestOpensNoGarbage(t *testing.T) {
	dir, d := volume(t)
	wish := files("token", "t")
	path := filepath.Join(dir, publish(t, d, Written, wish, at(0)).Version, "token")
	check(t, os.Remove(path))
	check(t, unix.Mkfifo(path, 0o644))
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	check(t, err)
	defer unix.Close(watch)
	_, err = unix.InotifyAddWatch(watch, path, unix.IN_OPEN)
	check(t, err)
	opened := func() bool {
		var buf [4096]byte
		n, _ := unix.Read(watch, buf[:])
		for b := buf[:max(n, 0)]; len(b) >= unix.SizeofInotifyEvent; {
			if binary.NativeEndian.Uint32(b[4:])&unix.IN_OPEN != 0 {
				return true
			}
			b = b[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(b[12:]):]
		}
		return false
	}
	within(t, func() {
		var st unix.Stat_t
		at := must(OpenRoot(filepath.Dir(path)))(t)
		defer at.Close()
		if _, err := openPlain(at.Fd(), "token", &st); !errors.Is(err, errNotPlain) {
			t.Errorf("a FIFO instead of a file: %v", err)
		}
	})
	if !opened() {
		t.Fatal("an open was not caught")
	}
	within(t, func() { healed(t, dir, wish) })
	if opened() {
		t.Error("a FIFO was opened")
	}
}

// TestForeignData: only a version's name in ..data names a version.
func TestForeignData(t *testing.T) {
	wish := files("token", "t")
	for _, target := range []string{"copy", "./VERSION", "..other", "../volume/VERSION", "/", "."} {
		dir, d := volume(t)
		version := publish(t, d, Written, wish, at(0)).Version
		for _, name := range []string{"copy", "..other"} {
			check(t, os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(dir, version))))
		}
		check(t, os.Remove(filepath.Join(dir, dataLink)))
		check(t, os.Symlink(strings.ReplaceAll(target, "VERSION", version), filepath.Join(dir, dataLink)))
		if v := must(d.Read())(t); v.Name != "" || len(v.Files) > 0 || !slices.Equal(v.Stale, []string{version}) {
			t.Errorf("%s: read %+v", target, v)
		}
		publish(t, d, Written, wish, at(1))
		expectView(t, dir, wish)
	}
}

// TestLateGarbage: somebody puts something under the temporary name in the middle of a publish.
func TestLateGarbage(t *testing.T) {
	for kind, plant := range garbage {
		dir, d := volume(t)
		outside := outsider(t)
		before := snapshot(t, outside)
		planted := false
		d.hook = func(op, name string, done bool) error {
			if op == "symlinkat" && name == tempLink && !planted {
				planted = true
				return plant(filepath.Join(dir, tempLink), outside)
			}
			return nil
		}
		publish(t, d, Written, files("token", "t"), at(0))
		if !planted {
			t.Fatalf("%s was not planted", kind)
		}
		expectTree(t, snapshot(t, dir), cleanTree(t, files("token", "t")))
		expectTree(t, snapshot(t, outside), before)
	}
}

// TestKeep: bytes to keep are carried over only from a plain file that has their sum.
func TestKeep(t *testing.T) {
	dir, d := volume(t)
	wish := files("token", "t", "ca.crt", "c")
	r := publish(t, d, Written, wish, at(0))
	kept := []File{{Path: "token", Data: []byte("t2"), Mode: 0o644}, {Path: "./ca.crt", Keep: &r.Sums[1], Mode: 0o600}}
	if again := publish(t, d, Written, kept, at(1)); again.Sums[1] != r.Sums[1] {
		t.Error("the sum of kept bytes changed")
	}
	expectView(t, dir, files("token", "t2", "ca.crt", "c"))
	version := must(d.Read())(t).Name
	check(t, os.WriteFile(filepath.Join(dir, version, "ca.crt"), []byte("x"), 0o600))
	before := snapshot(t, dir)
	lost := must(d.Publish(kept, at(2)))(t)
	if lost.Outcome != Incomplete || !slices.Equal(lost.Lost, []string{"ca.crt"}) || lost.Version != version {
		t.Errorf("got %v, lost %v, version %s", lost.Outcome, lost.Lost, lost.Version)
	}
	expectTree(t, snapshot(t, dir), before)
}

// TestReadBounds: what is too big is left out, what is too much is an error, and neither keeps
// a publish from healing.
func TestReadBounds(t *testing.T) {
	dir, d := volume(t)
	wish := files("token", "t")
	version := filepath.Join(dir, publish(t, d, Written, wish, at(0)).Version)
	check(t, os.WriteFile(filepath.Join(version, "fits"), make([]byte, MaxFile), 0o644))
	check(t, os.WriteFile(filepath.Join(version, "big"), make([]byte, MaxFile+1), 0o644))
	check(t, os.MkdirAll(filepath.Join(version, strings.Repeat("d/", MaxDepth)), 0o755))
	check(t, os.WriteFile(filepath.Join(version, strings.Repeat("d/", MaxDepth-1), "f"), nil, 0o644))
	check(t, os.WriteFile(filepath.Join(version, strings.Repeat("d/", MaxDepth), "deep"), nil, 0o644))
	var got []string
	for _, e := range must(d.Read())(t).Files {
		got = append(got, e.Path)
	}
	if want := []string{strings.Repeat("d/", MaxDepth-1) + "f", "fits", "token"}; !slices.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
	for i := range MaxFiles {
		check(t, os.WriteFile(filepath.Join(version, fmt.Sprint("surplus", i)), nil, 0o644))
	}
	if _, err := d.Read(); err == nil {
		t.Error("too many files are no error")
	}
	publish(t, d, Written, wish, at(1))
	expectView(t, dir, wish)
}

// TestManyStale: of more old versions than are told of at once, a few rounds of sweeping leave none.
func TestManyStale(t *testing.T) {
	dir, d := volume(t)
	wish := files("token", "t")
	r := publish(t, d, Written, wish, at(0))
	for i := range 2*MaxStale + 1 {
		check(t, os.Mkdir(filepath.Join(dir, versionName(testTime, uint64(i))), 0o755))
	}
	for round := range 3 {
		if v := must(d.Read())(t); len(v.Stale) > MaxStale || len(v.Stale) == 0 {
			t.Errorf("round %d: read %d old versions", round, len(v.Stale))
		}
		again := publish(t, d, Unchanged, wish, at(1))
		if len(again.Stale) == 0 || len(again.Stale) > MaxStale {
			t.Errorf("round %d: %d old versions", round, len(again.Stale))
		}
	}
	want := []string{r.Version, dataLink, "token"}
	if got := must(d.Names())(t); !slices.Equal(got, want) {
		t.Errorf("%d entries are left", len(got))
	}
}

// TestVisitHoldsOneFile: the version's files are read into the same memory, however many there are; paths that no publish
// takes are left out.
func TestVisitHoldsOneFile(t *testing.T) {
	dir, d := volume(t)
	version := filepath.Join(dir, publish(t, d, Written, files("token", "t"), at(0)).Version)
	for i := range 31 {
		path := filepath.Join(version, fmt.Sprint("huge", i))
		check(t, os.WriteFile(path, nil, 0o644))
		check(t, os.Truncate(path, MaxFile))
	}
	deep := must(os.OpenRoot(version))(t)
	defer deep.Close()
	for range MaxDepth / 2 { // no system call takes the whole path
		name := strings.Repeat("n", 255)
		check(t, deep.Mkdir(name, 0o755))
		next, err := deep.OpenRoot(name)
		check(t, err)
		defer next.Close()
		deep = next
	}
	check(t, deep.WriteFile("file", nil, 0o644))
	seen, memory := 0, map[*byte]bool{}
	v := must(d.Visit(func(e Entry) {
		if seen++; len(e.Data) > 1<<20 {
			memory[&e.Data[0]] = true
		}
	}))(t)
	if seen != 32 || len(memory) != 1 || v.Files != nil || v.Name == "" {
		t.Errorf("%d files in %d places", seen, len(memory))
	}
}

// TestVisitLeavesNoSecrets: the memory that the next look uses again holds nothing of the files when a visit ends, nor does what was too
// small for a later file.
func TestVisitLeavesNoSecrets(t *testing.T) {
	for _, sizes := range [][]int{{1}, {10, 1000}, {1000, 10}, {3, 30, 300, 30000, 7}} {
		_, d := volume(t)
		var wish []File
		for i, size := range sizes {
			wish = append(wish, files(fmt.Sprint("file", i), strings.Repeat("s", size))...)
		}
		publish(t, d, Written, wish, at(0))
		var memory [][]byte
		secrets := func() (n int) {
			for _, m := range memory {
				n += bytes.Count(m, []byte("s"))
			}
			return n
		}
		must(d.Visit(func(e Entry) {
			if memory = append(memory, e.Data); bytes.Count(e.Data, []byte("s")) != len(e.Data) {
				t.Errorf("%q: %q", e.Path, e.Data)
			}
		}))(t)
		if n := secrets(); n != 0 || len(memory) != len(sizes) {
			t.Errorf("files of %v bytes: %d bytes of them are left", sizes, n)
		}
	}
}
