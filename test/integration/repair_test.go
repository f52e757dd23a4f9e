package integration

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// harms are what is done to an object of a volume.
var harms = map[string]func(path string) error{
	"deleted":   os.RemoveAll,
	"chmodded":  func(path string) error { return os.Chmod(path, 0o711) },
	"a symlink": func(path string) error { return replace(path, func(by string) error { return os.Symlink("/etc", by) }) },
	"a FIFO": func(path string) error {
		return replace(path, func(by string) error { return syscall.Mkfifo(by, 0o644) })
	},
	"altered": func(path string) error {
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			return errors.Join(err, os.WriteFile(path, []byte("altered"), 0o644))
		}
		return replace(path, func(by string) error { return os.Mkdir(by, 0o755) }) // made anew, empty
	},
}

// replace puts what made makes in the place of path, in one step: were path gone for a moment, a daemon that repairs could
// be there first.
func replace(path string, made func(by string) error) error {
	root, _, _ := strings.Cut(path, "/pods/")
	dir, err := os.MkdirTemp(filepath.Dir(root), "harm-") // beside the root: on its file system, and not in it
	if err != nil {
		return err
	}
	by := filepath.Join(dir, "by")
	err = made(by)
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, by, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// objects are the parts of a volume, by their path from its directory; detaches are those that take the directory with them.
var objects = map[string]struct {
	path     string
	detaches bool
	except   []string // harms that are none, or are not the daemon's to undo
}{
	"file":             {path: "..data/token"},
	"link":             {path: "token", except: []string{"chmodded", "altered"}}, // both are done to the file behind it
	"data link":        {path: "..data", except: []string{"chmodded", "altered"}},
	"version":          {path: "VERSION"},
	"volume directory": {path: ".", detaches: true},
	"plugin directory": {path: "..", detaches: true, except: []string{"chmodded"}}, // a runtime may have made it
	"pod directory":    {path: "../../..", detaches: true, except: []string{"chmodded"}},
}

// whole says how a volume differs from an untouched one of the same content: names, kinds, modes, contents; "" is not at all.
func (w *world) whole(pod *corev1.Pod, want map[string]string) string {
	got := w.describe(pod)
	if maps.Equal(got, want) {
		return ""
	}
	return fmt.Sprintf("%d entries, want %d", len(got), len(want))
}

func (w *world) describe(pod *corev1.Pod) map[string]string {
	dir := w.path(pod, "v", "")
	tree := map[string]string{}
	version, _ := os.Readlink(filepath.Join(dir, "..data"))
	for _, name := range []string{".", "..data", "token", "ca.crt", version, version + "/token", version + "/ca.crt"} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			tree[name] = "missing"
			continue
		}
		text := info.Mode().String()
		target, _ := os.Readlink(filepath.Join(dir, name))
		if info.Mode().IsRegular() && !strings.HasSuffix(name, "token") { // a token that was lost is another one
			data, _ := os.ReadFile(filepath.Join(dir, name))
			text += string(data)
		} else if info.Mode().IsRegular() {
			text += fmt.Sprint(info.Size() > 100)
		}
		tree[strings.Replace(name, version, "VERSION", 1)] = text + strings.Replace(target, version, "VERSION", 1)
	}
	return tree
}

// TestEveryRepair does each harm to each part of a volume, and measures how long it lasts. A volume whose directory was
// replaced is reported as detached, in the log and as a metric.
func TestEveryRepair(t *testing.T) {
	for object, o := range objects {
		t.Run(object, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeapi.Options{NoAPIAccessVolume: true})
			d := w.start()
			for _, harm := range slices.Sorted(maps.Keys(harms)) {
				if slices.Contains(o.except, harm) {
					continue
				}
				took := w.repair(d, harm, o.path)
				if took > 15*time.Second {
					t.Errorf("%s: repaired after %v", harm, took)
				}
				t.Logf("%s, %s: repaired after %v", object, harm, took)
				if detached := o.detaches && harm != "chmodded"; detached {
					eventually(t, "detached", func() bool { return d.metric("token_projector_volumes", "state", "detached") >= 1 })
				} else if d.metric("token_projector_volumes", "state", "detached") > 0 && !o.detaches {
					t.Errorf("%s: detached", harm)
				}
			}
			want := 0
			if o.detaches {
				want = len(harms) - 1
			}
			said := func() int { return strings.Count(d.Output(), "volume directory was deleted or replaced") }
			eventually(t, "lines about replaced directories", func() bool { return said() >= want })
			if got := said(); got != want {
				t.Errorf("%d lines about a replaced directory, want %d", got, want)
			}
			d.Terminate()
		})
	}
}

// repair harms a new pod's volume, and returns after how long it was whole. Until the harm is complete the daemon stands still:
// it would repair half of one.
func (w *world) repair(d *daemon, harm, path string) time.Duration {
	w.t.Helper()
	ca := corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}}
	v := tokenVolume("v", "vault", 7200)
	v.Projected.Sources = append(v.Projected.Sources, ca)
	pod := w.pod("demo", strings.ReplaceAll(strings.ToLower(harm), " ", "-"), v)
	w.waitPublished(pod)
	eventually(w.t, "ready volume", func() bool {
		return strings.Count(d.Output(), "volume published") > 0 && d.metric("token_projector_volumes", "state", "pending") == 0
	})
	want := w.describe(pod)
	version, err := os.Readlink(w.path(pod, "v", "..data"))
	check(w.t, err)
	at := filepath.Join(w.path(pod, "v", ""), strings.Replace(path, "VERSION", version, 1))
	before := must2(os.Lstat(at))
	d.Suspend()
	err = harms[harm](at)
	after, gone := os.Lstat(at)
	d.Resume()
	began := time.Now()
	check(w.t, err)
	if gone == nil && os.SameFile(before, after) && after.Mode() == before.Mode() && after.ModTime().Equal(before.ModTime()) {
		w.t.Errorf("%s at %s did nothing", harm, path)
	}
	eventually(w.t, harm+" at "+path, func() bool { return w.whole(pod, want) == "" })
	return time.Since(began).Round(time.Millisecond)
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestRepairStorm: a file that is altered a hundred times a second for five seconds is repaired ever less often, and is whole
// afterwards.
func TestRepairStorm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	d := w.start()
	pod := w.pod("demo", "web")
	w.waitPublished(pod)
	eventually(t, "ready volume", func() bool { return d.metric("token_projector_volumes", "state", "ready") == 1 })
	before := d.metric("token_projector_publishes_total")
	file := w.path(pod, apiVolume(pod), "ca.crt")
	for range 500 {
		_ = os.WriteFile(file, []byte("altered"), 0o644) // fails while the volume is between two versions
		time.Sleep(10 * time.Millisecond)                // the storm's pace
	}
	began := time.Now()
	eventually(t, "the bundle", func() bool { ca, _ := os.ReadFile(file); return string(ca) == string(w.api.CA()) })
	took := time.Since(began)
	publishes := d.metric("token_projector_publishes_total") - before
	if publishes < 1 || publishes > 20 {
		t.Errorf("500 alterations caused %v publishes, want 1 to 20", publishes)
	}
	if n := strings.Count(d.Output(), "volume was altered on disk; repairing"); n != 1 {
		t.Errorf("%d log lines, want 1", n)
	}
	t.Logf("500 alterations in 5 s: %v publishes, whole %v after the last", publishes, took)
	d.Terminate()
}
