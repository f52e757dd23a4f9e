package atomicwriter

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// publication is one run of Publish.
type publication struct {
	d      *Dir
	opt    Options
	result Result

	want  []wanted // in the order of comparePath
	links int      // number of different first elements

	top     listing // the volume directory
	version string  // the current version; "" if there is none
	id      ID      // of its directory
	seen    seenLinks
	differs bool // the current version is not what is wanted
	keeps   int  // files to be carried over

	staged     string // the new version once it was made
	stagedID   ID
	stagedDirs []string // it and its directories, deepest first; only with Sync
	passes     uint32   // mode bits that the umask lets through
	dirs       dirAttrs // of the new version's directories
	made       *Owner   // owner that creation in the volume directory gives; nil if not known yet
	own        Owner    // owner of the volume directory, and so of its links

	changed bool // a link was made, or something removed

	// Memory that outlives the run.
	space   []byte // files of the current version; see take
	topBuf  [direntBuffer]byte
	subBuf  [direntBuffer]byte
	subEnts []dirent
	target  [maxTarget]byte
}

// dirAttrs are what the version and every directory in it must have. A file that is created there
// has the same owner: the group is either our own or, by the setgid bit, the directory's.
type dirAttrs struct {
	mode  uint32
	owner Owner
}

// dirsOf are the attributes that the options ask for.
func dirsOf(d *Dir, o Options) dirAttrs {
	if o.Group == nil {
		return dirAttrs{dirMode, d.self}
	}
	return dirAttrs{dirMode | unix.S_ISGID, Owner{UID: d.self.UID, GID: *o.Group}}
}

// wanted is a File checked and settled.
type wanted struct {
	path  string
	data  []byte // from the File, or carried over
	sum   [32]byte
	keep  bool // and data is nil until it is found
	found bool
	mode  uint32
	owner Owner
}

var publications = sync.Pool{New: func() any { return new(publication) }}

// maxSpace is how much of a buffer is worth keeping from one publish to the next.
const maxSpace = 64 << 10

func newPublication(d *Dir, o Options) *publication {
	p := publications.Get().(*publication)
	p.d, p.opt, p.dirs = d, o, dirsOf(d, o)
	p.top = listing{ents: p.top.ents[:0], buf: p.topBuf[:]}
	return p
}

// release gives the memory back, without the secrets in it.
func (p *publication) release() {
	clear(p.space[:cap(p.space)])
	clear(p.want)
	clear(p.top.ents)
	keep := publication{want: p.want[:0], space: p.space[:0], subEnts: p.subEnts[:0]}
	keep.top.ents, keep.seen.owners = p.top.ents[:0], p.seen.owners[:0]
	if cap(p.space) > maxSpace || cap(keep.top.ents) > direntBuffer || cap(p.want) > direntBuffer {
		return
	}
	p.reset(keep)
	publications.Put(p)
}

// reset is *p = keep without copying the buffers.
func (p *publication) reset(keep publication) {
	p.d, p.opt, p.result = nil, Options{}, Result{}
	p.want, p.links, p.top = keep.want, 0, keep.top
	p.version, p.id, p.seen, p.differs, p.keeps = "", ID{}, keep.seen, false, 0
	p.staged, p.stagedID, p.stagedDirs, p.passes, p.dirs = "", ID{}, nil, 0, dirAttrs{}
	p.made, p.own, p.changed = nil, Owner{}, false
	p.space, p.subEnts = keep.space, keep.subEnts
}

// plan checks the files and puts them in order (1).
func (p *publication) plan(files []File) error {
	if len(files) > MaxFiles {
		return fmt.Errorf("%d files: %w", len(files), ErrTooBig)
	}
	total := 0
	p.result.Sums = make([][32]byte, len(files))
	for i := range files {
		w, err := p.settleFile(&files[i])
		if err != nil {
			return err
		}
		if total, err = w.addTo(total); err != nil {
			return err
		}
		p.result.Sums[i] = w.sum
		p.want = append(p.want, w)
	}
	slices.SortFunc(p.want, func(a, b wanted) int { return comparePath(a.path, b.path) })
	for i := 1; i < len(p.want); i++ {
		if err := conflict(p.want[i-1].path, p.want[i].path); err != nil {
			return err
		}
	}
	p.eachLink(func(string) error { p.links++; return nil })
	return nil
}

// weigh checks the size of the version with the bytes that are carried over, which plan did not know: what is
// published must be read back.
func (p *publication) weigh() (err error) {
	total := 0
	for i := range p.want {
		if total, err = p.want[i].addTo(total); err != nil {
			return err
		}
	}
	return nil
}

// addTo adds what the file has of [MaxVersion].
func (w *wanted) addTo(total int) (int, error) {
	total += len(w.path) + len(w.data)
	if total > MaxVersion {
		return total, fmt.Errorf("%d bytes up to path %.300q: %w", total, w.path, ErrTooBig)
	}
	return total, nil
}

// settleFile checks one file.
func (p *publication) settleFile(f *File) (w wanted, err error) {
	if w.path, err = cleanPath(f.Path); err != nil {
		return w, err
	}
	if f.Mode&^fs.ModePerm != 0 {
		return w, fmt.Errorf("path %.300q: mode %v has more than permission bits", f.Path, f.Mode)
	}
	w.mode = uint32(f.Mode)
	w.owner = p.d.self
	if f.Owner != nil && f.Owner.UID != -1 {
		w.owner.UID = f.Owner.UID
	}
	if f.Owner != nil && f.Owner.GID != -1 {
		w.owner.GID = f.Owner.GID
	}
	if w.owner.UID == p.d.self.UID && !p.d.readsAll {
		w.mode |= 0o400
	}
	if f.Keep != nil {
		p.keeps++
		w.keep, w.sum = true, *f.Keep
		return w, nil
	}
	if len(f.Data) > MaxFile {
		return w, fmt.Errorf("path %.300q: %d bytes: %w", f.Path, len(f.Data), ErrTooBig)
	}
	w.data, w.sum = f.Data, sha256.Sum256(f.Data)
	return w, nil
}

// eachLink calls f with every first element of the paths, in order, until an error.
func (p *publication) eachLink(f func(name string) error) error {
	last := ""
	for i := range p.want {
		name, _ := element(p.want[i].path, 0)
		if name == last {
			continue
		}
		last = name
		if err := f(name); err != nil {
			return err
		}
	}
	return nil
}

// wants reports whether name is a first element.
func (p *publication) wants(name []byte) bool {
	_, ok := slices.BinarySearchFunc(p.want, name, func(w wanted, name []byte) int {
		first, _ := element(w.path, 0)
		return -compareName(name, first)
	})
	return ok
}

// take returns n bytes of space, which stay valid until the release.
func (p *publication) take(n int) []byte {
	if cap(p.space)-len(p.space) < n {
		p.space = make([]byte, 0, max(n, 2*cap(p.space), 2*direntBuffer))
	}
	p.space = p.space[:len(p.space)+n]
	return p.space[len(p.space)-n:]
}

// putBack returns what take gave last.
func (p *publication) putBack(b []byte) { p.space = p.space[:len(p.space)-len(b)] }

func ownerOf(st *unix.Stat_t) Owner { return Owner{UID: int(st.Uid), GID: int(st.Gid)} }

// ownedBy reports whether a file has this mode and owner.
func ownedBy(st *unix.Stat_t, mode uint32, o Owner) bool {
	return perm(st) == mode && int(st.Uid) == o.UID && int(st.Gid) == o.GID
}
