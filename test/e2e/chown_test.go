//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/token-projector/token-projector/test/daemontest"
)

// TestChowned gives the file and directories of a volume to a stranger, and measures how long that lasts.
func TestChowned(t *testing.T) {
	t.Parallel()
	n := newNode(t, daemontest.MemoryDir(t))
	n.start()
	token := n.pod("web")
	n.measure("the token", n.published(token))
	n.measure("the metric", n.shows(`token_projector_volumes{state="ready"} 1`))
	dir := filepath.Dir(token)
	for _, part := range []string{"..data/token", "VERSION", "."} {
		path := filepath.Join(dir, part)
		if part == "VERSION" {
			version, err := os.Readlink(filepath.Join(dir, "..data"))
			check(t, err)
			path = filepath.Join(dir, version)
		}
		owner := func() uint32 {
			if part == "VERSION" { // a repair is a new one
				path, _ = filepath.EvalSymlinks(filepath.Join(dir, "..data"))
			}
			info, err := os.Lstat(path)
			if err != nil {
				return stranger
			}
			return info.Sys().(*syscall.Stat_t).Uid
		}
		check(t, os.Lchown(path, stranger, stranger))
		took := n.measure(part+" given back", func() bool { return owner() == 0 })
		if took > time.Minute {
			t.Errorf("%s: given back after %v", part, took)
		}
		t.Logf("%s: given back after %v", part, took)
	}
	n.expectLines(`"msg":"volume was altered on disk; repairing"`, 1)
	n.Terminate()
}
