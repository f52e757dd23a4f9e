package fakeapi

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// store is the one owner of all objects. Every method wants mu held, and none of them blocks:
// watchers read the log at their own pace and find themselves cut when it has run away from them.
type store struct {
	mu      sync.Mutex
	rv      uint64 // one sequence for all resources
	tables  map[string]*table
	history int
	changed signal
}

// table is one resource's objects, and the log of what happened to them.
type table struct {
	res   *resource
	items map[types.NamespacedName]*version
	// log is append-only; readers keep slices of it. Entries at or below floor are gone.
	log   []event
	floor uint64
	// expired is the oldest resource version that a new watch may start at, if it is above floor.
	expired uint64
	changed signal
}

// event is one change. Of cur and prev at least one is set.
type event struct {
	rv   uint64
	cur  *version // nil: removed
	prev *version // nil: created
	last *version // prev at this event's resource version, for DELETED; nil: created
}

// signal wakes whoever waits, without knowing them. The zero value is ready.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns what the next fire closes. Get it before the look at what may change.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// firstVersion leaves room for versions that are too old: a server mostly starts where there are objects already.
const firstVersion = 1000

func newStore(history int, resources []*resource) *store {
	s := &store{rv: firstVersion, tables: map[string]*table{}, history: history}
	for _, r := range resources {
		s.tables[r.name] = &table{res: r, items: map[types.NamespacedName]*version{}, floor: firstVersion}
	}
	return s
}

// locked runs f with the store locked.
func locked[T any](s *Server, f func() (T, error)) (T, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return f()
}

func keyOf(o Object) types.NamespacedName {
	return named(o.GetNamespace(), o.GetName())
}

// get returns the stored version; its object must not be written.
func (s *store) get(resource string, key types.NamespacedName) (*version, error) {
	t := s.tables[resource]
	if v := t.items[key]; v != nil {
		return v, nil
	}
	return nil, apierrors.NewNotFound(t.res.group(), key.Name)
}

func named(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

// put stores obj, which the store owns from now on, as the newest state.
func (s *store) put(t *table, obj Object) *version {
	key := keyOf(obj)
	s.rv++
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	obj.SetResourceVersion(strconv.FormatUint(s.rv, 10))
	v, prev := &version{obj: obj, rv: s.rv}, t.items[key]
	t.items[key] = v
	s.append(t, event{rv: s.rv, cur: v, prev: prev, last: lastOf(prev, s.rv)})
	return v
}

// remove takes an object out and returns its last state at the resource version of the removal.
func (s *store) remove(t *table, v *version) *version {
	s.rv++
	delete(t.items, keyOf(v.obj))
	last := lastOf(v, s.rv)
	s.append(t, event{rv: s.rv, prev: v, last: last})
	return last
}

func lastOf(prev *version, rv uint64) *version {
	if prev == nil {
		return nil
	}
	obj := shallow(prev.obj)
	obj.SetResourceVersion(strconv.FormatUint(rv, 10))
	return &version{obj: obj, rv: rv, gone: true}
}

func (s *store) append(t *table, e event) {
	t.log = append(t.log, e)
	if len(t.log) >= 2*s.history { // trimmed by halves, so that appending stays cheap
		t.trim(len(t.log) - s.history)
	}
	t.changed.fire()
	s.changed.fire()
}

func (t *table) trim(n int) {
	if n > 0 {
		t.floor = t.log[n-1].rv
		t.log = slices.Clone(t.log[n:])
	}
}

// expire forgets all history, as a compaction does. The resource version moves on, so that even a client that had
// seen everything is too old now.
func (s *store) expire() {
	s.rv++
	for _, t := range s.tables {
		t.trim(len(t.log))
		t.expired = s.rv
	}
	s.changed.fire()
}

// checkAge is the error of a watch that wants to start at a forgotten resource version.
func (t *table) checkAge(rv uint64) error {
	if oldest := max(t.floor, t.expired); rv < oldest {
		return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", rv, oldest))
	}
	return nil
}

// since returns the events after rv, in order, and a channel that is closed at the next one; errCut if some of them are
// gone already.
func (t *table) since(rv uint64) ([]event, <-chan struct{}, error) {
	if rv < t.floor {
		return nil, nil, errCut
	}
	i := sort.Search(len(t.log), func(i int) bool { return t.log[i].rv > rv })
	return t.log[i:len(t.log):len(t.log)], t.changed.wait(), nil
}

// list returns all versions as they were at a resource version, which must be one of the past or of now, ordered as
// etcd's keys are.
func (t *table) list(rv uint64) ([]*version, error) {
	if rv < max(t.floor, t.expired) {
		return nil, apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
	}
	items := maps.Clone(t.items)
	for _, e := range slices.Backward(t.log) {
		switch {
		case e.rv <= rv: // nothing older has to be undone
			return sorted(items), nil
		case e.prev != nil:
			items[keyOf(e.prev.obj)] = e.prev
		default:
			delete(items, keyOf(e.cur.obj))
		}
	}
	return sorted(items), nil
}

func sorted(items map[types.NamespacedName]*version) []*version {
	return slices.SortedFunc(maps.Values(items), func(a, b *version) int { return cmp.Compare(a.key(), b.key()) })
}

// key is the object's as in etcd.
func (v *version) key() string { return keyOf(v.obj).String() }

// errTooLarge is the answer to a resource version that the server has not reached.
func errTooLarge(wanted, current uint64) error {
	e := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", wanted, current), 1)
	e.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return e
}
