package projector

import (
	"fmt"
	"math"
	"strconv"
	"strings"

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
	id       atomicwriter.ID // the volume's directory when it was last seen
	dir      int             // descriptor; 0: none
	version  int
	name     string // of the watched version
	degraded bool   // the watches could not be set: the sweep alone looks after the volume
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
	notify *fsnotify.Watcher
	limit  int // descriptors from here on are for the work itself
}

// fdReserve is how many descriptors watches leave for connections and files.
const fdReserve = 256

func newWatcher() (*watcher, error) {
	n, err := fsnotify.NewBufferedWatcher(256)
	if err != nil {
		return nil, fmt.Errorf("watch for changes: %w", err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		n.Close()
		return nil, fmt.Errorf("read the limit of open files: %w", err)
	}
	return &watcher{notify: n, limit: int(min(limit.Cur, math.MaxInt32)) - fdReserve}, nil
}

// run sends the descriptor of every directory with a relevant event to hint,
// and calls lost when events were dropped, until the watcher is closed.
func (w *watcher) run(hint func(descriptor int), lost func(error)) {
	for {
		select {
		case e, ok := <-w.notify.Events:
			if !ok {
				return
			}
			if fd, relevant := parseEvent(e.Name); relevant {
				hint(fd)
			}
		case err, ok := <-w.notify.Errors:
			if !ok {
				return
			}
			lost(err)
		}
	}
}

// close ends all watches and closes their descriptors. No job may be in flight.
func (w *watcher) close() {
	if w == nil {
		return
	}
	for _, name := range w.notify.WatchList() {
		if fd, err := strconv.Atoi(strings.TrimPrefix(name, descriptors)); err == nil {
			w.drop(&fd)
		}
	}
	w.notify.Close()
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

// update moves the watches of h to dir and to its version called name.
func (w *watcher) update(h *watchHandle, dir *atomicwriter.Dir, name string) {
	if w == nil {
		return
	}
	h.degraded = false
	if h.dir == 0 {
		h.dir = w.add(h, dir)
	}
	if h.name == name && h.version != 0 {
		return
	}
	w.drop(&h.version)
	h.name = name
	if name == "" {
		return
	}
	version, err := dir.Open(name)
	if err != nil {
		return // altered again already; the watch on dir has told
	}
	defer version.Close()
	h.version = w.add(h, version)
}

// add watches a directory and returns the descriptor that keeps the watch, or
// 0 if the kernel has none left.
func (w *watcher) add(h *watchHandle, dir *atomicwriter.Dir) int {
	fd, err := unix.FcntlInt(uintptr(dir.Fd()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		h.degraded = true
		return 0
	}
	if fd >= w.limit {
		h.degraded = true
		unix.Close(fd)
		return 0
	}
	if err := w.notify.Add(descriptors + strconv.Itoa(fd)); err != nil {
		h.degraded = true
		unix.Close(fd)
		return 0
	}
	return fd
}

// drop ends the watch that *fd keeps.
func (w *watcher) drop(fd *int) {
	if w == nil || *fd == 0 {
		return
	}
	// An error says that the kernel has dropped the watch already, with the directory.
	_ = w.notify.Remove(descriptors + strconv.Itoa(*fd))
	unix.Close(*fd)
	*fd = 0
}

// release ends both watches of h.
func (w *watcher) release(h *watchHandle) {
	w.drop(&h.dir)
	w.drop(&h.version)
	*h = watchHandle{}
}
