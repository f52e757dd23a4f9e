// Package daemontest runs the real daemon, as a process of its own, against the
// fake API server, for the packages whose tests look at it from outside.
//
//   - Main builds the daemon once for all tests of a package.
//   - Start runs it on a root until the test ends or ends it.
//   - What a daemon printed, answered over HTTP and told pods, and the files that it left outside of volumes are searched
//     for every token that was ever issued, for the values of Secrets and for its own credential; see Secrets.
package daemontest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// patience bounds every wait. Nothing here is timed; it only ends a hopeless test.
const patience = 60 * time.Second

var binary string

// Main runs the tests of a package and returns the exit code. It builds the
// daemon first, unless TOKEN_PROJECTOR_BINARY names one: where the tests run as
// a user who cannot build.
func Main(m *testing.M) int {
	if binary = os.Getenv("TOKEN_PROJECTOR_BINARY"); binary != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "token-projector-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "token-projector")
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "github.com/token-projector/token-projector/cmd/token-projector")...)
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the daemon:", err)
		return 1
	}
	return m.Run()
}

// MemoryDir is a fresh directory, in memory if the machine has such a place.
func MemoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "token-projector-")
	if err != nil {
		dir, err = os.MkdirTemp("", "token-projector-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Eventually polls until ok: what it waits for happens in another process.
func Eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
