//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: must run as root")
		os.Exit(1)
	}
	os.Exit(daemontest.Main(m))
}

const (
	user, group = 1234, 4321
	stranger    = 5678
)

// TestProtectedSymlinks: with fs.protected_symlinks=1, as most machines and guests have it, the user whose pod it is, and
// its group, read the token through the volume's links. Others may not, by its mode. The check sees a volume as the
// kubelet leaves it: links that were given to the user, in a sticky directory (kubernetes/kubernetes#137331, kubevirt/kubevirt#17792).
func TestProtectedSymlinks(t *testing.T) {
	setSysctl(t, "/proc/sys/fs/protected_symlinks", "1")
	api, err := fakeapi.Start(fakeapi.Options{})
	check(t, err)
	t.Cleanup(api.Close)
	root := daemontest.MemoryDir(t)
	d := daemontest.Start(t, api, root)
	check(t, api.AddNamespace("demo"))
	pod, err := fakeapi.Create(api, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web"},
		Spec: corev1.PodSpec{
			NodeName: daemontest.Node, Containers: []corev1.Container{{Name: "main", Image: "scratch"}},
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: new(int64(user)), FSGroup: new(int64(group))},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
					Audience: "a", ExpirationSeconds: new(int64(600)), Path: "token"}}},
			}}}},
		},
	})
	check(t, err)
	volume := filepath.Join(root, "pods", string(pod.UID), "volumes", "kubernetes.io~projected", "v")
	daemontest.Eventually(t, "the volume", func() bool { _, err := os.Stat(filepath.Join(volume, "token")); return err == nil })
	token, err := os.ReadFile(filepath.Join(volume, "token"))
	check(t, err)
	expectRead(t, volume, user, user, token)
	expectRead(t, volume, stranger, group, token)
	expectDenied(t, volume, stranger, stranger)

	planted := t.TempDir() // as the kubelet's
	check(t, os.Chmod(planted, 0o777|os.ModeSticky))
	check(t, os.WriteFile(filepath.Join(planted, "real"), token, 0o644))
	check(t, os.Symlink("real", filepath.Join(planted, "token")))
	check(t, os.Lchown(filepath.Join(planted, "token"), user, -1))
	expectRead(t, planted, user, user, token)
	expectDenied(t, planted, stranger, group)
	d.Terminate()
}

// readAs reads the file token of a directory as somebody else, who has the directory open as a container has its mount.
func readAs(t *testing.T, dir string, uid, gid uint32) ([]byte, error) {
	t.Helper()
	open, err := os.Open(dir)
	check(t, err)
	defer open.Close()
	cmd := exec.Command("cat", "/proc/self/fd/3/token")
	cmd.ExtraFiles = []*os.File{open}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	return cmd.Output()
}

func expectRead(t *testing.T, dir string, uid, gid uint32, want []byte) {
	t.Helper()
	if got, err := readAs(t, dir, uid, gid); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d:%d reads %d bytes, want %d: %v", uid, gid, len(got), len(want), err)
	}
}

func expectDenied(t *testing.T, dir string, uid, gid uint32) {
	t.Helper()
	got, err := readAs(t, dir, uid, gid)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || len(got) > 0 || !strings.Contains(string(exit.Stderr), "Permission denied") {
		t.Errorf("%d:%d reads %d bytes, %v; want Permission denied", uid, gid, len(got), err)
	}
}

// setSysctl sets a value of the kernel until the test ends.
func setSysctl(t *testing.T, path, value string) {
	t.Helper()
	before, err := os.ReadFile(path)
	check(t, err)
	if strings.TrimSpace(string(before)) == value {
		return
	}
	check(t, os.WriteFile(path, []byte(value), 0))
	t.Cleanup(func() { check(t, os.WriteFile(path, before, 0)) })
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
