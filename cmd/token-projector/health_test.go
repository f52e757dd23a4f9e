package main

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/token-projector/token-projector/projector"
)

// TestHealthOfALostRoot: it is never ready, and unhealthy only if another mount is what it needs: a restart makes that, and
// helps against nothing else that takes a root.
func TestHealthOfALostRoot(t *testing.T) {
	dead := deadMount(t)
	for name, tt := range map[string]struct {
		errs    []error
		healthy bool
	}{
		"full":                      {[]error{&fs.PathError{Op: "mkdirat", Path: "root", Err: unix.ENOSPC}}, true},
		"read-only":                 {[]error{&fs.PathError{Op: "mkdirat", Path: "root", Err: unix.EROFS}}, true},
		"deleted below its mount":   {[]error{dead}, false},
		"full, then deleted":        {[]error{unix.ENOSPC, dead}, false},
		"deleted, then full beside": {[]error{dead, unix.ENOSPC}, true},
	} {
		h := &health{}
		expect := func(path string, status int, says string) {
			t.Helper()
			w := httptest.NewRecorder()
			h.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if w.Code != status || !strings.HasPrefix(w.Body.String(), says) {
				t.Errorf("%s: %s: %d %q, want %d %q", name, path, w.Code, w.Body, status, says)
			}
		}
		h.begun.Store(true)
		for _, err := range tt.errs {
			h.rootLost(zap.NewNop(), err)
		}
		expect("/readyz", http.StatusServiceUnavailable, "the root is lost: ")
		if tt.healthy {
			expect("/healthz", http.StatusOK, "ok\n")
		} else {
			expect("/healthz", http.StatusServiceUnavailable, "the root is lost: ")
		}
		h.rootFound(zap.NewNop())
		expect("/healthz", http.StatusOK, "ok\n")
	}
}

// deadMount is what opening a root says whose directory was deleted below its mount. A descriptor stands in for the mount.
func deadMount(t *testing.T) error {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	root, err := projector.OpenRoot(t.Context(), fmt.Sprintf("/proc/self/fd/%d", f.Fd()), nil)
	if err == nil {
		root.Close()
		t.Fatal("a deleted directory is opened")
	}
	return err
}
