package projector

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/atomicwriter"
)

// FoundVolume is a projected volume below a root, as [Survey] found it.
type FoundVolume struct {
	Key     Key
	Ours    bool         // below a root of a Projector, whose every volume is one with tokens
	Dir     string       // its path
	Version string       // subdirectory of Dir with the current files; "": nothing is published
	Changed time.Time    // when Dir's entries last changed, by the local clock
	Tokens  []FoundToken // by path; files that are no service account's tokens are left out
	Err     error        // why it cannot be read, or not wholly; nil: it was
}

// FoundToken is a file that is a token. What the claims say of a pod is what
// the file says: only Key tells whose directory it lies in.
type FoundToken struct {
	File   atomicwriter.Entry // prints without its Data, the token
	Claims Claims
}

// Survey calls visit for every projected volume below the root at path, in the order of pod UIDs and names: a
// Projector's or the kubelet's, whose layout is the same. It needs no lock, changes nothing, and follows no link but
// in path. Volumes that come or go meanwhile may be left out.
//
// The error is about the root; what is wrong with one volume is in its Err.
func Survey(path string, visit func(FoundVolume)) error {
	root, err := atomicwriter.OpenRoot(path)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer root.Close()
	pods, err := root.OpenCrossing(podsName)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has no directory %s: it is neither a root of token-projector nor the kubelet's", path, podsName)
	}
	if absent(err) {
		return fmt.Errorf("%s is a link or a file, and no link below a root is followed: name the root whose own directory %s is, or bind-mount that directory there",
			filepath.Join(path, podsName), podsName)
	}
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer pods.Close()
	uids, err := pods.Names()
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	var marker unix.Stat_t
	ours := unix.Fstatat(root.Fd(), markerName, &marker, unix.AT_SYMLINK_NOFOLLOW) == nil
	for _, uid := range uids {
		surveyPod(pods, path, types.UID(uid), func(v FoundVolume) {
			v.Ours = ours
			visit(v)
		})
	}
	return nil
}

func surveyPod(pods *atomicwriter.Dir, root string, uid types.UID, visit func(FoundVolume)) {
	names, err := volumeNames(pods, uid)
	if err != nil && !absent(err) {
		key := Key{PodUID: uid}
		visit(FoundVolume{Key: key, Dir: filepath.Join(root, podsName, string(uid)), Err: err})
	}
	for _, name := range names {
		key := Key{PodUID: uid, Volume: name}
		v := FoundVolume{Key: key, Dir: filepath.Join(root, volumePath(key))}
		dir, err := pods.OpenCrossing(strings.TrimPrefix(volumePath(key), podsName+"/"))
		if absent(err) {
			continue
		}
		if v.Err = err; err == nil {
			v.read(dir)
			dir.Close()
		}
		visit(v)
	}
}

func volumeNames(pods *atomicwriter.Dir, uid types.UID) ([]string, error) {
	volumes, err := pods.OpenCrossing(string(uid) + "/" + volumesPath)
	if err != nil {
		return nil, err
	}
	defer volumes.Close()
	return volumes.Names()
}

// absent reports whether there is no such directory: it is gone, or something else has its name.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// maxReads bounds how often a volume is read whose version is another one each time.
const maxReads = 8

// read reads the volume, again if another version has become current meanwhile: of one that was replaced, files may be gone before
// they are opened, the kubelet's at once.
func (v *FoundVolume) read(dir *atomicwriter.Dir) {
	var st unix.Stat_t
	if v.Err = unix.Fstat(dir.Fd(), &st); v.Err != nil {
		return
	}
	v.Changed = time.Unix(st.Mtim.Unix())
	before := dir.Link()
	for range maxReads {
		v.Tokens = nil
		v.readOnce(dir)
		after := dir.Link()
		if v.Err != nil || after == before {
			break
		}
		before = after
	}
	slices.SortFunc(v.Tokens, func(a, b FoundToken) int { return strings.Compare(a.File.Path, b.File.Path) })
}

func (v *FoundVolume) readOnce(dir *atomicwriter.Dir) {
	version, err := dir.Visit(func(e atomicwriter.Entry) {
		// A JWT of another kind, such as a licence in a secret, is nobody's to refresh.
		if c, err := ParseClaims(e.Data); err == nil && strings.HasPrefix(c.Subject, accountPrefix) {
			e.Data = slices.Clone(e.Data)
			v.Tokens = append(v.Tokens, FoundToken{File: e, Claims: c})
		}
	})
	if err == nil && version.Denied {
		err = fmt.Errorf("read %s: %w", v.Dir, fs.ErrPermission)
	}
	v.Version, v.Err = version.Name, err
}
