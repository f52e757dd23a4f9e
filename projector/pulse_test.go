package projector

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// quietServer answers lists, and has watches on which only what a test says comes.
type quietServer struct {
	listed  []time.Duration // when, since it began
	given   int             // watches that were given up
	heed    func(ctx context.Context, w *watch.FakeWatcher)
	hanging bool // lists are not answered either
	streams bool // a watch is to have the list
}

// IsWatchListSemanticsUnSupported tells the reflector whether to begin with a list, or with a watch that has it.
func (s *quietServer) IsWatchListSemanticsUnSupported() bool { return !s.streams }

// run has a reflector follow the server for that long, in virtual time.
func (s *quietServer) run(t *testing.T, length time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		lw := &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
				s.listed = append(s.listed, time.Since(began))
				if s.hanging {
					<-ctx.Done()
					return nil, context.Cause(ctx)
				}
				return &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}, nil
			},
			WatchFuncWithContext: func(ctx context.Context, _ metav1.ListOptions) (watch.Interface, error) {
				w := watch.NewFake()
				go func() {
					s.heed(ctx, w)
					<-ctx.Done()
					if errors.Is(context.Cause(ctx), errSilent) {
						w.Error(&metav1.Status{Message: "as client-go tells it"})
					}
				}()
				return w, nil
			},
		}
		p := &pulse{ReflectorStore: cache.NewStore(cache.MetaNamespaceKeyFunc), silent: func() { s.given++ }}
		backoff := feedBackoff
		lister := cache.ToListWatcherWithWatchListSemantics(p.guard(lw), s)
		r := cache.NewReflectorWithOptions(lister, &corev1.Pod{}, p, cache.ReflectorOptions{Name: "pods", Backoff: &backoff})
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		r.RunWithContext(ctx)
	})
}

// TestSilentWatch: a watch on which nothing comes is given up, and so is a list that is not answered; one on which bookmarks
// come, or events, is not.
func TestSilentWatch(t *testing.T) {
	// One of them sleeps until the program began, which in virtual time lies far ahead.
	handlers := utilruntime.ErrorHandlers
	utilruntime.ErrorHandlers = nil
	t.Cleanup(func() { utilruntime.ErrorHandlers = handlers })
	never := func(context.Context, *watch.FakeWatcher) {}
	each := func(pause time.Duration, say func(*watch.FakeWatcher)) func(context.Context, *watch.FakeWatcher) {
		return func(ctx context.Context, w *watch.FakeWatcher) {
			for {
				select {
				case <-ctx.Done():
					return
				case <-time.After(pause):
					say(w)
				}
			}
		}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: "2"}}
	for name, tt := range map[string]struct {
		server       quietServer
		lists, given int // in ten minutes and a bit
	}{
		"silent":           {quietServer{heed: never}, 5, 4},
		"lists, too":       {quietServer{heed: never, hanging: true}, 10, 0},
		"initial events":   {quietServer{heed: never, streams: true}, 3, 6},
		"bookmarks":        {quietServer{heed: each(time.Minute, func(w *watch.FakeWatcher) { w.Action(watch.Bookmark, pod) })}, 1, 0},
		"pods that come":   {quietServer{heed: each(119*time.Second, func(w *watch.FakeWatcher) { w.Add(pod) })}, 1, 0},
		"pods that change": {quietServer{heed: each(119*time.Second, func(w *watch.FakeWatcher) { w.Modify(pod) })}, 1, 0},
		"pods that go":     {quietServer{heed: each(119*time.Second, func(w *watch.FakeWatcher) { w.Delete(pod) })}, 1, 0},
		"too rare":         {quietServer{heed: each(121*time.Second, func(w *watch.FakeWatcher) { w.Add(pod) })}, 5, 4},
	} {
		t.Run(name, func(t *testing.T) {
			tt.server.run(t, 10*time.Minute-time.Second)
			if got := len(tt.server.listed); got != tt.lists {
				t.Errorf("%d lists, at %v; want %d", got, tt.server.listed, tt.lists)
			}
			if tt.server.given != tt.given {
				t.Errorf("%d watches given up, want %d", tt.server.given, tt.given)
			}
		})
	}
}

// TestSilenceIsNews: a request that is given up because nothing was heard is reported, one that ends with the daemon is not.
func TestSilenceIsNews(t *testing.T) {
	for name, tt := range map[string]struct {
		cause error
		want  string
	}{"silent": {errSilent, errSilent.Error()}, "ended": {nil, ""}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(tt.cause)
		if text, news := why(ctx, ctx.Err()); text != tt.want || news != (tt.want != "") {
			t.Errorf("%s: %q, news %v", name, text, news)
		}
	}
}
