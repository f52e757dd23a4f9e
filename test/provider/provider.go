package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/projector"
)

// readyTimeout bounds how long one attempt to start a pod waits for its
// volumes. The controller tries again.
const readyTimeout = 10 * time.Second

// Provider runs pods. At most one of its methods may work on a pod at a time;
// virtual-kubelet, and our controller, see to it.
type Provider struct {
	projector *projector.Projector
	root      *projector.Root
	processes processes
	log       *zap.Logger
}

// CreatePod starts the pod's containers when its volumes are ready.
func (p *Provider) CreatePod(ctx context.Context, pod *corev1.Pod) error { return p.ensure(ctx, pod) }

// UpdatePod starts those containers that do not run (any more). Nothing else
// that may be changed in a pod concerns its processes.
func (p *Provider) UpdatePod(ctx context.Context, pod *corev1.Pod) error { return p.ensure(ctx, pod) }

// ensure starts every container that does not run.
func (p *Provider) ensure(ctx context.Context, pod *corev1.Pod) error {
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		runs, err := p.processes.running(pod.UID, c.Name) // perhaps since an earlier provider
		if err == nil && !runs {
			err = p.startContainer(ctx, pod, c)
		}
		if err != nil {
			return fmt.Errorf("container %s: %w", c.Name, err)
		}
	}
	return nil
}

func (p *Provider) startContainer(ctx context.Context, pod *corev1.Pod, c *corev1.Container) error {
	box, err := p.sandbox(pod, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := p.projector.WaitReady(ctx, pod.UID); err != nil {
		return err
	}
	p.log.Info("starting container", zap.String("pod", pod.Name), zap.String("container", c.Name))
	return p.processes.start(pod.UID, c.Name, box)
}

// sandbox is what the container sees and runs.
func (p *Provider) sandbox(pod *corev1.Pod, c *corev1.Container) (*sandbox, error) {
	if len(c.Command) == 0 {
		return nil, errors.New("it has no command, and there are no images here")
	}
	projected := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		projected[v.Name] = v.Projected != nil
	}
	box := &sandbox{Argv: slices.Concat(c.Command, c.Args), Mounts: map[string]string{}}
	for _, m := range c.VolumeMounts {
		if !projected[m.Name] || m.SubPath != "" || m.SubPathExpr != "" {
			return nil, fmt.Errorf("only whole projected volumes can be mounted, not %s", m.Name)
		}
		box.Mounts[m.MountPath] = p.root.Path(projector.Key{PodUID: pod.UID, Volume: m.Name})
	}
	return box, nil
}

// DeletePod ends the pod's processes, and then lets its volumes go. Of the pod
// only the UID may be known. A grace of 0 says that the object did not wait for
// its processes, not that they had time to end: they get the default, as if the
// object had been gone before anybody saw that it goes.
func (p *Provider) DeletePod(ctx context.Context, pod *corev1.Pod) error {
	grace := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if s := pod.DeletionGracePeriodSeconds; s != nil && *s > 0 {
		grace = *s
	}
	names, err := p.processes.containers(pod.UID)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, name := range names {
		g.Go(func() error { return p.processes.stop(ctx, pod.UID, name, time.Duration(grace)*time.Second) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := p.processes.forget(pod.UID); err != nil {
		return err
	}
	p.projector.Stopped(pod.UID)
	return nil
}

// GetPods returns the pods of which something may run, or of which only volumes
// are left, by their UIDs: that is all that is remembered.
func (p *Provider) GetPods(ctx context.Context) ([]*corev1.Pod, error) {
	uids, err := p.processes.pods()
	if err != nil {
		return nil, err
	}
	if err := p.projector.WaitSynced(ctx); err != nil {
		return nil, err
	}
	status, err := p.projector.Status(ctx)
	for _, pod := range status.Pods {
		if pod.Gone && !slices.Contains(uids, pod.UID) {
			uids = append(uids, pod.UID)
		}
	}
	var pods []*corev1.Pod
	for _, uid := range uids {
		pods = append(pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}})
	}
	return pods, err
}

// knows reports whether something of the pod may run.
func (p *Provider) knows(uid types.UID) bool {
	_, err := os.Stat(p.processes.podDir(uid))
	return err == nil
}
