package projector

import (
	"context"
	"errors"
	"slices"
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

// quietServer is an API server without objects.
type quietServer struct {
	lasting time.Duration // of watches, as the client wants it
	ends    bool          // it ends watches in time
	hangs   bool          // it answers no lists
	streams bool          // watches are to have the list

	listed []time.Duration // when, since it began
	given  int             // watches that were given up
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
				if s.hangs {
					<-ctx.Done()
					return nil, context.Cause(ctx)
				}
				return &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}, nil
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				w := watch.NewFake()
				go s.serve(ctx, w, time.Duration(*o.TimeoutSeconds)*time.Second)
				return w, nil
			},
		}
		lister := cache.ToListWatcherWithWatchListSemantics(inTime(lw, s.lasting, func() { s.given++ }), s)
		store, backoff := cache.NewStore(cache.MetaNamespaceKeyFunc), feedBackoff
		r := cache.NewReflectorWithOptions(lister, &corev1.Pod{}, store, cache.ReflectorOptions{Name: "pods", Backoff: &backoff})
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		r.RunWithContext(ctx)
	})
}

func (s *quietServer) serve(ctx context.Context, w *watch.FakeWatcher, lasting time.Duration) {
	var end <-chan time.Time
	if s.ends {
		end = time.After(lasting)
	}
	select {
	case <-end:
		w.Stop()
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), errSilent) {
			w.Error(&metav1.Status{Message: "as client-go tells it"})
		}
	}
}

// TestSilentWatch: a watch that outlives its time is given up, and so is a list that is not answered, and the next list
// tells what was missed; a watch on which nothing comes and which ends in time is left alone.
func TestSilentWatch(t *testing.T) {
	// One of them sleeps until the program began, which in virtual time lies far ahead.
	handlers := utilruntime.ErrorHandlers
	utilruntime.ErrorHandlers = nil
	t.Cleanup(func() { utilruntime.ErrorHandlers = handlers })
	const second = time.Second
	for name, tt := range map[string]struct {
		server      quietServer
		least, most time.Duration // between lists
		given       bool
	}{
		"of pods":        {quietServer{lasting: podWatch}, 100 * second, 134 * second, true},
		"of an object":   {quietServer{}, 310 * second, 614 * second, true},
		"lists, too":     {quietServer{lasting: podWatch, hangs: true}, 60 * second, 64 * second, false},
		"initial events": {quietServer{lasting: podWatch, streams: true}, 100 * second, 268 * second, true},
		"ends in time":   {quietServer{lasting: podWatch, ends: true}, 2 * time.Hour, 2 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			tt.server.run(t, 2*time.Hour)
			listed := slices.Compact(slices.Concat([]time.Duration{0}, tt.server.listed, []time.Duration{2 * time.Hour}))
			for i := 1; i < len(listed); i++ {
				gap, last := listed[i]-listed[i-1], i == len(listed)-1
				if gap > tt.most || gap < tt.least && !last {
					t.Errorf("%v between lists, want %v to %v", gap, tt.least, tt.most)
				}
			}
			if got := tt.server.given; got > 0 != tt.given {
				t.Errorf("%d watches given up", got)
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

// TestCutWatchIsNotSilent: a watch that is cut or refused before its time, after which no list succeeds, as in an outage, has not
// outlived it.
func TestCutWatchIsNotSilent(t *testing.T) {
	for name, tt := range map[string]struct{ refused, silent bool }{
		"cut": {}, "refused": {refused: true}, "a silent one": {silent: true}, // the planted one
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				given := 0
				lw := inTime(&cache.ListWatch{
					ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) { return nil, errors.New("out") },
					WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) {
						if tt.refused {
							return nil, errors.New("out")
						}
						return watch.NewFake(), nil
					},
				}, podWatch, func() { given++ })
				_, _ = lw.WatchWithContext(t.Context(), metav1.ListOptions{})
				for range 200 {
					if !tt.silent {
						_, _ = lw.ListWithContext(t.Context(), metav1.ListOptions{})
					}
					time.Sleep(time.Second)
				}
				synctest.Wait()
				if given > 0 != tt.silent {
					t.Errorf("%d given up", given)
				}
			})
		})
	}
}
