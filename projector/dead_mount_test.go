package projector

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
)

// mountedRoot makes a directory, and a path that leads to it whatever becomes of its name, as a mount in a container does.
func mountedRoot(t *testing.T) (dir, path string) {
	t.Helper()
	dir = filepath.Join(memoryDir(t), "root")
	mkdir(t, dir)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return dir, fmt.Sprintf("/proc/self/fd/%d", f.Fd())
}

// replaceDir deletes a directory and makes another one under its name.
func replaceDir(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	mkdir(t, dir)
}

// TestDeadMount: what is mounted at the root's path is deleted and made anew where it is mounted from. The root is lost, and
// opening it again says that it must be mounted anew.
func TestDeadMount(t *testing.T) {
	dir, path := mountedRoot(t)
	synctest.Test(t, func(t *testing.T) {
		r := openTestRoot(t, path)
		defer r.Close()
		if err := r.check(); err != nil {
			t.Fatal(err)
		}
		replaceDir(t, dir)
		if err := r.check(); !errors.Is(err, ErrRootReplaced) {
			t.Errorf("check: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), rootPoll+1)
		defer cancel()
		lost := false
		if r.watch(ctx, func() { lost = true }); !lost {
			t.Error("nothing is said of it")
		}
	})
	if _, err := OpenRoot(t.Context(), path, nil); !errors.Is(err, ErrRootMountDead) || errors.Is(err, ErrRootReplaced) {
		t.Errorf("opened again: %v", err)
	}
	if found := tree(t, dir); len(found) > 0 {
		t.Errorf("made in what is not mounted: %v", found)
	}
}

// TestDeadMountUnderStandby: who waits for its lock hears of it, too.
func TestDeadMountUnderStandby(t *testing.T) {
	dir, path := mountedRoot(t)
	first := openTestRoot(t, path)
	defer first.Close()
	second := open(t.Context(), path)
	second.waits(t)
	replaceDir(t, dir)
	if r := second.root(t); r != nil || !errors.Is(second.err, ErrRootMountDead) {
		t.Errorf("%v", second.err)
	}
}
