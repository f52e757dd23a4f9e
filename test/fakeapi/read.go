package fakeapi

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	internalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// query is what a LIST or WATCH asks for.
type query struct {
	internalversion.ListOptions
	namespace string // "" is all
	rv        uint64 // 0 when none is given
}

// options reads and checks the list options of the URL.
func (c *call) options(t *table) (*query, error) {
	watchList := !c.s.opts.NoWatchList
	q := &query{namespace: c.Namespace}
	if err := internalscheme.ParameterCodec.DecodeParameters(c.r.URL.Query(), metav1.SchemeGroupVersion, &q.ListOptions); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	internalversion.SetListOptionsDefaults(&q.ListOptions, watchList)
	if errs := validation.ValidateListOptions(&q.ListOptions, watchList); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
	}
	if q.Continue != "" { // none was ever handed out
		return nil, apierrors.NewBadRequest("continue key is not valid")
	}
	if err := checkFields(t.res, q); err != nil {
		return nil, err
	}
	var err error
	q.rv, err = parseVersion(t.res, c.Name, q.ResourceVersion)
	return q, err
}

func checkFields(r *resource, q *query) error {
	if q.FieldSelector == nil {
		return nil
	}
	for _, req := range q.FieldSelector.Requirements() {
		if _, known := r.selectable(r.newObject(), req.Field); !known {
			return apierrors.NewBadRequest(fmt.Sprintf("field label not supported: %s", req.Field))
		}
	}
	return nil
}

func parseVersion(r *resource, name, rv string) (uint64, error) {
	if rv == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(rv, 10, 64)
	if err != nil {
		return 0, apierrors.NewInvalid(schema.GroupKind{Group: r.kind.Group, Kind: r.name}, name,
			field.ErrorList{field.Invalid(field.NewPath("resourceVersion"), rv, err.Error())})
	}
	return n, nil
}

// selects reports whether the query wants obj.
func (q *query) selects(r *resource, obj Object) bool {
	if q.namespace != "" && obj.GetNamespace() != q.namespace {
		return false
	}
	if q.LabelSelector != nil && !q.LabelSelector.Matches(labels.Set(obj.GetLabels())) {
		return false
	}
	return q.FieldSelector == nil || q.FieldSelector.Matches(fieldsIn{r, obj})
}

// fieldsIn shows an object's fields to a selector.
type fieldsIn struct {
	res *resource
	obj Object
}

func (f fieldsIn) Has(field string) bool   { _, ok := f.res.selectable(f.obj, field); return ok }
func (f fieldsIn) Get(field string) string { v, _ := f.res.selectable(f.obj, field); return v }

// reach waits until the store is at least at a resource version, as long as the real server does.
func (c *call) reach(rv uint64) error {
	deadline := time.NewTimer(c.s.freshness)
	defer deadline.Stop()
	for {
		c.s.store.mu.Lock()
		current, changed := c.s.store.rv, c.s.store.changed.wait()
		c.s.store.mu.Unlock()
		if current >= rv {
			return nil
		}
		select {
		case <-changed:
		case <-deadline.C:
			return errTooLarge(rv, current)
		case <-c.r.Context().Done():
			return c.r.Context().Err()
		case <-c.s.done:
			c.abort()
		}
	}
}

// get serves one object. A resource version is a lower bound.
func (c *call) get(t *table) error {
	rv, err := parseVersion(t.res, c.Name, c.r.URL.Query().Get("resourceVersion"))
	if err != nil {
		return err
	}
	if err := c.reach(rv); err != nil {
		return err
	}
	v, err := locked(c.s, func() (*version, error) { return c.s.store.get(t.res.name, c.key()) })
	if err != nil {
		return err
	}
	c.replyVersion(http.StatusOK, t.res, v)
	return nil
}

// list serves all matching objects in one piece: a limit is a wish that a server may ignore.
func (c *call) list(t *table) error {
	q, err := c.options(t)
	if err != nil {
		return err
	}
	if err := c.reach(q.rv); err != nil {
		return err
	}
	c.s.store.mu.Lock()
	all, rv := t.list(), c.s.store.rv
	c.s.store.mu.Unlock()
	if q.ResourceVersionMatch == metav1.ResourceVersionMatchExact && q.rv != rv {
		return apierrors.NewResourceExpired("The provided resource version is too old.") // no past is kept for LIST
	}
	c.reply(http.StatusOK, t.res.makeList(q.filter(t.res, all), strconv.FormatUint(rv, 10)))
	return nil
}

func (q *query) filter(r *resource, all []*version) []Object {
	out := make([]Object, 0, len(all))
	for _, v := range all {
		if q.selects(r, v.obj) {
			out = append(out, v.obj)
		}
	}
	return out
}
