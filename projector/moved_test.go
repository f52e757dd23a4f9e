package projector

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/token-projector/token-projector/atomicwriter"
)

// watched is a volume with one version, and a watcher on it. What happens in other, a directory beside the version, is hinted at as well.
type watched struct {
	t        *testing.T
	dir      *atomicwriter.Dir
	at       string // the version
	w        *watcher
	h        watchHandle
	hints    chan int
	other    string
	sentinel int // the watch of other
	made     int // directories in it
}

const movedVersion = "..2026_11_22_10_15_04.123456789"

func newWatched(t *testing.T) *watched {
	top := memoryDir(t)
	v := &watched{t: t, at: filepath.Join(top, movedVersion), other: filepath.Join(top, "other"), w: newWatcher(), hints: make(chan int, 1024)}
	v.try(os.Mkdir(v.at, 0o755))
	v.try(os.Mkdir(v.other, 0o755))
	var err error
	v.dir, err = atomicwriter.OpenRoot(top)
	v.try(err)
	t.Cleanup(func() { v.dir.Close() })
	v.h.id, err = v.dir.ID()
	v.try(err)
	go v.w.run(t.Context(), func(fd int) { v.hints <- fd }, func(err error) { t.Error(err) })
	t.Cleanup(v.w.close)
	otherDir, err := v.dir.Open("other")
	v.try(err)
	defer otherDir.Close()
	v.sentinel = v.w.add(&watchHandle{}, otherDir)
	return v
}

func (v *watched) try(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

// told returns what has been hinted at so far. The directory that it makes is one event, the last one.
func (v *watched) told() (fds []int) {
	v.t.Helper()
	v.made++
	v.try(os.Mkdir(filepath.Join(v.other, fmt.Sprint(v.made)), 0o755))
	for {
		select {
		case fd := <-v.hints:
			if fd == v.sentinel {
				return fds
			}
			fds = append(fds, fd)
		case <-time.After(time.Minute):
			v.t.Fatal("no hint at all")
		}
	}
}

// update is a look, which has or has not seen which directory the version is.
func (v *watched) update(seen bool) {
	v.t.Helper()
	var id atomicwriter.ID
	if seen {
		version, err := v.dir.Open(movedVersion)
		v.try(err)
		defer version.Close()
		id, err = version.ID()
		v.try(err)
	}
	v.w.update(&v.h, v.dir, movedVersion, id)
}

// TestMovedVersionIsWatched: a version that a pod moves away and back, or replaces by a directory of its own under the same name,
// is watched again after the next look at the volume; no descriptor is left over.
func TestMovedVersionIsWatched(t *testing.T) {
	v := newWatched(t)
	for what, change := range map[string]func(){
		"nothing":  func() {},
		"moved":    func() { v.try(os.Rename(v.at, v.at+"x")); v.try(os.Rename(v.at+"x", v.at)) },
		"replaced": func() { v.try(os.Rename(v.at, v.at+".away")); v.try(os.Mkdir(v.at, 0o755)) },
	} {
		for _, seen := range []bool{true, false} {
			v.update(seen)
			change()
			v.told()
			v.update(seen)
			v.try(os.WriteFile(filepath.Join(v.at, "token"), []byte("altered"), 0o644))
			if !slices.Contains(v.told(), v.h.version) {
				t.Errorf("%s, seen %v: a write into the version is not noticed", what, seen)
			}
			v.try(os.RemoveAll(v.at + ".away"))
		}
	}
	if got := len(v.w.notify.Load().WatchList()); got != 3 {
		t.Errorf("%d watches, want 3", got)
	}
	v.w.release(&v.h)
}
