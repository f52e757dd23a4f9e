package atomicwriter

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"golang.org/x/sys/unix"
)

// dirMode is the mode of a version and of the directories in it, unless they have a group of their own.
const dirMode = 0o755

// compare reads the current version, tells whether it differs from the wish, and picks up the
// bytes to be kept (2).
func (p *publication) compare() error {
	if err := p.list(); err != nil {
		return err
	}
	known, err := p.seeLinks()
	if err == nil && !known {
		p.version, err = p.d.current(&p.top)
	}
	if err != nil {
		return err
	}
	if p.version == "" {
		p.differs = true
	} else if err := p.compareVersion(); err != nil {
		return p.d.failed("read", p.version, err)
	}
	p.findLost()
	if p.differs {
		return p.listAll()
	}
	return nil
}

// list lists the volume directory. On tmpfs, where one getdents64 gives all unless a signal came between, a first answer
// that has just the entries of a volume in order is taken for all. An entry that it hid is
// met by the next publish, and listAll is called before anything is changed.
func (p *publication) list() error {
	if err := p.d.list(&p.top); err != nil {
		return err
	}
	if p.d.magic == unix.TMPFS_MAGIC && len(p.top.ents) == p.links+2 {
		return nil
	}
	return p.listAll()
}

// listAll completes the listing, and learns who owns the volume directory.
func (p *publication) listAll() error {
	if p.top.done {
		return nil
	}
	var st unix.Stat_t
	if err := fstat(p.d.fd, &st); err != nil {
		return p.d.failed("fstat", "", err)
	}
	p.own = ownerOf(&st)
	if err := p.top.finish(p.d.fd, p.d.tmpfsSize(&st)); err != nil {
		return p.d.failed("getdents64", "", err)
	}
	return nil
}

// tmpfsSize is the size of a directory on tmpfs, or -1.
func (d *Dir) tmpfsSize(st *unix.Stat_t) int64 {
	if d.magic == unix.TMPFS_MAGIC {
		return st.Size
	}
	return -1
}

// findLost notes the files that could not be carried over.
func (p *publication) findLost() {
	for i := range p.want {
		if w := &p.want[i]; w.keep && !w.found {
			p.result.Lost = append(p.result.Lost, w.path)
		}
	}
}

func (p *publication) compareVersion() error {
	fd, err := openat(p.d.fd, p.version, openDir, 0, below)
	if err != nil {
		return p.note(err)
	}
	l := listing{ents: p.subEnts[:0], buf: p.subBuf[:]}
	err = p.compareDir(fd, &l, p.want, 0)
	p.subEnts = l.ents[:0]
	return err
}

// note takes an error that comes from what was found for a difference, and returns any other one.
func (p *publication) note(err error) error {
	if err != nil && odd(err) {
		p.differs = true
		return nil
	}
	return err
}

// compareDir compares the directory fd, which it closes, with the wanted files below it. Their paths
// from position from on are relative to it.
func (p *publication) compareDir(fd int, l *listing, want []wanted, from int) error {
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return err
	}
	if from == 0 {
		p.id = idOf(&st)
	}
	if !ownedBy(&st, p.dirs.mode, p.dirs.owner) {
		p.differs = true
	}
	if err := p.finishDir(fd, l, &st); err != nil {
		return p.note(err)
	}
	rest := l.ents
	for len(want) > 0 && !(p.differs && p.keeps == 0) {
		name, file := element(want[0].path, from)
		n := groupSize(want, from+len(name))
		i, ok := slices.BinarySearchFunc(rest, name, func(e dirent, name string) int {
			return compareName(e.name, name)
		})
		if !ok || i > 0 {
			p.differs = true // missing, or a surplus one before it
		}
		rest = rest[i:]
		if ok {
			if err := p.compareEntry(fd, rest[0], want[:n], from, file); err != nil {
				return err
			}
			rest = rest[1:]
		}
		want = want[n:]
	}
	if len(rest) > 0 {
		p.differs = true
	}
	return nil
}

// finishDir lists a directory of the version.
func (p *publication) finishDir(fd int, l *listing, st *unix.Stat_t) error {
	if err := l.more(fd); err != nil {
		return err
	}
	return l.finish(fd, p.d.tmpfsSize(st))
}

// groupSize is how many of the wanted files have the first one's path up to position end.
func groupSize(want []wanted, end int) int {
	prefix := want[0].path[:end]
	n := 1
	for n < len(want) && len(want[n].path) > end && want[n].path[:end] == prefix && want[n].path[end] == '/' {
		n++
	}
	return n
}

// compareEntry compares one entry with the file, or the directory of files, that is wanted there.
func (p *publication) compareEntry(fd int, e dirent, want []wanted, from int, file bool) error {
	name, _ := element(want[0].path, from)
	switch {
	case file && e.typ == unix.DT_REG:
		return p.note(p.compareFile(fd, name, &want[0]))
	case !file && e.typ == unix.DT_DIR:
		sub, err := openat(fd, name, openDir, 0, below)
		if err != nil {
			return p.note(err)
		}
		return p.compareDir(sub, &listing{}, want, from+len(name)+1)
	}
	p.differs = true
	return nil
}

// compareFile compares one file and picks up its bytes if they are to be kept.
func (p *publication) compareFile(dir int, name string, w *wanted) error {
	if p.differs && !w.keep {
		return nil
	}
	var st unix.Stat_t
	fd, err := openPlain(dir, name, &st)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !w.keep && st.Size != int64(len(w.data)) {
		return errNotPlain
	}
	buf := p.take(int(st.Size) + 1)
	if err := readWhole(fd, buf); err != nil {
		return err
	}
	data := buf[:st.Size]
	same := false
	if w.keep {
		same = sha256.Sum256(data) == w.sum
	} else {
		same = bytes.Equal(data, w.data)
	}
	if !same || st.Nlink != 1 || !ownedBy(&st, w.mode, w.owner) {
		p.differs = true
	}
	if same && w.keep {
		w.data, w.found = data, true
		return nil
	}
	p.putBack(buf)
	return nil
}
