package atomicwriter

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Limits of what is published and read.
const (
	MaxFile    = 2 << 20  // bytes of one file; an API object has at most about 1.5 MiB
	MaxVersion = 64 << 20 // bytes of all files of a version and of their paths
	MaxFiles   = 4096     // files of a version
	MaxDepth   = 64       // elements of a path
	MaxStale   = 1024     // old versions that are told of at once

	maxPath    = 4096 // bytes of a path
	maxClean   = 4052 // bytes of a clean path: after the longest version's name, all that one system call takes
	maxElement = 255  // bytes of an element of a path

	dataLink = "..data"     // the link to the current version
	tempLink = "..data_tmp" // every new link under its first name
	inData   = "..data/"    // what the target of a visible link begins with

	// maxTarget holds every target that we write (7 + 255 bytes) and more.
	maxTarget = 320
)

// The rules for payload paths.
var (
	errEmpty     = errors.New("is empty")
	errAbsolute  = errors.New("is absolute")
	errLong      = errors.New("is longer than 4096 bytes")
	errLongClean = errors.New("is longer than 4052 bytes when clean")
	errElement   = errors.New("has an element longer than 255 bytes")
	errDotDot    = errors.New(`has an element ".."`)
	errReserved  = errors.New(`begins with ".."`)
	errNUL       = errors.New("has a NUL byte")
	errDirectory = errors.New("names the volume itself")
	errDeep      = errors.New("has more than 64 elements")
	errTwice     = errors.New("is there twice")
	errBeside    = errors.New("is both a file and a directory")
)

// ValidatePaths checks the paths of one volume together. Each path must be relative, of at most 4096 bytes
// and 64 elements of at most 255 bytes, without an element ".." or a NUL byte, and its first element must
// not begin with ".."; all this holds for the path as given and after path.Clean. Clean paths
// must differ, be of at most 4052 bytes, and none may be a directory of another one.
//
// The rules are those of the kubelet's AtomicWriter (validatePath in
// pkg/volume/util/atomic_writer.go), which applies them before cleaning only and fails later on
// conflicts and on paths that no system call takes; the limit of elements and the NUL byte are ours.
//
// The error names the path and the rule.
func ValidatePaths(paths []string) error {
	clean := make([]string, len(paths))
	for i, p := range paths {
		var err error
		if clean[i], err = cleanPath(p); err != nil {
			return err
		}
	}
	slices.SortFunc(clean, comparePath)
	for i := 1; i < len(clean); i++ {
		if err := conflict(clean[i-1], clean[i]); err != nil {
			return err
		}
	}
	return nil
}

// cleanPath checks one path and returns it clean.
func cleanPath(p string) (string, error) {
	err := checkPath(p)
	clean := p
	if err == nil {
		clean = path.Clean(p)
		err = checkPath(clean)
	}
	switch {
	case err != nil:
	case clean == ".":
		err = errDirectory
	case len(clean) > maxClean:
		err = errLongClean
	}
	if err != nil {
		return "", fmt.Errorf("path %.300q %w", p, err)
	}
	return clean, nil
}

// checkPath applies the rules for a single path.
func checkPath(p string) error {
	switch {
	case p == "":
		return errEmpty
	case p[0] == '/':
		return errAbsolute
	case len(p) > maxPath:
		return errLong
	case strings.IndexByte(p, 0) >= 0:
		return errNUL
	}
	depth := 0
	for elem := range strings.SplitSeq(p, "/") {
		if elem == ".." {
			return errDotDot
		}
		if len(elem) > maxElement {
			return errElement
		}
		if elem != "" && elem != "." {
			depth++
		}
	}
	if depth > MaxDepth {
		return errDeep
	}
	if strings.HasPrefix(p, "..") {
		return errReserved
	}
	return nil
}

// conflict checks two clean paths that are neighbours in the order of comparePath.
func conflict(a, b string) error {
	if a == b {
		return fmt.Errorf("path %.300q %w", a, errTwice)
	}
	if len(b) > len(a) && b[len(a)] == '/' && b[:len(a)] == a {
		return fmt.Errorf("path %.300q %w", a, errBeside)
	}
	return nil
}

// comparePath orders clean paths element by element: "/" comes before every other byte, so
// that "a", "a/b" and "a-b" stand in this order, a directory's files together, and
// the directories in the order of their names.
func comparePath(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		x, y := a[i], b[i]
		switch {
		case x == y:
		case x == '/':
			return -1
		case y == '/':
			return 1
		default:
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// element returns the element of p that begins at position from, and whether it is the last one.
func element(p string, from int) (elem string, last bool) {
	if i := strings.IndexByte(p[from:], '/'); i >= 0 {
		return p[from : from+i], false
	}
	return p[from:], true
}

// local reports whether a directory's path is relative, without "..", not empty and in one piece.
func local(p string) bool {
	if p == "" || p[0] == '/' || strings.IndexByte(p, 0) >= 0 {
		return false
	}
	for elem := range strings.SplitSeq(p, "/") {
		if elem == ".." {
			return false
		}
	}
	return true
}

func hasSlash(name string) bool { return strings.IndexByte(name, '/') >= 0 }

// versionLayout is the first part of a version's name; the kubelet's are the same.
const versionLayout = "..2006_01_02_15_04_05"

// versionName is the version's name for a time; the suffix is its nanoseconds at first, and
// anything else after a collision.
func versionName(now time.Time, suffix uint64) string {
	return fmt.Sprintf("%s.%09d", now.UTC().Format(versionLayout), suffix)
}

// isVersion reports whether a name is shaped like a version's: the time in
// digits, a dot, and 1 to 20 digits.
func isVersion[T string | []byte](name T) bool {
	n := len(versionLayout)
	if len(name) < n+2 || len(name) > n+21 || name[n] != '.' {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case i == n:
		case i < n && (versionLayout[i] == '.' || versionLayout[i] == '_'):
			if c != versionLayout[i] {
				return false
			}
		case c < '0' || c > '9':
			return false
		}
	}
	return true
}
