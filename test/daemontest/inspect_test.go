package daemontest

import (
	"os"
	"path/filepath"
	"testing"
)

// TestOutside: all files of a root but those of volumes.
func TestOutside(t *testing.T) {
	root := t.TempDir()
	want := map[string]bool{"lock": true, "pods/a/note": true, "pods/a/volumes/kubernetes.io~projected/file": false, "pods/a/volumes/kubernetes.io~projected/v/..1/token": false}
	for path := range want {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found := map[string]bool{}
	for _, f := range outside(root) {
		found[f.text] = true
	}
	for path, is := range want {
		if found[path] != is {
			t.Errorf("%s: %v, want %v", path, found[path], is)
		}
	}
	if found := outside(filepath.Join(root, "none")); found != nil {
		t.Errorf("no root has %v", found)
	}
}
