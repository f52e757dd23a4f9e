package hostile

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

func TestMain(m *testing.M) { os.Exit(daemontest.Main(m)) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a daemon on a root, beside which lies what nobody may touch.
type world struct {
	*daemontest.Process
	t         *testing.T
	api       *fakeapi.Server
	top, root string
	secret    string // in every canary
	others    []string
}

// newWorld starts a daemon whose tokens live for ten seconds, and three pods that nobody attacks.
func newWorld(t *testing.T) *world {
	api, err := fakeapi.Start(fakeapi.Options{NoAPIAccessVolume: true, MaxTokenExpiration: 10 * time.Second})
	check(t, err)
	t.Cleanup(api.Close)
	check(t, api.AddNamespace("demo"))
	top := daemontest.MemoryDir(t)
	t.Cleanup(func() { openUp(top) })
	w := &world{t: t, api: api, top: top, root: filepath.Join(top, "root"), secret: "secret-" + rand.Text()}
	_, err = fakeapi.Create(api, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "settings"}, Data: map[string]string{"config": "0"}})
	check(t, err)
	w.start()
	for i := range 3 {
		w.others = append(w.others, w.pod(fmt.Sprint("other-", i)).dir)
	}
	return w
}

func (w *world) start() {
	w.Process = daemontest.Start(w.t, w.api, w.root)
	daemontest.Eventually(w.t, "ready", w.ready)
}

func (w *world) ready() bool {
	resp, err := http.Get("http://" + w.Health + "/readyz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// volume is a pod's, published.
type volume struct {
	w   *world
	dir string
	pod *corev1.Pod
}

// pod makes a pod and waits for its volume: a token, and a configMap's key below a directory.
func (w *world) pod(name string) volume {
	w.t.Helper()
	pod, err := fakeapi.Create(w.api, newPod(name))
	check(w.t, err)
	v := volume{w, w.path(pod), pod}
	daemontest.Eventually(w.t, "the volume of "+name, func() bool { return v.fault() == "" })
	return v
}

func (w *world) path(pod *corev1.Pod) string {
	return filepath.Join(w.root, "pods", string(pod.UID), "volumes", "kubernetes.io~projected", "v")
}

func newPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name},
		Spec: corev1.PodSpec{
			NodeName: daemontest.Node, ServiceAccountName: "default", Containers: []corev1.Container{{Name: "main", Image: "scratch"}},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				DefaultMode: new(int32(0o644)),
				Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "a", ExpirationSeconds: new(int64(3600)), Path: "token"}},
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"},
						Items: []corev1.KeyToPath{{Key: "config", Path: "dir/config"}}}},
				},
			}}}},
		},
	}
}

var versionName = regexp.MustCompile(`^\.\.20\d\d_\d\d_\d\d_\d\d_\d\d_\d\d\.\d+$`)

// fault says in what a volume is not as it should be; "": it is whole, and its token one of this pod's.
func (v volume) fault() string {
	version, err := os.Readlink(filepath.Join(v.dir, "..data"))
	if err != nil || !versionName.MatchString(version) {
		return fmt.Sprintf("..data -> %q, %v", version, err)
	}
	for name, want := range map[string]string{"token": "..data/token", "dir": "..data/dir"} {
		if target, err := os.Readlink(filepath.Join(v.dir, name)); err != nil || target != want {
			return fmt.Sprintf("%s -> %q, %v", name, target, err)
		}
	}
	var kinds []string
	err = filepath.WalkDir(filepath.Join(v.dir, version), func(path string, e fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil {
			err = syscall.Lstat(path, &st)
		}
		if err == nil && len(kinds) < 10 {
			rel, _ := filepath.Rel(filepath.Join(v.dir, version), path)
			kinds = append(kinds, fmt.Sprintf("%s %v %v", rel, e.Type(), e.IsDir() || st.Nlink == 1))
		}
		return err
	})
	if want := []string{". d--------- true", "dir d--------- true", "dir/config ---------- true", "token ---------- true"}; err != nil || !slices.Equal(kinds, want) {
		return fmt.Sprintf("%q, %v", kinds, err)
	}
	token, err := os.ReadFile(filepath.Join(v.dir, "token"))
	if err != nil || len(token) == 0 || !slices.ContainsFunc(v.w.api.TokenBytes(), func(b []byte) bool { return bytes.Equal(b, token) }) {
		return fmt.Sprintf("no token, %d bytes, %v", len(token), err)
	}
	return ""
}

func (v volume) awaitWhole(t *testing.T) {
	t.Helper()
	last := ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(last)
		}
	})
	daemontest.Eventually(t, "whole again", func() bool { last = v.fault(); return last == "" })
}

// end deletes the pod and waits until nothing of it is left.
func (v volume) end(t *testing.T) {
	t.Helper()
	check(t, v.w.api.Delete(v.pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	daemontest.Eventually(t, "the pod's directory gone", func() bool {
		_, err := os.Lstat(filepath.Join(v.w.root, "pods", string(v.pod.UID)))
		return os.IsNotExist(err)
	})
}

// awaitRenewals waits until each of the others has another token than now.
func (w *world) awaitRenewals(t *testing.T) {
	t.Helper()
	for _, dir := range w.others {
		before, err := os.ReadFile(filepath.Join(dir, "token"))
		check(t, err)
		daemontest.Eventually(t, "the other pods' renewals", func() bool {
			now, err := os.ReadFile(filepath.Join(dir, "token"))
			check(t, err)
			return !bytes.Equal(now, before)
		})
	}
	if !w.ready() {
		t.Error("not ready")
	}
}

// canary makes a tree beside the root that holds the secret.
func (w *world) canary(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(w.top, "canary-"+name)
	check(t, os.MkdirAll(filepath.Join(dir, "dir"), 0o750))
	for _, file := range []string{"secret", "token", "dir/config"} {
		path := filepath.Join(dir, file)
		check(t, os.WriteFile(path, []byte(w.secret), 0o640))
		if err := unix.Setxattr(path, "user.canary", []byte("x"), 0); err != nil && err != unix.ENOTSUP {
			t.Fatal(err)
		}
	}
	check(t, os.Symlink("secret", filepath.Join(dir, "link")))
	return dir
}

// fingerprint describes everything in a tree. Who has hard links to its files has changed their count and ctime himself: then linked.
func fingerprint(t *testing.T, dir string, linked bool) map[string]string {
	t.Helper()
	tree := make(map[string]string)
	check(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		check(t, syscall.Lstat(path, &st))
		line := fmt.Sprint(st.Ino, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim)
		if !linked {
			line += fmt.Sprint(st.Nlink, st.Ctim)
		}
		attributes := make([]byte, 4096)
		n, _ := unix.Llistxattr(path, attributes)
		line += fmt.Sprintf("%q", attributes[:max(n, 0)])
		if e.Type().IsRegular() {
			data, err := os.ReadFile(path)
			check(t, err)
			line += fmt.Sprintf("%x", sha256.Sum256(data))
		}
		target, _ := os.Readlink(path)
		tree[path] = line + target
		return nil
	}))
	return tree
}

func unchanged(t *testing.T, dir string, linked bool, before map[string]string) {
	t.Helper()
	if after := fingerprint(t, dir, linked); !maps.Equal(after, before) {
		t.Errorf("%s was changed:\n%v\n%v", dir, before, after)
	}
}

// findSecret counts the published files that hold the secret. A hard link that a pod planted is no copy.
func (w *world) findSecret() int {
	found := 0
	filepath.WalkDir(w.root, func(path string, e fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err != nil || !e.Type().IsRegular() || syscall.Lstat(path, &st) != nil || st.Nlink > 1 || st.Size > 1<<20 {
			return nil
		}
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(w.secret)) {
			found++
		}
		return nil
	})
	return found
}

// expectNoSecret searches all that was published and said, and first finds a planted one.
func (w *world) expectNoSecret(t *testing.T) {
	t.Helper()
	planted := filepath.Join(w.others[0], "planted")
	check(t, os.WriteFile(planted, []byte("x"+w.secret), 0o600))
	if w.findSecret() != 1 {
		t.Error("the search misses a planted secret, or there are others")
	}
	check(t, os.Remove(planted))
	if n := w.findSecret(); n > 0 || strings.Contains(w.Output(), w.secret) {
		t.Errorf("the secret is in %d files, in the output: %v", n, strings.Contains(w.Output(), w.secret))
	}
}

// openUp lets the test's clean-up enter what nobody may enter.
func openUp(dir string) {
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
}
