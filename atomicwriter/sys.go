package atomicwriter

import (
	"errors"
	"io/fs"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// below confines a path of any length: it stays under the descriptor,
	// passes no symbolic link (nor a magic one) and enters no mount.
	below = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV

	openDir  = unix.O_RDONLY | unix.O_DIRECTORY
	openFile = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	openNew  = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL
	openPath = unix.O_PATH | unix.O_DIRECTORY
	openLink = unix.O_PATH // O_NOFOLLOW makes it the link itself

	// maxAgain bounds the retries of EAGAIN. The kernel gives it for a
	// rename elsewhere that raced with the lookup, but also for as long as
	// somebody holds a lease on the file, and that must not hold us.
	maxAgain = 16
)

// faultHook is called before (done false) and after (done true) every system call
// that changes the file system. An error from the first call prevents
// the change, one from the second reports a change that was made as failed; a
// panic is a crash. Tests only; nil in production.
type faultHook func(op, name string, done bool) error

// change makes one changing system call, retried when interrupted.
func (d *Dir) change(op, name string, call func() error) error {
	if d.hook != nil {
		if err := d.hook(op, name, false); err != nil {
			return d.failed(op, name, err)
		}
	}
	if err := retry(call); err != nil {
		return d.failed(op, name, err)
	}
	if d.hook != nil {
		if err := d.hook(op, name, true); err != nil {
			return d.failed(op, name, err)
		}
	}
	return nil
}

// failed names the operation and the path of an error.
func (d *Dir) failed(op, name string, err error) error {
	path := d.path
	if name != "" {
		path += "/" + name
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// openat opens path, of one or more components, below fd.
func openat(fd int, path string, flags, mode uint32, resolve uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Mode:    uint64(mode),
		Resolve: resolve,
	}
	for again := 0; ; {
		got, err := unix.Openat2(fd, path, &how)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN && again < maxAgain:
			again++
		default:
			return got, err
		}
	}
}

// readlink returns the target of the link name in fd, as a part of buf. A target that
// does not fit is cut, and then equals nothing that this package wrote.
func readlink(fd int, name string, buf []byte) ([]byte, error) {
	for {
		n, err := unix.Readlinkat(fd, name, buf)
		if err != unix.EINTR {
			return buf[:max(n, 0)], err
		}
	}
}

// fstat describes an open file.
func fstat(fd int, st *unix.Stat_t) error {
	return retry(func() error { return unix.Fstat(fd, st) })
}

// lstat describes the entry name of the directory fd.
func lstat(fd int, name string, st *unix.Stat_t) error {
	return retry(func() error { return unix.Fstatat(fd, name, st, unix.AT_SYMLINK_NOFOLLOW) })
}

// read is read(2), repeated when interrupted.
func read(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buf)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// perm is the part of a mode that chmod sets.
func perm(st *unix.Stat_t) uint32 { return st.Mode & 0o7777 }

// exhausted tells an error of this process or machine, to be reported, from one that
// says something about the file, to be healed.
func exhausted(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) ||
		errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EBADF)
}

// chmodDir sets the mode of the directory name in fd even if it may not be opened for
// reading: through a path descriptor, so that no link is followed.
func (d *Dir) chmodDir(fd int, name string, mode uint32) error {
	at, err := openat(fd, name, openPath, 0, below)
	if err != nil {
		return d.failed("openat2", name, err)
	}
	defer unix.Close(at)
	self := "/proc/self/fd/" + strconv.Itoa(at)
	return d.change("fchmodat", name, func() error { return unix.Fchmodat(unix.AT_FDCWD, self, mode, 0) })
}

// chownDir and chownLink give away what was just made, a directory or a link. Somebody with power in the directory may
// have put something else under its name: a hard link to a file of somebody else, or a mount. So it is opened first, as what it is
// to be, and the descriptor is given away, not the name.

func (d *Dir) chownDir(fd int, name string, o Owner) error {
	at, err := openat(fd, name, openPath, 0, below)
	if err != nil {
		return d.failed("openat2", name, err)
	}
	defer unix.Close(at)
	return d.chownOpen(at, name, o)
}

func (d *Dir) chownLink(name string, o Owner) error {
	at, err := openat(d.fd, name, openLink, 0, below)
	if err != nil {
		return d.failed("openat2", name, err)
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := fstat(at, &st); err != nil {
		return d.failed("fstat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Nlink != 1 {
		return d.failed("fchownat", name, errReplaced)
	}
	return d.chownOpen(at, name, o)
}

func (d *Dir) chownOpen(at int, name string, o Owner) error {
	return d.change("fchownat", name, func() error {
		return unix.Fchownat(at, "", o.UID, o.GID, unix.AT_EMPTY_PATH)
	})
}

// errReplaced is why something is left alone that was made a moment ago.
var errReplaced = errors.New("is not what was just made")

// mkdirat, unlinkat, symlinkat and renameat are the changing calls that take names.
// A name is always a single component.

func (d *Dir) mkdirat(fd int, name string, mode uint32) error {
	return d.change("mkdirat", name, func() error { return unix.Mkdirat(fd, name, mode) })
}

func (d *Dir) unlinkat(fd int, name string, flags int) error {
	return d.change("unlinkat", name, func() error { return unix.Unlinkat(fd, name, flags) })
}

func (d *Dir) symlinkat(target, name string) error {
	return d.change("symlinkat", name, func() error { return unix.Symlinkat(target, d.fd, name) })
}

func (d *Dir) renameat(from, to string, flags uint) error {
	return d.change("renameat", to, func() error {
		if flags == 0 {
			return unix.Renameat(d.fd, from, d.fd, to)
		}
		return unix.Renameat2(d.fd, from, d.fd, to, flags)
	})
}

// readsAll reports whether this thread has one of the capabilities that read a file whatever its mode.
func readsAll() bool {
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_DAC_OVERRIDE|1<<unix.CAP_DAC_READ_SEARCH) != 0
}
