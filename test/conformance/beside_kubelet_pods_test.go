//go:build e2e

package conformance

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// besidePod creates a pod of the node. It mounts all its unmounted volumes.
func (n *besideKubelet) besidePod(t *testing.T, name string, user *int64) *corev1.Pod {
	t.Helper()
	own := vault(7200) // no refresh of the kubelet's while we look
	own.Name = kubeletVolume
	root := corev1.Volume{Name: "root", VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: n.root, Type: ptr.To(corev1.HostPathDirectoryOrCreate)},
	}}
	mounts := []corev1.VolumeMount{{Name: kubeletVolume, MountPath: "/own", ReadOnly: true}}
	volumes := []corev1.Volume{own, root}
	for i := range unmountedVolumes {
		volume := vault(600)
		volume.Name = unmountedVolume(i)
		volumes = append(volumes, volume)
		mounts = append(mounts, corev1.VolumeMount{
			Name:        root.Name,
			ReadOnly:    true,
			MountPath:   filepath.Join(besideMount, volume.Name),
			SubPathExpr: "pods/$(POD_UID)/volumes/kubernetes.io~projected/" + volume.Name,
		})
	}
	pod := newPod(n.name, name, appAccount, n.name, volumes...)
	container := &pod.Spec.Containers[0]
	container.VolumeMounts = mounts
	container.Env = []corev1.EnvVar{{Name: "POD_UID", ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.uid"},
	}}}
	if user != nil {
		container.SecurityContext = &corev1.SecurityContext{RunAsUser: user}
	}
	pod = createPod(t, pod)
	n.pods = append(n.pods, pod)
	return pod
}

func unmountedVolume(i int) string { return fmt.Sprintf("%s-%02d", vaultVolume, i) }

// userOf is whom the pod's container runs as.
func userOf(pod *corev1.Pod) int {
	if sc := pod.Spec.Containers[0].SecurityContext; sc != nil {
		return int(*sc.RunAsUser)
	}
	return kubeletUser
}

// container is the root of the pod's only container.
func (n *besideKubelet) container(pod *corev1.Pod) string {
	return n.kubelet.runtime.root(string(pod.UID), pod.Spec.Containers[0].Name)
}

// unmountedFiles names the tokens of the unmounted volumes, below the container's root.
func unmountedFiles() []string {
	var files []string
	for i := range unmountedVolumes {
		files = append(files, filepath.Join(besideMount[1:], unmountedVolume(i), vaultFile))
	}
	return files
}

// awaitRead waits until the container's user can read every token there, and starts to read them all the time.
func (n *besideKubelet) awaitRead(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	for _, name := range unmountedFiles() {
		eventually(t, func() error {
			content, err := readAs(userOf(pod), n.container(pod), name)
			return errors.Join(err, unusable(content, time.Now()))
		})
	}
	n.readers = append(n.readers, startReader(n.whole, n.container(pod), userOf(pod), unmountedFiles()))
}

// noteEmpty wants the kubelet to have made each directory, with a mode, and to have put it, empty, into the container.
func (n *besideKubelet) noteEmpty(t *testing.T, pod *corev1.Pod, mode fs.FileMode) {
	t.Helper()
	for i := range unmountedVolumes {
		dir := volumeDir(n.root, pod, unmountedVolume(i))
		n.note(t, pod, i, mode)
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Fatalf("%s has %v, %v, want it empty", dir, entries, err)
		}
	}
}

// note remembers the volume's directory in the root, and wants it to be the one in the container.
func (n *besideKubelet) note(t *testing.T, pod *corev1.Pod, i int, mode fs.FileMode) {
	t.Helper()
	dir := volumeDir(n.root, pod, unmountedVolume(i))
	outside, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	inside, err := os.Stat(filepath.Join(n.container(pod), besideMount, unmountedVolume(i)))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(outside, inside) {
		t.Errorf("%s is not what the container has", dir)
	}
	if outside.Mode().Perm() != mode {
		t.Errorf("%s has mode %v, want %v", dir, outside.Mode().Perm(), mode)
	}
	if before := n.made[dir]; before != nil && !os.SameFile(before, outside) {
		t.Errorf("%s is another directory than before", dir)
	}
	n.made[dir] = outside
}

// filled wants each directory to be the one that was there before, which is the container's, open to its user.
func (n *besideKubelet) filled(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	for i := range unmountedVolumes {
		n.note(t, pod, i, 0o755)
	}
}

// projectedDir is where a pod's projected volumes are, of the daemon or of the kubelet.
func projectedDir(root string, pod *corev1.Pod) string {
	return filepath.Dir(volumeDir(root, pod, vaultVolume))
}

// otherThan says in what a directory's entries are not these.
func otherThan(dir string, want []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s has %v, want %v", dir, got, want)
	}
	return nil
}

// rotations counts what all readers have seen.
func (n *besideKubelet) rotations() int {
	sum := 0
	for _, r := range n.readers {
		sum += r.rotations()
	}
	return sum
}

// tokens are all that have been read so far.
func (n *besideKubelet) tokens() []string {
	var all []string
	for _, r := range n.readers {
		seen, _ := r.result()
		for _, tokens := range seen {
			all = append(all, tokens...)
		}
	}
	return all
}

// granted counts the tokens of the node by the client that got them.
func (n *besideKubelet) granted(t *testing.T) map[string]int {
	t.Helper()
	events, err := plane.TokensGranted(n.user)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, event := range events {
		agent, _, _ := strings.Cut(event.UserAgent, "/")
		got[agent]++
	}
	return got
}

// kubeletVolumes is all that can be seen of the kubelet's projected volumes, content aside: a file is never written twice.
func (n *besideKubelet) kubeletVolumes(t *testing.T) tree {
	t.Helper()
	all := tree{}
	for _, pod := range n.pods {
		maps.Copy(all, readTree(t, projectedDir(n.kubelet.root, pod)))
	}
	return all
}

// planted makes sure that a token of the kubelet's which somebody else writes, with the bytes it has, would be noticed.
func (n *besideKubelet) planted(t *testing.T) {
	t.Helper()
	before := n.kubeletVolumes(t)
	if err := before.changed(n.kubeletVolumes(t)); err != nil {
		t.Errorf("nothing was done, yet %v", err)
	}
	pod := n.pods[0]
	file := filepath.Join(volumeDir(n.kubelet.root, pod, apiAccess(t, pod)), "token")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	waitForNextTick(t)
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if before.changed(n.kubeletVolumes(t)) == nil {
		t.Fatal("a token written by somebody else was not noticed")
	}
}
