package projector

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/token-projector/token-projector/atomicwriter"
)

// lockPoll is how often a standby looks for the lock, and rootPoll how often
// a running daemon makes sure that the root is still where it was.
const (
	lockPoll = 200 * time.Millisecond
	rootPoll = 5 * time.Second
)

// makePrivate sets the root's mode if it is another one: a read-only root can be served from.
func (r *Root) makePrivate() error {
	var st unix.Stat_t
	if err := unix.Fstat(r.dir.Fd(), &st); err != nil {
		return fmt.Errorf("stat root: %w", err)
	}
	if st.Mode&^unix.S_IFMT == uint32(privateMode) {
		return nil
	}
	if err := unix.Fchmod(r.dir.Fd(), uint32(privateMode)); err != nil {
		return fmt.Errorf("make private: %w", err)
	}
	return nil
}

// born is when the root was made ours, by the local clock of then: the marker is written once. Zero: nobody knows.
func (r *Root) born() time.Time {
	if info, err := r.marker.Stat(); err == nil {
		return info.ModTime()
	}
	return time.Time{}
}

// lock opens the marker and waits for its lock.
func (r *Root) lock(ctx context.Context, waiting func()) error {
	// Not for writing: that would keep the file system from being remounted read-only, and us from starting on one that is.
	fd, err := unix.Openat(r.dir.Fd(), markerName, unix.O_RDONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open marker: %w", &fs.PathError{Op: "openat", Path: markerName, Err: err})
	}
	r.marker = os.NewFile(uintptr(fd), filepath.Join(r.path, markerName))
	for first := true; ; first = false {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("lock: %w", err)
		}
		if first && waiting != nil {
			waiting()
		}
		if err := r.check(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
}

// check returns ErrRootReplaced if the root's path leads somewhere else now, or to what was deleted.
func (r *Root) check() error {
	if err := r.look(); !errors.Is(err, ErrRootMountDead) {
		return err
	}
	return ErrRootReplaced
}

// look is check, but tells a mount of a deleted directory apart. It still is the one that was opened; it only has no
// name any more.
func (r *Root) look() error {
	var st unix.Stat_t
	err := unix.Stat(r.path, &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return ErrRootReplaced
	}
	if err != nil {
		return fmt.Errorf("stat root: %w", &fs.PathError{Op: "stat", Path: r.path, Err: err})
	}
	id, err := r.dir.ID()
	if err == nil && id != (atomicwriter.ID{Dev: st.Dev, Ino: st.Ino}) {
		return ErrRootReplaced
	}
	if err == nil && st.Nlink == 0 {
		return ErrRootMountDead
	}
	return err
}

// watch checks the root until ctx ends, and calls lost once if it was replaced. It keeps the root private meanwhile.
func (r *Root) watch(ctx context.Context, lost func()) {
	timer := time.NewTimer(rootPoll)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if errors.Is(r.check(), ErrRootReplaced) {
			lost()
			return
		}
		_ = r.makePrivate() // others must not enter it; a failure is tried again
		timer.Reset(rootPoll)
	}
}
