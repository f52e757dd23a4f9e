package conformance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// podsPerNode is how many pods a kubelet takes by default.
const podsPerNode = 110

// TestResources measures what the DaemonSet's container needs on a full node: `-v` shows the figures. The memory requested is
// enough for ordinary pods, and the limit for pods that each project a configMap of the largest size there is, of which
// two versions are on disk for a while when all change. What is on tmpfs counts as the container's memory. The overlay observe,
// its container as it is, reads the same files, of which none is its own: what it requests is enough for it either way.
func TestResources(t *testing.T) {
	container := daemonSet(t).Spec.Template.Spec.Containers[0]
	observer := overlayPod(t, "observe", "node-1")
	observed := observer.Spec.Containers[0].Resources.Requests.Memory()
	for name, tt := range map[string]struct {
		bytes int // of each pod's configMap
		bound *resource.Quantity
	}{
		"ordinary": {1 << 10, container.Resources.Requests.Memory()},
		"largest":  {1<<20 - 1<<10, container.Resources.Limits.Memory()},
	} {
		t.Run(name, func(t *testing.T) {
			// The most that was resident depends on when the collector got the processor: what exceeds once is measured once more.
			err := measureNode(t, tt.bytes, container.Env, tt.bound, observer, observed)
			if err != nil {
				t.Logf("once more: %v", err)
				err = measureNode(t, tt.bytes, container.Env, tt.bound, observer, observed)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// measureNode fills a node, and says what has used more than it may.
func measureNode(t *testing.T, bytes int, env []corev1.EnvVar, bound *resource.Quantity, observer *corev1.Pod, observed *resource.Quantity) (err error) {
	t.Helper()
	n := newFullNode(t, bytes, env)
	observe := startInSandbox(t, observer, filepath.Join(n.root, "pods"), "")
	n.fill(t, "a")
	eventually(t, func() error { return observe.wantMetric(2*podsPerNode, "token_projector_tokens", "state", "fresh") })
	filled := n.usage(t)
	n.fill(t, "b")
	changed, u := n.usage(t), observe.usage(t)
	t.Logf("%d pods: %v; all configMaps changed: %v; observe: %v", podsPerNode, filled, changed, u)
	for _, u := range []usage{filled, changed} {
		if total := u.resident + u.disk; total > bound.Value() || u.disk < int64(podsPerNode*bytes) {
			err = errors.Join(err, fmt.Errorf("%v, want at most %v in all", u, bound))
		}
	}
	if u.resident > observed.Value() {
		err = errors.Join(err, fmt.Errorf("observe: %v, want at most %v", u, observed))
	}
	return err
}

// fullNode is a fake API server and a daemon for as many pods as a node takes.
type fullNode struct {
	api   *fakeapi.Server
	root  string
	bytes int
	*daemon
}

func newFullNode(t *testing.T, bytes int, env []corev1.EnvVar) *fullNode {
	t.Helper()
	api, err := fakeapi.Start(fakeapi.Options{Forgetful: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := api.WriteKubeconfig(kubeconfig); err != nil {
		t.Fatal(err)
	}
	n := &fullNode{api: api, root: t.TempDir(), bytes: bytes}
	cmd := exec.Command(image.binary, append([]string{"run", "--node-name=node-1", "--kubeconfig=" + kubeconfig, "--root-dir=" + n.root}, addressFlags...)...)
	for _, v := range env {
		if v.ValueFrom == nil {
			cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	n.daemon = startCommand(t, t, cmd)
	return n
}

// fill makes the pods, each with the injected volume and one of its own with a configMap full of a letter, or changes these,
// and waits until all is on disk.
func (n *fullNode) fill(t *testing.T, letter string) {
	t.Helper()
	var files []string
	for i := range podsPerNode {
		meta := metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("pod-", i)}
		content := &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"content": strings.Repeat(letter, n.bytes)}}
		volume := vault(3600)
		volume.Projected.Sources = append(volume.Projected.Sources, corev1.VolumeProjection{
			ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: meta.Name}},
		})
		pod, err := fakeapi.Get[*corev1.Pod](n.api, meta.Namespace, meta.Name)
		if err == nil {
			_, err = fakeapi.Update(n.api, content)
		} else if _, err = fakeapi.Create(n.api, content); err == nil {
			pod, err = fakeapi.Create(n.api, newPod(meta.Namespace, meta.Name, "default", "node-1", volume))
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(volumeDir(n.root, pod, vaultVolume), "content"))
	}
	for _, file := range files {
		eventually(t, func() error {
			content, err := os.ReadFile(file)
			if err == nil && (len(content) != n.bytes || string(content[:1]) != letter) {
				err = fmt.Errorf("%s: %d bytes", file, len(content))
			}
			return err
		})
	}
	eventually(t, func() error { return n.wantMetric(2*podsPerNode, "token_projector_volumes", "state", "ready") })
}

// usage is what a daemon has used.
type usage struct {
	resident int64 // bytes, at most at any time
	disk     int64 // bytes of the files of its root, now
	seconds  float64
}

func (u usage) String() string {
	return fmt.Sprintf("%d MiB resident, %d MiB on disk, %.2f s of processor time", u.resident>>20, u.disk>>20, u.seconds)
}

// usage is what a process has used, but for the disk.
func (d *daemon) usage(t *testing.T) (u usage) {
	t.Helper()
	var err error
	if u.seconds, _, err = d.metric("process_cpu_seconds_total"); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscanf(value, "%d kB", &u.resident); err != nil {
				t.Fatal(err)
			}
			u.resident <<= 10
		}
	}
	return u
}

func (n *fullNode) usage(t *testing.T) usage {
	t.Helper()
	u := n.daemon.usage(t)
	err := filepath.WalkDir(n.root, func(path string, _ fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil {
			err = syscall.Lstat(path, &st)
		}
		u.disk += st.Blocks * 512
		if os.IsNotExist(err) { // an old version, swept meanwhile
			return nil
		}
		return err
	})
	if err != nil || u.resident == 0 {
		t.Fatalf("%v, %v", u, err)
	}
	return u
}
