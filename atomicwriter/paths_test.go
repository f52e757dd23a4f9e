package atomicwriter

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValidatePaths(t *testing.T) {
	long := strings.Repeat("x", 255)
	for _, c := range []struct {
		paths string // separated by blanks
		want  error
	}{
		{"token", nil},
		{"a/b/c a/d e", nil},
		{"a/..b a/...", nil}, // only a first element is reserved
		{".a ..a", errReserved},
		{".a a..b a.. .", errDirectory},
		{"./a/./b//c a/b/d/", nil},
		{long + " a/" + long, nil},
		{long + "x", errElement},
		{"a/" + long + "x", errElement},
		{strings.Repeat("a/", 63) + "a", nil},
		{strings.Repeat("a/", 64) + "a", errDeep},
		{strings.Repeat(long+"/", 15) + strings.Repeat("y", 212), nil},
		{".//" + strings.Repeat(long+"/", 15) + strings.Repeat("y", 212), nil},
		{strings.Repeat(long+"/", 15) + strings.Repeat("y", 213), errLongClean},
		{strings.Repeat(long+"/", 15) + strings.Repeat("y", 255), errLongClean},
		{strings.Repeat(long+"/", 15) + strings.Repeat("y", 255) + "/y", errLong},
		{"./" + strings.Repeat(long+"/", 15) + strings.Repeat("y", 255), errLong}, // before cleaning, as the kubelet counts
		{"/a", errAbsolute},
		{"..", errDotDot},
		{"a/..", errDotDot},
		{"a/../b", errDotDot},
		{"..data", errReserved},
		{"..data/a", errReserved},
		{"...", errReserved},
		{"./..data", errReserved}, // the kubelet lets this pass
		{".//..data_tmp/a", errReserved},
		{".", errDirectory},
		{"./", errDirectory},
		{"a\x00b", errNUL},
		{"a a", errTwice},
		{"b a ./b", errTwice},
		{"a a/b", errBeside},
		{"a/b a-b a", errBeside},
		{"a/b/c/d a.b a/b", errBeside},
		{"a-b a/b a.b ab", nil},
	} {
		err := ValidatePaths(strings.Split(c.paths, " "))
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%.80q: %v, want %v", c.paths, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), "path ") {
			t.Errorf("%.80q: the error names no path: %v", c.paths, err)
		}
	}
	if err := ValidatePaths([]string{""}); !errors.Is(err, errEmpty) {
		t.Errorf("empty: %v", err)
	}
	if err := ValidatePaths(nil); err != nil {
		t.Errorf("none: %v", err)
	}
}

// TestPublishValidates: a bad wish changes nothing.
func TestPublishValidates(t *testing.T) {
	dir, d := volume(t)
	before := snapshot(t, dir)
	for _, list := range [][]File{
		files("../a", ""), files("a", "", "a/b", ""), files("a", "", "./a", ""), files("", ""),
		{{Path: "a", Mode: 0o4755}}, {{Path: "a", Data: make([]byte, MaxFile+1)}}, make([]File, MaxFiles+1),
	} {
		if _, err := d.Publish(list, at(0)); err == nil {
			t.Errorf("published %.80q", list[0].Path)
		}
	}
	if _, err := d.Publish(files("a", ""), Options{Now: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}); err == nil {
		t.Error("published in the year 10000")
	}
	expectTree(t, snapshot(t, dir), before)
}

func TestVersionNames(t *testing.T) {
	zone := time.FixedZone("", 3600)
	if got := versionName(testTime.In(zone), 42); got != "..2026_11_22_10_15_04.000000042" {
		t.Errorf("named %s", got)
	}
	for name, want := range map[string]bool{
		"..2026_11_22_10_15_04.123456789": true, "..2026_11_22_10_15_04.1": true, "..2026_11_22_10_15_04.12345678901234567890": true,
		"..2026_11_22_10_15_04.": false, "..2026_11_22_10_15_04": false, "..2026_11_22_10_15_04.1a": false, "": false,
		"..2026_11_22_10_15_04.123456789012345678901": false, "./2026_11_22_10_15_04.1": false, "..2026-11_22_10_15_04.1": false,
		"..2026_11_22_10_15_04./": false, "..data": false, "..2026_11_22_10_15_0x.1": false,
	} {
		if isVersion(name) != want || isVersion([]byte(name)) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// TestSameTime: a name that is taken is not taken again.
func TestSameTime(t *testing.T) {
	dir, d := volume(t)
	first := must(d.Publish(files("a", "1"), at(0)))(t)
	second := must(d.Publish(files("a", "2"), at(0)))(t)
	if first.Version == second.Version || !slices.Equal(second.Stale, []string{first.Version}) {
		t.Errorf("versions %s and %s, stale %v", first.Version, second.Version, second.Stale)
	}
	check(t, d.Sweep(second.Stale))
	expectView(t, dir, files("a", "2"))
}

// FuzzValidatePaths: what is valid is just what our own rules allow and a file system takes, and it can be
// published and read by those names; what is not valid changes nothing.
func FuzzValidatePaths(f *testing.F) {
	for _, seed := range []string{
		"token", "a/b a/c", "./..data", "a a/b", "a/../b", "...", "a//b/ a/b", "\u00e9/\xff ..", "a-b a/b a.b a", "a\x00b", "",
		strings.Repeat("x", 256), strings.Repeat("a/", 64) + "b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, joined string) {
		paths := strings.Split(joined, " ")
		if len(paths) > 32 {
			return // only slower
		}
		allowed := !slices.ContainsFunc(paths, ruledOut)
		err := ValidatePaths(paths)
		if want := allowed && storable(t, paths); (err == nil) != want {
			t.Fatalf("%q: %v, although a file system says %v", paths, err, want)
		}
		var wish []File
		for _, p := range paths {
			wish = append(wish, File{Path: p, Data: []byte(p), Mode: 0o644})
		}
		dir, d := volume(t)
		before := snapshot(t, filepath.Dir(dir))
		if _, perr := d.Publish(wish, at(0)); (perr == nil) != (err == nil) {
			t.Fatalf("%q: valid %v, published %v", paths, err, perr)
		}
		if err != nil {
			expectTree(t, snapshot(t, filepath.Dir(dir)), before)
			return
		}
		readable(t, dir, wish)
	})
}

// ruledOut tells a path that some file system would take, and that we do not.
func ruledOut(p string) bool {
	reserved := strings.HasPrefix(p, "..") || strings.HasPrefix(path.Clean(p), "..")
	return p == "" || reserved || path.IsAbs(p) || len(p) > 4096 || len(path.Clean(p)) > 4052 || strings.Count(path.Clean(p), "/") >= 64 ||
		slices.ContainsFunc(strings.Split(p, "/"), func(elem string) bool { return elem == ".." || len(elem) > 255 })
}

// storable asks a file system whether it holds all of these paths at once, each as a file of its own.
func storable(t *testing.T, paths []string) bool {
	root := must(os.OpenRoot(t.TempDir()))(t)
	defer root.Close()
	for _, p := range paths {
		p = path.Clean(p)
		if root.MkdirAll(path.Dir(p), 0o755) != nil {
			return false
		}
		file, err := root.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return false
		}
		check(t, file.Close())
	}
	return true
}

// readable reads every file by its name, through the links; a path may be too long for one system call.
func readable(t *testing.T, dir string, wish []File) {
	t.Helper()
	root := must(os.OpenRoot(dir))(t)
	defer root.Close()
	for _, f := range wish {
		if got, err := root.ReadFile(path.Clean(f.Path)); err != nil || string(got) != string(f.Data) {
			t.Errorf("%q reads %q, %v", f.Path, got, err)
		}
	}
}

// TestLongestPath: the longest path fits behind the longest name of a version, which is one after a collision.
func TestLongestPath(t *testing.T) {
	longest := strings.Repeat(strings.Repeat("x", 255)+"/", 15) + strings.Repeat("y", 212)
	dir, d := volume(t)
	for i := range 20 { // every publish but the first collides; the random suffixes are of 17 to 20 digits
		wish := files(longest, strings.Repeat("z", i))
		publish(t, d, Written, wish, at(0))
		readable(t, dir, wish)
	}
	if len(versionName(testTime, 1<<64-1))+1+maxClean != 4095 {
		t.Error("the limit is not what is left by the longest name")
	}
}
