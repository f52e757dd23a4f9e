package atomicwriter

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxNames bounds the search for a name that no version has.
const maxNames = 16

// stage makes the new version (4).
func (p *publication) stage() error {
	if err := p.tryOwners(); err != nil {
		return err
	}
	if err := p.makeVersion(); err != nil {
		return err
	}
	if p.opt.Sync {
		p.stagedDirs = append(p.stagedDirs, p.staged)
	}
	dir := ""
	for i := range p.want {
		w := &p.want[i]
		if parent := path.Dir(w.path); parent != "." && parent != dir {
			if err := p.makeParents(dir, parent); err != nil {
				return err
			}
			dir = parent
		}
		if err := p.writeFile(w); err != nil {
			return err
		}
	}
	return nil
}

// makeVersion makes the directory of the new version under a name that is not taken.
func (p *publication) makeVersion() error {
	suffix := uint64(p.opt.Now.Nanosecond())
	for range maxNames {
		name := versionName(p.opt.Now, suffix)
		if !isVersion(name) {
			return fmt.Errorf("the time %v names no version", p.opt.Now)
		}
		var st unix.Stat_t
		err := p.makeDir(p.d.fd, name, &st)
		if errors.Is(err, unix.EEXIST) {
			suffix = rand.Uint64()
			continue
		}
		if err == nil {
			p.passes, p.stagedID = st.Mode&dirMode, idOf(&st)
			p.made = new(ownerOf(&st))
		}
		return err
	}
	return errors.New("no free name for a version")
}

// makeDir makes the directory name in fd with exactly the mode and owner of p.dirs. It tells in st how it was
// before these were set: what the umask, or an access list, takes from a mode, and what a setgid
// directory does to the group.
func (p *publication) makeDir(fd int, name string, st *unix.Stat_t) error {
	if err := p.d.mkdirat(fd, name, dirMode); err != nil {
		return err
	}
	if p.staged == "" {
		p.staged = name
	}
	if err := lstat(fd, name, st); err != nil {
		return p.d.failed("fstatat", name, err)
	}
	if o := p.dirs.owner; int(st.Uid) != o.UID || int(st.Gid) != o.GID {
		if err := p.d.chownDir(fd, name, o); err != nil {
			return refusedOwner(o, err)
		}
	} else if perm(st) == p.dirs.mode {
		return nil
	}
	if err := p.d.chmodDir(fd, name, p.dirs.mode); err != nil || p.dirs.mode == dirMode {
		return err
	}
	return p.d.expectSetgid(fd, name, p.dirs)
}

// makeParents makes the directories of the path parent that the last one, dir, does not share.
func (p *publication) makeParents(dir, parent string) error {
	for end := 0; end < len(parent); end++ {
		elem, _ := element(parent, end)
		from := end
		end += len(elem)
		if made := parent[:end]; dir == made || strings.HasPrefix(dir, made+"/") {
			continue
		}
		if err := p.makeParent(path.Join(p.staged, parent[:from]), elem); err != nil {
			return err
		}
		if p.opt.Sync { // deepest first
			p.stagedDirs = append([]string{path.Join(p.staged, parent[:end])}, p.stagedDirs...)
		}
	}
	return nil
}

// makeParent makes the directory name at a path below the volume.
func (p *publication) makeParent(at, name string) error {
	fd, err := openat(p.d.fd, at, openDir, 0, below)
	if err != nil {
		return p.d.failed("openat2", at, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return p.makeDir(fd, name, &st)
}

// writeFile makes one file of the new version.
func (p *publication) writeFile(w *wanted) error {
	name := p.staged + "/" + w.path
	fd := -1
	err := p.d.change("openat2", name, func() (err error) {
		fd, err = openat(p.d.fd, name, openNew, w.mode, below)
		return err
	})
	if err == nil {
		err = p.fill(fd, name, w)
	}
	if fd < 0 {
		return err
	}
	if closed := unix.Close(fd); closed != nil && err == nil {
		err = p.d.failed("close", name, closed)
	}
	return err
}

// fill writes the content, then sets the mode, then the owner: the other way round, the mode would be
// another one's to set. (A chown clears no bits but setuid and setgid.)
func (p *publication) fill(fd int, name string, w *wanted) error {
	for rest := w.data; len(rest) > 0; {
		err := p.d.change("write", name, func() error {
			n, err := unix.Write(fd, rest)
			rest = rest[max(n, 0):]
			return err
		})
		if err != nil {
			return err
		}
	}
	if w.mode&^p.passes != 0 {
		if err := p.d.change("fchmod", name, func() error { return unix.Fchmod(fd, w.mode) }); err != nil {
			return err
		}
	}
	if w.owner != p.dirs.owner {
		if err := p.giveAway(fd, name, w.owner); err != nil {
			return err
		}
	}
	if p.opt.Sync {
		return p.d.change("fsync", name, func() error { return unix.Fsync(fd) })
	}
	return nil
}
