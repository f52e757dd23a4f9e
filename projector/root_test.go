package projector

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// tree lists what is below dir, with modes and the content of files.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(data)
		}
		found[strings.TrimPrefix(path, dir+"/")] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func mkdir(t *testing.T, path ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(path...), 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRootMarksANewOne(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "a", "root")
	r := openTestRoot(t, dir)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	want := map[string]string{markerName: "-rw------- " + markerText, podsName: "drwx------"}
	if got := tree(t, dir); len(got) != 2 || got[markerName] != want[markerName] || got[podsName] != want[podsName] {
		t.Errorf("%v", got)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	openTestRoot(t, dir).Close() // and knows it again
}

func TestOpenRootMakesPrivateAgain(t *testing.T) {
	dir := memoryDir(t)
	openTestRoot(t, dir).Close()
	for _, d := range []string{dir, filepath.Join(dir, podsName)} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	openTestRoot(t, dir).Close()
	for _, d := range []string{dir, filepath.Join(dir, podsName)} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", d, info.Mode(), err)
		}
	}
}

// TestWatchKeepsTheRootPrivate while it runs.
func TestWatchKeepsTheRootPrivate(t *testing.T) {
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		r := openTestRoot(t, dir)
		defer r.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		defer watching.Wait()
		defer cancel()
		watching.Go(func() { r.watch(ctx, func() { t.Error("the root is lost") }) })
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rootPoll + 1)
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != privateMode {
			t.Errorf("%v %v", info.Mode(), err)
		}
	})
}

// TestGuard: nobody else may write a directory on the way to a volume; what a runtime may have wanted stays.
func TestGuard(t *testing.T) {
	dir := memoryDir(t)
	r := openTestRoot(t, dir)
	defer r.Close()
	k := Key{PodUID: "uid", Volume: "v"}
	open := func() {
		volume, err := r.volume(k)
		if err != nil {
			t.Fatal(err)
		}
		volume.Close()
	}
	open()
	for at, mode := range map[string]fs.FileMode{
		"pods": 0o700, "pods/uid": 0o700, "pods/uid/volumes": 0o755, "pods/uid/volumes/kubernetes.io~projected": 0o755,
	} {
		for _, c := range []struct{ set, want fs.FileMode }{{0o777, mode}, {0o720, mode}, {0o702, mode}, {0o500, mode}, {0o750, 0o750}} {
			if err := os.Chmod(filepath.Join(dir, at), c.set); err != nil {
				t.Fatal(err)
			}
			open()
			if info, err := os.Stat(filepath.Join(dir, at)); err != nil || info.Mode().Perm() != c.want {
				t.Errorf("%s: %v became %v, want %v, %v", at, c.set, info.Mode().Perm(), c.want, err)
			}
		}
	}
}

// TestOpenRootRefusesForeign content, and leaves it as it is, without a marker
// that would pass for consent the next time.
func TestOpenRootRefusesForeign(t *testing.T) {
	for name, tt := range map[string]struct {
		put  func(dir string)
		says string
	}{
		"a file":          {func(d string) { write(t, d+"/precious", "x") }, "precious"},
		"a directory":     {func(d string) { mkdir(t, d, "home") }, "home"},
		"pods is a file":  {func(d string) { write(t, d+"/pods", "") }, "pods"},
		"pods is a link":  {func(d string) { os.Symlink("/etc", d+"/pods") }, "pods"},
		"a kubelet's pod": {func(d string) { mkdir(t, d, "pods/uid/volumes/kubernetes.io~secret") }, "kubernetes.io~secret"},
		"a pod's file":    {func(d string) { mkdir(t, d, "pods/uid"); write(t, d+"/pods/uid/etc-hosts", "x") }, "etc-hosts"},
		"a volume's file": {func(d string) {
			mkdir(t, d, "pods/uid/volumes/kubernetes.io~projected/v")
			write(t, d+"/pods/uid/volumes/kubernetes.io~projected/v/token", "x")
		}, "token"},
		"a deeper directory": {func(d string) { mkdir(t, d, "pods/uid/volumes/kubernetes.io~projected/v/sub") }, "sub"},
		"a link in a volume": {func(d string) {
			mkdir(t, d, "pods/uid/volumes/kubernetes.io~projected")
			os.Symlink("/etc", d+"/pods/uid/volumes/kubernetes.io~projected/v")
		}, "/v"},
	} {
		dir := memoryDir(t)
		tt.put(dir)
		before := tree(t, dir)
		for range 2 {
			r, err := OpenRoot(t.Context(), dir, nil)
			if err == nil {
				r.Close()
				t.Fatalf("%s: accepted", name)
			}
			if !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--root-dir") {
				t.Errorf("%s: %v", name, err)
			}
		}
		after := tree(t, dir)
		for path, was := range before {
			if after[path] != was {
				t.Errorf("%s: %s was %q, is %q", name, path, was, after[path])
			}
		}
		if len(after) != len(before) {
			t.Errorf("%s: %v became %v", name, before, after)
		}
	}
}

// TestOpenRootAcceptsARuntimesDirectories, made on the way to a subPath mount.
func TestOpenRootAcceptsARuntimesDirectories(t *testing.T) {
	for _, path := range []string{"", "pods", "pods/uid", "pods/uid/volumes", "pods/uid/volumes/kubernetes.io~projected",
		"pods/uid/volumes/kubernetes.io~projected/v"} {
		dir := memoryDir(t)
		mkdir(t, dir, path)
		r := openTestRoot(t, dir)
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
			t.Error(err)
		}
		uids, err := r.pods()
		if want := strings.Count(path, "uid"); err != nil || len(uids) != want {
			t.Errorf("%q: pods %v, %v", path, uids, err)
		}
		r.Close()
	}
}

func TestOpenRootRefusesMarkers(t *testing.T) {
	for name, tt := range map[string]struct {
		put  func(marker string)
		says string
	}{
		"another version": {func(m string) { write(t, m, "token-projector root, version 2\n") }, "version 2"},
		"another text":    {func(m string) { write(t, m, "hello") }, "hello"},
		"long":            {func(m string) { write(t, m, strings.Repeat("x", 100_000)) }, "xxx"},
		"a link":          {func(m string) { os.Symlink(filepath.Dir(m)+"/../elsewhere", m) }, "symbolic links"},
		"a directory":     {func(m string) { mkdir(t, m) }, "directory"},
	} {
		base := memoryDir(t)
		dir := filepath.Join(base, "root")
		mkdir(t, dir)
		tt.put(filepath.Join(dir, markerName))
		before := len(tree(t, base))
		r, err := OpenRoot(t.Context(), dir, nil)
		if err == nil {
			r.Close()
			t.Fatalf("%s: accepted", name)
		}
		if !strings.Contains(err.Error(), tt.says) || len(err.Error()) > 6000 || len(tree(t, base)) != before {
			t.Errorf("%s: %.300s; %d entries, then %d", name, err, before, len(tree(t, base)))
		}
	}
}

// opening is an OpenRoot in a goroutine of its own.
type opening struct {
	waiting chan struct{}
	done    chan *Root
	err     error
}

func open(ctx context.Context, dir string) *opening {
	o := &opening{waiting: make(chan struct{}), done: make(chan *Root, 1)}
	go func() {
		var r *Root
		r, o.err = OpenRoot(ctx, dir, func() { close(o.waiting) })
		o.done <- r
	}()
	return o
}

const soon = 20 * time.Second

// waits returns when o has said that it waits for the lock.
func (o *opening) waits(t *testing.T) {
	t.Helper()
	select {
	case <-o.waiting:
	case r := <-o.done:
		t.Fatalf("it did not wait: %v, %v", r, o.err)
	case <-time.After(soon):
		t.Fatal("it neither waits nor ends")
	}
}

func (o *opening) root(t *testing.T) *Root {
	t.Helper()
	select {
	case r := <-o.done:
		return r
	case <-time.After(soon):
		t.Fatal("not opened")
		return nil
	}
}

// TestOpenRootStandby: a second opener says once that it waits, and takes over when
// the first closes.
func TestOpenRootStandby(t *testing.T) {
	dir := memoryDir(t)
	first := openTestRoot(t, dir)
	second := open(t.Context(), dir)
	second.waits(t)
	select {
	case <-second.done:
		t.Fatal("two hold the root")
	case <-time.After(2 * lockPoll):
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	r := second.root(t)
	if r == nil {
		t.Fatal(second.err)
	}
	third := open(t.Context(), dir)
	third.waits(t) // the lock is held indeed
	r.Close()
	if r := third.root(t); r == nil {
		t.Error(third.err)
	} else {
		r.Close()
	}
}

func TestOpenRootGivesUp(t *testing.T) {
	dir := memoryDir(t)
	first := openTestRoot(t, dir)
	defer first.Close()
	cause := errors.New("asked to stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	second := open(ctx, dir)
	second.waits(t)
	cancel(cause)
	if r := second.root(t); r != nil || !errors.Is(second.err, cause) {
		t.Errorf("%v", second.err)
	}
}

// TestOpenRootMarkerReplacedWhileWaiting: the lock of a marker that is not in the root
// any more is worth nothing.
func TestOpenRootMarkerReplacedWhileWaiting(t *testing.T) {
	dir := memoryDir(t)
	marker := filepath.Join(dir, markerName)
	first := openTestRoot(t, dir)
	second := open(t.Context(), dir)
	second.waits(t)
	if err := os.Remove(marker); err != nil {
		t.Fatal(err)
	}
	write(t, marker, markerText)
	first.Close()
	r := second.root(t)
	if r == nil {
		t.Fatal(second.err)
	}
	third := open(t.Context(), dir) // would get in if second held the old marker
	third.waits(t)
	r.Close()
	if r := third.root(t); r != nil {
		r.Close()
	}
}

// TestOpenRootMarkerRemovedWhileWaiting: a root that was emptied meanwhile is marked again.
func TestOpenRootMarkerRemovedWhileWaiting(t *testing.T) {
	dir := memoryDir(t)
	first := openTestRoot(t, dir)
	second := open(t.Context(), dir)
	second.waits(t)
	os.Remove(filepath.Join(dir, markerName))
	first.Close()
	r := second.root(t)
	if r == nil {
		t.Fatal(second.err)
	}
	defer r.Close()
	if got := tree(t, dir)[markerName]; !strings.HasSuffix(got, markerText) {
		t.Errorf("marker %q", got)
	}
}

func TestRootPaths(t *testing.T) {
	dir := memoryDir(t)
	r := openTestRoot(t, dir)
	defer r.Close()
	k := Key{"uid-1", "v"}
	if got, want := r.Path(k), dir+"/pods/uid-1/volumes/kubernetes.io~projected/v"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	volume, err := r.volume(k)
	if err != nil {
		t.Fatal(err)
	}
	volume.Close()
	for path, want := range map[string]fs.FileMode{
		"pods": 0o700, "pods/uid-1": 0o700, "pods/uid-1/volumes": 0o755,
		"pods/uid-1/volumes/kubernetes.io~projected": 0o755, "pods/uid-1/volumes/kubernetes.io~projected/v": 0o755,
	} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if err := r.removePod("uid-1"); err != nil {
		t.Error(err)
	}
	if err := r.removePod("uid-1"); err != nil {
		t.Error("a second time:", err)
	}
	if got := tree(t, dir); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// TestRootVolumeReplacesWhatThePodPutThere, and nothing beyond.
func TestRootVolumeReplacesWhatThePodPutThere(t *testing.T) {
	outside := memoryDir(t)
	write(t, outside+"/precious", "x")
	open := memoryDir(t) // its directories are as those on the way to a volume
	mkdir(t, open, "volumes/kubernetes.io~projected")
	mkdir(t, open, "kubernetes.io~projected")
	for _, d := range []string{"volumes", "volumes/kubernetes.io~projected", "kubernetes.io~projected"} {
		if err := os.Chmod(filepath.Join(open, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for name, at := range map[string]string{
		"pod": "", "volumes": "volumes", "plugin": "volumes/kubernetes.io~projected", "volume": "volumes/kubernetes.io~projected/v",
	} {
		for kind, put := range map[string]func(string){
			"link":                          func(path string) { os.Symlink(outside, path) },
			"link to what others may write": func(path string) { os.Symlink(open, path) },
			"file":                          func(path string) { write(t, path, "x") },
		} {
			dir := memoryDir(t)
			r := openTestRoot(t, dir)
			path := filepath.Join(dir, "pods/uid-1", at)
			mkdir(t, filepath.Dir(path))
			put(path)
			volume, err := r.volume(Key{"uid-1", "v"})
			if err != nil {
				t.Errorf("%s is a %s: %v", name, kind, err)
			} else {
				volume.Close()
			}
			if got := tree(t, outside); len(got) != 1 {
				t.Fatalf("%s is a %s: outside there is %v", name, kind, got)
			}
			for at, what := range tree(t, open) {
				if what != "drwxrwxrwx" {
					t.Fatalf("%s is a %s: outside %s is %s", name, kind, at, what)
				}
			}
			r.Close()
		}
	}
}

func TestRootMemory(t *testing.T) {
	r := openTestRoot(t, memoryDir(t))
	defer r.Close()
	if r.InMemory() != (r.Filesystem() == "tmpfs") || r.Filesystem() == "" {
		t.Errorf("%q, in memory %v", r.Filesystem(), r.InMemory())
	}
}

// TestRootBorn: a root is as old as it was when it was made ours, whoever opens it later.
func TestRootBorn(t *testing.T) {
	path := memoryDir(t)
	r := openTestRoot(t, path)
	made := r.born()
	if made.IsZero() || time.Since(made) > time.Hour {
		t.Errorf("made at %v", made)
	}
	if err := errors.Join(os.Chtimes(filepath.Join(path, markerName), made, made.Add(-time.Hour)), r.Close()); err != nil {
		t.Fatal(err)
	}
	again := openTestRoot(t, path)
	defer again.Close()
	if got := again.born(); !got.Equal(made.Add(-time.Hour)) {
		t.Errorf("made at %v, then at %v", made.Add(-time.Hour), got)
	}
}
