package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	readEvery   = 20 * time.Millisecond
	connectTime = 15 * time.Second
	askTime     = 2 * time.Second
	// A pod-bound token is dead, and may be taken away, this long after the
	// deletionTimestamp of its pod (the API server's leeway).
	afterDeletion = time.Minute
)

// podEvent is a pod as the API shows it now.
type podEvent struct {
	pod            *corev1.Pod
	initial, ended bool
}

// reader reads what pods would read. One goroutine, that of run, owns it.
type reader struct {
	client kubernetes.Interface
	root   string
	out    *log.Logger
	begun  time.Time
	tracks []*track // of all pods ever seen
	listed bool     // one volume's directory was shown
}

func newReader(client kubernetes.Interface, root string, out *log.Logger) *reader {
	return &reader{client: client, root: root, out: out, begun: time.Now()}
}

// connect waits for the kubeconfig and for the server behind it.
func connect(ctx context.Context, kubeconfig string, server *child) (*kubernetes.Clientset, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	for {
		client, err := tryConnect(ctx, kubeconfig)
		if err == nil {
			return client, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("reach the fake API server: %w", err)
		case <-server.done:
			return nil, server.died()
		case <-time.After(readEvery):
		}
	}
}

func tryConnect(ctx context.Context, kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	_, err = client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: ofNode})
	return client, err
}

// ofNode selects the pods of the demo's node, all a node may ask for.
const ofNode = "spec.nodeName=" + nodeName

// run reads until the length has passed (0: for ever), the context ends, or a
// program dies. An error: a program died, or a bounded run was cut short.
func (r *reader) run(ctx context.Context, length time.Duration, programs ...*child) error {
	watching, cancel := context.WithCancel(ctx)
	pods, wait := r.watch(watching)
	defer wait()
	defer cancel()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			if length > 0 {
				return errors.New("interrupted")
			}
			return nil
		case e := <-pods:
			r.apply(e, time.Now())
		case <-next.C:
			r.readAll(ctx)
			next.Reset(readEvery)
			for _, p := range programs {
				if err := p.died(); err != nil {
					return err
				}
			}
			if length > 0 && time.Since(r.begun) >= length {
				return nil
			}
		}
	}
}

// watch sends every change of a pod until the context ends; wait returns when
// the last goroutine of it has.
func (r *reader) watch(ctx context.Context) (pods <-chan podEvent, wait func()) {
	events := make(chan podEvent)
	send := func(obj any, initial, ended bool) {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		select {
		case events <- podEvent{obj.(*corev1.Pod), initial, ended}:
		case <-ctx.Done():
		}
	}
	factory := informers.NewSharedInformerFactoryWithOptions(r.client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.FieldSelector = ofNode }))
	// The informer has not begun, so adding a handler cannot fail.
	_, _ = factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc:    func(obj any, initial bool) { send(obj, initial, false) },
		UpdateFunc: func(_, obj any) { send(obj, false, false) },
		DeleteFunc: func(obj any) { send(obj, false, true) },
	})
	factory.Start(ctx.Done())
	return events, factory.Shutdown
}

// apply begins or ends the tracks of a pod.
func (r *reader) apply(e podEvent, now time.Time) {
	uid, known := string(e.pod.UID), false
	for _, t := range r.tracks {
		if t.uid != uid {
			continue
		}
		known = true
		if (e.ended || finished(e.pod, now)) && t.until.IsZero() {
			r.end(t, now)
		}
	}
	if !known && !e.ended && !finished(e.pod, now) {
		r.tracks = append(r.tracks, tracksOf(e.pod, e.initial, now)...)
	}
}

func (r *reader) end(t *track, now time.Time) {
	t.until = now
	r.say("ended    %s: its pod is gone after %d rotations", t, t.rotations)
}

// finished tells that the pod's tokens may be gone though its object is not.
func finished(pod *corev1.Pod, now time.Time) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed ||
		pod.DeletionTimestamp != nil && now.After(pod.DeletionTimestamp.Add(afterDeletion))
}

// tracksOf is one track for every token source of the pod.
func tracksOf(pod *corev1.Pod, fromStart bool, now time.Time) []*track {
	var tracks []*track
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				tracks = append(tracks, &track{
					pod: pod.Namespace + "/" + pod.Name, uid: string(pod.UID),
					volume: v.Name, path: s.ServiceAccountToken.Path, since: now, fromStart: fromStart,
				})
			}
		}
	}
	return tracks
}

func (r *reader) readAll(ctx context.Context) {
	for _, t := range r.tracks {
		if t.until.IsZero() {
			r.readOne(ctx, t)
		}
	}
}

func (r *reader) readOne(ctx context.Context, t *track) {
	now := time.Now() // before the read: what it finds was there no earlier
	data, err := os.ReadFile(filepath.Join(r.volumeDir(t), t.path))
	if err == nil {
		r.say("%s", t.read(now, data))
		r.show(t)
		return
	}
	if t.mayWait(now) {
		return
	}
	alive, ask := r.podAlive(ctx, t)
	switch {
	case ctx.Err() != nil: // the end of the run cut the question short
	case ask != nil:
		r.say("%s", t.unreadable(now, fmt.Errorf("%w; and asking for its pod: %v", err, ask)))
	case alive:
		r.say("%s", t.unreadable(now, err))
	default:
		r.end(t, now)
	}
}

// podAlive asks the API itself. Asked after a failed read, a yes means that
// the pod was there when the read failed; the watch may not have told yet. It
// asks with a list, because the Node authorizer refuses a node that gets a pod
// which is just gone: no relationship is left between the two.
func (r *reader) podAlive(ctx context.Context, t *track) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	namespace, name, _ := strings.Cut(t.pod, "/")
	pods, err := r.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{FieldSelector: ofNode + ",metadata.name=" + name})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(pods.Items, func(pod corev1.Pod) bool {
		return pod.UID == types.UID(t.uid) && !finished(&pod, time.Now())
	}), nil
}

func (r *reader) volumeDir(t *track) string {
	return filepath.Join(r.root, "pods", t.uid, "volumes", "kubernetes.io~projected", t.volume)
}

// show lists the directory of the first volume that is there, once.
func (r *reader) show(t *track) {
	if r.listed {
		return
	}
	r.listed = true
	dir := r.volumeDir(t)
	r.out.Printf("ls       %s", dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.out.Printf("         %v", err)
	}
	for _, e := range entries {
		line := "         " + e.Name()
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			line += " -> " + to
		}
		r.out.Print(line)
	}
}

// say prints a line with the time since the start; nothing when it is empty.
func (r *reader) say(format string, args ...any) {
	if line := fmt.Sprintf(format, args...); line != "" {
		r.out.Printf("%6.2fs  %s", time.Since(r.begun).Seconds(), line)
	}
}

// conclude judges the run. One that was cut short is judged like one without
// an end: by what there was.
func (r *reader) conclude(length time.Duration) (string, error) {
	now := time.Now()
	if now.Sub(r.begun) < length {
		length = 0
	}
	wrong := judge(r.tracks, now, length)
	if len(wrong) > 0 {
		return "", errors.New(strings.Join(wrong, "\n  "))
	}
	return summarize(r.tracks), nil
}
