package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/fakeapi"
)

const (
	demoNamespace = "demo"
	slowName      = "slow-to-stop"
)

// demo keeps a handful of pods on one node, each to show one thing that happens to tokens.
type demo struct {
	server *fakeapi.Server
	node   string
	// every is the time between one comes-and-goes pod and the next, which takes its place.
	every time.Duration
	// lives is how long slow-to-stop runs; grace is how long it then takes to stop, in whole seconds.
	lives, grace time.Duration
	count        int // of comes-and-goes pods so far
}

func newDemo(s *fakeapi.Server, node string) *demo {
	return &demo{server: s, node: node, every: 4 * time.Second, lives: 10 * time.Second, grace: 20 * time.Second}
}

// seed creates what is there from the start.
func (d *demo) seed() error {
	if err := d.server.AddNamespace(demoNamespace); err != nil {
		return fmt.Errorf("create the namespace: %w", err)
	}
	for _, pod := range []*corev1.Pod{d.pod("web"), d.vaultClient(), d.pod(slowName)} {
		if err := d.run(pod); err != nil {
			return err
		}
	}
	return nil
}

// churn lets pods come and go until ctx ends.
func (d *demo) churn(ctx context.Context) error {
	next, slow := time.NewTimer(d.every), time.NewTimer(d.lives)
	defer next.Stop()
	defer slow.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
			err = d.replace()
			next.Reset(d.every)
		case <-slow.C:
			var wait time.Duration
			wait, err = d.stopOrStart()
			slow.Reset(wait)
		}
		if err != nil {
			return err
		}
	}
}

// replace deletes one comes-and-goes pod and creates the next.
func (d *demo) replace() error {
	name := func(n int) string { return fmt.Sprintf("comes-and-goes-%d", n) }
	if err := d.delete(name(d.count), time.Second); err != nil {
		return err
	}
	d.count++
	return d.run(d.pod(name(d.count)))
}

// stopOrStart deletes slow-to-stop if it runs, or brings it back once it is gone, and returns when to look again.
func (d *demo) stopOrStart() (time.Duration, error) {
	pod, err := fakeapi.Get[*corev1.Pod](d.server, demoNamespace, slowName)
	switch {
	case apierrors.IsNotFound(err):
		return d.lives, d.run(d.pod(slowName))
	case err != nil:
		return 0, fmt.Errorf("look at %s: %w", slowName, err)
	case pod.DeletionTimestamp == nil:
		return d.grace, d.delete(slowName, d.grace)
	}
	return 100 * time.Millisecond, nil // its last moment
}

// run creates a pod and says that it runs.
func (d *demo) run(pod *corev1.Pod) error {
	pod, err := fakeapi.Create(d.server, pod)
	if err == nil {
		pod.Status.Phase = corev1.PodRunning
		_, err = fakeapi.UpdateStatus(d.server, pod)
	}
	if err != nil {
		return fmt.Errorf("run a demonstration pod: %w", err)
	}
	return nil
}

// delete starts a pod's graceful end; one that is not there is fine.
func (d *demo) delete(name string, grace time.Duration) error {
	n := int64(grace / time.Second)
	err := d.server.Delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: demoNamespace, Name: name}}, metav1.DeleteOptions{GracePeriodSeconds: &n})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// pod has nothing of its own: its volume is the one that admission injects.
func (d *demo) pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: demoNamespace, Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			NodeName:   d.node,
			Containers: []corev1.Container{{Name: "main", Image: "registry.example/app:1"}},
		},
	}
}

// vaultClient has a token for another audience besides.
func (d *demo) vaultClient() *corev1.Pod {
	const volume = "vault-token"
	pod, expiration := d.pod("vault-client"), int64(7200)
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: volume, MountPath: "/var/run/secrets/tokens"}}
	pod.Spec.Volumes = []corev1.Volume{{Name: volume, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
			Path: "vault-token", ExpirationSeconds: &expiration, Audience: "vault",
		}}},
	}}}}
	return pod
}
