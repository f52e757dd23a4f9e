package atomicwriter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// maxEntries bounds what is remembered of one directory.
	maxEntries = 1 << 16

	// direntBuffer holds the entries of an ordinary volume many times.
	direntBuffer = 4096

	// tmpfsEntry is what one entry, "." and ".." included, adds to the size of a directory on
	// tmpfs (BOGO_DIRENT_SIZE in the kernel's mm/shmem.c).
	tmpfsEntry = 20
)

var errTooManyEntries = errors.New("too many entries")

// dirent is one entry of a directory; name is a part of a listing's buffer.
type dirent struct {
	name []byte
	typ  uint8 // unix.DT_...
}

// listing is the content of one directory without "." and "..", sorted by name.
type listing struct {
	ents []dirent
	buf  []byte // free part of the buffer that the next getdents64 fills
	done bool   // the kernel has no more entries
}

// more reads the next entries: one getdents64.
func (l *listing) more(fd int) error {
	if len(l.buf) < direntBuffer/4 {
		l.buf = make([]byte, 4*direntBuffer)
	}
	n := 0
	err := retry(func() (err error) { n, err = unix.Getdents(fd, l.buf); return err })
	if err != nil {
		return err
	}
	if n <= 0 {
		l.done = true
		return nil
	}
	old := len(l.ents)
	rest := eachDirent(l.buf[:n], func(e dirent) { l.ents = append(l.ents, e) })
	l.buf = l.buf[n:]
	if rest || len(l.ents) > maxEntries {
		return errTooManyEntries
	}
	return l.sortFrom(fd, old)
}

// sortFrom settles the entries from position old on: file systems that do not tell types
// are asked for them, then all is put in order.
func (l *listing) sortFrom(fd, old int) error {
	for i := old; i < len(l.ents); i++ {
		if e := &l.ents[i]; e.typ == unix.DT_UNKNOWN {
			var st unix.Stat_t
			if err := lstat(fd, string(e.name), &st); err != nil && err != unix.ENOENT {
				return err
			}
			e.typ = uint8(st.Mode & unix.S_IFMT >> 12)
		}
	}
	slices.SortFunc(l.ents, func(a, b dirent) int { return bytes.Compare(a.name, b.name) })
	return nil
}

// finish reads to the end. On tmpfs the size of the directory, when known (else negative),
// proves that the end is reached and saves the last getdents64; a short
// read alone proves nothing, because a signal ends a read early.
func (l *listing) finish(fd int, tmpfsSize int64) error {
	for !l.done && int64(len(l.ents)+2)*tmpfsEntry != tmpfsSize {
		if err := l.more(fd); err != nil {
			return err
		}
	}
	l.done = true
	return nil
}

// find returns the entry of this name, or nil.
func (l *listing) find(name string) *dirent {
	i, ok := slices.BinarySearchFunc(l.ents, name, func(e dirent, name string) int {
		return compareName(e.name, name)
	})
	if !ok {
		return nil
	}
	return &l.ents[i]
}

// compareName orders a listed name and a wanted one without a copy.
func compareName(listed []byte, name string) int {
	switch {
	case string(listed) < name:
		return -1
	case string(listed) > name:
		return 1
	}
	return 0
}

// eachDirent calls f for the entries in buf but "." and ".."; it reports whether buf is malformed.
// The layout is struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name.
func eachDirent(buf []byte, f func(dirent)) bool {
	const header = 19
	for len(buf) > 0 {
		if len(buf) < header {
			return true
		}
		size := int(binary.NativeEndian.Uint16(buf[16:]))
		if size < header || size > len(buf) {
			return true
		}
		name, _, _ := bytes.Cut(buf[header:size], []byte{0})
		if s := string(name); s != "." && s != ".." {
			f(dirent{name: name, typ: buf[18]})
		}
		buf = buf[size:]
	}
	return false
}
