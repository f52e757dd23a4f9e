//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

const (
	appUser, appGroup = 1234, 4321

	removed    = `"msg":"pod directory removed"`
	notRemoved = `"msg":"pod directory could not be removed; trying on"`
	unowned    = `"msg":"may not give files to the owners that pods want;`
)

// What keeps capabilities, below deploy/.
const (
	manifest        = "base/daemonset.yaml"
	observeManifest = "overlays/observe/daemonset.yaml"
)

// capabilities are those that a DaemonSet's container keeps.
func capabilities(t *testing.T, manifest string) (names []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy", manifest))
	check(t, err)
	var ds appsv1.DaemonSet
	check(t, yaml.Unmarshal(text, &ds)) // not strictly: it may be a patch
	for _, c := range ds.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add {
		names = append(names, string(c))
	}
	return names
}

// TestCapabilities: with the capabilities of the manifest the daemon gives files to a pod's user and group, reads them back
// after a restart, and removes what the pod, had it been root, may have left in its directory. Without any one of them
// it can not: none is there for nothing.
func TestCapabilities(t *testing.T) {
	all := capabilities(t, manifest)
	want := map[string]lack{
		"":             {},
		"CHOWN":        {owner: true, setgid: true},
		"DAC_OVERRIDE": {owner: true, foreign: true},
		"FOWNER":       {sticky: true},
		"FSETID":       {setgid: true},
	}
	if len(all) != len(want)-1 {
		t.Errorf("the manifest keeps %q, and this test knows what %d are for", all, len(want)-1)
	}
	for _, without := range append(all, "") {
		t.Run("without "+without, func(t *testing.T) {
			t.Parallel()
			expected, known := want[without]
			if !known {
				t.Fatal("what this one is for has not been shown")
			}
			keep := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return name == without })
			n := newNode(t, daemontest.MemoryDir(t))
			if got := n.lacks(under(keep)); got != expected {
				t.Errorf("what it can not do: %+v, want %+v", got, expected)
			}
		})
	}
}

// lack is what a daemon can not do.
type lack struct {
	owner   bool // give a file to a user, so that it can be read back
	setgid  bool // give a directory's group to what is made in it
	foreign bool // remove what is in a directory of somebody else, whom alone it lets in
	sticky  bool // remove what is in one where everybody may remove but their own
}

// under is a command that keeps these capabilities of root's, and none else.
func under(keep []string) []string {
	set := "-all"
	for _, name := range keep {
		set += ",+" + strings.ToLower(name)
	}
	return []string{"setpriv", "--no-new-privs", "--bounding-set=" + set}
}

// lacks runs a daemon under a command and finds out.
func (n *node) lacks(command []string) (l lack) {
	n.t.Helper()
	n.Process = daemontest.StartUnder(n.t, command, n.api, n.root)
	n.wantKept(command)
	owned := n.ownedPod("owned")
	file := n.token(owned)
	n.measure("the token", n.published(file))
	var st syscall.Stat_t
	check(n.t, syscall.Stat(file, &st))
	l.owner = st.Uid != appUser
	// Given to the user alone, the file is one that only a capability reads back: the next daemon adopts it.
	token, err := os.ReadFile(file)
	check(n.t, err)
	n.Terminate()
	n.Process = daemontest.StartUnder(n.t, command, n.api, n.root)
	n.measure("adoption", n.shows("token_projector_adopted_tokens_total 1"))
	n.expectToken(file, token)

	check(n.t, syscall.Stat(filepath.Dir(file), &st))
	l.setgid = st.Mode&syscall.S_ISGID == 0
	l.foreign = !n.removes("foreign", 0o700, appUser)
	l.sticky = !n.removes("sticky", 0o1777, appUser)
	if refused := l.owner || l.setgid; refused != strings.Contains(n.Output(), unowned) {
		n.t.Errorf("an owner was refused: %v, and the log does not fit", refused)
	}
	n.Terminate()
	return l
}

// wantKept looks at the process itself: the command might have kept more, and the test would show nothing.
func (n *node) wantKept(command []string) {
	n.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	check(n.t, err)
	bits, found := 0, false
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			var set uint64
			_, err := fmt.Sscanf(value, "%x", &set)
			check(n.t, err)
			for found = true; set != 0; set &= set - 1 {
				bits++
			}
		}
	}
	if want := strings.Count(command[len(command)-1], "+"); !found || bits != want {
		n.t.Fatalf("the daemon has %d capabilities (found: %v), want %d", bits, found, want)
	}
}

// removes reports whether the daemon removes the directory of a pod that has left a directory with a file in it.
func (n *node) removes(name string, mode uint32, owner int) bool {
	n.t.Helper()
	pod := n.ownedPod(name)
	file := n.token(pod)
	n.measure("the token", n.published(file))
	left := filepath.Join(filepath.Dir(file), "left")
	check(n.t, os.Mkdir(left, 0o700))
	check(n.t, os.WriteFile(filepath.Join(left, "file"), nil, 0o600))
	check(n.t, os.Chown(filepath.Join(left, "file"), owner, owner))
	check(n.t, os.Chown(left, owner, owner))
	check(n.t, syscall.Chmod(left, mode))
	podDir := filepath.Join(n.root, "pods", string(pod.UID))
	check(n.t, n.api.Delete(pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	of := func(line string) func() bool {
		return func() bool {
			for l := range strings.Lines(n.Output()) {
				if strings.Contains(l, line) && strings.Contains(l, string(pod.UID)) {
					return true
				}
			}
			return false
		}
	}
	n.measure("an end of the pod's directory", func() bool { return of(removed)() || of(notRemoved)() })
	_, err := os.Lstat(podDir)
	if gone := os.IsNotExist(err); gone != of(removed)() {
		n.t.Errorf("%s: gone: %v, and the log says otherwise", name, gone)
	}
	return of(removed)()
}

// ownedPod makes a pod of a user and a group, with one token volume.
func (n *node) ownedPod(name string) *corev1.Pod {
	n.t.Helper()
	pod, err := fakeapi.Create(n.api, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{
			NodeName: daemontest.Node, Containers: []corev1.Container{{Name: "main", Image: "scratch"}},
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: new(int64(appUser)), FSGroup: new(int64(appGroup))},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
					Audience: "a", ExpirationSeconds: new(int64(7200)), Path: "token"}}},
			}}}},
		},
	})
	check(n.t, err)
	return pod
}

func (n *node) token(pod *corev1.Pod) string {
	return filepath.Join(n.root, "pods", string(pod.UID), "volumes", "kubernetes.io~projected", "v", "token")
}
