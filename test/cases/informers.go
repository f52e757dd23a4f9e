package cases

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const (
	stormRounds  = 4
	stormChanges = 2_500 // of a round
	stormWorkers = 10
	stormObjects = 25 // of a worker
	stormSeed    = 37
)

func informersSurvive() Case {
	return Case{
		Group: watchGroup, Flags: late,
		Name: "stock informers in JSON and protobuf end equal to a LIST after 10,000 random changes, cut watches and 410s",
		Run:  storm,
	}
}

// storm changes ConfigMaps and pods while informers of both follow through a proxy that cuts their watches. In the first
// round each of them has to list anew, and may miss what was changed meanwhile. After it none may miss anything.
func storm(w *World) {
	proxy := newFlakyProxy(w)
	defer proxy.Close()
	var followers []*follower
	for _, mediaType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		followers = append(followers, w.follow(proxy, mediaType)...)
	}
	defer func() {
		for _, f := range followers {
			f.stop()
		}
	}()
	workers := w.newWorkers()
	for round := range stormRounds {
		var g errgroup.Group
		for _, worker := range workers {
			worker.made = map[string][]string{} // the versions of this round
			g.Go(func() error { return worker.change(w.Ctx, stormChanges/stormWorkers) })
		}
		w.must(g.Wait())
		want := w.state()
		for _, f := range followers {
			w.eventually(func() error { return f.compare(want[f.resource]) })
			for _, worker := range workers {
				if wrong := f.check(worker.made[f.resource], round > 0); len(wrong) > 0 {
					w.Fatalf("the informer of %s in round %d: %v", f.name, round, wrong)
				}
			}
		}
	}
	if cut, expired := proxy.cuts.Load(), proxy.expired.Load(); cut < 50 || int(expired) != len(followers) {
		w.Errorf("only %d watches were cut, and %d got a 410", cut, expired)
	}
}

// changer is a worker. It has objects of its own.
type changer struct {
	number  int
	random  *rand.Rand
	clients map[string]dynamic.ResourceInterface // by resource
	exists  map[string]bool
	done    int
	made    map[string][]string // the versions that it has made, by resource
}

func (w *World) newWorkers() []*changer {
	client, err := dynamic.NewForConfig(w.Admin)
	w.must(err)
	clients := map[string]dynamic.ResourceInterface{}
	for _, resource := range []string{"configmaps", "pods"} {
		clients[resource] = client.Resource(corev1.SchemeGroupVersion.WithResource(resource)).Namespace(w.NS)
	}
	var workers []*changer
	for n := range stormWorkers {
		workers = append(workers, &changer{number: n, random: rand.New(rand.NewPCG(stormSeed, uint64(n))), clients: clients, exists: map[string]bool{}})
	}
	return workers
}

// change makes n changes.
func (c *changer) change(ctx context.Context, n int) error {
	for range n {
		resource := []string{"configmaps", "configmaps", "configmaps", "pods"}[c.random.IntN(4)]
		name := fmt.Sprintf("%s-%d-%d", resource, c.number, c.random.IntN(stormObjects))
		if err := c.changeOne(ctx, resource, name); err != nil {
			return fmt.Errorf("change %s: %w", name, err)
		}
	}
	return nil
}

func (c *changer) changeOne(ctx context.Context, resource, name string) (err error) {
	client, made := c.clients[resource], &unstructured.Unstructured{}
	switch {
	case !c.exists[name]:
		made, err = client.Create(ctx, stormObject(resource, name), metav1.CreateOptions{})
		c.exists[name] = true
	case c.random.IntN(4) == 0:
		c.exists[name] = false
		return client.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
	default:
		c.done++
		patch := fmt.Sprintf(`{"metadata":{"annotations":{"change":"%d"}}}`, c.done)
		made, err = client.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	}
	if err == nil {
		c.made[resource] = append(c.made[resource], made.GetResourceVersion())
	}
	return err
}

func stormObject(resource, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}}
	if resource == "pods" {
		containers := []any{map[string]any{"name": "app", "image": "none.invalid/app"}}
		o.Object = map[string]any{"apiVersion": "v1", "kind": "Pod", "spec": map[string]any{"nodeName": "nowhere", "containers": containers}}
	}
	o.SetName(name)
	return o
}

// objects are those of a resource by their names.
type objects map[string]metav1.Object

// state is what LISTs say now.
func (w *World) state() map[string]objects {
	pods, err := w.Client.CoreV1().Pods(w.NS).List(w.Ctx, metav1.ListOptions{})
	w.must(err)
	out := map[string]objects{"pods": {}, "configmaps": {}}
	for i := range pods.Items {
		out["pods"][pods.Items[i].Name] = &pods.Items[i]
	}
	for _, cm := range w.listConfigMaps(metav1.ListOptions{}).Items {
		out["configmaps"][cm.Name] = &cm
	}
	return out
}

// follower is an informer, and what its handler was told.
type follower struct {
	name, resource string
	informer       cache.SharedIndexInformer
	stop           func()

	mu    sync.Mutex // guards what follows
	last  map[string]string
	seen  map[string]bool // versions
	wrong []string
}

// follow starts an informer of pods and one of ConfigMaps.
func (w *World) follow(proxy *flakyProxy, mediaType string) []*follower {
	var out []*follower
	for _, resource := range []string{"pods", "configmaps"} {
		f := &follower{name: resource + " in " + mediaType, resource: resource, last: map[string]string{}, seen: map[string]bool{}}
		client, err := kubernetes.NewForConfig(&rest.Config{Host: proxy.URL, UserAgent: f.name, ContentConfig: rest.ContentConfig{ContentType: mediaType}})
		w.must(err)
		factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(w.NS))
		if f.informer = factory.Core().V1().ConfigMaps().Informer(); resource == "pods" {
			f.informer = factory.Core().V1().Pods().Informer()
		}
		_, err = f.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: f.added, UpdateFunc: f.updated, DeleteFunc: f.deleted})
		w.must(err)
		ctx, cancel := context.WithCancel(w.Ctx)
		var running sync.WaitGroup
		running.Go(func() { f.informer.RunWithContext(ctx) })
		f.stop = func() { cancel(); running.Wait() }
		out = append(out, f)
	}
	return out
}

func (f *follower) added(o any) { f.told("", o.(metav1.Object), true) }

func (f *follower) updated(old, o any) {
	f.told(old.(metav1.Object).GetResourceVersion(), o.(metav1.Object), true)
}

func (f *follower) deleted(o any) {
	if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
		f.told(d.Obj.(metav1.Object).GetResourceVersion(), d.Obj.(metav1.Object), false)
		return
	}
	f.mu.Lock()
	old := f.last[o.(metav1.Object).GetName()]
	f.mu.Unlock()
	f.told(old, o.(metav1.Object), false)
}

// told notes an event, which must follow upon the last one of its object: version old, or "" for an object that is new.
func (f *follower) told(old string, o metav1.Object, there bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name, version := o.GetName(), o.GetResourceVersion()
	f.seen[version] = true
	if last := f.last[name]; last != old || len(version) < len(old) || len(version) == len(old) && version < old || !there && last == "" {
		f.wrong = append(f.wrong, fmt.Sprintf("%s: %q to %q (there: %v) after %q", name, old, version, there, last))
	}
	if f.last[name] = version; !there {
		delete(f.last, name)
	}
}

// check says what went wrong, which includes versions that it has not seen if it should have seen all of them.
func (f *follower) check(made []string, all bool) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	wrong := slices.Clone(f.wrong)
	for _, version := range made {
		if all && !f.seen[version] {
			wrong = append(wrong, "missed version "+version)
		}
	}
	return wrong
}

// compare says how the informer differs from what a LIST said.
func (f *follower) compare(want objects) error {
	f.mu.Lock()
	told := maps.Clone(f.last)
	f.mu.Unlock()
	if n := len(f.informer.GetStore().List()); n != len(want) || len(told) != n {
		return fmt.Errorf("the informer of %s has %d objects and told of %d, want %d", f.name, n, len(told), len(want))
	}
	for _, o := range f.informer.GetStore().List() {
		name := o.(metav1.Object).GetName()
		if w := want[name]; w == nil || !apiequality.Semantic.DeepEqual(o, w) || told[name] != w.GetResourceVersion() {
			return fmt.Errorf("the informer of %s has %s, want %s", f.name, name, w)
		}
	}
	return nil
}
