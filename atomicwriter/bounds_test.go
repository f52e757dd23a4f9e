package atomicwriter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// workOf sets what one removal takes on, for one test.
func workOf(t *testing.T, entries int) {
	was := maxWork
	t.Cleanup(func() { maxWork = was })
	maxWork = entries
}

// fill makes a directory with n files of that name and a number.
func fill(t *testing.T, dir, name string, n int) {
	t.Helper()
	check(t, os.MkdirAll(dir, 0o755))
	for i := range n {
		check(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(name, i)), nil, 0o644))
	}
}

// TestSweepIsBounded: many old versions, each with as much as one removal takes on, are not swept in one go. Other calls go on.
func TestSweepIsBounded(t *testing.T) {
	workOf(t, 100)
	dir, d := volume(t)
	wish := files("token", "t")
	current := publish(t, d, Written, wish, at(0)).Version
	var old []string
	for i := range 10 {
		old = append(old, versionName(testTime, uint64(i)))
		fill(t, filepath.Join(dir, old[i]), "file", maxWork-1)
	}
	removed := 0
	d.hook = func(op, _ string, done bool) error {
		if op == "unlinkat" && done {
			removed++
		}
		return nil
	}
	for calls := 1; ; calls++ {
		removed = 0
		err := d.Sweep(old)
		if removed > maxWork+10 { // and the directories themselves
			t.Fatalf("call %d removes %d entries, want %d at most", calls, removed, maxWork)
		}
		if err == nil {
			if calls < 9 {
				t.Errorf("all is swept by %d calls", calls)
			}
			break
		}
		if !errors.Is(err, ErrUnfinished) || calls > 20 {
			t.Fatalf("call %d: %v", calls, err)
		}
	}
	d.hook = nil
	if got, want := must(d.Names())(t), []string{current, dataLink, "token"}; !slices.Equal(got, want) {
		t.Errorf("left: %q, want %q", got, want)
	}
}

// TestStuckIsNotUnfinished: where nothing goes, nobody is told that another call goes on, but what resists. Where
// something goes, both are told.
func TestStuckIsNotUnfinished(t *testing.T) {
	workOf(t, 50)
	top := t.TempDir()
	root := must(OpenRoot(top))(t)
	defer root.Close()
	root.hook = func(op, name string, done bool) error {
		if op == "unlinkat" && strings.HasPrefix(name, "stuck") {
			return unix.EPERM
		}
		return nil
	}
	fill(t, filepath.Join(top, "tree/sub"), "stuck", 2*maxWork)
	if err := root.Remove("tree"); !errors.Is(err, unix.EPERM) || errors.Is(err, ErrUnfinished) {
		t.Errorf("all of it resists: %v", err)
	}
	fill(t, filepath.Join(top, "mixed"), "stuck", maxWork-10)
	fill(t, filepath.Join(top, "mixed"), "loose", maxWork-10)
	if err := root.Remove("mixed"); !errors.Is(err, unix.EPERM) || !errors.Is(err, ErrUnfinished) {
		t.Errorf("half of it resists: %v", err)
	}
	root.hook = nil
	fill(t, filepath.Join(top, "loose"), "loose", 2*maxWork)
	if err := root.Remove("loose"); errors.Is(err, unix.EPERM) || !errors.Is(err, ErrUnfinished) {
		t.Errorf("nothing resists: %v", err)
	}
}

// TestPublishInParts: a directory of very many entries in the place of a link is removed by several calls; until the
// last of them readers have the old version.
func TestPublishInParts(t *testing.T) {
	workOf(t, 50)
	dir, d := volume(t)
	publish(t, d, Written, files("a", "old", "token", "old"), at(0))
	check(t, os.Remove(filepath.Join(dir, "token")))
	fill(t, filepath.Join(dir, "token"), "file", 8*maxWork)
	for calls := 1; ; calls++ {
		r, err := d.Publish(files("a", "new", "token", "new"), at(calls))
		if err == nil {
			if calls < 3 || r.Outcome != Written {
				t.Errorf("%v after %d calls", r.Outcome, calls)
			}
			break
		}
		if !errors.Is(err, ErrUnfinished) || !strings.Contains(err.Error(), "goes on") || calls > 20 {
			t.Fatalf("call %d: %v", calls, err)
		}
		if got := must(os.ReadFile(filepath.Join(dir, "a")))(t); string(got) != "old" {
			t.Fatalf("call %d has failed, and readers have %q", calls, got)
		}
	}
	expectView(t, dir, files("a", "new", "token", "new"))
}

// TestWrittenIsRead: the greatest version that is published is read back, be its files new or carried over. One byte more is
// refused, and what is published stays.
func TestWrittenIsRead(t *testing.T) {
	dir, d := volume(t)
	huge := bytes.Repeat([]byte("x"), MaxFile)
	wish, paths := []File{}, 0
	for i := range MaxVersion / MaxFile {
		wish = append(wish, File{Path: fmt.Sprintf("file%02d", i), Data: huge, Mode: 0o644})
		paths += len(wish[i].Path)
	}
	last := &wish[len(wish)-1]
	for _, tt := range []struct {
		size    int
		outcome Outcome
	}{{MaxFile, Unchanged}, {MaxFile - paths + 1, Unchanged}, {MaxFile - paths, Written}} {
		last.Data = huge[:tt.size]
		if r, err := d.Publish(wish, at(0)); r.Outcome != tt.outcome || (err == nil) != (tt.outcome == Written) || err != nil && !errors.Is(err, ErrTooBig) {
			t.Errorf("%d bytes: %v, %v", tt.size, r.Outcome, err)
		}
	}
	read := func() {
		t.Helper()
		if v, err := d.Read(); err != nil || len(v.Files) != len(wish) {
			t.Errorf("read back: %d files, %v", len(v.Files), err)
		}
	}
	read()
	last.Data = []byte("small")
	sums := publish(t, d, Written, wish, at(1)).Sums
	for i := range wish[:len(wish)-1] {
		wish[i].Data, wish[i].Keep = nil, &sums[i]
	}
	last.Data = huge[:MaxFile-paths+1]
	if r, err := d.Publish(wish, at(2)); r.Outcome != Unchanged || !errors.Is(err, ErrTooBig) {
		t.Errorf("beside kept files: %v, %v", r.Outcome, err)
	}
	if got := must(os.ReadFile(filepath.Join(dir, last.Path)))(t); string(got) != "small" {
		t.Errorf("after a refusal readers have %d bytes", len(got))
	}
	last.Data = huge[:MaxFile-paths]
	publish(t, d, Written, wish, at(3))
	read()
}
