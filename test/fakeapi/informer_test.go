package fakeapi

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// podEvent is what an informer's handler was told.
type podEvent struct {
	what string // add, update, delete
	pod  *corev1.Pod
}

// podInformer runs a stock informer of all pods of node-1 until the test ends, and returns it, synced, with its events.
func podInformer(t testing.TB, client kubernetes.Interface, selector func(*metav1.ListOptions)) (cache.SharedIndexInformer, <-chan podEvent) {
	t.Helper()
	f := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(selector))
	informer := f.Core().V1().Pods().Informer()
	events := make(chan podEvent, 4096)
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { events <- podEvent{"add", o.(*corev1.Pod)} },
		UpdateFunc: func(_, o any) { events <- podEvent{"update", o.(*corev1.Pod)} },
		DeleteFunc: func(o any) {
			if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = d.Obj
			}
			events <- podEvent{"delete", o.(*corev1.Pod)}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	f.Start(ctx.Done())
	t.Cleanup(func() { cancel(); f.Shutdown() })
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		t.Fatal("the informer did not sync")
	}
	return informer, events
}

func onNode(o *metav1.ListOptions) { o.FieldSelector = "spec.nodeName=node-1" }

// expect takes the next events, which must be these ("add web") in this order.
func expect(t testing.TB, events <-chan podEvent, want ...string) (last *corev1.Pod) {
	t.Helper()
	ctx := testContext(t)
	for _, w := range want {
		select {
		case e := <-events:
			if got := e.what + " " + e.pod.Name; got != w {
				t.Fatalf("got event %q, want %q", got, w)
			}
			last = e.pod
		case <-ctx.Done():
			t.Fatalf("no event, want %q", w)
		}
	}
	return last
}

func TestInformerSyncs(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]Options{"watch-list": {}, "list": {NoWatchList: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, opts)
			for i := range 3 {
				mustCreate(t, s, newPod(fmt.Sprintf("pod-%d", i)))
			}
			informer, events := podInformer(t, clientset(t, s), onNode)
			if n := len(informer.GetStore().List()); n != 3 {
				t.Errorf("synced with %d pods, want 3", n)
			}
			for range 3 { // in whatever order the informer has them
				if e := <-events; e.what != "add" {
					t.Errorf("got event %s %s, want an addition", e.what, e.pod.Name)
				}
			}
			mustCreate(t, s, newPod("late"))
			expect(t, events, "add late")
			lists := len(s.Requests(Match{Verb: "list", Resource: "pods"}))
			if want := map[bool]int{false: 0, true: 1}[opts.NoWatchList]; lists != want {
				t.Errorf("the client sent %d LISTs, want %d", lists, want)
			}
		})
	}
}

func TestInformerSurvivesCutWatches(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	mustCreate(t, s, newPod("one"))
	_, events := podInformer(t, clientset(t, s), onNode)
	expect(t, events, "add one")
	mustCreate(t, s, newPod("two")) // a watch that ends within a second without any event is an error to a reflector
	expect(t, events, "add two")
	watches := Match{Verb: "watch", Resource: "pods"}
	s.CutWatches()
	mustCreate(t, s, newPod("three"))
	expect(t, events, "add three")
	// It came back at the resource version it had, without a new list: "one" was not told again.
	again, err := s.WaitRequests(testContext(t), watches, 2)
	if err != nil {
		t.Fatal(err)
	}
	if q := again[1].Query; strings.Contains(q, "sendInitialEvents") || !strings.Contains(q, "resourceVersion=") {
		t.Errorf("the second watch asked for %s", q)
	}
}

// A muted watch tells nothing more, but one that is opened afterwards does.
func TestMuteWatches(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	_, muted := podInformer(t, clientset(t, s), onNode)
	mustCreate(t, s, newPod("one"))
	expect(t, muted, "add one")
	s.MuteWatches()
	_, heard := podInformer(t, clientset(t, s), onNode)
	expect(t, heard, "add one")
	for i := range 100 { // what is not held back comes to both in turn
		name := fmt.Sprint("more-", i)
		mustCreate(t, s, newPod(name))
		expect(t, heard, "add "+name)
	}
	select {
	case e := <-muted:
		t.Errorf("the muted watch told of %s", e.pod.Name)
	default:
	}
}

func TestInformerSurvivesExpiredResourceVersions(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]Options{"watch-list": {}, "list": {NoWatchList: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, opts)
			gone := mustCreate(t, s, newPod("gone"))
			_, events := podInformer(t, clientset(t, s), onNode)
			expect(t, events, "add gone")
			remove := s.Inject(Fault{Match: Match{Verb: "watch"}, Action: Fail, Code: 503})
			s.CutWatches()
			zero := int64(0)
			if err := s.Delete(gone, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
				t.Fatal(err)
			}
			mustCreate(t, s, newPod("new"))
			s.ExpireResourceVersions()
			remove()
			got := map[string]bool{}
			for range 2 {
				select {
				case e := <-events:
					got[e.what+" "+e.pod.Name] = true
				case <-testContext(t).Done():
					t.Fatal("no event after the resource version had expired")
				}
			}
			if !got["delete gone"] || !got["add new"] {
				t.Errorf("got %v, want the removal of gone and the addition of new", got)
			}
		})
	}
}

func TestExpiryLeavesRunningWatchesAlone(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	_, events := podInformer(t, clientset(t, s), onNode)
	s.ExpireResourceVersions()
	mustCreate(t, s, newPod("after"))
	expect(t, events, "add after")
	if n := len(s.Requests(Match{Verb: "watch", Resource: "pods"})); n != 1 {
		t.Errorf("%d watches, want the first one to go on", n)
	}
}
