package projector

import (
	"crypto/sha256"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/token-projector/token-projector/atomicwriter"
)

// disk carries out disk jobs. It holds no state of its own; any worker may use it.
type disk struct {
	root  *Root
	watch *watcher // nil: no watches
}

// read finds out what is on disk of a volume, for adoption.
func (d *disk) read(j *readJob) (atomicwriter.Version, [][32]byte, map[string]Claims, found) {
	f := found{watch: j.watch}
	dir, err := d.root.dir.Open(volumePath(j.key))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return atomicwriter.Version{}, nil, nil, f // nothing there that could be adopted
	}
	if err != nil {
		f.err = err
		return atomicwriter.Version{}, nil, nil, f
	}
	defer dir.Close()
	if f.err = f.identify(dir); f.err != nil {
		return atomicwriter.Version{}, nil, nil, f
	}
	var v atomicwriter.Version
	v, f.err = dir.Read()
	f.stale = v.Stale
	d.watch.update(&f.watch, dir, v.Name)
	sums, claims := digest(v)
	return v, sums, claims, f
}

// digest reduces the files to their hashes, and those that are tokens to their claims.
func digest(v atomicwriter.Version) ([][32]byte, map[string]Claims) {
	sums, claims := make([][32]byte, len(v.Files)), make(map[string]Claims)
	for i, e := range v.Files {
		sums[i] = sha256.Sum256(e.Data)
		if c, err := ParseClaims(e.Data); err == nil {
			claims[e.Path] = c
		}
	}
	return sums, claims
}

// publish makes a volume's directory hold what the job says, and sweeps old versions.
func (d *disk) publish(j *publishJob) (atomicwriter.Result, found) {
	f := found{watch: j.watch}
	dir, err := d.root.volume(j.key)
	if err != nil {
		f.err = err
		return atomicwriter.Result{}, f
	}
	defer dir.Close()
	before := f.watch.id
	if f.err = f.identify(dir); f.err != nil {
		return atomicwriter.Result{}, f
	}
	if f.detached = before != (atomicwriter.ID{}) && before != f.watch.id; f.detached {
		id := f.watch.id
		d.watch.release(&f.watch)
		f.watch.id = id
	}
	f.leftover = dir.Sweep(j.sweep)
	var r atomicwriter.Result
	r, f.err = dir.Publish(j.files, atomicwriter.Options{Now: j.now, Sync: d.root.sync})
	f.stale = r.Stale
	d.watch.update(&f.watch, dir, r.Version)
	return r, f
}

// identify notes which directory this is, and gives one that a runtime made on
// the way to a subPath mount the mode it needs.
func (f *found) identify(dir *atomicwriter.Dir) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir.Fd(), &st); err != nil {
		return &fs.PathError{Op: "fstat", Path: "volume directory", Err: err}
	}
	f.watch.id = atomicwriter.ID{Dev: st.Dev, Ino: st.Ino}
	if st.Mode&0o7777 == uint32(sharedMode) {
		return nil
	}
	if err := unix.Fchmod(dir.Fd(), uint32(sharedMode)); err != nil {
		return &fs.PathError{Op: "fchmod", Path: "volume directory", Err: err}
	}
	return nil
}

// remove removes a pod's directory, after its watches.
func (d *disk) remove(j *removeJob) error {
	for i := range j.watches {
		d.watch.release(&j.watches[i])
	}
	if j.p == nil {
		return nil
	}
	return d.root.removePod(j.uid)
}
