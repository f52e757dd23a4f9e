package projector

import (
	"context"
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// maxSilence is how long a watch is believed on which nothing comes. The server sends a bookmark each minute
// (apiserver's pkg/storage/cacher/cacher.go), so one may be lost. One that sends none is listed anew that often.
const maxSilence = 2 * time.Minute

// maxListing is how long a list may take, or the initial events of a watch: what kube-apiserver gives a list itself.
const maxListing = time.Minute

var errSilent = errors.New("nothing was heard for too long")

// pulse is the store of a reflector, and gives up its watch, or list, when nothing has been heard for long:
// client-go would wait for ever, and pings do not help while it is not the connection that is dead.
type pulse struct {
	cache.ReflectorStore
	silent func() // called when a watch is given up
	// Of the latest watch; nil before the first.
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// guard bounds what lw does. It is for the reflector that uses the store, and no other.
func (p *pulse) guard(lw *cache.ListWatch) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			ctx, cancel := context.WithTimeoutCause(ctx, maxListing, errSilent)
			defer cancel()
			return lw.ListWithContextFunc(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			allowed := maxSilence
			if o.SendInitialEvents != nil {
				allowed = maxListing
			}
			return lw.WatchFuncWithContext(p.begin(ctx, allowed), o)
		},
	}
}

// begin returns the context of a watch that is being opened, and is allowed that long until the first beat. The one
// before has ended.
func (p *pulse) begin(ctx context.Context, allowed time.Duration) context.Context {
	if p.cancel != nil {
		p.cancel(nil) // its timer then does nothing
	}
	ctx, p.cancel = context.WithCancelCause(ctx)
	cancel := p.cancel
	p.timer = time.AfterFunc(allowed, func() {
		if ctx.Err() == nil {
			p.silent()
		}
		cancel(errSilent)
	})
	return ctx
}

func (p *pulse) beat() {
	if p.timer != nil {
		p.timer.Reset(maxSilence)
	}
}

func (p *pulse) Add(obj any) error    { p.beat(); return p.ReflectorStore.Add(obj) }
func (p *pulse) Update(obj any) error { p.beat(); return p.ReflectorStore.Update(obj) }
func (p *pulse) Delete(obj any) error { p.beat(); return p.ReflectorStore.Delete(obj) }

// Replace takes in the initial events of a watch, all together.
func (p *pulse) Replace(list []any, version string) error {
	p.beat()
	return p.ReflectorStore.Replace(list, version)
}

// Bookmark implements cache.ReflectorBookmarkStore.
func (p *pulse) Bookmark(string) error { p.beat(); return nil }
