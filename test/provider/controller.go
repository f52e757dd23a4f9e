package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	workers = 8 // pods worked on at a time
	resync  = 10 * time.Second
)

// podKey names a pod. A pod of which only the UID is known has no name.
type podKey struct {
	namespace, name string
	uid             types.UID
}

// controller tells the Provider what to do, as virtual-kubelet's does: one call
// at a time for each pod, and again after a failure.
type controller struct {
	client   kubernetes.Interface
	factory  informers.SharedInformerFactory
	provider *Provider
	queue    workqueue.TypedRateLimitingInterface[podKey]
	log      *zap.Logger
}

func newController(node string, client kubernetes.Interface, p *Provider, log *zap.Logger) *controller {
	ofNode := informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", node).String()
	})
	c := &controller{
		client: client, provider: p, log: log,
		factory: informers.NewSharedInformerFactoryWithOptions(client, resync, ofNode),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[podKey](50*time.Millisecond, 10*time.Second)),
	}
	// The informer has not begun, so adding a handler cannot fail.
	_, _ = c.factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: c.add, UpdateFunc: func(_, obj any) { c.add(obj) }, DeleteFunc: c.add,
	})
	return c
}

func (c *controller) add(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		c.queue.Add(podKey{pod.Namespace, pod.Name, pod.UID})
	}
}

// run works until ctx ends.
func (c *controller) run(ctx context.Context) error {
	c.factory.Start(ctx.Done())
	defer c.factory.Shutdown()
	c.factory.WaitForCacheSync(ctx.Done())
	if err := c.addDangling(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	context.AfterFunc(ctx, c.queue.ShutDown)
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for c.next(ctx) {
			}
		})
	}
	working.Wait()
	return nil
}

// addDangling queues the pods that have ended while no provider ran.
func (c *controller) addDangling(ctx context.Context) error {
	listed := make(map[types.UID]bool)
	for _, obj := range c.factory.Core().V1().Pods().Informer().GetStore().List() {
		listed[obj.(*corev1.Pod).UID] = true
	}
	known, err := c.provider.GetPods(ctx)
	for _, pod := range known {
		if !listed[pod.UID] {
			c.queue.Add(podKey{uid: pod.UID})
		}
	}
	return err
}

// next works on one pod. It returns false when there will be no more.
func (c *controller) next(ctx context.Context) bool {
	key, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(key)
	if err := c.sync(ctx, key); err != nil {
		c.log.Warn("pod is not as it should be; trying again", zap.String("pod", key.name), zap.Error(err))
		c.queue.AddRateLimited(key)
		return true
	}
	c.queue.Forget(key)
	return true
}

// sync makes the Provider do with one pod what its object says now.
func (c *controller) sync(ctx context.Context, key podKey) error {
	pod, err := c.factory.Core().V1().Pods().Lister().Pods(key.namespace).Get(key.name)
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		return err
	case err != nil || pod.UID != key.uid:
		return c.provider.DeletePod(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: key.uid}})
	case pod.DeletionTimestamp != nil:
		return c.end(ctx, pod)
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return c.provider.DeletePod(ctx, pod)
	case c.provider.knows(key.uid):
		return c.provider.UpdatePod(ctx, pod)
	}
	return c.provider.CreatePod(ctx, pod)
}

// end ends a terminating pod, and has its object go when nothing of it runs.
func (c *controller) end(ctx context.Context, pod *corev1.Pod) error {
	if err := c.provider.DeletePod(ctx, pod); err != nil {
		return err
	}
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &pod.UID}}
	err := c.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, now)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete pod %s: %w", pod.Name, err)
	}
	return nil
}
