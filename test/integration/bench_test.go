package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// BenchmarkThousandPods measures 1,000 pods, each with the injected volume of
// three files, from the first informer event to the last file on disk, with
// the fake API server in the same process.
func BenchmarkThousandPods(b *testing.B) {
	const pods = 1000
	api, err := fakeapi.Start(fakeapi.Options{Node: node, Forgetful: true})
	if err != nil {
		b.Fatal(err)
	}
	defer api.Close()
	for i := range pods {
		_, err := fakeapi.Create(api, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("pod-", i)},
			Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "scratch"}}},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	client, err := projector.NewClient(api.RESTConfig())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		projectAll(b, client, pods)
	}
	b.ReportMetric(float64(pods*b.N)/b.Elapsed().Seconds(), "pods/s")
}

// projectAll runs a Projector on a fresh root until that many volumes are published.
func projectAll(b *testing.B, client *projector.Client, volumes int) {
	b.StopTimer()
	dir := benchDir(b)
	defer os.RemoveAll(dir)
	root, err := projector.OpenRoot(b.Context(), dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	all := make(chan struct{})
	p, err := projector.New(projector.Config{
		NodeName: node, Root: root, Client: client,
		Mint: projector.NewMint(client.Core, 10*time.Second),
		Published: func(projector.Published) {
			if volumes--; volumes == 0 {
				close(all)
			}
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	b.StartTimer()
	go func() { ended <- p.Run(ctx) }()
	<-all
	b.StopTimer()
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	b.StartTimer()
}

// benchDir is a fresh directory, in memory if the machine has such a place.
func benchDir(b *testing.B) string {
	dir, err := os.MkdirTemp("/dev/shm", "token-projector-bench-")
	if err != nil {
		return b.TempDir()
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// BenchmarkChangedWish measures from the moment something that a running pod's volume is made of has changed on the API
// server to the new version's swap on disk, among a hundred other pods.
func BenchmarkChangedWish(b *testing.B) {
	meta := metav1.ObjectMeta{Namespace: "default", Name: "settings"}
	for name, change := range map[string]func(b *benchWorld, i int) error{
		"configMap": func(w *benchWorld, i int) error {
			_, err := fakeapi.Update(w.api, &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"k": fmt.Sprint(i)}})
			return err
		},
		"secret": func(w *benchWorld, i int) error {
			_, err := fakeapi.Update(w.api, &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"s": fmt.Append(nil, i)}})
			return err
		},
		"trustBundle": func(w *benchWorld, i int) error {
			_, err := fakeapi.Update(w.api, trustBundle("example.com:signer:one", fmt.Sprint(i), nil))
			return err
		},
		"label": func(w *benchWorld, i int) error {
			w.pod.Labels = map[string]string{"i": fmt.Sprint(i)}
			return w.update()
		},
		"ephemeralContainer": func(w *benchWorld, i int) error { // its user is, and is not, that of the others
			c := corev1.EphemeralContainer{}
			c.Name, c.Image, c.SecurityContext = "debug", "scratch", &corev1.SecurityContext{RunAsUser: new(int64(i % 2))}
			w.pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{c}
			return w.update()
		},
	} {
		b.Run(name, func(b *testing.B) { benchmarkChange(b, change) })
	}
}

// benchWorld is an API server with a pod of every kind of source, and a Projector that has published it.
type benchWorld struct {
	api       *fakeapi.Server
	pod       *corev1.Pod
	published chan struct{}
}

func (w *benchWorld) update() error {
	w.pod.ResourceVersion = ""
	_, err := fakeapi.Update(w.api, w.pod)
	return err
}

func benchmarkChange(b *testing.B, change func(*benchWorld, int) error) {
	w := newBenchWorld(b, 100)
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		begin := time.Now()
		if err := change(w, i+1); err != nil {
			b.Fatal(err)
		}
		<-w.published
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
}

func newBenchWorld(b *testing.B, others int) *benchWorld {
	api, err := fakeapi.Start(fakeapi.Options{Node: node, Forgetful: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(api.Close)
	w := &benchWorld{api: api, published: make(chan struct{}, 1)}
	if w.pod, err = w.create(others); err != nil {
		b.Fatal(err)
	}
	root, err := projector.OpenRoot(b.Context(), benchDir(b), nil)
	if err != nil {
		b.Fatal(err)
	}
	client, err := projector.NewClient(api.RESTConfig())
	if err != nil {
		b.Fatal(err)
	}
	p, err := projector.New(projector.Config{
		NodeName: node, Root: root, Client: client, Mint: projector.NewMint(client.Core, 10*time.Second),
		Published: func(p projector.Published) {
			if p.Key == (projector.Key{PodUID: w.pod.UID, Volume: "v"}) {
				w.published <- struct{}{}
			}
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, root.Close()); err != nil {
			b.Error(err)
		}
	})
	<-w.published
	return w
}

// create makes the pod, all that its volume is made of, and others.
func (w *benchWorld) create(others int) (*corev1.Pod, error) {
	meta := metav1.ObjectMeta{Namespace: "default", Name: "settings"}
	_, cerr := fakeapi.Create(w.api, &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"k": "0"}})
	_, serr := fakeapi.Create(w.api, &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"s": []byte("0")}})
	_, berr := fakeapi.Create(w.api, trustBundle("example.com:signer:one", "0", nil))
	if err := errors.Join(cerr, serr, berr); err != nil {
		return nil, err
	}
	named := corev1.LocalObjectReference{Name: "settings"}
	v := tokenVolume("v", "vault", 3600)
	v.Projected.Sources = append(v.Projected.Sources,
		corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named}},
		corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: named}},
		corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: new("example.com:signer:one"), Path: "roots.pem"}},
		corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}})
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "scratch"}},
		SecurityContext: &corev1.PodSecurityContext{RunAsUser: new(int64(0))},
	}}
	for i := range others {
		pod.ObjectMeta = metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("other-", i)}
		if _, err := fakeapi.Create(w.api, pod); err != nil {
			return nil, err
		}
	}
	pod.Name, pod.Spec.Volumes = "changing", []corev1.Volume{v}
	return fakeapi.Create(w.api, pod)
}
