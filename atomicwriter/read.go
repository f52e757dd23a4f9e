package atomicwriter

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Version is the current version of a volume, as [Dir.Read] found it.
type Version struct {
	Name   string   // of its directory; "" if there is no current version
	Stale  []string // other version directories, for [Dir.Sweep]; sorted; MaxStale at most
	Files  []Entry  // sorted by Path; nil from Visit
	Denied bool     // something was left out because this process may not read it
}

// Entry is a published file. The caller owns Data.
type Entry struct {
	Path    string // slash separated, clean, relative to the volume
	Data    []byte
	Mode    fs.FileMode // permission, setuid, setgid and sticky bits
	Owner   Owner
	ModTime time.Time
}

// ErrTooBig is wrapped by errors about the limits [MaxFile], [MaxFiles], [MaxVersion] and [MaxDepth].
var ErrTooBig = errors.New("too big")

// Read returns the current version with every regular file below it. It changes nothing.
//
// What no publish makes is left out, neither followed nor opened nor waited for: links, FIFOs, sockets,
// devices, mounts, files with several hard links, files larger than [MaxFile] or not
// readable, files whose path no publish takes, directories deeper than [MaxDepth]. If ..data is not a link to a version directory beside it,
// Read returns no Name and no Files, and no error. More than [MaxFiles] or
// [MaxVersion], which their paths count for, is an error that wraps [ErrTooBig].
func (d *Dir) Read() (Version, error) {
	var files []Entry
	v, err := d.Visit(func(e Entry) {
		e.Data = slices.Clone(e.Data)
		files = append(files, e)
	})
	if err == nil {
		slices.SortFunc(files, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
		v.Files = files
	}
	return v, err
}

// Visit is Read with one file in memory at a time: it calls f with each, in no certain order. Data is
// f's until it returns. After an error, f may have been called with some of the files.
func (d *Dir) Visit(f func(Entry)) (Version, error) {
	var top listing
	if err := d.list(&top); err != nil {
		return Version{}, err
	}
	if err := top.finish(d.fd, -1); err != nil {
		return Version{}, d.failed("getdents64", "", err)
	}
	name, err := d.current(&top)
	v := Version{Name: name, Stale: top.stale(name)}
	if err != nil || name == "" {
		return v, err
	}
	r := readings.Get().(*reading)
	defer r.release()
	r.visit = f
	fd, err := openat(d.fd, name, openDir, 0, below)
	if err == nil {
		err = r.dir(fd, "", 1)
	}
	v.Denied = r.denied || denied(err)
	if err != nil && !odd(err) {
		return v, d.failed("read", name, err)
	}
	return v, nil
}

// Link returns where ..data leads, as it is and as far as it may lead to a version; "" if it is no link. What is read between two calls that
// say the same is of one version, which was all there.
func (d *Dir) Link() string {
	var buf [maxTarget]byte
	target, err := readlink(d.fd, dataLink, buf[:])
	if err != nil {
		return ""
	}
	return string(target)
}

// current returns the name of the version that ..data names, or "" if it names none.
func (d *Dir) current(top *listing) (string, error) {
	data := top.find(dataLink)
	if data == nil || data.typ != unix.DT_LNK {
		return "", nil
	}
	var buf [maxTarget]byte
	target, err := readlink(d.fd, dataLink, buf[:])
	if err != nil {
		if odd(err) {
			return "", nil
		}
		return "", d.failed("readlinkat", dataLink, err)
	}
	if !isVersion(target) {
		return "", nil
	}
	name := string(target)
	if dir := top.find(name); dir == nil || dir.typ != unix.DT_DIR {
		return "", nil
	}
	return name, nil
}

// stale returns the names of versions but the current one. Nothing else has names of this shape, so
// something of another type under one is stale too.
func (l *listing) stale(current string) []string {
	var stale []string
	for _, e := range l.ents {
		if len(stale) == MaxStale {
			break
		}
		if isVersion(e.name) && string(e.name) != current {
			stale = append(stale, string(e.name))
		}
	}
	return stale
}

// odd tells an error that comes from what was found from one that
// comes from the process or the machine.
func odd(err error) bool { return !exhausted(err) && !errors.Is(err, ErrTooBig) }

func denied(err error) bool { return errors.Is(err, fs.ErrPermission) }

// reading passes on the files of a version.
type reading struct {
	visit  func(Entry)
	files  int
	bytes  int64
	buf    []byte // of the latest file
	used   int64  // of it
	denied bool
}

// readings keep their buffers: who looks at a whole node reads its largest file's size once, not that of all of them.
var readings = sync.Pool{New: func() any { return new(reading) }}

// release gives the memory back, without the secrets in it.
func (r *reading) release() {
	clear(r.buf[:r.used])
	*r = reading{buf: r.buf}
	readings.Put(r)
}

// dir reads what is below the directory fd, and closes it.
func (r *reading) dir(fd int, prefix string, depth int) error {
	defer unix.Close(fd)
	var l listing
	if err := l.finish(fd, -1); err != nil {
		return err
	}
	for _, e := range l.ents {
		var err error
		name := string(e.name)
		switch {
		case e.typ == unix.DT_REG:
			err = r.file(fd, name, prefix+name)
		case e.typ == unix.DT_DIR && depth < MaxDepth:
			var sub int
			if sub, err = openat(fd, name, openDir, 0, below); err == nil {
				err = r.dir(sub, prefix+name+"/", depth+1)
			}
		}
		r.denied = r.denied || denied(err)
		if err != nil && !odd(err) {
			return err
		}
	}
	return nil
}

// file reads one file.
func (r *reading) file(dir int, name, path string) error {
	var st unix.Stat_t
	fd, err := openPlain(dir, name, &st)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if st.Nlink != 1 {
		return errNotPlain
	}
	r.bytes += st.Size + int64(len(path))
	if len(path) > maxClean {
		return errNotPlain
	}
	if r.files >= MaxFiles || r.bytes > MaxVersion {
		return ErrTooBig
	}
	if int64(len(r.buf)) <= st.Size {
		clear(r.buf[:r.used])
		r.buf = make([]byte, st.Size+1)
	}
	r.used = max(r.used, st.Size+1)
	buf := r.buf[:st.Size+1]
	if err := readWhole(fd, buf); err != nil {
		return err
	}
	r.files++
	r.visit(Entry{
		Path:    path,
		Data:    buf[:st.Size:st.Size],
		Mode:    fileMode(&st),
		Owner:   ownerOf(&st),
		ModTime: time.Unix(st.Mtim.Unix()),
	})
	return nil
}

// fileMode translates the bits that chmod sets.
func fileMode(st *unix.Stat_t) fs.FileMode {
	mode := fs.FileMode(st.Mode & 0o777)
	for bit, as := range map[uint32]fs.FileMode{
		unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky,
	} {
		if st.Mode&bit != 0 {
			mode |= as
		}
	}
	return mode
}

var errNotPlain = errors.New("is not a plain file of a bounded size")

// openPlain opens the file name of the directory dir for reading if it is regular and not larger than MaxFile.
// The caller has seen in a listing that it is regular: this keeps devices, whose mere
// opening may have effects, from being opened; O_NONBLOCK and the fstat answer for what
// may have been put there since.
func openPlain(dir int, name string, st *unix.Stat_t) (int, error) {
	fd, err := openat(dir, name, openFile, 0, below)
	if err != nil {
		return -1, err
	}
	err = fstat(fd, st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > MaxFile) {
		err = errNotPlain
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// readWhole reads a file of len(buf)-1 bytes. The byte too much shows a file that grew, and saves
// the read that only meets the end.
func readWhole(fd int, buf []byte) error {
	size := len(buf) - 1
	for n := 0; n != size; {
		m, err := read(fd, buf[n:])
		if err != nil {
			return err
		}
		if n += m; m == 0 || n > size {
			return errNotPlain
		}
	}
	return nil
}
