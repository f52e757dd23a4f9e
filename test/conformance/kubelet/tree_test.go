package kubelet

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// entry is what a pod can see of one file, directory or link. Links have no mode of their own.
type entry struct {
	kind     string // "file", "directory", "link", or what it is instead
	mode     uint32 // permissions, setuid, setgid, sticky
	uid, gid uint32
	content  string // of a file: its bytes; of a link: its target
}

func (e entry) String() string {
	return fmt.Sprintf("%s %#o %d:%d %.200q (%d bytes)", e.kind, e.mode, e.uid, e.gid, e.content, len(e.content))
}

// tree is every entry of a volume, by its path relative to the volume's directory, which is ".".
// The directory of the version is called versionDir in it.
type tree map[string]entry

const versionDir = "..version"

// version is what is published of a volume.
type version struct {
	name string // of the version's directory; "": nothing is published
	tree tree
}

// readVersion reads a volume directory. One that is not there, or is empty, has nothing published.
func readVersion(dir string) (version, error) {
	name, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return version{}, err
	}
	v := version{name: name, tree: tree{}}
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		v.tree[v.rename(relative)], err = v.readEntry(path)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(v.tree) == 1 {
		return version{}, nil
	}
	return v, err
}

// rename gives the version's directory the same name in every tree.
func (v *version) rename(path string) string {
	if rest, ok := strings.CutPrefix(path, v.name); ok && v.name != "" && (rest == "" || rest[0] == '/') {
		return versionDir + rest
	}
	return path
}

func (v *version) readEntry(path string) (entry, error) {
	var stat syscall.Stat_t
	if err := syscall.Lstat(path, &stat); err != nil {
		return entry{}, err
	}
	e := entry{mode: stat.Mode & 0o7777, uid: stat.Uid, gid: stat.Gid}
	switch stat.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		content, err := os.ReadFile(path)
		e.kind, e.content = "file", string(content)
		return e, err
	case syscall.S_IFLNK:
		target, err := os.Readlink(path)
		e.kind, e.mode, e.content = "link", 0, v.rename(target)
		return e, err
	case syscall.S_IFDIR:
		e.kind = "directory"
	default:
		e.kind = fmt.Sprintf("type %#o", stat.Mode&syscall.S_IFMT)
	}
	return e, nil
}

// differences are the entries in which got is not what is wanted.
func (got tree) differences(want tree) []string {
	all := tree{}
	maps.Copy(all, got)
	maps.Copy(all, want)
	var found []string
	for _, path := range slices.Sorted(maps.Keys(all)) {
		g, there := got[path]
		w, wanted := want[path]
		switch {
		case !there:
			found = append(found, fmt.Sprintf("%s is missing: want %v", path, w))
		case !wanted:
			found = append(found, fmt.Sprintf("%s is surplus: %v", path, g))
		case g != w:
			found = append(found, fmt.Sprintf("%s is %v,\n\twant %v", path, g, w))
		}
	}
	return found
}
