package projector

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"

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
	if absent(err) {
		return atomicwriter.Version{}, nil, nil, f // nothing there that could be adopted
	}
	if err != nil {
		f.err = err
		return atomicwriter.Version{}, nil, nil, f
	}
	defer dir.Close()
	if f.watch.id, f.err = dir.ID(); f.err != nil {
		return atomicwriter.Version{}, nil, nil, f
	}
	g := digest{claims: make(map[string]Claims)}
	v, err := dir.Visit(g.add)
	f.stale = v.Stale
	if errors.Is(err, atomicwriter.ErrTooBig) { // not by us: nothing of it is adopted, and it is replaced
		v, g, err = atomicwriter.Version{}, digest{}, nil
	}
	v.Files, f.err = g.files, err
	d.watch.update(&f.watch, dir, v.Name, atomicwriter.ID{})
	return v, g.sums, g.claims, f
}

// digest is what is remembered of files: their hashes, parallel to files, and of those that are tokens the claims.
type digest struct {
	files  []atomicwriter.Entry // without Data
	sums   [][32]byte
	claims map[string]Claims
}

func (g *digest) add(e atomicwriter.Entry) {
	g.sums = append(g.sums, sha256.Sum256(e.Data))
	if c, err := ParseClaims(e.Data); err == nil {
		g.claims[e.Path] = c
	}
	e.Data = nil
	g.files = append(g.files, e)
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
	// A directory that a runtime made on the way to a subPath mount gets the mode it needs.
	for again := true; again; again = j.refusedBy(f.err, dir.Self()) {
		f.watch.id, f.err = dir.Settle(d.options(j))
	}
	if f.err != nil {
		return atomicwriter.Result{}, f
	}
	if f.detached = before != (atomicwriter.ID{}) && before != f.watch.id; f.detached {
		id := f.watch.id
		d.watch.release(&f.watch)
		f.watch.id = id
	}
	f.leftover, f.blocked = dir.Sweep(j.sweep), d.makeMountpoints(dir, j)
	var r atomicwriter.Result
	for again := true; again; again = j.refusedBy(f.err, dir.Self()) {
		o := d.options(j)
		if j.verify {
			o.Links = &f.watch.links
		}
		r, f.err = dir.Publish(j.files, o)
	}
	f.stale = r.Stale
	d.watch.update(&f.watch, dir, r.Version, r.ID)
	return r, f
}

// makeMountpoints makes the directories that other volumes are mounted on. What
// stands in their place stays, be it the link of a file that was there first; the
// files do not wait for it.
func (d *disk) makeMountpoints(dir *atomicwriter.Dir, j *publishJob) error {
	var errs []error
	for _, p := range j.mountpoints {
		for end := range len(p) + 1 { // each level as the volume's directory itself
			if end < len(p) && p[end] != '/' {
				continue
			}
			level, err := dir.Open(p[:end])
			if errors.Is(err, fs.ErrNotExist) {
				level, err = dir.Mkdir(p[:end], sharedMode)
			}
			if err == nil { // only here is its mode set: a chmod back and forth would wake the watch for ever
				_, err = level.Settle(d.options(j))
				level.Close()
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("directory for the mount at %s: %w", p, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (d *disk) options(j *publishJob) atomicwriter.Options {
	o := atomicwriter.Options{Now: j.now, Sync: d.root.sync, Group: j.group}
	for _, p := range j.mountpoints {
		o.Reserved = append(o.Reserved, firstElement(p))
	}
	return o
}

// refusedBy reports whether err says that we may not give an owner that the job
// wants. It then wants the next best: readers wait for their token.
func (j *publishJob) refusedBy(err error, self atomicwriter.Owner) bool {
	refused, ok := errors.AsType[*atomicwriter.OwnerError](err)
	if !ok || refused.Owner == self || slices.Contains(j.refused, refused.Owner) {
		return false
	}
	j.refused = append(j.refused, refused.Owner)
	for i := range j.files {
		f := &j.files[i]
		wanted := int64(f.Owner.GID)
		f.Owner = new(allowed(*f.Owner, self, j.refused))
		f.Mode = ungrouped(f.Mode, wanted, *f.Owner)
	}
	if j.group != nil && refused.Owner == (atomicwriter.Owner{UID: self.UID, GID: *j.group}) {
		j.group = nil
	}
	return true
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
