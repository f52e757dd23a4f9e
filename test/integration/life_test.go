package integration

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// TestPodLife follows a pod from its creation to its end.
func TestPodLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	d := w.start()
	d.waitReady()
	pod := w.pod("demo", "web", tokenVolume("vault", "vault", 7200))
	w.waitPublished(pod)

	volume := apiVolume(pod)
	ca, err := os.ReadFile(w.path(pod, volume, "ca.crt"))
	if err != nil || string(ca) != string(w.api.CA()) {
		t.Errorf("ca.crt: %v, %d bytes", err, len(ca))
	}
	if ns, err := os.ReadFile(w.path(pod, volume, "namespace")); string(ns) != "demo" {
		t.Errorf("namespace: %q, %v", ns, err)
	}
	token, err := os.ReadFile(w.path(pod, "vault", "token"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := projector.ParseClaims(token)
	if err != nil || c.Subject != "system:serviceaccount:demo:default" || c.PodUID != pod.UID ||
		len(c.Audience) != 1 || c.Audience[0] != "vault" || c.Lifetime.TTL() != 2*time.Hour {
		t.Errorf("claims: %+v, %v", c, err)
	}
	checkModes(t, w, pod)
	eventually(t, "two fresh tokens", func() bool { return d.metric("token_projector_tokens", "state", "fresh") == 2 })
	eventually(t, "two ready volumes", func() bool { return d.metric("token_projector_volumes", "state", "ready") == 2 })
	if got := d.metric("token_projector_root_lock_held"); got != 1 {
		t.Errorf("root_lock_held: %v", got)
	}
	if err := w.api.Delete(pod, atOnce()); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(w.root, "pods", string(pod.UID))
	eventually(t, "removal of the pod's directory", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
	d.Terminate()
}

// checkModes compares the modes on disk with the layout's.
func checkModes(t *testing.T, w *world, pod *corev1.Pod) {
	t.Helper()
	podDir := filepath.Join(w.root, "pods", string(pod.UID))
	for path, want := range map[string]fs.FileMode{
		w.root:                           0o700,
		filepath.Join(w.root, "pods"):    0o700,
		podDir:                           0o700,
		filepath.Join(podDir, "volumes"): 0o755,
		w.path(pod, "vault", ""):         0o755,
		w.path(pod, "vault", "token"):    0o644,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
	}
}

// TestRotation watches tokens of ten seconds being renewed while a reader polls.
func TestRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{MaxTokenExpiration: 10 * time.Second})
	d := w.start()
	var paths []string
	for _, name := range []string{"a", "b", "c"} {
		pod := w.pod("demo", name, tokenVolume("vault", "vault", 600))
		w.waitPublished(pod)
		paths = append(paths, w.tokens(pod)...)
	}
	r := startReader(time.Now, paths...)
	eventually(t, "three rotations of every token", func() bool { return r.rotations() >= 3 })
	r.stop(t)
	eventually(t, "a lateness of every refresh", func() bool {
		observed := d.metric("token_projector_refresh_lateness_seconds")
		granted := d.metric("token_projector_token_requests_total", "code", "201")
		return observed >= float64(3*len(paths)) && observed == granted-float64(len(paths))
	})
	// The reader's own eyes: an expired token and a missing file must not escape it.
	blind := startReader(func() time.Time { return time.Now().Add(time.Minute) }, paths[0], paths[0]+"-none")
	eventually(t, "planted faults", func() bool {
		blind.mu.Lock()
		defer blind.mu.Unlock()
		all := strings.Join(blind.faults, "\n")
		return strings.Contains(all, "expired") && strings.Contains(all, "no such file")
	})
	close(blind.stopped)
	blind.ended.Wait()
	d.Terminate()
}

// snapshot describes every entry below dir by what a rewrite would change.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		link, _ := os.Readlink(path)
		tree[path] = strings.Join([]string{
			info.Mode().String(), info.ModTime().String(), time.Unix(st.Ctim.Unix()).String(), link,
		}, " ")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestRestart kills the daemon and starts it again: nothing is requested and
// nothing rewritten, whatever the local clock is worth.
func TestRestart(t *testing.T) {
	for name, skew := range map[string]time.Duration{"same": 0, "server ahead": 3 * time.Hour, "server behind": -3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeapi.Options{Now: func() time.Time { return time.Now().Add(skew) }})
			d := w.start()
			pods := []*corev1.Pod{w.pod("demo", "a", tokenVolume("vault", "vault", 600)), w.pod("other", "b")}
			w.waitPublished(pods...)
			eventually(t, "ready volumes", func() bool { return d.metric("token_projector_volumes", "state", "ready") == 3 })
			d.Kill()
			if len(w.api.Requests(fakeapi.TokenRequests)) != 3 {
				t.Fatalf("%d token requests before the restart, want 3", len(w.api.Requests(fakeapi.TokenRequests)))
			}
			w.api.ForgetRequests()
			before := snapshot(t, filepath.Join(w.root, "pods"))
			d = w.start()
			d.waitReady()
			eventually(t, "adoption", func() bool { return d.metric("token_projector_adopted_tokens_total") == 3 })
			eventually(t, "ready volumes", func() bool { return d.metric("token_projector_volumes", "state", "ready") == 3 })
			// The objects' watches are the last that could cause a rewrite.
			eventually(t, "configMap watches", func() bool {
				return len(w.api.Requests(fakeapi.Match{Verb: "watch", Resource: "configmaps"})) == 2
			})
			d.Terminate()
			if n := len(w.api.Requests(fakeapi.TokenRequests)); n != 0 {
				t.Errorf("%d token requests after the restart", n)
			}
			if diff := cmp.Diff(before, snapshot(t, filepath.Join(w.root, "pods"))); diff != "" {
				t.Errorf("rewritten (-before +after):\n%s", diff)
			}
		})
	}
}

// TestTerminating: a pod that takes its time to stop keeps getting fresh tokens.
func TestTerminating(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{MaxTokenExpiration: 10 * time.Second})
	d := w.start()
	pod := w.pod("demo", "slow")
	w.waitPublished(pod)
	if err := w.api.Delete(pod, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r := startReader(time.Now, w.tokens(pod)...)
	eventually(t, "two rotations while terminating", func() bool { return r.rotations() >= 2 })
	r.stop(t)
	if err := w.api.Delete(pod, atOnce()); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(w.root, "pods", string(pod.UID))
	eventually(t, "removal", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
	d.Terminate()
}

// TestStandby: a second daemon on the same root waits, Ready, and takes over.
func TestStandby(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	first := w.start()
	pod := w.pod("demo", "web")
	w.waitPublished(pod)
	second := w.start()
	second.Line("another process holds the root; standing by")
	second.waitReady()
	if got := second.metric("token_projector_root_lock_held"); got != 0 {
		t.Errorf("standby says root_lock_held %v", got)
	}
	first.Kill()
	second.Line("pod list complete")
	eventually(t, "adoption", func() bool { return second.metric("token_projector_adopted_tokens_total") == 1 })
	if n := len(w.api.Requests(fakeapi.TokenRequests)); n != 1 {
		t.Errorf("%d token requests, want the first one alone", n)
	}
	second.Terminate()
}

// TestRootReplaced: the root is deleted, or made anew, under a running daemon and a
// standby; one of them takes the new one.
func TestRootReplaced(t *testing.T) {
	for name, replace := range map[string]func(root string) error{
		"deleted": os.RemoveAll,
		"made anew": func(root string) error {
			if err := os.Rename(root, root+"-old"); err != nil {
				return err
			}
			return os.Mkdir(root, 0o755)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeapi.Options{})
			w.root = filepath.Join(w.root, "root")
			first := w.start()
			pod := w.pod("demo", "web")
			w.waitPublished(pod)
			second := w.start()
			second.Line("another process holds the root; standing by")
			before := w.contents(pod)
			check(t, replace(w.root))
			w.waitRenewed(before, pod)
			eventually(t, "one holder of the lock and one standby", func() bool {
				return first.metric("token_projector_root_lock_held")+second.metric("token_projector_root_lock_held") == 1 &&
					first.probe("/readyz") == http.StatusOK && second.probe("/readyz") == http.StatusOK
			})
			later := w.pod("demo", "later")
			w.waitPublished(later)
			first.Terminate()
			second.Terminate()
		})
	}
}

// TestUnsupported: a volume that cannot be projected is a visible error and
// touches no neighbour.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	d := w.start()
	v := tokenVolume("mixed", "vault", 600)
	v.Projected.Sources = append(v.Projected.Sources, corev1.VolumeProjection{
		PodCertificate: &corev1.PodCertificateProjection{SignerName: "example.com/signer", KeyType: "ED25519", CredentialBundlePath: "bundle.pem"},
	})
	pod := w.pod("demo", "web", v)
	path := w.path(pod, apiVolume(pod), "token")
	eventually(t, "the neighbour", func() bool { _, err := os.Stat(path); return err == nil })
	eventually(t, "a visible error", func() bool {
		return d.metric("token_projector_volume_errors", "reason", "Unsupported") == 1
	})
	if got := d.metric("token_projector_volumes", "state", "failed"); got != 1 {
		t.Errorf("failed volumes: %v, want 1", got)
	}
	eventually(t, "an event", func() bool {
		events, err := fakeapi.List[*corev1.Event](w.api, "demo")
		check(t, err)
		return len(events) == 1 && events[0].Reason == "ProjectionFailed" && strings.Contains(events[0].Message, "podCertificate is not supported")
	})
	if d.probe("/readyz") != http.StatusOK {
		t.Error("one failing volume makes the daemon unready")
	}
	d.Terminate()
}

// settings is an object with one key, as a configMap or as a secret.
type settings struct {
	source func(name string) corev1.VolumeProjection
	create func(w *world, value string) error
	update func(w *world, value string) error
	delete func(w *world) error
}

func settingsKinds() map[string]settings {
	meta := metav1.ObjectMeta{Namespace: "demo", Name: "settings"}
	named := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	configMap := func(v string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"colour": v}}
	}
	secret := func(v string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"colour": []byte(v)}}
	}
	return map[string]settings{
		"configMap": {
			func(name string) corev1.VolumeProjection {
				return corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named(name)}}
			},
			func(w *world, v string) error { _, err := fakeapi.Create(w.api, configMap(v)); return err },
			func(w *world, v string) error { _, err := fakeapi.Update(w.api, configMap(v)); return err },
			func(w *world) error { return w.api.Delete(configMap(""), metav1.DeleteOptions{}) },
		},
		"secret": {
			func(name string) corev1.VolumeProjection {
				return corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: named(name)}}
			},
			func(w *world, v string) error { _, err := fakeapi.Create(w.api, secret(v)); return err },
			func(w *world, v string) error { _, err := fakeapi.Update(w.api, secret(v)); return err },
			func(w *world) error { return w.api.Delete(secret(""), metav1.DeleteOptions{}) },
		},
	}
}

// TestObjectSources: the first version waits for every source; changes follow;
// a later version keeps what a failing source gave.
func TestObjectSources(t *testing.T) {
	for name, kind := range settingsKinds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeapi.Options{MaxTokenExpiration: 5 * time.Second})
			d := w.start()
			token := corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(600))}}
			pod := w.pod("demo", "web", volume("mixed", token, kind.source("settings")))
			eventually(t, "a visible error", func() bool {
				return d.metric("token_projector_volume_errors", "reason", "ObjectMissing") == 1
			})
			if _, err := os.Stat(w.path(pod, "mixed", "token")); !os.IsNotExist(err) {
				t.Errorf("half a volume was published: %v", err)
			}
			colour := w.path(pod, "mixed", "colour")
			is := func(want string) func() bool {
				return func() bool { data, _ := os.ReadFile(colour); return string(data) == want }
			}
			check(t, kind.create(w, "blue"))
			w.waitPublished(pod)
			eventually(t, "the key", is("blue"))
			check(t, kind.update(w, "green"))
			eventually(t, "the changed key", is("green"))
			check(t, kind.delete(w))
			w.waitRenewed(w.contents(pod), pod)
			if !is("green")() {
				t.Error("the last bytes of a deleted object are gone")
			}
			check(t, kind.create(w, "red"))
			eventually(t, "the key of the object made again", is("red"))
			d.Terminate()
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestRepair: whatever somebody does to a volume's files is undone.
func TestRepair(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	d := w.start()
	pod := w.pod("demo", "web")
	w.waitPublished(pod)
	eventually(t, "ready volume", func() bool { return d.metric("token_projector_volumes", "state", "ready") == 1 })
	file := func(name string) string { return w.path(pod, apiVolume(pod), name) }
	for _, harm := range []struct {
		name string
		do   func() error
	}{
		{"link removed", func() error { return os.Remove(file("token")) }},
		{"link replaced by a file", func() error { return os.Rename(must(os.CreateTemp(w.root, "x")), file("ca.crt")) }},
		{"file altered", func() error { return os.WriteFile(file("ca.crt"), []byte("evil"), 0o644) }},
		{"file chmodded", func() error { return os.Chmod(file("token"), 0o666) }},
		{"file replaced by a FIFO", func() error {
			if err := os.Remove(file("..data/namespace")); err != nil {
				return err
			}
			return syscall.Mkfifo(file("..data/namespace"), 0o644)
		}},
		{"data link removed", func() error { return os.Remove(file("..data")) }},
		{"version emptied", func() error { return os.RemoveAll(file("..data/")) }},
	} {
		repaired := d.metric("token_projector_repairs_total")
		if err := harm.do(); err != nil {
			t.Fatalf("%s: %v", harm.name, err)
		}
		eventually(t, harm.name+": counted", func() bool { return d.metric("token_projector_repairs_total") > repaired })
		eventually(t, harm.name+": repaired", func() bool {
			info, err := os.Stat(file("token"))
			ca, _ := os.ReadFile(file("ca.crt"))
			ns, nerr := os.Lstat(file("..data/namespace"))
			return err == nil && info.Mode().Perm() == 0o644 && info.Size() > 0 &&
				string(ca) == string(w.api.CA()) && nerr == nil && ns.Mode().IsRegular()
		})
	}
	d.Terminate()
}

func must(f *os.File, err error) string {
	if err != nil {
		panic(err)
	}
	defer f.Close()
	return f.Name()
}
