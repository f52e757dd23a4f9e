package atomicwriter

import (
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// Owner is the owner of a file. An id of -1 in a wish is the one that the file
// is created with: the daemon's own.
type Owner struct{ UID, GID int }

// File is one file of a volume as it should be.
type File struct {
	Path string // relative, slash separated; see ValidatePaths

	// Data is the content, at most MaxFile bytes. It is not retained.
	Data []byte

	// Keep, if not nil, stands for the bytes of the current version whose SHA-256 this is; Data
	// is ignored. If they are not there, the path is reported in Result.Lost.
	Keep *[32]byte

	// Mode holds permission bits only, and is set exactly, whatever the umask. Where this
	// process could not read its own file back, for want of a capability, its owner may.
	Mode fs.FileMode

	// Owner nil is the daemon's own effective uid and gid. It is compared
	// all the same, so a chown by somebody else is repaired. One that the daemon may not
	// give, or whose files it could not read back, is an *OwnerError.
	Owner *Owner
}

// OwnerError says that this process may not give a file or directory to an owner. Nothing was
// published. The caller may publish again with another wish.
type OwnerError struct {
	Owner Owner // as it was to be: no -1
	Err   error // of type *fs.PathError
}

// Error implements error.
func (e *OwnerError) Error() string {
	return fmt.Sprintf("owner %d:%d: %v", e.Owner.UID, e.Owner.GID, e.Err)
}

// Unwrap returns Err.
func (e *OwnerError) Unwrap() error { return e.Err }

// Options are the options of one publish.
type Options struct {
	// Now names the version directory, in UTC.
	Now time.Time

	// Group, if not nil, is the group of the version and of the directories in it, and they are setgid
	// (mode 02755), as the kubelet's fsGroup pass leaves them (pkg/volume/volume_linux.go).
	// Nil: the daemon's own group and mode 0755.
	Group *int

	// Reserved are names in the volume directory that no link takes. The caller has directories
	// there, on which something is mounted in a container: replacing one would detach the mount.
	// Files below such a name are in the version, and nobody sees them.
	Reserved []string

	// Links, if not nil, is what an earlier publish of the same paths left there, or zero. Links that are still the same are not
	// read. Publish sets it to what it found, or to zero if that is not to be remembered. It pays where
	// nothing is likely to be changed.
	Links *Links

	// Sync makes the publish durable: fsync of every file and directory before the swap,
	// and of the volume directory before and after it. File systems in memory need none.
	Sync bool
}

// Outcome says what a publish did.
type Outcome int

const (
	Unchanged  Outcome = iota // all was right already; nothing was touched
	Relinked                  // the content was right; links were repaired or remains removed
	Written                   // a new version is current
	Incomplete                // Result.Lost is not empty; nothing was touched
)

// String returns the outcome in lower case, for logs and metrics.
func (o Outcome) String() string {
	switch o {
	case Unchanged:
		return "unchanged"
	case Relinked:
		return "relinked"
	case Written:
		return "written"
	case Incomplete:
		return "incomplete"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// Result tells what is on disk after a publish.
type Result struct {
	Outcome Outcome
	Version string     // name of the current version's directory; "" if there is none
	ID      ID         // of that directory; zero if it was not seen
	Stale   []string   // other version directories, MaxStale at most: the previous one, remains of crashes. Sweep them when readers have finished.
	Lost    []string   // paths of kept files whose bytes are missing or differ, as given
	Sums    [][32]byte // SHA-256 of each file's bytes, parallel to the files given
}

// Publish makes the volume directory d show exactly these files, all at once for every reader:
//
//  1. Validate: paths, modes, sizes.
//  2. Read the current version. It must equal the wish in content, mode, owner and
//     names, without a surplus entry, or it is replaced.
//  3. Bytes to be kept are missing: Incomplete. Equal: do 6 and 8 only, and end.
//  4. Stage a new version directory: every file with its final mode and owner.
//  5. If asked, sync it. Each file is synced as it is written.
//  6. Remove a ..data_tmp that a crash left. Make or repair the visible links. One whose name is not in
//     the current version dangles until the swap: no file for a reader, and then
//     they all appear together. Whatever else stands in the place of a link goes. Without a new version,
//     which nobody waits for, links that were chowned are replaced, too.
//  7. Swap: a link ..data_tmp to the new version, renamed to ..data.
//  8. Remove visible links that are no longer wanted: links to ..data/anything, and
//     nothing else. Other entries were not made by a publish and are not ours to delete; they are
//     in nobody's way.
//  9. Report the other version directories, for the caller to [Dir.Sweep] when slow
//     readers have finished (the kubelet removes them at once).
//
// The system calls of a second publish where file "a" changed and "b" did not, on tmpfs; V0 is the old version, V1
// the new one, and every call but the first of a line is relative to a descriptor:
//
//	2  getdents64(.) readlinkat(..data) openat2(V0) fstat(V0) getdents64(V0)
//	   openat2(V0/a) fstat read close, openat2(V0/b) fstat read close, close(V0)
//	4  fstat(.) mkdirat(V1) newfstatat(V1)
//	   openat2(V1/a, O_CREAT|O_EXCL) write close, openat2(V1/b, O_CREAT|O_EXCL) write close
//	6  readlinkat(a) readlinkat(b)
//	7  symlinkat(V1, ..data_tmp) renameat(..data_tmp, ..data)
//
// With Sync, each file has an fsync before its close, 5 is openat2(V1) fsync close, and 7 begins and ends with fsync(.).
// Where the umask or the owner wanted asks for it, each write is followed by fchmod and fchown; a file given away is
// opened once more, for reading.
// A publish that finds all in order ends with readlinkat(a) readlinkat(b) newfstatat(..data) newfstatat(a) newfstatat(b):
// no call reads a link and tells its owner. With Options.Links the newfstatat come before the first readlinkat, and
// links that are remembered have none.
// File systems other than tmpfs need one more getdents64 per directory.
//
// An error before the swap leaves the current version as it was; the staged one is removed as well as
// possible. An error after it comes with Outcome Written: the new version is current, and
// something else is left to do. In any case the next Publish heals, also after a
// crash. Result.Version is the current version as far as it is known.
//
// The bytes, modes and owners of published files are never changed: a repair is a new version.
func (d *Dir) Publish(files []File, o Options) (Result, error) {
	p := newPublication(d, o)
	defer p.release()
	step, err := p.run(files)
	if err != nil {
		err = fmt.Errorf("publish: %s: %w", step, err)
	}
	return p.result, err
}

// run does the steps of Publish and returns the one that failed.
func (p *publication) run(files []File) (step string, err error) {
	if err := p.plan(files); err != nil { // 1
		return "validate", err
	}
	if err := p.compare(); err != nil { // 2
		return "read the current version", err
	}
	switch { // 3
	case len(p.result.Lost) > 0:
		return p.settle(Incomplete, "", nil)
	case !p.differs:
		return p.repair()
	}
	if err := p.weigh(); err != nil { // 1, of what is kept
		return p.settle(Unchanged, "validate", err)
	}
	if step, err := p.replace(); err != nil { // 4-7
		return p.settle(p.abandon(), step, err)
	}
	err = p.unlinkStale() // 8
	return p.settle(Written, "remove old links", err)
}

// repair is what is done about a version that is right: steps 6, with the owners of the links, and 8.
func (p *publication) repair() (step string, err error) {
	step = "link"
	if !p.seen.known || p.top.find(tempLink) != nil {
		err = p.link()
	}
	if err == nil {
		err = p.ownLinks()
	}
	if err == nil {
		step, err = "remove old links", p.unlinkStale()
	}
	if p.changed {
		return p.settle(Relinked, step, err)
	}
	if err == nil {
		p.remember()
	}
	return p.settle(Unchanged, step, err)
}

// replace is steps 4 to 7. It returns the one that failed.
func (p *publication) replace() (step string, err error) {
	if err := p.stage(); err != nil { // 4
		return "stage", err
	}
	if err := p.sync(); err != nil { // 5
		return "sync", err
	}
	if err := p.link(); err != nil { // 6
		return "link", err
	}
	return "swap", p.swap() // 7
}

// settle is step 9.
func (p *publication) settle(o Outcome, step string, err error) (string, error) {
	p.result.Outcome = o
	p.result.Version, p.result.ID = p.version, p.id
	if o == Written {
		p.result.Version, p.result.ID = p.staged, p.stagedID
	}
	p.result.Stale = p.top.stale(p.result.Version)
	return step, err
}

// swap makes the staged version current (7).
func (p *publication) swap() error {
	if err := p.syncDir("."); err != nil {
		return err
	}
	if err := p.place(p.staged, dataLink); err != nil {
		return err
	}
	return p.syncDir(".")
}

// sync makes the staged version durable (5). Its files are synced already.
func (p *publication) sync() error {
	for _, dir := range p.stagedDirs {
		if err := p.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// syncDir syncs the directory at a path below the volume if the options ask for it.
func (p *publication) syncDir(path string) error {
	if !p.opt.Sync {
		return nil
	}
	fd := p.d.fd
	if path != "." {
		var err error
		if fd, err = openat(p.d.fd, path, openDir, 0, below); err != nil {
			return p.d.failed("openat2", path, err)
		}
		defer unix.Close(fd)
	}
	return p.d.change("fsync", path, func() error { return unix.Fsync(fd) })
}

// abandon is what follows a failure in steps 4 to 7. A call that failed may have been done all the same: if the
// staged version is current, or may be, it stays.
func (p *publication) abandon() Outcome {
	if p.staged == "" {
		return Unchanged
	}
	current, err := p.d.isCurrent(p.staged)
	switch {
	case current:
		return Written
	case err == nil:
		// Errors are of no interest: what remains is stale for the next publish.
		_ = p.d.Remove(p.staged)
		_ = p.d.Remove(tempLink)
	}
	return Unchanged
}
