package atomicwriter

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is an open directory. All methods act relative to its descriptor, so
// that renaming or replacing a directory above it leads nowhere else.
//
// A Dir is not for concurrent use. It must be closed.
type Dir struct {
	fd   int
	path string // for error texts only; never opened again
	self Owner  // effective ids of this process
	// readsAll: this process reads files whatever their mode.
	readsAll bool
	magic    int64 // type of the file system, as statfs tells it
	hook     faultHook
	listed   bool // the descriptor has been listed and must be rewound
}

// ID identifies a directory while it exists; a directory that took the place of
// another one has another ID. IDs compare with ==.
type ID struct{ Dev, Ino uint64 }

func idOf(st *unix.Stat_t) ID { return ID{Dev: uint64(st.Dev), Ino: st.Ino} }

// OpenRoot opens the directory at an absolute or relative path of the
// operator's choice. It is the only place where links in a path are followed.
func OpenRoot(path string) (*Dir, error) {
	d := &Dir{path: path, self: Owner{UID: unix.Geteuid(), GID: unix.Getegid()}, readsAll: readsAll()}
	err := retry(func() (err error) {
		d.fd, err = unix.Open(path, openDir|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return d.orClose(d.identify())
}

// Open opens the directory at a path below d. The path has no "..", passes no
// symbolic link and enters no mount; "." is d itself.
//
// Errors are of type *fs.PathError: fs.ErrNotExist if there is nothing, ENOTDIR for
// something else than a directory (also for a link as the last element), ELOOP for a link
// on the way, EXDEV for a mount, fs.ErrInvalid for a path of the wrong form.
func (d *Dir) Open(path string) (*Dir, error) { return d.open(path, below) }

// OpenCrossing is Open, but mounts may be entered: the kubelet mounts
// a tmpfs on each of its volumes. It is meant for reading.
func (d *Dir) OpenCrossing(path string) (*Dir, error) {
	c, err := d.open(path, below&^unix.RESOLVE_NO_XDEV)
	if err != nil {
		return nil, err
	}
	return c.orClose(c.identify())
}

func (d *Dir) open(path string, resolve uint64) (*Dir, error) {
	if !local(path) {
		return nil, d.failed("open", path, fs.ErrInvalid)
	}
	fd, err := openat(d.fd, path, openDir, 0, resolve)
	if err != nil {
		return nil, d.failed("open", path, err)
	}
	return d.child(fd, path), nil
}

// child is the Dir for a descriptor below d. As no mount lies between them,
// the file system is the same.
func (d *Dir) child(fd int, path string) *Dir {
	return &Dir{fd: fd, path: d.path + "/" + path, self: d.self, readsAll: d.readsAll, magic: d.magic, hook: d.hook}
}

// identify asks for the type of the file system.
func (d *Dir) identify() error {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(d.fd, &st) }); err != nil {
		return d.failed("fstatfs", "", err)
	}
	d.magic = int64(st.Type)
	return nil
}

// Mkdir opens the directory at a path below d, like [Dir.Open], after making what is missing
// of the path one component at a time. A directory that is there already is adopted, never
// replaced. The last one then has exactly this mode, and so have those that were
// made on the way, whatever the umask; others on the way stay as they are. Only the permission
// bits of mode count.
//
// Anything else than a directory in the way is an error: ENOTDIR or ELOOP.
func (d *Dir) Mkdir(path string, mode fs.FileMode) (*Dir, error) {
	if !local(path) {
		return nil, d.failed("mkdir", path, fs.ErrInvalid)
	}
	c, err := d.Open(path)
	switch {
	case err == nil:
		return c.orClose(c.setMode(uint32(mode.Perm())))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return d.mkdirEach(path, uint32(mode.Perm()))
	}
	return nil, err
}

// mkdirEach makes and opens a path component by component.
func (d *Dir) mkdirEach(name string, mode uint32) (*Dir, error) {
	at, opened := d, d
	for elems := strings.Split(path.Clean(name), "/"); len(elems) > 0; elems = elems[1:] {
		next, err := at.mkdirOne(elems[0], mode, len(elems) == 1)
		if at != d {
			at.Close()
		}
		if err != nil {
			return nil, err
		}
		at, opened = next, next
	}
	return opened, nil
}

// mkdirOne makes or opens the child name. Its mode is set if it was made here, or is the last.
func (d *Dir) mkdirOne(name string, mode uint32, last bool) (*Dir, error) {
	err := d.mkdirat(d.fd, name, mode)
	made := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	c, err := d.Open(name)
	if errors.Is(err, fs.ErrPermission) && (made || last) {
		if err = d.chmodDir(d.fd, name, mode); err == nil {
			c, err = d.Open(name)
		}
	}
	if err != nil || !made && !last {
		return c, err
	}
	return c.orClose(c.setMode(mode))
}

// Settle gives the volume directory d itself the owner and mode that a publish with these options gives the
// directories below it: 0755 and our own, or 02755 and the group. It returns which directory this is. That it belongs to
// somebody else, and cannot be taken back, is no error by itself; a group that
// cannot be given is an *OwnerError.
func (d *Dir) Settle(o Options) (ID, error) {
	var st unix.Stat_t
	if err := fstat(d.fd, &st); err != nil {
		return ID{}, d.failed("fstat", "", err)
	}
	id, want := idOf(&st), dirsOf(d, o)
	if ownedBy(&st, want.mode, want.owner) {
		return id, nil
	}
	if o.Group != nil {
		if err := d.tryOwner(want.owner, want.mode); err != nil {
			return id, err
		}
	}
	if int(st.Uid) != want.owner.UID || int(st.Gid) != want.owner.GID {
		err := d.change("fchown", "", func() error { return unix.Fchown(d.fd, want.owner.UID, want.owner.GID) })
		if err != nil && o.Group != nil {
			return id, refusedOwner(want.owner, err)
		}
	}
	if err := d.setMode(want.mode); err != nil || o.Group == nil {
		return id, err
	}
	return id, d.expectSetgid(d.fd, "", want)
}

// setMode gives d exactly this mode.
func (d *Dir) setMode(mode uint32) error {
	var st unix.Stat_t
	if err := fstat(d.fd, &st); err != nil {
		return d.failed("fstat", "", err)
	}
	if perm(&st) == mode {
		return nil
	}
	return d.change("fchmod", "", func() error { return unix.Fchmod(d.fd, mode) })
}

// orClose returns d, or closes it and returns the error.
func (d *Dir) orClose(err error) (*Dir, error) {
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Names returns the names of all entries, sorted.
func (d *Dir) Names() ([]string, error) {
	var l listing
	if err := d.list(&l); err != nil {
		return nil, err
	}
	if err := l.finish(d.fd, -1); err != nil {
		return nil, d.failed("getdents64", "", err)
	}
	names := make([]string, len(l.ents))
	for i, e := range l.ents {
		names[i] = string(e.name)
	}
	return names, nil
}

// list reads the first entries of d; l.finish reads the others.
func (d *Dir) list(l *listing) error {
	if d.listed {
		if _, err := unix.Seek(d.fd, 0, unix.SEEK_SET); err != nil {
			return d.failed("lseek", "", err)
		}
	}
	d.listed = true
	if err := l.more(d.fd); err != nil {
		return d.failed("getdents64", "", err)
	}
	return nil
}

// ID tells which directory this is.
func (d *Dir) ID() (ID, error) {
	var st unix.Stat_t
	if err := fstat(d.fd, &st); err != nil {
		return ID{}, d.failed("fstat", "", err)
	}
	return idOf(&st), nil
}

// Linked reports whether the directory still has a name. A deleted directory stays
// open, and mounted in running containers, but can take no file any more.
func (d *Dir) Linked() (bool, error) {
	var st unix.Stat_t
	if err := fstat(d.fd, &st); err != nil {
		return false, d.failed("fstat", "", err)
	}
	return st.Nlink > 0, nil
}

// Memory reports whether the directory's file system is in memory
// (tmpfs or ramfs), so that nothing on it needs a sync.
func (d *Dir) Memory() (bool, error) {
	return d.magic == unix.TMPFS_MAGIC || d.magic == unix.RAMFS_MAGIC, nil
}

// fileSystems are the names of the types that nodes have.
var fileSystems = map[int64]string{
	unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.EXT4_SUPER_MAGIC: "ext4",
	unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	unix.NFS_SUPER_MAGIC: "nfs", unix.F2FS_SUPER_MAGIC: "f2fs", unix.FUSE_SUPER_MAGIC: "fuse",
	unix.PROC_SUPER_MAGIC: "proc", 0x2fc12fc1: "zfs",
}

// Filesystem returns the name of the file system's type, such as "tmpfs", or the number
// of an unknown one as "0x...".
func (d *Dir) Filesystem() (string, error) {
	if name, ok := fileSystems[d.magic]; ok {
		return name, nil
	}
	return fmt.Sprintf("%#x", uint64(d.magic)), nil
}

// Self is the owner of what is created here: the effective ids of the process that opened the root.
func (d *Dir) Self() Owner { return d.self }

// Fd returns the descriptor, which d keeps.
func (d *Dir) Fd() int { return d.fd }

// Close closes the descriptor. d is of no use afterwards; a second Close does nothing.
func (d *Dir) Close() error {
	fd := d.fd
	d.fd = -1
	if fd < 0 {
		return nil
	}
	if err := unix.Close(fd); err != nil {
		return d.failed("close", "", err)
	}
	return nil
}
