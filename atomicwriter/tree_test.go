package atomicwriter

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var testTime = time.Date(2026, 11, 22, 10, 15, 4, 123456789, time.UTC)

// at is a time so many nanoseconds after testTime, for a version of its own.
func at(n int) Options { return Options{Now: testTime.Add(time.Duration(n))} }

// volume is a volume directory of a test: its path, for the reader, and its Dir, for the publisher.
func volume(t testing.TB) (string, *Dir) {
	t.Helper()
	root := t.TempDir()
	path := filepath.Join(root, "volume")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path, reopen(t, path)
}

// reopen opens a volume as a newly started publisher would.
func reopen(t testing.TB, path string) *Dir {
	t.Helper()
	root := must(OpenRoot(filepath.Dir(path)))(t)
	defer root.Close()
	d := must(root.Open(filepath.Base(path)))(t)
	t.Cleanup(func() { d.Close() })
	return d
}

// must returns a function that fails the test if err is not nil.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// files makes files of mode 0644 from path, content pairs.
func files(pairs ...string) []File {
	var list []File
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, File{Path: pairs[i], Data: []byte(pairs[i+1]), Mode: 0o644})
	}
	return list
}

// publish publishes, sweeps, and expects an outcome.
func publish(t testing.TB, d *Dir, want Outcome, list []File, o Options) Result {
	t.Helper()
	r := must(d.Publish(list, o))(t)
	if r.Outcome != want {
		t.Fatalf("outcome %v, want %v", r.Outcome, want)
	}
	check(t, d.Sweep(r.Stale))
	return r
}

// view is what a reader sees by name: the content of each path of these lists that it can open.
func view(dir string, lists ...[]File) map[string]string {
	seen := map[string]string{}
	for _, f := range slices.Concat(lists...) {
		b, err := os.ReadFile(filepath.Join(dir, f.Path))
		switch {
		case err == nil:
			seen[f.Path] = string(b)
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) && !errors.Is(err, syscall.EISDIR):
			seen[f.Path] = err.Error()
		}
	}
	return seen
}

// viewOf is the view of a volume that holds just these files.
func viewOf(list []File) map[string]string {
	seen := map[string]string{}
	for _, f := range list {
		seen[f.Path] = string(f.Data)
	}
	return seen
}

// expectView fails the test unless a reader sees just these files, of the paths in all the lists.
func expectView(t testing.TB, dir string, want []File, others ...[]File) {
	t.Helper()
	if got := view(dir, append(others, want)...); !maps.Equal(got, viewOf(want)) {
		t.Fatalf("a reader sees %v, want %v", got, viewOf(want))
	}
}

// snapshot describes everything below dir, links not followed. The current version's name is replaced, so
// that trees of different times compare.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	version, _ := os.Readlink(filepath.Join(dir, dataLink))
	tree := map[string]string{}
	check(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		line := describe(path)
		if version != "" {
			rel, line = strings.ReplaceAll(rel, version, "VERSION"), strings.ReplaceAll(line, version, "VERSION")
		}
		tree[rel] = line
		return nil
	}))
	return tree
}

// describe is one line about a file: type, mode, owner, and content or target.
func describe(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return err.Error()
	}
	st := info.Sys().(*syscall.Stat_t)
	line := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
	switch {
	case info.Size() > 16<<20:
		line += fmt.Sprintf(" %d bytes", info.Size())
	case info.Mode().IsRegular():
		b, err := os.ReadFile(path)
		line += fmt.Sprintf(" %q %v", b, err)
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		line += fmt.Sprintf(" -> %s %v", target, err)
	}
	return line
}

// expectTree fails the test unless two snapshots are equal.
func expectTree(t testing.TB, got, want map[string]string) {
	t.Helper()
	if d := treeDiff(got, want); d != "" {
		t.Fatalf("the tree differs:\n%s", d)
	}
}

func treeDiff(got, want map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if got[k] != want[k] {
			fmt.Fprintf(&b, "got  %s: %s\n", k, got[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if got[k] != want[k] {
			fmt.Fprintf(&b, "want %s: %s\n", k, want[k])
		}
	}
	return b.String()
}

// cleanTree is the tree that one undisturbed publish makes.
func cleanTree(t testing.TB, list []File) map[string]string {
	t.Helper()
	dir, d := volume(t)
	publish(t, d, Written, list, at(0))
	return snapshot(t, dir)
}

// within fails the test if f does not return soon: nothing may make the publisher wait.
func within(t testing.TB, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("blocked")
	}
}
