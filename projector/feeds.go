package projector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/token-projector/token-projector/rotation"
)

// feedBackoff spaces the attempts to list and watch. Its cap is lower than
// client-go's 30 s: a pod that is created when the server is back waits for it.
// The reflector does not wake from it when it is told to stop: that bounds the cap, too.
var feedBackoff = wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 3, Cap: 2 * time.Second}

// openWatcher starts the watch for changes on disk, if there is to be one.
func (r *runner) openWatcher(ctx context.Context) *watcher {
	if r.config.NoWatches {
		return nil
	}
	w := newWatcher()
	hint := func(descriptor int) {
		r.send(func(s *state, now rotation.Time) { s.hint(descriptor, now) })
	}
	lost := func(err error) {
		r.send(func(s *state, now rotation.Time) { s.hintsLost(err, now) })
	}
	r.feeds.Go(func() { w.run(ctx, hint, lost) })
	return w
}

// goWatch starts the watch on the node's pods.
func (r *runner) goWatch(ctx context.Context) {
	if r.config.Client == nil {
		return
	}
	pods := r.config.Client.pods()
	// The Node authorizer demands this field selector.
	narrow := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", r.config.NodeName).String()
	}
	feed := podFeed{r.Projector}
	r.reflect(ctx, "pods", pods.one, feed, podWatch, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			narrow(&o)
			list, err := pods.listed(ctx, o)
			return list, feed.note(ctx, err)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			narrow(&o)
			w, err := pods.watch(ctx, o)
			return w, feed.note(ctx, err)
		},
	})
}

// goWatchObject starts the watch on one object, by name, as the Node
// authorizer allows it, or on a signer's trust bundles, until the last volume
// has released it.
func (r *runner) goWatchObject(ctx context.Context, ref ObjectRef) {
	if r.config.Client == nil {
		return
	}
	ctx, r.objects[ref] = context.WithCancel(ctx)
	feed := objectFeed{r.Projector, ref, map[string]map[string][]byte{}}
	objects := r.config.Client.objects(ref)
	r.reflect(ctx, ref.String(), objects.one, feed, 0, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			ref.narrow(&o)
			list, err := objects.listed(ctx, o)
			return list, feed.note(ctx, err)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			ref.narrow(&o)
			w, err := objects.watch(ctx, o)
			return w, feed.note(ctx, err)
		},
	})
}

func (r ObjectRef) narrow(o *metav1.ListOptions) {
	if r.Name != "" {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", r.Name).String()
		return
	}
	o.FieldSelector = fields.OneTermEqualSelector("spec.signerName", r.SignerName).String()
	o.LabelSelector = r.LabelSelector
}

func (r *runner) reflect(ctx context.Context, name string, kind runtime.Object, store cache.ReflectorStore, lasting time.Duration, lw *cache.ListWatch) {
	backoff := feedBackoff
	silent := func() {
		r.config.Log.Warn("a watch has outlived its time, and is opened anew", zap.String("watch", name))
	}
	lister := cache.ToListWatcherWithWatchListSemantics(inTime(lw, lasting, silent), r.config.Client)
	reflector := cache.NewReflectorWithOptions(lister, kind, store, cache.ReflectorOptions{Name: name, Backoff: &backoff})
	r.feeds.Go(func() { reflector.RunWithContext(ctx) })
}

// podFeed is the store of the pods' reflector: it keeps nothing and passes
// what the pods want to the owner.
type podFeed struct{ *Projector }

var _ cache.TransformingStore = podFeed{}

// Transformer has the reflector keep, of a list that is streamed to it, only what the pods want: a pod is hundreds of
// times as large, and a hostile one as large as the server takes it.
func (f podFeed) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) { return f.wanted(obj) }
}

// wanted is what a pod wants, or that which Transformer has made of it.
func (f podFeed) wanted(obj any) (Wish, error) {
	if w, ok := obj.(Wish); ok {
		return w, nil
	}
	pod, err := as[*corev1.Pod](obj)
	if err != nil {
		return Wish{}, err
	}
	return f.wish(pod), nil
}

func (f podFeed) Add(obj any) error {
	w, err := f.wanted(obj)
	if err == nil {
		f.Apply(w)
	}
	return err
}

// wish heeds the label selector here and not in the watch: there, a pod whose
// labels change could not be told from one that is gone.
func (f podFeed) wish(pod *corev1.Pod) Wish {
	w := Desired(pod, f.config.Selection)
	w.Unselected = !f.config.PodSelector.Matches(labels.Set(pod.Labels))
	return w
}

func (f podFeed) Update(obj any) error { return f.Add(obj) }

func (f podFeed) Delete(obj any) error {
	pod, err := as[*corev1.Pod](obj)
	if err == nil {
		f.Forget(pod.UID)
	}
	return err
}

func (f podFeed) Replace(list []any, _ string) error {
	wishes := make([]Wish, 0, len(list))
	for _, obj := range list {
		w, err := f.wanted(obj)
		if err != nil {
			return err
		}
		wishes = append(wishes, w)
	}
	f.Projector.Replace(wishes)
	return nil
}

func (podFeed) Resync() error { return nil }

// note passes on why the pods cannot be watched, or that they can.
func (f podFeed) note(ctx context.Context, err error) error {
	if why, news := why(ctx, err); news {
		advice := ""
		if err != nil {
			advice = f.config.Advice(err)
		}
		f.send(func(s *state, _ rotation.Time) { s.unwatchable(why, advice) })
	}
	return err
}

// why words the error of a list or watch, "" for none, and says whether it is
// news: that a version is too old to watch from is the reflector's daily
// business, and the end of ctx is our own doing, but for silence.
func why(ctx context.Context, err error) (text string, news bool) {
	silent := errors.Is(context.Cause(ctx), errSilent)
	if silent {
		err = errSilent
	}
	if ctx.Err() != nil && !silent || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsInvalid(err) {
		return "", false
	}
	if err != nil {
		text = scrub(err.Error())
	}
	return text, true
}

// objectFeed is the store of one reflector of objects: it passes what they hold
// to the owner. It keeps that only to put several bundles together.
type objectFeed struct {
	*Projector
	ref  ObjectRef
	held map[string]map[string][]byte // objectData by name
}

func (f objectFeed) Add(obj any) error {
	if err := f.hold(obj); err != nil {
		return err
	}
	f.Touch(f.ref, joinData(f.ref, f.held))
	return nil
}

func (f objectFeed) hold(obj any) error {
	o, err := as[runtime.Object](obj)
	if err != nil {
		return err
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return fmt.Errorf("reflector delivered a %T: %w", obj, err)
	}
	f.held[m.GetName()] = objectData(o)
	return nil
}

func (f objectFeed) Update(obj any) error { return f.Add(obj) }

func (f objectFeed) Delete(obj any) error {
	if m, err := meta.Accessor(obj); err == nil {
		delete(f.held, m.GetName())
	}
	f.Touch(f.ref, joinData(f.ref, f.held))
	return nil
}

func (f objectFeed) Replace(list []any, _ string) error {
	clear(f.held)
	for _, obj := range list {
		if err := f.hold(obj); err != nil {
			return err
		}
	}
	f.Touch(f.ref, joinData(f.ref, f.held))
	return nil
}

func (objectFeed) Resync() error { return nil }

// note passes on why the object cannot be read, or that it can.
func (f objectFeed) note(ctx context.Context, err error) error {
	if why, news := why(ctx, err); news {
		refused := apierrors.IsForbidden(err) || apierrors.IsNotFound(err)
		f.send(func(s *state, now rotation.Time) { s.untouchable(f.ref, why, refused, now) })
	}
	return err
}

func as[T any](obj any) (T, error) {
	t, ok := obj.(T)
	if !ok {
		return t, fmt.Errorf("reflector delivered a %T", obj)
	}
	return t, nil
}
