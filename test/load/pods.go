package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// inFlight is how many requests load itself has in flight: as many as the daemon by default.
const inFlight = 16

// creation is one pod that was created.
type creation struct {
	pod   *corev1.Pod
	asked time.Time // before the POST
}

// create makes n pods, each with the injected volume and one for the audience "vault", whose token lives for that time. It sends
// each to told, unless that is nil, as soon as the server has answered.
func (w *world) create(ctx context.Context, n int, life time.Duration, told chan<- creation) ([]creation, error) {
	made := make([]creation, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for i := range n {
		pod := w.pod(w.created+i, life)
		g.Go(func() (err error) {
			made[i].asked = time.Now()
			made[i].pod, err = w.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
			if err == nil && told != nil {
				told <- made[i]
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("create pods: %w", err)
	}
	w.created += n
	for _, c := range made {
		w.pods = append(w.pods, c.pod)
	}
	return made, nil
}

func (w *world) pod(i int, life time.Duration) *corev1.Pod {
	seconds := int64(life / time.Second)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprint("load-", i)},
		Spec: corev1.PodSpec{
			NodeName: w.o.node, AutomountServiceAccountToken: new(!w.single),
			Containers: []corev1.Container{{
				Name: "main", Image: "registry.example/app:1",
				VolumeMounts: []corev1.VolumeMount{{Name: "vault", MountPath: "/var/run/secrets/vault"}},
			}},
			Volumes: []corev1.Volume{{Name: "vault", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
					Path: "token", Audience: "vault", ExpirationSeconds: &seconds,
				}}},
			}}}},
		},
	}
}

// deletePod takes the oldest pod away, as when nothing of it runs any more.
func (w *world) deletePod(ctx context.Context) error {
	pod := w.pods[0]
	w.pods = w.pods[1:]
	if err := w.client.CoreV1().Pods(namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
		return fmt.Errorf("delete a pod: %w", err)
	}
	return nil
}

// deletePods takes all pods away.
func (w *world) deletePods(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for _, pod := range w.pods {
		g.Go(func() error {
			return w.client.CoreV1().Pods(namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
		})
	}
	w.pods = nil
	if err := g.Wait(); err != nil {
		return fmt.Errorf("delete pods: %w", err)
	}
	return nil
}
