package atomicwriter

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// tryOwners finds out whether the new version's owners may be given, before anything of it is there.
func (p *publication) tryOwners() error {
	if p.dirs.owner != p.d.self {
		if err := p.d.tryOwner(p.dirs.owner, p.dirs.mode); err != nil {
			return err
		}
	}
	tried := p.dirs.owner
	for i := range p.want {
		w := &p.want[i]
		if w.owner == p.dirs.owner || w.owner == tried {
			continue
		}
		tried = w.owner
		if err := p.d.tryOwner(w.owner, w.mode); err != nil {
			return err
		}
	}
	return nil
}

// tryOwner finds out on a file without a name, which nobody sees, whether we may give something to o, with
// this mode, and read it back. Where the file system makes no such files, it is found out later.
func (d *Dir) tryOwner(o Owner, mode uint32) error {
	fd, err := openat(d.fd, ".", unix.O_TMPFILE|unix.O_WRONLY, 0o600, below)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	const name = "a file without a name"
	if err := unix.Fchmod(fd, mode&0o777); err != nil {
		return d.failed("fchmod", name, err)
	}
	if err := unix.Fchown(fd, o.UID, o.GID); err != nil {
		return refusedOwner(o, d.failed("fchown", name, err))
	}
	if mode&unix.S_ISGID == 0 {
		again, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return refusedOwner(o, d.failed("read back", name, err))
		}
		return unix.Close(again)
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return refusedOwner(o, d.failed("fchmod", name, err))
	}
	return d.expectSetgid(fd, "", dirAttrs{mode, o})
}

// expectSetgid makes sure that the directory name of fd, or fd itself for "", has the setgid bit: the kernel drops it,
// without an error, where we are not in the directory's group, unless we have CAP_FSETID.
func (d *Dir) expectSetgid(fd int, name string, want dirAttrs) error {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) })
	if err != nil {
		return d.failed("fstatat", name, err)
	}
	if perm(&st) != want.mode {
		return &OwnerError{want.owner, d.failed("set setgid bit", name, unix.EPERM)}
	}
	return nil
}

// giveAway sets the owner of a new file, and makes sure that we can read it back: a file that only its owner
// can read would be lost to every later comparison, unless we have CAP_DAC_READ_SEARCH.
func (p *publication) giveAway(fd int, name string, o Owner) error {
	if err := p.d.change("fchown", name, func() error { return unix.Fchown(fd, o.UID, o.GID) }); err != nil {
		return refusedOwner(o, err)
	}
	again, err := openat(p.d.fd, name, openFile, 0, below)
	if err != nil {
		return refusedOwner(o, p.d.failed("read back", name, err))
	}
	unix.Close(again)
	return nil
}

// refusedOwner makes an *OwnerError of an error by which the kernel says that we may not give
// something to o: for want of a capability, because o is no id of our user
// namespace, or because the file system knows no owners.
func refusedOwner(o Owner, err error) error {
	for _, refusal := range []error{unix.EPERM, unix.EACCES, unix.EINVAL, unix.EOPNOTSUPP} {
		if errors.Is(err, refusal) {
			return &OwnerError{o, err}
		}
	}
	return err
}
