package integration

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// certificate is a PEM block of its own for each text; nobody parses it.
func certificate(text string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(text)}))
}

func trustBundle(name, text string, labels map[string]string) *certificatesv1.ClusterTrustBundle {
	return &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: "example.com/signer", TrustBundle: certificate(text)},
	}
}

// contains says whether a file holds just that.
func contains(path, want string) func() bool {
	return func() bool { data, err := os.ReadFile(path); return err == nil && string(data) == want }
}

// TestTrustBundlesOfASigner: all bundles with the labels together; they come, change and go.
func TestTrustBundlesOfASigner(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	d := w.start()
	v := tokenVolume("mixed", "vault", 600)
	v.Projected.Sources = append(v.Projected.Sources, corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{
		SignerName: new("example.com/signer"), LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"live": "yes"}}, Path: "roots.pem",
	}})
	live := map[string]string{"live": "yes"}
	create := func(name, text string, labels map[string]string) {
		b := trustBundle("example.com:signer:"+name, text, labels)
		if _, err := fakeapi.Create(w.api, b); err != nil {
			t.Fatal(err)
		}
	}
	create("one", "b", live)
	create("dead", "x", nil)
	roots := w.path(w.pod("demo", "web", v), "mixed", "roots.pem")
	eventually(t, "the bundle", contains(roots, certificate("b")))
	create("two", "a", live)
	eventually(t, "both bundles", contains(roots, certificate("a")+certificate("b")))
	two := trustBundle("example.com:signer:two", "c", live)
	if _, err := fakeapi.Update(w.api, two); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the changed one", contains(roots, certificate("b")+certificate("c")))
	check(t, w.api.Delete(two, metav1.DeleteOptions{}))
	eventually(t, "the one that is left", contains(roots, certificate("b")))
	d.Terminate()
}

// TestChangedWishes: what changes in a running pod, or its node, reaches the disk without a new token.
func TestChangedWishes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	d := w.start()
	v := tokenVolume("mixed", "vault", 3600)
	downward := func(path string, item corev1.DownwardAPIVolumeFile) {
		item.Path = path
		v.Projected.Sources = append(v.Projected.Sources, corev1.VolumeProjection{
			DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{item}},
		})
	}
	downward("labels", corev1.DownwardAPIVolumeFile{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}})
	downward("memory", corev1.DownwardAPIVolumeFile{ResourceFieldRef: &corev1.ResourceFieldSelector{
		ContainerName: "main", Resource: "limits.memory", Divisor: resource.MustParse("1Mi"),
	}})
	check(t, w.allocatable("64Mi"))
	user := int64(os.Geteuid()) // whom an ordinary user may give files to as well
	pod := w.podAs("demo", "web", &corev1.PodSecurityContext{RunAsUser: &user}, v)
	labels, memory, token := w.path(pod, "mixed", "labels"), w.path(pod, "mixed", "memory"), w.path(pod, "mixed", "token")
	eventually(t, "the first version", contains(labels, `app="web"`))
	eventually(t, "the node's memory", contains(memory, "64"))
	wantMode(t, token, 0o600)
	w.waitPublished(pod)
	before := w.contents(pod)

	pod = w.change(pod, func(p *corev1.Pod) { p.Labels["tier"] = "front" })
	eventually(t, "changed labels", contains(labels, "app=\"web\"\ntier=\"front\""))
	check(t, w.allocatable("96Mi"))
	eventually(t, "more memory", contains(memory, "96"))
	pod = w.change(pod, func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")}
	})
	eventually(t, "a resized container", contains(memory, "32"))
	pod = w.change(pod, func(p *corev1.Pod) {
		debug := corev1.EphemeralContainer{}
		debug.Name, debug.Image, debug.SecurityContext = "debug", "scratch", &corev1.SecurityContext{RunAsUser: new(user + 1)}
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{debug}
	})
	eventually(t, "an ephemeral container of another user", func() bool {
		info, err := os.Stat(token)
		return err == nil && info.Mode().Perm() == 0o644
	})
	if after := w.contents(pod); !bytes.Equal(before[token], after[token]) {
		t.Error("there is a new token")
	}
	d.Terminate()
}

// change updates a pod.
func (w *world) change(pod *corev1.Pod, how func(*corev1.Pod)) *corev1.Pod {
	w.t.Helper()
	pod = pod.DeepCopy()
	pod.ResourceVersion = ""
	how(pod)
	pod, err := fakeapi.Update(w.api, pod)
	if err != nil {
		w.t.Fatal(err)
	}
	return pod
}

// allocatable says what memory the node has to give.
func (w *world) allocatable(memory string) error {
	n, err := fakeapi.Get[*corev1.Node](w.api, "", node)
	if err != nil {
		return err
	}
	n.Status.Allocatable = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
	_, err = fakeapi.UpdateStatus(w.api, n)
	return err
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Mode()&^fs.ModeType != want {
		t.Errorf("%s: %v %v, want mode %v", filepath.Base(path), info.Mode(), err, want)
	}
}

// TestOwners: the kubelet's table on disk. Only root may give files away: to an ordinary user's daemon the modes apply
// all the same, the owner is its own, and it says so once.
func TestOwners(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	d := w.start()
	id := func(n int64) *int64 { return &n }
	const dir, setgid = fs.FileMode(0o755), 0o755 | fs.ModeSetgid
	self := [2]int{os.Geteuid(), os.Getegid()}
	for i, tt := range []struct {
		context      corev1.PodSecurityContext
		dir          fs.FileMode
		token, other fs.FileMode
		owner        [2]int // of the token; of other files the group alone
	}{
		{corev1.PodSecurityContext{}, dir, 0o644, 0o644, self},
		{corev1.PodSecurityContext{RunAsUser: id(1234)}, dir, 0o600, 0o644, [2]int{1234, self[1]}},
		{corev1.PodSecurityContext{FSGroup: id(4321)}, setgid, 0o640, 0o644, [2]int{self[0], 4321}},
		{corev1.PodSecurityContext{RunAsUser: id(1234), FSGroup: id(4321)}, setgid, 0o640, 0o644, [2]int{1234, 4321}},
	} {
		if os.Geteuid() != 0 { // and the group that cannot have it is nobody's
			tt.owner, tt.dir, tt.token = self, dir, tt.token&^0o040|tt.token&0o004<<3
		}
		pod := w.podAs("demo", fmt.Sprintf("web-%d", i), &tt.context, tokenVolume("vault", "vault", 600))
		w.waitPublished(pod)
		volume := apiVolume(pod)
		for _, path := range []string{"", "..data"} {
			wantMode(t, w.path(pod, volume, path), tt.dir)
			wantOwner(t, w.path(pod, volume, path), self[0], tt.owner[1])
		}
		wantMode(t, w.path(pod, volume, "token"), tt.token)
		wantOwner(t, w.path(pod, volume, "token"), tt.owner[0], tt.owner[1])
		wantMode(t, w.path(pod, volume, "ca.crt"), tt.other)
		wantOwner(t, w.path(pod, volume, "ca.crt"), self[0], tt.owner[1])
	}
	want := 0
	if os.Geteuid() != 0 {
		want = 1
	}
	eventually(t, "all volumes ready", func() bool { return d.metric("token_projector_volumes", "state", "ready") == 8 })
	if !strings.Contains(d.Output(), `"filesystem":"`) {
		t.Error("it does not say what file system the root is on")
	}
	if got := strings.Count(d.Output(), "may not give files"); got != want {
		t.Errorf("said %d times that it may not chown, want %d", got, want)
	}
	// What is there fits: a restart writes nothing.
	before := snapshot(t, filepath.Join(w.root, "pods"))
	d.Terminate()
	d = w.start()
	eventually(t, "ready again", func() bool { return d.metric("token_projector_volumes", "state", "ready") == 8 })
	if diff := cmp.Diff(before, snapshot(t, filepath.Join(w.root, "pods"))); diff != "" {
		t.Error("a restart wrote:", diff)
	}
	d.Terminate()
}

func wantOwner(t *testing.T, path string, uid, gid int) {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil || int(st.Uid) != uid || int(st.Gid) != gid {
		t.Errorf("%s belongs to %d:%d (%v), want %d:%d", path, st.Uid, st.Gid, err, uid, gid)
	}
}

// TestEvents: a pod is told what is missing and what to do, and when that is over.
func TestEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	d := w.start()
	v := tokenVolume("mixed", "vault", 600)
	v.Projected.Sources = append(v.Projected.Sources, settingsKinds()["configMap"].source("settings"))
	pod := w.pod("demo", "web", v)
	told := func(kind, reason, text string) func() bool {
		return func() bool {
			events, err := fakeapi.List[*corev1.Event](w.api, "demo")
			check(t, err)
			for _, e := range events {
				if e.Type == kind && e.Reason == reason && strings.Contains(e.Message, text) &&
					e.InvolvedObject.Kind == "Pod" && e.InvolvedObject.UID == pod.UID && e.Source.Host == node {
					return true
				}
			}
			return false
		}
	}
	eventually(t, "a Warning", told("Warning", "ProjectionFailed", `volume "mixed": ObjectMissing: ConfigMap demo/settings does not exist; create it`))
	if told("Normal", "ProjectionRecovered", "")() {
		t.Error("told that it is over before it is")
	}
	check(t, settingsKinds()["configMap"].create(w, "blue"))
	eventually(t, "a Normal event", told("Normal", "ProjectionRecovered", `volume "mixed"`))
	d.Terminate()
}

// TestEventsAreLimited: what a hundred pods lack at once is told in a burst of fifty events, and then two a second.
func TestEventsAreLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	const pods, burst, perSecond = 100, 50, 2
	for i := range pods {
		v := tokenVolume("mixed", "vault", 600)
		v.Projected.Sources = append(v.Projected.Sources, settingsKinds()["configMap"].source("settings"))
		w.pod("demo", fmt.Sprintf("web-%d", i), v)
	}
	d := w.start()
	const told = burst + 4*perSecond
	eventually(t, "more than the burst", func() bool {
		events, err := fakeapi.List[*corev1.Event](w.api, "demo")
		check(t, err)
		return len(events) >= told
	})
	requests := w.api.Requests(fakeapi.Match{Verb: "create", Resource: "events"})
	if took := requests[told-1].Time.Sub(requests[0].Time); took < 3*time.Second {
		t.Errorf("%d events within %v", told, took)
	}
	d.Terminate()
}

// TestUnmounted: with --volumes=unmounted, what a container mounts is not ours; the directories that a runtime has made on
// the way to a subPath mount are filled and opened, not replaced.
func TestUnmounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	pod := w.pod("demo", "web", tokenVolume("vault", "vault", 600))
	dir := w.path(pod, "vault", "")
	check(t, os.MkdirAll(dir, 0o700)) // before the daemon has marked the root as its own
	inode := func() uint64 {
		var st syscall.Stat_t
		check(t, syscall.Stat(dir, &st))
		return st.Ino
	}
	before := inode()
	d := w.start("--volumes=unmounted")
	eventually(t, "the unmounted volume", func() bool { _, err := os.Stat(filepath.Join(dir, "token")); return err == nil })
	wantMode(t, dir, 0o755)
	if inode() != before {
		t.Error("the runtime's directory was replaced")
	}
	if _, err := os.Stat(w.path(pod, apiVolume(pod), "")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a mounted volume: %v", err)
	}
	d.Terminate()
}

// TestPodSelector: pods are taken on by their labels; one that is ours stays ours when they change, also across a restart.
func TestPodSelector(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{MaxTokenExpiration: 5 * time.Second})
	d := w.start("--pod-selector", "app=web")
	other, pod := w.pod("demo", "other"), w.pod("demo", "web")
	w.waitPublished(pod)
	pod = w.change(pod, func(p *corev1.Pod) { p.Labels["app"] = "debugged" })
	w.waitRenewed(w.contents(pod), pod)
	d.Terminate()
	d = w.start("--pod-selector", "app=web")
	w.waitRenewed(w.contents(pod), pod)
	if _, err := os.Stat(w.path(other, "", "")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a pod that is not selected has a directory: %v", err)
	}
	check(t, w.api.Delete(pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	eventually(t, "removal", func() bool { _, err := os.Stat(w.path(pod, "", "")); return errors.Is(err, fs.ErrNotExist) })
	d.Terminate()
}
