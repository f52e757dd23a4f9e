//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/token-projector/token-projector/test/daemontest"
)

// TestChowned gives each part of a volume to a stranger, of another pod each time lest it pass for a storm, and measures
// how long that lasts.
func TestChowned(t *testing.T) {
	t.Parallel()
	n := newNode(t, daemontest.MemoryDir(t))
	n.start()
	parts := []string{"..data/token", "token", "..data", "VERSION", "."}
	for i, part := range parts {
		token := n.pod(fmt.Sprint("web-", i))
		n.measure("the token", n.published(token))
		n.measure("the metric", n.shows(fmt.Sprintf(`token_projector_volumes{state="ready"} %d`, i+1)))
		dir := filepath.Dir(token)
		path := func() string { // a repair is a new version
			version, _ := os.Readlink(filepath.Join(dir, "..data"))
			return filepath.Join(dir, strings.Replace(part, "VERSION", version, 1))
		}
		owned := func(uid uint32) func() bool {
			return func() bool {
				var st syscall.Stat_t
				return syscall.Lstat(path(), &st) == nil && st.Uid == uid && st.Gid == uid
			}
		}
		check(t, os.Lchown(path(), stranger, stranger))
		took := n.measure(part+" given back", owned(0))
		if took > promptly {
			t.Errorf("%s: given back after %v", part, took)
		}
		t.Logf("%s: given back after %v", part, took)
	}
	token := n.pod("web-pod")
	n.measure("the token", n.published(token))
	pod := filepath.Join(filepath.Dir(token), "../../..")
	check(t, os.Chown(pod, stranger, stranger))
	check(t, os.Remove(token)) // nothing watches the pod's directory: it is seen when its volume is looked at, at the next sweep at the latest
	n.measure("the pod's directory given back", func() bool {
		var st syscall.Stat_t
		return syscall.Stat(pod, &st) == nil && st.Uid == 0 && st.Gid == 0
	})
	n.expectLines(`"msg":"volume was altered on disk; repairing"`, len(parts)) // the directory is put right without a word
	n.Terminate()
}
