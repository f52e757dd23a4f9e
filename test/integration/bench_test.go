package integration

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

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
	client, err := kubernetes.NewForConfig(api.RESTConfig())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		projectAll(b, client, pods)
	}
	b.ReportMetric(float64(pods*b.N)/b.Elapsed().Seconds(), "pods/s")
}

// projectAll runs a Projector on a fresh root until that many volumes are published.
func projectAll(b *testing.B, client kubernetes.Interface, volumes int) {
	b.StopTimer()
	dir, err := os.MkdirTemp("/dev/shm", "token-projector-bench-")
	if err != nil {
		dir = b.TempDir()
	}
	defer os.RemoveAll(dir)
	root, err := projector.OpenRoot(b.Context(), dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	all := make(chan struct{})
	p, err := projector.New(projector.Config{
		NodeName: node, Root: root, Client: client,
		Mint: projector.NewMint(client.CoreV1().RESTClient(), 10*time.Second),
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
