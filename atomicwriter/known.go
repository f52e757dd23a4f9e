package atomicwriter

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Links stands for the links of one volume as a publish found them: right, and each of a certain inode. A link cannot be
// altered, only replaced, so that one of the same inode and ctime needs not be read again. The zero
// value stands for none. It is of use in this process alone, for the same paths.
type Links uint64

// linksAge is how old a link must be to be remembered, so that whatever replaces it has another ctime: clocks of
// inodes tick each 10 ms at the slowest.
const linksAge = time.Second

var linksSeed = maphash.MakeSeed()

// seenLinks is what lstat said of the links, in the order of eachName, before any of them was read: what is put in the
// place of one afterwards has another ctime.
type seenLinks struct {
	owners []Owner // of use if all are there
	whole  bool    // all were there
	old    bool    // and older than linksAge
	known  bool    // and those of Options.Links
	hash   maphash.Hash
}

// eachName calls f with ..data and then with every visible link, until an error.
func (p *publication) eachName(f func(name string) error) error {
	if err := f(dataLink); err != nil {
		return err
	}
	return p.eachLink(func(name string) error {
		if slices.Contains(p.opt.Reserved, name) {
			return nil
		}
		return f(name)
	})
}

// seeLinks describes the links if the caller remembers them, and reports whether they are those that it remembers. It sets p.version then.
func (p *publication) seeLinks() (bool, error) {
	if p.opt.Links == nil {
		return false, nil
	}
	s := &p.seen
	s.whole, s.old = true, true
	s.hash.SetSeed(linksSeed)
	err := p.eachName(func(name string) error {
		if !s.whole {
			return nil
		}
		var st unix.Stat_t
		err := lstat(p.d.fd, name, &st)
		switch {
		case err == unix.ENOENT:
			s.whole = false
			return nil
		case err != nil:
			return p.d.failed("fstatat", name, err)
		}
		s.add(name, &st)
		s.old = s.old && time.Unix(st.Ctim.Unix()).Add(linksAge).Before(p.opt.Now)
		return nil
	})
	if err != nil || !s.whole || *p.opt.Links == 0 {
		return false, err
	}
	version := p.top.onlyVersion()
	if s.known = version != "" && s.links(version) == *p.opt.Links; s.known {
		p.version = version
	}
	return s.known, nil
}

func (s *seenLinks) add(name string, st *unix.Stat_t) {
	s.owners = append(s.owners, ownerOf(st))
	s.hash.WriteString(name)
	var b [33]byte // its first byte ends the name
	for i, n := range []uint64{uint64(st.Dev), st.Ino, uint64(st.Ctim.Sec), uint64(st.Ctim.Nsec)} {
		binary.NativeEndian.PutUint64(b[1+8*i:], n)
	}
	s.hash.Write(b[:])
}

// links is what stands for the links that were seen, ..data being one to this version.
func (s *seenLinks) links(version string) Links {
	h := s.hash
	h.WriteString(version)
	return Links(max(h.Sum64(), 1))
}

// remember tells the caller the links that are right.
func (p *publication) remember() {
	switch s := &p.seen; {
	case p.opt.Links == nil || s.known:
	case s.whole && s.old && !p.changed:
		*p.opt.Links = s.links(p.version)
	default:
		*p.opt.Links = 0
	}
}

// onlyVersion returns the name of the version directory if there is exactly one, else "".
func (l *listing) onlyVersion() string {
	only := ""
	for _, e := range l.ents {
		if isVersion(e.name) {
			if only != "" {
				return ""
			}
			only = string(e.name)
		}
	}
	return only
}
