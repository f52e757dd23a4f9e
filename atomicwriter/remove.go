package atomicwriter

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// maxWalk is how deep the walk of Remove descends with an open descriptor for
	// each level. What lies deeper is moved up first.
	maxWalk = 32

	// maxPasses bounds how often one directory is read again because somebody keeps
	// filling it.
	maxPasses = 16

	// maxTold is how many of a walk's errors are told.
	maxTold = 8
)

// maxWork is how many entries one Remove, or one Sweep, takes on: a million files, or somebody who makes
// them as fast as they go, must not hold the caller. Tests change it.
var maxWork = 1 << 16

// ErrUnfinished is wrapped by the error of a [Dir.Remove], [Dir.Sweep] or [Dir.Publish] that has removed much, and not all.
// Another one goes on from there. It may be joined with errors of entries that resist; of nothing
// but those, it is no part.
var ErrUnfinished = errors.New("too much to remove at once; the next try goes on from here")

// errMount is why an entry was left alone by Remove.
var errMount = errors.New("is a mount point")

// Remove removes the child name of d, a single component, and everything below it. An absent
// child is no error.
//
// It follows no link and enters no mount. A mount point stays, with the directories above it;
// all the rest is removed, and the error names it, or the first few of many. Directories that do not permit
// the removal of what they hold are given mode 0700 first. What has too many entries
// for one call, or gets new ones as fast, is an error that wraps [ErrUnfinished].
func (d *Dir) Remove(name string) error {
	if !local(name) || name == "." || hasSlash(name) {
		return d.failed("remove", name, fs.ErrInvalid)
	}
	r := removal{d: d, top: -1, work: maxWork}
	r.child(name)
	return r.result()
}

// removal is one walk, or several that share what may be taken on.
type removal struct {
	d       *Dir
	top     int // descriptor of the topmost directory, where deep ones are moved to
	hoisted int // how many were moved
	work    int // entries that may still be taken on
	done    int // entries that were removed, or moved
	errs    []error
	untold  int // errors beyond those
}

// note keeps an error of an entry, beside which the walk goes on.
func (r *removal) note(err error) {
	switch {
	case err == nil, err == ErrUnfinished: // which result tells
	case len(r.errs) < maxTold:
		r.errs = append(r.errs, err)
	default:
		r.untold++
	}
}

func (r *removal) failures() int { return len(r.errs) + r.untold }

// result is the error of the whole walk.
func (r *removal) result() error {
	errs := r.errs
	if r.untold > 0 {
		errs = append(errs, fmt.Errorf("and %d more", r.untold))
	}
	if r.work < 0 && (r.done > 0 || len(errs) == 0) { // else another call would meet the same again
		errs = append(errs, ErrUnfinished)
	}
	return errors.Join(errs...)
}

// child removes the child name of the directory.
func (r *removal) child(name string) {
	err := r.unlink(r.d.fd, name, 0)
	if errors.Is(err, unix.EISDIR) {
		err = r.dir(r.d.fd, name, 0)
	}
	r.note(ignoreAbsent(explainBusy(err)))
}

// unlink is unlinkat, counted if it succeeds.
func (r *removal) unlink(fd int, name string, flags int) error {
	err := r.d.unlinkat(fd, name, flags)
	if err == nil {
		r.done++
	}
	return err
}

// takeOn counts an entry; false: it is one too many.
func (r *removal) takeOn() bool {
	r.work--
	return r.work >= 0
}

// dir removes the directory name of fd. What is wrong with its entries is noted, and keeps it.
func (r *removal) dir(fd int, name string, depth int) error {
	if depth > maxWalk {
		return r.hoist(fd, name)
	}
	at, err := r.open(fd, name)
	if err != nil {
		return ignoreAbsent(err)
	}
	defer unix.Close(at)
	if depth == 0 {
		r.top = at
	}
	for pass := 0; ; pass++ {
		hoisted, failed := r.hoisted, r.failures()
		if err := r.entries(at, depth); err != nil {
			return err
		}
		err := error(unix.ENOTEMPTY)
		switch {
		case depth == 0 && r.hoisted > hoisted:
			pass = 0 // more work was brought here
		case r.failures() > failed: // which were noted, and are still there
			return nil
		default:
			err = r.unlink(fd, name, unix.AT_REMOVEDIR)
		}
		if !errors.Is(err, unix.ENOTEMPTY) || pass >= maxPasses {
			return ignoreAbsent(explainBusy(err))
		}
		if _, err := unix.Seek(at, 0, unix.SEEK_SET); err != nil {
			return r.d.failed("lseek", name, err)
		}
	}
}

// entries removes all that the open directory at holds. It goes on after an error.
func (r *removal) entries(at, depth int) error {
	buf := make([]byte, direntBuffer)
	for {
		n := 0
		err := retry(func() (err error) { n, err = unix.Getdents(at, buf); return err })
		if err != nil {
			return r.d.failed("getdents64", "", err)
		}
		if n <= 0 {
			return nil
		}
		eachDirent(buf[:n], func(e dirent) {
			if r.takeOn() {
				r.note(r.entry(at, string(e.name), e.typ, depth))
			}
		})
		if r.work < 0 {
			return ErrUnfinished
		}
	}
}

// entry removes one entry of the open directory at.
func (r *removal) entry(at int, name string, typ uint8, depth int) error {
	if typ == unix.DT_DIR {
		return r.dir(at, name, depth+1)
	}
	err := r.unlink(at, name, 0)
	if errors.Is(err, unix.EISDIR) {
		return r.dir(at, name, depth+1)
	}
	return ignoreAbsent(explainBusy(err))
}

// open opens a directory whose content is to be removed.
func (r *removal) open(fd int, name string) (int, error) {
	at, err := openat(fd, name, openDir, 0, below)
	if err == unix.EACCES {
		if err := r.d.chmodDir(fd, name, 0o700); err != nil {
			return -1, err
		}
		at, err = openat(fd, name, openDir, 0, below)
	}
	switch err {
	case nil:
		return at, r.writable(at)
	case unix.EXDEV:
		err = errMount
	}
	return -1, r.d.failed("openat2", name, err)
}

// writable sees to it that entries can be removed from the open directory at.
func (r *removal) writable(at int) error {
	var st unix.Stat_t
	err := fstat(at, &st)
	if err == nil && st.Mode&0o300 != 0o300 && int(st.Uid) == r.d.self.UID {
		err = r.d.change("fchmod", "", func() error { return unix.Fchmod(at, 0o700) })
	}
	if err != nil {
		unix.Close(at)
	}
	return err
}

// hoist moves the directory name of fd up to the topmost one, so that a tree of any depth
// is removed with a bounded number of descriptors. The next pass there finds it.
func (r *removal) hoist(fd int, name string) error {
	for r.takeOn() {
		r.hoisted++
		to := "..up." + strconv.Itoa(r.hoisted)
		rename := func() error {
			return r.d.change("renameat", name, func() error {
				return unix.Renameat2(fd, name, r.top, to, unix.RENAME_NOREPLACE)
			})
		}
		err := rename()
		if errors.Is(err, unix.EACCES) { // its ".." changes, so it must be writable
			if err = r.d.chmodDir(fd, name, 0o700); err == nil {
				err = rename()
			}
		}
		if err == nil {
			r.done++
		}
		if !errors.Is(err, unix.EEXIST) {
			return ignoreAbsent(explainBusy(err))
		}
	}
	return ErrUnfinished
}

// explainBusy says what EBUSY and EXDEV mean here.
func explainBusy(err error) error {
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV) {
		return fmt.Errorf("%w: %w", err, errMount)
	}
	return err
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Sweep removes the versions of these names, as [Result.Stale] gives them. It leaves the current version
// and every name that is not shaped like a version's. It goes on after
// an error, of which it tells the first few. The bound of one Remove is that of all of them together: the rest is
// left, with an error that wraps [ErrUnfinished].
func (d *Dir) Sweep(names []string) error {
	r := removal{d: d, top: -1, work: maxWork}
	for _, name := range names {
		if !isVersion(name) {
			continue
		}
		current, err := d.isCurrent(name)
		switch {
		case err != nil:
			r.note(err)
		case !current:
			r.child(name)
		}
		if r.work < 0 {
			break
		}
	}
	return r.result()
}

// isCurrent reports whether ..data is a link to the version name. Something else than a
// link there, or nothing, is a no; an error means that it is not known.
func (d *Dir) isCurrent(name string) (bool, error) {
	var buf [maxTarget]byte
	target, err := readlink(d.fd, dataLink, buf[:])
	switch err {
	case nil:
		return string(target) == name, nil
	case unix.ENOENT, unix.EINVAL:
		return false, nil
	}
	return false, d.failed("readlinkat", dataLink, err)
}
