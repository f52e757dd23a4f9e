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

// TestMovedVersionIsWatched: a version that a pod moves away and back, or replaces by a directory of its own under the same name,
// is watched again after the next look at the volume; no descriptor is left over.
func TestMovedVersionIsWatched(t *testing.T) {
	const name = "..2026_11_22_10_15_04.123456789"
	top := memoryDir(t)
	at := filepath.Join(top, name)
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	try(os.Mkdir(at, 0o755))
	dir, err := atomicwriter.OpenRoot(top)
	try(err)
	defer dir.Close()
	w, hints := newWatcher(), make(chan int, 1024)
	go w.run(t.Context(), func(fd int) { hints <- fd }, func(err error) { t.Error(err) })
	defer w.close()
	var h watchHandle
	other := filepath.Join(top, "other")
	try(os.Mkdir(other, 0o755))
	otherDir, err := dir.Open("other")
	try(err)
	defer otherDir.Close()
	sentinel := w.add(&watchHandle{}, otherDir)
	// told returns what has been hinted at so far. The directory that it makes is one event, the last one.
	made := 0
	told := func() (fds []int) {
		t.Helper()
		made++
		try(os.Mkdir(filepath.Join(other, fmt.Sprint(made)), 0o755))
		for {
			select {
			case fd := <-hints:
				if fd == sentinel {
					return fds
				}
				fds = append(fds, fd)
			case <-time.After(time.Minute):
				t.Fatal("no hint at all")
			}
		}
	}
	// update is a look, which has or has not seen which directory the version is.
	update := func(seen bool) {
		t.Helper()
		var id atomicwriter.ID
		if seen {
			version, err := dir.Open(name)
			try(err)
			defer version.Close()
			id, err = version.ID()
			try(err)
		}
		w.update(&h, dir, name, id)
	}
	h.id, err = dir.ID()
	try(err)
	for what, change := range map[string]func(){
		"nothing":  func() {},
		"moved":    func() { try(os.Rename(at, at+"x")); try(os.Rename(at+"x", at)) },
		"replaced": func() { try(os.Rename(at, at+".away")); try(os.Mkdir(at, 0o755)) },
	} {
		for _, seen := range []bool{true, false} {
			update(seen)
			change()
			told()
			update(seen)
			try(os.WriteFile(filepath.Join(at, "token"), []byte("altered"), 0o644))
			if !slices.Contains(told(), h.version) {
				t.Errorf("%s, seen %v: a write into the version is not noticed", what, seen)
			}
			try(os.RemoveAll(at + ".away"))
		}
	}
	if got := len(w.notify.Load().WatchList()); got != 3 {
		t.Errorf("%d watches, want 3", got)
	}
	w.release(&h)
}
