package projector_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/rotation"
)

// mint stands for a client of an API server; projector.NewMint makes a real one.
func mint(_ context.Context, r projector.Request) (projector.Minted, error) {
	now := time.Now().Truncate(time.Second)
	return projector.Minted{
		Token:      projector.NewToken("a token for " + r.Audience),
		Lifetime:   rotation.Lifetime{Issued: now, Expires: now.Add(time.Duration(r.ExpirationSeconds) * time.Second)},
		ServerTime: now,
	}, nil
}

// webPod has one volume, vault, with one token.
func webPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "8c2f"},
		Spec: corev1.PodSpec{ServiceAccountName: "web", Volumes: []corev1.Volume{{Name: "vault", VolumeSource: corev1.VolumeSource{
			Projected: &corev1.ProjectedVolumeSource{DefaultMode: new(int32(0o444)), Sources: []corev1.VolumeProjection{{
				ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault", ExpirationSeconds: new(int64(3600)), Path: "token"},
			}}},
		}}}},
	}
}

// start runs a Projector on the root at dir; end ends it and waits for it.
func start(dir string, c projector.Config) (p *projector.Projector, end func() error) {
	root, err := projector.OpenRoot(context.Background(), dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	c.NodeName, c.Root, c.Mint = "node-1", root, mint
	if p, err = projector.New(c); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	return p, func() error {
		cancel()
		return errors.Join(<-ended, root.Close())
	}
}

func tempDir() string {
	dir, err := os.MkdirTemp("", "token-projector-example-")
	if err != nil {
		log.Fatal(err)
	}
	return dir
}

// A provider that has an informer of its own feeds the Projector by hand, and waits for a pod's
// volumes before it starts the pod's containers.
func Example() {
	dir := tempDir()
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	root, err := projector.OpenRoot(ctx, dir, nil) // waits for the lock
	if err != nil {
		log.Fatal(err)
	}
	defer root.Close()
	p, err := projector.New(projector.Config{
		NodeName: "node-1", Root: root, Mint: mint,
		Published: func(v projector.Published) { fmt.Println("published", v.Key.Volume) },
	})
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()

	pod := webPod()
	p.Replace([]projector.Wish{projector.Desired(pod, projector.SelectAll)}) // the complete list, once
	if err := p.WaitReady(ctx, pod.UID); err != nil {
		fmt.Println("the pod cannot start:", err)
	}
	volume := root.Path(projector.Key{PodUID: pod.UID, Volume: "vault"}) // to be mounted
	token, err := os.ReadFile(filepath.Join(volume, "token"))            // as a container does
	fmt.Printf("%s, %v\n", token, err)

	cancel() // what is on disk serves on
	fmt.Println(<-ended)
	// Output:
	// published vault
	// a token for vault, <nil>
	// <nil>
}

// What never can be published is told at once; everything else is waited for.
func ExampleProjector_WaitReady() {
	dir := tempDir()
	defer os.RemoveAll(dir)
	p, end := start(dir, projector.Config{})
	defer end()

	pod := webPod()
	pod.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken.Path = "../token"
	p.Replace([]projector.Wish{projector.Desired(pod, projector.SelectAll)})
	err := p.WaitReady(context.Background(), pod.UID)
	if e, ok := errors.AsType[*projector.VolumeError](err); ok {
		fmt.Println("never:", e.Reason)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	fmt.Println(p.WaitReady(ctx, "another-uid"))
	// Output:
	// never: Invalid
	// wait for the volumes of pod another-uid: context deadline exceeded: the pod is not, or no longer, among the node's pods
}

// The pod's object is gone while its containers still run: the directory stays until they have ended.
func ExampleProjector_Stopped() {
	dir := tempDir()
	defer os.RemoveAll(dir)
	p, end := start(dir, projector.Config{AwaitStopped: true})

	pod := webPod()
	p.Replace([]projector.Wish{projector.Desired(pod, projector.SelectAll)})
	if err := p.WaitReady(context.Background(), pod.UID); err != nil {
		fmt.Println(err)
	}
	p.Forget(pod.UID)
	if err := end(); err != nil { // the provider ends, the containers do not
		fmt.Println(err)
	}

	p, end = start(dir, projector.Config{AwaitStopped: true})
	p.Replace(nil) // the pod is not in the list any more
	status, err := p.Status(context.Background())
	if err != nil {
		fmt.Println(err)
	}
	for _, pod := range status.Pods {
		fmt.Println("gone:", pod.UID, pod.Gone)
		// Here the provider ends what still runs of it.
		p.Stopped(pod.UID)
	}
	err = end() // waits for the removal
	left, _ := os.ReadDir(filepath.Join(dir, "pods"))
	fmt.Println(len(left), err)
	// Output:
	// gone: 8c2f true
	// 0 <nil>
}

func ExampleProjector_Status() {
	dir := tempDir()
	defer os.RemoveAll(dir)
	p, end := start(dir, projector.Config{})
	defer end()

	pod := webPod()
	p.Replace([]projector.Wish{projector.Desired(pod, projector.SelectAll)})
	if err := p.WaitReady(context.Background(), pod.UID); err != nil {
		fmt.Println(err)
	}
	status, err := p.Status(context.Background())
	for _, pod := range status.Pods {
		for _, volume := range pod.Volumes {
			for _, token := range volume.Tokens {
				fmt.Println(pod.Name, volume.Name, volume.State, token.Path, token.Audience, token.State, token.Expires.Sub(token.Issued))
			}
		}
	}
	fmt.Println(err)
	// Output:
	// web vault ready token vault fresh 1h0m0s
	// <nil>
}
