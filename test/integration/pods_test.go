package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// pod makes a pod on the node with the volume that admission injects and the
// given ones.
func (w *world) pod(namespace, name string, volumes ...corev1.Volume) *corev1.Pod {
	w.t.Helper()
	return w.podAs(namespace, name, nil, volumes...)
}

// podAs is pod with a security context.
func (w *world) podAs(namespace, name string, context *corev1.PodSecurityContext, volumes ...corev1.Volume) *corev1.Pod {
	w.t.Helper()
	if err := w.api.AddNamespace(namespace); err != nil {
		w.t.Fatal(err)
	}
	pod, err := fakeapi.Create(w.api, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			NodeName: node, Volumes: volumes, SecurityContext: context, TerminationGracePeriodSeconds: new(int64(30)),
			Containers: []corev1.Container{{Name: "main", Image: "scratch"}},
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return pod
}

func tokenVolume(name, audience string, ttl int64) corev1.Volume {
	return volume(name, corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
		Audience: audience, ExpirationSeconds: &ttl, Path: "token",
	}})
}

func volume(name string, sources ...corev1.VolumeProjection) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		Projected: &corev1.ProjectedVolumeSource{Sources: sources},
	}}
}

// path is where a file of a pod's volume is published.
func (w *world) path(pod *corev1.Pod, volume, file string) string {
	return filepath.Join(w.root, "pods", string(pod.UID), "volumes", "kubernetes.io~projected", volume, file)
}

// apiVolume is the name of the injected volume.
func apiVolume(pod *corev1.Pod) string {
	for _, v := range pod.Spec.Volumes {
		if len(v.Name) > 16 && v.Name[:16] == "kube-api-access-" {
			return v.Name
		}
	}
	return ""
}

// tokens are the paths of all token files of a pod.
func (w *world) tokens(pod *corev1.Pod) []string {
	var paths []string
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				paths = append(paths, w.path(pod, v.Name, s.ServiceAccountToken.Path))
			}
		}
	}
	return paths
}

func (w *world) waitPublished(pods ...*corev1.Pod) {
	w.t.Helper()
	for _, pod := range pods {
		for _, path := range w.tokens(pod) {
			eventually(w.t, path, func() bool { _, err := os.Stat(path); return err == nil })
		}
	}
}

// waitRenewed waits until every token file of the pods holds other bytes than before.
func (w *world) waitRenewed(before map[string][]byte, pods ...*corev1.Pod) {
	w.t.Helper()
	for _, pod := range pods {
		for _, path := range w.tokens(pod) {
			eventually(w.t, "renewal of "+path, func() bool {
				now, err := os.ReadFile(path)
				return err == nil && !bytes.Equal(now, before[path])
			})
		}
	}
}

func (w *world) contents(pods ...*corev1.Pod) map[string][]byte {
	w.t.Helper()
	all := make(map[string][]byte)
	for _, pod := range pods {
		for _, path := range w.tokens(pod) {
			data, err := os.ReadFile(path)
			if err != nil {
				w.t.Fatal(err)
			}
			all[path] = data
		}
	}
	return all
}

// reader polls token files by name, as a container does, until stop.
type reader struct {
	now     func() time.Time // the server's time
	mu      sync.Mutex
	faults  []string
	seen    map[string]map[string]bool // path → distinct tokens
	stopped chan struct{}
	ended   sync.WaitGroup
}

func startReader(now func() time.Time, paths ...string) *reader {
	r := &reader{now: now, seen: make(map[string]map[string]bool), stopped: make(chan struct{})}
	r.ended.Go(func() {
		for {
			for _, p := range paths {
				r.read(p)
			}
			select {
			case <-r.stopped:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	return r
}

// read opens the file and notes a fault unless it holds a good token.
func (r *reader) read(path string) {
	data, err := os.ReadFile(path)
	fault := ""
	if err != nil {
		fault = err.Error()
	} else if c, err := projector.ParseClaims(data); err != nil {
		fault = fmt.Sprintf("%s: %v", path, err)
	} else if now := r.now(); c.Lifetime.Expired(now) {
		fault = fmt.Sprintf("%s: expired %v ago", path, now.Sub(c.Lifetime.Expires))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if fault != "" {
		r.faults = append(r.faults, fault)
	}
	if r.seen[path] == nil {
		r.seen[path] = make(map[string]bool)
	}
	r.seen[path][string(data)] = true
}

// stop ends the reading and fails the test if any read was bad.
func (r *reader) stop(t *testing.T) {
	t.Helper()
	close(r.stopped)
	r.ended.Wait()
	if len(r.faults) > 0 {
		t.Errorf("%d bad reads, first: %s", len(r.faults), r.faults[0])
	}
}

// rotations is the least number of times any file was renewed.
func (r *reader) rotations() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	least := -1
	for _, tokens := range r.seen {
		if n := len(tokens) - 1; least < 0 || n < least {
			least = n
		}
	}
	return least
}

// atOnce deletes at once, as a kubelet does when the containers have ended.
func atOnce() metav1.DeleteOptions {
	return metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}
}
