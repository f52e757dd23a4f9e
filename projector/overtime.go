package projector

import (
	"context"
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// The server ends each watch after the time that the client asked for. One that outlives it is dead, though its connection
// be alive: client-go would wait for ever. Bookmarks would tell less: the server sends none of what has not changed since
// the watch began (apiserver's pkg/storage/cacher/cache_watcher.go).
const (
	// podWatch is how long a watch of the pods is to last, and up to a third longer: no new pod waits longer for a watch
	// that is dead. client-go's 5 to 10 minutes do for objects.
	podWatch = 90 * time.Second
	// overtime is for the end of a watch to come.
	overtime = 10 * time.Second
	// maxListing is how long a list may take: what kube-apiserver gives it itself.
	maxListing = time.Minute
)

var errSilent = errors.New("no answer, and no end in time")

// inTime gives up lists and watches that outlive their time; silent is called when it is a watch. lasting is that of a
// watch; 0: as it is asked for. The result is for one reflector.
func inTime(lw *cache.ListWatch, lasting time.Duration, silent func()) *cache.ListWatch {
	end := func() {} // of the latest watch
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			end() // a list follows on a watch that has ended, or was refused
			ctx, cancel := context.WithTimeoutCause(ctx, maxListing, errSilent)
			defer cancel()
			return lw.ListWithContextFunc(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			end()
			if lasting > 0 {
				o.TimeoutSeconds = new(int64(wait.Jitter(lasting, 1./3).Seconds()))
			}
			ctx, end = until(ctx, time.Duration(*o.TimeoutSeconds)*time.Second+overtime, silent)
			return lw.WatchFuncWithContext(ctx, o)
		},
	}
}

// until is a context that is cancelled in that time, after a call of silent. Not by a deadline: client-go takes one that has
// passed for the end of a watch as it should be, and does not list anew.
func until(ctx context.Context, allowed time.Duration, silent func()) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(allowed, func() {
		if ctx.Err() == nil {
			silent()
		}
		cancel(errSilent)
	})
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}
