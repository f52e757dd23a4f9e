package atomicwriter

import (
	"errors"
	"path"
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
		{strings.Repeat(long+"/", 15) + strings.Repeat("y", 255), nil},
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

// FuzzValidatePaths: what is valid is clean, stays in the volume and can be published together.
func FuzzValidatePaths(f *testing.F) {
	for _, seed := range []string{"token", "a/b a/c", "./..data", "a a/b", "a/../b", "...", "a//b/ a/b", "é/\xff ..", "a-b a/b a.b a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, joined string) {
		paths := strings.Split(joined, " ")
		if ValidatePaths(paths) != nil {
			return
		}
		seen := map[string]bool{}
		for _, p := range paths {
			c := path.Clean(p)
			if c == "." || path.IsAbs(c) || strings.HasPrefix(c, "..") || seen[c] {
				t.Errorf("%q is valid in %q", p, paths)
			}
			seen[c] = true
		}
		for c := range seen {
			for dir := path.Dir(c); dir != "."; dir = path.Dir(dir) {
				if seen[dir] {
					t.Errorf("%q is beside %q", dir, c)
				}
			}
		}
	})
}
