//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

const (
	// promptly is within which what was at fault is right again: the daemon looks for that each 5 s, and sweeps in a minute at the earliest.
	promptly = 30 * time.Second

	onset  = `"msg":"work on the root fails; `
	end    = `"msg":"work on the root no longer fails"`
	others = `"msg":"volume is ` // not as wanted, or in order again
)

// node is a daemon on a root of its own.
type node struct {
	*daemontest.Process
	t    *testing.T
	api  *fakeapi.Server
	root string
}

func newNode(t *testing.T, root string) *node {
	t.Helper()
	api, err := fakeapi.Start(fakeapi.Options{NoAPIAccessVolume: true})
	check(t, err)
	t.Cleanup(api.Close)
	check(t, api.AddNamespace("demo"))
	return &node{t: t, api: api, root: root}
}

func (n *node) start() { n.Process = daemontest.Start(n.t, n.api, n.root) }

// pod makes a pod with one token volume and returns the token's path.
func (n *node) pod(name string) string {
	n.t.Helper()
	pod, err := fakeapi.Create(n.api, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name},
		Spec: corev1.PodSpec{
			NodeName: daemontest.Node, Containers: []corev1.Container{{Name: "main", Image: "scratch"}},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
					Audience: "a", ExpirationSeconds: new(int64(7200)), Path: "token"}}},
			}}}},
		},
	})
	check(n.t, err)
	return filepath.Join(n.root, "pods", string(pod.UID), "volumes", "kubernetes.io~projected", "v", "token")
}

// measure waits until ok and returns after how long.
func (n *node) measure(what string, ok func() bool) time.Duration {
	n.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > 2*time.Minute {
			n.t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond) // what it waits for happens in another process
	}
	return time.Since(began).Round(time.Millisecond)
}

func (n *node) published(path string) func() bool {
	return func() bool { b, err := os.ReadFile(path); return err == nil && len(b) > 0 }
}

func (n *node) allPublished(paths []string) func() bool {
	return func() bool {
		return !slices.ContainsFunc(paths, func(path string) bool { return !n.published(path)() })
	}
}

// shows reports whether the daemon exposes that very sample.
func (n *node) shows(sample string) func() bool {
	return func() bool { return strings.Contains(scrape(n.t, n.Metrics), "\n"+sample+"\n") }
}

func (n *node) expectLines(text string, want int) {
	n.t.Helper()
	count := func() int { return strings.Count(n.Output(), text) }
	n.measure(fmt.Sprintf("%d log lines with %s", want, text), func() bool { return count() >= want })
	if got := count(); got != want {
		n.t.Errorf("%d log lines with %s, want %d", got, text, want)
	}
}

// fill makes files until the file system has no room.
func fill(dir string, size int) error {
	for i := 0; ; i++ {
		err := os.WriteFile(filepath.Join(dir, fmt.Sprint("ballast", i)), make([]byte, size), 0o600)
		if errors.Is(err, unix.ENOSPC) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func empty(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "ballast*"))
	for _, f := range files {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

func remount(flags uintptr) func(string) error {
	return func(dir string) error { return unix.Mount("", dir, "", unix.MS_REMOUNT|flags, "") }
}

// TestBadDisk: the root's file system is full, in bytes or in inodes, or read-only, for longer than the first retries take.
// A hundred pods that come meanwhile are told of in a metric, and in one log line; tokens that are there stay, also when the
// daemon starts anew; and seconds after the disk is good again everything is there, which is another line.
func TestBadDisk(t *testing.T) {
	for name, tt := range map[string]struct {
		options    string
		spoil, fix func(root string) error
	}{
		"no bytes":  {"size=2m", func(root string) error { return fill(root, 4096) }, empty},
		"no inodes": {"nr_inodes=2000", func(root string) error { return fill(root, 0) }, empty},
		"read-only": {"size=2m", remount(unix.MS_RDONLY), remount(0)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, t.TempDir())
			check(t, unix.Mount("tmpfs", n.root, "tmpfs", 0, tt.options))
			t.Cleanup(func() { check(t, unix.Unmount(n.root, unix.MNT_DETACH)) })
			n.start()
			old := n.pod("old")
			n.measure("the first token", n.published(old))
			token, err := os.ReadFile(old)
			check(t, err)

			check(t, tt.spoil(n.root))
			late := []string{n.pod("late-0")}
			told := n.measure("the metric", n.shows(`token_projector_volume_errors{reason="DiskFailed"} 1`))
			for i := range 99 {
				late = append(late, n.pod(fmt.Sprint("late-", i+1)))
			}
			n.measure("the metric", n.shows(`token_projector_volume_errors{reason="DiskFailed"} 100`))
			n.expectLines(onset, 1)
			n.expectLines(others, 0)
			again := n.restarted(old, token)
			time.Sleep(20 * time.Second) // the fault's length: retries grow apart

			n.expectLines(end, 0)
			check(t, tt.fix(n.root))
			whole := n.measure("the late pods' tokens", n.allPublished(late))
			n.measure("recovery in the metrics", n.shows(`token_projector_volumes{state="ready"} 101`))
			n.expectLines(onset, 1)
			n.expectLines(end, 1)
			n.expectLines(others, 0)
			n.expectToken(old, token)
			if whole > promptly {
				t.Errorf("whole again after %v", whole)
			}
			t.Logf("in the metrics after %v; adopted by a new daemon after %v; whole %v after the end", told, again, whole)
			n.Terminate()
		})
	}
}

// restarted kills the daemon and starts another, which must adopt what is there.
func (n *node) restarted(old string, token []byte) time.Duration {
	n.t.Helper()
	n.Kill()
	n.expectToken(old, token)
	n.start()
	took := n.measure("adoption", n.shows(`token_projector_adopted_tokens_total 1`))
	n.measure("the metric", n.shows(`token_projector_volume_errors{reason="DiskFailed"} 100`))
	n.expectToken(old, token)
	return took
}

func (n *node) expectToken(path string, want []byte) {
	n.t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		n.t.Errorf("a token that was there is another one: %v", err)
	}
}
