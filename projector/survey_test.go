package projector

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/atomicwriter"
)

// TestSurvey: every volume of every pod is seen once, in order, whatever else lies about, and nothing outside the root.
func TestSurvey(t *testing.T) {
	top, token := t.TempDir(), altered(nil)
	root, outside := filepath.Join(top, "root"), filepath.Join(top, "outside")
	volume := func(uid, name string) string {
		return filepath.Join(root, volumePath(Key{PodUID: types.UID(uid), Volume: name}))
	}
	publishAt(t, volume("b", "v"), "token", token, "licence.jwt", altered(map[string]any{"sub": "acme"}))
	publishAt(t, volume("a", "w"), "x/token", token, "ca.crt", "no token")
	publishAt(t, volume("a", "v"), "ca.crt", "no token")
	publishAt(t, outside, "token", token)
	for _, dir := range []string{volume("c", "empty"), filepath.Join(root, "pods", "d")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{volume("c", "link"), filepath.Join(root, "pods", "e")} {
		if err := os.Symlink(outside, link); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "pods", "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(root, markerName), []byte(markerText), 0o600); err != nil {
		t.Fatal(err)
	}

	var seen []string
	err := Survey(root, func(v FoundVolume) {
		if v.Err != nil {
			t.Errorf("%v: %v", v.Key, v.Err)
		}
		if !v.Ours || v.Dir != volume(string(v.Key.PodUID), v.Key.Volume) || time.Since(v.Changed) > time.Hour {
			t.Errorf("%v: directory %s, changed %s", v.Key, v.Dir, v.Changed)
		}
		at := string(v.Key.PodUID) + "/" + v.Key.Volume
		if v.Version == "" {
			at += " unpublished"
		}
		for _, found := range v.Tokens {
			at += " " + found.File.Path
			if found.Claims.PodUID != "uid-1" || string(found.File.Data) != token {
				t.Errorf("%v: claims of %s, %v", v.Key, found.Claims.PodUID, found.File)
			}
		}
		seen = append(seen, at)
	})
	want := []string{"a/v", "a/w x/token", "b/v token", "c/empty unpublished"}
	if err != nil || !slices.Equal(seen, want) {
		t.Errorf("seen %q, %v; want %q", seen, err, want)
	}
}

// TestSurveyOfNoRoot: what is no root is told, and not taken for an empty one.
func TestSurveyOfNoRoot(t *testing.T) {
	visit := func(v FoundVolume) { t.Errorf("seen: %v", v.Key) }
	if err := Survey(filepath.Join(t.TempDir(), "none"), visit); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := Survey(t.TempDir(), visit); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	elsewhere, linked := t.TempDir(), t.TempDir()
	publishAt(t, filepath.Join(elsewhere, volumePath(Key{PodUID: "a", Volume: "v"})), "token", "none")
	pods := filepath.Join(linked, podsName)
	if err := os.Symlink(filepath.Join(elsewhere, podsName), pods); err != nil {
		t.Fatal(err)
	}
	if err := Survey(linked, visit); err == nil || !strings.HasPrefix(err.Error(), pods+" is a link or a file, ") {
		t.Errorf("of a root whose pods are elsewhere: %v", err)
	}
}

// TestSurveyDenied: a volume of which a file may not be read is said to be unreadable, and not to lack it. Nobody keeps root from reading.
func TestSurveyDenied(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, volumePath(Key{PodUID: "a", Volume: "v"}))
	publishAt(t, path, "token", altered(nil), "x/other", altered(nil), "y/ca.crt", "no token")
	for _, name := range []string{"token", "x"} {
		readable, err := filepath.EvalSymlinks(filepath.Join(path, name))
		if err != nil {
			t.Fatal(err)
		}
		whole, tokens := true, 2
		for _, mode := range []os.FileMode{0o755, 0} {
			if err := os.Chmod(readable, mode); err != nil {
				t.Fatal(err)
			}
			if mode == 0 && os.Geteuid() != 0 {
				whole, tokens = false, 1
			}
			err := Survey(root, func(v FoundVolume) {
				if whole != (v.Err == nil) || !whole && !errors.Is(v.Err, fs.ErrPermission) || len(v.Tokens) != tokens || v.Version == "" {
					t.Errorf("%s of mode %v: %d tokens, %v", name, mode, len(v.Tokens), v.Err)
				}
			})
			if err := errors.Join(err, os.Chmod(readable, 0o755)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// publishAt publishes files, each a path and its content, in a directory.
func publishAt(t testing.TB, path string, contents ...string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := atomicwriter.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var files []atomicwriter.File
	for i := 0; i < len(contents); i += 2 {
		files = append(files, atomicwriter.File{Path: contents[i], Data: []byte(contents[i+1]), Mode: 0o644, Owner: new(dir.Self())})
	}
	if _, err := dir.Publish(files, atomicwriter.Options{Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
}

// TestSurveyDuringPublish: a volume that is published anew while it is looked at, and whose old version goes at once, as the kubelet's, has all its
// tokens, the old or the new ones.
func TestSurveyDuringPublish(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, volumePath(Key{PodUID: "a", Volume: "v"}))
	paths := []string{"a", "b", "c", "d"}
	publishAt(t, path, "a", altered(nil), "b", altered(nil), "c", altered(nil), "d", altered(nil))
	dir, err := atomicwriter.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	now := time.Now()
	for i := range 100 {
		published := make(chan error, 1)
		go func() {
			var files []atomicwriter.File
			for _, path := range paths {
				files = append(files, atomicwriter.File{Path: path, Data: []byte(altered(map[string]any{"jti": strconv.Itoa(i)})), Mode: 0o644, Owner: new(dir.Self())})
			}
			r, err := dir.Publish(files, atomicwriter.Options{Now: now.Add(time.Duration(i) * time.Minute)})
			published <- errors.Join(err, dir.Sweep(r.Stale))
		}()
		for looking := true; looking; {
			err := Survey(root, func(v FoundVolume) {
				if v.Version == "" || len(v.Tokens) != len(paths) || v.Err != nil {
					t.Fatalf("at %d: version %q, %d tokens, %v", i, v.Version, len(v.Tokens), v.Err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-published:
				if looking = false; err != nil {
					t.Fatal(err)
				}
			default:
			}
		}
	}
}
