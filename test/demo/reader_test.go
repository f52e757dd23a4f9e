package main

import (
	"bytes"
	"context"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/token-projector/token-projector/test/fakeapi"
)

func podWithToken() *corev1.Pod {
	source := corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web", UID: types.UID(uid)},
		Spec: corev1.PodSpec{NodeName: nodeName, Volumes: []corev1.Volume{
			{Name: "scratch"},
			{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{}}, source},
			}}},
		}},
	}
}

// scene is one pod that is in the API and whose token is on disk and was read.
func scene(t *testing.T) (r *reader, client *fake.Clientset, file string, printed *bytes.Buffer) {
	t.Helper()
	pod := podWithToken()
	client, printed = fake.NewClientset(pod), &bytes.Buffer{}
	r = newReader(client, t.TempDir(), log.New(printed, "", 0))
	r.apply(podEvent{pod: pod, initial: true}, time.Now())
	if len(r.tracks) != 1 {
		t.Fatalf("%d tracks, want 1", len(r.tracks))
	}
	file = filepath.Join(r.volumeDir(r.tracks[0]), "token")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, jwt(time.Now()), 0o600); err != nil {
		t.Fatal(err)
	}
	r.readAll(context.Background())
	if !strings.Contains(printed.String(), "appeared demo/web v/token") {
		t.Fatalf("printed %q", printed)
	}
	return r, client, file, printed
}

func TestFailedReadOfALivePodIsAnError(t *testing.T) {
	r, _, file, printed := scene(t)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	r.readAll(context.Background())
	if n := r.tracks[0].faults[missing]; n != 1 || !strings.Contains(printed.String(), "ERROR") {
		t.Errorf("%d missing, printed %q", n, printed)
	}
	if _, err := r.conclude(0); err == nil || !strings.Contains(err.Error(), string(missing)) {
		t.Errorf("the conclusion is %v", err)
	}
}

func TestFailedReadOfADeletedPodIsItsEnd(t *testing.T) {
	for name, replaced := range map[string]bool{"gone": false, "the same name again": true} {
		t.Run(name, func(t *testing.T) {
			r, client, file, printed := scene(t)
			pods := client.CoreV1().Pods("demo")
			if err := pods.Delete(context.Background(), "web", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if replaced {
				next := podWithToken()
				next.UID = "another"
				if _, err := pods.Create(context.Background(), next, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			r.readAll(context.Background())
			if r.tracks[0].until.IsZero() || len(r.tracks[0].faults) != 0 {
				t.Errorf("printed %q", printed)
			}
			r.readAll(context.Background())
			if n := strings.Count(printed.String(), "ended "); n != 1 {
				t.Errorf("the end of the pod is told %d times: its file is still read", n)
			}
		})
	}
}

func TestPodsBeginAndEndTracks(t *testing.T) {
	r, _, _, printed := scene(t)
	now := time.Now()
	terminating := podWithToken()
	terminating.DeletionTimestamp = &metav1.Time{Time: now.Add(-59 * time.Second)}
	r.apply(podEvent{pod: terminating}, now)
	if !r.tracks[0].until.IsZero() {
		t.Error("a terminating pod's tokens are no longer read")
	}
	r.apply(podEvent{pod: terminating}, now.Add(2*time.Second))
	if r.tracks[0].until.IsZero() {
		t.Error("61 s after its deletionTimestamp the pod's tokens are still demanded")
	}
	r.apply(podEvent{pod: terminating, ended: true}, now.Add(3*time.Second))
	if n := strings.Count(printed.String(), "ended "); n != 1 {
		t.Errorf("its end is told %d times, want 1", n)
	}
	done := podWithToken()
	done.UID, done.Status.Phase = "done", corev1.PodSucceeded
	r.apply(podEvent{pod: done}, now)
	if len(r.tracks) != 1 {
		t.Error("a finished pod's tokens are demanded")
	}
}

func TestLsIsShownOnce(t *testing.T) {
	r, _, _, printed := scene(t)
	r.readAll(context.Background())
	if n := strings.Count(printed.String(), "ls  "); n != 1 || !strings.Contains(printed.String(), "\n         token\n") {
		t.Errorf("shown %d times: %q", n, printed)
	}
	token, err := os.ReadFile(filepath.Join(r.volumeDir(r.tracks[0]), "token"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(printed.String(), string(token)) {
		t.Error("the token is printed")
	}
}

// The server must let the node ask after a pod, one that is gone as well: the
// Node authorizer forbids it to get that one.
func TestPodAliveIsAskedAsTheNode(t *testing.T) {
	server, err := fakeapi.Start(fakeapi.Options{Node: nodeName})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	config, err := server.UserConfig("system:node:"+nodeName, "system:nodes")
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	pod, err := fakeapi.Create(server, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       corev1.PodSpec{NodeName: nodeName, Containers: []corev1.Container{{Name: "app", Image: "example.com/app"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, tr := newReader(client, t.TempDir(), nil), &track{pod: "default/web", uid: string(pod.UID)}
	if alive, err := r.podAlive(t.Context(), tr); err != nil || !alive {
		t.Errorf("a pod that is there: alive %v, %v", alive, err)
	}
	if err := server.Delete(pod, *metav1.NewDeleteOptions(0)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("get a pod that is gone: %v, want: forbidden", err)
	}
	if alive, err := r.podAlive(t.Context(), tr); err != nil || alive {
		t.Errorf("a pod that is gone: alive %v, %v", alive, err)
	}
}
