package projector

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
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
func (r *runner) openWatcher() *watcher {
	if r.config.NoWatches {
		return nil
	}
	w, err := newWatcher()
	if err != nil {
		r.config.Log.Warn("changes on disk are found by the slow sweep alone", zap.Error(err))
		r.state.degraded = true
		return nil
	}
	hint := func(descriptor int) {
		r.send(func(s *state, now rotation.Time) { s.hint(descriptor, now) })
	}
	lost := func(err error) {
		r.send(func(s *state, now rotation.Time) { s.hintsLost(err, now) })
	}
	r.feeds.Go(func() { w.run(hint, lost) })
	return w
}

// goWatch starts the watch on the node's pods.
func (r *runner) goWatch(ctx context.Context) {
	if r.config.Client == nil {
		return
	}
	pods := r.config.Client.CoreV1().Pods(metav1.NamespaceAll)
	// The Node authorizer demands this field selector.
	narrow := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", r.config.NodeName).String()
		o.LabelSelector = r.config.PodSelector.String()
	}
	feed := podFeed{r.Projector}
	r.reflect(ctx, "pods", &corev1.Pod{}, feed, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			narrow(&o)
			list, err := pods.List(ctx, o)
			return list, feed.note(ctx, err)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			narrow(&o)
			w, err := pods.Watch(ctx, o)
			return w, feed.note(ctx, err)
		},
	})
}

// goWatchObject starts the watch on one object, by name, as the Node
// authorizer allows it, until the last volume has released it.
func (r *runner) goWatchObject(ctx context.Context, ref ObjectRef) {
	if r.config.Client == nil {
		return
	}
	ctx, r.objects[ref] = context.WithCancel(ctx)
	feed := objectFeed{r.Projector, ref}
	kind, access := r.objectAccess(ref)
	narrow := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", ref.Name).String()
	}
	r.reflect(ctx, ref.String(), kind, feed, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			narrow(&o)
			list, err := access.list(ctx, o)
			return list, feed.note(ctx, err)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			narrow(&o)
			w, err := access.watch(ctx, o)
			return w, feed.note(ctx, err)
		},
	})
}

// objectAccess is how objects of one kind in one namespace are listed and watched.
type objectAccess struct {
	list  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func (r *runner) objectAccess(ref ObjectRef) (runtime.Object, objectAccess) {
	core := r.config.Client.CoreV1()
	if ref.Kind == KindSecret {
		c := core.Secrets(ref.Namespace)
		return &corev1.Secret{}, objectAccess{
			func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return c.List(ctx, o) }, c.Watch}
	}
	c := core.ConfigMaps(ref.Namespace)
	return &corev1.ConfigMap{}, objectAccess{
		func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return c.List(ctx, o) }, c.Watch}
}

func (r *runner) reflect(ctx context.Context, name string, kind runtime.Object, store cache.ReflectorStore, lw *cache.ListWatch) {
	backoff := feedBackoff
	lister := cache.ToListWatcherWithWatchListSemantics(lw, r.config.Client)
	reflector := cache.NewReflectorWithOptions(lister, kind, store, cache.ReflectorOptions{Name: name, Backoff: &backoff})
	r.feeds.Go(func() { reflector.RunWithContext(ctx) })
}

// podFeed is the store of the pods' reflector: it keeps nothing and passes
// what the pods want to the owner.
type podFeed struct{ *Projector }

func (f podFeed) Add(obj any) error {
	pod, err := as[*corev1.Pod](obj)
	if err == nil {
		f.Apply(Desired(pod, f.config.Selection))
	}
	return err
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
		pod, err := as[*corev1.Pod](obj)
		if err != nil {
			return err
		}
		wishes = append(wishes, Desired(pod, f.config.Selection))
	}
	f.Projector.Replace(wishes)
	return nil
}

func (podFeed) Resync() error { return nil }

// note passes on why the pods cannot be watched, or that they can.
func (f podFeed) note(ctx context.Context, err error) error {
	if why, news := why(ctx, err); news {
		f.send(func(s *state, _ rotation.Time) { s.unwatchable(why) })
	}
	return err
}

// why words the error of a list or watch, "" for none, and says whether it is
// news: that a version is too old to watch from is the reflector's daily
// business, and the end of ctx is our own doing.
func why(ctx context.Context, err error) (text string, news bool) {
	if ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsInvalid(err) {
		return "", false
	}
	if err != nil {
		text = scrub(err.Error())
	}
	return text, true
}

// objectFeed is the store of one object's reflector.
type objectFeed struct {
	*Projector
	ref ObjectRef
}

func (f objectFeed) Add(obj any) error {
	switch o := obj.(type) {
	case *corev1.ConfigMap:
		f.Touch(f.ref, configMapData(o))
	case *corev1.Secret:
		f.Touch(f.ref, secretData(o))
	default:
		return fmt.Errorf("reflector delivered a %T", obj)
	}
	return nil
}

func (f objectFeed) Update(obj any) error { return f.Add(obj) }

func (f objectFeed) Delete(any) error {
	f.Touch(f.ref, nil)
	return nil
}

func (f objectFeed) Replace(list []any, _ string) error {
	if len(list) == 0 {
		f.Touch(f.ref, nil)
		return nil
	}
	return f.Add(list[0])
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

// configMapData is never nil: an empty object exists.
func configMapData(m *corev1.ConfigMap) map[string][]byte {
	data := make(map[string][]byte, len(m.Data)+len(m.BinaryData))
	for k, v := range m.Data {
		data[k] = []byte(v)
	}
	for k, v := range m.BinaryData {
		data[k] = v
	}
	return data
}

// secretData is never nil: an empty object exists.
func secretData(s *corev1.Secret) map[string][]byte {
	if s.Data == nil {
		return map[string][]byte{}
	}
	return s.Data
}

func as[T any](obj any) (T, error) {
	t, ok := obj.(T)
	if !ok {
		return t, fmt.Errorf("reflector delivered a %T", obj)
	}
	return t, nil
}
