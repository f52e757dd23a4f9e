package projector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/atomicwriter"
)

// Names in a root. Below pods the layout is the kubelet's.
const (
	markerName  = ".token-projector"
	markerText  = "token-projector root, version 1\n"
	podsName    = "pods"
	volumesPath = "volumes/kubernetes.io~projected"
)

// Modes of the directories we make: 0700 down to the pod's, because files that
// anybody may read lie below; 0755 from there on. The volume's own always gets
// 0755, because containers see it from inside; what a runtime made on the way
// to it keeps its mode.
const (
	privateMode fs.FileMode = 0o700
	sharedMode  fs.FileMode = 0o755
)

// ErrRootReplaced says that the directory at the root's path is not the one
// that was opened any more: it was deleted, replaced or mounted over. What is
// published into the old one reaches nobody; open the root again.
var ErrRootReplaced = errors.New("root was deleted or replaced")

// ErrRootMountDead says that a deleted directory is mounted at the root's path, as in a container when somebody deletes
// what is mounted on the host. No file can be made in it, and no new one in its place: mount another one. A root that is
// in use then was deleted, which is ErrRootReplaced; opening it again is this.
var ErrRootMountDead = errors.New("what is mounted there was deleted where it is mounted from, and must be mounted anew")

// Root is the directory that holds everything the daemon publishes, locked for
// this process alone.
type Root struct {
	path   string
	dir    *atomicwriter.Dir
	marker *os.File // holds the lock
	sync   bool     // not in memory: sync to survive a power cut
	fs     string
}

// OpenRoot opens the root at path, making it if needed, and waits until no
// other process holds its lock; waiting is called when it has to wait. It
// refuses a directory that is not ours: one without our marker that holds
// anything but what a container runtime makes for subPath mounts. A mount of a
// deleted directory is ErrRootMountDead.
func OpenRoot(ctx context.Context, path string, waiting func()) (*Root, error) {
	for {
		r, err := openRoot(ctx, path, waiting)
		if !errors.Is(err, ErrRootReplaced) {
			return r, err
		}
	}
}

func openRoot(ctx context.Context, path string, waiting func()) (*Root, error) {
	if err := os.MkdirAll(path, privateMode); err != nil {
		return nil, fmt.Errorf("make root: %w", err)
	}
	dir, err := atomicwriter.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	r := &Root{path: path, dir: dir}
	if err = r.look(); err == nil {
		err = r.claim(ctx, waiting)
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("root %s: %w", path, err)
	}
	return r, nil
}

// owner is whom the files we make belong to if nobody else is wanted.
func (r *Root) owner() atomicwriter.Owner { return r.dir.Self() }

// Filesystem is the type of file system the root is on, such as "tmpfs".
func (r *Root) Filesystem() string { return r.fs }

// InMemory reports whether the root's files live in memory (and swap) only.
func (r *Root) InMemory() bool { return !r.sync }

// Close gives the lock back. It removes nothing.
func (r *Root) Close() error {
	var err error
	if r.marker != nil {
		err = r.marker.Close()
	}
	return errors.Join(err, r.dir.Close())
}

// claim takes the lock, and then makes sure that the directory is ours.
func (r *Root) claim(ctx context.Context, waiting func()) error {
	for {
		if err := r.lock(ctx, waiting); err != nil {
			return err
		}
		current, err := r.markerInPlace()
		if err != nil {
			return err
		}
		if current {
			break
		}
		r.marker.Close() // somebody replaced the marker while we waited for its lock
	}
	if err := errors.Join(r.check(), r.identify()); err != nil {
		return err
	}
	if err := r.makePrivate(); err != nil {
		return err
	}
	pods, err := r.dir.Mkdir(podsName, privateMode)
	if err != nil {
		return err
	}
	return errors.Join(pods.Close(), r.inspect())
}

// markerInPlace reports whether the locked marker is still the one in the root.
func (r *Root) markerInPlace() (bool, error) {
	var locked, named unix.Stat_t
	if err := unix.Fstat(int(r.marker.Fd()), &locked); err != nil {
		return false, fmt.Errorf("stat marker: %w", err)
	}
	err := unix.Fstatat(r.dir.Fd(), markerName, &named, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return false, fmt.Errorf("stat marker: %w", err)
	}
	return err == nil && locked.Ino == named.Ino && locked.Dev == named.Dev, nil
}

// identify accepts a root by its marker, and marks one that has none if it
// holds nothing that we did not make.
func (r *Root) identify() error {
	text, err := io.ReadAll(io.LimitReader(r.marker, 4096))
	if err != nil {
		return fmt.Errorf("read marker: %w", err)
	}
	switch {
	case string(text) == markerText:
		return nil
	case !strings.HasPrefix(markerText, string(text)): // a beginning of it is what a crash left
		return fmt.Errorf("its %s says %q, which this version does not know; use another --root-dir, or the version that made it", markerName, text)
	}
	foreign, err := foreignEntry(r.dir, "")
	if err != nil {
		return err
	}
	if foreign != "" {
		// The marker that was made for its lock must not pass for consent.
		_ = unix.Unlinkat(r.dir.Fd(), markerName, 0)
		return fmt.Errorf("it is not empty and has no %s: %s is not ours; use another --root-dir, or empty this one", markerName, foreign)
	}
	if err := r.mark(); err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	return nil
}

// mark writes the text of the locked marker, which is open for reading only.
func (r *Root) mark() error {
	marker, err := os.OpenFile(fmt.Sprintf("%s%d", descriptors, r.marker.Fd()), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = marker.WriteAt([]byte(markerText), 0)
	return errors.Join(err, marker.Close())
}

// ownShape matches the directories that a container runtime makes on the way to
// a subPath mount of a volume, relative to the root.
var ownShape = regexp.MustCompile(`^pods(/[^/]+(/volumes(/kubernetes\.io~projected(/[^/]+)?)?)?)?$`)

// foreignEntry finds something in an unmarked root that nobody makes for us;
// "" if there is nothing.
func foreignEntry(dir *atomicwriter.Dir, at string) (string, error) {
	names, err := dir.Names()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		full := path.Join(at, name)
		if full == markerName {
			continue
		}
		child, err := dir.Open(name)
		if err != nil || !ownShape.MatchString(full) {
			return full, nil
		}
		foreign, err := foreignEntry(child, full)
		if cerr := child.Close(); err != nil || cerr != nil || foreign != "" {
			return foreign, errors.Join(err, cerr)
		}
	}
	return "", nil
}

// inspect learns what the root is on.
func (r *Root) inspect() error {
	memory, err := r.dir.Memory()
	if err != nil {
		return err
	}
	r.sync = !memory
	r.fs, err = r.dir.Filesystem()
	return err
}

// pods lists the pods that have a directory, and whether something is published
// in it: a runtime makes empty ones for subPath mounts.
func (r *Root) pods() (map[types.UID]bool, error) {
	dir, err := r.dir.Open(podsName)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Names()
	found := make(map[types.UID]bool, len(names))
	for _, n := range names {
		found[types.UID(n)] = publishedIn(dir, n)
	}
	return found, err
}

// publishedIn reports whether a volume of the pod holds anything; what cannot be
// read may.
func publishedIn(pods *atomicwriter.Dir, uid string) bool {
	volumes, err := pods.Open(uid + "/" + volumesPath)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer volumes.Close()
	names, err := volumes.Names()
	return err != nil || slices.ContainsFunc(names, func(name string) bool {
		volume, err := volumes.Open(name)
		if err != nil {
			return true
		}
		defer volume.Close()
		entries, err := volume.Names()
		return err != nil || len(entries) > 0
	})
}

// Path is where the volume is, or will be, published.
func (r *Root) Path(k Key) string { return filepath.Join(r.path, volumePath(k)) }

func volumePath(k Key) string {
	return strings.Join([]string{podsName, string(k.PodUID), volumesPath, k.Volume}, "/")
}

// volume opens a volume's directory and makes what is missing on the way. What
// is not a directory is replaced: the pod's own by whoever may write the root,
// what is below it by the pod.
func (r *Root) volume(k Key) (*atomicwriter.Dir, error) {
	if err := r.guard(k); err != nil {
		return nil, err
	}
	dir, err := r.dir.Open(volumePath(k))
	if err == nil {
		return dir, nil
	}
	parent, err := r.dir.Mkdir(podsName, privateMode) // somebody may have emptied the root
	if err != nil {
		return nil, err
	}
	mode := privateMode
	for _, name := range append([]string{string(k.PodUID)}, append(strings.Split(volumesPath, "/"), k.Volume)...) {
		dir, err = replaceWithDir(parent, name, mode)
		parent.Close()
		if err != nil {
			return nil, err
		}
		parent, mode = dir, sharedMode
	}
	return dir, nil
}

// guard puts right the directories on the way to a volume that somebody else could put another volume into, or that
// their owner cannot use: ours again, in the mode we make them with. One that a runtime made may have another mode.
func (r *Root) guard(k Key) error {
	at := ""
	for i, name := range strings.Split(path.Dir(volumePath(k)), "/") {
		mode := sharedMode
		if i < 2 { // down to the pod's own
			mode = privateMode
		}
		at = path.Join(at, name)
		if err := r.guardOne(at, mode); err != nil {
			return fmt.Errorf("guard %s: %w", at, err)
		}
	}
	return nil
}

func (r *Root) guardOne(at string, mode fs.FileMode) error {
	const ownersAll, othersWrite = 0o700, 0o022
	var st unix.Stat_t
	if err := unix.Fstatat(r.dir.Fd(), at, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil // making the volume's directory tells what is wrong
	}
	private, self := st.Mode&ownersAll == ownersAll && st.Mode&othersWrite == 0, r.owner()
	if private && int(st.Uid) == self.UID {
		return nil
	}
	dir, err := r.dir.Open(at)
	if errors.Is(err, unix.ELOOP) { // one of the directories above is a link, which is replaced
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	// Who may not give it back can still serve from it, if others cannot write it.
	if err := unix.Fchown(dir.Fd(), self.UID, self.GID); err != nil && err != unix.EPERM {
		return err
	}
	if private {
		return nil
	}
	return unix.Fchmod(dir.Fd(), uint32(mode))
}

// replaceWithDir opens a child directory, or makes it where something else stands or nothing.
func replaceWithDir(parent *atomicwriter.Dir, name string, mode fs.FileMode) (*atomicwriter.Dir, error) {
	dir, err := parent.Mkdir(name, mode)
	if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		return dir, err
	}
	if err := parent.Remove(name); err != nil {
		return nil, err
	}
	return parent.Mkdir(name, mode)
}

// removePod removes a pod's directory and everything below it.
func (r *Root) removePod(uid string) error {
	pods, err := r.dir.Open(podsName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pods.Close()
	return pods.Remove(uid)
}
