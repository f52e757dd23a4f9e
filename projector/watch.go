package projector

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/token-projector/token-projector/atomicwriter"
)

// watchHandle is the pair of watches of a volume: on its directory and on its
// current version. Each watch goes through a descriptor that stays open as
// long as it does: /proc/self/fd/N names a directory that no link can redirect,
// and N tells the watches apart. A job in flight owns the handle, else the
// owner does. The zero value watches nothing.
type watchHandle struct {
	id      atomicwriter.ID    // the volume's directory when it was last seen
	links   atomicwriter.Links // as a look last found them
	dir     int                // descriptor; 0: none
	version int
	name    string // of the watched version
	blind   error  // why a watch could not be set: the sweep alone looks after the volume; nil: none is missing
}

func (h *watchHandle) descriptors() []int {
	var fds []int
	for _, fd := range []int{h.dir, h.version} {
		if fd != 0 {
			fds = append(fds, fd)
		}
	}
	return fds
}

// watcher sets watches and turns their events into hints. A nil *watcher sets
// none. Its methods may be called from any worker.
type watcher struct {
	notify atomic.Pointer[fsnotify.Watcher] // nil: the kernel has given none yet
	limit  int                              // descriptors from here on are for the work itself
}

// fdReserve is how many descriptors watches leave for connections and files.
const fdReserve = 256

var (
	errNoInstance    = errors.New("no inotify instance left")
	errNoDescriptors = errors.New("too near to the limit of open files")
)

func newWatcher() *watcher {
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) // else it is 0, and errNoDescriptors is said
	w := &watcher{limit: int(min(limit.Cur, math.MaxInt32)) - fdReserve}
	w.open()
	return w
}

// open gets a source of events from the kernel, and reports whether there is one.
func (w *watcher) open() bool {
	n, err := fsnotify.NewBufferedWatcher(256)
	if err != nil {
		return false
	}
	w.notify.Store(n)
	return true
}

// opened waits until there is a source of events; nil if ctx ends before.
func (w *watcher) opened(ctx context.Context) *fsnotify.Watcher {
	timer := time.NewTimer(watchRetry)
	defer timer.Stop()
	for w.notify.Load() == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if w.open(); ctx.Err() != nil { // close may have come before
			w.close()
		}
		timer.Reset(watchRetry)
	}
	return w.notify.Load()
}

// run sends the descriptor of every directory with a relevant event to hint,
// and calls lost when events were dropped, until the watcher is closed, or ctx ends before anything is watched.
func (w *watcher) run(ctx context.Context, hint func(descriptor int), lost func(error)) {
	notify := w.opened(ctx)
	for notify != nil {
		select {
		case e, ok := <-notify.Events:
			if !ok {
				return
			}
			if fd, relevant := parseEvent(e.Name); relevant {
				hint(fd)
			}
		case err, ok := <-notify.Errors:
			if !ok {
				return
			}
			lost(err)
		}
	}
}

// close ends all watches and closes their descriptors. No job may be in flight.
func (w *watcher) close() {
	if w == nil || w.notify.Load() == nil {
		return
	}
	for _, name := range w.notify.Load().WatchList() {
		if fd, err := strconv.Atoi(strings.TrimPrefix(name, descriptors)); err == nil {
			w.drop(&fd)
		}
	}
	w.notify.Load().Close()
}

const descriptors = "/proc/self/fd/"

// parseEvent takes the descriptor out of an event's name. Events about other
// versions are our own staging and sweeping; the current version has a watch
// of its own.
func parseEvent(name string) (descriptor int, relevant bool) {
	rest, ok := strings.CutPrefix(name, descriptors)
	if !ok {
		return 0, false
	}
	number, entry, _ := strings.Cut(rest, "/")
	if strings.HasPrefix(entry, "..") && entry != "..data" {
		return 0, false
	}
	fd, err := strconv.Atoi(number)
	return fd, err == nil
}

// update moves the watches of h to dir, whose ID is h.id, and to its version called name, which was the directory id when it
// was seen; zero: it is not known.
func (w *watcher) update(h *watchHandle, dir *atomicwriter.Dir, name string, id atomicwriter.ID) {
	if w == nil {
		return
	}
	h.blind = nil
	kept := w.keeps(&h.dir, h.id)
	if !kept {
		h.dir = w.add(h, dir)
	}
	if h.name != name {
		w.drop(&h.version)
	}
	h.name = name
	if name == "" || kept && w.keeps(&h.version, id) {
		return
	}
	version, err := dir.Open(name)
	if err != nil {
		return // altered again already; the watch on dir has told
	}
	defer version.Close()
	if id, err = version.ID(); err == nil && !w.keeps(&h.version, id) {
		h.version = w.add(h, version)
	}
}

// keeps reports whether *fd is of the directory id, and watched; else it is dropped. Another directory may have been put
// there under the same name; and the watch of one that was moved away and back has ended (fsnotify ends it
// when a watched directory is moved), so it is set again.
func (w *watcher) keeps(fd *int, id atomicwriter.ID) bool {
	var st unix.Stat_t
	if *fd == 0 {
		return false
	}
	if unix.Fstat(*fd, &st) == nil && id == (atomicwriter.ID{Dev: st.Dev, Ino: st.Ino}) && w.addDescriptor(*fd) == nil {
		return true
	}
	w.drop(fd)
	return false
}

// add watches a directory and returns the descriptor that keeps the watch, or
// 0 if the kernel has none left.
func (w *watcher) add(h *watchHandle, dir *atomicwriter.Dir) int {
	fd, err := unix.FcntlInt(uintptr(dir.Fd()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		h.blind = err
		return 0
	}
	if err := w.addDescriptor(fd); err != nil {
		h.blind = err
		unix.Close(fd)
		return 0
	}
	return fd
}

func (w *watcher) addDescriptor(fd int) error {
	notify := w.notify.Load()
	switch {
	case fd >= w.limit:
		return errNoDescriptors
	case notify == nil:
		return errNoInstance
	}
	return notify.Add(descriptors + strconv.Itoa(fd))
}

// drop ends the watch that *fd keeps.
func (w *watcher) drop(fd *int) {
	if w == nil || *fd == 0 {
		return
	}
	// An error says that the kernel has dropped the watch already, with the directory.
	_ = w.notify.Load().Remove(descriptors + strconv.Itoa(*fd))
	unix.Close(*fd)
	*fd = 0
}

// release ends both watches of h.
func (w *watcher) release(h *watchHandle) {
	w.drop(&h.dir)
	w.drop(&h.version)
	*h = watchHandle{}
}
