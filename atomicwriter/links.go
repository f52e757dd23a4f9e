package atomicwriter

import (
	"bytes"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// link removes a temporary link that was left, and makes or repairs the visible links (6).
func (p *publication) link() error {
	if p.top.find(tempLink) != nil {
		if err := p.removeEntry(tempLink); err != nil {
			return err
		}
	}
	return p.eachLink(p.linkOne)
}

// linkOne sees to the visible link of one first element.
func (p *publication) linkOne(name string) error {
	if slices.Contains(p.opt.Reserved, name) {
		return nil
	}
	if e := p.top.find(name); e != nil && e.typ == unix.DT_LNK {
		target, err := p.readTarget(name)
		if err != nil {
			return err
		}
		if rest, ok := bytes.CutPrefix(target, []byte(inData)); ok && string(rest) == name {
			return nil
		}
	}
	if err := p.prepare(); err != nil {
		return err
	}
	if p.top.find(name) == nil {
		return p.symlink(inData+name, name)
	}
	return p.place(inData+name, name)
}

// ownLinks replaces the links that were given to somebody else; a link of our own, as it is made, is not changed.
func (p *publication) ownLinks() error {
	seen := p.seen.owners
	if !p.seen.whole || p.changed {
		seen = nil
	}
	return p.eachName(func(name string) error {
		var owner Owner
		if len(seen) > 0 {
			owner, seen = seen[0], seen[1:]
		} else {
			var st unix.Stat_t
			if err := lstat(p.d.fd, name, &st); err == unix.ENOENT { // altered again already
				return nil
			} else if err != nil {
				return p.d.failed("fstatat", name, err)
			}
			owner = ownerOf(&st)
		}
		return p.ownLink(name, owner)
	})
}

// ownLink replaces a link that belongs neither to whom a settled directory belongs to nor to whom this one does. Either
// is right, so that who may not give links away does not replace them for ever.
func (p *publication) ownLink(name string, owner Owner) error {
	settled := p.dirs.owner
	if owner == settled {
		return nil
	}
	if err := p.listAll(); err != nil {
		return err
	}
	if (owner.UID == settled.UID || owner.UID == p.own.UID) && (owner.GID == settled.GID || owner.GID == p.own.GID) {
		return nil
	}
	if name == dataLink {
		return p.place(p.version, name)
	}
	return p.place(inData+name, name)
}

// readTarget reads a link of the volume directory; nil if it is none any more.
func (p *publication) readTarget(name string) ([]byte, error) {
	target, err := readlink(p.d.fd, name, p.target[:])
	if err != nil && err != unix.ENOENT && err != unix.EINVAL {
		return nil, p.d.failed("readlinkat", name, err)
	}
	return target, nil
}

// prepare is called before something is changed. It notes so, and learns what else
// there is and whose the links must be.
func (p *publication) prepare() error {
	p.changed = true
	return p.listAll()
}

// symlink makes a link with the owner of the directory: guests whose kernel protects links
// follow a link in a directory only if it belongs to them or to the directory's owner.
func (p *publication) symlink(target, name string) error {
	if err := p.d.symlinkat(target, name); err != nil {
		return err
	}
	if p.made == nil {
		var st unix.Stat_t
		if err := lstat(p.d.fd, name, &st); err != nil {
			return p.d.failed("fstatat", name, err)
		}
		p.made = new(ownerOf(&st))
	}
	if *p.made == p.own {
		return nil
	}
	err := p.d.chownLink(name, p.own)
	if errors.Is(err, unix.EPERM) {
		return nil // the link works; only such a guest would miss the owner
	}
	return err
}

// place puts a link in the place of whatever is at name, in one step for readers: made under the temporary name,
// then renamed. A directory cannot be renamed over; it is exchanged with
// the link, and then removed.
func (p *publication) place(target, name string) error {
	if err := p.prepare(); err != nil {
		return err
	}
	err := p.symlink(target, tempLink)
	if errors.Is(err, unix.EEXIST) {
		if err = p.removeEntry(tempLink); err == nil {
			err = p.symlink(target, tempLink)
		}
	}
	if err != nil {
		return err
	}
	err = p.d.renameat(tempLink, name, 0)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	err = p.d.renameat(tempLink, name, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not on this file system
		if err = p.removeEntry(name); err == nil {
			err = p.d.renameat(tempLink, name, 0)
		}
		return err
	}
	if err != nil {
		return err
	}
	return p.removeEntry(tempLink)
}

// removeEntry removes an entry of the volume directory with all that is below it.
func (p *publication) removeEntry(name string) error {
	if err := p.prepare(); err != nil {
		return err
	}
	return p.d.Remove(name)
}

// unlinkStale removes visible links whose names are not in the version (8).
func (p *publication) unlinkStale() error {
	var errs []error
	for _, e := range p.top.ents {
		if e.typ != unix.DT_LNK || string(e.name) == dataLink || string(e.name) == tempLink || p.wants(e.name) {
			continue
		}
		name := string(e.name)
		target, err := p.readTarget(name)
		if err == nil && bytes.HasPrefix(target, []byte(inData)) {
			p.changed = true
			err = ignoreAbsent(p.d.unlinkat(p.d.fd, name, 0))
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
