package projector

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// untouched describes the directory outside: everything that somebody could change there.
func (l *litter) untouched() map[string]string {
	tree := map[string]string{}
	err := filepath.WalkDir(l.outside, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		var data []byte
		if e.Type().IsRegular() {
			data, err = os.ReadFile(p)
		}
		tree[p] = fmt.Sprintf("%o %d:%d %v %q", st.Mode, st.Uid, st.Gid, st.Mtim, data)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return tree
}

// litteredPod has two tokens, one of them in a directory, and a file of another kind.
func litteredPod() *corev1.Pod {
	pod := lonePod(1, 600)
	pod.Spec.Volumes[0] = projected("extra", tokenSource("vault", 600, "extra-token"), tokenSource("b", 900, "dir/token"), namespaceSource())
	return pod
}

// daemon is a newly started owner over the root as it is.
func (l *litter) daemon(root *Root, later time.Duration) *rig {
	r := newRig(l.t)
	r.pass(later)
	r.s.hear(r.server(), r.now, r.now)
	r.s.self = root.owner()
	found, err := root.pods()
	if err != nil {
		l.t.Fatal("list the root:", err)
	}
	r.s.orphans(found, r.now)
	return r
}

// whole fails the test unless a reader finds just the volume's files, each as it should be, and nothing is left over.
func (l *litter) whole(r *rig) {
	l.t.Helper()
	dir := filepath.Join(l.path, wantedVolume)
	for name, audience := range map[string]string{"extra-token": "vault", "dir/token": "b"} {
		data, err := readNow(filepath.Join(dir, name))
		c, perr := ParseClaims(data)
		request := Request{Namespace: "default", ServiceAccount: "default", PodUID: "uid-1", Audience: audience}
		if err != nil || perr != nil || c.fits(request) != nil || c.Lifetime.Expired(r.server()) {
			l.t.Errorf("%s: %v, %v, lifetime %+v; the volume is %s: %v", name, err, perr, c.Lifetime, r.volume(extra(1)).condition(), r.volume(extra(1)).err)
		}
	}
	if data, err := readNow(filepath.Join(dir, "namespace")); err != nil || string(data) != "default" {
		l.t.Errorf("namespace reads %q, %v", data, err)
	}
	var files []string
	check := filepath.WalkDir(filepath.Join(dir, "..data")+"/", func(p string, e fs.DirEntry, err error) error {
		files = append(files, fmt.Sprint(strings.TrimPrefix(p, dir+"/..data/"), e.Type()))
		return err
	})
	if want := []string{"d---------", "dird---------", "dir/token----------", "extra-token----------", "namespace----------"}; check != nil || !slices.Equal(files, want) {
		l.t.Errorf("the version holds %q, %v", files, check)
	}
	l.noLeftovers(dir)
}

// readNow is os.ReadFile that does not wait for a FIFO's writer.
func readNow(name string) ([]byte, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, 1<<20))
}

// noLeftovers: of what a publish makes, one version and no temporary link.
func (l *litter) noLeftovers(dir string) {
	l.t.Helper()
	versions, _ := filepath.Glob(filepath.Join(dir, "..2*"))
	if _, err := os.Lstat(filepath.Join(dir, "..data_tmp")); err == nil || len(versions) != 1 {
		l.t.Errorf("left over: %q, a temporary link: %v", versions, err == nil)
	}
}

// podsLeft are the entries of the root's list of pods.
func (l *litter) podsLeft() []string {
	l.t.Helper()
	entries, err := os.ReadDir(filepath.Join(l.path, podsName))
	if err != nil {
		l.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// adopted: a daemon that finds the litter makes its pod's volume whole, removes everybody else's pods, then its own.
func (l *litter) adopted() {
	root := openTestRoot(l.t, l.path)
	defer root.Close()
	d, r := &disk{root: root}, l.daemon(root, time.Minute)
	r.apply(litteredPod())
	r.s.replace(r.wishes(), r.now)
	r.runOn(d, time.Minute) // replaced versions are swept after ten seconds
	l.whole(r)
	if left := l.podsLeft(); !slices.Equal(left, []string{"uid-1"}) {
		l.t.Errorf("the root still has the pods %q", left)
	}
	r.s.forget("uid-1", r.now)
	r.runOn(d, time.Minute)
	if left := l.podsLeft(); len(left) != 0 {
		l.t.Errorf("with no pod left, the root has %q", left)
	}
}

// FuzzAdoption: a root full of garbage, of a pod that is wanted and of others, is taken over.
func FuzzAdoption(f *testing.F) {
	for _, seed := range []string{"", "\x01", "\x01\x00\x04\x82\x00", "\x01\x00\x04\x82\x09\x00\x06\x04\x0f\x05\x03\x06\x63", "\x00\x02\x00\x02\x00\x05\x0b\x02\x00", "\x01\x04\x08\x80\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, s := newLitter(t), script(text)
		root := openTestRoot(t, l.path)
		if s.byte()%2 == 1 { // one that has been in use
			r := l.daemon(root, 0)
			r.apply(litteredPod())
			r.runOn(&disk{root: root}, time.Second)
			l.whole(r)
		}
		root.Close()
		l.scatter(s)
		before := l.untouched()
		done := make(chan struct{})
		go func() { defer close(done); l.adopted() }()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Fatal("it hangs")
		}
		if !maps.Equal(before, l.untouched()) {
			t.Errorf("outside was %v and is %v", before, l.untouched())
		}
	})
}

// TestLitterSees: the checks of FuzzAdoption catch what a careless daemon would do.
func TestLitterSees(t *testing.T) {
	for name, harm := range map[string]func(file string) error{
		"written": func(file string) error { return os.WriteFile(file, []byte("x"), 0) },
		"chmod":   func(file string) error { return os.Chmod(file, 0o600) },
		"removed": os.Remove,
		"touched": func(file string) error { return os.Chtimes(file, time.Time{}, time.Unix(1, 0)) },
	} {
		l := newLitter(t)
		before := l.untouched()
		if err := harm(filepath.Join(l.outside, "dir", "file")); err != nil {
			t.Fatal(err)
		}
		if maps.Equal(before, l.untouched()) {
			t.Errorf("%s goes unseen", name)
		}
	}
}
