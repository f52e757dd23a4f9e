package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-logr/logr"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/features"
)

func TestMain(m *testing.M) {
	syscall.Umask(0o022)           // a kubelet's: the modes of its nested directories depend on it
	klog.SetLogger(logr.Discard()) // the kubelet's errors are compared, not read
	// Without the gate the API server drops the user fields, and the kubelet ignores them; ours obeys where they are.
	err := utilfeature.DefaultMutableFeatureGate.SetFromMap(map[string]bool{string(features.AtomicWriteVolumeUserFields): true})
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubelet:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// project has ours project both worlds.
func project(t *testing.T, dir string, before, after *world) *comparison {
	t.Helper()
	c := &comparison{dir: filepath.Join(dir, "kubelet"), before: before, after: after, met: metDifferences{}}
	c.first, c.second = projectOurs(t, filepath.Join(dir, "ours"), before, after)
	return c
}

// memoryDir is a fresh directory, in memory if the machine has such a place.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "kubelet-")
	if err != nil {
		dir, err = os.MkdirTemp("", "kubelet-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
